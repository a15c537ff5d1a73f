//! Providers of others and of our own kit, as processes of a real host: kvredis under a counter, both generations of the
//! published SDKs, the example of thirty lines, and those that mean harm.

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use async_nats_031::Client;
use futures_util::StreamExt;
use latticed::{
    claims::builtin_provider_key,
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use serde_json::Value;
use support::{
    calls::Caller,
    counter::{count, first_count},
    guests,
    host::{Host, Sandbox},
    http::free_address,
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
    played_host::PlayedHost,
    provider, published,
    redis::RedisServer,
};

type Control = ctl_client_030::Client<ctl_client_030::kv::DirectKvStore>;

/// A host on a server, commanded as from afar.
struct Stage {
    sandbox: Sandbox,
    host: Option<Host>,
    host_id: String,
    nats: Client,
    control: Control,
    older: ctl_client_027::Client,
    events: async_nats_031::Subscriber,
    /// Last, so that it outlives its clients.
    _server: NatsServer,
}

impl Stage {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let (server, sandbox) = (NatsServer::start(), Sandbox::new(env!("CARGO_BIN_EXE_latticed")));
        let nats = nats::connect(&server).await;
        let events = nats.subscribe("wasmbus.evt.default".into()).await.expect("the server listens");
        let mut all = vec![
            // Development builds on a busy machine.
            ("WASMCLOUD_RPC_TIMEOUT_MS", "20000"),
            ("WASMCLOUD_PROVIDER_FIRST_PROBE_MS", "1000"),
            ("WASMCLOUD_PROVIDER_PROBE_MS", "1000"),
        ];
        all.extend_from_slice(settings);
        let host = nats::joined(&sandbox, server.port(), &all);
        let control = control_client(&nats).await;
        let old_nats = async_nats_030::connect(server.url()).await.expect("the server answers");
        let older = ctl_client_027::ClientBuilder::new(old_nats).rpc_timeout(PATIENCE).build().await.expect("a client");
        let host_id = host.status().host_id;
        Self { sandbox, host: Some(host), host_id, nats, control, older, events, _server: server }
    }

    fn host(&self) -> &Host {
        self.host.as_ref().expect("it runs")
    }

    /// Puts `binary` into an archive where the host may load it; its reference.
    fn archive(&self, name: &str, contract: &str, binary: &[u8]) -> String {
        let path = self.sandbox.write(&format!("{name}.par.gz"), provider::archive(name, contract, binary));
        format!("file://{}", path.display())
    }

    async fn start_provider(&self, reference: &str, configuration: Option<String>) {
        let link_name = Some("default".to_owned());
        let ack = self.control.start_provider(&self.host_id, reference, link_name, None, configuration).await;
        let ack = ack.expect("the host answers");
        assert!(ack.accepted, "{}\n{}", ack.error, self.host().output());
    }

    async fn start_actor(&self, path: &Path, count: u16) {
        let reference = format!("file://{}", path.display());
        let ack = self.control.scale_actor(&self.host_id, &reference, Some(count), None).await;
        let ack = ack.expect("the host answers");
        assert!(ack.accepted, "{}\n{}", ack.error, self.host().output());
    }

    async fn link(&self, actor: &str, provider: &str, contract: &str, values: &[(&str, String)]) {
        let values: HashMap<String, String> =
            values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.control.advertise_link(actor, provider, contract, "default", values).await.expect("the bucket takes it");
    }

    /// The counter behind the built-in HTTP server, counting in the provider with the key `store`; answers where it listens.
    async fn counter_on(&self, store: &str, values: &[(&str, String)]) -> SocketAddr {
        let (counter, address) = (guests::key("counter"), free_address());
        self.start_provider("builtin:httpserver", None).await;
        let server = builtin_provider_key("httpserver").to_string();
        self.link(&counter, store, KEY_VALUE, values).await;
        self.link(&counter, &server, HTTP_SERVER, &[("address", address.to_string())]).await;
        self.start_actor(&guests::module_path("counter"), 4).await;
        address
    }

    /// The next event called `name` about the provider with the key `key`.
    async fn event(&mut self, name: &str, key: &str) -> Value {
        let wanted = format!("com.wasmcloud.lattice.{name}");
        let search = async {
            loop {
                let message = self.events.next().await.expect("the subscription lasts");
                let event: Value = serde_json::from_slice(&message.payload).expect("an event");
                if event["type"] == wanted && event["data"]["public_key"] == key {
                    return event["data"].clone();
                }
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(data) => data,
            Err(_) => panic!("no event {name}: {}", self.host.as_ref().map(Host::output).unwrap_or_default()),
        }
    }

    /// Waits until the provider with the key `key` hears its links and calls.
    async fn healthy(&mut self, key: &str) {
        self.event("health_check_passed", key).await;
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The processes below `parent` and theirs: name and id.
fn all_below(parent: u32) -> Vec<(String, u32)> {
    let mut all: Vec<(String, u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("a proc file system").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended since it was listed.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((before, rest)) = stat.rsplit_once(") ") else { continue };
        let name = before.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default();
        let above = rest.split(' ').nth(1).and_then(|field| field.parse().ok()).unwrap_or_default();
        all.push((name, pid, above));
    }
    let (mut found, mut parents) = (Vec::new(), vec![parent]);
    while let Some(parent) = parents.pop() {
        for (name, pid, above) in &all {
            if *above == parent {
                found.push((name.clone(), *pid));
                parents.push(*pid);
            }
        }
    }
    found
}

fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Counts in `workers` threads until told to end: every count that was answered, and how often none was.
fn count_until(
    address: SocketAddr,
    workers: usize,
    ended: &Arc<AtomicBool>,
) -> Vec<thread::JoinHandle<(Vec<i64>, usize)>> {
    (0..workers)
        .map(|_| {
            let ended = ended.clone();
            thread::spawn(move || {
                let (mut counts, mut failures) = (Vec::new(), 0);
                while !ended.load(SeqCst) {
                    match count(address) {
                        Ok(count) => counts.push(count),
                        Err(_) => {
                            failures += 1;
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                }
                (counts, failures)
            })
        })
        .collect()
}

/// Done means 1 of the issue: a counter over HTTP on kvredis as a process, commanded by the published clients; Redis killed
/// and started again under load loses no acknowledged increment; the host killed leaves no child.
#[test]
fn a_counter_on_kvredis_loses_nothing_and_a_killed_host_leaves_nothing() {
    block_on(async {
        let mut redis = RedisServer::start();
        let rules = redis.rule();
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RULES", &rules)]).await;
        let binary = read(Path::new(env!("CARGO_BIN_EXE_kvredis")));
        let reference = stage.archive("kvredis", KEY_VALUE, &binary);
        let key = provider::key("kvredis");
        stage.start_provider(&reference, None).await;
        stage.healthy(&key).await;
        let address = stage.counter_on(&key, &[("URL", redis.url())]).await;
        assert_eq!(first_count(stage.host(), address), 1);
        assert_eq!(count(address), Ok(2));

        let ended = Arc::new(AtomicBool::new(false));
        let workers = count_until(address, 4, &ended);
        eventually("a hundred counts", || stored(&redis).is_some_and(|count| count >= 100));
        for _ in 0..2 {
            redis.kill();
            thread::sleep(Duration::from_millis(300));
            redis.resume();
            eventually("Redis is back", || stored(&redis).is_some());
            let before = stored(&redis).expect("it is back");
            eventually("counting goes on", || stored(&redis).is_some_and(|count| count >= before + 100));
        }
        ended.store(true, SeqCst);
        let (mut acknowledged, mut failures) = (vec![1, 2], 0);
        for worker in workers {
            let (counts, failed) = worker.join().expect("workers do not panic");
            acknowledged.extend(counts);
            failures += failed;
        }
        let distinct: BTreeSet<i64> = acknowledged.iter().copied().collect();
        assert_eq!(distinct.len(), acknowledged.len(), "a count was answered twice: Redis forgot one");
        let last = stored(&redis).expect("Redis answers");
        assert!(last >= *distinct.last().expect("there are some"), "Redis holds {last}, more was acknowledged");
        // Commands that were done and not answered may be more, each failed call is at most one.
        assert!(last <= (acknowledged.len() + failures) as i64, "{last} {} {failures}", acknowledged.len());
        println!("acknowledged {}, stored {last}, not answered {failures}", acknowledged.len());

        // What the older client sees and stops is the same; then it starts again.
        let ack = stage.older.stop_provider(&stage.host_id, &key, "default", KEY_VALUE, None).await;
        assert!(ack.expect("the host answers").accepted);
        stage.event("provider_stopped", &key).await;
        let ack = stage.older.start_provider(&stage.host_id, &reference, Some("default".into()), None, None).await;
        assert!(ack.expect("the host answers").accepted);
        stage.healthy(&key).await;
        assert_eq!(first_count(stage.host(), address), last + 1);

        let host = stage.host.take().expect("it runs");
        let children = all_below(host.pid());
        assert!(!children.is_empty(), "the provider is no process below the host");
        host.kill();
        eventually("no child is left", || children.iter().all(|(_, pid)| !lives(*pid)));
    });
}

/// What Redis holds; nothing while it is away or still reads its log.
fn stored(redis: &RedisServer) -> Option<i64> {
    redis::cmd("GET").arg("counter:default").query(&mut redis.try_connect()?).ok()
}

/// Done means 2 of the issue, for the provider `package`: links and calls of an actor on this host, calls back to it, and
/// bodies above what a message holds, each way: from the actor, to the actor, and both answers.
async fn serves_like_any_other(package: &str) {
    // Built first: it may take minutes, in which nobody would answer for the clients of the stage.
    let binary = read(&published::provider(package));
    let stage = &mut Stage::start(&[]).await;
    let (reference, key) = (stage.archive(package, KEY_VALUE, &binary), provider::key(package));
    stage.start_provider(&reference, None).await;
    stage.healthy(&key).await;
    let address = stage.counter_on(&key, &[("WORD", package.to_owned())]).await;
    assert_eq!(first_count(stage.host(), address), 1);
    assert_eq!(count(address), Ok(2));
    let wasm = wat::parse_file(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/providers/long.wat")).expect("it is WAT");
    let module = stage.sandbox.write("long.wasm", guests::sign("long", &[KEY_VALUE], &wasm).expect("it is signed"));
    let long = guests::key("long");
    stage.start_actor(&module, 4).await;
    stage.link(&long, &key, KEY_VALUE, &[]).await;
    let caller = Caller::new(stage.nats.clone());
    let ask = async |operation: &str| {
        let end = Instant::now() + PATIENCE;
        loop {
            match caller.call(&long, operation, b"").await {
                // The start was accepted, and is on its way like the link.
                Err(text) if (text == "no responders" || text.contains("link")) && Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                outcome => return outcome,
            }
        }
    };
    assert_eq!(ask("Test.Echo").await, Ok(b"ok".to_vec()), "{}", stage.host().output());
    assert_eq!(ask("Test.CallBack").await, Ok(b"ok".to_vec()), "{}", stage.host().output());
    let unknown = ask("Test.Nothing").await.expect_err("there is no such operation");
    assert!(unknown.contains("method not handled Test.Nothing"), "{unknown}");

    let ack = stage.control.stop_provider(&stage.host_id, &key, "default", KEY_VALUE, None).await;
    assert!(ack.expect("the host answers").accepted);
    stage.event("provider_stopped", &key).await;
}

#[test]
fn a_provider_on_wasmbus_rpc_0_15_runs_unmodified() {
    block_on(async {
        serves_like_any_other("wasmbus-rpc-provider").await;
    });
}

#[test]
fn a_provider_on_provider_sdk_0_2_runs_unmodified() {
    block_on(async {
        serves_like_any_other("provider-sdk-provider").await;
    });
}

/// A provider that means harm: what it is, what the lattice and the log are to tell of it.
struct Hostile {
    name: &'static str,
    /// The program and how it is told what to do.
    program: Program,
    /// The event about it, and a part of the line in the log.
    event: &'static str,
    line: &'static str,
    /// Whether it runs until it is stopped by command.
    stays: bool,
}

enum Program {
    /// `mannered.rs`, by its start configuration.
    Mannered(&'static str),
    /// `hostile.rs`, by its last line.
    Hostile(&'static str),
}

const fn hostile(
    name: &'static str,
    program: Program,
    event: &'static str,
    line: &'static str,
    stays: bool,
) -> Hostile {
    Hostile { name, program, event, line, stays }
}

const HOSTILE: [Hostile; 10] = [
    hostile("exits", Program::Mannered(r#"{"exit":7}"#), "provider_stopped", "provider stopped: ", false),
    hostile("dies", Program::Mannered(r#"{"signal":9}"#), "provider_stopped", "provider stopped: ", false),
    hostile("ill", Program::Mannered(r#"{"ill":true}"#), "health_check_failed", "unhealthy: a test wants it so", true),
    hostile(
        "mute",
        Program::Mannered(r#"{"mute":true}"#),
        "health_check_failed",
        "unhealthy: it does not answer",
        true,
    ),
    hostile(
        "stubborn",
        Program::Mannered(r#"{"stubborn":true}"#),
        "health_check_passed",
        "did not end when asked and is killed",
        true,
    ),
    hostile("floods", Program::Mannered(r#"{"flood":true}"#), "health_check_passed", "flood flood", true),
    hostile("forks", Program::Hostile("forks"), "health_check_passed", "children: 50", true),
    hostile("closes", Program::Hostile("closes-stdin"), "health_check_failed", "hostile: closes-stdin", true),
    hostile(
        "ignores",
        Program::Hostile("never-reads-stdin"),
        "health_check_failed",
        "hostile: never-reads-stdin",
        true,
    ),
    hostile("forges", Program::Hostile("forges"), "health_check_passed", "forged with no token: refused: ", true),
];

/// Done means 4 of the issue: each ends in an event and a line of its own, nothing of it is left, and the counter beside it
/// answers every request meanwhile.
#[test]
fn hostile_providers_harm_nobody_but_themselves() {
    block_on(async {
        let (mannered, hostile) = (read(provider::mannered()), read(&published::example("hostile-provider")));
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RESTARTS", "1")]).await;
        let store = builtin_provider_key("keyvalue").to_string();
        stage.start_provider("builtin:keyvalue", None).await;
        let address = stage.counter_on(&store, &[]).await;
        first_count(stage.host(), address);
        // Its neighbours are asked all the time; the first failure ends the asking and the test.
        let ended = Arc::new(AtomicBool::new(false));
        let neighbour = thread::spawn({
            let ended = ended.clone();
            move || {
                let mut asked = 0;
                while !ended.load(SeqCst) {
                    count(address)?;
                    asked += 1;
                    thread::sleep(Duration::from_millis(20));
                }
                Ok::<i32, String>(asked)
            }
        });
        let counter = guests::key("counter");
        for Hostile { name, program, event, line, stays } in HOSTILE {
            let key = provider::key(name);
            let (binary, configuration) = match program {
                Program::Mannered(manners) => (mannered.clone(), Some(manners.to_owned())),
                Program::Hostile(mode) => {
                    ([hostile.as_slice(), format!("\n#hostile:{mode}\n").as_bytes()].concat(), None)
                }
            };
            let reference = stage.archive(name, "wasmcloud:test", &binary);
            if name == "ignores" {
                // More than a pipe holds: whoever writes it to somebody who does not read would wait.
                stage.link(&counter, &key, "wasmcloud:test", &[("LONG", "x".repeat(200_000))]).await;
            } else if name == "forges" {
                stage.link(&counter, &key, "wasmcloud:test", &[]).await;
            }
            stage.start_provider(&reference, configuration).await;
            let told = stage.event(event, &key).await;
            let below: Vec<(String, u32)> = all_below(stage.host().pid());
            if stays {
                let ack = stage.control.stop_provider(&stage.host_id, &key, "default", "wasmcloud:test", None).await;
                assert!(ack.expect("the host answers").accepted, "{name}");
                stage.event("provider_stopped", &key).await;
            } else {
                let reason = told["reason"].as_str().unwrap_or_default();
                assert!(reason.contains(['7', '9']), "{name}: {told}");
                // Once more, and then it is given up.
                stage.event("provider_stopped", &key).await;
                let state = || stage.host().status().providers.into_iter().find(|one| one.public_key == key);
                eventually("it is given up", || state().is_some_and(|one| one.state.contains("given up")));
            }
            let output = || stage.host().output();
            let about = |text: &str| text.lines().any(|one| one.contains(line) && one.contains(&key));
            eventually(line, || about(&output()));
            assert!(!output().contains("ACCEPTED"), "{}", output());
            eventually("nothing of it is left", || below.iter().all(|(_, pid)| !lives(*pid)));
            if name == "forks" {
                assert!(below.iter().filter(|(program, _)| program == "sleep").count() >= 50, "{below:?}");
            }
            println!("{name}: {event}, {line:?}");
        }
        ended.store(true, SeqCst);
        let asked = neighbour.join().expect("it does not panic");
        assert!(asked.as_ref().is_ok_and(|asked| *asked > 0), "{asked:?}: {}", stage.host().output());
    });
}

/// The example of thirty lines, started as anybody's provider and called as an actor does.
#[test]
fn the_example_provider_works_and_is_short() {
    let source = include_str!("providers/reverse.rs");
    let code = source.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//")).count();
    assert!(code <= 30, "{code} lines");
    let mut host =
        PlayedHost::start(&published::example("reverse-provider"), "example:reverse", &[("M1", "")], None, &[]);
    assert!(host.health().healthy);
    assert_eq!(host.ask("M1", "Reverse.Text", &"größe"), Ok("eßörg".to_owned()));
    assert_eq!(host.ask::<String>("M1", "Reverse.Nothing", &"x"), Err("method not handled Reverse.Nothing".to_owned()));
    let (status, log) = host.shut_down();
    assert!(status.success(), "{status}: {log}");
}
