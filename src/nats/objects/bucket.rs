//! One bucket, asked message by message.
//!
//! Each request carries a deadline and brings one message, so memory is bounded by a chunk and what broke off goes on with
//! the next chunk. It never makes a bucket while reading.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::StreamExt;

use super::words::{self, Info, Place};
use crate::{
    error::{Error, Kind, Result},
    nats::{
        connection::Connection,
        jetstream::{JetStream, MESSAGE_NOT_FOUND, Refusal, Reply, STREAM_NOT_FOUND},
    },
    task,
    wire::{cache::Delivery, text},
};

/// How long the server may take over a request without content. Such answers are small; a satellite link needs seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one chunk may take: 128 KiB, as clients cut objects, at 2.2 KB/s. A slower link needs smaller chunks.
pub const CHUNK_PATIENCE: Duration = Duration::from_secs(60);

/// Objects of a bucket that are listed at most; more is no list for people.
const MAX_LISTED: usize = 10_000;

/// How much of a server's text an error repeats, bytes.
const SHOWN_BYTES: usize = 300;

/// How fast the headers of an object's chunks come, bits per second: 2000 of 250 bytes each second, so that a quarter of
/// a second's worth, which comes at once, fits a subscription's queue many times.
const LOCATE_BITS_PER_SECOND: u64 = 4_000_000;

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
    jetstream: JetStream,
    name: String,
    /// Whether messages can be had without the detour over JSON, once that is known; older buckets do not allow it.
    direct: Arc<OnceLock<bool>>,
}

impl Bucket {
    /// The bucket `name`, in the JetStream domain `domain`. Nothing is asked yet.
    pub fn new(connection: Connection, domain: Option<&str>, name: &str) -> Self {
        Self { jetstream: JetStream::new(connection, domain), name: name.to_owned(), direct: Arc::default() }
    }

    /// The way to it.
    pub fn connection(&self) -> &Connection {
        self.jetstream.connection()
    }

    /// Another bucket by the same way.
    pub fn sibling(&self, name: &str) -> Self {
        Self { jetstream: self.jetstream.clone(), name: name.to_owned(), direct: Arc::default() }
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
        let inbox = self.connection().inbox();
        let mut messages = self.connection().subscribe(inbox.clone(), None).await?;
        let request = words::headers_request(&self.name, &subject, &inbox, LOCATE_BITS_PER_SECOND);
        let answer = self.ask("CONSUMER.CREATE", request).await?;
        if let Some(error) = answer.error {
            return Err(self.refused("list the chunks", &error));
        }
        let (mut begin, mut expected) = (0, 1);
        while answer.num_pending >= expected {
            let message = task::within(PATIENCE, messages.next())
                .await
                .flatten()
                .ok_or_else(|| Error::timeout("JetStream does not go on listing the chunks"))?;
            let delivery = message.reply.as_ref().and_then(|reply| Delivery::parse(reply));
            let delivery = delivery.filter(|delivery| delivery.sequence == expected);
            let delivery = delivery.ok_or_else(|| Error::unavailable("a chunk is missing in JetStream's list"))?;
            let bytes = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Size"));
            let bytes = bytes.and_then(|bytes| bytes.as_str().parse::<u64>().ok());
            let bytes = bytes.ok_or_else(|| Error::invalid("JetStream lists a chunk without its size"))?;
            if wanted < begin + bytes {
                return Ok((delivery.stored, begin));
            }
            begin += bytes;
            expected += 1;
        }
        Err(Error::invalid(format!("its chunks end after {begin} bytes")))
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
        let answer = self.ask("STREAM.CREATE", words::create_request(&self.name)).await?;
        match answer.error {
            None => Ok(()),
            Some(error) => {
                Err(Error::denied(format!("the server does not make the bucket {}: {}", self.name, error.text())))
            }
        }
    }

    /// Removes everything under `subject`.
    ///
    /// # Errors
    /// As [`Bucket::make`].
    pub async fn purge(&self, subject: &str) -> Result<()> {
        let answer = self.ask("STREAM.PURGE", words::purge_request(subject)).await?;
        match answer.error {
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
        let stored = self.jetstream.put(subject.to_owned(), headers, payload, CHUNK_PATIENCE).await?;
        match stored.ok_or_else(|| self.missing())?.error {
            None => Ok(()),
            Some(error) => Err(self.refused("take a chunk", &error)),
        }
    }

    async fn get(&self, request: &str, patience: Duration) -> Result<Option<Stored>> {
        let stream = words::stream(&self.name);
        if self.is_direct().await? {
            return direct(self.jetstream.get("DIRECT.GET", &stream, request.to_owned(), patience).await?);
        }
        let answer = self.jetstream.ask("STREAM.MSG.GET", &stream, request.to_owned(), patience).await?;
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
        let answer = self.ask("STREAM.INFO", String::new()).await?;
        match answer.error {
            None => Ok(*self.direct.get_or_init(|| answer.config.is_some_and(|config| config.allow_direct))),
            Some(error) if error.err_code == STREAM_NOT_FOUND => Err(self.missing()),
            Some(error) => Err(self.refused("say what it is", &error)),
        }
    }

    async fn ask(&self, verb: &str, request: String) -> Result<Reply> {
        self.jetstream.ask(verb, &words::stream(&self.name), request, PATIENCE).await
    }

    fn missing(&self) -> Error {
        Error::not_found(format!(
            "there is no bucket {}; `latticed artifact push` makes it with the first object",
            self.name
        ))
    }

    fn refused(&self, what: &str, error: &Refusal) -> Error {
        let told = format!("the bucket {} does not {what}: {}", self.name, error.text());
        // 503: no leader or no room at the moment.
        if error.code == 503 { Error::unavailable(told) } else { Error::denied(told) }
    }
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
