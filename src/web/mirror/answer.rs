//! One request of the mirror, answered from the store.
//!
//! Content is read once for its digest before it is given, so that a board whose card has gone bad says so instead of
//! sending what nobody can use.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
};

use super::{
    Token,
    body::BlobBody,
    page::{self, Entry},
    request::{self, Format, Part, Target},
};
use crate::{
    artifact::{Artifacts, records::kept_manifest},
    error::{Error, Kind, Result},
    lock::{Mutex, MutexGuard, RwLock},
    log,
    store::Digest,
};

/// How long content that was found whole is given without another look. Long enough for a fleet that comes for an update
/// and goes on after cuts, short enough to notice a card that goes bad.
const TRUSTED: Duration = Duration::from_secs(600);

/// How many contents are remembered so; past this all are looked at again.
const MAX_TRUSTED: usize = 256;

const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// What a client that has no token is told.
const UNAUTHORIZED: &str = "a bearer token is needed: Authorization: Bearer TOKEN, as in WASMCLOUD_MIRROR_TOKEN\n";

/// Text, or a file.
pub(super) type Reply = Response<Either<Full<Bytes>, BlobBody>>;

/// What a digest stands for in this store.
enum Held {
    /// Content, so long.
    Blob(u64),
    /// The text of a manifest.
    Manifest(Bytes),
}

impl Held {
    fn length(&self) -> u64 {
        match self {
            Held::Blob(length) => *length,
            Held::Manifest(text) => text.len() as u64,
        }
    }
}

/// What requests are answered from.
pub(super) struct Shelf {
    artifacts: Arc<Artifacts>,
    /// What a client must show, if anything.
    token: RwLock<Option<Token>>,
    whole: Mutex<HashMap<Digest, Instant>>,
}

impl Shelf {
    pub(super) fn new(artifacts: Arc<Artifacts>, token: Option<Token>) -> Self {
        Self { artifacts, token: RwLock::new(token), whole: Mutex::default() }
    }

    /// What a client must show from now on.
    pub(super) fn want(&self, token: Option<Token>) {
        *self.token.write() = token;
    }

    /// Whether a client that shows this may be answered.
    fn is_satisfied_by(&self, shown: Option<&[u8]>) -> bool {
        let token = self.token.read();
        token.as_ref().is_none_or(|token| token.is_shown_by(shown))
    }

    /// Answers one request; every failure is a response too. What a body sends is counted in `progress`.
    pub(super) async fn answer(&self, request: Request<Incoming>, progress: Arc<AtomicU64>) -> Reply {
        let header = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let shown = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        if !self.is_satisfied_by(shown) {
            return with(refuse(StatusCode::UNAUTHORIZED, UNAUTHORIZED), header::WWW_AUTHENTICATE, "Bearer");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let text = "this mirror only gives: use GET or HEAD\n";
            return with(refuse(StatusCode::METHOD_NOT_ALLOWED, text), header::ALLOW, "GET, HEAD");
        }
        let digest = match request::target(request.uri().path()) {
            None => return refuse(StatusCode::NOT_FOUND, "there is no such name\n"),
            Some(Target::List) => {
                let format = header(&header::ACCEPT).map_or(Format::Text, request::format);
                return self.list(format).await.unwrap_or_else(|error| failed(&error));
            }
            Some(Target::Content(digest)) => Ok(Some((digest, "max-age=31536000, immutable"))),
            // What it points to may be replaced at any time.
            Some(Target::Name(name)) => {
                self.artifacts.names().find(&name).map(|found| found.map(|found| (found.digest, "no-cache")))
            }
        };
        let (digest, cache) = match digest {
            Ok(Some(found)) => found,
            Ok(None) => return refuse(StatusCode::NOT_FOUND, "there is no such name\n"),
            Err(error) => return failed(&error),
        };
        let held = match self.held(digest).await {
            Ok(held) => held,
            Err(error) => return failed(&error),
        };
        let etag = request::etag(digest);
        let mut reply = if header(&header::IF_NONE_MATCH).is_some_and(|known| request::is_known(known, &etag)) {
            empty(StatusCode::NOT_MODIFIED)
        } else {
            let whole = header(&header::IF_RANGE).is_some_and(|wanted| wanted.trim() != etag);
            let part = request::part(header(&header::RANGE).filter(|_| !whole), held.length());
            match self.content(digest, held, part, progress) {
                Ok(reply) => reply,
                Err(error) => return failed(&error),
            }
        };
        let headers = reply.headers_mut();
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        set(headers, header::ETAG, &etag);
        set(headers, REPR_DIGEST, &format!("sha-256=:{}:", BASE64.encode(&digest.0)));
        log::debug!(
            "the mirror answered {} {} with {}",
            request.method(),
            request.uri().path(),
            reply.status().as_u16()
        );
        reply
    }

