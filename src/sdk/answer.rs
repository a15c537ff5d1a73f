//! One call from the lattice: read, checked, answered (`protocol/invocation.md §4.2, §6`).

use std::{sync::Arc, time::Instant};

use super::{
    Call, Provider, check,
    serve::{Place, Running},
};
use crate::{
    claims::{Forgery, Now},
    error::{Error, Result},
    log,
    nats::connection::Message,
    task,
    wire::{Invocation, InvocationResponse, chunk, text},
};

/// Calls under way at once. What waits holds its body, so this bounds memory; one more is refused at once.
pub const MAX_IN_FLIGHT: usize = 256;

/// Longest error text that is sent, bytes; a longer one is cut.
const ERROR_TEXT_BYTES: usize = 16 * 1024;

impl<P: Provider> Running<P> {
    /// Starts the answer to `message`. Called by the reader, so it only hands over.
    pub(super) fn take_call(self: &Arc<Self>, message: Message) {
        let (place, before) = self.busy.enter();
        let running = self.clone();
        task::spawn(async move { running.answer(&message, before, place).await }).detach();
    }

    async fn answer(&self, message: &Message, before: usize, _place: Place) {
        let response = match check::read(&message.payload) {
            Err(error) => failure("", &error),
            Ok(invocation) => {
                // The reader counts as one.
                let outcome = if before > MAX_IN_FLIGHT {
                    Err(Error::busy(format!("this provider has {MAX_IN_FLIGHT} calls under way; try again")))
                } else {
                    self.run(&invocation).await
                };
                match outcome {
                    Ok(body) => self.success(&invocation.id, body).await,
                    Err(error) => failure(&invocation.id, &error),
                }
            }
        };
        let Some(reply) = &message.reply else { return };
        let sent = match response.encode() {
            Ok(body) => self.lattice.inner().connection.publish(reply.to_string(), body).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            log::warn!("an answer was not sent: {error}");
        }
    }

    async fn run(&self, invocation: &Invocation<'_>) -> Result<Vec<u8>> {
        let inner = self.lattice.inner();
        let mut deadline = Instant::now() + inner.rpc_timeout;
        let key = self.lattice.provider_key();
        let now = Now::from_system(0);
        let (checked, link) = check::check(&inner.anti_forgery, key, &inner.links, invocation, now)?;
        let payload = if invocation.is_stored() {
            deadline += chunk::EXTRA_TIME;
            let length = invocation.content_length.unwrap_or_default();
            inner.bodies.take(chunk::request_object(&invocation.id), length, chunk::EXTRA_TIME).await?
        } else {
            invocation.msg.to_vec()
        };
        // The first check leaves bodies out that were not in the message, and empty ones.
        if invocation.msg.is_empty() {
            checked.find_forgery(invocation, &payload).map_err(Forgery::as_provider_says)?;
        }
        let call = Call { link, operation: invocation.operation.clone(), payload, deadline };
        task::before(deadline, self.provider.call(call)).await.unwrap_or_else(|| {
            Err(Error::timeout(format!(
                "{} was not answered within {} ms",
                text::prefix(&invocation.operation, ERROR_TEXT_BYTES / 2),
                inner.rpc_timeout.as_millis()
            )))
        })
    }

    async fn success(&self, id: &str, body: Vec<u8>) -> InvocationResponse<'static> {
        if !chunk::must_store(body.len()) {
            return InvocationResponse::success(id, body);
        }
        let length = body.len() as u64;
        let name = chunk::response_object(id);
        match self.lattice.inner().bodies.store(name, body, chunk::EXTRA_TIME).await {
            Ok(()) => InvocationResponse { content_length: Some(length), ..InvocationResponse::success(id, &b""[..]) },
            Err(error) => failure(id, &error),
        }
    }
}

fn failure(id: &str, error: &Error) -> InvocationResponse<'static> {
    InvocationResponse::failure(id, text::prefix(error.text(), ERROR_TEXT_BYTES))
}
