//! One request of the admin API, turned into a call of [`Control`] and its answer into a response.
//!
//! Called by [`super::admin`] with a request whose head was already bounded; bounds the body. Knows nothing of sockets.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes},
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use percent_encoding::percent_decode_str;

use super::{
    admin::Settings,
    answer::{ErrorBody, status_of},
};
use crate::{
    error::{Error, Result},
    host::Control,
    task,
};

/// Longest time a client may ask a call to take. Longer work belongs to an actor that answers at once and reports
/// later; without a bound a forgotten client could keep a place for ever.
pub const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(600);

/// How much longer than its deadline a call is waited for, so that the host's own, better error comes first.
const GRACE: Duration = Duration::from_millis(500);

/// Media type of payloads, which are opaque to this API.
const PAYLOAD_TYPE: HeaderValue = HeaderValue::from_static("application/octet-stream");

const JSON_TYPE: HeaderValue = HeaderValue::from_static("application/json");

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Status,
    Call { actor: String, operation: String, timeout: Option<Duration> },
    Stop,
    RemovePending(String),
}

/// Why a request is not served: an error, and the methods that would be, if it was the method.
#[derive(Debug)]
struct Refusal {
    error: Error,
    status: StatusCode,
    allow: Option<&'static str>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = status_of(error.kind());
        Self { error, status, allow: None }
    }
}

/// Answers one request; every failure is a response too.
pub(super) async fn answer<B>(request: Request<B>, control: &dyn Control, settings: &Settings) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve(request, control, settings).await.unwrap_or_else(|refusal| refuse(&refusal))
}

async fn serve<B>(
    request: Request<B>,
    control: &dyn Control,
    settings: &Settings,
) -> Result<Response<Full<Bytes>>, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match route(request.method(), request.uri().path(), request.uri().query())? {
        Route::Status => Ok(json(StatusCode::OK, &control.status())?),
        Route::Call { actor, operation, timeout } => {
            let timeout = timeout.unwrap_or(settings.call_timeout);
            let payload = body(request, settings).await?;
            let call = control.call(actor, operation, payload.to_vec(), timeout);
            let answer = task::within(timeout + GRACE, call).await.unwrap_or_else(|| {
                Err(Error::timeout(format!("the call did not end within {} ms", timeout.as_millis())))
            })?;
            Ok(respond(StatusCode::OK, PAYLOAD_TYPE, Bytes::from(answer)))
        }
        Route::RemovePending(id) => match control.remove_pending(id.clone()).await? {
            true => Ok(json(StatusCode::OK, &serde_json::json!({ "removed": id }))?),
            false => Err(Error::not_found(format!(
                "there is no pending command {id}: it has ended meanwhile, or has another name in `latticed pending`"
            ))
            .into()),
        },
        Route::Stop => {
            control.request_stop();
            Ok(json(StatusCode::ACCEPTED, &serde_json::json!({ "stopping": true }))?)
        }
    }
}

/// Beginning of the path of an accepted command.
const PENDING: &str = "/v1/pending/";

/// Reads method, path and query. Actor names may hold slashes, plain or encoded: call aliases do.
fn route(method: &Method, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
    let (allowed, route) = match path {
        "/v1/status" => (Method::GET, Route::Status),
        "/v1/stop" => (Method::POST, Route::Stop),
        _ if path.starts_with(PENDING) => {
            (Method::DELETE, Route::RemovePending(decode(&path[PENDING.len()..], "command")?))
        }
        _ => match path.strip_prefix("/v1/call/") {
            Some(rest) => (Method::POST, call(rest, query)?),
            None => {
                return Err(Error::not_found(
                    "there is no such path; the admin API has GET /v1/status, POST /v1/call/ACTOR/OPERATION, POST /v1/stop \
                     and DELETE /v1/pending/ID",
                )
                .into());
            }
        },
    };
    if *method == allowed {
        return Ok(route);
    }
    let allow = match allowed {
        Method::GET => "GET",
        Method::DELETE => "DELETE",
        _ => "POST",
    };
    Err(Refusal {
        error: Error::usage(format!("this path answers {allow} only")),
        status: StatusCode::METHOD_NOT_ALLOWED,
        allow: Some(allow),
    })
}

fn call(rest: &str, query: Option<&str>) -> Result<Route> {
    let form = "write POST /v1/call/ACTOR/OPERATION";
    let (actor, operation) =
        rest.rsplit_once('/').ok_or_else(|| Error::usage(format!("the operation is missing; {form}")))?;
    let actor = decode(actor, "actor")?;
    let operation = decode(operation, "operation")?;
    if actor.is_empty() || operation.is_empty() {
        return Err(Error::usage(format!("actor and operation must not be empty; {form}")));
    }
    Ok(Route::Call { actor, operation, timeout: query.map(timeout).transpose()?.flatten() })
}

fn decode(text: &str, what: &str) -> Result<String> {
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| Error::usage(format!("the name of the {what} is not UTF-8")))?;
    if decoded.chars().any(char::is_control) {
        return Err(Error::usage(format!("the name of the {what} holds a control character")));
    }
    Ok(decoded.into_owned())
}

/// The time-out in a query. Anything else in it is refused: a mistyped name would silently mean the default.
fn timeout(query: &str) -> Result<Option<Duration>> {
    let mut found = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let text = pair.strip_prefix("timeout_ms=").ok_or_else(|| {
            Error::usage("the query holds something that this path does not know; it takes timeout_ms=NUMBER only")
        })?;
        let limit = MAX_CALL_TIMEOUT.as_millis();
        let milliseconds =
            text.parse::<u64>().ok().filter(|&number| number > 0 && u128::from(number) <= limit).ok_or_else(|| {
                Error::usage(format!("timeout_ms must be a whole number of milliseconds from 1 to {limit}"))
            })?;
        found = Some(Duration::from_millis(milliseconds));
    }
    Ok(found)
}

