//! What holds when a manifest and commands say different things: the whole table, with real hosts on real servers.
//!
//! The rule: a manifest says what should run as it was when it was last changed; a later command wins over an unchanged
//! manifest and survives restarts; a changed manifest wins over earlier commands; the lattice's bucket never changes what a
//! manifest of this board says. Each row is one host that gets every kind of command, then one event.

mod support;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use latticed::{
    claims::builtin_provider_key,
    store::{self, Batch, RealDisk, Store, Table},
    wire::{
        interface::{HTTP_SERVER, KEY_VALUE},
        link::link_id,
    },
};
use rustix::process::Signal;
use serde_json::{Value, json};
use support::{
    guests,
    host::{Host, Sandbox},
    http::free_address,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on, eventually},
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Restart,
    Reload,
    PowerCut,
}

/// One row of the table; the seven kinds of commands are in each.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The manifest is in a directory, not named by itself.
    folder: bool,
    event: Event,
    /// The server is there after the event.
    online: bool,
    /// The state directory was written by a version that knew no such rule.
    old: bool,
}

/// Hosts of the table that run at once.
const AT_ONCE: usize = 4;

/// One host on its way through a row.
struct Board {
    sandbox: Sandbox,
    server: NatsServer,
    folder: bool,
}

impl Board {
    fn new(folder: bool) -> Self {
        let board = Self { sandbox: Sandbox::new(env!("CARGO_BIN_EXE_latticed")), server: NatsServer::start(), folder };
        let wasm = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
        let newer = guests::sign_revision("echo", &[HTTP_SERVER], &wasm, 2).expect("it can be signed");
        board.sandbox.write("newer.wasm", newer);
        std::fs::create_dir(board.sandbox.path("manifests")).expect("a fresh folder");
        board.write("v1");
        board
    }

    /// Writes the manifest with this version text.
    fn write(&self, version: &str) -> PathBuf {
        let mut manifest = Manifest::new("table");
        for actor in ["echo", "counter", "echo_small", "lottery", "callee"] {
            manifest.actor(actor, &guests::module_path(actor), 1);
            match actor {
                "lottery" => drop(manifest.link("keyvalue", &[])),
                "callee" => drop(manifest.link("httpserver", &[("address", "127.0.0.1:0")])),
                _ => {}
            }
        }
        let text = manifest.text().replace("version: v0.1.0", &format!("version: {version}"));
        self.sandbox.write("manifests/table.yaml", text)
    }

    fn start(&self) -> Host {
        let path = self.sandbox.path(if self.folder { "manifests" } else { "manifests/table.yaml" });
        let (port, seed) = (self.server.port().to_string(), nats::cluster().seed().expose().to_owned());
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            ("WASMCLOUD_REMOTE", "full"),
        ];
        self.sandbox.run(&path, &settings)
    }

    /// Removes from disk what versions before this rule did not write.
    fn make_old(&self) {
        let disk = Arc::new(RealDisk::new(self.sandbox.path("state")));
        let (store, _) = Store::open(store::Settings::default(), disk).expect("the state can be read");
        let records = store.scan(Table::Desired, b"m/").expect("it can be read");
        assert_eq!(records.len(), 1, "the manifest was recorded");
        let batch = records.iter().fold(Batch::new(), |batch, (name, _)| batch.delete(Table::Desired, name.as_slice()));
        latticed::task::block_on(store.commit(batch)).expect("it can be written");
    }

    /// Gives every kind of command.
    async fn command(&self, id: &str) {
        let client = nats::connect(&self.server).await;
        let newer = format!("file://{}", self.sandbox.path("newer.wasm").display());
        let (http, store) =
            (builtin_provider_key("httpserver").to_string(), builtin_provider_key("keyvalue").to_string());
        let requests = [
            (format!("cmd.{id}.upd"), json!({ "actor_id": guests::key("echo"), "new_actor_ref": newer })),
            (format!("cmd.{id}.sa"), json!({ "actor_ref": guests::key("counter"), "count": 0 })),
            (
                format!("cmd.{id}.sp"),
                json!({ "provider_ref": store, "link_name": "default", "contract_id": KEY_VALUE }),
            ),
            (
                "linkdefs.del".to_owned(),
                json!({ "actor_id": guests::key("lottery"), "contract_id": KEY_VALUE, "link_name": "default" }),
            ),
            (
                "linkdefs.put".to_owned(),
                json!({
                    "actor_id": guests::key("callee"), "provider_id": http, "contract_id": HTTP_SERVER,
                    "link_name": "default", "values": { "address": "127.0.0.2:0" }
                }),
            ),
            (format!("cmd.{id}.scale"), json!({ "actor_id": guests::key("echo_small"), "actor_ref": "", "count": 3 })),
            (format!("labels.{id}.put"), json!({ "key": "site", "value": "roof" })),
        ];
        for (subject, body) in requests {
            let subject = format!("wasmbus.ctl.default.{subject}");
            let answer = client.request(subject.clone(), body.to_string().into()).await.expect("an answer");
            let answer: Value = serde_json::from_slice(&answer.payload).expect("answers are JSON");
            assert_eq!(answer["accepted"], true, "{subject}: {answer}");
        }
    }
}

