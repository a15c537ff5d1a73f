//! The sessions of `wash` 0.20 and 0.21 in `vectors/wash_020.json` and `wash_021.json`, sent again to a real host on a real
//! server. These clients write links into the lattice's bucket themselves, ask for an actor by `la` or `scale`, and wait for
//! the events of single instances on `wasmbus.evt.{lattice}` (`protocol/wash.md §3`).
//!
//! Each request goes out as recorded, with the names exchanged that cannot be the same here: keys, references (an image of the
//! recording's registry becomes a signed guest in a file, its two providers the built-in ones of the same contracts), and the
//! ports of the HTTP server.

mod support;

use std::time::Duration;

use async_nats_031::{Client, HeaderMap, Subscriber};
use futures_util::StreamExt;
use latticed::{
    claims::builtin_provider_key,
    wire::{interface::HTTP_SERVER, link::link_id},
};
use serde_json::Value;
use support::{
    calls::Caller,
    guests,
    host::{Host, Sandbox},
    http::{self, free_address},
    nats::{self, NatsServer, PATIENCE, block_on, eventually},
};

/// How long these clients wait for an answer, and for what a stop or a start is told by.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);

/// The recording's keys.
const HOST: &str = "NCP7XEYQNC33YYWEKQN3RZM6775KW6ET3BZ4MZACICCY3ALEVXNNA3GJ";
const ECHO: &str = "MCOYJCHL7WJYTWBUVMOZVBJFTOF26GQTKRBLRU42Y2SKZ35O25RZAXS2";
const COUNTER: &str = "MBDBQK7XD3O72U3EIOHTPX6BCGYME7QLROKIREEPDVJEUREQNAGIC2I4";

/// The event these clients wait for after a command: the command, the event, its member, and which word of the command
/// the member's value is.
const WAITED_FOR: [([&str; 2], &str, &str, usize); 6] = [
    (["start", "actor"], "actor_started", "image_ref", 3),
    (["start", "provider"], "provider_started", "image_ref", 3),
    (["link", "put"], "linkdef_set", "actor_id", 3),
    (["link", "del"], "linkdef_deleted", "actor_id", 3),
    (["stop", "actor"], "actor_stopped", "public_key", 4),
    (["stop", "provider"], "provider_stopped", "public_key", 4),
];

