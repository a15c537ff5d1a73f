//! What hosts are told from afar and must know again after a cold boot without a network.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{
    Mailbox, Settings,
    event_queue::Entry,
    lattice_tests::{Board, module},
};
use crate::{
    artifact::RegistryLogin,
    nats::{
        connection::{Answer, Background, Connection},
        testing::{NatsServer, connect, eventually, run, steady},
    },
    task,
    wire::subject::Subjects,
};

/// Asks until somebody answers: a host that has just started does not listen yet.
async fn ask(connection: &Connection, tail: &str, body: impl AsRef<[u8]>) -> Value {
    let subject = format!("wasmbus.ctl.default.{tail}");
    for _ in 0..500 {
        let asked = connection.request(subject.clone(), None, body.as_ref().to_vec(), Duration::from_secs(5)).await;
        if let Ok(Answer::Message(message)) = asked {
            return serde_json::from_slice(&message.payload).unwrap();
        }
        smol::Timer::after(Duration::from_millis(20)).await;
    }
    panic!("nobody answers {subject}");
}

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn registry_credentials_survive_a_cold_boot_without_a_network() {
    run(async {
        let (mut server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let state = directory.path().join("state");
        let board = Board::start("alpha", &state, &server.endpoint()).await;
        let client = connect(&server.endpoint(), &steady()).await;
        let sent = json!({"https://r.example:5000/x": {"registryType": "oci", "username": "u", "password": "swordfish"},
            "useless.example": {"registryType": "oci"}});
        assert_eq!(ask(&client, "registries.put", sent.to_string()).await, json!({"accepted": true, "error": ""}));
        let refused = ask(&client, "registries.put", "[]").await;
        assert!(refused["error"].as_str().unwrap().starts_with("Failed to update registry credential map"));
        let many: serde_json::Map<String, Value> =
            (0..64).map(|n| (format!("{n}.example"), json!({"registryType": "oci", "token": "t"}))).collect();
        assert_eq!(ask(&client, "registries.put", Value::Object(many).to_string()).await["accepted"], false);
        board.stop().await;
        server.kill();

        for path in files(&state) {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
        let board = Board::start("alpha", &state, &server.endpoint()).await;
        let credentials = board.host.artifacts().credentials();
        let login = RegistryLogin::Basic { user: "u".into(), password: "swordfish".into() };
        assert_eq!(credentials.find("r.example:5000"), Some(login));
        assert_eq!((credentials.find("useless.example"), credentials.find("0.example")), (None, None));
        board.stop().await;
    });
}

#[test]
fn values_of_entities_are_kept_by_every_host() {
    run(async {
        let (mut server, first, second) =
            (NatsServer::start(""), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let alpha = Board::start("alpha", first.path(), &server.endpoint()).await;
        let client = connect(&server.endpoint(), &steady()).await;
        let accepted = json!({"accepted": true, "error": ""});
        assert_eq!(ask(&client, "config.put.M1.url", "old").await, accepted);
        assert_eq!(ask(&client, "config.put.M1.url", "http://here").await, accepted);
        assert_eq!(ask(&client, "config.put.M1.key", "k").await, accepted);
        assert_eq!(ask(&client, "config.put.M2.key", "k").await, accepted);
        let refused = ask(&client, "config.put.M1.long", vec![0; super::entity_config::MAX_VALUE_BYTES + 1]).await;
        assert!(refused["error"].as_str().unwrap().contains("at most 65536"), "{refused}");

        // One that comes later does not have them, and lets the one that has them speak.
        let beta = Board::start("beta", second.path(), &server.endpoint()).await;
        ask(&client, &format!("get.{}.inv", beta.id()), "").await;
        for _ in 0..5 {
            let got = ask(&client, "get.config.M1.url", "").await;
            assert_eq!(got, json!({"found": true, "data": b"http://here"}));
        }
        assert_eq!(ask(&client, "get.config.M1", "").await, json!({"key": b"k", "url": b"http://here"}));
        assert_eq!(ask(&client, "get.config.M1.no", "").await, json!({"found": false, "data": []}));
        assert_eq!(ask(&client, "get.config.M9", "").await, json!({}));
        assert_eq!(ask(&client, "config.del.M1.key", "").await, accepted);
        assert_eq!(ask(&client, "config.clear.M2", "").await, accepted);
        beta.stop().await;
        alpha.stop().await;

        server.kill();
        server.resume();
        let alpha = Board::start("alpha", first.path(), &server.endpoint()).await;
        eventually("connected again", || client.is_connected()).await;
        assert_eq!(ask(&client, "get.config.M1", "").await, json!({"url": b"http://here"}));
        assert_eq!(ask(&client, "get.config.M2", "").await, json!({}));
        alpha.stop().await;
    });
}

/// A configuration service that says `answer`, and what it was asked.
async fn service(client: &Connection, answer: &Value) -> (Arc<Mutex<Vec<Value>>>, Background) {
    let mut questions = client.subscribe("wasmbus.cfg.default.req".into(), None).await.unwrap();
    let (asked, speaking, answer) = (Arc::new(Mutex::new(Vec::new())), client.clone(), answer.to_string());
    let heard = asked.clone();
    let serving = client.spawn(async move {
        while let Some(question) = questions.next().await {
            heard.lock().unwrap().push(serde_json::from_slice(&question.payload).unwrap());
            speaking.publish(question.reply.unwrap().to_string(), answer.clone()).await.unwrap();
        }
    });
    // Once the server answers this, it has taken the subscription too.
    let _ = client.request("nobody.listens.here", None, "", Duration::from_secs(20)).await.unwrap();
    (asked, serving)
}

#[test]
fn the_configuration_service_is_asked_once_a_boot_and_what_it_says_is_kept() {
    run(async {
        let (mut server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let settings =
            Settings { timing: steady(), config_service: true, ..Settings::new("default", server.endpoint()) };
        let client = connect(&server.endpoint(), &steady()).await;
        let answer = json!({
            "autoStartProviders": [
                {"imageReference": "builtin:keyvalue", "linkName": "store"},
                {"imageReference": "builtin:nothing", "linkName": "default"},
                {"imageReference": "builtin:keyvalue"},
            ],
            "autoStartActors": [module("echo"), "file:///not/there.wasm"],
            "registryCredentials": {"r.example": {"registryType": "oci", "username": "u", "password": "p"}},
        });
        let (asked, serving) = service(&client, &answer).await;
        let board = Board::start_with("alpha", directory.path(), settings.clone()).await;
        let runs = |board: &Board| {
            let desired = board.host.desired();
            desired.actors.values().map(|actor| actor.max_concurrent()).collect::<Vec<_>>() == [1]
                && desired.providers.keys().map(|(_, link_name)| link_name.as_str()).collect::<Vec<_>>() == ["store"]
                && board.host.router().routes().actors().count() == 1
        };
        eventually("what it names runs", || runs(&board)).await;
        let login = Some(RegistryLogin::Basic { user: "u".into(), password: "p".into() });
        assert_eq!(board.host.artifacts().credentials().find("r.example"), login);
        assert_eq!(asked.lock().unwrap()[0]["labels"]["site"], "alpha");
        board.stop().await;

        // Asked again at the next boot, nothing runs twice.
        let board = Board::start_with("alpha", directory.path(), settings.clone()).await;
        eventually("it is asked again", || asked.lock().unwrap().len() == 2).await;
        ask(&client, &format!("get.{}.inv", board.id()), "").await;
        eventually("it runs as before", || runs(&board)).await;
        board.stop().await;
        assert_eq!(asked.lock().unwrap().len(), 2);

        // Without the service, and without a server at all, what it once named runs.
        drop(serving);
        server.kill();
        let board = Board::start_with("alpha", directory.path(), settings).await;
        eventually("it runs without a network", || runs(&board)).await;
        board.stop().await;
    });
}

/// A mailbox on a server that takes little, and what its subscriber hears of it.
#[test]
fn an_event_that_the_server_never_takes_holds_up_nobody() {
    run(async {
        let server = NatsServer::start("max_payload: 2000");
        let subjects = Subjects::new("wasmbus.ctl", "default").unwrap();
        let listener = connect(&server.endpoint(), &steady()).await;
        let mut heard = listener.subscribe(subjects.events(), None).await.unwrap();
        listener.round_trip().await.unwrap();
        let connection = connect(&server.endpoint(), &steady()).await;
        let mailbox = Mailbox::open("N1", (10, 1 << 20), None, false).unwrap();
        for (number, length) in [(1, 10), (2, 5000), (3, 20)] {
            mailbox.push(Entry { name: "actor_started".into(), body: vec![b'x'; length].into(), unix_micros: number });
        }
        mailbox.send_all(&connection, &subjects).await.unwrap();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            let message = task::within(Duration::from_secs(10), heard.next()).await.flatten().expect("three events");
            lengths.push(message.payload.len());
            if lengths.len() == 3 {
                let event: Value = serde_json::from_slice(&message.payload).unwrap();
                assert_eq!((&event["data"]["count"], &event["data"]["bytes"]), (&1.into(), &5000.into()), "{event}");
            }
        }
        assert_eq!((&lengths[..2], mailbox.waiting()), (&[10, 20][..], 0));
    });
}
