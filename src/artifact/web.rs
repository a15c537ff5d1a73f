//! HTTP as sources of artifacts use it: one agent for one attempt, answers told apart, bodies poured into the store.
//!
//! ureq, as it is linked anyway for telemetry and the HTTP client of actors; a client library for registries would bring
//! an asynchronous HTTP stack of its own, twice the size of all of this program's sources together. Everything here blocks.
//!
//! It asks [`FetchRules`] before each request and for each address. It never follows HTTPS down to HTTP, never sends a login on to where a redirect leads, and never decodes a body: what
//! arrives is hashed as it is.

use std::{
    env,
    io::Read,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, Proxy,
    config::Config,
    http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header, uri::Scheme},
    unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector},
};

use crate::{
    artifact::{FetchRules, Received, Settings, Wanted},
    error::{Error, Result},
    guarded_resolver::{GuardedResolver, bare, port_of},
    redirect,
    trust::{TlsConnector, Trust},
};

/// How errors name the setting with more roots.
const CA_FILE: &str = "WASMCLOUD_ARTIFACT_CA_FILE";

/// How much is read at once, bytes: enough that system calls do not count, little beside the guest's memory.
const PIECE_BYTES: usize = 16 << 10;

/// Read and write buffer of a connection, bytes; an answer's head must fit. Clouds send up to 8 KiB of signed addresses.
const BUFFER_BYTES: usize = 16 << 10;

/// How long a connection may take to come about, address look-up and TLS included.
const CONNECT: Duration = Duration::from_secs(20);

/// How long the server may think before its answer begins.
const ANSWER: Duration = Duration::from_secs(60);

/// Redirects that are followed. Servers send one or two on to their storage; more are a loop.
const MAX_REDIRECTS: u32 = 5;

/// How much of what a server says of its refusal is repeated, characters.
const SAID_CHARACTERS: usize = 200;

/// How much of it is read, bytes.
const SAID_BYTES: u64 = 4096;

/// Connections for one attempt.
pub struct Web {
    agent: Agent,
    secure: bool,
    rules: Arc<FetchRules>,
    proxy: Option<Proxy>,
}

impl Web {
    /// For one attempt that ends by `deadline` and goes where `rules` let it; with `secure` nothing but HTTPS is spoken.
    ///
    /// # Errors
    /// `Config` for a CA file that cannot be used, or a proxy in the environment that is none.
    pub fn new(settings: &Settings, secure: bool, deadline: Instant, rules: Arc<FetchRules>) -> Result<Self> {
        // Anew for each attempt: they are rare, and certificates may have been replaced since the one before.
        let trust = match &settings.ca_file {
            Some(path) => Trust::with_file(path, CA_FILE)?,
            None => Trust::platform(CA_FILE),
        };
        let proxy = proxy(secure)?;
        let config = Config::builder()
            .https_only(secure)
            .proxy(proxy.clone())
            .http_status_as_error(false)
            // Each is checked and followed here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(settings.idle))
            .timeout_global(Some(deadline.saturating_duration_since(Instant::now())))
            .input_buffer_size(BUFFER_BYTES)
            .output_buffer_size(BUFFER_BYTES)
            .max_response_header_size(BUFFER_BYTES)
            .user_agent(concat!("latticed/", env!("CARGO_PKG_VERSION")))
            .build();
        let tls = TlsConnector { trust: Arc::new(trust), buffer_bytes: BUFFER_BYTES };
        let connector = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
        let resolver = GuardedResolver {
            rules: rules.clone(),
            proxy: proxy.as_ref().map(|proxy| (proxy.host().to_owned(), proxy.port())),
        };
        Ok(Self { agent: Agent::with_parts(config, connector, resolver), secure, rules, proxy })
    }

    /// Asks for `address` with `headers`; an answer of any status is no error.
    ///
    /// # Errors
    /// `Timeout`, `Unavailable` for what the network does, `Denied` and `Invalid` for redirects that are not followed;
    /// `Denied` for an address that may not be reached.
    pub fn get(&self, address: &str, headers: &[(header::HeaderName, String)]) -> Result<Response<Body>> {
        self.ask(&Method::GET, address, headers)
    }

