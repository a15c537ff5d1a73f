//! Sends messages for whoever asks over HTTP, and handles those that come.
//!
//! `POST /publish?SUBJECT` publishes the body, `POST /publish?SUBJECT&REPLY` with a place for answers, and
//! `POST /request?SUBJECT&MILLISECONDS` waits for an answer and gives it back. What the host refuses arrives as status 502
//! with the host's words.
//!
//! A message is handled by saying `SUBJECT: BODY` where it wants its answer, else on `handled.SUBJECT`. One whose body
//! begins with `ask ` first asks on the subject after it and waits for the answer, which goes in the place of the body:
//! so whoever answers there decides how long handling takes. `fail` as the body is not handled but refused.

use wasmbus_rpc::actor::prelude::*;
use wasmcloud_interface_httpserver::{HttpRequest, HttpResponse, HttpServer, HttpServerReceiver};
use wasmcloud_interface_messaging::{
    MessageSubscriber, MessageSubscriberReceiver, Messaging, MessagingSender, PubMessage, RequestMessage, SubMessage,
};

/// How long an answer is waited for when nobody says: far longer than any host lets an actor run.
const ANSWER_MS: u32 = 60_000;

#[derive(Debug, Default, Actor, HealthResponder)]
#[services(Actor, HttpServer, MessageSubscriber)]
struct Mailbox {}

async fn publish(ctx: &Context, subject: &str, reply_to: Option<String>, body: Vec<u8>) -> RpcResult<()> {
    MessagingSender::new().publish(ctx, &PubMessage { subject: subject.into(), reply_to, body }).await
}

async fn request(ctx: &Context, subject: &str, body: Vec<u8>, timeout_ms: u32) -> RpcResult<Vec<u8>> {
    let request = RequestMessage { subject: subject.into(), body, timeout_ms };
    Ok(MessagingSender::new().request(ctx, &request).await?.body)
}

#[async_trait]
impl HttpServer for Mailbox {
    async fn handle_request(&self, ctx: &Context, asked: &HttpRequest) -> RpcResult<HttpResponse> {
        let (subject, rest) = asked.query_string.split_once('&').unwrap_or((&asked.query_string, ""));
        let body = asked.body.clone();
        let outcome = match asked.path.as_str() {
            "/publish" => {
                let reply_to = Some(rest.to_string()).filter(|reply| !reply.is_empty());
                publish(ctx, subject, reply_to, body).await.map(|()| Vec::new())
            }
            "/request" => request(ctx, subject, body, rest.parse().unwrap_or(ANSWER_MS)).await,
            _ => return Ok(HttpResponse { status_code: 404, ..Default::default() }),
        };
        Ok(match outcome {
            Ok(body) => HttpResponse { body, ..Default::default() },
            Err(error) => {
                HttpResponse { status_code: 502, body: error.to_string().into_bytes(), ..Default::default() }
            }
        })
    }
}

#[async_trait]
impl MessageSubscriber for Mailbox {
    async fn handle_message(&self, ctx: &Context, message: &SubMessage) -> RpcResult<()> {
        let body = match String::from_utf8_lossy(&message.body).as_ref() {
            "fail" => return Err(RpcError::ActorHandler("told to fail".into())),
            text => match text.strip_prefix("ask ") {
                Some(subject) => request(ctx, subject, message.subject.clone().into_bytes(), ANSWER_MS).await?,
                None => message.body.clone(),
            },
        };
        let said = [message.subject.as_bytes(), b": ", &body].concat();
        let aside = format!("handled.{}", message.subject);
        publish(ctx, message.reply_to.as_ref().unwrap_or(&aside), None, said).await
    }
}
