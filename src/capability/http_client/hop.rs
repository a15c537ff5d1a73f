//! One request of a chain of redirects: made from what the actor asked, then from where the last answer pointed.
//!
//! Decides which headers and methods travel on (RFC 9110). Pure; `exchange` sends it and checks its host.

use ureq::{
    Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header, uri::Scheme},
};

use crate::{
    error::{Error, Result},
    redirect,
    wire::interface::HttpClientRequest,
};

/// One request of a chain of redirects.
pub struct Hop {
    /// As the actor wrote it, or as the redirect changed it.
    pub method: Method,
    /// Absolute, `http` or `https`, with a host.
    pub uri: Uri,
    /// Without those that belong to a connection.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Hop {
    /// The first request: what the actor asked for.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`] for what HTTP cannot carry, [`crate::error::Kind::Denied`] for methods that are
    /// not for actors.
    pub fn new(request: HttpClientRequest) -> Result<Self> {
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

    /// Whom to ask; the port is the scheme's where the URL has none.
    pub fn host_and_port(&self) -> (&str, u16) {
        let default = if self.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        (self.uri.host().unwrap_or_default(), self.uri.port_u16().unwrap_or(default))
    }

    /// Scheme, host and port: what an error may tell. Paths and queries may hold secrets.
    pub fn target(&self) -> String {
        let (host, port) = self.host_and_port();
        format!("{}://{host}:{port}", self.uri.scheme_str().unwrap_or_default())
    }

    /// The next request, if `response` asks for one (RFC 9110 §15.4).
    ///
    /// # Errors
    /// It asks for something that is no URL, or to go on without TLS.
    pub fn redirected(&self, response: &Response<Body>) -> Result<Option<Self>> {
        let (keep_method, keep_body) = match response.status() {
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => {
                (self.method != Method::POST, self.method != Method::POST)
            }
            StatusCode::SEE_OTHER => (self.method == Method::HEAD, false),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => (true, true),
            _ => return Ok(None),
        };
        let Some(location) = response.headers().get(header::LOCATION) else { return Ok(None) };
        let uri = location.to_str().ok().and_then(|location| redirect::resolve(&self.uri, location));
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
pub fn hop_by_hop(headers: &HeaderMap) -> Vec<HeaderName> {
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