/// What the table is about, of a running host.
#[derive(Debug, PartialEq)]
struct Seen {
    revision_of_echo: i32,
    counter_runs: bool,
    store_runs: bool,
    link_of_lottery: bool,
    address_of_callee: Option<String>,
    instances_of_echo_small: u16,
    label: bool,
}

/// Nothing until the host answers.
fn seen(host: &Host) -> Option<Seen> {
    let status = latticed::task::block_on(host.client().status()).ok()?;
    let actor = |name: &str| status.actors.iter().find(|actor| actor.public_key == guests::key(name));
    let link = |name: &str, contract: &str| {
        let id = link_id(&guests::key(name), contract, "default");
        status.links.iter().find(|link| link.id == id)
    };
    let store = builtin_provider_key("keyvalue").to_string();
    Some(Seen {
        revision_of_echo: actor("echo").map_or(0, |actor| actor.revision),
        counter_runs: actor("counter").is_some(),
        store_runs: status.providers.iter().any(|one| one.public_key == store && one.state == "running"),
        link_of_lottery: link("lottery", KEY_VALUE).is_some(),
        address_of_callee: link("callee", HTTP_SERVER).and_then(|link| link.values.get("address").cloned()),
        instances_of_echo_small: actor("echo_small").map_or(0, |actor| actor.max_concurrent),
        label: status.labels.get("site").is_some_and(|site| site == "roof"),
    })
}

fn by_manifest(label: bool) -> Seen {
    Seen {
        revision_of_echo: 1,
        counter_runs: true,
        store_runs: true,
        link_of_lottery: true,
        address_of_callee: Some("127.0.0.1:0".into()),
        instances_of_echo_small: 1,
        label,
    }
}

fn by_commands() -> Seen {
    Seen {
        revision_of_echo: 2,
        counter_runs: false,
        store_runs: false,
        link_of_lottery: false,
        address_of_callee: Some("127.0.0.2:0".into()),
        instances_of_echo_small: 3,
        label: true,
    }
}

fn becomes(row: Row, host: &Host, wanted: &Seen) {
    let mut last = None;
    let start = Instant::now();
    while last.as_ref() != Some(wanted) {
        assert!(start.elapsed() < PATIENCE, "{row:?}: {last:#?} is not {wanted:#?}\n{}", host.output());
        thread::sleep(Duration::from_millis(20));
        last = seen(host);
    }
}

/// Has the host read its manifests again, and waits until that was done: the second reload begins when the first has ended.
fn reload(host: &mut Host) {
    const BEGINS: &str = "reading settings, credentials, certificates and manifests again";
    let before = host.output().matches(BEGINS).count();
    for count in 1..=2 {
        host.signal(Signal::HUP);
        eventually("a reload begins", || host.output().matches(BEGINS).count() >= before + count);
    }
}

