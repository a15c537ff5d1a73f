//! One call over NATS: what is sent, and what its answer says. Long bodies are put where the other side fetches them.

use std::{borrow::Cow, time::Duration};

use super::{bodies::Bodies, connection::Message};
use crate::{
    claims::{AntiForgery, Now},
    error::{Error, Result},
    wire::{Invocation, InvocationResponse, chunk, id},
};

/// `invocation` with an identity of its own, signed, and with its body: a long one is put where the other side fetches
/// it, within `patience`.
pub async fn seal(
    mut invocation: Invocation<'static>,
    payload: Vec<u8>,
    anti_forgery: &AntiForgery,
    bodies: &Bodies,
    patience: Duration,
) -> Result<Invocation<'static>> {
    invocation.id = id::random_uuid().as_str().to_owned();
    invocation.content_length = Some(payload.len() as u64);
    invocation.encoded_claims = anti_forgery.sign(&invocation, &payload, Now::from_system(0))?;
    if chunk::must_store(payload.len()) {
        bodies.store(chunk::request_object(&invocation.id), payload, patience).await?;
    } else {
        invocation.msg = Cow::Owned(payload);
    }
    Ok(invocation)
}

/// The error behind the text of a failed invocation. The protocol carries text alone; refusals of a host begin with
/// words that are fixed (`protocol/invocation.md §4.1`, §5.1), everything else is the actor's.
fn refusal(text: String) -> Error {
    const REFUSALS: [&str; 3] =
        ["Anti-forgery check failed", "Invocation not authorized", "Invocation source does not have the required"];
    match REFUSALS.iter().any(|beginning| text.starts_with(beginning)) {
        true => Error::denied(text),
        false => Error::guest(text),
    }
}

/// The body inside the answer to the invocation `id`, fetched from where long ones are put.
pub async fn read_answer(bodies: &Bodies, id: &str, message: &Message, patience: Duration) -> Result<Vec<u8>> {
    let response = InvocationResponse::decode(&message.payload)?;
    // Hosts of one generation leave the id out when the actor is not running.
    if !response.invocation_id.is_empty() && response.invocation_id != id {
        return Err(Error::invalid("invocation ID mismatch"));
    }
    if let Some(error) = response.error {
        return Err(refusal(error));
    }
    match response.content_length {
        Some(length) if chunk::is_stored(response.content_length, response.msg.len()) => {
            bodies.take(chunk::response_object(id), length, patience).await
        }
        _ => Ok(response.msg.into_owned()),
    }
}