async fn body<B>(request: Request<B>, settings: &Settings) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (limit_bytes, patience) = (settings.body_limit_bytes, settings.body_timeout);
    let too_large = || Refusal {
        error: Error::limit(format!("the payload is larger than the limit of {limit_bytes} bytes")),
        status: StatusCode::PAYLOAD_TOO_LARGE,
        allow: None,
    };
    let mut body = request.into_body();
    // What announces itself as too large is refused before a byte of it is kept.
    if body.size_hint().lower() > limit_bytes as u64 {
        discard(body, patience).await;
        return Err(too_large());
    }
    let read = async {
        match Limited::new(&mut body, limit_bytes).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(cause) if cause.is::<LengthLimitError>() => {
                discard(body, patience).await;
                Err(too_large())
            }
            Err(cause) => Err(Error::invalid(format!("the request's body broke off: {cause}")).into()),
        }
    };
    task::within(patience, read).await.unwrap_or_else(|| {
        let text = format!("the request's body did not arrive within {} ms", patience.as_millis());
        Err(Refusal { error: Error::timeout(text), status: StatusCode::REQUEST_TIMEOUT, allow: None })
    })
}

/// Throws away what a client still sends, for a while: one that finds its way barred while it sends may never read why.
async fn discard<B: Body + Unpin>(mut body: B, patience: Duration) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    task::within(patience, rest).await;
}

fn refuse(refusal: &Refusal) -> Response<Full<Bytes>> {
    let mut response = error(refusal.status, &refusal.error);
    if let Some(allow) = refusal.allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// The response for an error.
pub(super) fn error(status: StatusCode, error: &Error) -> Response<Full<Bytes>> {
    // Two strings always serialise; should they not, the status still tells.
    let body = serde_json::to_vec(&ErrorBody::from(error)).unwrap_or_default();
    respond(status, JSON_TYPE, Bytes::from(body))
}

/// The response that is `value`.
pub(super) fn json(status: StatusCode, value: &impl serde::Serialize) -> Result<Response<Full<Bytes>>> {
    let body = serde_json::to_vec(value)
        .map_err(|cause| Error::internal(format!("cannot put the answer into JSON: {cause}")))?;
    Ok(respond(status, JSON_TYPE, Bytes::from(body)))
}

fn respond(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response<Full<Bytes>> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn post(path: &str, query: Option<&str>) -> Result<Route, Refusal> {
        route(&Method::POST, path, query)
    }

    fn called(actor: &str, operation: &str, milliseconds: Option<u64>) -> Route {
        Route::Call {
            actor: actor.into(),
            operation: operation.into(),
            timeout: milliseconds.map(Duration::from_millis),
        }
    }

    #[test]
    fn paths_are_what_the_documentation_says() {
        assert_eq!(route(&Method::GET, "/v1/status", None).expect("route"), Route::Status);
        assert_eq!(post("/v1/stop", None).expect("route"), Route::Stop);
        assert_eq!(post("/v1/call/echo/Echo.Say", None).expect("route"), called("echo", "Echo.Say", None));
        assert_eq!(post("/v1/call/jabba/the/hut/A.B", None).expect("route"), called("jabba/the/hut", "A.B", None));
        assert_eq!(post("/v1/call/jabba%2Fthe%20hut/A.B", None).expect("route"), called("jabba/the hut", "A.B", None));
        assert_eq!(post("/v1/call/e/A.B", Some("timeout_ms=70")).expect("route"), called("e", "A.B", Some(70)));
        assert_eq!(post("/v1/call/e/A.B", Some("")).expect("route"), called("e", "A.B", None));
    }

    #[test]
    fn everything_else_is_refused_with_its_status() {
        let status = |method: &Method, path: &str, query| {
            let refusal = route(method, path, query).expect_err(path);
            (refusal.status.as_u16(), refusal.allow)
        };
        assert_eq!(status(&Method::GET, "/", None), (404, None));
        assert_eq!(status(&Method::GET, "/v1/status/", None), (404, None));
        assert_eq!(status(&Method::POST, "/v1/status", None), (405, Some("GET")));
        assert_eq!(status(&Method::GET, "/v1/stop", None), (405, Some("POST")));
        assert_eq!(status(&Method::GET, "/v1/call/e/A.B", None), (405, Some("POST")));
        for path in ["/v1/call/echo", "/v1/call//A.B", "/v1/call/echo/", "/v1/call/%ff/A.B", "/v1/call/a%0Ab/A.B"] {
            assert_eq!(status(&Method::POST, path, None), (400, None), "{path}");
        }
        for query in ["timeout_ms=0", "timeout_ms=-1", "timeout_ms=600001", "timeout_ms=", "timeout=5", "x"] {
            assert_eq!(status(&Method::POST, "/v1/call/e/A.B", Some(query)), (400, None), "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_path_and_query_is_routed_or_refused(path in any::<String>(), query in proptest::option::of(any::<String>())) {
            if let Err(refusal) = post(&format!("/v1/call/{path}"), query.as_deref()) {
                prop_assert!(matches!(refusal.error.kind(), Kind::Usage | Kind::NotFound));
            }
        }
    }
}
