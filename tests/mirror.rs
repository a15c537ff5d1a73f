//! Where actors come from without a registry: object stores of a lattice, mirrors on the LAN, archives on a stick.

mod support;

use std::{
    path::Path,
    process::{Command, Output},
};

use latticed::{
    store::Digest,
    wire::interface::{HttpRequest, HttpResponse},
};
use serde_json::Value;
use support::{
    guests,
    host::{Host, Sandbox},
    http::free_address,
    nats::{self, NatsServer, block_on, control_client, eventually},
};
use tokio::io::AsyncReadExt;

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_latticed"))
}

/// A hub with JetStream in a domain of its own, and a leaf without.
fn hub_and_leaf() -> (NatsServer, NatsServer) {
    let door = free_address();
    let hub = NatsServer::configured(&format!(
        "listen: \"127.0.0.1:{{port}}\"\njetstream {{ store_dir: \"{{dir}}/js\", domain: hub }}\n\
         leafnodes {{ listen: \"{door}\" }}\n"
    ));
    let leaf = NatsServer::configured(&format!(
        "listen: \"127.0.0.1:{{port}}\"\nleafnodes {{ remotes: [ {{ url: \"nats://{door}\" }} ] }}\n"
    ));
    (hub, leaf)
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

/// What a command that must succeed says in JSON.
fn json(command: &mut Command) -> Value {
    let output = run(command.arg("--json"));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// How a command that must fail ends: its exit code, and what it complains of.
fn failure(command: &mut Command) -> (i32, String) {
    let output = run(command);
    let code = output.status.code().expect("it was not killed");
    assert_ne!(code, 0, "{output:?}");
    (code, String::from_utf8(output.stderr).expect("UTF-8"))
}

fn digest_of(path: &Path) -> Digest {
    Digest::of(&std::fs::read(path).expect("the file is there"))
}

/// The references of what runs, nothing while the host is still starting.
fn running(board: &Host) -> Vec<String> {
    let status = latticed::task::block_on(board.client().status());
    status.map(|status| status.actors.into_iter().map(|actor| actor.image_ref).collect()).unwrap_or_default()
}

/// Asks the echo guest, and checks its answer.
fn assert_echoes(board: &Host, guest: &str) {
    let request = HttpRequest { method: "POST".into(), path: "/".into(), body: b"hi".to_vec(), ..Default::default() };
    let payload = rmp_serde::to_vec_named(&request).expect("it can be written");
    let answer = board.call(&guests::key(guest), "HttpServer.HandleRequest", &payload);
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", board.output()));
    let response: HttpResponse = rmp_serde::from_slice(&answer).expect("a response");
    assert_eq!(response.status_code, 200, "{response:?}");
}

#[test]
fn an_object_store_behind_leaf_and_hub_serves_as_registry() {
    block_on(async {
        let sandbox = sandbox();
        let (mut hub, mut leaf) = hub_and_leaf();
        let (port, seed) = (leaf.port().to_string(), nats::cluster().seed().expose().to_owned());
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_JS_DOMAIN", "hub"),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
        ];
        let artifact = |arguments: &[&str]| {
            let mut command = sandbox.command(&[&["artifact"], arguments].concat());
            command.envs(settings);
            command
        };
        let echo = guests::module_path("echo");
        let digest = digest_of(&echo);
        let file = echo.to_str().expect("UTF-8");
        // The leaf may still be on its way to the hub.
        eventually("the hub is reached", || run(&mut artifact(&["push", file, "nats://actors/echo"])).status.success());

        let put = json(&mut artifact(&["push", file, "nats://actors/echo"]));
        let pinned = format!("nats://actors/echo@sha256:{digest}");
        assert_eq!(put["pinned"], pinned.as_str(), "{put}");
        let listed = json(&mut artifact(&["list", "nats://actors"]));
        assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
        assert_eq!((&listed[0]["pinned"], &listed[0]["name"]), (&put["pinned"], &"echo".into()), "{listed}");
        let copy = sandbox.path("copy.wasm");
        let out = copy.to_str().expect("UTF-8");
        json(&mut artifact(&["pull", &pinned, "--out", out]));
        assert_eq!(digest_of(&copy), digest);

        // Another client reads what we put, once and for the first chunks not twice, and puts what we read.
        let client = nats::connect(&hub).await;
        let jetstream = async_nats_031::jetstream::new(client.clone());
        let mut bucket = jetstream.get_object_store("actors").await.expect("the bucket is there");
        let mut read = Vec::new();
        bucket.get("echo").await.expect("an object").read_to_end(&mut read).await.expect("whole");
        assert_eq!(Digest::of(&read), digest);
        let chunks = jetstream.get_stream("OBJ_actors").await.expect("a stream").cached_info().state.messages;
        let expected = put["chunks"].as_u64().expect("a number") + 1;
        assert_eq!(chunks, expected, "chunks of the object that was replaced are left");
        let mut counter = tokio::io::BufReader::new(std::io::Cursor::new(
            std::fs::read(guests::module_path("counter")).expect("the guest is built"),
        ));
        bucket.put("site/counter", &mut counter).await.expect("it is taken");
        bucket.seal().await.expect("a bucket that takes no more still gives");

        // Mistakes have their exit codes.
        let code = |arguments: &[&str]| failure(&mut artifact(arguments));
        let (exit, text) = code(&["pull", "nats://actors/none"]);
        assert!(exit == 4 && text.contains("artifact list nats://actors"), "{exit}: {text}");
        let (exit, text) = code(&["list", "nats://none"]);
        assert!(exit == 4 && text.contains("no bucket none"), "{exit}: {text}");
        let wrong = format!("nats://actors/echo@sha256:{}", "0a".repeat(32));
        let (exit, text) = code(&["pull", &wrong, "--out", "wrong.wasm"]);
        assert!(exit == 6 && text.contains(&digest.to_string()), "{exit}: {text}");
        assert!(!sandbox.path("wrong.wasm").exists());
        assert_eq!(code(&["push", "missing.wasm", "nats://actors/echo"]).0, 4);
        assert_eq!(code(&["push", file, "nats://act.ors/echo"]).0, 6);
        assert_eq!(code(&["list", "actors"]).0, 2);

        let mut board = sandbox.run_again(&settings);
        board.wait_for("connected to NATS");
        let control = control_client(&client).await;
        let id = board.status().host_id;
        for (guest, reference) in [("echo", &*pinned), ("counter", "nats://actors/site/counter")] {
            let ack = control.scale_actor(&id, reference, Some(1), None).await.expect("an answer");
            assert!(ack.accepted, "{}", ack.error);
            eventually("the actor runs", || running(&board).iter().any(|from| from == reference));
            assert!(board.status().actors.iter().any(|actor| actor.public_key == guests::key(guest)));
        }
        assert_echoes(&board, "echo");
        let ack = control.scale_actor(&id, "nats://actors/none", Some(1), None).await.expect("an answer");
        eventually("the missing one is told", || {
            ack.error.contains("no object") || board.output().contains("has no object \"none\"")
        });

        // Nothing of it is needed to start again.
        hub.kill();
        leaf.kill();
        board.kill();
        let board = sandbox.run_again(&settings);
        eventually("both are back without network", || running(&board).len() == 2);
        assert_echoes(&board, "echo");
        let (exit, text) = code(&["list", "nats://actors"]);
        assert!(exit == 10 && text.contains("cannot reach NATS"), "{exit}: {text}");
    });
}
