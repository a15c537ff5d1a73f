//! What both providers read and write, whichever SDK they stand on.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// The body of `KeyValue.Increment`.
#[derive(Deserialize)]
pub struct Increment {
    pub key: String,
    pub value: i32,
}

/// The body of `HttpServer.HandleRequest`.
#[derive(Serialize)]
pub struct Request<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(rename = "queryString")]
    query_string: &'a str,
    header: HashMap<String, Vec<String>>,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A request with `body` and nothing else of interest.
    pub fn post(body: &'a [u8]) -> Self {
        Self { method: "POST", path: "/", query_string: "", header: HashMap::new(), body }
    }
}

/// The part of its answer that matters here.
#[derive(Deserialize)]
pub struct Response {
    #[serde(with = "serde_bytes", default)]
    pub body: Vec<u8>,
}
