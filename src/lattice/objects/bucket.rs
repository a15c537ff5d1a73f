//! One bucket, asked message by message.
//!
//! Each request carries a deadline and brings one message, so memory is bounded by a chunk and what broke off goes on with
//! the next chunk. It never makes a bucket while reading.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{HeaderMap, Message, jetstream::consumer::push};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::StreamExt;
use serde::Deserialize;

use super::words::{self, Info, Place};
use crate::{
    error::{Error, Kind, Result},
    lattice::{
        connection::{Answer, Connection, within},
        events::random_id,
    },
    wire::{event::event_id, json, text},
};

/// How long the server may take over a request without content. Such answers are small; a satellite link needs seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one chunk may take: 128 KiB, as clients cut objects, at 2.2 KB/s. A slower link needs smaller chunks.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(60);

/// Objects of a bucket that are listed at most; more is no list for people.
const MAX_LISTED: usize = 10_000;

/// Longest answer of the JetStream API that is read, bytes: a chunk of 8 MiB in base64, more than servers take by default.
const MAX_ANSWER_BYTES: usize = 12 << 20;

/// How much of a server's text an error repeats, bytes.
const SHOWN_BYTES: usize = 300;

/// Error codes of the JetStream API.
const STREAM_NOT_FOUND: u64 = 10059;
const MESSAGE_NOT_FOUND: u64 = 10037;

/// A message of the stream behind a bucket.
#[derive(Debug)]
pub struct Stored {
    /// Its number in the stream.
    pub sequence: u64,
    /// What it holds.
    pub payload: Bytes,
}

/// A bucket on a connection.
#[derive(Clone)]
pub struct Bucket {
    connection: Connection,
    domain: Option<String>,
    name: String,
    /// Whether messages can be had without the detour over JSON, once that is known; older buckets do not allow it.
    direct: Arc<OnceLock<bool>>,
}

impl Bucket {
    /// The bucket `name`, in the JetStream domain `domain`. Nothing is asked yet.
    pub fn new(connection: Connection, domain: Option<&str>, name: &str) -> Self {
        Self { connection, domain: domain.map(str::to_owned), name: name.to_owned(), direct: Arc::default() }
    }

    /// The way to it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Another bucket by the same way.
    pub fn sibling(&self, name: &str) -> Self {
        Self::new(self.connection.clone(), self.domain.as_deref(), name)
    }

    /// The description of `place`, deleted ones included.
    ///
    /// # Errors
    /// `NotFound` without the bucket; `Unavailable`, `Timeout`; `Invalid` when it cannot be read.
    pub async fn info(&self, place: &Place) -> Result<Option<Info>> {
        let found = self.get(&words::newest_request(&place.info_subject()), PATIENCE).await?;
        found.map(|stored| Info::parse(&stored.payload)).transpose()
    }

    /// The first message under `subject` whose number is at least `from`.
    ///
    /// # Errors
    /// As [`Bucket::info`].
    pub async fn next(&self, subject: &str, from: u64, patience: Duration) -> Result<Option<Stored>> {
        self.get(&words::next_request(subject, from), patience).await
    }

    /// Number of the message that holds the byte `wanted` of everything under `subject`, and the byte it begins with. Only
    /// headers travel, about 250 bytes for each chunk before it.
    ///
    /// # Errors
    /// As [`Bucket::info`]; `Invalid` when there are fewer bytes.
    pub async fn locate(&self, subject: String, wanted: u64) -> Result<(u64, u64)> {
        let (connection, domain) = (self.connection.clone(), self.domain.clone());
        let stream = words::stream(&self.name);
        let looking = self.connection.run(async move {
            let context = connection.jetstream(domain.as_deref(), PATIENCE);
            let stream = context.get_stream_no_info(stream).await.map_err(|cause| unusable(&cause))?;
            let consumer = push::OrderedConfig {
                deliver_subject: format!("_INBOX.{}", event_id(random_id())),
                filter_subject: subject,
                headers_only: true,
                ..push::OrderedConfig::default()
            };
            let consumer = stream.create_consumer(consumer).await.map_err(|cause| unusable(&cause))?;
            let mut messages = consumer.messages().await.map_err(|cause| unusable(&cause))?;
            let mut begin = 0;
            loop {
                let Some(message) = within(PATIENCE, messages.next()).await else { return Err(silence(PATIENCE)) };
                let message = message.ok_or_else(|| unusable(&"the list ended"))?.map_err(|cause| unusable(&cause))?;
                let bytes = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Size"));
                let bytes = bytes.and_then(|bytes| bytes.as_str().parse::<u64>().ok());
                let bytes = bytes.ok_or_else(|| Error::invalid("JetStream lists a chunk without its size"))?;
                let info = message.info().map_err(|cause| unusable(&cause))?;
                if wanted < begin + bytes {
                    return Ok((info.stream_sequence, begin));
                }
                begin += bytes;
                if info.pending == 0 {
                    return Err(Error::invalid(format!("its chunks end after {begin} bytes")));
                }
            }
        });
        looking.await?
    }

