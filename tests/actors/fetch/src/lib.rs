//! Fetches a page over HTTP on behalf of whoever asks.
//!
//! The query string is the URL: `GET /?http://127.0.0.1:8000/page`. Method and body are passed on; status and body come
//! back as they are. What the host refuses arrives as status 502 with the host's words.

use wasmbus_rpc::actor::prelude::*;
use wasmcloud_interface_httpclient::{HttpClient, HttpClientSender, HttpRequest as ClientRequest};
use wasmcloud_interface_httpserver::{HttpRequest, HttpResponse, HttpServer, HttpServerReceiver};

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, HttpServer)]
struct Fetch {}

#[async_trait]
impl HttpServer for Fetch {
    async fn handle_request(&self, ctx: &Context, request: &HttpRequest) -> RpcResult<HttpResponse> {
        let wanted = ClientRequest {
            method: request.method.clone(),
            url: request.query_string.clone(),
            headers: Default::default(),
            body: request.body.clone(),
        };
        Ok(match HttpClientSender::new().request(ctx, &wanted).await {
            Ok(page) => HttpResponse { status_code: page.status_code, header: page.header, body: page.body },
            Err(error) => {
                HttpResponse { status_code: 502, body: error.to_string().into_bytes(), ..Default::default() }
            }
        })
    }
}
