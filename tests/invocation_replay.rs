//! A call that somebody overheard on the wire and sends again: it counts once, and lends its token to no other call.

mod support;

use latticed::wire::Invocation;
use support::{
    calls::{Signer, answered, http_request},
    counter::first_count,
    guests,
    host::Sandbox,
    http::free_address,
    manifest::Manifest,
    nats::{self, NatsServer, block_on},
};

#[test]
fn an_overheard_call_counts_once_and_lends_its_token_to_no_other() {
    block_on(async {
        let (server, sandbox, address) =
            (NatsServer::start(), Sandbox::new(env!("CARGO_BIN_EXE_latticed")), free_address());
        let port = server.port().to_string();
        let seed = nats::cluster().seed().expose().to_owned();
        let mut manifest = Manifest::new("counter");
        manifest.actor("counter", &guests::module_path("counter"), 1).link("keyvalue", &[]).http(address);
        let settings =
            [("WASMCLOUD_RPC_PORT", port.as_str()), ("WASMCLOUD_CTL_PORT", &port), ("WASMCLOUD_CLUSTER_SEED", &seed)];
        let mut host = sandbox.run(&sandbox.write("counter.yaml", manifest.text()), &settings);
        host.wait_for("listening for commands");
        assert_eq!(first_count(&host, address), 1);

        let key = guests::key("counter");
        let nats = nats::connect(&server).await;
        let send = async |message: Vec<u8>| {
            let answer = nats.request(format!("wasmbus.rpc.default.{key}"), message.into()).await.expect("an answer");
            answered(&answer.payload)
        };
        let call = || Signer::default().invocation(&key, "HttpServer.HandleRequest", &http_request("/", "", b""));
        let overheard = call();
        assert!(send(overheard.clone()).await.is_ok());
        for _ in 0..3 {
            let refused = send(overheard.clone()).await.expect_err("it was sent before");
            assert!(refused.contains("received before"), "{refused}");
        }
        // The same token around another body, without a body, under another id.
        let altered = |change: &dyn Fn(&mut Invocation<'_>)| {
            let mut invocation = Invocation::decode(&overheard).expect("it is one");
            change(&mut invocation);
            invocation.content_length = Some(invocation.msg.len() as u64);
            invocation.encode().expect("it can be written")
        };
        for (altered, said) in [
            (altered(&|call| call.msg = b"something else".into()), "hash"),
            (altered(&|call| call.msg = b"".into()), "hash"),
            (altered(&|call| call.id = "another".into()), "id do not match"),
        ] {
            let refused = send(altered).await.expect_err("the token is for another call");
            assert!(refused.contains(said), "{refused}");
        }
        assert_eq!(first_count(&host, address), 3, "of all these, one counted");
    });
}
