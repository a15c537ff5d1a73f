//! The lattice's bucket and the control interface at their edges: lost buckets, large ones, domains, storms, refusals.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{
    Settings,
    bucket::{Bucket, Entry},
    lattice_tests::{Alone, Board, Client, accepted, anti_forgery, module},
};
use crate::{
    artifact::Requester,
    claims::{Now, builtin_provider_key},
    host::Rules,
    nats::{
        Timing,
        connection::{Answer, Connection},
        endpoint::{Endpoint, Login, Tls},
        testing::{NatsServer, connect, eventually, forward, free_port, run, steady},
    },
    wire::{
        Entity, Invocation, InvocationResponse, LinkDefinition, Trace,
        cache::{ClaimsRecord, Key, encode_link},
        interface::{HttpRequest, KEY_VALUE},
        link::link_id,
    },
};

/// Long enough for a watch to go on while nothing happens.
const IDLE: Duration = Duration::from_secs(30);

/// A link of an actor that runs nowhere.
fn link(name: &str) -> LinkDefinition {
    LinkDefinition {
        id: link_id("MELSEWHERE", KEY_VALUE, name),
        actor_id: "MELSEWHERE".into(),
        provider_id: builtin_provider_key("keyvalue").to_string(),
        link_name: name.into(),
        contract_id: KEY_VALUE.into(),
        values: BTreeMap::new(),
    }
}

/// What is in the bucket, as somebody else sees it who comes late; made if it is not there.
async fn content(connection: &Connection, domain: Option<&str>) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut watch = Bucket::new(connection.clone(), "default", domain).watch(IDLE).await.unwrap();
    let content = watch.content().await.unwrap();
    content.entries.into_iter().map(|Entry { key, value, .. }| (key, value.map(Vec::from))).collect()
}

/// Waits until the bucket holds a value for each key.
async fn holds(connection: &Connection, domain: Option<&str>, keys: &[String]) {
    let until = std::time::Instant::now() + Duration::from_secs(40);
    loop {
        let content = content(connection, domain).await;
        let missing: Vec<_> = keys.iter().filter(|key| !content.get(*key).is_some_and(Option::is_some)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < until, "the bucket lacks {missing:?}");
        smol::Timer::after(Duration::from_millis(50)).await;
    }
}

async fn api(connection: &Connection, subject: &str, body: impl Into<bytes::Bytes>) -> Value {
    match connection.request(subject, None, body, Duration::from_secs(10)).await.unwrap() {
        Answer::Message(message) => serde_json::from_slice(&message.payload).unwrap(),
        other => panic!("{subject}: {other:?}"),
    }
}

#[test]
fn a_bucket_that_was_lost_is_made_and_filled_again() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        let reference = module("echo_small");
        accepted(&client.ask(&format!("cmd.{id}.la"), json!({"actor_ref": reference})).await);
        let launch = json!({"provider_ref": "builtin:keyvalue", "link_name": "default"});
        accepted(&client.ask(&format!("cmd.{id}.lp"), launch).await);
        accepted(&client.ask("linkdefs.put", serde_json::to_value(link("default")).unwrap()).await);
        let actor = client.event("actor_started", |_| true).await["public_key"].as_str().unwrap().to_owned();
        let keys: Vec<String> = [
            Key::Claims(actor),
            Key::Claims(builtin_provider_key("keyvalue").to_string()),
            Key::Reference(reference),
            Key::Reference("builtin:keyvalue".into()),
            Key::Link(link("default").id),
        ]
        .iter()
        .map(Key::text)
        .collect();
        holds(&client.connection, None, &keys).await;

        let deleted = api(&client.connection, "$JS.API.STREAM.DELETE.KV_LATTICEDATA_default", "").await;
        assert_eq!(deleted["success"], true, "{deleted}");
        holds(&client.connection, None, &keys).await;
        // And follows it as before.
        let (second, bucket) = (link("second"), Bucket::new(client.connection.clone(), "default", None));
        bucket.put(&Key::Link(second.id.clone()).text(), Some(encode_link(&second).unwrap())).await.unwrap();
        eventually("followed", || board.host.desired().links.len() == 2).await;
        board.stop().await;
    });
}