/// A client on a stage with one host.
struct Session {
    nats: Client,
    events: Subscriber,
    /// The recording's names and ours.
    names: Vec<(&'static str, String)>,
}

impl Session {
    fn ours(&self, recorded: &str) -> String {
        self.names.iter().fold(recorded.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }

    async fn ask(&self, subject: &str, body: &str) -> Value {
        let asked = self.nats.request(subject.to_owned(), body.to_owned().into());
        let answer = tokio::time::timeout(CLIENT_PATIENCE, asked).await.expect("in time").expect("an answer");
        serde_json::from_slice(&answer.payload).unwrap_or_else(|error| panic!("{subject}: {error}"))
    }

    /// Writes or deletes the link `words` are about, as these clients do.
    async fn write_link(&self, words: &[&str], body: &str) {
        let (actor, contract) = match words[2] {
            "put" => (words[3], words[5]),
            _ => (words[3], words[4]),
        };
        let key = format!("$KV.LATTICEDATA_default.LINKDEF_{}", link_id(&self.ours(actor), contract, "default"));
        let mut headers = HeaderMap::new();
        if body.is_empty() {
            headers.insert("KV-Operation", "DEL");
        }
        let asked = self.nats.request_with_headers(key, headers, self.ours(body).into());
        let answer = tokio::time::timeout(CLIENT_PATIENCE, asked).await.expect("in time").expect("JetStream answers");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        assert!(answer["seq"].is_u64(), "{answer}");
    }

    /// Waits for the event `name` whose `member` is `value`; these clients stop at one without the member.
    async fn told(&mut self, name: &str, member: &str, value: &str) -> Value {
        let wanted = format!("com.wasmcloud.lattice.{name}");
        let search = async {
            loop {
                let message = self.events.next().await.expect("the subscription lasts");
                let event: Value = serde_json::from_slice(&message.payload).expect("events are JSON");
                if event["type"] == wanted && event["data"][member] == value {
                    return event["data"].clone();
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no {name} with {member} {value}"))
    }
}

/// Instances of `actor` in an inventory, as both generations count them: one entry for each set of annotations.
fn instances(inventory: &Value, actor: &str) -> u64 {
    let actors = inventory["actors"].as_array().expect("actors are listed");
    let found = actors.iter().filter(|one| one["id"] == actor);
    let entries = found.flat_map(|one| one["instances"].as_array().expect("instances are listed"));
    entries.map(|entry| entry["max_instances"].as_u64().expect("a number")).sum()
}

async fn session(recorded: &str) {
    let recorded: Value = serde_json::from_str(recorded).expect("the vector is JSON");
    let (server, sandbox) = (NatsServer::start(), Sandbox::new(env!("CARGO_BIN_EXE_latticed")));
    let nats = nats::connect(&server).await;
    let events = nats.subscribe("wasmbus.evt.default".into()).await.expect("a subscription");
    nats.flush().await.expect("the server answers");
    let mut host: Host = nats::joined(&sandbox, server.port(), &[("WASMCLOUD_REMOTE", "full")]);
    host.wait_for("the lattice's bucket is followed");
    let wasm = std::fs::read(guests::module_path("echo")).expect("guests are built");
    let newer = guests::sign_revision("echo", &[HTTP_SERVER], &wasm, 5).expect("it can be signed");
    let newer = format!("file://{}", sandbox.write("echo-0.3.9.wasm", newer).display());
    let file = |name: &str| format!("file://{}", guests::module_path(name).display());
    let (echo, counter, id) = (guests::key("echo"), guests::key("counter"), host.status().host_id);
    let (at_echo, at_counter) = (free_address(), free_address());
    let names = vec![
        (HOST, id.clone()),
        (ECHO, echo.clone()),
        (COUNTER, counter.clone()),
        ("127.0.0.1:5000/echo:0.3.8", file("echo")),
        ("127.0.0.1:5000/echo:0.3.9", newer.clone()),
        ("127.0.0.1:5000/kvcounter:0.4.2", file("counter")),
        ("127.0.0.1:5000/httpserver:0.19.1", "builtin:httpserver".to_owned()),
        ("127.0.0.1:5000/kvredis:0.23.0", "builtin:keyvalue".to_owned()),
        ("VDR4IPVWDQJJVITBLIT4MB6QTE2DWIMK2WOOO3NRF7YSKW36HIWNSBCT", builtin_provider_key("httpserver").to_string()),
        ("VDHHFU7QKK7LBUJXSZMGAT76XX26YWHLVOTZTTA5NPGQL4CULYV5P2HJ", builtin_provider_key("keyvalue").to_string()),
        ("127.0.0.1:8080", at_echo.to_string()),
        ("127.0.0.1:8081", at_counter.to_string()),
    ];
    let mut wash = Session { nats: nats.clone(), events, names };
    let (mut linked, mut inventory) = (0, Value::Null);
    for step in recorded["steps"].as_array().expect("steps are a list") {
        let command = step["command"].as_str().expect("a step has its command");
        let words: Vec<&str> = command.split(' ').filter(|word| *word != "ctl").collect();
        let mut answer = Value::Null;
        for request in step["requests"].as_array().expect("a step has requests") {
            let (subject, body) = (request["subject"].as_str().expect("text"), request["body"].as_str().expect("text"));
            if subject.starts_with("$KV.") {
                wash.write_link(&words, body).await;
                continue;
            }
            let (subject, body) = (wash.ours(subject), wash.ours(body));
            answer = wash.ask(&subject, &body).await;
            if subject.contains(".cmd.") {
                assert_eq!((&answer["accepted"], &answer["error"]), (&true.into(), &"".into()), "{command}: {answer}");
            } else if subject.contains(".auction.") {
                assert_eq!(answer["host_id"], id.as_str(), "{command}: {answer}");
            }
        }
        let waited = WAITED_FOR.iter().find(|(command, ..)| words[1..3] == *command);
        if let Some((_, event, member, word)) = waited {
            let value = wash.ours(words[*word]);
            wash.told(event, member, &value).await;
        }
        match words[1..3] {
            ["get", "hosts"] => assert!(answer["id"] == id.as_str() && answer["uptime_seconds"].is_u64(), "{answer}"),
            ["get", "inventory"] => inventory = answer,
            ["link", "put"] => {
                linked += 1;
                if linked == 3 {
                    // What the recording asked with curl and with `wash call`.
                    eventually("echo is served", || {
                        http::get(at_echo, "/old?b=2").is_ok_and(|(status, _)| status == 200)
                    });
                    eventually("the counter is served", || {
                        http::get(at_counter, "/api/counter")
                            .is_ok_and(|(status, body)| status == 200 && body.contains("\"counter\":"))
                    });
                    Caller::new(nats.clone()).http(&echo, "/called", "", b"").await.expect("it answers a call");
                }
            }
            ["scale", "actor"] => {
                let three =
                    |one: &latticed::host::control::ActorStatus| one.public_key == echo && one.max_concurrent == 3;
                eventually("three run", || host.status().actors.iter().any(three));
            }
            ["update", "actor"] => {
                wash.told("actor_updated", "public_key", &echo).await;
                let revision =
                    || host.status().actors.iter().find(|one| one.public_key == echo).map(|one| one.revision);
                eventually("the newer one runs", || revision() == Some(5));
            }
            ["stop", "host"] => {}
            _ => assert!(waited.is_some(), "the vector has a command this test does not know: {command}"),
        }
        if words[1..3] == ["get", "inventory"] && linked == 3 && instances(&inventory, &counter) > 0 {
            let expected =
                if recorded["made_with"].as_str().is_some_and(|text| text.contains("0.21.1")) { 3 } else { 1 };
            assert_eq!(instances(&inventory, &echo), expected, "{inventory}");
        }
    }
    assert_eq!(instances(&inventory, &counter), 0, "{inventory}");
    let providers = inventory["providers"].as_array().expect("providers are listed");
    assert_eq!(providers.len(), 1, "the key-value store was stopped: {inventory}");
    let (status, output) = host.ended();
    assert!(status.success(), "{status}: {output}");
}

#[test]
fn the_recorded_session_of_wash_020_succeeds() {
    block_on(session(include_str!("vectors/wash_020.json")));
}

#[test]
fn the_recorded_session_of_wash_021_succeeds() {
    block_on(session(include_str!("vectors/wash_021.json")));
}