    /// Every object, by name.
    ///
    /// # Errors
    /// As [`Bucket::info`]; `Limit` for more than [`MAX_LISTED`].
    pub async fn list(&self) -> Result<Vec<Info>> {
        let (subject, mut from) = (words::all_infos(&self.name), 0);
        let mut found = std::collections::BTreeMap::new();
        while let Some(stored) = self.next(&subject, from, PATIENCE).await? {
            from = stored.sequence + 1;
            // A description that cannot be read hides its own object and no other.
            let Ok(info) = Info::parse(&stored.payload) else { continue };
            if info.deleted {
                found.remove(&info.name);
            } else {
                found.insert(info.name.clone(), info);
            }
            if found.len() > MAX_LISTED {
                return Err(Error::limit(format!("the bucket {} has more than {MAX_LISTED} objects", self.name)));
            }
        }
        Ok(found.into_values().collect())
    }

    /// Makes the bucket if there is none. One that is there is never changed: operators replicate it as they like.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`; `Denied` when the server refuses.
    pub async fn make(&self) -> Result<()> {
        match self.is_direct().await {
            Err(error) if error.kind() == Kind::NotFound => {}
            outcome => return outcome.map(drop),
        }
        let answer = self.ask("STREAM.CREATE", words::create_request(&self.name), PATIENCE).await?;
        match read(&answer)?.error {
            None => Ok(()),
            Some(error) => Err(Error::denied(format!(
                "the server does not make the bucket {}: {}",
                self.name,
                text::prefix(&error.description, SHOWN_BYTES)
            ))),
        }
    }

    /// Removes everything under `subject`.
    ///
    /// # Errors
    /// As [`Bucket::make`].
    pub async fn purge(&self, subject: &str) -> Result<()> {
        let answer = self.ask("STREAM.PURGE", words::purge_request(subject), PATIENCE).await?;
        match read(&answer)?.error {
            None => Ok(()),
            Some(error) => Err(self.refused("remove old chunks", &error)),
        }
    }

