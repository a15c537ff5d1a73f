//! Calls of actors over NATS, signed and asked as `wash call` and providers do it.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use latticed::{
    claims::{AntiForgery, Now},
    wire::{
        Entity, Invocation, InvocationResponse,
        interface::{HttpRequest, HttpResponse},
    },
};

use super::nats;

/// Signs what callers ask.
pub struct Signer {
    key: AntiForgery,
    next: AtomicU64,
}

impl Default for Signer {
    fn default() -> Self {
        Self { key: AntiForgery::new(nats::cluster(), []).expect("a cluster key"), next: AtomicU64::new(0) }
    }
}

impl Signer {
    /// A signed invocation of `operation` of the actor `key`, as it goes over the wire.
    pub fn invocation(&self, key: &str, operation: &str, body: &[u8]) -> Vec<u8> {
        let mut invocation = Invocation {
            origin: Entity::actor("__WASH__"),
            target: Entity::actor(key),
            operation: operation.into(),
            msg: Cow::Borrowed(body),
            id: format!("call-{}", self.next.fetch_add(1, Relaxed)),
            host_id: "NwashHostCallerId000000000000000000000000000000000000000".into(),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        };
        invocation.encoded_claims = self.key.sign(&invocation, body, Now::from_system(0)).expect("it is signed");
        invocation.encode().expect("it can be written")
    }
}

/// Somebody who calls.
pub struct Caller {
    nats: async_nats_031::Client,
    signer: Signer,
}

impl Caller {
    /// A caller in the cluster of all tests.
    pub fn new(nats: async_nats_031::Client) -> Self {
        Self { nats, signer: Signer::default() }
    }

    /// Calls `operation` of the actor `key`.
    ///
    /// # Errors
    /// The text of whoever refused.
    pub async fn call(&self, key: &str, operation: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let subject = format!("wasmbus.rpc.default.{key}");
        let request = self.signer.invocation(key, operation, body);
        let answer = self.nats.request(subject, request.into()).await.map_err(|error| error.to_string())?;
        answered(&answer.payload)
    }

    /// Has the actor `key` answer an HTTP request; the body of its answer.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub async fn http(&self, key: &str, path: &str, query: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let answer = self.call(key, "HttpServer.HandleRequest", &http_request(path, query, body)).await?;
        rmp_serde::from_slice::<HttpResponse>(&answer).map(|answer| answer.body).map_err(|error| error.to_string())
    }
}

/// The body of an answer.
///
/// # Errors
/// The error it carries.
pub fn answered(answer: &[u8]) -> Result<Vec<u8>, String> {
    let response = InvocationResponse::decode(answer).map_err(|error| error.to_string())?;
    match response.error {
        Some(error) => Err(error),
        None => Ok(response.msg.into_owned()),
    }
}

/// An HTTP request as actors get it.
pub fn http_request(path: &str, query: &str, body: &[u8]) -> Vec<u8> {
    let request = HttpRequest {
        method: "POST".into(),
        path: path.into(),
        query_string: query.into(),
        body: body.to_vec(),
        ..Default::default()
    };
    rmp_serde::to_vec_named(&request).expect("it can be written")
}
