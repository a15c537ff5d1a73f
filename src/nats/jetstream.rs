//! JetStream by plain requests: what its API is asked and how it answers.
//!
//! The client library has an interface of its own for this, 0.2 MB that starts tasks wherever it is made and panics where
//! its runtime is not. What the lattice's bucket, object stores and brokers ask for is a handful of requests; each carries
//! a deadline and ends with the connection it went out on. Subjects and errors: NATS ADR-2 and the server's
//! `server/errors.json`.

use std::{sync::Arc, time::Duration};

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use serde::Deserialize;

use super::connection::{Answer, Connection};
use crate::{
    error::{Error, Result},
    wire::{json, text},
};

/// What JetStream calls a stream that is not there.
pub const STREAM_NOT_FOUND: u64 = 10_059;

/// What it calls a message that is not there.
pub const MESSAGE_NOT_FOUND: u64 = 10_037;

/// What it calls a message that is longer than the stream takes.
pub const MESSAGE_TOO_LONG: u64 = 10_054;

/// The code of a refusal because the stream that takes the subject is not the one the message must have.
pub const OTHER_STREAM: u64 = 10_060;

/// Longest answer that is read, bytes: a chunk of 8 MiB in base64, more than servers take by default.
const MAX_ANSWER_BYTES: usize = 12 << 20;

/// How much of a server's text an error repeats, bytes.
const SHOWN_BYTES: usize = 300;

/// JetStream on a connection, in one of its domains. Nothing is asked until something is.
#[derive(Clone)]
pub struct JetStream {
    connection: Connection,
    domain: Option<Arc<str>>,
}

/// An answer of the API, as far as anybody here needs one.
#[derive(Debug, Default, Deserialize)]
pub struct Reply {
    /// Why it was not done.
    #[serde(default)]
    pub error: Option<Refusal>,
    /// The message that was asked for.
    #[serde(default)]
    pub message: Option<Stored>,
    /// How the stream that was asked about is set up.
    #[serde(default)]
    pub config: Option<Config>,
    /// How many messages a new watch will be given.
    #[serde(default)]
    pub num_pending: u64,
    /// The number that a message which was put has in its stream.
    #[serde(default)]
    pub seq: u64,
}

/// Why JetStream does not do what it was asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Refusal {
    /// As HTTP has it; 503: no leader or no room at the moment.
    #[serde(default)]
    pub code: u64,
    /// The exact reason.
    #[serde(default)]
    pub err_code: u64,
    /// For people.
    #[serde(default)]
    description: String,
}

/// A message of a stream.
#[derive(Debug, Deserialize)]
pub struct Stored {
    /// Its number in the stream.
    pub seq: u64,
    /// What it holds, in base64.
    #[serde(default)]
    pub data: String,
}

/// How a stream is set up.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// Messages can be had without the detour over JSON.
    #[serde(default)]
    pub allow_direct: bool,
}

impl JetStream {
    /// That of `domain`, by way of `connection`.
    pub fn new(connection: Connection, domain: Option<&str>) -> Self {
        Self { connection, domain: domain.map(Arc::from) }
    }

    /// The way to it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The domain, where it is not the server's own.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// Asks the API for `verb` on `stream`: `STREAM.CREATE`. A refusal is an answer.
    ///
    /// # Errors
    /// `Unavailable`: there is no connection or no JetStream; `Timeout`; `Invalid`: the answer cannot be read.
    pub async fn ask(&self, verb: &str, stream: &str, request: impl Into<Bytes>, patience: Duration) -> Result<Reply> {
        let message = self.get(verb, stream, request, patience).await?;
        read(&message.payload)
    }

    /// As [`JetStream::ask`], for verbs whose answer is the message itself.
    ///
    /// # Errors
    /// As [`JetStream::ask`].
    pub async fn get(
        &self,
        verb: &str,
        stream: &str,
        request: impl Into<Bytes>,
        patience: Duration,
    ) -> Result<Message> {
        let subject = api(self.domain(), verb, stream);
        match self.request(subject, None, request.into(), patience).await? {
            Answer::Message(message) => Ok(message),
            Answer::Silence => Err(silence(patience)),
            Answer::Nobody => Err(Error::unavailable(match self.domain() {
                Some(domain) => {
                    format!("nobody serves the JetStream domain {domain} now; WASMCLOUD_JS_DOMAIN names the domain")
                }
                None => "the NATS server has no JetStream; switch it on there, or name its domain in \
                         WASMCLOUD_JS_DOMAIN"
                    .to_owned(),
            })),
        }
    }

    /// Puts one message into whatever stream takes `subject`, and waits until it is there. A refusal is an answer; nothing
    /// is the answer where no stream takes it.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`, `Limit`; `Invalid`: the answer cannot be read.
    pub async fn put(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
        patience: Duration,
    ) -> Result<Option<Reply>> {
        match self.request(subject, Some(headers), payload, patience).await? {
            Answer::Message(message) => read(&message.payload).map(Some),
            Answer::Nobody => Ok(None),
            Answer::Silence => Err(silence(patience)),
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
}

impl Refusal {
    /// What the server says, cut to what a line takes.
    pub fn text(&self) -> &str {
        text::prefix(&self.description, SHOWN_BYTES)
    }
}

/// What a stream says of a message that was put into it with a place for the answer; nothing where no stream takes it.
///
/// # Errors
/// `Invalid`: it cannot be read.
pub fn acknowledged(message: &Message) -> Result<Option<Reply>> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Ok(None);
    }
    read(&message.payload).map(Some)
}

/// Where a request of the API goes, in the domain `domain`.
pub fn api(domain: Option<&str>, verb: &str, stream: &str) -> String {
    match domain {
        Some(domain) => format!("$JS.{domain}.API.{verb}.{stream}"),
        None => format!("$JS.API.{verb}.{stream}"),
    }
}

fn read(answer: &[u8]) -> Result<Reply> {
    json::read("the answer of JetStream cannot be read", answer, MAX_ANSWER_BYTES)
}

fn silence(patience: Duration) -> Error {
    Error::timeout(format!("JetStream did not answer within {} s", patience.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_go_to_the_domain_that_is_meant() {
        assert_eq!(api(None, "STREAM.CREATE", "KV_A"), "$JS.API.STREAM.CREATE.KV_A");
        assert_eq!(api(Some("leaf"), "DIRECT.GET", "OBJ_b"), "$JS.leaf.API.DIRECT.GET.OBJ_b");
    }

    #[test]
    fn answers_are_read_as_far_as_they_matter() {
        let put = read(br#"{"stream":"READINGS","seq":7,"duplicate":true,"domain":"hub"}"#).unwrap();
        assert!(put.error.is_none() && put.num_pending == 0 && put.seq == 7);
        let refused = br#"{"type":"io.nats.jetstream.api.v1.stream_info_response",
            "error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let error = read(refused).unwrap().error.unwrap();
        assert_eq!((error.code, error.err_code, error.text()), (404, STREAM_NOT_FOUND, "stream not found"));
        let made = br#"{"type":"x","stream_name":"KV_A","name":"c","config":{"allow_direct":true},"num_pending":12}"#;
        let made = read(made).unwrap();
        assert!(made.num_pending == 12 && made.config.is_some_and(|config| config.allow_direct));
        assert!(read(b"").is_err() && read(b"7").is_err() && read(&[b' '; MAX_ANSWER_BYTES + 1]).is_err());
        let long = Refusal { description: "x".repeat(4096), ..Refusal::default() };
        assert_eq!(long.text().len(), SHOWN_BYTES);
    }
}
