//! One request with its redirects, on a blocking thread: check, connect, send, read, and again.
//!
//! Nothing here outlives its deadline except a name server that does not answer, which the C library ends on its own.

use std::{
    net::ToSocketAddrs,
    sync::Arc,
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, Proxy, SendBody,
    config::Config,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
        uri::{Authority, Scheme},
    },
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{ConnectProxyConnector, Connector, NextTimeout, TcpConnector},
    },
};

use super::{
    allowed::AllowedHosts,
    location,
    settings::{BUFFER_BYTES, IDLE_CONNECTIONS_MAX, RESPONSE_HEAD_BYTES_MAX, Settings},
    tls::{TlsConnector, Trust},
};
use crate::{
    error::{Error, Kind, Result},
    wire::interface::{HttpClientRequest, HttpResponse},
};

/// Addresses of one host that are tried. ureq takes no more than 16.
const ADDRESSES_MAX: usize = 16;

/// What requests call themselves unless the actor says otherwise.
const USER_AGENT: &str = concat!("latticed/", env!("CARGO_PKG_VERSION"));

/// Everything a link's requests share.
#[derive(Debug)]
pub struct Exchange {
    agent: Agent,
    allowed: Arc<AllowedHosts>,
    settings: Arc<Settings>,
}

impl Exchange {
    /// Requests to `allowed` hosts, through `proxy` if there is one, trusting `trust`.
    pub fn new(settings: Arc<Settings>, allowed: AllowedHosts, trust: Arc<Trust>, proxy: Option<Proxy>) -> Self {
        let allowed = Arc::new(allowed);
        let resolver = GuardedResolver {
            allowed: Arc::clone(&allowed),
            proxy: proxy.as_ref().map(|proxy| (proxy.host().to_owned(), proxy.port())),
        };
        let config = Config::builder()
            .proxy(proxy)
            .http_status_as_error(false)
            // Each hop is checked here; ureq must follow none by itself.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .user_agent(USER_AGENT)
            .max_response_header_size(RESPONSE_HEAD_BYTES_MAX)
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_idle_connections(IDLE_CONNECTIONS_MAX)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(TlsConnector(trust));
        Self { agent: Agent::with_parts(config, connector, resolver), allowed, settings }
    }

    /// Runs `request` to its last answer.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a malformed request, [`Kind::Denied`] for a host that is not allowed, [`Kind::Limit`] for a
    /// body or a chain of redirects that is too long, [`Kind::Timeout`], and [`Kind::Unavailable`] for everything the
    /// network does. An answer of any status is no error.
    pub fn run(&self, request: HttpClientRequest, deadline: Instant) -> Result<HttpResponse> {
        let limit = self.settings.request_bytes_max;
        if request.body.len() > limit {
            return Err(Error::limit(format!(
                "the request body has {} bytes and an HTTP client request may have {limit}",
                request.body.len()
            )));
        }
        let mut hop = Hop::new(request)?;
        let mut redirects = 0;
        loop {
            let response = self.ask(&hop, deadline).map_err(|error| error.context(hop.target()))?;
            let Some(next) = hop.redirected(&response)? else {
                return self.read(response, deadline).map_err(|error| error.context(hop.target()));
            };
            redirects += 1;
            if redirects > self.settings.redirects_max {
                return Err(Error::limit(format!(
                    "{} redirected more than {} times",
                    hop.target(),
                    self.settings.redirects_max
                )));
            }
            hop = next;
        }
    }

