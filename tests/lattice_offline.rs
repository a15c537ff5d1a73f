//! A host whose NATS server comes late, goes, comes again, or is not there at all: the real program against a real server.

mod support;

use std::{collections::HashMap, thread, time::Duration};

use futures_util::StreamExt;
use latticed::wire::interface::{HTTP_SERVER, KEY_VALUE};
use serde_json::{Value, json};
use support::{
    door::Door,
    guests,
    host::{Host, Sandbox},
    http::{free_address, get, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
};

/// Widest wait between two attempts, where nothing else is set.
const BACK_OFF_CAP: Duration = latticed::nats::backoff::DEFAULT_CAP;

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_latticed"))
}

/// What `latticed hosts` finds at `port`: their keys.
fn hosts(sandbox: &Sandbox, port: &str) -> Vec<String> {
    let mut command = sandbox.command(&["hosts", "--json", "--wait-ms", "1000"]);
    let output = command.env("NATS_HOST", "127.0.0.1").env("NATS_PORT", port).output().expect("the program starts");
    // No server, nobody found.
    let Ok(Value::Array(hosts)) = serde_json::from_slice(&output.stdout) else { return Vec::new() };
    hosts.iter().map(|host| host["id"].as_str().expect("a key").to_owned()).collect()
}

#[test]
fn a_late_server_is_found_lost_and_found_again_while_local_traffic_goes_on() {
    block_on(async {
        let (sandbox, door) = (sandbox(), Door::shut());
        let address = free_address();
        let mut manifest = Manifest::new("late");
        manifest.actor("counter", &guests::module_path("counter"), 1).http(address).link("keyvalue", &[]);
        let manifest = sandbox.write("late.yaml", manifest.text());
        let port = door.port().to_string();
        let seed = nats::cluster().seed().expose().to_owned();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            // Attempts at most this far apart, so that a test's patience holds many of them.
            ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "5000"),
        ];
        let board = sandbox.run(&manifest, &settings);
        wait_for_200(address, PATIENCE).expect("it serves without a server");
        let load = HttpLoad::start(address, b"", 50, 2);
        assert_eq!(hosts(&sandbox, &port), Vec::<String>::new());

        // The listener is there before the board can be.
        let mut server = NatsServer::start();
        let listener = nats::connect(&server).await;
        let mut events = listener.subscribe("wasmbus.evt.default".into()).await.expect("it can listen");
        listener.flush().await.expect("it listens");
        let opened = time::OffsetDateTime::now_utc();
        door.open(server.port());
        let id = board.status().host_id;
        let found = eventually("the late server is found", || hosts(&sandbox, &port) == [id.clone()]);
        assert!(found <= BACK_OFF_CAP, "{found:?}");

        // What happened before there was a server is told now: in order, and as of when it happened.
        let mut told = Vec::<(String, time::OffsetDateTime)>::new();
        // Heartbeats do not wait in line: one may come between.
        let wanted = ["host_started", "actor_started", "provider_started", "linkdef_set", "host_heartbeat"];
        while !wanted.iter().all(|wanted| told.iter().any(|(name, _)| name == wanted)) {
            let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("events come").expect("they go on");
            let event: Value = serde_json::from_slice(&event.payload).expect("JSON");
            let when = event["time"].as_str().expect("a time");
            let when =
                time::OffsetDateTime::parse(when, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
            let name = event["type"].as_str().expect("a type").trim_start_matches("com.wasmcloud.lattice.");
            told.push((name.to_owned(), when));
            assert!(told.len() < 100, "something is missing: {told:?}");
        }
        let early: Vec<_> = told.iter().filter(|(name, _)| name != "host_heartbeat").collect();
        for (name, when) in &early {
            assert!(*when < opened, "{name} has the time at which it was sent: {told:?}");
        }
        assert!(early.is_sorted_by_key(|(_, when)| *when), "{told:?}");

        server.kill();
        thread::sleep(Duration::from_secs(2));
        assert_eq!(hosts(&sandbox, &port), Vec::<String>::new());
        server.resume();
        let again = eventually("the server is found again", || hosts(&sandbox, &port) == [id.clone()]);
        assert!(again <= BACK_OFF_CAP, "{again:?}");

        let outcome = load.end();
        println!(
            "found after {found:?}, again after {again:?}; {} local requests, {:.0} a second",
            outcome.requests(),
            outcome.rate()
        );
        assert_eq!(outcome.failures(), Vec::<&String>::new());
        assert!(outcome.requests() > 100, "too little load to tell: {}", outcome.requests());
    });
}