#[test]
fn an_entry_that_the_bucket_refuses_holds_up_no_other() {
    run(async {
        let (server, directory) = (NatsServer::start("max_payload: 8000"), tempfile::tempdir().unwrap());
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        let client = connect(&server.endpoint(), &steady()).await;
        // Its key comes first in the bucket's order whatever the others are.
        let mut names: Vec<LinkDefinition> = ["one", "two", "three"].map(link).to_vec();
        names.sort_by(|a, b| a.id.cmp(&b.id));
        names[0].values.insert("certificate".into(), "x".repeat(9000));
        for link in &names {
            board.host.change(|desired| desired.put_link(link.clone())).await.unwrap();
        }
        let keys: Vec<String> = names[1..].iter().map(|link| Key::Link(link.id.clone()).text()).collect();
        holds(&client, None, &keys).await;
        // Small enough, it follows.
        names[0].values.clear();
        board.host.change(|desired| desired.put_link(names[0].clone())).await.unwrap();
        holds(&client, None, &[Key::Link(names[0].id.clone()).text()]).await;
        assert_eq!(board.host.desired().links.len(), 3);
        board.stop().await;
    });
}

#[test]
fn answers_above_what_the_server_takes_are_cut_and_come() {
    run(async {
        let Alone { board, client, server: _server, directory: _directory, .. } =
            Alone::start("max_payload: 8000").await;
        for number in 0..40 {
            let mut link = link(&format!("l{number}"));
            link.values.insert("value".into(), "x".repeat(500));
            board.host.change(|desired| desired.put_link(link)).await.unwrap();
        }
        let links = client.ask("get.links", json!({})).await;
        let listed = links["links"].as_array().unwrap().len();
        assert!((5..40).contains(&listed), "{listed}");
        board.stop().await;
    });
}

/// As `wash start actor` of 0.21 does, which waits for the event of a start.
#[test]
fn who_starts_by_scaling_down_hears_of_a_start_too() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        let reference = module("echo_small");
        let scale = async |count: u16| {
            accepted(&client.ask(&format!("cmd.{id}.scale"), json!({"actor_ref": reference, "count": count})).await);
        };
        scale(3).await;
        eventually("three starts are told", || client.events("actor_started").len() == 3).await;
        scale(1).await;
        eventually("one that runs is told", || client.events("actor_started").len() == 4).await;
        eventually("two have stopped", || client.events("actor_stopped").len() == 2).await;
        assert_eq!(client.events("actors_started").len(), 1, "nobody counts one too many");
        board.stop().await;
    });
}

#[test]
fn names_that_are_no_part_of_a_subject_are_refused_and_harm_nobody() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        for name in ["my link", ">", "*", "a..b"] {
            let launch = json!({"provider_ref": "builtin:keyvalue", "link_name": name});
            let answer = client.ask(&format!("cmd.{id}.lp"), launch).await;
            assert_eq!(answer["accepted"], false, "{answer}");
            let answer = client.ask("linkdefs.put", serde_json::to_value(link(name)).unwrap()).await;
            assert!(answer["error"].as_str().unwrap().contains("NATS subject"), "{answer}");
        }
        // Somebody wrote one into the bucket: left out, and the next is taken.
        let bucket = Bucket::new(client.connection.clone(), "default", None);
        for name in ["my link", "good"] {
            let link = link(name);
            bucket.put(&Key::Link(link.id.clone()).text(), Some(encode_link(&link).unwrap())).await.unwrap();
        }
        eventually("the good one is taken over", || board.host.desired().links.contains_key(&link("good").id)).await;
        assert_eq!(board.host.desired().links.len(), 1);
        board.stop().await;
    });
}