    fn ask(&self, hop: &Hop, deadline: Instant) -> Result<Response<Body>> {
        let (host, port) = hop.host_and_port();
        if !self.allowed.allows_host(host, port) {
            return Err(not_allowed(host, port));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::timeout("the time was up before the request could be sent"));
        }
        let mut request = Request::builder().method(hop.method.clone()).uri(hop.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.clone_from(&hop.headers);
        }
        // A body is announced where there is one, or where a method without one would be unusual.
        let wants_body = [Method::POST, Method::PUT, Method::PATCH].contains(&hop.method);
        let answered = if hop.body.is_empty() && !wants_body {
            let request = request.body(SendBody::none()).map_err(|cause| Error::invalid(cause.to_string()))?;
            self.agent.run(self.with_times(request, left))
        } else {
            let request = request.body(hop.body.as_slice()).map_err(|cause| Error::invalid(cause.to_string()))?;
            self.agent.run(self.with_times(request, left))
        };
        answered.map_err(|cause| translate(cause, self.settings.response_bytes_max))
    }

    fn with_times<B: ureq::AsSendBody>(&self, request: Request<B>, left: Duration) -> Request<B> {
        self.agent
            .configure_request(request)
            .timeout_global(Some(left))
            .timeout_connect(Some(left.min(self.settings.connect_timeout)))
            .build()
    }

    fn read(&self, response: Response<Body>, deadline: Instant) -> Result<HttpResponse> {
        let limit = self.settings.response_bytes_max;
        let (parts, mut body) = response.into_parts();
        if body.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large(limit));
        }
        // ureq calls a body of exactly its limit too large.
        let bytes =
            body.with_config().limit(limit as u64 + 1).read_to_vec().map_err(|cause| translate(cause, limit))?;
        if bytes.len() > limit {
            return Err(too_large(limit));
        }
        if Instant::now() > deadline {
            return Err(Error::timeout("the time was up before the whole answer had come"));
        }
        let mut answer = HttpResponse { status_code: parts.status.as_u16(), body: bytes, ..HttpResponse::default() };
        let dropped = hop_by_hop(&parts.headers);
        for (name, value) in &parts.headers {
            // Actors read headers as text; the few that are none are left out, as the first-party provider does.
            if let Ok(text) = value.to_str()
                && !dropped.contains(name)
            {
                answer.header.entry(name.as_str().to_owned()).or_default().push(text.to_owned());
            }
        }
        Ok(answer)
    }
}

/// One request of a chain of redirects.
struct Hop {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Hop {
    fn new(request: HttpClientRequest) -> Result<Self> {
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|_| Error::invalid(format!("{:?} is no HTTP method", request.method)))?;
        if method == Method::CONNECT || method == Method::TRACE {
            return Err(Error::denied(format!("{method} is not for actors")));
        }
        // Not the URL itself: it may hold a password.
        let uri: Uri = request
            .url
            .split('#')
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|cause| Error::invalid(format!("the URL of the request cannot be read: {cause}")))?;
        let mut headers = HeaderMap::new();
        for (name, values) in request.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| Error::invalid(format!("{name:?} is no header name")))?;
            for value in values {
                let value = HeaderValue::from_str(&value).map_err(|_| {
                    Error::invalid(format!("the value of {parsed} holds characters no header may hold"))
                })?;
                headers.append(parsed.clone(), value);
            }
        }
        for name in hop_by_hop(&headers) {
            headers.remove(name);
        }
        // Said by the URL and the body; another `Host` would reach what the list does not allow on a shared address.
        for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
            headers.remove(name);
        }
        let hop = Self { method, uri, headers, body: request.body };
        hop.check()?;
        Ok(hop)
    }

    /// Whether the URL is one this client asks.
    fn check(&self) -> Result<()> {
        let known = self.uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        if !known || self.uri.host().is_none_or(str::is_empty) {
            return Err(Error::invalid("the URL of a request must begin with http:// or https:// and name a host"));
        }
        // A port that is none would silently become the default one.
        let after_host =
            self.uri.authority().map_or("", |authority| authority.as_str().rsplit(['@', ']']).next().unwrap_or(""));
        let port = after_host.rsplit_once(':').map_or("", |(_, port)| port);
        if !port.is_empty() && self.uri.port_u16().is_none() {
            return Err(Error::invalid("the port in the URL of a request must be a number from 0 to 65535"));
        }
        Ok(())
    }

    fn host_and_port(&self) -> (&str, u16) {
        let default = if self.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        (self.uri.host().unwrap_or_default(), self.uri.port_u16().unwrap_or(default))
    }

    /// Scheme, host and port: what an error may tell. Paths and queries may hold secrets.
    fn target(&self) -> String {
        let (host, port) = self.host_and_port();
        format!("{}://{host}:{port}", self.uri.scheme_str().unwrap_or_default())
    }

    /// The next request, if `response` asks for one (RFC 9110 §15.4).
    fn redirected(&self, response: &Response<Body>) -> Result<Option<Self>> {
        let (keep_method, keep_body) = match response.status() {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => {
                (self.method != Method::POST, self.method != Method::POST)
            }
            StatusCode::SEE_OTHER => (self.method == Method::HEAD, false),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => (true, true),
            _ => return Ok(None),
        };
        let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
        let uri = location.to_str().ok().and_then(|location| location::resolve(&self.uri, location));
        let Some(uri) = uri else {
            return Err(Error::unavailable(format!("{} redirected to something that is no URL", self.target())));
        };
        let mut next = Self {
            method: if keep_method { self.method.clone() } else { Method::GET },
            uri,
            headers: self.headers.clone(),
            body: if keep_body { self.body.clone() } else { Vec::new() },
        };
        next.check().map_err(|error| error.context(format_args!("{} redirected elsewhere", self.target())))?;
        if self.uri.scheme() == Some(&Scheme::HTTPS) && next.uri.scheme() == Some(&Scheme::HTTP) {
            return Err(Error::denied(format!(
                "{} redirected to plain {}: a request that began with TLS does not go on without it",
                self.target(),
                next.target()
            )));
        }
        if !keep_body {
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                next.headers.remove(name);
            }
        }
        if self.target() != next.target() {
            for name in [header::AUTHORIZATION, header::COOKIE] {
                next.headers.remove(name);
            }
        }
        Ok(Some(next))
    }
}

