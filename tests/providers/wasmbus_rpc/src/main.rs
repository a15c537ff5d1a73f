//! A provider on the SDK of the 0.6x line: a counter, an echo, and a call back to the actor.
//!
//! * `KeyValue.Increment`, `KeyValue.Del`: counters in memory, for the counter actor.
//! * `Test.Echo`: the body, whatever its length.
//! * `Test.CallBack`: calls `HttpServer.HandleRequest` of the calling actor with the body, and answers the body of its answer.

#[path = "../../shared.rs"]
mod shared;

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use wasmbus_rpc::{
    common::{deserialize, serialize, Context, Message, MessageDispatch, Transport},
    core::LinkDefinition,
    error::{RpcError, RpcResult},
    provider::{prelude::provider_main, ProviderDispatch, ProviderHandler, ProviderTransport},
};

use shared::{Increment, Request, Response};

#[derive(Clone, Default)]
struct Provider {
    links: Arc<Mutex<HashMap<String, LinkDefinition>>>,
    counters: Arc<Mutex<HashMap<String, i32>>>,
}

impl ProviderDispatch for Provider {}

#[async_trait]
impl ProviderHandler for Provider {
    async fn put_link(&self, link: &LinkDefinition) -> RpcResult<bool> {
        println!("linked to {} with {:?}", link.actor_id, link.values);
        self.links.lock().unwrap().insert(link.actor_id.clone(), link.clone());
        Ok(true)
    }

    async fn delete_link(&self, actor: &str) {
        println!("unlinked from {actor}");
        self.links.lock().unwrap().remove(actor);
    }

    async fn shutdown(&self) -> Result<(), Infallible> {
        println!("told to shut down");
        Ok(())
    }
}

#[async_trait]
impl MessageDispatch for Provider {
    async fn dispatch(&self, context: &Context, message: Message<'_>) -> Result<Vec<u8>, RpcError> {
        match message.method {
            "KeyValue.Increment" => {
                let request: Increment = deserialize(&message.arg)?;
                let mut counters = self.counters.lock().unwrap();
                let counter = counters.entry(request.key).or_default();
                *counter += request.value;
                serialize(&*counter)
            }
            "KeyValue.Del" => {
                let key: String = deserialize(&message.arg)?;
                serialize(&self.counters.lock().unwrap().remove(&key).is_some())
            }
            "Test.Echo" => Ok(message.arg.into_owned()),
            "Test.CallBack" => {
                let actor = context.actor.clone().unwrap_or_default();
                let link = self.links.lock().unwrap().get(&actor).cloned();
                let link = link.ok_or_else(|| RpcError::Other(format!("no link to {actor}")))?;
                let call = Message {
                    method: "HttpServer.HandleRequest",
                    arg: serialize(&Request::post(&message.arg))?.into(),
                };
                let answer = ProviderTransport::new(&link, None).send(context, call, None).await?;
                let response: Response = deserialize(&answer)?;
                Ok(response.body)
            }
            other => Err(RpcError::MethodNotHandled(other.to_owned())),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    provider_main(Provider::default(), Some("wasmbus-rpc provider".to_owned()))
}