#[test]
fn a_delete_is_seen_whatever_the_case_of_its_header() {
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let client = connect(&server.endpoint(), &steady()).await;
        let bucket = Bucket::new(client.clone(), "default", None);
        drop(bucket.watch(IDLE).await.unwrap());
        for name in ["one", "two", "three"] {
            let link = link(name);
            bucket.put(&Key::Link(link.id.clone()).text(), Some(encode_link(&link).unwrap())).await.unwrap();
        }
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        eventually("links are taken over", || board.host.desired().links.len() == 3).await;
        for (left, (name, header)) in [(2, ("one", "kv-operation")), (1, ("two", "KV-OPERATION"))] {
            let mut headers = HeaderMap::new();
            headers.insert(header, "DEL");
            let subject = format!("$KV.LATTICEDATA_default.{}", Key::Link(link(name).id).text());
            client.publish_all(subject, None, Some(headers), bytes::Bytes::new()).await.unwrap();
            eventually("a delete is seen", || board.host.desired().links.len() == left).await;
        }
        assert!(board.host.desired().links.contains_key(&link("three").id));
        board.stop().await;
    });
}

#[test]
fn a_large_lattice_is_taken_over_as_a_whole_and_its_changes_too() {
    const ENTITIES: usize = 3000;
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let client = connect(&server.endpoint(), &steady()).await;
        let bucket = Bucket::new(client.clone(), "default", None);
        drop(bucket.watch(IDLE).await.unwrap());
        let entry = |number: usize, name: &str| {
            let record =
                ClaimsRecord { subject: format!("M{number:055}"), name: name.into(), ..ClaimsRecord::default() };
            (Key::Claims(record.subject.clone()).text(), record.encode().unwrap())
        };
        let fill = async |name: &str| {
            for number in 0..ENTITIES - 1 {
                let (key, value) = entry(number, name);
                client.publish(format!("$KV.LATTICEDATA_default.{key}"), value).await.unwrap();
            }
            let (key, value) = entry(ENTITIES - 1, name);
            bucket.put(&key, Some(value)).await.unwrap();
        };
        fill("first").await;
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        let known = |name: &str| {
            let claims = board.lattice.shared.cache.claims();
            claims.iter().filter(|one| one.name == name).count()
        };
        eventually("all is known", || known("first") == ENTITIES).await;
        // More changes at once than wait for a reader: what is lost on the way is fetched again.
        fill("second").await;
        eventually("all changes are known", || known("second") == ENTITIES).await;
        board.stop().await;
    });
}

/// A server whose configuration is `jetstream` alone.
fn server_with(jetstream: &str) -> NatsServer {
    let mut server = NatsServer::stopped("");
    let here = server.directory.path().display().to_string();
    let text = format!("listen: \"127.0.0.1:{}\"\n{}\n", server.port, jetstream.replace("{dir}", &here));
    fs::write(server.path("nats.conf"), text).unwrap();
    server.resume();
    server
}

async fn board_in(domain: &str, server: &NatsServer, directory: &Path) -> Board {
    let settings = Settings {
        timing: steady(),
        js_domain: Some(domain.into()).filter(|domain: &String| !domain.is_empty()),
        ..Settings::new("default", server.endpoint())
    };
    Board::start_with("alpha", directory, settings).await
}

#[test]
fn the_bucket_of_a_jetstream_domain_is_reached_under_its_own_subjects() {
    run(async {
        let server = server_with("jetstream { domain: leaf, store_dir: \"{dir}/js\" }");
        let directory = tempfile::tempdir().unwrap();
        let board = board_in("leaf", &server, directory.path()).await;
        let client = Client::new(&server.endpoint()).await;
        client.until_answered("ping.hosts").await;
        accepted(&client.ask("linkdefs.put", serde_json::to_value(link("one")).unwrap()).await);
        let key = Key::Link(link("one").id).text();
        holds(&client.connection, Some("leaf"), std::slice::from_ref(&key)).await;
        // The published client library finds it there too, under the domain's name and no other.
        let jetstream = |domain: &'static str| client.connection.jetstream(Some(domain), Duration::from_secs(2));
        let (leaf, other, name) = (jetstream("leaf"), jetstream("other"), key.clone());
        let found = client.connection.run(async move {
            let store = leaf.get_key_value("LATTICEDATA_default").await.unwrap();
            let value = store.get(name.clone()).await.unwrap();
            store.delete(name).await.unwrap();
            (value, other.get_key_value("LATTICEDATA_default").await.is_err())
        });
        let (value, nowhere_else) = found.await.unwrap();
        assert_eq!(serde_json::from_slice::<LinkDefinition>(&value.unwrap()).unwrap(), link("one"));
        assert!(nowhere_else);
        eventually("a delete in the domain is seen", || board.host.desired().links.is_empty()).await;
        board.stop().await;
    });
}

