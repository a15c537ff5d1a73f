//! Our HTTP server with a fixed answer in place of the host behind it.

use std::{error::Error, net::SocketAddr, sync::Arc};

use latticed::{
    capability::http_server,
    error::Result as HostResult,
    host::{BoxFuture, Call, Invoke, ProviderContext},
    task,
    wire::{
        LinkDefinition, codec,
        interface::{HTTP_SERVER, HttpResponse},
    },
};

/// Answers every request at once with the bytes an echo of `GET /` would give.
struct Fixed(Vec<u8>);

impl Invoke for Fixed {
    fn invoke(&self, _call: Call) -> BoxFuture<'static, HostResult<Vec<u8>>> {
        let answer = self.0.clone();
        Box::pin(async move { Ok(answer) })
    }
}

/// Serves at `address` until the process is killed, with the threads the host would use.
pub fn serve(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let body = br#"{"body":"","method":"GET","path":"/","query_string":""}"#.to_vec();
    let answer = codec::encode(&HttpResponse { status_code: 200, body, ..HttpResponse::default() })?;
    let context = ProviderContext {
        public_key: "V".to_string(),
        link_name: "default".to_string(),
        configuration: None,
        invoke: Arc::new(Fixed(answer)),
    };
    let link = LinkDefinition {
        actor_id: "M".to_string(),
        provider_id: "V".to_string(),
        contract_id: HTTP_SERVER.to_string(),
        link_name: "default".to_string(),
        values: [("address".to_string(), address.to_string())].into(),
        ..LinkDefinition::default()
    };
    task::run(task::default_workers(), async {
        let server = http_server::start(context);
        server.link(Arc::new(link)).await?;
        std::future::pending::<()>().await;
        Ok(())
    })?
}
