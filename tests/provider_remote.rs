//! Detached providers: started by nobody's host, known to the lattice by link and claims alone (`protocol/providers.md §5, §7`).

mod support;

use std::{
    collections::HashMap,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt;
use latticed::{
    host::ProviderStatus,
    wire::{
        cache::ClaimsRecord,
        host_data::HostData,
        interface::{HttpRequest, HttpResponse, KEY_VALUE},
    },
};
use serde_json::{Value, json};
use support::{
    guests,
    host::Sandbox,
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
    provider,
    redis::RedisServer,
};

/// The name that the key of the provider is made of.
const NAME: &str = "detached";

/// A provider without a host. Ended with the test.
struct Detached(Child);

impl Detached {
    /// Starts kvredis as whoever runs it by hand does: host data that names no host and no links.
    fn start(server: &NatsServer) -> Self {
        let data = HostData {
            lattice_rpc_prefix: "default".into(),
            link_name: "default".into(),
            lattice_rpc_url: format!("127.0.0.1:{}", server.port()),
            provider_key: provider::key(NAME),
            cluster_issuers: vec![nats::cluster().public_key().to_string()],
            invocation_seed: nats::cluster().seed().expose().to_owned().into(),
            ..HostData::default()
        };
        let mut child = Command::new(Path::new(env!("CARGO_BIN_EXE_kvredis")))
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the provider can be started");
        let line = data.to_line().expect("it is short");
        child.stdin.take().expect("it is piped").write_all(line.as_bytes()).expect("it reads its host data");
        Self(child)
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An actor here calls a provider that no host started; it is watched and listed while it answers, forgotten when it has been
/// silent for long, and its link works again with the next process.
#[test]
fn a_provider_that_no_host_started_is_linked_called_watched_and_forgotten() {
    block_on(async {
        let (redis, server) = (RedisServer::start(), NatsServer::start());
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let nats = nats::connect(&server).await;
        let mut events = nats.subscribe("wasmbus.evt.default".into()).await.expect("the server listens");
        let host = nats::joined(&sandbox, server.port(), &[("WASMCLOUD_PROVIDER_PROBE_MS", "300")]);
        let control = control_client(&nats).await;
        let (key, counter) = (provider::key(NAME), guests::key("counter"));

        // What the lattice is told of it: claims and a link, before and without any process.
        let bucket = async_nats_031::jetstream::new(nats.clone()).get_key_value("LATTICEDATA_default").await;
        let bucket = bucket.expect("the lattice has its bucket");
        let claims = ClaimsRecord {
            subject: key.clone(),
            name: NAME.into(),
            contract_id: KEY_VALUE.into(),
            issuer: guests::account().public_key().to_string(),
            revision: 7,
            ..ClaimsRecord::default()
        };
        bucket
            .put(format!("CLAIMS_{key}"), claims.encode().expect("written").into())
            .await
            .expect("the bucket takes it");
        let values = HashMap::from([("URL".to_owned(), redis.url())]);
        control.advertise_link(&counter, &key, KEY_VALUE, "default", values).await.expect("the bucket takes it");
        let reference = format!("file://{}", guests::module_path("counter").display());
        let ack = control.scale_actor(&host.status().host_id, &reference, Some(2), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor runs and is linked", || {
            let status = host.status();
            status.actors.iter().any(|actor| actor.state == "running") && status.links.len() == 1
        });
        let request = HttpRequest { method: "GET".into(), path: "/".into(), ..HttpRequest::default() };
        let request = rmp_serde::to_vec_named(&request).expect("encoded");
        let count = || {
            let answer = host.call(&counter, "HttpServer.HandleRequest", &request)?;
            let answer: HttpResponse = rmp_serde::from_slice(&answer).map_err(|error| error.to_string())?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let body: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
            body["counter"].as_i64().ok_or(text)
        };
        let listed =
            || -> Option<ProviderStatus> { host.status().providers.into_iter().find(|there| there.public_key == key) };
        assert!(count().is_err(), "nobody is there yet");
        assert_eq!(listed(), None);

        for expected in [1, 2] {
            // It had no links at its start: it has them from this host, which noticed it.
            let detached = Detached::start(&server);
            eventually("it is listed as remote", || listed().is_some_and(|there| there.state == "remote"));
            let there = listed().expect("it is listed");
            assert_eq!((there.contract_id.as_str(), there.link_name.as_str()), (KEY_VALUE, "default"));
            eventually("it has its link", || count() == Ok(expected));
            told(&mut events, "health_check_passed", &key).await;
            let ask = async |what: String| -> Value {
                let answer = nats.request(format!("wasmbus.ctl.default.get.{what}"), "{}".into()).await;
                serde_json::from_slice(&answer.expect("the host answers").payload).expect("JSON")
            };
            // No host runs it, so no host has it in its inventory; the lattice knows its claims.
            let inventory = ask(format!("{}.inv", host.status().host_id)).await;
            assert_eq!(inventory["providers"], json!([]));
            let all = ask("claims".into()).await;
            let known = all["claims"].as_array().and_then(|all| all.iter().find(|one| one["sub"] == key));
            assert_eq!(known.map(|known| &known["contract_id"]), Some(&json!(KEY_VALUE)), "{all}");

            drop(detached);
            told(&mut events, "health_check_failed", &key).await;
            eventually("it is forgotten", || listed().is_none());
            let links = ask("links".into()).await;
            assert_eq!(links["links"][0]["provider_id"], key, "{links}");
            assert_eq!(host.status().links.len(), 1, "its link stays");
            let refused = count().expect_err("nobody answers");
            assert!(!refused.is_empty() && host.status().actors.len() == 1, "{refused}");
            println!("without it: {refused}");
        }
    });
}

/// Waits for the event `name` about `key`.
async fn told(events: &mut async_nats_031::Subscriber, name: &str, key: &str) {
    let wanted = format!("com.wasmcloud.lattice.{name}");
    let search = async {
        while let Some(message) = events.next().await {
            let event: Value = serde_json::from_slice(&message.payload).expect("an event");
            if event["type"] == wanted && event["data"]["public_key"] == key {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("no event {name}"));
}
