//! One request with its redirects, on a blocking thread: check, connect, send, read, and again.
//!
//! Nothing here outlives its deadline except a name server that does not answer, which the C library ends on its own.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, Proxy, SendBody,
    config::Config,
    http::{Method, Request, Response},
    unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector},
};

use super::{
    hop::{Hop, hop_by_hop},
    settings::{BUFFER_BYTES, IDLE_CONNECTIONS_MAX, RESPONSE_HEAD_BYTES_MAX, Settings},
};
use crate::{
    allowed_hosts::AllowedHosts,
    error::{Error, Kind, Result},
    guarded_resolver::{AddressRules, GuardedResolver},
    trust::{TlsConnector, Trust},
    wire::interface::{HttpClientRequest, HttpResponse},
};

/// What requests call themselves unless the actor says otherwise.
const USER_AGENT: &str = concat!("latticed/", env!("CARGO_PKG_VERSION"));

/// Everything a link's requests share.
#[derive(Debug)]
pub struct Exchange {
    agent: Agent,
    rules: Arc<LinkRules>,
    settings: Arc<Settings>,
}

impl Exchange {
    /// Requests to hosts that `rules` allow, through `proxy` if there is one, trusting `trust`.
    pub fn new(settings: Arc<Settings>, rules: LinkRules, trust: Arc<Trust>, proxy: Option<Proxy>) -> Self {
        let rules = Arc::new(rules);
        let resolver = GuardedResolver {
            rules: Arc::<LinkRules>::clone(&rules),
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
        let tls = TlsConnector { trust, buffer_bytes: BUFFER_BYTES };
        let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
        Self { agent: Agent::with_parts(config, connector, resolver), rules, settings }
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
        self.rules.check(host, port)?;
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

/// Where the requests of a link may lead.
#[derive(Debug)]
pub struct LinkRules {
    /// What the link says.
    pub link: AllowedHosts,
    /// What the board allows beside that, for a link that came over the lattice: both must allow it.
    pub board: Option<AllowedHosts>,
}

/// What to do where the board does not allow it.
const REMEDY: &str = "the link came over the lattice: name it in WASMCLOUD_REMOTE_FETCH_ALLOW on this board, set \
                      WASMCLOUD_REMOTE=full there, or put the link into a manifest of the board";

impl LinkRules {
    fn check(&self, host: &str, port: u16) -> Result<()> {
        if !self.link.allows_host(host, port) {
            return Err(Error::denied(format!(
                "{host}:{port} is not among the hosts this link allows: add it to the link value `allowed_hosts`"
            )));
        }
        if self.board.as_ref().is_some_and(|board| !board.allows_host(host, port)) {
            return Err(Error::denied(format!("{host}:{port} may not be reached: {REMEDY}")));
        }
        Ok(())
    }
}

impl AddressRules for LinkRules {
    fn allows(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let allows = |rules: &AllowedHosts| rules.allows_address(host, port, address);
        allows(&self.link) && self.board.as_ref().is_none_or(allows)
    }

    fn refusal(&self, host: &str) -> Error {
        match self.board {
            None => Error::denied(format!(
                "every address of {host} lies in a network that actors may not reach: list the address itself in the \
                 link value `allowed_hosts` if they should"
            )),
            Some(_) => Error::denied(format!(
                "every address of {host} lies in a network that this link may not reach; {REMEDY}"
            )),
        }
    }
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
