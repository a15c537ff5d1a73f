//! One request: checked, handed to the actor, answered (`protocol/interfaces.md §2`).
//!
//! Called by hyper for each request of a connection. An actor's error never reaches the client as text: the client gets
//! a status that says whose fault it is and whether to try again, the log gets the rest.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Bytes, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
};

use super::{
    budget::Reservation,
    cors::Preflight,
    listener::Shared,
    pace::{Pace, Phase},
    payload::{Answer, RequestPayload},
};
use crate::{
    error::{Error, Kind},
    host::Call,
    log,
    wire::Trace,
};

/// The operation an actor serves.
const OPERATION: &str = "HttpServer.HandleRequest";

/// What a client that should come again is told to wait, seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// Body bytes allotted before any of them has arrived. A client that promises more only gets more as it sends it.
const BODY_RESERVE_BYTES: u64 = 64 * 1024;

/// Methods that reach the actor in read-only mode.
const READONLY_METHODS: &str = "GET, HEAD";

/// A refusal or failure on the way: what the client reads. The log has been told by whoever makes one.
struct Refusal {
    status: StatusCode,
    /// One line for people, ending in a line feed; never anything an actor or the host said.
    text: &'static str,
    /// Whether to tell the client when to come again.
    retry: bool,
    /// Whether the client may still be sending, so that the connection cannot go on.
    close: bool,
}

impl Refusal {
    fn new(status: StatusCode, text: &'static str) -> Self {
        Self { status, text, retry: false, close: false }
    }

    fn retry(self) -> Self {
        Self { retry: true, ..self }
    }

    fn close(self) -> Self {
        Self { close: true, ..self }
    }
}

/// Answers `request`.
pub async fn answer(shared: Arc<Shared>, pace: Arc<Pace>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let requests = pace.count_request();
    let mut response = match handle(&shared, &pace, &parts, body).await {
        Ok(response) => response,
        Err(refusal) => refuse(&refusal, &pace),
    };
    shared.options.cors.mark(&parts.headers, response.headers_mut());
    if shared.closing.load(Relaxed) || requests >= shared.settings.requests_per_connection {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(level) = shared.options.log.filter(|level| log::enabled(*level)) {
        let path = parts.uri.path();
        let status = response.status().as_u16();
        let milliseconds = started.elapsed().as_millis();
        log::emit!(level, "{} {path} {status} in {milliseconds} ms", parts.method; actor_id = shared.link.actor_id);
    }
    pace.enter(Phase::Responding);
    response
}

/// Whether its client sends no request after `request`, as it says itself.
pub fn is_last<B>(request: &Request<B>) -> bool {
    let mut options = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut says = |word: &[u8]| options.any(|option| option.trim_ascii().eq_ignore_ascii_case(word));
    if request.version() == Version::HTTP_10 { !says(b"keep-alive") } else { says(b"close") }
}

async fn handle(shared: &Shared, pace: &Pace, parts: &Parts, body: Incoming) -> Result<Response<Full<Bytes>>, Refusal> {
    let options = &shared.options;
    if shared.unlinked.load(Relaxed) {
        return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping\n").retry().close());
    }
    // RFC 9112 §3.2: a request without its one `Host` is malformed, and tells caches on the way different things.
    if parts.version == Version::HTTP_11 && parts.headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "a request must have one Host header\n").close());
    }
    match options.cors.judge(&parts.method, &parts.headers) {
        Preflight::No => {}
        Preflight::Allowed => {
            let mut response = plain(StatusCode::NO_CONTENT, Bytes::new());
            options.cors.answer_preflight(&parts.headers, response.headers_mut());
            return Ok(response);
        }
        Preflight::Refused(why) => return Err(Refusal::new(StatusCode::FORBIDDEN, why)),
    }
    if parts.method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "this server is no proxy\n").close());
    }
    let reads_only = parts.method == Method::GET || parts.method == Method::HEAD;
    if options.readonly && !reads_only {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this server is read-only: use GET or HEAD\n").close());
    }
    let (payload, reservation) = receive(shared, pace, parts, body).await?;
    pace.enter_handling(options.timeout);
    let call = Call {
        origin: shared.origin.clone(),
        target: shared.target.clone(),
        operation: OPERATION.to_owned(),
        payload,
        // Counted from here: a slow upload is the client's time, not the actor's.
        deadline: Instant::now() + options.timeout,
        depth: 0,
        trace: Trace::find(|name| parts.headers.get(name)?.to_str().ok()),
    };
    let answered = shared.invoke.invoke(call).await.and_then(Answer::decode);
    drop(reservation);
    let answer = answered.map_err(|error| translate(shared, parts, &error))?;
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    if let Some(value) = &options.cache_control
        && reads_only
        && (answer.status.is_success() || answer.status == StatusCode::NOT_MODIFIED)
        && !response.headers().contains_key(header::CACHE_CONTROL)
    {
        response.headers_mut().insert(header::CACHE_CONTROL, value.clone());
    }
    Ok(response)
}

