//! What browsers on other sites may do (the Fetch standard's CORS protocol), as the `cors` settings of a link say.
//!
//! Defaults are the first-party server's: every origin, the usual methods, the simple headers, no credentials. Pure.

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

use crate::error::{Error, Result};

/// Methods allowed where the link does not say.
const DEFAULT_METHODS: [Method; 6] =
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// Request headers allowed where the link does not say.
const DEFAULT_HEADERS: [HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE, header::CONTENT_LANGUAGE];

/// How long a browser may remember the answer to a preflight where the link does not say, seconds.
const DEFAULT_MAX_AGE_SECONDS: u64 = 300;

/// The cross-origin rules of one listener, with the header values they turn into made once.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Allowed origins in lower case; empty allows every origin.
    origins: Vec<String>,
    methods: Vec<Method>,
    headers: Vec<HeaderName>,
    methods_value: HeaderValue,
    headers_value: HeaderValue,
    exposed_value: Option<HeaderValue>,
    max_age_value: HeaderValue,
}

/// What a preflight request is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Preflight {
    /// Not a preflight: hand it to the actor.
    No,
    /// Allowed; the headers of [`Cors::answer_preflight`] say what.
    Allowed,
    /// Not allowed, and why.
    Refused(&'static str),
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods_value: list(DEFAULT_METHODS.iter().map(Method::as_str)),
            methods: DEFAULT_METHODS.to_vec(),
            headers_value: list(DEFAULT_HEADERS.iter().map(HeaderName::as_str)),
            headers: DEFAULT_HEADERS.to_vec(),
            exposed_value: None,
            max_age_value: HeaderValue::from(DEFAULT_MAX_AGE_SECONDS),
        }
    }
}

impl Cors {
    /// Allows only these origins; an empty list or `*` allows all.
    ///
    /// # Errors
    /// One of them is not `http[s]://host[:port]`.
    pub fn allow_origins(&mut self, origins: &[&str]) -> Result<()> {
        self.origins.clear();
        if origins.contains(&"*") {
            return Ok(());
        }
        for origin in origins {
            let trimmed = origin.strip_suffix('/').unwrap_or(origin).to_ascii_lowercase();
            let host = trimmed.strip_prefix("https://").or_else(|| trimmed.strip_prefix("http://")).unwrap_or("");
            let plain =
                !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
            if !plain {
                return Err(Error::config(format!(
                    "`cors.allowed_origins` holds `{origin}`: it must look like https://example.com or \
                     http://localhost:3000"
                )));
            }
            self.origins.push(trimmed);
        }
        Ok(())
    }

    /// Allows only these methods.
    pub fn allow_methods(&mut self, methods: Vec<Method>) {
        self.methods_value = list(methods.iter().map(Method::as_str));
        self.methods = methods;
    }

    /// Allows only these request headers.
    pub fn allow_headers(&mut self, headers: Vec<HeaderName>) {
        self.headers_value = list(headers.iter().map(HeaderName::as_str));
        self.headers = headers;
    }

    /// Lets scripts read these response headers.
    pub fn expose_headers(&mut self, headers: Vec<HeaderName>) {
        self.exposed_value = (!headers.is_empty()).then(|| list(headers.iter().map(HeaderName::as_str)));
    }

    /// Lets browsers remember the answer to a preflight for so many seconds.
    pub fn max_age(&mut self, seconds: u64) {
        self.max_age_value = HeaderValue::from(seconds);
    }

