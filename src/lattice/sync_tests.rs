//! The lattice's bucket and the control interface at their edges: lost buckets, large ones, domains, storms, refusals.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use async_nats::HeaderMap;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{
    Settings,
    bucket::{Bucket, Entry},
    connection::{Answer, Connection},
    lattice_tests::{Board, Client, accepted, module},
    testing::{NatsServer, connect, eventually, run, steady},
};
use crate::{
    claims::builtin_provider_key,
    wire::{
        LinkDefinition,
        cache::{ClaimsRecord, Key, encode_link},
        interface::KEY_VALUE,
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
    content.into_iter().map(|Entry { key, value }| (key, value.map(Vec::from))).collect()
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
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        let client = Client::new(&server.endpoint()).await;
        let id = client.until_answered("ping.hosts").await["id"].as_str().unwrap().to_owned();
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
        allow_file_load: true,
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
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        let client = Client::new(&server.endpoint()).await;
        let id = client.until_answered("ping.hosts").await["id"].as_str().unwrap().to_owned();
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
        let ended = super::connection::within(Duration::from_secs(20), over.next()).await;
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
        let settings = Settings { timing: steady(), ..Settings::new("default", server.endpoint()) };
        let board = Board::start_with("alpha", directory.path(), settings).await;
        let client = Client::new(&server.endpoint()).await;
        let id = client.until_answered("ping.hosts").await["id"].as_str().unwrap().to_owned();
        let (running, _) = board.host.fetch_module(&module("echo_small")).await.unwrap();
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
