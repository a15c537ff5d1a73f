//! The life of a host in its lattice as its operator sees it: the real program with the settings of a newcomer, or after a
//! power cut at a bad moment.

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use latticed::wire::interface::{HTTP_CLIENT, HTTP_SERVER, KEY_VALUE};
use serde_json::{Value, json};
use support::{
    guests,
    host::{Host, Sandbox},
    http::{free_address, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    namespace::in_a_network_of_its_own,
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
};

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_latticed"))
}

/// What `latticed hosts` finds with no setting at all.
fn hosts(sandbox: &Sandbox) -> Vec<String> {
    let output = sandbox.command(&["hosts", "--json", "--wait-ms", "1000"]).output().expect("the program starts");
    // No server, nobody found.
    let Ok(Value::Array(hosts)) = serde_json::from_slice(&output.stdout) else { return Vec::new() };
    hosts.iter().map(|host| host["id"].as_str().expect("a key").to_owned()).collect()
}

/// No server is named anywhere: the host works alone and says so once, finds the server of this machine when there is
/// one, and its local traffic notices neither its coming nor its going.
#[test]
fn the_server_of_this_machine_is_found_without_any_setting() {
    if !in_a_network_of_its_own("the_server_of_this_machine_is_found_without_any_setting") {
        return;
    }
    const DEFAULT_PORT: u16 = 4222;
    let (sandbox, address) = (sandbox(), free_address());
    let mut manifest = Manifest::new("newcomer");
    manifest.actor("counter", &guests::module_path("counter"), 1).http(address).link("keyvalue", &[]);
    let manifest = sandbox.write("newcomer.yaml", manifest.text());
    let any = [("WASMCLOUD_JOIN", "any")];
    let mut board = sandbox.run(&manifest, &any);
    wait_for_200(address, PATIENCE).expect("it serves without a server");
    board.wait_for("no NATS server answers");
    let load = HttpLoad::start(address, b"", 50, 2);
    assert_eq!(hosts(&sandbox), Vec::<String>::new());
    thread::sleep(Duration::from_secs(3));
    let alone = board.output();
    assert_eq!(alone.matches("NATS").count(), 1, "one line about it is enough: {alone}");
    assert!(!alone.contains("cluster seed"), "nobody is there who could call: {alone}");

    let id = board.status().host_id;
    let mut server = NatsServer::stopped_at(DEFAULT_PORT);
    server.resume();
    eventually("the late server is found", || hosts(&sandbox) == [id.clone()]);
    board.wait_for("no cluster seed is set");
    server.kill();
    board.wait_for("lost the NATS connection");
    thread::sleep(Duration::from_secs(1));
    let outcome = load.end();
    assert_eq!(outcome.failures(), Vec::<&String>::new());
    assert!(outcome.requests() > 50, "too little load to tell: {}", outcome.requests());
    board.kill();

    // Told to stay alone, it does not even look.
    server.resume();
    let board = sandbox.run_again(&[("WASMCLOUD_JOIN", "never")]);
    wait_for_200(address, PATIENCE).expect("it serves alone");
    assert_eq!(hosts(&sandbox), Vec::<String>::new());
    assert_eq!(board.status().uplink, None);
    assert!(!board.output().contains("NATS"), "{}", board.output());
}

