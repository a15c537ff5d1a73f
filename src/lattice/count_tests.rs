//! What is told of how many instances of an actor run: by events and by the inventory.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::lattice_tests::{Alone, Board, Client, accepted, module};
use crate::host::desired::{Group, MAX_GROUPS};
use crate::nats::testing::{NatsServer, eventually, run};

/// Actor events as they came, each with the instance or the numbers that it tells.
fn told(client: &Client) -> Vec<String> {
    let heard = client.heard.lock().unwrap();
    let events = heard.iter().filter(|(subject, _)| subject == "wasmbus.evt.default").map(|(_, event)| event);
    events
        .filter_map(|event| {
            let name = event["type"].as_str().unwrap().strip_prefix("com.wasmcloud.lattice.").unwrap();
            let data = &event["data"];
            let what = match name {
                "actor_started" | "actor_stopped" => data["instance_id"].as_str().unwrap().to_owned(),
                "actors_started" => data["count"].to_string(),
                "actors_stopped" => format!("{} of which {} stay", data["count"], data["remaining"]),
                "actor_scaled" => data["max_instances"].to_string(),
                _ => return None,
            };
            Some(format!("{name} {what}"))
        })
        .collect()
}

/// As wadm scales, whose sums must come out right: `actors_started` and `actors_stopped` tell what changed and nothing else.
#[test]
fn each_scale_tells_what_changed_and_no_more() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        let (reference, annotations) = (module("echo_small"), json!({"wasmcloud.dev/managed-by": "wadm"}));
        let scale = async |count: u32| {
            let body = json!({"actor_ref": reference, "count": count, "annotations": annotations});
            client.ask(&format!("cmd.{id}.scale"), body).await
        };
        for (scaled, count) in [1, 5, 5, 5, 2, 0].into_iter().enumerate() {
            accepted(&scale(count).await);
            eventually("the scale is told", || client.events("actor_scaled").len() > scaled).await;
            eventually("it is done", || {
                let running = board.host.desired().actors.values().map(|actor| actor.max_concurrent()).sum::<u16>();
                u32::from(running) == count
            })
            .await;
            if count == 5 {
                let inventory = client.ask(&format!("get.{id}.inv"), Value::Null).await;
                let listed = inventory["actors"][0]["instances"].as_array().unwrap();
                assert_eq!(listed.len(), 1, "{inventory}");
                assert_eq!((&listed[0]["max_concurrent"], &listed[0]["max_instances"]), (&json!(5), &json!(5)));
                assert_eq!(listed[0]["annotations"], annotations);
            }
        }
        accepted(&scale(0).await);
        let refused = scale(70_000).await;
        assert_eq!(refused["accepted"], false);
        assert!(refused["error"].as_str().unwrap().contains("70000 instances asked for"), "{refused}");
        board.stop().await;
        client.event("host_stopped", |_| true).await;

        // Instance 0 started first.
        let started = client.events("actor_started");
        let name = |at: usize| started[at]["data"]["instance_id"].as_str().unwrap().to_owned();
        let names: Vec<String> = (0..5).map(name).collect();
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 5, "{names:?}");
        let singles = |event: &str, numbers: &[usize]| -> Vec<String> {
            numbers.iter().map(|number| format!("{event} {}", names[*number])).collect()
        };
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let unchanged = [singles("actor_started", &[0]), all(&["actor_scaled 5"])].concat();
        let wanted = [
            singles("actor_started", &[0]),
            all(&["actors_started 1", "actor_scaled 1"]),
            singles("actor_started", &[1, 2, 3, 4]),
            all(&["actors_started 4", "actor_scaled 5"]),
            unchanged.clone(),
            unchanged,
            singles("actor_stopped", &[4, 3, 2]),
            all(&["actors_stopped 3 of which 2 stay", "actor_scaled 2"]),
            singles("actor_stopped", &[1, 0]),
            all(&["actors_stopped 2 of which 0 stay", "actor_scaled 0"]),
        ]
        .concat();
        assert_eq!(told(&client), wanted);
    });
}

#[test]
fn an_inventory_has_one_entry_for_each_set_of_annotations_however_many_instances_run() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        let reference = module("echo_small");
        for (name, count) in [("one", 10_000), ("two", 3)] {
            let body = json!({"actor_ref": reference, "count": count, "annotations": {"spread": name}});
            accepted(&client.ask(&format!("cmd.{id}.scale"), body).await);
            client.event("actor_scaled", |data| data["max_instances"] == count).await;
        }
        // An application asks for more with the annotations of the second group: clients see one group.
        board
            .host
            .change(|desired| {
                let mut next = desired.clone();
                for actor in next.actors.values_mut() {
                    let annotations = BTreeMap::from([("spread".to_owned(), "two".to_owned())]);
                    actor.groups.push(Group { count: 4, annotations, application: "other".into() });
                }
                Ok(next)
            })
            .await
            .unwrap();
        client.event("actor_scaled", |data| data["max_instances"] == 7).await;
        client.event("actors_started", |data| data["count"] == 4).await;
        let inventory = client.ask(&format!("get.{id}.inv"), Value::Null).await;
        let mut listed: Vec<(String, u64)> = Vec::new();
        for one in inventory["actors"][0]["instances"].as_array().unwrap() {
            listed.push((one["annotations"]["spread"].to_string(), one["max_concurrent"].as_u64().unwrap()));
        }
        listed.sort();
        assert_eq!(listed, [("\"one\"".to_owned(), 10_000), ("\"two\"".to_owned(), 7)]);
        assert!(inventory.to_string().len() < 2000, "{} bytes", inventory.to_string().len());
        board.stop().await;
    });
}

