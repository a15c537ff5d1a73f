//! Greets when another actor asks.

use greeter::{greet_as, GreetRequest, Greeter, GreeterReceiver};
use wasmbus_rpc::actor::prelude::*;

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, Greeter)]
struct Callee {}

#[async_trait]
impl Greeter for Callee {
    async fn greet(&self, ctx: &Context, request: &GreetRequest) -> RpcResult<String> {
        greet_as("callee", ctx, request).await
    }
}
