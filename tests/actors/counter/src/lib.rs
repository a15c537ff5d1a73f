//! Counts requests in the key-value store: the quickstart.
//!
//! Every request adds one to the counter named by its path (`/` is `default`) and answers `{"counter":N}`; a request for
//! `/name?reset` removes that counter first.

use serde_json::json;
use wasmbus_rpc::actor::prelude::*;
use wasmcloud_interface_httpserver::{HttpRequest, HttpResponse, HttpServer, HttpServerReceiver};
use wasmcloud_interface_keyvalue::{IncrementRequest, KeyValue, KeyValueSender};

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, HttpServer)]
struct Counter {}

#[async_trait]
impl HttpServer for Counter {
    async fn handle_request(&self, ctx: &Context, request: &HttpRequest) -> RpcResult<HttpResponse> {
        let name = match request.path.trim_matches('/') {
            "" => "default".to_string(),
            path => path.replace('/', ":"),
        };
        let key = format!("counter:{name}");
        let store = KeyValueSender::new();
        if request.query_string == "reset" {
            store.del(ctx, &key).await?;
        }
        let count = store.increment(ctx, &IncrementRequest { key, value: 1 }).await?;
        HttpResponse::json(json!({ "counter": count }), 200)
    }
}
