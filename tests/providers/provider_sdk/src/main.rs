//! The same provider as `wasmbus_rpc`, on the SDK that followed it.
//!
//! * `KeyValue.Increment`, `KeyValue.Del`: counters in memory, for the counter actor.
//! * `Test.Echo`: the body, whatever its length.
//! * `Test.CallBack`: calls `HttpServer.HandleRequest` of the calling actor with the body, and answers the body of its answer.

#[path = "../../shared.rs"]
mod shared;

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use wasmcloud_provider_sdk::{
    core::{LinkDefinition, WasmCloudEntity},
    deserialize,
    error::ProviderInvocationError,
    provider_main::get_connection,
    serialize, start_provider, Context, MessageDispatch, Provider as SdkProvider, ProviderHandler,
};

use shared::{Increment, Request, Response};

#[derive(Clone, Default)]
struct Provider {
    links: Arc<Mutex<HashMap<String, LinkDefinition>>>,
    counters: Arc<Mutex<HashMap<String, i32>>>,
}

impl SdkProvider for Provider {}

#[async_trait]
impl ProviderHandler for Provider {
    async fn put_link(&self, link: &LinkDefinition) -> bool {
        println!("linked to {} with {:?}", link.actor_id, link.values);
        self.links.lock().unwrap().insert(link.actor_id.clone(), link.clone());
        true
    }

    async fn delete_link(&self, actor: &str) {
        println!("unlinked from {actor}");
        self.links.lock().unwrap().remove(actor);
    }

    async fn shutdown(&self) {
        println!("told to shut down");
    }
}

#[async_trait]
impl MessageDispatch for Provider {
    async fn dispatch<'a>(
        &'a self,
        context: Context,
        method: String,
        body: Cow<'a, [u8]>,
    ) -> Result<Vec<u8>, ProviderInvocationError> {
        match method.as_str() {
            "KeyValue.Increment" => {
                let request: Increment = deserialize(&body)?;
                let mut counters = self.counters.lock().unwrap();
                let counter = counters.entry(request.key).or_default();
                *counter += request.value;
                Ok(serialize(&*counter)?)
            }
            "KeyValue.Del" => {
                let key: String = deserialize(&body)?;
                Ok(serialize(&self.counters.lock().unwrap().remove(&key).is_some())?)
            }
            "Test.Echo" => Ok(body.into_owned()),
            "Test.CallBack" => {
                let actor = context.actor.clone().unwrap_or_default();
                let link = self.links.lock().unwrap().get(&actor).cloned();
                let link = link.ok_or_else(|| format!("no link to {actor}"))?;
                let origin = WasmCloudEntity {
                    public_key: link.provider_id,
                    link_name: link.link_name,
                    contract_id: link.contract_id,
                };
                let target = WasmCloudEntity { public_key: actor, ..WasmCloudEntity::default() };
                let client = get_connection().get_rpc_client();
                let answer =
                    client.send(origin, target, "HttpServer.HandleRequest", serialize(&Request::post(&body))?).await?;
                if let Some(error) = answer.error {
                    return Err(error.into());
                }
                let response: Response = deserialize(&answer.msg)?;
                Ok(response.body)
            }
            other => Err(format!("method not handled {other}").into()),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    start_provider(Provider::default(), Some("provider-sdk provider".to_owned()))?;
    Ok(())
}
