//! The lattice's bucket as JetStream keeps it: made when it is missing, watched, written to (`protocol/cache.md §1–4`).
//!
//! The client library has all this too, with a sign of life every five seconds: 88 KB an hour on an idle link. This watch
//! has its own interval, sees a delete whatever the case of its header, and asks for what a server of any age answers. It
//! decides nothing: what an entry means is in `sync`.

use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::{
    error::{Error, Result},
    log,
    nats::{
        connection::{Connection, Subscriber},
        jetstream::{JetStream, Reply, STREAM_NOT_FOUND},
    },
    task,
    wire::cache::{
        Delivery, OPERATION_HEADER, Operation, create_request, operation, put_prefix, stream, watch_request,
    },
};

/// How long one request to JetStream may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Entries of the first content that are kept until all of it is there, and their bytes together. A lattice with more is
/// larger than what a board can know; the rest is left out with a warning.
const MAX_CONTENT: usize = 3 * 8192;
const MAX_CONTENT_BYTES: usize = 8 << 20;

/// Changes taken over together when many come at once: one write to disk for all of them.
const MAX_READY: usize = 256;

/// Marks signs of life with the number of the last message before them.
const LAST_MESSAGE: &str = "Nats-Last-Consumer";

/// Marks signs of life of a watch that waits for our word before it goes on, and says where that word goes.
const STALLED: &str = "Nats-Consumer-Stalled";

/// The bucket of one lattice.
pub struct Bucket {
    jetstream: JetStream,
    lattice: String,
}

/// A key and what it says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its value; `None` when it was deleted.
    pub value: Option<Bytes>,
    /// Which message of the bucket's stream says so; later ones have higher numbers.
    pub number: u64,
}

/// What a bucket holds when a watch begins.
#[derive(Debug, Default)]
pub struct Content {
    /// Each key once, deleted ones too where their mark is still there.
    pub entries: Vec<Entry>,
    /// Entries left out because a board cannot know so many.
    pub left_out: usize,
}

impl Bucket {
    /// The bucket of `lattice` in the JetStream domain `domain`.
    pub fn new(connection: Connection, lattice: &str, domain: Option<&str>) -> Self {
        Self { jetstream: JetStream::new(connection, domain), lattice: lattice.to_owned() }
    }

    /// Watches the bucket, which is made when it is missing. One that is there is never changed: operators replicate it as
    /// they like.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind::Unavailable): there is no JetStream, or it refuses, or does not answer.
    pub async fn watch(&self, heartbeat: Duration) -> Result<Watch> {
        let connection = self.jetstream.connection();
        let inbox = connection.inbox();
        let messages = connection.subscribe(inbox.clone(), None).await?;
        let watch = async || {
            let request = watch_request(&self.lattice, &inbox, heartbeat.as_nanos());
            self.jetstream.ask("CONSUMER.CREATE", &stream(&self.lattice), request, PATIENCE).await
        };
        let mut answer = watch().await?;
        if answer.error.as_ref().is_some_and(|error| error.err_code == STREAM_NOT_FOUND) {
            let (stream, request) = (stream(&self.lattice), create_request(&self.lattice));
            let made = self.jetstream.ask("STREAM.CREATE", &stream, request, PATIENCE).await?;
            answer = watch().await?;
            // Whether we made it or another host was quicker: what counts is that it is there now.
            if answer.error.is_some() {
                accepted(made, "make it")?;
            }
        }
        let pending = accepted(answer, "watch it")?.num_pending;
        Ok(Watch {
            connection: connection.clone(),
            messages,
            prefix: put_prefix(&self.lattice, None),
            heartbeat,
            sequence: 0,
            pending,
        })
    }

    /// Gives `key` a value, or deletes it. Answers the number of the message that says so.
    ///
    /// # Errors
    /// As [`Bucket::watch`]; [`Kind::Denied`](crate::error::Kind::Denied) and [`Kind::Limit`](crate::error::Kind::Limit)
    /// where it is this value that is not taken.
    pub async fn put(&self, key: &str, value: Option<Vec<u8>>) -> Result<u64> {
        let subject = format!("{}{key}", put_prefix(&self.lattice, self.jetstream.domain()));
        let mut headers = HeaderMap::new();
        if value.is_none() {
            headers.insert(OPERATION_HEADER, "PURGE");
        }
        let put = self.jetstream.put(subject, headers, value.unwrap_or_default().into(), PATIENCE).await?;
        let put = put.ok_or_else(|| Error::unavailable("there is no such bucket here"))?;
        match put.error {
            None => Ok(put.seq),
            Some(error) => Err(Error::denied(format!("JetStream says: {}", error.text()))),
        }
    }
}