    /// Whether this is a preflight, and what to say to it.
    pub fn judge(&self, method: &Method, headers: &HeaderMap) -> Preflight {
        if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
            return Preflight::No;
        }
        let Some(wanted) = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD) else { return Preflight::No };
        if self.allowed_origin(headers).is_none() {
            return Preflight::Refused("this origin is not allowed\n");
        }
        if !self.methods.iter().any(|method| method.as_str().as_bytes() == wanted.as_bytes()) {
            return Preflight::Refused("this method is not allowed from another origin\n");
        }
        let allowed = |name: &str| self.headers.iter().any(|header| header.as_str().eq_ignore_ascii_case(name));
        for value in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            let Ok(names) = value.to_str() else { return Preflight::Refused("a header is not allowed\n") };
            if !names.split(',').map(str::trim).filter(|name| !name.is_empty()).all(allowed) {
                return Preflight::Refused("a header is not allowed from another origin\n");
            }
        }
        Preflight::Allowed
    }

    /// Adds what an allowed preflight is answered with.
    pub fn answer_preflight(&self, request: &HeaderMap, response: &mut HeaderMap) {
        self.mark(request, response);
        response.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.methods_value.clone());
        if !self.headers.is_empty() {
            response.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.headers_value.clone());
        }
        response.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age_value.clone());
    }

    /// Adds what every answer to a request from an allowed origin carries, unless the actor decided itself.
    pub fn mark(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if !request.contains_key(header::ORIGIN) {
            return;
        }
        if !self.origins.is_empty() {
            response.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            return;
        }
        let Some(origin) = self.allowed_origin(request) else { return };
        response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if let Some(exposed) = &self.exposed_value {
            response.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    /// The value of `Access-Control-Allow-Origin` for this request, if its origin is allowed.
    fn allowed_origin(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = request.get(header::ORIGIN)?;
        if self.origins.is_empty() {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(text)).then(|| origin.clone())
    }
}

/// Names as one comma list. They are tokens, so they always make a header value.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> HeaderValue {
    let text = names.collect::<Vec<_>>().join(",");
    HeaderValue::from_str(&text).expect("method and header names are visible ASCII")
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, Method, header};

    use super::{Cors, Preflight};

    fn request(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn preflight(origin: &str, method: &str) -> HeaderMap {
        request(&[(header::ORIGIN, origin), (header::ACCESS_CONTROL_REQUEST_METHOD, method)])
    }

    #[test]
    fn origins_are_compared_whole_and_without_case() {
        let mut cors = Cors::default();
        cors.allow_origins(&["HTTPS://Good.Example/", "http://localhost:3000"]).unwrap();
        for (origin, allowed) in [
            ("https://good.example", true),
            ("http://localhost:3000", true),
            ("http://localhost", false),
            ("http://localhost:30000", false),
            ("http://good.example", false),
            ("https://good.example.evil.org", false),
            ("https://evil.org/https://good.example", false),
            ("null", false),
            ("", false),
        ] {
            let verdict = cors.judge(&Method::OPTIONS, &preflight(origin, "GET"));
            assert_eq!(verdict == Preflight::Allowed, allowed, "{origin}");
            let mut response = HeaderMap::new();
            cors.mark(&request(&[(header::ORIGIN, origin)]), &mut response);
            assert_eq!(response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), allowed, "{origin}");
            assert_eq!(response[header::VARY], "origin", "caches must know that the answer depends on it");
        }
    }

    #[test]
    fn a_star_and_an_empty_list_allow_all() {
        for origins in [&["*"][..], &[]] {
            let mut cors = Cors::default();
            cors.allow_origins(origins).unwrap();
            assert_eq!(cors.judge(&Method::OPTIONS, &preflight("https://any.example", "PUT")), Preflight::Allowed);
        }
    }

    #[test]
    fn only_an_options_request_that_asks_is_a_preflight() {
        let cors = Cors::default();
        assert_eq!(cors.judge(&Method::GET, &preflight("https://a.example", "GET")), Preflight::No);
        assert_eq!(cors.judge(&Method::OPTIONS, &HeaderMap::new()), Preflight::No);
        let no_method = request(&[(header::ORIGIN, "https://a.example")]);
        assert_eq!(cors.judge(&Method::OPTIONS, &no_method), Preflight::No);
        let lower_case = cors.judge(&Method::OPTIONS, &preflight("https://a.example", "put"));
        assert!(matches!(lower_case, Preflight::Refused(_)), "methods have case");
    }

    #[test]
    fn an_actor_that_decides_itself_is_left_alone() {
        let mut response = request(&[(header::ACCESS_CONTROL_ALLOW_ORIGIN, "https://own.example")]);
        Cors::default().mark(&request(&[(header::ORIGIN, "https://a.example")]), &mut response);
        assert_eq!(response.get_all(header::ACCESS_CONTROL_ALLOW_ORIGIN).iter().count(), 1);
        assert_eq!(response[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://own.example");
    }
}
