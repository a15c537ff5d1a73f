//! Has other actors greet: the caller of the actor-to-actor pair.
//!
//! `GET /Ada?via=test/callee` asks the actor with that call alias (or key) to greet Ada; `via` may be a list with
//! commas, and may come back to this actor.

use greeter::{greet_as, GreetRequest, Greeter, GreeterReceiver};
use wasmbus_rpc::actor::prelude::*;
use wasmcloud_interface_httpserver::{HttpRequest, HttpResponse, HttpServer, HttpServerReceiver};

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, HttpServer, Greeter)]
struct Caller {}

#[async_trait]
impl HttpServer for Caller {
    async fn handle_request(&self, ctx: &Context, request: &HttpRequest) -> RpcResult<HttpResponse> {
        let via = request.query_string.strip_prefix("via=").unwrap_or_default();
        let request = GreetRequest {
            name: request.path.trim_matches('/').to_string(),
            via: via.split(',').filter(|actor| !actor.is_empty()).map(str::to_string).collect(),
        };
        let greeting = self.greet(ctx, &request).await?;
        Ok(HttpResponse { body: greeting.into_bytes(), ..Default::default() })
    }
}

#[async_trait]
impl Greeter for Caller {
    async fn greet(&self, ctx: &Context, request: &GreetRequest) -> RpcResult<String> {
        greet_as("caller", ctx, request).await
    }
}