/// The invocation's payload, and the memory it was granted.
async fn receive<'a>(
    shared: &'a Shared,
    pace: &Pace,
    parts: &Parts,
    mut body: Incoming,
) -> Result<(Vec<u8>, Reservation<'a>), Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the request body is larger than this server allows\n").close();
    let no_room = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many request bodies at once\n").retry().close();
    let mut reservation = shared.budget.reservation();
    if body.is_end_stream() {
        return Ok((RequestPayload::new(parts, Some(0), 0).finish(), reservation));
    }
    pace.enter(Phase::Body);
    let head = RequestPayload::head_len(parts);
    let limit = shared.options.max_body_bytes.min(shared.settings.payload_bytes.saturating_sub(head));
    let promised = body.size_hint().exact();
    if promised.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    // Fits: no limit is above u32.
    let length = promised.map(|length| u32::try_from(length).unwrap_or(u32::MAX));
    let reserve = promised.unwrap_or(0).min(BODY_RESERVE_BYTES) as usize;
    let mut payload = RequestPayload::new(parts, length, reserve);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            let (status, text) = if pace.was_too_slow() {
                (StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time\n")
            } else {
                (StatusCode::BAD_REQUEST, "the request body is malformed or incomplete\n")
            };
            return Err(Refusal::new(status, text).close());
        };
        // Trailers have no place in the contract.
        let Ok(data) = frame.into_data() else { continue };
        if payload.body_len() + data.len() > limit {
            return Err(too_large());
        }
        if !reservation.grow(data.len()) {
            return Err(no_room());
        }
        payload.push(&data);
    }
    Ok((payload.finish(), reservation))
}

/// What a client reads when the actor did not answer well.
fn translate(shared: &Shared, parts: &Parts, error: &Error) -> Refusal {
    let refusal = match error.kind() {
        Kind::Timeout => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the actor did not answer in time\n"),
        Kind::NotFound | Kind::Unavailable => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the actor is not running now\n").retry()
        }
        Kind::Busy => Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the actor is busy\n").retry(),
        // Fuel, memory, stack, the size of the answer: the next request of this kind would end the same way.
        Kind::Limit => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the actor exceeded a limit\n"),
        Kind::Invalid => Refusal::new(StatusCode::BAD_GATEWAY, "the actor gave an invalid answer\n"),
        Kind::Guest => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the actor failed\n"),
        Kind::Denied => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the actor is not allowed to answer requests; the log of its host says why\n",
        ),
        Kind::Usage | Kind::Config | Kind::Conflict | Kind::Storage | Kind::Internal => {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be handled\n")
        }
    };
    let Some(held_back) = shared.overload.admit(error.kind(), Instant::now()) else { return refusal };
    let more = match held_back {
        0 => String::new(),
        count => format!(" (and {count} more requests failed for such a reason since the last line of this kind)"),
    };
    let path = parts.uri.path();
    let status = refusal.status.as_u16();
    log::warn!(
        "{} {path} was answered with {status}: {error}{more}", parts.method;
        actor_id = shared.link.actor_id, link_name = shared.link.link_name
    );
    refusal
}

fn refuse(refusal: &Refusal, pace: &Pace) -> Response<Full<Bytes>> {
    let mut response = plain(refusal.status, Bytes::from_static(refusal.text.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(header::ALLOW, HeaderValue::from_static(READONLY_METHODS));
    }
    if refusal.retry {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    if refusal.close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        pace.ask_to_linger();
    }
    response
}

fn plain(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}