    /// Hyper leaves the body out for HEAD and keeps the length.
    fn content(&self, digest: Digest, held: Held, part: Part, progress: Arc<AtomicU64>) -> Result<Reply> {
        let length = held.length();
        let (status, first, end) = match part {
            Part::Whole => (StatusCode::OK, 0, length),
            Part::Some(first, end) => (StatusCode::PARTIAL_CONTENT, first, end),
            Part::Nothing => {
                let reply = refuse(StatusCode::RANGE_NOT_SATISFIABLE, "there are fewer bytes than that\n");
                return Ok(with(reply, header::CONTENT_RANGE, &format!("bytes */{length}")));
            }
        };
        let body = match held {
            Held::Blob(_) => {
                let blob = self.artifacts.store().blobs().reader(digest)?;
                Either::Right(BlobBody::new(blob, first, end, progress))
            }
            // A part lies within what there is, and that fits memory.
            Held::Manifest(text) => Either::Left(Full::new(text.slice(first as usize..end as usize))),
        };
        let mut reply = Response::new(body);
        *reply.status_mut() = status;
        let headers = reply.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - first));
        if status == StatusCode::PARTIAL_CONTENT {
            set(headers, header::CONTENT_RANGE, &format!("bytes {first}-{}/{length}", end.saturating_sub(1)));
        }
        Ok(reply)
    }

    /// How `digest` is held here: as content, or as a manifest that leads to content. What others may not have is not
    /// here for them: whoever sends a command would else make this board fetch an address, and read here what it
    /// answered.
    async fn held(&self, digest: Digest) -> Result<Held> {
        let artifacts = self.artifacts.clone();
        let (is_given, manifest) = smol::unblock(move || {
            let is_given = artifacts.is_for_others(digest);
            let manifest = match !is_given && artifacts.is_manifest_for_others(digest) {
                true => kept_manifest(artifacts.store(), digest)?,
                false => None,
            };
            Ok::<_, Error>((is_given, manifest))
        })
        .await?;
        match (is_given, manifest) {
            (true, _) => self.length(digest).await.map(Held::Blob),
            (false, Some(text)) => Ok(Held::Manifest(text.into())),
            (false, None) => Err(Error::not_found(format!("sha256:{digest} is not for others"))),
        }
    }

    /// Length of `digest`, once it is sure to be whole.
    async fn length(&self, digest: Digest) -> Result<u64> {
        let blobs = self.artifacts.store().blobs();
        let trusted = |since: &Instant| since.elapsed() < TRUSTED;
        if self.whole().get(&digest).is_some_and(trusted)
            && let Some(length) = blobs.length(digest)
        {
            return Ok(length);
        }
        let length = smol::unblock(move || blobs.verify_blocking(digest)).await?;
        let mut whole = self.whole();
        if whole.len() >= MAX_TRUSTED {
            whole.clear();
        }
        whole.insert(digest, Instant::now());
        Ok(length)
    }

    fn whole(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.whole.lock()
    }

    async fn list(&self, format: Format) -> Result<Reply> {
        let (names, blobs) = (self.artifacts.names(), self.artifacts.store().blobs());
        let entries = smol::unblock(move || {
            let there = names.all()?.into_iter().filter_map(|published| {
                let bytes = blobs.length(published.digest)?;
                Some(Entry::new(published.name, published.digest, bytes))
            });
            Ok::<_, Error>(there.collect::<Vec<_>>())
        })
        .await?;
        let (media_type, text) = page::draw(&entries, format)?;
        let reply = with(text_reply(StatusCode::OK, text.into()), header::CACHE_CONTROL, "no-cache");
        Ok(with(reply, header::CONTENT_TYPE, media_type))
    }
}

fn failed(error: &Error) -> Reply {
    match error.kind() {
        Kind::NotFound => refuse(StatusCode::NOT_FOUND, "it is not in this store\n"),
        _ => {
            log::warn!("the mirror cannot give what was asked for: {error}");
            refuse(StatusCode::SERVICE_UNAVAILABLE, "it cannot be read here; the log of this board says why\n")
        }
    }
}

/// One line for people.
pub(super) fn refuse(status: StatusCode, text: &'static str) -> Reply {
    text_reply(status, Bytes::from_static(text.as_bytes()))
}

fn text_reply(status: StatusCode, text: Bytes) -> Reply {
    let length = text.len();
    let mut reply = Response::new(Either::Left(Full::new(text)));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    reply
}

fn empty(status: StatusCode) -> Reply {
    let mut reply = Response::new(Either::Left(Full::default()));
    *reply.status_mut() = status;
    reply
}

fn with(mut reply: Reply, name: HeaderName, value: &str) -> Reply {
    set(reply.headers_mut(), name, value);
    reply
}

/// Every value here is made of visible ASCII; one that is not is left out.
fn set(headers: &mut hyper::HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