    /// As [`Web::get`], for the head of the answer alone.
    ///
    /// # Errors
    /// As [`Web::get`].
    pub fn head(&self, address: &str, headers: &[(header::HeaderName, String)]) -> Result<Response<Body>> {
        self.ask(&Method::HEAD, address, headers)
    }

    fn ask(&self, method: &Method, address: &str, headers: &[(header::HeaderName, String)]) -> Result<Response<Body>> {
        let place = place_of(address);
        let mut uri: Uri =
            address.parse().map_err(|cause| Error::invalid(format!("the address is malformed: {cause}")))?;
        for hop in 0..=MAX_REDIRECTS {
            let by_proxy = self.proxy.as_ref().is_some_and(|proxy| !proxy.resolve_target() && !proxy.is_no_proxy(&uri));
            self.rules.check(bare(uri.host().unwrap_or_default()), port_of(&uri), by_proxy)?;
            let mut request = Request::builder().method(method).uri(&uri);
            // A login is for whom it was meant, not for where that one sends on to.
            for (name, value) in headers.iter().filter(|(name, _)| hop == 0 || *name != header::AUTHORIZATION) {
                request = request.header(name, value);
            }
            let request =
                request.body(()).map_err(|cause| Error::invalid(format!("the address is malformed: {cause}")))?;
            let mut response = self.agent.run(request).map_err(|cause| translate(&cause, place))?;
            let Some(location) = redirection(&response) else {
                if hop > 0 {
                    response.extensions_mut().insert(Redirected);
                }
                return Ok(response);
            };
            let next = location.to_str().ok().and_then(|location| redirect::resolve(&uri, location));
            uri = next.ok_or_else(|| Error::invalid(format!("{place} redirects to nowhere; check the reference")))?;
            if self.secure && uri.scheme() != Some(&Scheme::HTTPS) {
                return Err(leaves_https(place));
            }
        }
        Err(Error::invalid(format!("{place} redirects more than {MAX_REDIRECTS} times; check the reference")))
    }
}

/// Marks an answer that came from where another one sent on to.
#[derive(Clone, Copy)]
struct Redirected;

/// Whether `response` came from where another one sent on to.
pub fn was_redirected(response: &Response<Body>) -> bool {
    response.extensions().get::<Redirected>().is_some()
}

/// Where `response` sends on to.
fn redirection(response: &Response<Body>) -> Option<&header::HeaderValue> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    response.headers().get(header::LOCATION).filter(|_| redirects)
}

fn leaves_https(place: &str) -> Error {
    Error::denied(format!(
        "{place} redirects away from HTTPS, which is not followed; ask whoever runs it for an address that stays there"
    ))
}

/// Host and port in `address`.
fn place_of(address: &str) -> &str {
    let place = address.split_once("://").map_or(address, |(_, rest)| rest);
    place.split(['/', '?']).next().unwrap_or(place)
}

/// The proxy that the environment names for addresses with or without TLS, as curl reads it.
fn proxy(secure: bool) -> Result<Option<Proxy>> {
    let names = match secure {
        true => ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"],
        false => ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"],
    };
    let value = |name: &'static str| env::var(name).ok().filter(|value| !value.is_empty()).map(|value| (name, value));
    let Some((name, text)) = names.into_iter().find_map(value) else { return Ok(None) };
    // The value may hold a password, so it is not shown.
    let refuse = |_| {
        Error::config(format!("the environment variable {name} names no proxy; write http://[USER:PASSWORD@]HOST:PORT"))
    };
    let plain = Proxy::new(&text).map_err(refuse)?;
    let mut builder = Proxy::builder(plain.protocol()).host(plain.host()).port(plain.port());
    if let Some(user) = plain.username() {
        builder = builder.username(user);
    }
    if let Some(password) = plain.password() {
        builder = builder.password(password);
    }
    let except = ["NO_PROXY", "no_proxy"].iter().find_map(|name| env::var(name).ok()).unwrap_or_default();
    for place in except.split(',').map(str::trim).filter(|place| !place.is_empty()) {
        builder = builder.no_proxy(place);
    }
    builder.build().map(Some).map_err(refuse)
}

/// What a refusal is about, for its text: `the registry HOST`, and what was asked there.
pub struct Asker<'a> {
    /// Who answered.
    pub who: &'a str,
    /// What for, to be read after "answered 404 for".
    pub what: &'a str,
    /// What an operator can do about a refused login.
    pub login_remedy: &'a str,
}