fn accepted(answer: Reply, what: &str) -> Result<Reply> {
    match answer.error {
        None => Ok(answer),
        Some(error) => Err(Error::unavailable(format!("cannot {what}: JetStream says: {}", error.text()))),
    }
}

/// A watch of a bucket. Dropped, it ends.
pub struct Watch {
    connection: Connection,
    messages: Subscriber,
    prefix: String,
    heartbeat: Duration,
    /// Number of the last message.
    sequence: u64,
    /// Messages of the first content that are to come.
    pending: u64,
}

impl Watch {
    /// All that is in the bucket when the watch begins.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind::Unavailable): it did not arrive.
    pub async fn content(&mut self) -> Result<Content> {
        let (mut content, mut bytes) = (Content::default(), 0);
        while self.pending > 0 {
            let next = task::within(PATIENCE, self.next()).await;
            let entry = next.unwrap_or_else(|| Err(Error::unavailable("its content did not arrive")))?;
            bytes += entry.key.len() + entry.value.as_ref().map_or(0, Bytes::len);
            if content.entries.len() < MAX_CONTENT && bytes <= MAX_CONTENT_BYTES {
                content.entries.push(entry);
            } else {
                content.left_out += 1;
            }
        }
        if content.left_out > 0 {
            let left_out = content.left_out;
            log::warn!("the lattice's bucket holds more than a board can know: {left_out} entries were left out");
        }
        Ok(content)
    }

    /// The next change. May be dropped while it waits.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind::Unavailable): the watch is broken or has missed something; a new one tells
    /// everything again.
    pub async fn next(&mut self) -> Result<Entry> {
        loop {
            // One sign of life may be lost or late.
            let message = task::within(self.heartbeat * 2 + PATIENCE, self.messages.next())
                .await
                .ok_or_else(|| Error::unavailable("the watch gives no sign of life"))?
                .ok_or_else(|| Error::unavailable("the watch ended"))?;
            match message.status {
                Some(StatusCode::IDLE_HEARTBEAT) => self.sign_of_life(&message).await?,
                Some(status) => {
                    let why = message.description.as_deref().unwrap_or_default();
                    return Err(Error::unavailable(format!("the watch ended: {status} {why}")));
                }
                None => {
                    if let Some(entry) = self.take(message)? {
                        return Ok(entry);
                    }
                }
            }
        }
    }

    /// Changes that have arrived already, at most [`MAX_READY`].
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn ready(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while entries.len() < MAX_READY
            && let Some(next) = smol::future::poll_once(self.next()).await
        {
            entries.push(next?);
        }
        Ok(entries)
    }

    async fn sign_of_life(&self, message: &Message) -> Result<()> {
        let header = |name: &str| {
            let headers = message.headers.as_ref()?;
            headers.iter().find_map(|(known, values)| {
                let known: &str = known.as_ref();
                known.eq_ignore_ascii_case(name).then(|| values.first().map(|value| value.as_str().to_owned()))?
            })
        };
        // The server has sent as much as it wants to without hearing of us.
        let asked = message.reply.as_ref().map(ToString::to_string).or_else(|| header(STALLED));
        if let Some(subject) = asked {
            self.connection.publish(subject, Bytes::new()).await?;
        }
        match header(LAST_MESSAGE).and_then(|last| last.parse::<u64>().ok()) {
            Some(last) if last != self.sequence => Err(Error::unavailable("the watch has missed a change")),
            _ => Ok(()),
        }
    }

    /// The entry in a message; `None` for what is none of this bucket's.
    fn take(&mut self, message: Message) -> Result<Option<Entry>> {
        let Some(delivery) = message.reply.as_ref().and_then(|reply| Delivery::parse(reply)) else { return Ok(None) };
        if delivery.sequence != self.sequence + 1 {
            return Err(Error::unavailable("the watch has missed a change"));
        }
        (self.sequence, self.pending) = (delivery.sequence, delivery.pending);
        let Some(key) = message.subject.strip_prefix(self.prefix.as_str()) else { return Ok(None) };
        let headers = message.headers.iter().flat_map(HeaderMap::iter);
        let headers =
            headers.flat_map(|(name, values)| values.iter().map(move |value| (name.as_ref(), value.as_str())));
        let value = match operation(headers) {
            Operation::Put => Some(message.payload),
            Operation::Delete => None,
        };
        Ok(Some(Entry { key: key.to_owned(), value, number: delivery.stored }))
    }
}