fn walk(row: Row) {
    let mut board = Board::new(row.folder);
    if row.old {
        let host = board.start();
        becomes(row, &host, &by_manifest(false));
        host.terminate();
        board.make_old();
    }
    let mut host = board.start();
    host.wait_for("listening for commands");
    becomes(row, &host, &by_manifest(false));
    block_on(board.command(&host.status().host_id));
    becomes(row, &host, &by_commands());

    if row.event != Event::Reload {
        match row.event {
            Event::PowerCut => host.kill(),
            _ => drop(host.terminate()),
        }
        if !row.online {
            board.server.kill();
        }
        host = board.start();
        if row.online {
            host.wait_for("the lattice's bucket is followed");
        }
        becomes(row, &host, &by_commands());
    } else if !row.online {
        board.server.kill();
    }
    reload(&mut host);
    assert_eq!(seen(&host), Some(by_commands()), "{row:?}: an unchanged manifest undid commands\n{}", host.output());
    let differences = host.status().differences;
    assert_eq!(differences.len(), 6, "{row:?}: {differences:#?}");
    for difference in &differences {
        assert!(difference.contains("differs from manifest table since 2"), "{row:?}: {difference}");
        assert!(difference.contains("by command of the lattice"), "{row:?}: {difference}");
    }

    board.write("v2");
    reload(&mut host);
    becomes(row, &host, &by_manifest(true));
    assert_eq!(host.status().differences, Vec::<String>::new(), "{row:?}: the manifest was changed");
}

#[test]
fn later_commands_win_over_an_unchanged_manifest_and_a_changed_one_wins_over_them() {
    let mut rows = Vec::new();
    for folder in [false, true] {
        for event in [Event::Restart, Event::Reload, Event::PowerCut] {
            for online in [true, false] {
                rows.extend([true, false].map(|old| Row { folder, event, online, old }));
            }
        }
    }
    assert_eq!(rows.len(), 24);
    let rows = Mutex::new(rows);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let row = rows.lock().expect("no row has failed").pop();
                    let Some(row) = row else { return };
                    walk(row);
                }
            });
        }
    });
}

/// A manifest with the echo actor at `address`, and its values in the lattice.
fn echo_at(sandbox: &Sandbox, address: SocketAddr) -> PathBuf {
    let mut manifest = Manifest::empty("echo");
    manifest.capability("httpserver", HTTP_SERVER).actor("echo", &guests::module_path("echo"), 1).http(address);
    sandbox.write("echo.yaml", manifest.text())
}

fn settings(port: &str) -> Vec<(&'static str, String)> {
    vec![
        ("NATS_HOST", "127.0.0.1".to_owned()),
        ("NATS_PORT", port.to_owned()),
        ("WASMCLOUD_CLUSTER_SEED", nats::cluster().seed().expose().to_owned()),
        ("WASMCLOUD_ALLOW_FILE_LOAD", "true".to_owned()),
    ]
}

fn run(sandbox: &Sandbox, arguments: &[&str], port: u16) -> Host {
    let settings = settings(&port.to_string());
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    sandbox.run_with(arguments, &settings)
}

/// Where the echo actor of `host` listens.
fn listens_at(host: &Host) -> Option<String> {
    let status = latticed::task::block_on(host.client().status()).ok()?;
    let server = status.providers.iter().find(|one| one.contract_id == HTTP_SERVER)?;
    Some(server.detail.clone())
}

fn echo_listens(host: &Host, address: SocketAddr) {
    eventually(&format!("it listens at {address}"), || listens_at(host) == Some(format!("http://{address}")));
}

#[test]
fn a_value_in_the_lattices_bucket_changes_no_manifest_whatever_comes_first() {
    let program = env!("CARGO_BIN_EXE_latticed");
    let mut server = NatsServer::start();
    let (stale, fresh) = (free_address(), free_address());
    let first = Sandbox::new(program);
    let host = run(&first, &["run", echo_at(&first, stale).to_str().expect("UTF-8")], server.port());
    echo_listens(&host, stale);
    eventually("the bucket has the link", || host.output().contains("the lattice's bucket is followed"));
    let link = link_id(&guests::key("echo"), HTTP_SERVER, "default");
    let in_bucket = |wanted: SocketAddr| {
        block_on(async {
            let client = nats::connect(&server).await;
            let subject = format!("$JS.API.DIRECT.GET.KV_LATTICEDATA_default.$KV.LATTICEDATA_default.LINKDEF_{link}");
            let answer = client.request(subject, "".into()).await.expect("JetStream answers");
            String::from_utf8_lossy(&answer.payload).contains(&wanted.to_string())
        })
    };
    eventually("the bucket has its address", || in_bucket(stale));
    host.kill();

    // A new memory card, with another address in the manifest, while the bucket still says the old one.
    let board = Sandbox::new(program);
    let manifest = echo_at(&board, fresh);
    let manifest = manifest.to_str().expect("UTF-8");
    let mut host = run(&board, &["run", manifest], server.port());
    host.wait_for("the lattice's bucket is followed");
    echo_listens(&host, fresh);
    eventually("the bucket was told", || in_bucket(fresh));
    eventually("its own word has come back to it", || host.status().differences.is_empty());

    // Another board with the same actor tells the lattice its own address: each keeps what its manifest says.
    let other = Sandbox::new(program);
    let mut beside = run(&other, &["run", echo_at(&other, stale).to_str().expect("UTF-8")], server.port());
    beside.wait_for("the lattice's bucket is followed");
    eventually("the first board hears of it", || !host.status().differences.is_empty());
    let differences = host.status().differences;
    assert!(differences[0].contains("manifest echo") && differences[0].contains("address"), "{differences:?}");
    echo_listens(&host, fresh);
    echo_listens(&beside, stale);
    assert_eq!((host.status().problems, beside.status().problems), (vec![], vec![]));

    // The same after a start with and without the lattice.
    host.kill();
    let host = run(&board, &["run", manifest], server.port());
    eventually("it hears of it again", || {
        latticed::task::block_on(host.client().status()).is_ok_and(|status| !status.differences.is_empty())
    });
    echo_listens(&host, fresh);
    host.kill();
    beside.kill();
    server.kill();
    let host = run(&board, &["run", manifest], server.port());
    echo_listens(&host, fresh);
    server.resume();
    eventually("it hears of it again", || !host.status().differences.is_empty());
    echo_listens(&host, fresh);
}

