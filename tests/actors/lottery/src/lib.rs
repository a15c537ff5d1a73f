//! Draws a number, names the draw and logs it: all three number operations and the logging of the host.
//!
//! Answers `{"draw":"<uuid>","number":1-6,"salt":any}`, logs the draw at debug and info, a six at warn, `/cheat` at error.

use serde_json::json;
use wasmbus_rpc::actor::prelude::*;
use wasmcloud_interface_httpserver::{HttpRequest, HttpResponse, HttpServer, HttpServerReceiver};
use wasmcloud_interface_logging::{debug, error, info, warn};
use wasmcloud_interface_numbergen::{generate_guid, random_32, random_in_range};

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, HttpServer)]
struct Lottery {}

#[async_trait]
impl HttpServer for Lottery {
    async fn handle_request(&self, _ctx: &Context, request: &HttpRequest) -> RpcResult<HttpResponse> {
        let draw = generate_guid().await?;
        let number = random_in_range(1, 6).await?;
        debug!("draw {} asked for by {}", draw, request.path);
        info!("draw {} gives {}", draw, number);
        if number == 6 {
            warn!("draw {} is a winner", draw);
        }
        if request.path == "/cheat" {
            error!("draw {} was tampered with", draw);
        }
        HttpResponse::json(json!({ "draw": draw, "number": number, "salt": random_32().await? }), 200)
    }
}
