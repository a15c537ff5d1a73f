//! The artifacts' part of the admin API: what is in stock, content in and out, names for the mirror.
//!
//! ```text
//! GET    /v1/artifacts                    everything in the store, JSON
//! GET    /v1/artifacts/sha256:DIGEST      its bytes
//! PUT    /v1/artifacts/sha256:DIGEST      takes bytes in; they are checked
//! POST   /v1/artifacts/references         {"reference":"…","digest":"sha256:…","manifest":"sha256:…"}
//! POST   /v1/artifacts/upkeep             {"do":"pin","what":"…","pinned":true}, {"do":"collect","everything":false},
//!                                         {"do":"verify","what":null}
//! PUT    /v1/names/NAME                   {"digest":"sha256:…"} or {"reference":"…"}: offered by the mirror from now on
//! DELETE /v1/names/NAME
//! ```
//!
//! Called by [`super::admin`] beside `routes`. Bodies in both directions pass in pieces: memory does not depend on their
//! size.

use std::sync::{Arc, atomic::AtomicU64};

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Incoming},
    header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};

use super::{admin::Settings, answer::status_of, mirror::BlobBody, routes};
use crate::{
    artifact::{
        Artifacts,
        inventory::{Offered, parse_digest},
        maintenance::Maintenance,
        published::check_name,
    },
    error::{Error, Result},
    host::Control,
    store::Digest,
    task,
};

/// Longest JSON body, bytes: a reference of the longest kind and two digests.
const MAX_WORDS_BYTES: usize = 16 << 10;

/// What an admin request is answered with.
pub(super) type Reply = Response<Either<Full<Bytes>, BlobBody>>;

/// Whether requests for `path` belong here.
pub(super) fn is_ours(path: &str) -> bool {
    path == "/v1/artifacts" || path.starts_with("/v1/artifacts/") || path.starts_with("/v1/names/")
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Stock,
    Read(Digest),
    TakeIn(Digest),
    Refer,
    Maintenance,
    Publish(String),
    Withdraw(String),
}

/// A reference and what it stands for, on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReferWords {
    /// The reference.
    pub reference: String,
    /// `sha256:` and digits.
    pub digest: String,
    /// The same of the manifest between them, for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

/// What a name is to point to, on the wire: one of the two.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PublishWords {
    /// Content of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What this stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// What a name points to now, on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct PublishedWords {
    /// `sha256:` and digits.
    pub digest: String,
}

/// Answers one request; every failure is a response too. Bytes on their way out are counted in `progress`.
pub(super) async fn answer(
    request: Request<Incoming>,
    control: &dyn Control,
    settings: &Settings,
    progress: &Arc<AtomicU64>,
) -> Reply {
    let outcome = match route(request.method(), request.uri().path()) {
        Ok(route) => match control.artifacts() {
            Some(artifacts) => serve(route, request, artifacts, settings, progress).await,
            None => Err(Error::unavailable("this host keeps no artifacts")),
        },
        Err(Refused::Method(allow)) => {
            let error = Error::usage(format!("this path answers {allow} only"));
            let mut reply = routes::error(StatusCode::METHOD_NOT_ALLOWED, &error).map(Either::Left);
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return reply;
        }
        Err(Refused::Error(error)) => Err(error),
    };
    outcome.unwrap_or_else(|error| routes::error(status_of(error.kind()), &error).map(Either::Left))
}

