//! The published control clients of two generations, each driving every request they have against a real host.
//!
//! They call some of their own requests outdated; those are driven too.

#![allow(deprecated)]

use std::{collections::HashMap, time::Duration};

use super::lattice_tests::{Board, module};
use crate::{
    claims::builtin_provider_key,
    nats::testing::{NatsServer, PATIENCE, connect, eventually, run, steady},
    wire::interface::KEY_VALUE,
};

const GATHER: Duration = Duration::from_millis(700);

fn none() -> HashMap<String, String> {
    HashMap::new()
}

/// A board that has made its bucket; the newer client is not built without it.
async fn ready(server: &NatsServer, directory: &tempfile::TempDir) -> Board {
    let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
    let other = connect(&server.endpoint(), &steady()).await;
    let subject = format!("wasmbus.ctl.default.get.{}.inv", board.id());
    for _ in 0..500 {
        let context = other.jetstream(None, Duration::from_secs(2));
        let bucket =
            other.run(async move { context.get_key_value("LATTICEDATA_default").await.is_ok() }).await.unwrap();
        let heard = other.request(subject.clone(), None, "", Duration::from_secs(1)).await;
        if bucket && matches!(heard, Ok(crate::nats::connection::Answer::Message(_))) {
            return board;
        }
        smol::Timer::after(Duration::from_millis(20)).await;
    }
    panic!("the board does not answer");
}

/// Waits for an event of `name` among those a client received, and gives its data.
macro_rules! event {
    ($events:ident, $name:literal) => {
        loop {
            let event = tokio::time::timeout(PATIENCE, $events.recv()).await.expect($name).expect($name);
            let event = serde_json::to_value(&event).unwrap();
            if event["type"] == concat!("com.wasmcloud.lattice.", $name) {
                break event["data"].clone();
            }
        }
    };
}

/// What both clients can do in the same words. `$stop` and `$scale` are where they differ.
macro_rules! session {
    ($client:ident, $board:ident, $nats:ident, $claims:ident => $claims_of:expr, $links:ident => $links_of:expr,
     scale($actor:ident, $reference:ident) $scale:expr, stop($key:ident) $stop:expr) => {{
        let id = $board.id();
        let mut events = $client.events_receiver().await.unwrap();
        let hosts = $client.get_hosts().await.unwrap();
        assert_eq!((hosts.len(), hosts[0].id.as_str()), (1, id.as_str()));

        let bids = $client.perform_actor_auction("r", [("site".to_owned(), "alpha".to_owned())].into()).await.unwrap();
        assert_eq!(bids[0].host_id, id);
        assert!(
            $client
                .perform_actor_auction("r", [("site".to_owned(), "beta".to_owned())].into())
                .await
                .unwrap()
                .is_empty()
        );
        let $reference = module("echo_small");
        let started = $client.start_actor(&id, &$reference, 1, None).await.unwrap();
        assert!(started.accepted, "{}", started.error);
        let data = event!(events, "actor_started");
        assert_eq!(data["image_ref"], $reference.as_str());
        let $actor = data["public_key"].as_str().unwrap().to_owned();
        let scaled = $scale;
        assert!(scaled.accepted, "{}", scaled.error);
        eventually("scaled", || {
            $board.host.router().routes().actor(&$actor).is_some_and(|one| one.desired.max_concurrent() == 3)
        })
        .await;
        let updated = $client.update_actor(&id, &$actor, &module("echo"), None).await.unwrap();
        assert!(!updated.accepted, "another actor is no update");

        let bids = $client.perform_provider_auction("builtin:keyvalue", "default", none()).await.unwrap();
        assert_eq!(bids[0].host_id, id);
        let launched =
            $client.start_provider(&id, "builtin:keyvalue", None, None, Some("{}".to_owned())).await.unwrap();
        assert!(launched.accepted, "{}", launched.error);
        let provider = event!(events, "provider_started")["public_key"].as_str().unwrap().to_owned();
        assert_eq!(provider, builtin_provider_key("keyvalue").to_string());
        assert!($client.perform_provider_auction("builtin:keyvalue", "default", none()).await.unwrap().is_empty());

        $client.advertise_link(&$actor, &provider, KEY_VALUE, "default", none()).await.unwrap();
        eventually("linked", || $board.host.desired().links.len() == 1).await;
        let $links = $client.query_links().await.unwrap();
        assert_eq!($links_of, 1);
        $client.remove_link(&$actor, KEY_VALUE, "default").await.unwrap();
        eventually("unlinked", || $board.host.desired().links.is_empty()).await;

        let inventory = $client.get_host_inventory(&id).await.unwrap();
        assert_eq!((inventory.actors.len(), inventory.actors[0].instances.len()), (1, 1));
        assert_eq!((inventory.providers.len(), inventory.labels["site"].as_str()), (1, "alpha"));
        let mut known = false;
        for _ in 0..100 {
            let $claims = $client.get_claims().await.unwrap();
            known = $claims_of.iter().any(|one| one.get("sub") == Some(&$actor));
            if known {
                break;
            }
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        assert!(known);
        $client.put_registries(HashMap::new()).await.unwrap();

        let $key = $actor.clone();
        let stopped = $stop;
        assert!(stopped.accepted, "{}", stopped.error);
        assert_eq!(event!(events, "actor_stopped")["public_key"], $actor.as_str());
        let stopped = $client.stop_provider(&id, &provider, "default", KEY_VALUE, None).await.unwrap();
        assert!(stopped.accepted, "{}", stopped.error);
        assert_eq!(event!(events, "provider_stopped")["link_name"], "default");
        let stopped = $client.stop_host(&id, Some(100)).await.unwrap();
        assert!(stopped.accepted, "{}", stopped.error);
        $board.ended().await;
        drop($nats);
    }};
}

#[test]
fn the_client_of_the_elixir_generation_is_served() {
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let board = ready(&server, &directory).await;
        let nats = async_nats_030::connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
        let client = ctl_client_027::ClientBuilder::new(nats.clone()).auction_timeout(GATHER).build().await.unwrap();
        session!(client, board, nats, claims => claims.claims, links => links.links.len(),
            scale(actor, reference) client.scale_actor(&board.id(), &reference, &actor, 3, None).await.unwrap(),
            stop(key) client.stop_actor(&board.id(), &key, 0, None).await.unwrap());
    });
}

#[test]
fn the_client_of_the_first_rust_generation_is_served() {
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let board = ready(&server, &directory).await;
        let nats = async_nats_031::connect(format!("127.0.0.1:{}", server.port)).await.unwrap();
        let client = ctl_client_030::ClientBuilder::new(nats.clone()).auction_timeout(GATHER).build().await.unwrap();
        session!(client, board, nats, claims => claims, links => links.len(),
            scale(actor, reference) client.scale_actor(&board.id(), &reference, Some(3), None).await.unwrap(),
            stop(key) client.stop_actor(&board.id(), &key, None).await.unwrap());
    });
}