/// What must survive a power cut, in a form that compares.
fn commanded(board: &Host) -> Value {
    let status = serde_json::to_value(board.status()).expect("a status is JSON");
    let keep = |list: &Value, members: &[&str]| {
        let mut kept: Vec<Value> = list
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| members.iter().map(|member| (member.to_string(), one[*member].clone())).collect())
            .collect();
        kept.sort_by_key(ToString::to_string);
        kept
    };
    json!({
        "host": status["host_id"],
        "labels": status["labels"],
        "actors": keep(&status["actors"], &["public_key", "image_ref", "revision", "max_concurrent", "state"]),
        "providers": keep(&status["providers"], &["public_key", "image_ref", "contract_id", "link_name", "state"]),
        "links": status["links"],
    })
}

#[test]
fn what_was_commanded_from_afar_is_back_after_a_power_cut_without_network() {
    block_on(async {
        let (sandbox, mut server) = (sandbox(), NatsServer::start());
        let (address, port) = (free_address(), server.port().to_string());
        let seed = nats::cluster().seed().expose().to_owned();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;

        let counter = format!("file://{}", guests::module_path("counter").display());
        let key = guests::key("counter");
        eventually("it answers", || hosts(&sandbox, &port) == [id.clone()]);
        let ack = client.scale_actor(&id, &counter, Some(1), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor runs", || board.status().actors.len() == 1);
        let ack = client.scale_actor(&id, &counter, Some(7), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        for provider in ["httpserver", "keyvalue"] {
            let reference = format!("builtin:{provider}");
            let ack = client.start_provider(&id, &reference, None, None, None).await.expect("an answer");
            assert!(ack.accepted, "{}", ack.error);
        }
        for (provider, contract, values) in [
            ("httpserver", HTTP_SERVER, HashMap::from([("address".to_owned(), address.to_string())])),
            ("keyvalue", KEY_VALUE, HashMap::new()),
        ] {
            let provider = latticed::claims::builtin_provider_key(provider).to_string();
            client.advertise_link(&key, &provider, contract, "default", values).await.expect("the link is taken");
        }
        let label = json!({"key": "site", "value": "roof"}).to_string();
        let subject = format!("wasmbus.ctl.default.labels.{id}.put");
        let ack = nats.request(subject, label.into()).await.expect("an answer");
        let ack: Value = serde_json::from_slice(&ack.payload).expect("JSON");
        assert_eq!(ack["accepted"], true, "{ack}");
        eventually("all is there", || {
            let status = board.status();
            (status.providers.len(), status.links.len()) == (2, 2)
                && status.actors[0].max_concurrent == 7
                && status.labels.get("site").is_some_and(|site| site == "roof")
        });
        wait_for_200(address, PATIENCE).expect("it serves");
        let before = commanded(&board);
        let (_, body) = get(address, "/").expect("an answer");
        let count =
            |body: &str| serde_json::from_str::<Value>(body).expect("JSON")["counter"].as_i64().expect("a number");

        server.kill();
        board.kill();
        let board = sandbox.run_again(&settings);
        wait_for_200(address, PATIENCE).expect("it serves without network");
        assert_eq!(commanded(&board), before);
        let (status, after) = get(address, "/").expect("an answer");
        assert_eq!(status, 200);
        assert!(count(&after) > count(&body), "{after} after {body}: what was counted is lost");
    });
}