#[test]
fn without_jetstream_a_host_answers_from_what_it_knows() {
    run(async {
        let server = server_with("");
        let directory = tempfile::tempdir().unwrap();
        let board = board_in("", &server, directory.path()).await;
        let client = Client::new(&server.endpoint()).await;
        let id = client.until_answered("ping.hosts").await["id"].as_str().unwrap().to_owned();
        accepted(&client.ask(&format!("cmd.{id}.la"), json!({"actor_ref": module("echo_small")})).await);
        let actor = client.event("actor_started", |_| true).await["public_key"].as_str().unwrap().to_owned();
        accepted(&client.ask("linkdefs.put", serde_json::to_value(link("one")).unwrap()).await);
        client.event("linkdef_set", |data| data["id"] == link("one").id.as_str()).await;
        let links = client.ask("get.links", Value::Null).await;
        assert_eq!(links["links"].as_array().unwrap().len(), 1);
        let known = async || {
            let claims = client.ask("get.claims", Value::Null).await;
            claims["claims"].as_array().unwrap().iter().any(|one| one["sub"] == actor.as_str())
        };
        while !known().await {
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        assert_eq!(client.http(&actor, "/", "", b"hello".to_vec()).await.body, b"hello");
        accepted(&client.ask("linkdefs.del", serde_json::to_value(link("one")).unwrap()).await);
        client.event("linkdef_deleted", |data| data["id"] == link("one").id.as_str()).await;
        board.stop().await;
    });
}

#[test]
fn every_ping_of_a_storm_is_answered_and_commands_go_on_meanwhile() {
    const PINGS: usize = 3000;
    run(async {
        let Alone { board, client, id, server, directory: _directory } = Alone::start("").await;
        let stormer = connect(&server.endpoint(), &steady()).await;
        let mut answers = stormer.subscribe("_INBOX.storm.*".into(), None).await.unwrap();
        let gathering = stormer.spawn({
            let (stormer, id) = (stormer.clone(), id.clone());
            async move {
                let mut answered = std::collections::BTreeSet::new();
                while answered.len() < PINGS {
                    let message = answers.next().await.unwrap();
                    let reply: Value = serde_json::from_slice(&message.payload).unwrap();
                    assert_eq!(reply["id"], id.as_str(), "{reply}");
                    assert!(answered.insert(message.subject.to_string()), "{} twice", message.subject);
                }
                stormer.publish("storm.over", "").await.unwrap();
            }
        });
        let mut over = client.connection.subscribe("storm.over".into(), None).await.unwrap();
        for number in 0..PINGS {
            let reply = Some(format!("_INBOX.storm.{number}"));
            let subject = "wasmbus.ctl.default.ping.hosts".to_owned();
            stormer.publish_all(subject, reply, None, bytes::Bytes::new()).await.unwrap();
            if number == PINGS / 2 {
                let launch = json!({"provider_ref": "builtin:keyvalue", "link_name": "default"});
                accepted(&client.ask(&format!("cmd.{id}.lp"), launch).await);
            }
        }
        let ended = crate::task::within(Duration::from_secs(20), over.next()).await;
        assert!(ended.is_some(), "not every ping was answered");
        drop(gathering);
        let heartbeats = client.events("host_heartbeat").len();
        assert!(heartbeats <= 3, "{heartbeats} heartbeats for {PINGS} pings");
        board.stop().await;
    });
}

#[test]
fn a_refused_live_update_is_told_by_an_event_too() {
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        // As a reload does.
        board.host.follow_rules(Rules { file_load: false, ..board.host.rules() });
        let client = Client::new(&server.endpoint()).await;
        let id = client.until_answered("ping.hosts").await["id"].as_str().unwrap().to_owned();
        let (running, _) = board.host.fetch_module(&module("echo_small"), Requester::Operator).await.unwrap();
        board.host.change(|desired| desired.start_actor(&running, 1, &BTreeMap::new())).await.unwrap();
        let update = format!("cmd.{id}.upd");
        for (actor, text) in [(&running.public_key, "file loading is disabled"), (&"MNOBODY".to_owned(), "not running")]
        {
            let request = json!({"actor_id": actor, "new_actor_ref": module("echo")});
            let ack = client.ask(&update, request).await;
            assert!(ack["error"].as_str().unwrap().starts_with("Unable to perform live update"), "{ack}");
            let told = client.event("actor_update_failed", |data| data["public_key"] == actor.as_str()).await;
            assert!(told["reason"].as_str().unwrap().contains(text), "{told}");
        }
        board.stop().await;
    });
}

