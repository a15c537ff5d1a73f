//! A contract between two actors, written as the code generator of the SDK writes one.
//!
//! `Greeter.Greet` answers with a greeting. When `via` names actors (keys or call aliases), the first of them is asked
//! to greet instead, with the rest of the list: so a request can ask for a chain, or a loop, of any depth.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wasmbus_rpc::{
    actor::prelude::*,
    common::{deserialize, serialize},
};

/// `Greeter.Greet`, in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GreetRequest {
    /// Who is greeted.
    pub name: String,
    /// Through whom, in order.
    #[serde(default)]
    pub via: Vec<String>,
}

/// What a greeter does.
#[async_trait]
pub trait Greeter {
    /// Greets `request.name`.
    async fn greet(&self, ctx: &Context, request: &GreetRequest) -> RpcResult<String>;
}

/// Turns messages into calls of a [`Greeter`].
#[async_trait]
pub trait GreeterReceiver: MessageDispatch + Greeter {
    async fn dispatch(&self, ctx: &Context, message: Message<'_>) -> Result<Vec<u8>, RpcError> {
        match message.method {
            "Greet" => serialize(&self.greet(ctx, &deserialize(&message.arg)?).await?),
            other => Err(RpcError::MethodNotHandled(format!("Greeter::{other}"))),
        }
    }
}

/// A [`Greeter`] somewhere else.
#[derive(Debug)]
pub struct GreeterSender<T: Transport> {
    transport: T,
}

impl<T: Transport> GreeterSender<T> {
    /// Greets through `transport`.
    pub fn via(transport: T) -> Self {
        Self { transport }
    }
}

#[async_trait]
impl<T: Transport> Greeter for GreeterSender<T> {
    async fn greet(&self, ctx: &Context, request: &GreetRequest) -> RpcResult<String> {
        let message = Message { method: "Greeter.Greet", arg: Cow::Owned(serialize(request)?) };
        deserialize(&self.transport.send(ctx, message, None).await?)
    }
}

/// Greets as `actor`, or has the next in line greet.
#[cfg(target_arch = "wasm32")]
pub async fn greet_as(actor: &str, ctx: &Context, request: &GreetRequest) -> RpcResult<String> {
    let Some((next, rest)) = request.via.split_first() else {
        return Ok(format!("Hello {}, says {actor}", request.name));
    };
    let request = GreetRequest { name: request.name.clone(), via: rest.to_vec() };
    let answer = GreeterSender::via(WasmHost::to_actor(next)?).greet(ctx, &request).await?;
    Ok(format!("{answer} to {actor}"))
}