/// Why a request is not served.
#[derive(Debug)]
enum Refused {
    Method(&'static str),
    Error(Error),
}

fn route(method: &Method, path: &str) -> Result<Route, Refused> {
    let error = Refused::Error;
    if let Some(name) = path.strip_prefix("/v1/names/") {
        check_name(name).map_err(error)?;
        return match *method {
            Method::PUT => Ok(Route::Publish(name.to_owned())),
            Method::DELETE => Ok(Route::Withdraw(name.to_owned())),
            _ => Err(Refused::Method("PUT, DELETE")),
        };
    }
    match path.strip_prefix("/v1/artifacts").unwrap_or(path) {
        "" if *method == Method::GET => Ok(Route::Stock),
        "" => Err(Refused::Method("GET")),
        "/references" if *method == Method::POST => Ok(Route::Refer),
        "/upkeep" if *method == Method::POST => Ok(Route::Maintenance),
        "/references" | "/upkeep" => Err(Refused::Method("POST")),
        rest => {
            let digest = parse_digest(rest.trim_start_matches('/')).map_err(error)?;
            match *method {
                Method::GET => Ok(Route::Read(digest)),
                Method::PUT => Ok(Route::TakeIn(digest)),
                _ => Err(Refused::Method("GET, PUT")),
            }
        }
    }
}

async fn serve(
    route: Route,
    request: Request<Incoming>,
    artifacts: &Artifacts,
    settings: &Settings,
    progress: &Arc<AtomicU64>,
) -> Result<Reply> {
    match route {
        Route::Stock => {
            // Lists a folder of at most a few hundred files.
            let stock = artifacts.inventory()?;
            words(&stock)
        }
        Route::Read(digest) => {
            let blobs = artifacts.store().blobs();
            let checked = blobs.clone();
            let length = smol::unblock(move || checked.verify_blocking(digest)).await?;
            let body = BlobBody::new(blobs.reader(digest)?, 0, length, progress.clone());
            let mut reply = Response::new(Either::Right(body));
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            reply.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            Ok(reply)
        }
        Route::TakeIn(digest) => take_in(request.into_body(), artifacts, digest, settings).await,
        Route::Refer => {
            let asked: ReferWords = read(request.into_body(), settings).await?;
            let manifest = asked.manifest.as_deref().map(parse_digest).transpose()?;
            artifacts.refer(&asked.reference, parse_digest(&asked.digest)?, manifest).await?;
            words(&serde_json::json!({}))
        }
        Route::Maintenance => {
            let asked: Maintenance = read(request.into_body(), settings).await?;
            words(&artifacts.maintain(asked).await?)
        }
        Route::Publish(name) => {
            let asked: PublishWords = read(request.into_body(), settings).await?;
            let what = match (asked.digest, asked.reference) {
                (Some(digest), None) => Offered::Digest(parse_digest(&digest)?),
                (None, Some(reference)) => Offered::Reference(reference),
                _ => return Err(Error::usage("either a digest or a reference is to be published")),
            };
            let digest = artifacts.publish(&name, &what).await?;
            words(&PublishedWords { digest: format!("sha256:{digest}") })
        }
        Route::Withdraw(name) => match artifacts.names().withdraw(&name).await? {
            true => words(&serde_json::json!({})),
            false => Err(Error::not_found(format!("this board publishes nothing as {name}"))),
        },
    }
}

/// Takes content in, piece by piece.
async fn take_in(mut body: Incoming, artifacts: &Artifacts, digest: Digest, settings: &Settings) -> Result<Reply> {
    let Some(bytes) = body.size_hint().exact() else {
        return Err(Error::usage("the length of an artifact must be said in advance"));
    };
    let mut into = artifacts.take_in(digest, bytes).await?;
    loop {
        let next = task::within(settings.body_timeout, body.frame()).await;
        let next = next.ok_or_else(|| Error::timeout("the artifact's bytes did not go on arriving"))?;
        let Some(frame) = next else { break };
        let frame = frame.map_err(|cause| Error::invalid(format!("the artifact's bytes broke off: {cause}")))?;
        // Trailers have no place here.
        let Ok(piece) = frame.into_data() else { continue };
        into = smol::unblock(move || into.write(&piece).map(|()| into)).await?;
    }
    smol::unblock(move || into.finish(Some(digest))).await?;
    words(&serde_json::json!({ "digest": format!("sha256:{digest}"), "bytes": bytes }))
}

async fn read<T: serde::de::DeserializeOwned>(body: Incoming, settings: &Settings) -> Result<T> {
    let all = async {
        Limited::new(body, MAX_WORDS_BYTES)
            .collect()
            .await
            .map(|body| body.to_bytes())
            .map_err(|cause| Error::invalid(format!("the request's body cannot be read: {cause}")))
    };
    let body = task::within(settings.body_timeout, all)
        .await
        .unwrap_or_else(|| Err(Error::timeout("the request's body did not arrive in time")))?;
    serde_json::from_slice(&body)
        .map_err(|cause| Error::usage(format!("the request's body is not as expected: {cause}")))
}

fn words(value: &impl Serialize) -> Result<Reply> {
    routes::json(StatusCode::OK, value).map(|reply| reply.map(Either::Left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn paths_are_what_the_documentation_says() {
        let hex = "0a".repeat(32);
        let digest = Digest([10; 32]);
        let good = |method: Method, path: &str| route(&method, path).expect(path);
        assert_eq!(good(Method::GET, "/v1/artifacts"), Route::Stock);
        assert_eq!(good(Method::GET, &format!("/v1/artifacts/sha256:{hex}")), Route::Read(digest));
        assert_eq!(good(Method::PUT, &format!("/v1/artifacts/sha256:{hex}")), Route::TakeIn(digest));
        assert_eq!(good(Method::POST, "/v1/artifacts/references"), Route::Refer);
        assert_eq!(good(Method::POST, "/v1/artifacts/upkeep"), Route::Maintenance);
        assert_eq!(good(Method::PUT, "/v1/names/site/echo"), Route::Publish("site/echo".into()));
        assert_eq!(good(Method::DELETE, "/v1/names/echo"), Route::Withdraw("echo".into()));
        for (method, path) in
            [(Method::POST, "/v1/artifacts"), (Method::GET, "/v1/names/x"), (Method::PUT, "/v1/artifacts/references")]
        {
            assert!(matches!(route(&method, path), Err(Refused::Method(_))), "{path}");
        }
        for path in ["/v1/artifacts/", "/v1/artifacts/../x", "/v1/names/..", "/v1/names/", "/v1/names/%2e"] {
            let refused = route(&Method::PUT, path).expect_err(path);
            assert!(matches!(&refused, Refused::Error(error) if error.kind() == Kind::Invalid), "{path}: {refused:?}");
        }
    }
}