#[test]
fn events_said_on_a_line_that_died_without_a_word_are_told_over_the_next_one() {
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let (swallow, port) = (Arc::new(AtomicBool::new(false)), free_port());
        forward(port, server.port, swallow.clone());
        let endpoint = Endpoint::parse("127.0.0.1", port, Login::None, Tls::default()).unwrap();
        let timing = Timing { silence: Duration::from_secs(4), ..steady() };
        let settings = Settings { timing, ..Settings::new("default", endpoint) };
        let client = Client::new(&server.endpoint()).await;
        let board = Board::start_with("alpha", directory.path(), settings).await;
        client.until_answered("ping.hosts").await;
        client.event("host_started", |_| true).await;
        let shared = board.lattice.shared.clone();
        eventually("what was said has arrived", || shared.events.waiting() == 0).await;

        swallow.store(true, SeqCst);
        let (actor, _) = board.host.fetch_module(&module("echo_small"), Requester::Operator).await.unwrap();
        board.host.change(|desired| desired.start_actor(&actor, 2, &BTreeMap::new())).await.unwrap();
        board.host.change(|desired| desired.put_link(link("one"))).await.unwrap();
        eventually("the line is given up", || !shared.control.is_connected()).await;
        assert!(shared.events.waiting() >= 5, "{} wait", shared.events.waiting());
        let dead = crate::wire::event::event_time(crate::wire::id::unix_micros());
        swallow.store(false, SeqCst);

        for (name, count) in
            [("actor_started", 2), ("actors_started", 1), ("actor_scaled", 1), ("refmap_set", 1), ("linkdef_set", 1)]
        {
            eventually(name, || client.events(name).len() >= count).await;
            for event in client.events(name) {
                assert!(event["time"].as_str().unwrap() < dead.as_str(), "{event}");
            }
        }
        eventually("nothing waits", || shared.events.waiting() == 0).await;
        // Each once by identity, in the order in which they happened.
        let mut order: Vec<(String, String)> = Vec::new();
        for (subject, event) in client.heard.lock().unwrap().iter() {
            let id = (event["id"].to_string(), event["time"].to_string());
            if subject == "wasmbus.evt.default" && !subject.contains("heartbeat") && !order.contains(&id) {
                let heartbeat = event["type"].as_str().unwrap().ends_with("host_heartbeat");
                if !heartbeat {
                    order.push(id);
                }
            }
        }
        assert!(order.is_sorted_by_key(|(_, time)| time), "{order:?}");
        board.stop().await;
    });
}

#[test]
fn a_server_that_lets_nobody_ask_gets_every_event_once_all_the_same() {
    run(async {
        // What a host must be allowed to say, and not a word to its own inbox.
        let server = server_with(concat!(
            "jetstream { store_dir: \"{dir}/js\" }\n",
            "authorization { users: [ { user: board, password: pass, permissions: { publish: { deny: \"_INBOX.>\" } } },",
            " { user: all, password: pass } ] }"
        ));
        let directory = tempfile::tempdir().unwrap();
        let way_in = |user: &str| Endpoint {
            login: Login::UserPassword { user: user.into(), password: "pass".into() },
            ..server.endpoint()
        };
        let client = Client::new(&way_in("all")).await;
        let timing = Timing { silence: Duration::from_secs(2), ..steady() };
        let settings = Settings { timing, ..Settings::new("default", way_in("board")) };
        let board = Board::start_with("alpha", directory.path(), settings).await;
        client.event("host_started", |_| true).await;
        let shared = board.lattice.shared.clone();
        eventually("the line has proved itself", || shared.events.waiting() == 0).await;
        let (actor, _) = board.host.fetch_module(&module("echo_small"), Requester::Operator).await.unwrap();
        board.host.change(|desired| desired.start_actor(&actor, 1, &BTreeMap::new())).await.unwrap();
        client.event("actor_started", |_| true).await;
        eventually("nothing waits", || shared.events.waiting() == 0).await;
        assert_eq!((client.events("host_started").len(), client.events("actor_started").len()), (1, 1));
        board.stop().await;
    });
}