/// What a status other than success means; with the time to wait where the server names one.
pub fn refusal(asker: &Asker<'_>, response: Response<Body>) -> (Error, Option<Duration>) {
    let status = response.status().as_u16();
    let after = retry_after(response.headers());
    let said = said(response);
    let begin = format!("{} answered {status} for {}{said}", asker.who, asker.what);
    let error = match status {
        404 | 410 => Error::not_found(format!("{begin}; it is not there: check the reference")),
        401 | 403 => Error::denied(format!("{begin}; {}", asker.login_remedy)),
        429 => Error::unavailable(format!("{begin}; it is asked too often")),
        408 | 425 | 500..=599 => Error::unavailable(format!("{begin}; it cannot serve now")),
        _ => Error::invalid(format!("{begin}, which is no answer to that; check the reference")),
    };
    (error, after.filter(|_| matches!(status, 408 | 425 | 429 | 500..=599)))
}

/// What the server says itself, in one short line, after a colon: the messages of a registry, or the beginning of a text.
fn said(mut response: Response<Body>) -> String {
    let body = response.body_mut().with_config().limit(SAID_BYTES).read_to_vec().unwrap_or_default();
    let messages = serde_json::from_slice::<serde_json::Value>(&body).ok().and_then(|body| {
        let texts = body.get("errors")?.as_array()?.iter().filter_map(|error| error.get("message")?.as_str());
        Some(texts.collect::<Vec<_>>().join(", "))
    });
    let text = messages.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body);
        // A page for browsers says nothing in a line.
        if text.trim_start().starts_with(['<', '{']) { String::new() } else { text.into_owned() }
    });
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().filter(|character| !character.is_control()).take(SAID_CHARACTERS).collect();
    if line.is_empty() { String::new() } else { format!(": {line:?}") }
}

/// When to ask again, by the server's own word: seconds, or a date, which counts from the server's own clock.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let now = date(headers.get(header::DATE)?.to_str().ok()?)?;
    // A date that has passed: at once.
    Some(date(text)?.duration_since(now).unwrap_or_default())
}

/// All of a small body, of at most `limit` bytes. `what` names it in errors.
///
/// # Errors
/// `Limit` for more; `Unavailable` when it breaks off.
pub fn read_whole(response: Response<Body>, what: &str, limit: u64) -> Result<Vec<u8>> {
    let too_large = || Error::limit(format!("{what} is larger than {limit} bytes: it is no artifact's"));
    if response.body().content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    // ureq calls a body of exactly its limit too large.
    match response.into_body().into_with_config().limit(limit + 1).read_to_vec() {
        Ok(bytes) if bytes.len() as u64 <= limit => Ok(bytes),
        Ok(_) | Err(ureq::Error::BodyExceedsLimit(_)) => Err(too_large()),
        Err(cause) => Err(Error::unavailable(format!("{what} broke off: {cause}"))),
    }
}

