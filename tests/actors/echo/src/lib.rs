//! Answers every HTTP request with what the request was.
//!
//! `GET /any/path?a=1` gives a JSON object of method, path, query string and body; `/raw` gives the body back byte for
//! byte. Of default size and memory (17 pages), so it stands for the usual Rust actor in tests and benchmarks.

use serde_json::json;
use wasmbus_rpc::actor::prelude::*;
use wasmcloud_interface_httpserver::{HttpRequest, HttpResponse, HttpServer, HttpServerReceiver};

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, HttpServer)]
struct Echo {}

#[async_trait]
impl HttpServer for Echo {
    async fn handle_request(&self, _ctx: &Context, request: &HttpRequest) -> RpcResult<HttpResponse> {
        if request.path == "/raw" {
            return Ok(HttpResponse { body: request.body.clone(), ..Default::default() });
        }
        let body = json!({
            "method": &request.method,
            "path": &request.path,
            "query_string": &request.query_string,
            "body": String::from_utf8_lossy(&request.body),
        });
        let body = serde_json::to_vec(&body).map_err(|error| RpcError::ActorHandler(error.to_string()))?;
        Ok(HttpResponse { body, ..Default::default() })
    }
}