#[test]
fn an_inventory_that_does_not_fit_a_message_lists_fewer_groups() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } =
            Alone::start("max_payload: 65536").await;
        let (module, _) =
            board.host.fetch_module(&module("echo_small"), crate::artifact::Requester::Operator).await.unwrap();
        board
            .host
            .change(|desired| {
                let annotations = |number: usize| {
                    BTreeMap::from([("spread".to_owned(), number.to_string()), ("text".to_owned(), "x".repeat(500))])
                };
                (0..MAX_GROUPS)
                    .try_fold(desired.clone(), |next, number| next.scale_actor(&module, 1, &annotations(number)))
            })
            .await
            .unwrap();
        // Not by its events: so many at once are more than the outbox of events keeps.
        eventually("it runs", || !crate::host::Control::status(&*board.host).actors.is_empty()).await;
        let inventory = client.ask(&format!("get.{id}.inv"), Value::Null).await;
        let listed = inventory["actors"][0]["instances"].as_array().unwrap().len();
        assert!((MAX_GROUPS / 8..MAX_GROUPS).contains(&listed), "{listed}");
        board.stop().await;
    });
}

/// As a monitor sees it that listens to both subjects of each event.
#[test]
fn a_host_starts_first_and_says_its_last_words_once() {
    run(async {
        let (server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let client = Client::new(&server.endpoint()).await;
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        client.event("host_started", |_| true).await;
        client.until_answered(&format!("get.{}.inv", board.id())).await;
        let (actor, _) =
            board.host.fetch_module(&module("echo_small"), crate::artifact::Requester::Operator).await.unwrap();
        board.host.change(|desired| desired.start_actor(&actor, 1, &BTreeMap::new())).await.unwrap();
        let provider = board
            .host
            .find_provider("builtin:keyvalue", "default", crate::artifact::Requester::Operator)
            .await
            .unwrap();
        let (contract_id, provider_id) = (provider.contract_id.clone(), provider.public_key.clone());
        board.host.change(|desired| desired.start_provider(provider.clone())).await.unwrap();
        let link = json!({"actor_id": actor.public_key, "provider_id": provider_id, "link_name": "default",
            "contract_id": contract_id, "values": {}});
        client.event("provider_started", |_| true).await;
        accepted(&client.ask("linkdefs.put", link).await);
        client.event("linkdef_set", |_| true).await;
        board.stop().await;
        client.event("host_stopped", |_| true).await;
        let heard = client.heard.lock().unwrap().clone();
        for name in ["host_started", "provider_stopped", "actors_stopped", "host_stopped"] {
            let subjects = ["wasmbus.evt.default".to_owned(), format!("wasmbus.evt.default.{name}")];
            for subject in subjects {
                let kind = format!("com.wasmcloud.lattice.{name}");
                let count = heard.iter().filter(|(on, event)| *on == subject && event["type"] == kind.as_str()).count();
                assert_eq!(count, 1, "{name} on {subject}");
            }
        }
        // The same board again, with the link in the lattice's bucket and another link put while it was away.
        client.heard.lock().unwrap().clear();
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        client.event("host_started", |_| true).await;
        client.event("provider_started", |_| true).await;
        eventually("it runs", || client.events("actor_started").len() == 1).await;
        let first = client.heard.lock().unwrap()[0].1.clone();
        assert_eq!(first["type"], "com.wasmcloud.lattice.host_started", "{first}");
        let mut times: Vec<String> = Vec::new();
        for (subject, event) in client.heard.lock().unwrap().iter() {
            if subject == "wasmbus.evt.default" && !event["type"].as_str().unwrap().ends_with("host_heartbeat") {
                times.push(event["time"].as_str().unwrap().to_owned());
            }
        }
        assert!(times.is_sorted(), "{times:?}");
        board.stop().await;
    });
}

/// As `wash stop actor`, which waits for an event when the command was accepted.
#[test]
fn a_stop_of_what_does_not_run_is_refused_at_once() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        let (actor, _) =
            board.host.fetch_module(&module("echo_small"), crate::artifact::Requester::Operator).await.unwrap();
        let stop = async |body: Value| client.ask(&format!("cmd.{id}.sa"), body).await;
        let refused = stop(json!({"actor_ref": actor.public_key, "count": 1})).await;
        assert_eq!(refused["accepted"], false);
        assert_eq!(refused["error"], format!("the actor {} is not running on this host", actor.public_key));
        let annotations = json!({"a": "b"});
        accepted(&client.ask(&format!("cmd.{id}.la"), json!({"actor_ref": actor.reference})).await);
        let refused = stop(json!({"actor_ref": actor.public_key, "annotations": annotations})).await;
        assert!(refused["error"].as_str().unwrap().contains("has no instance with these annotations"), "{refused}");
        accepted(&stop(json!({"actor_ref": actor.public_key})).await);
        client.event("actor_stopped", |_| true).await;

        let provider = board
            .host
            .find_provider("builtin:keyvalue", "default", crate::artifact::Requester::Operator)
            .await
            .unwrap();
        board.host.change(|desired| desired.start_provider(provider.clone())).await.unwrap();
        let stop = json!({"provider_ref": provider.public_key, "link_name": "other"});
        let refused = client.ask(&format!("cmd.{id}.sp"), stop).await;
        assert!(refused["error"].as_str().unwrap().ends_with("it runs under default"), "{refused}");
        board.stop().await;
    });
}