    /// Puts one message into the stream and waits until it is there. `id` lets the server know a repeated message by.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`; `Denied` when the server does not take it.
    pub async fn put(&self, subject: &str, id: &str, replaces: bool, payload: Bytes) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        headers.insert("Nats-Expected-Stream", words::stream(&self.name).as_str());
        if replaces {
            headers.insert("Nats-Rollup", "sub");
        }
        match self.request(subject.to_owned(), Some(headers), payload, CHUNK_PATIENCE).await? {
            Answer::Message(message) => match read(&message.payload)?.error {
                None => Ok(()),
                Some(error) => Err(self.refused("take a chunk", &error)),
            },
            Answer::Nobody => Err(self.missing()),
            Answer::Silence => Err(silence(CHUNK_PATIENCE)),
        }
    }

    async fn get(&self, request: &str, patience: Duration) -> Result<Option<Stored>> {
        if self.is_direct().await? {
            let subject = words::api(self.domain.as_deref(), "DIRECT.GET", &self.name);
            return match self.request(subject, None, request.to_owned().into(), patience).await? {
                Answer::Message(message) => direct(message),
                Answer::Silence => Err(silence(patience)),
                Answer::Nobody => Err(Error::unavailable(format!("nobody serves the bucket {} now", self.name))),
            };
        }
        let answer = self.ask("STREAM.MSG.GET", request.to_owned(), patience).await?;
        let answer = read(&answer)?;
        match (answer.message, answer.error) {
            (Some(message), _) => {
                let payload = BASE64
                    .decode(message.data.as_bytes())
                    .map_err(|cause| Error::invalid(format!("a chunk of the object is malformed: {cause}")))?;
                Ok(Some(Stored { sequence: message.seq, payload: payload.into() }))
            }
            (None, Some(error)) if error.err_code == MESSAGE_NOT_FOUND => Ok(None),
            (None, Some(error)) if error.err_code == STREAM_NOT_FOUND => Err(self.missing()),
            (None, Some(error)) => Err(self.refused("read from it", &error)),
            (None, None) => Ok(None),
        }
    }

    /// Whether messages can be had without the detour over JSON. Asked once: a request for one from a bucket that is not
    /// there is never answered when a leaf node lies between.
    ///
    /// # Errors
    /// `NotFound` without the bucket; `Unavailable`, `Timeout`.
    async fn is_direct(&self) -> Result<bool> {
        if let Some(direct) = self.direct.get() {
            return Ok(*direct);
        }
        let answer = read(&self.ask("STREAM.INFO", String::new(), PATIENCE).await?)?;
        match answer.error {
            None => Ok(*self.direct.get_or_init(|| answer.config.is_some_and(|config| config.allow_direct))),
            Some(error) if error.err_code == STREAM_NOT_FOUND => Err(self.missing()),
            Some(error) => Err(self.refused("say what it is", &error)),
        }
    }

    /// A request that ends with the connection it went out on: its answer cannot come any more.
    async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Answer> {
        let asked = self.connection.request(subject, headers, payload, patience);
        let lost = async {
            self.connection.disconnected().await;
            Err(Error::unavailable("the connection to NATS was lost"))
        };
        smol::future::or(asked, lost).await
    }

    async fn ask(&self, verb: &str, request: String, patience: Duration) -> Result<Bytes> {
        let subject = words::api(self.domain.as_deref(), verb, &self.name);
        match self.request(subject, None, request.into(), patience).await? {
            Answer::Message(message) => Ok(message.payload),
            Answer::Silence => Err(silence(patience)),
            Answer::Nobody => Err(Error::unavailable(match &self.domain {
                Some(domain) => {
                    format!("nobody serves the JetStream domain {domain} now; WASMCLOUD_JS_DOMAIN names the domain")
                }
                None => "the NATS server has no JetStream; switch it on there, or name its domain in \
                         WASMCLOUD_JS_DOMAIN"
                    .to_owned(),
            })),
        }
    }

    fn missing(&self) -> Error {
        Error::not_found(format!(
            "there is no bucket {}; `latticed artifact push` makes it with the first object",
            self.name
        ))
    }

    fn refused(&self, what: &str, error: &ApiError) -> Error {
        let text = text::prefix(&error.description, SHOWN_BYTES);
        let told = format!("the bucket {} does not {what}: {text}", self.name);
        // 503: no leader or no room at the moment.
        if error.code == 503 { Error::unavailable(told) } else { Error::denied(told) }
    }
}

fn unusable(cause: &dyn std::fmt::Display) -> Error {
    Error::unavailable(format!("JetStream does not list the chunks: {}", text::prefix(&cause.to_string(), SHOWN_BYTES)))
}

fn silence(patience: Duration) -> Error {
    Error::timeout(format!("JetStream did not answer within {} s", patience.as_secs()))
}

/// A message that was had without a detour: number and status in headers, content as it is.
fn direct(message: Message) -> Result<Option<Stored>> {
    if let Some(status) = message.status.map(|status| status.as_u16()).filter(|status| *status != 200) {
        return match status {
            404 => Ok(None),
            _ => Err(Error::unavailable(format!(
                "JetStream answered {status} {}",
                text::prefix(message.description.as_deref().unwrap_or_default(), SHOWN_BYTES)
            ))),
        };
    }
    let sequence = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get("Nats-Sequence"))
        .and_then(|sequence| sequence.as_str().parse().ok())
        .ok_or_else(|| Error::invalid("JetStream gave a message without its number"))?;
    Ok(Some(Stored { sequence, payload: message.payload }))
}

/// An answer of the JetStream API, as far as we need it.
#[derive(Debug, Deserialize)]
struct ApiAnswer {
    #[serde(default)]
    error: Option<ApiError>,
    #[serde(default)]
    message: Option<ApiMessage>,
    #[serde(default)]
    config: Option<ApiConfig>,
}

#[derive(Debug, Deserialize)]
struct ApiConfig {
    #[serde(default)]
    allow_direct: bool,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

#[derive(Debug, Deserialize)]
struct ApiMessage {
    seq: u64,
    #[serde(default)]
    data: String,
}

fn read(answer: &[u8]) -> Result<ApiAnswer> {
    json::read("the answer of JetStream cannot be read", answer, MAX_ANSWER_BYTES)
}