/// What of an invocation ties it to a request: in its envelope, and in the headers of its message.
fn context_of(message: &async_nats::Message) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let invocation = Invocation::decode(&message.payload).unwrap();
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    let headers = headers.map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
    (invocation.trace_context, headers)
}

#[test]
fn the_trace_of_a_request_goes_through_guests_to_other_hosts() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const STATE: &str = "rojo=00f067aa0ba902b7";
    run(async {
        let server = NatsServer::start("");
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Board::start("one", one.path(), &server.endpoint()).await;
        let second = Board::start("two", two.path(), &server.endpoint()).await;
        let client = Client::new(&server.endpoint()).await;
        for (board, actor) in [(&first, "caller"), (&second, "callee")] {
            client.until_answered(&format!("get.{}.inv", board.id())).await;
            accepted(&client.ask(&format!("cmd.{}.la", board.id()), json!({"actor_ref": module(actor)})).await);
        }
        let key = async |name: &str| {
            let data = client.event("actor_started", |data| data["image_ref"] == module(name).as_str()).await;
            data["public_key"].as_str().unwrap().to_owned()
        };
        let (caller, callee) = (key("caller").await, key("callee").await);
        eventually("the alias is known", || first.lattice.shared.cache.resolve_alias("test/callee").is_some()).await;
        let mut passing = client.connection.subscribe(format!("wasmbus.rpc.default.{callee}"), None).await.unwrap();

        let request =
            HttpRequest { path: "/Ada".into(), query_string: "via=test/callee".into(), ..HttpRequest::default() };
        let body = rmp_serde::to_vec_named(&request).unwrap();
        let both = BTreeMap::from([("traceparent".to_owned(), PARENT.to_owned()), ("tracestate".into(), STATE.into())]);
        let envelope = both.clone();
        let mut headers = HeaderMap::new();
        // One sender writes names its own way, and what is no context is none.
        headers.insert("Traceparent", PARENT);
        headers.insert("tracestate", STATE);
        let nonsense = BTreeMap::from([("traceparent".to_owned(), "nonsense".to_owned())]);
        for (members, headers, expected) in [
            (envelope, None, Some(&both)),
            (BTreeMap::new(), Some(headers), Some(&both)),
            (BTreeMap::new(), None, None),
            (nonsense, None, None),
        ] {
            let mut invocation = Invocation {
                origin: Entity::actor("__WASH__"),
                target: Entity::actor(&caller),
                operation: "HttpServer.HandleRequest".into(),
                msg: body.clone().into(),
                id: "one".into(),
                host_id: first.id(),
                content_length: Some(body.len() as u64),
                trace_context: members,
                ..Invocation::default()
            };
            invocation.encoded_claims = anti_forgery().sign(&invocation, &body, Now::from_system(0)).unwrap();
            let subject = format!("wasmbus.rpc.default.{caller}");
            let asked =
                client.connection.request(subject, headers, invocation.encode().unwrap(), Duration::from_secs(20));
            let Answer::Message(answer) = asked.await.unwrap() else { panic!("no answer") };
            assert_eq!(InvocationResponse::decode(&answer.payload).unwrap().error, None);
            let (members, headers) = context_of(&passing.next().await.unwrap());
            assert_eq!(members, headers);
            match expected {
                Some(expected) => assert_eq!(members, *expected),
                None => {
                    let fresh = Trace::find(|name| members.get(name).map(String::as_str)).unwrap();
                    assert!(fresh.parent() != PARENT && fresh.state().is_none(), "{members:?}");
                }
            }
        }
        first.stop().await;
        second.stop().await;
    });
}