/// A server of files that keeps whoever asks waiting, until it is told to serve.
struct SlowFiles {
    port: u16,
    serves: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl SlowFiles {
    fn start(content: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("it has an address").port();
        let (serves, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let files = Self { port, serves: serves.clone(), asked: asked.clone() };
        thread::spawn(move || {
            let mut kept_waiting = Vec::new();
            for client in listener.incoming() {
                let Ok(mut client) = client else { return };
                asked.fetch_add(1, SeqCst);
                if !serves.load(SeqCst) {
                    kept_waiting.push(client);
                    continue;
                }
                let mut request = [0; 4096];
                // What is asked is always the same.
                let _ = client.read(&mut request);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
                let _ = client.write_all(&[head.as_bytes(), &content].concat());
            }
        });
        files
    }
}

fn ask(nats: &async_nats_031::Client, subject: String, body: Value) -> impl Future<Output = Value> {
    let asked = nats.request(subject, body.to_string().into());
    async move {
        let answer = asked.await.expect("an answer");
        serde_json::from_slice(&answer.payload).expect("JSON")
    }
}

/// A board with a server, and an actor whose file does not come before it is told to.
struct Site {
    sandbox: Sandbox,
    board: Host,
    nats: async_nats_031::Client,
    /// The board's key.
    id: String,
    files: SlowFiles,
    reference: String,
    server: NatsServer,
}

impl Site {
    async fn start() -> Self {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let content = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
        let files = SlowFiles::start(content.clone());
        let digest = latticed::store::Digest::of(&content);
        let reference = format!("http://127.0.0.1:{}/echo.wasm#sha256={digest}", files.port);
        let port = server.port().to_string();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            // A server that says nothing is asked again soon.
            ("WASMCLOUD_ARTIFACT_IDLE_MS", "3000"),
            ("WASMCLOUD_REMOTE_FETCH_ALLOW", "127.0.0.1"),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        control_client(&nats).await;
        let id = board.status().host_id;
        Self { sandbox, board, nats, id, files, reference, server }
    }
}

/// What is stopped while it is still on its way is not started by the command that came before.
#[test]
fn a_stop_holds_against_a_start_that_is_still_under_way() {
    block_on(async {
        let site = Site::start().await;
        let Site { board, nats, id, files, reference, .. } = &site;
        let command = async |verb: &str, body: Value| {
            let ack = ask(nats, format!("wasmbus.ctl.default.cmd.{id}.{verb}"), body).await;
            assert_eq!(ack["accepted"], true, "{verb}: {ack}");
        };
        let key = guests::key("echo_small");
        let failed = nats.subscribe("wasmbus.evt.default.actor_start_failed".into()).await.expect("it can listen");
        let mut failed = failed.take(1);
        command("la", json!({"actor_ref": reference, "count": 3})).await;
        // Nobody knows yet whose file that is.
        command("sa", json!({"actor_ref": key, "count": null, "host_id": id})).await;
        files.serves.store(true, SeqCst);
        let told =
            tokio::time::timeout(PATIENCE, failed.next()).await.expect("the start is given up").expect("an event");
        let told = String::from_utf8_lossy(&told.payload).into_owned();
        assert!(told.contains("was stopped by a command that came later"), "{told}");
        assert!(board.status().actors.is_empty());
        command("la", json!({"actor_ref": reference, "count": 2})).await;
        eventually("a later start holds", || board.status().actors.iter().any(|actor| actor.max_concurrent == 2));
    });
}

/// The power goes between the ack of a command and the end of its fetch: after the next boot it is carried out, once.
#[test]
fn a_command_that_was_accepted_while_its_artifact_was_on_its_way_outlives_a_power_cut() {
    block_on(async {
        let Site { sandbox, board, nats, id, files, reference, server } = Site::start().await;
        let port = server.port().to_string();
        let allow = ("WASMCLOUD_REMOTE_FETCH_ALLOW", "127.0.0.1");
        let settings = [("NATS_HOST", "127.0.0.1"), ("NATS_PORT", &*port), allow];
        let launch = json!({"actor_ref": reference, "count": 3, "annotations": {"by": "test"}});
        let ack = ask(&nats, format!("wasmbus.ctl.default.cmd.{id}.la"), launch).await;
        assert_eq!(ack, json!({"accepted": true, "error": ""}));
        assert!(files.asked.load(SeqCst) > 0 && board.status().actors.is_empty(), "it is still on its way");
        board.kill();

        files.serves.store(true, SeqCst);
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        eventually("the accepted command is carried out", || {
            board.status().actors.iter().any(|actor| actor.image_ref == reference && actor.max_concurrent == 3)
        });
        board.kill();
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        eventually("it runs again", || !board.status().actors.is_empty());
        thread::sleep(Duration::from_millis(500));
        assert_eq!(board.status().actors[0].max_concurrent, 3, "it was carried out once");
    });
}

/// What was accepted before a power cut gives way to what is commanded after it.
#[test]
fn a_command_from_before_a_power_cut_gives_way_to_a_newer_one() {
    block_on(async {
        let Site { sandbox, board, nats, id, files, reference, server } = Site::start().await;
        let port = server.port().to_string();
        let allow = ("WASMCLOUD_REMOTE_FETCH_ALLOW", "127.0.0.1");
        let settings = [("NATS_HOST", "127.0.0.1"), ("NATS_PORT", &*port), allow];
        let subject = format!("wasmbus.ctl.default.cmd.{id}.scale");
        let ack = ask(&nats, subject.clone(), json!({"actor_ref": reference, "count": 3})).await;
        assert_eq!(ack["accepted"], true, "{ack}");
        board.kill();

        let mut board = sandbox.run_again(&settings);
        board.wait_for("going on with a command from before the start");
        board.wait_for("listening for commands");
        eventually("it asks again", || files.asked.load(SeqCst) > 1);
        files.serves.store(true, SeqCst);
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            let asked = nats.request(subject.clone(), json!({"actor_ref": reference, "count": 1}).to_string().into());
            match asked.await {
                Ok(answer) if !answer.payload.is_empty() => break,
                _ => assert!(std::time::Instant::now() < until, "the host does not answer"),
            }
        }
        board.wait_for("gives way to a newer one");
        eventually("the newer one holds", || board.status().actors.iter().any(|actor| actor.max_concurrent == 1));
        board.kill();
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        eventually("and after a boot", || board.status().actors.iter().any(|actor| actor.max_concurrent == 1));
        assert!(!board.output().contains("from before the start"), "{}", board.output());
    });
}

/// Without JetStream a host says so once, and works.
#[test]
fn a_server_without_jetstream_is_one_line_in_the_log() {
    let (sandbox, server) = (sandbox(), NatsServer::configured("listen: \"127.0.0.1:{port}\""));
    let port = server.port().to_string();
    let mut board = sandbox.run_again(&[("NATS_HOST", "127.0.0.1"), ("NATS_PORT", &*port)]);
    board.wait_for("bucket cannot be used: the NATS server has no JetStream");
    // Long enough for three more tries.
    thread::sleep(Duration::from_secs(8));
    assert_eq!(board.output().matches("JetStream").count(), 1, "{}", board.output());
    let (status, output) = board.terminate();
    assert!(status.success(), "{status}: {output}");
}

/// `WASMCLOUD_STRICT_UPDATE_CHECK`: a new revision may claim less, and not more.
#[test]
fn a_strict_host_updates_to_no_revision_that_claims_more() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let code = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
        let revision = |number: i32, contracts: &[&str]| {
            let module = guests::sign_revision("echo_small", contracts, &code, number).expect("it can be signed");
            format!("file://{}", sandbox.write(&format!("{number}.wasm"), module).display())
        };
        let first = revision(1, &[HTTP_SERVER, KEY_VALUE]);
        let (more, other) =
            (revision(2, &[HTTP_SERVER, KEY_VALUE, HTTP_CLIENT]), revision(3, &[HTTP_SERVER, HTTP_CLIENT]));
        let less = revision(4, &[HTTP_SERVER]);
        let port = server.port().to_string();
        let mut settings = vec![
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            ("WASMCLOUD_STRICT_UPDATE_CHECK", "true"),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        control_client(&nats).await;
        let mut events = nats.subscribe("wasmbus.evt.default.actor_update_failed".into()).await.expect("it can listen");
        let command = format!("wasmbus.ctl.default.cmd.{}", board.status().host_id);
        let key = guests::key("echo_small");
        let update = |reference: &str| {
            ask(&nats, format!("{command}.upd"), json!({"actor_id": key, "new_actor_ref": reference}))
        };
        let ack = ask(&nats, format!("{command}.la"), json!({"actor_ref": first})).await;
        assert_eq!(ack["accepted"], true, "{ack}");
        let runs = |board: &support::host::Host, reference: &str| {
            board.status().actors.iter().any(|actor| actor.image_ref == reference)
        };
        eventually("it runs", || runs(&board, &first));
        for refused in [&more, &other] {
            let ack = update(refused).await;
            let error = ack["error"].as_str().expect("a text");
            assert!(error.contains(HTTP_CLIENT) && error.contains("WASMCLOUD_STRICT_UPDATE_CHECK"), "{ack}");
            let event = events.next().await.expect("it is told");
            let event: Value = serde_json::from_slice(&event.payload).expect("JSON");
            assert!(event["data"]["reason"].as_str().expect("a text").contains(HTTP_CLIENT), "{event}");
        }
        assert!(runs(&board, &first));
        let ack = update(&less).await;
        assert_eq!(ack["accepted"], true, "{ack}");
        eventually("less is fine", || runs(&board, &less));
        board.kill();

        settings.pop();
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let last = revision(5, &[HTTP_SERVER, KEY_VALUE, HTTP_CLIENT]);
        eventually("it runs", || runs(&board, &less));
        let until = std::time::Instant::now() + PATIENCE;
        while !runs(&board, &last) {
            assert!(std::time::Instant::now() < until, "a host that is not strict takes more");
            let request = json!({"actor_id": key, "new_actor_ref": last}).to_string();
            // Nobody may listen yet.
            let _ = nats.request(format!("{command}.upd"), request.into()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
}

/// Events that happened before a power cut and could not be told are told after it: in order, and as of when they happened.
#[test]
fn events_on_disk_outlive_a_power_cut() {
    block_on(async {
        let (sandbox, mut server) = (sandbox(), NatsServer::stopped());
        let address = free_address();
        let mut manifest = Manifest::new("offline");
        manifest.actor("counter", &guests::module_path("counter"), 1).http(address).link("keyvalue", &[]);
        let manifest = sandbox.write("offline.yaml", manifest.text());
        let port = server.port().to_string();
        let settings = [("NATS_HOST", "127.0.0.1"), ("NATS_PORT", &*port), ("WASMCLOUD_OUTBOX_ON_DISK", "true")];
        let board = sandbox.run(&manifest, &settings);
        wait_for_200(address, PATIENCE).expect("it serves");
        let waiting =
            |board: &support::host::Host| board.status().uplink.expect("it looks for a lattice").waiting_events;
        eventually("events wait", || waiting(&board) > 8);
        // Five times as long as they may stay off the disk.
        thread::sleep(Duration::from_secs(1));
        let before = waiting(&board);
        board.kill();
        let cut = time::OffsetDateTime::now_utc();

        server.resume();
        let listener = nats::connect(&server).await;
        let mut events = listener.subscribe("wasmbus.evt.default".into()).await.expect("it can listen");
        listener.flush().await.expect("it listens");
        let board = sandbox.run_again(&settings);
        let mut told = Vec::<(String, time::OffsetDateTime)>::new();
        while told.iter().filter(|(name, _)| name == "host_started").count() < 2 {
            let event = tokio::time::timeout(PATIENCE, events.next()).await.expect("events come").expect("they go on");
            let event: Value = serde_json::from_slice(&event.payload).expect("JSON");
            let when = event["time"].as_str().expect("a time");
            let when =
                time::OffsetDateTime::parse(when, &time::format_description::well_known::Rfc3339).expect("RFC 3339");
            let name = event["type"].as_str().expect("a type").trim_start_matches("com.wasmcloud.lattice.");
            told.push((name.to_owned(), when));
        }
        let early: Vec<_> = told.iter().filter(|(_, when)| *when < cut).collect();
        assert_eq!(early.len() as u64, before, "{told:?}");
        for name in ["host_started", "actor_started", "provider_started", "linkdef_set"] {
            assert!(early.iter().any(|(told, _)| told == name), "{name}: {told:?}");
        }
        assert!(early.is_sorted_by_key(|(_, when)| *when), "{told:?}");
        drop(board);
    });
}

/// The same for a live update, which needs the actor it updates to run again first.
#[test]
fn a_live_update_that_was_accepted_outlives_a_power_cut() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let code = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
        let first = format!("file://{}", guests::module_path("echo_small").display());
        let second = guests::sign_revision("echo_small", &[HTTP_SERVER], &code, 9).expect("it can be signed");
        let files = SlowFiles::start(second.clone());
        let digest = latticed::store::Digest::of(&second);
        let second = format!("http://127.0.0.1:{}/echo.wasm#sha256={digest}", files.port);
        let port = server.port().to_string();
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            ("WASMCLOUD_REMOTE_FETCH_ALLOW", "127.0.0.1"),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        control_client(&nats).await;
        let command = format!("wasmbus.ctl.default.cmd.{}", board.status().host_id);
        let ack = ask(&nats, format!("{command}.la"), json!({"actor_ref": first, "count": 2})).await;
        assert_eq!(ack["accepted"], true, "{ack}");
        let runs = |board: &support::host::Host, reference: &str| {
            board.status().actors.iter().any(|actor| actor.image_ref == reference && actor.max_concurrent == 2)
        };
        eventually("it runs", || runs(&board, &first));
        let update = json!({"actor_id": guests::key("echo_small"), "new_actor_ref": second});
        let ack = ask(&nats, format!("{command}.upd"), update).await;
        assert_eq!(ack["accepted"], true, "{ack}");
        assert!(runs(&board, &first), "it is still on its way");
        board.kill();

        files.serves.store(true, SeqCst);
        let mut board = sandbox.run_again(&settings);
        board.wait_for("listening for commands");
        eventually("the accepted update is carried out", || runs(&board, &second));
    });
}