/// The headers that speak about one connection, those that `Connection` names among them (RFC 9110 §7.6.1).
fn hop_by_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names = vec![
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for value in headers.get_all(header::CONNECTION) {
        let listed = value.to_str().unwrap_or_default().split(',');
        names.extend(listed.filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok()));
    }
    names
}

/// Resolves names and keeps only the addresses that the list allows: the last word, after every redirect and whatever a
/// name server says.
#[derive(Debug)]
struct GuardedResolver {
    allowed: Arc<AllowedHosts>,
    /// The proxy of the operator's choice may be anywhere.
    proxy: Option<(String, u16)>,
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.authority().map(Authority::host).unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let to_proxy = self.proxy.as_ref().is_some_and(|(name, at)| name == host && *at == port);
        let mut found = false;
        let mut addresses = self.empty();
        for address in (bare, port).to_socket_addrs()? {
            found = true;
            let allowed = to_proxy || self.allowed.allows_address(bare, port, address.ip());
            if allowed && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        if !found {
            return Err(ureq::Error::HostNotFound);
        }
        Err(ureq::Error::Other(Box::new(Error::denied(format!(
            "every address of {bare} lies in a network that actors may not reach: list the address itself in the link \
             value `allowed_hosts` if they should"
        )))))
    }
}

fn not_allowed(host: &str, port: u16) -> Error {
    Error::denied(format!(
        "{host}:{port} is not among the hosts this link allows: add it to the link value `allowed_hosts`"
    ))
}

fn too_large(limit: usize) -> Error {
    Error::limit(format!("the answer is larger than the {limit} bytes an HTTP client answer may have"))
}

fn translate(cause: ureq::Error, limit: usize) -> Error {
    match cause {
        ureq::Error::Timeout(what) => Error::timeout(format!("no answer in time ({what})")),
        ureq::Error::BodyExceedsLimit(_) => too_large(limit),
        ureq::Error::LargeResponseHeader(..) => {
            Error::limit(format!("the head of the answer is larger than {RESPONSE_HEAD_BYTES_MAX} bytes"))
        }
        ureq::Error::Http(cause) => Error::invalid(cause.to_string()),
        ureq::Error::BadUri(cause) => Error::invalid(cause),
        ureq::Error::Other(cause) => match cause.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::unavailable(other.to_string()),
        },
        other => Error::new(Kind::Unavailable, other.to_string()),
    }
}
