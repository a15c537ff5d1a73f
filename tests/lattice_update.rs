//! Live update under load: nothing fails while a running actor's module is replaced, over HTTP and over NATS.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use latticed::wire::interface::HTTP_SERVER;
use serde_json::Value;
use support::{
    calls::Caller,
    guests,
    host::Sandbox,
    http::{free_address, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
};

/// What is asked; the first revision answers with JSON about it, the second with just this.
const BODY: &[u8] = b"hi";

/// Calls in flight over NATS, and requests a second each way.
const WORKERS: u32 = 4;
const PER_SECOND: u32 = 200;

/// Calls the actor `key` over NATS as hosts do, until told to end; each worker's answers in order.
fn call_over_nats(url: String, key: String, ended: Arc<AtomicBool>) -> Vec<Vec<Result<String, String>>> {
    let period = Duration::from_secs(1) * WORKERS / PER_SECOND;
    block_on(async {
        let caller = Caller::new(nats::connect_to(url).await);
        let workers = (0..WORKERS).map(|_| async {
            let mut answers = Vec::new();
            let mut next = Instant::now();
            while !ended.load(SeqCst) {
                tokio::time::sleep(next.saturating_duration_since(Instant::now())).await;
                next += period;
                let answer = caller.http(&key, "/", "", BODY).await;
                answers.push(answer.map(|body| String::from_utf8_lossy(&body).into_owned()));
            }
            answers
        });
        futures_util::future::join_all(workers).await
    })
}

/// Each worker's answers: no failure, first the old revision's, then the new one's, never the old one's again.
fn assert_switched(way: &str, answers: &[Vec<Result<String, String>>]) {
    for worker in answers {
        let bodies: Vec<&str> =
            worker.iter().map(|one| one.as_deref().unwrap_or_else(|error| panic!("{way}: {error}"))).collect();
        let switch =
            bodies.iter().position(|body| body.as_bytes() == BODY).unwrap_or_else(|| panic!("{way}: never new"));
        assert!(switch > 0, "{way}: never old");
        for (number, body) in bodies.iter().enumerate() {
            let new = body.as_bytes() == BODY;
            assert!(new || body.starts_with('{'), "{way}: neither old nor new: {body}");
            assert_eq!(new, number >= switch, "{way}: back to the old revision at {number}, new since {switch}");
        }
    }
}

#[test]
fn a_live_update_fails_no_request_and_a_broken_one_changes_nothing() {
    block_on(async {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let server = NatsServer::start();
        let (address, port) = (free_address(), server.port().to_string());
        let revision = |guest: &str, revision: i32| {
            let wasm = std::fs::read(guests::module_path(guest)).expect("the guest is built");
            let signed = guests::sign_revision("echo", &[HTTP_SERVER], &wasm, revision).expect("it can be signed");
            sandbox.write(&format!("v{revision}.wasm"), signed)
        };
        let first = revision("echo", 1);
        let second = format!("file://{}", revision("echo_small", 2).display());
        let broken = format!("file://{}", revision("hostile/import_unknown", 3).display());
        let mut manifest = Manifest::new("update");
        manifest.actor("echo", &first, 4).http(address);
        let manifest = sandbox.write("update.yaml", manifest.text());
        let seed = nats::cluster().seed().expose().to_owned();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
        ];
        let mut board = sandbox.run(&manifest, &settings);
        wait_for_200(address, PATIENCE).expect("it serves");
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let (id, key) = (board.status().host_id, guests::key("echo"));
        let mut events = nats.subscribe("wasmbus.evt.default.actor_update_failed".into()).await.expect("it can listen");
        nats.flush().await.expect("it listens");
        let revision_now = || board.status().actors[0].revision;

        let http = HttpLoad::start(address, BODY, PER_SECOND, WORKERS);
        let ended = Arc::new(AtomicBool::new(false));
        let calls = thread::spawn({
            let (url, key, ended) = (server.url(), key.clone(), ended.clone());
            move || call_over_nats(url, key, ended)
        });
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let ack = client.update_actor(&id, &key, &second, None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the new revision runs", || revision_now() == 2);
        tokio::time::sleep(Duration::from_secs(2)).await;

        // The module wants what no host has: the one that runs stays, and the event says why.
        let ack = client.update_actor(&id, &key, &broken, None).await.expect("an answer");
        let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("an event").expect("an event");
        let event: Value = serde_json::from_slice(&event.payload).expect("JSON");
        assert_eq!((&event["data"]["public_key"], &event["data"]["revision"]), (&key.clone().into(), &3.into()));
        let reason = event["data"]["reason"].as_str().expect("a reason");
        assert!(reason.contains("import"), "the event does not say why: {event} (answer: {})", ack.error);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(revision_now(), 2);
        assert!(!board.output().contains("did not start"), "the broken module was put in place: {}", board.output());

        let http = http.end();
        ended.store(true, SeqCst);
        let calls = calls.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let count: usize = calls.iter().map(Vec::len).sum();
        println!(
            "{} requests over HTTP ({:.0} a second), {count} over NATS ({:.0} a second); refused update: {reason}",
            http.requests(),
            http.rate(),
            count as f64 / start.elapsed().as_secs_f64()
        );
        // Each way was asked for PER_SECOND; a slow machine under other load may give a tenth, and still tells.
        let lasted = start.elapsed().as_secs_f64();
        for (way, rate) in [("HTTP", http.rate()), ("NATS", count as f64 / lasted)] {
            assert!(rate > f64::from(PER_SECOND) / 10.0, "too little load over {way} to tell: {rate:.0} a second");
        }
        assert_switched("HTTP", &http.answers);
        assert_switched("NATS", &calls);
    });
}