/// Asks for content from where the store has it, by `ask`, which is given the headers that say so, and pours it in. One
/// attempt.
///
/// # Errors
/// As [`Origin::fetch`](crate::artifact::Origin::fetch).
pub fn fetch(
    ask: impl FnOnce(&[(header::HeaderName, String)]) -> Result<Response<Body>>,
    asker: &Asker<'_>,
    wanted: Wanted,
) -> Result<Received> {
    let Wanted { mut into, content, pace, .. } = wanted;
    let at = into.received();
    let mut headers = vec![(header::ACCEPT_ENCODING, "identity".to_owned())];
    if at > 0 {
        headers.push((header::RANGE, format!("bytes={at}-")));
        if let Some(validator) = into.validator() {
            headers.push((header::IF_RANGE, validator.to_owned()));
        }
    }
    let response = ask(&headers)?;
    let validator = strong_etag(response.headers());
    // What is there already and comes again, because the server gives nothing but all of it.
    let mut skip = 0;
    match response.status().as_u16() {
        200 => {
            // What the source said before is what counts: an answer that ends early may say so politely.
            let total = content.bytes.or(response.body().content_length());
            skip = into.begin(validator.as_deref(), total)?;
        }
        206 if at > 0 => {
            let (start, total) = content_range(response.headers()).unwrap_or((u64::MAX, None));
            let validator = validator.or_else(|| into.validator().map(str::to_owned));
            if start != at || into.begin(validator.as_deref(), content.bytes.or(total))? != at {
                into.restart();
                return Err(Error::unavailable(format!("{} gave another part than was asked for", asker.who)));
            }
        }
        // All of it is here: what was cut off was only the end of the answer.
        416 if at > 0 && unsatisfied_total(response.headers()).or(into.total()) == Some(at) => {
            return Ok(Received::Content(into, None));
        }
        416 if at > 0 => {
            into.restart();
            return Err(Error::unavailable(format!("{} has less of it than is here already", asker.who)));
        }
        _ => {
            let (error, after) = refusal(asker, response);
            return after.map_or(Err(error.clone()), |after| Ok(Received::Later(error, after)));
        }
    }
    let mut reader = response.into_body().into_reader();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length =
            reader.read(&mut piece).map_err(|cause| broken_off(asker, into.received(), into.total(), &cause))?;
        if length == 0 {
            break;
        }
        let known = usize::try_from(skip).unwrap_or(length).min(length);
        skip -= known as u64;
        into.write(&piece[known..length])?;
        let wait = pace.take(length as u64, Instant::now());
        if !wait.is_zero() {
            thread::sleep(wait);
        }
    }
    match into.total() {
        Some(total) if total != into.received() => Err(Error::unavailable(format!(
            "{} ended the answer after {} of {total} bytes",
            asker.who,
            into.received()
        ))),
        _ => Ok(Received::Content(into, None)),
    }
}

fn broken_off(asker: &Asker<'_>, received: u64, total: Option<u64>, cause: &std::io::Error) -> Error {
    let of = total.map_or_else(String::new, |total| format!(" of {total}"));
    let ours = cause.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match ours {
        Some(ureq::Error::Timeout(ureq::Timeout::PerRead)) => Error::timeout(format!(
            "{} fell silent after {received}{of} bytes; raise WASMCLOUD_ARTIFACT_IDLE_MS if the link needs longer",
            asker.who
        )),
        Some(ureq::Error::Timeout(what)) => {
            Error::timeout(format!("{} was not done in time ({what}) after {received}{of} bytes", asker.who))
        }
        _ => {
            Error::unavailable(format!("the connection to {} broke off after {received}{of} bytes: {cause}", asker.who))
        }
    }
}

/// A weak one stands for contents that only mean the same: half of each is neither.
fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(header::ETAG)?.to_str().ok()?;
    (tag.starts_with('"') && tag.len() <= MAX_ETAG_BYTES).then(|| tag.to_owned())
}

/// Longest ETag that is kept, bytes; longer ones than a few hashes are no use, and it is kept on disk.
const MAX_ETAG_BYTES: usize = 256;

/// `bytes START-END/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, total.trim().parse().ok()))
}

/// `bytes */TOTAL`.
fn unsatisfied_total(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.trim().parse().ok()
}

fn translate(cause: &ureq::Error, place: &str) -> Error {
    match cause {
        ureq::Error::Timeout(what) => {
            Error::timeout(format!("{place} did not answer in time ({what}); is the network there?"))
        }
        ureq::Error::RequireHttpsOnly(_) => leaves_https(place),
        ureq::Error::BadUri(cause) => Error::invalid(format!("the address is malformed: {cause}")),
        ureq::Error::HostNotFound => {
            Error::unavailable(format!("{place} has no address here; check the name, or is the network there?"))
        }
        ureq::Error::LargeResponseHeader(..) => {
            Error::limit(format!("the head of the answer of {place} is larger than {BUFFER_BYTES} bytes"))
        }
        ureq::Error::Rustls(cause) => Error::unavailable(format!(
            "no TLS with {place}: {cause}; if its certificate is signed privately, name the signer's in {CA_FILE}"
        )),
        ureq::Error::Io(cause) if cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Error::unavailable(format!(
                "no TLS with {place}: {cause}; if its certificate is signed privately, name the signer's in {CA_FILE}"
            ))
        }
        ureq::Error::Other(cause) => match cause.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::unavailable(format!("cannot reach {place}: {cause}")),
        },
        cause => Error::unavailable(format!("cannot reach {place}: {cause}")),
    }
}
