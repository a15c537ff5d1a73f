//! Links from the lattice are bounded, in memory and on disk, now and after the next start, and one more costs what the one
//! before cost.

mod support;

use std::{collections::BTreeMap, fs, sync::Arc};

use latticed::{
    claims::{KeyPair, Role},
    host::links::{MAX_LATTICE_LINKS_BYTES, MAX_LINK_BYTES},
    store::{self, Batch, RealDisk, Store, Table},
    wire::{interface::KEY_VALUE, link::link_id},
};
use serde_json::{Value, json};
use support::{
    host::{Host, Sandbox},
    nats::{self, NatsServer, block_on},
};

/// What a flood may take of memory, bytes.
const MOST: u64 = 16 << 20;

fn actor(number: usize) -> String {
    KeyPair::from_name(Role::Module, &format!("flood {number}")).public_key().to_string()
}

fn link(actor: &str, provider: &str, bytes: usize) -> Value {
    json!({
        "actor_id": actor, "provider_id": provider, "contract_id": KEY_VALUE, "link_name": "default",
        "values": { "URL": "x".repeat(bytes) }
    })
}

/// Processor time that `host` has used, ticks.
fn ticks(host: &Host) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", host.pid())).expect("it runs");
    let rest = stat.rsplit(')').next().expect("the name ends").split_whitespace().collect::<Vec<_>>();
    rest[11].parse::<u64>().expect("a number") + rest[12].parse::<u64>().expect("a number")
}

#[test]
fn a_flood_of_links_takes_no_more_than_its_share() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let provider = KeyPair::from_name(Role::Service, "flood").public_key().to_string();
        let host = nats::joined(&sandbox, server.port(), &[]);
        let client = nats::connect(&server).await;
        let put = async |body: Value| {
            let asked = client.request("wasmbus.ctl.default.linkdefs.put".to_owned(), body.to_string().into());
            let answer: Value = serde_json::from_slice(&asked.await.expect("an answer").payload).expect("JSON");
            (answer["accepted"] == true, answer["error"].as_str().unwrap_or_default().to_owned())
        };
        let idle = host.status().memory.rss_bytes;
        let (accepted, why) = put(link(&actor(0), &provider, MAX_LINK_BYTES)).await;
        assert!(!accepted && why.contains(&MAX_LINK_BYTES.to_string()), "{why}");
        let mut taken = 0;
        for number in 0..1500 {
            let (accepted, why) = put(link(&actor(number), &provider, 20_000)).await;
            taken += usize::from(accepted);
            assert!(accepted || why.contains(&MAX_LATTICE_LINKS_BYTES.to_string()), "{why}");
        }
        assert!((90..=MAX_LATTICE_LINKS_BYTES / 20_000).contains(&taken), "{taken}");
        let flooded = host.status().memory.rss_bytes;
        println!("{taken} of 1500 links of 20 KB taken; idle {idle}, flooded {flooded} bytes");
        assert!(flooded < idle + MOST, "{flooded} bytes, idle {idle}");
        host.kill();
        let host = nats::joined(&sandbox, server.port(), &[]);
        let restarted = host.status().memory.rss_bytes;
        println!("restarted {restarted} bytes");
        assert!(restarted < idle + MOST, "{restarted} bytes, idle {idle}");
        assert_eq!(host.status().links.len(), taken);
    });
}

#[test]
fn what_an_older_version_kept_beyond_that_is_dropped_at_the_start() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let alone = [("WASMCLOUD_JOIN", "never")];
    let mut host = sandbox.run_again(&alone);
    host.wait_for("host");
    while latticed::task::block_on(host.client().status()).is_err() {
        std::thread::yield_now();
    }
    let idle = host.status().memory.rss_bytes;
    host.terminate();
    let open = || {
        let disk = Arc::new(RealDisk::new(sandbox.path("state")));
        Store::open(store::Settings::default(), disk).expect("the state can be read").0
    };
    let store = open();
    let provider = KeyPair::from_name(Role::Service, "flood").public_key().to_string();
    for some in (0..1500).collect::<Vec<usize>>().chunks(100) {
        let batch = some.iter().fold(Batch::new(), |batch, number| {
            let actor = actor(*number);
            let id = link_id(&actor, KEY_VALUE, "default");
            let mut link = link(&actor, &provider, 20_000);
            link["id"] = id.clone().into();
            let record = json!({ "link": link, "application": "" }).to_string();
            batch.put(Table::Desired, format!("l/{id}"), record)
        });
        latticed::task::block_on(store.commit(batch)).expect("it can be written");
    }
    drop(store);
    let host = sandbox.run_again(&alone);
    let dropped = |why: &String| why.contains("links from the lattice were dropped");
    support::nats::eventually("it says what it dropped, and has the rest in force", || {
        latticed::task::block_on(host.client().status())
            .is_ok_and(|status| status.problems.iter().any(dropped) && !status.links.is_empty())
    });
    let status = host.status();
    println!("idle {idle}, started with 1500 links of 20 KB {} bytes", status.memory.rss_bytes);
    assert!(status.links.len() * 20_000 <= MAX_LATTICE_LINKS_BYTES, "{}", status.links.len());
    let kept = status.links.len();
    host.terminate();
    let left = open().scan(Table::Desired, b"l/").expect("it can be read").len();
    assert_eq!(left, kept, "the rest is gone from disk");
}

#[test]
fn the_thousandth_link_costs_about_what_the_first_cost() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let provider = KeyPair::from_name(Role::Service, "flood").public_key().to_string();
        let host = nats::joined(&sandbox, server.port(), &[]);
        let client = nats::connect(&server).await;
        let mut costs: BTreeMap<usize, u64> = BTreeMap::new();
        for hundred in 0..12 {
            let before = ticks(&host);
            for number in 0..100 {
                let mut body = link(&actor(0), &provider, 100);
                body["link_name"] = format!("l{hundred}-{number}").into();
                let asked = client.request("wasmbus.ctl.default.linkdefs.put".to_owned(), body.to_string().into());
                assert!(
                    String::from_utf8_lossy(&asked.await.expect("an answer").payload).contains("\"accepted\":true")
                );
            }
            costs.insert(hundred, ticks(&host) - before);
        }
        println!("ticks of 10 ms for each hundred links: {costs:?}");
        let (first, last) = (costs[&0] + costs[&1] + costs[&2], costs[&9] + costs[&10] + costs[&11]);
        // Ten times as many links are looked through for each; most of the cost is the write to disk and the messages.
        assert!(last <= 5 * first.max(20), "{costs:?}");
    });
}