#[test]
fn a_manifest_that_comes_wins_over_an_actor_that_a_command_started_from_elsewhere() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let server = NatsServer::start();
    let wasm = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
    let newer = guests::sign_revision("echo", &[HTTP_SERVER], &wasm, 2).expect("it can be signed");
    let newer = format!("file://{}", sandbox.write("newer.wasm", newer).display());
    let mut host = run(&sandbox, &["run"], server.port());
    host.wait_for("the lattice's bucket is followed");
    let id = host.status().host_id;
    block_on(async {
        let client = nats::connect(&server).await;
        let body = json!({ "actor_id": guests::key("echo"), "actor_ref": newer, "count": 1 }).to_string();
        let answer =
            client.request(format!("wasmbus.ctl.default.cmd.{id}.scale"), body.into()).await.expect("an answer");
        assert!(String::from_utf8_lossy(&answer.payload).contains("\"accepted\":true"), "{answer:?}");
    });
    eventually("revision 2 runs", || host.status().actors.iter().any(|actor| actor.revision == 2));
    host.kill();
    let address = free_address();
    let host = run(&sandbox, &["run", echo_at(&sandbox, address).to_str().expect("UTF-8")], server.port());
    echo_listens(&host, address);
    eventually("the manifest's revision runs", || host.status().actors.iter().any(|actor| actor.revision == 1));
}

#[test]
fn an_application_is_left_when_no_manifest_names_it() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let manifest = |name: &str, guest: &str| {
        let mut manifest = Manifest::new(name);
        manifest.actor(guest, &guests::module_path(guest), 1).http(free_address());
        sandbox.write(&format!("{name}.yaml"), manifest.text())
    };
    let (one, two) = (manifest("one", "echo"), manifest("two", "counter"));
    let alone = [("WASMCLOUD_JOIN", "never")];
    let runs = |host: &Host, guests: &[&str]| {
        let mut wanted: Vec<String> = guests.iter().map(|name| guests::key(name)).collect();
        wanted.sort();
        eventually(&format!("{guests:?} run"), || {
            let status = latticed::task::block_on(host.client().status());
            status.is_ok_and(|status| status.actors.iter().map(|actor| actor.public_key.clone()).eq(wanted.clone()))
        });
    };
    let host = sandbox.run(&one, &alone);
    runs(&host, &["echo"]);
    host.terminate();
    let mut host = sandbox.run(&two, &alone);
    host.wait_for("the application one is removed, because its manifest is gone");
    runs(&host, &["counter"]);
    host.terminate();
    // Without a manifest it runs what it ran before; with an empty directory nothing.
    let host = sandbox.run_again(&alone);
    runs(&host, &["counter"]);
    host.terminate();
    std::fs::create_dir(sandbox.path("empty")).expect("a fresh folder");
    let mut host = sandbox.run(&sandbox.path("empty"), &alone);
    host.wait_for("the application two is removed, because its manifest is gone");
    runs(&host, &[]);
}
