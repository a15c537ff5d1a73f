//! Payloads of the first-party contracts (`protocol/interfaces.md`): what the capabilities of this process read and write.
//!
//! Field names on the wire are the camelCase ones of the contracts. Blobs are written as msgpack bin and read as bin,
//! str or array of bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Contract of the HTTP server.
pub const HTTP_SERVER: &str = "wasmcloud:httpserver";
/// Contract of the HTTP client.
pub const HTTP_CLIENT: &str = "wasmcloud:httpclient";
/// Contract of the key-value store.
pub const KEY_VALUE: &str = "wasmcloud:keyvalue";
/// Contract of messaging.
pub const MESSAGING: &str = "wasmcloud:messaging";
/// Contract of the built-in logging.
pub const LOGGING: &str = "wasmcloud:builtin:logging";
/// Contract of the built-in random numbers.
pub const NUMBERGEN: &str = "wasmcloud:builtin:numbergen";

/// Header names to all their values.
pub type HeaderMap = BTreeMap<String, Vec<String>>;

/// `HttpServer.HandleRequest`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without the query, percent-encoding kept.
    pub path: String,
    /// Query without its `?`.
    #[serde(default)]
    pub query_string: String,
    /// Request headers, names in lower case.
    pub header: HeaderMap,
    /// The whole body.
    #[serde(with = "serde_bytes", default)]
    pub body: Vec<u8>,
}

/// `HttpServer.HandleRequest`, out; also `HttpClient.Request`, out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpResponse {
    /// Status code, 100–599.
    pub status_code: u16,
    /// Response headers.
    #[serde(default)]
    pub header: HeaderMap,
    /// The whole body.
    #[serde(with = "serde_bytes", default)]
    pub body: Vec<u8>,
}

/// `HttpClient.Request`, in. Note `headers`, plural, where everything else says `header`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpClientRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Absolute URL.
    pub url: String,
    /// Request headers.
    #[serde(default)]
    pub headers: HeaderMap,
    /// The whole body.
    #[serde(with = "serde_bytes", default)]
    pub body: Vec<u8>,
}

/// `KeyValue.Get`, out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetResponse {
    /// `""` when the key does not exist.
    #[serde(default)]
    pub value: String,
    /// Whether the key exists.
    #[serde(default)]
    pub exists: bool,
}

/// `KeyValue.Set`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetRequest {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Seconds to live; 0 is for ever.
    #[serde(default)]
    pub expires: u32,
}

/// `KeyValue.Increment`, in. The answer is the new value as i32.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncrementRequest {
    /// The key.
    pub key: String,
    /// What to add; may be negative.
    pub value: i32,
}

/// `KeyValue.ListAdd` and `KeyValue.ListDel`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListValueRequest {
    /// The list's key.
    pub list_name: String,
    /// The element.
    pub value: String,
}

/// `KeyValue.ListRange`, in. Both ends are inclusive; negative ones count from the end, as in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListRangeRequest {
    /// The list's key.
    pub list_name: String,
    /// First element.
    pub start: i32,
    /// Last element.
    pub stop: i32,
}

/// `KeyValue.SetAdd` and `KeyValue.SetDel`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetValueRequest {
    /// The set's key.
    pub set_name: String,
    /// The member.
    pub value: String,
}

/// A message: `Messaging.Publish`, in; `Messaging.Request`, out; `MessageSubscriber.HandleMessage`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerMessage {
    /// Where it is said.
    #[serde(default)]
    pub subject: String,
    /// Where an answer is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// What is said.
    #[serde(with = "serde_bytes", default)]
    pub body: Vec<u8>,
}

/// `Messaging.Request`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerRequest {
    /// Where it is asked.
    #[serde(default)]
    pub subject: String,
    /// What is asked.
    #[serde(with = "serde_bytes", default)]
    pub body: Vec<u8>,
    /// How long to wait for the answer, milliseconds; 0 is as long as the caller's own deadline lets it.
    #[serde(default)]
    pub timeout_ms: u32,
}

/// `Logging.WriteLog`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// `debug`, `info`, `warn`, `error`, also `trace` and `critical`.
    pub level: String,
    /// The line.
    pub text: String,
}

/// `NumberGen.RandomInRange`, in; both ends are inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeLimit {
    /// Lowest answer.
    #[serde(default)]
    pub min: u32,
    /// Highest answer.
    #[serde(default)]
    pub max: u32,
}
