//! Commands that are accepted and never come to an end block nobody, are shown, and can be given up.

mod support;

use std::{net::TcpListener, thread};

use latticed::lattice::control::pending::MAX_PENDING_PER_SOURCE;
use serde_json::{Value, json};
use support::{
    guests,
    host::Sandbox,
    nats::{self, NatsServer, block_on, eventually},
};

/// A registry that takes connections and says nothing.
fn silent_registry() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback works");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            held.push(stream);
        }
    });
    port
}

#[test]
fn commands_for_a_silent_registry_block_nobody_and_can_be_given_up() {
    block_on(async {
        let (sandbox, server, registry) =
            (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start(), silent_registry());
        let insecure = format!("127.0.0.1:{registry}");
        let settings = [("WASMCLOUD_OCI_ALLOWED_INSECURE", insecure.as_str())];
        let host = nats::joined(&sandbox, server.port(), &settings);
        let id = host.status().host_id;
        let client = nats::connect(&server).await;
        let start = async |reference: String| -> Value {
            let body = json!({ "actor_ref": reference, "count": 1 }).to_string();
            let answer =
                client.request(format!("wasmbus.ctl.default.cmd.{id}.la"), body.into()).await.expect("an answer");
            serde_json::from_slice(&answer.payload).expect("answers are JSON")
        };
        let many = (0..MAX_PENDING_PER_SOURCE + 8).map(|number| start(format!("{insecure}/a:{number}")));
        for answer in futures_util::future::join_all(many).await {
            assert_eq!(answer["accepted"], true, "{answer}");
        }
        let pending = host.status().pending;
        assert_eq!(pending.len(), MAX_PENDING_PER_SOURCE, "{pending:?}");
        let echo = format!("file://{}", guests::module_path("echo").display());
        assert_eq!(start(echo).await["accepted"], true);
        eventually("the other actor runs", || host.status().actors.len() == 1);

        // They are there after a power cut, and go one by one or together.
        host.kill();
        let host = nats::joined(&sandbox, server.port(), &settings);
        assert_eq!(host.status().pending.len(), MAX_PENDING_PER_SOURCE);
        let run = |arguments: &[&str]| {
            let output = sandbox.command(arguments).output().expect("the program can be started");
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let (code, listed) = run(&["pending"]);
        let first = host.status().pending[0].clone();
        assert!(code == Some(0) && listed.contains(&first.id) && listed.contains("start actor"), "{listed}");
        assert_eq!(run(&["pending", "--remove", &first.id]).0, Some(0));
        assert_ne!(run(&["pending", "--remove", &first.id]).0, Some(0), "it was there once");
        assert!(!host.status().pending.contains(&first));
        assert_eq!(run(&["pending", "--remove-all"]).0, Some(0));
        assert_eq!(host.status().pending, []);
        host.kill();
        let host = nats::joined(&sandbox, server.port(), &settings);
        assert_eq!(host.status().pending, []);
        eventually("the other actor runs again", || host.status().actors.len() == 1);
    });
}
