//! The program as a service manager and a prober see it: notifications on a real socket, probes, health, reload.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::{UnixDatagram, UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{
    guests,
    host::{Host, Sandbox},
    http::{free_address, get},
    manifest::Manifest,
    mischief::Mischief,
    nats::{NatsServer, PATIENCE, eventually},
    registry::{MODULE, PASSWORD, Registry, USER},
};

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_latticed"))
}

/// The service manager's end of the notify protocol.
struct ServiceManager(UnixDatagram);

impl ServiceManager {
    fn listen(sandbox: &Sandbox) -> (Self, String) {
        let path = sandbox.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a fresh folder");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a socket");
        (Self(socket), path.display().to_string())
    }

    /// Everything said until a message holds `word`.
    fn hear(&self, word: &str, host: &Host) -> Vec<String> {
        self.hear_within(PATIENCE, word, host)
    }

    fn hear_within(&self, patience: Duration, word: &str, host: &Host) -> Vec<String> {
        let end = Instant::now() + patience;
        let mut heard = Vec::new();
        let mut bytes = [0; 4096];
        while Instant::now() < end {
            if let Ok(length) = self.0.recv(&mut bytes) {
                heard.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
                if heard.last().is_some_and(|last| last.contains(word)) {
                    return heard;
                }
            }
        }
        panic!("{word} was not said: {heard:?}\n{}", host.output());
    }
}

/// What a probe answers: its status and body.
fn probe(socket: &Path, path: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("probes are answered");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers and closes");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = answer.split_once("\r\n\r\n").expect("a body").1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn echo(sandbox: &Sandbox, address: std::net::SocketAddr) -> std::path::PathBuf {
    let mut manifest = Manifest::new("app");
    manifest.actor("echo", &guests::module_path("echo"), 1).http(address);
    sandbox.write("app.yaml", manifest.text())
}

#[test]
fn the_service_manager_hears_how_the_host_is() {
    let sandbox = sandbox();
    let (manager, socket) = ServiceManager::listen(&sandbox);
    let manifest = echo(&sandbox, free_address());
    let settings = sandbox.write("settings.env", "WASMCLOUD_LOG_LEVEL=info\nHOST_SITE=one\n");
    let mut host = sandbox.run_with(
        &["run", "--env-file", settings.to_str().expect("UTF-8"), manifest.to_str().expect("UTF-8")],
        &[("NOTIFY_SOCKET", &socket), ("WATCHDOG_USEC", "2000000"), ("WASMCLOUD_JOIN", "never")],
    );
    let heard = manager.hear("READY=1", &host);
    assert!(heard.iter().any(|words| words.starts_with("EXTEND_TIMEOUT_USEC=")), "{heard:?}");
    manager.hear("STATUS=by itself · 1 actor, 2 providers", &host);
    // An idle host feeds the watchdog, twice in its period.
    for _ in 0..3 {
        manager.hear("WATCHDOG=1\n", &host);
    }

    sandbox.write("settings.env", "WASMCLOUD_LOG_LEVEL=debug\nHOST_SITE=two\nWASMCLOUD_WORKERS=7\n");
    host.signal(rustix::process::Signal::HUP);
    let heard = manager.hear("READY=1", &host).concat();
    assert!(heard.contains("RELOADING=1\nMONOTONIC_USEC="), "{heard}");
    host.wait_for("now in effect: WASMCLOUD_LOG_LEVEL info -> debug, labels");
    host.wait_for("in effect only after a restart: WASMCLOUD_WORKERS");
    assert_eq!(host.status().labels.get("site").map(String::as_str), Some("two"));

    sandbox.write("settings.env", "WASMCLOUD_LOG_LEVEL=loud\n");
    host.signal(rustix::process::Signal::HUP);
    manager.hear("READY=1", &host);
    host.wait_for("nothing was reloaded: WASMCLOUD_LOG_LEVEL");
    manager.hear(" · settings not reloaded: WASMCLOUD_LOG_LEVEL", &host);
    assert!(host.status().problems[0].starts_with("settings are not reloaded: WASMCLOUD_LOG_LEVEL"));
    assert_eq!(host.status().labels.get("site").map(String::as_str), Some("two"));

    host.signal(rustix::process::Signal::TERM);
    manager.hear("STOPPING=1", &host);
    let (status, output) = host.terminate();
    assert!(status.success(), "{output}");
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let sandbox = sandbox();
    let (manager, socket) = ServiceManager::listen(&sandbox);
    let host = sandbox.run_with(&["run"], &[("NOTIFY_SOCKET", &socket), ("WASMCLOUD_WORKERS", "many")]);
    let heard = manager.hear("ERRNO=22", &host).concat();
    assert!(heard.contains("STATUS=WASMCLOUD_WORKERS"), "{heard}");
}

#[test]
fn a_host_of_a_lattice_is_ready_only_there_and_alive_all_the_time() {
    let sandbox = sandbox();
    let (manager, socket) = ServiceManager::listen(&sandbox);
    let mut server = NatsServer::stopped();
    let (address, probes) = (free_address(), sandbox.path("probes.sock"));
    let manifest = echo(&sandbox, address);
    let port = server.port().to_string();
    let host = sandbox.run(
        &manifest,
        &[
            ("NOTIFY_SOCKET", &*socket),
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "500"),
            ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8")),
        ],
    );
    manager.hear("STATUS=starting: lattice: ", &host);
    eventually("it serves local requests", || get(address, "/").is_ok_and(|(status, _)| status == 200));
    let (status, body) = probe(&probes, "/readyz");
    assert_eq!((status, &body["ready"], &body["lacks"][0]["what"]), (500, &false.into(), &"lattice".into()), "{body}");
    assert!(body["lacks"][0]["since_seconds"].is_u64(), "{body}");
    assert_eq!(probe(&probes, "/livez"), (200, serde_json::json!({ "live": true })));
    assert_eq!(probe(&probes, "/other").0, 404);

    server.resume();
    manager.hear("READY=1", &host);
    // What the lattice's bucket brings is being followed for a moment.
    eventually("it says so itself", || probe(&probes, "/api/readyz") == (200, serde_json::json!({ "ready": true })));
    manager.hear(&format!("STATUS=connected to nats://127.0.0.1:{port}"), &host);

    server.kill();
    eventually("the loss is told", || probe(&probes, "/readyz").0 == 500);
    manager.hear("STATUS=working alone for ", &host);
    assert_eq!(probe(&probes, "/livez").0, 200);
}

/// A guest that answers every request as the health interface says, with `healthy` false.
const ILL: &str = r#"(module
  (import "wasmbus" "__guest_response" (func $respond (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\82\a7healthy\c2\a7message\a7too dry")
  (func (export "__guest_call") (param i32 i32) (result i32)
    (call $respond (i32.const 0) (i32.const 26))
    (i32.const 1)))"#;

#[test]
fn an_unwell_actor_is_started_again_until_it_is_enough() {
    let sandbox = sandbox();
    let wasm = wat::parse_str(ILL).expect("good text");
    let module = sandbox.write("ill.wasm", guests::sign("ill", &[], &wasm).expect("it can be signed"));
    let probes = sandbox.path("probes.sock");
    let mut manifest = Manifest::new("app");
    manifest.actor("ill", &module, 1);
    manifest.actor("echo", &guests::module_path("echo"), 1);
    let mut host = sandbox.run(
        &sandbox.write("app.yaml", manifest.text()),
        &[
            ("WASMCLOUD_HEALTH_PERIOD_MS", "100"),
            ("WASMCLOUD_HEALTH_FAILURES", "2"),
            ("WASMCLOUD_HEALTH_RESTARTS", "2"),
            ("WASMCLOUD_JOIN", "never"),
            ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8")),
        ],
    );
    host.wait_for("actor echo started");
    host.wait_for("actor ill started");
    // Nobody asks an actor that did nothing.
    eventually("the host is ready", || probe(&probes, "/readyz").0 == 200);
    for actor in ["ill", "echo"] {
        host.call(&guests::key(actor), "Any.Thing", &[]).ok();
    }
    host.wait_for("unhealthy: too dry");
    host.wait_for("it was started again too often and waits for a command");
    let output = host.output();
    assert_eq!(output.matches("actor ill started").count(), 3, "one start and two more: {output}");
    assert_eq!(output.matches("actor echo started").count(), 1, "echo is well: {output}");
    // Nobody expects it to run any more: what is left of the host is well.
    eventually("readiness heals", || probe(&probes, "/readyz").0 == 200);
    let status = host.status();
    assert_eq!(status.actors.len(), 1, "{status:?}");
    assert!(status.problems.iter().any(|problem| problem.contains("too dry")), "{status:?}");
}

#[test]
fn applications_come_and_go_with_their_manifests() {
    let sandbox = sandbox();
    std::fs::create_dir(sandbox.path("manifests")).expect("a fresh folder");
    let (one, two) = (free_address(), free_address());
    let application = |name: &str, guest: &str, address| {
        let mut manifest = Manifest::new(name);
        manifest.actor(guest, &guests::module_path(guest), 1).http(address);
        sandbox.write(&format!("manifests/{name}.yaml"), manifest.text());
    };
    application("one", "echo", one);
    sandbox.write("manifests/notes.txt", "no manifest");
    sandbox.write("manifests/broken.yaml", "kind: [");
    let folder = sandbox.path("manifests");
    let mut host = sandbox.run(&folder, &[("WASMCLOUD_JOIN", "never")]);
    eventually("the first application answers", || get(one, "/").is_ok_and(|(status, _)| status == 200));
    assert!(host.output().contains("broken.yaml is left as it was"), "{}", host.output());

    std::fs::remove_file(sandbox.path("manifests/broken.yaml")).expect("it is there");
    std::fs::remove_file(sandbox.path("manifests/one.yaml")).expect("it is there");
    application("two", "counter", two);
    host.signal(rustix::process::Signal::HUP);
    host.wait_for("the application one is removed, because its manifest is gone");
    eventually("the second listens", || TcpStream::connect(two).is_ok());
    eventually("the first has gone", || TcpStream::connect(one).is_err());
    host.kill();

    // What was there at the end is there after a start, and what went stays away.
    let host = sandbox.run(&folder, &[("WASMCLOUD_JOIN", "never")]);
    eventually("the second listens again", || TcpStream::connect(two).is_ok());
    assert!(TcpStream::connect(one).is_err());
    assert_eq!(host.status().actors.len(), 1);
}

/// A folder of manifests, one of the application `name` each, with one actor behind HTTP.
fn application(sandbox: &Sandbox, name: &str, guest: &str, reference: &str, address: std::net::SocketAddr) {
    let mut manifest = Manifest::new(name);
    manifest.actor_from(guest, reference, 1).http(address);
    std::fs::create_dir_all(sandbox.path("manifests")).expect("a folder of this test");
    sandbox.write(&format!("manifests/{name}.yaml"), manifest.text());
}

fn of_file(guest: &str) -> String {
    format!("file://{}", guests::module_path(guest).display())
}

/// What `/readyz` says is lacking: status, and each lack as `WHAT: WHY`.
fn lacks(probes: &Path) -> (u16, Vec<String>) {
    let (status, body) = probe(probes, "/readyz");
    let lacks = body["lacks"].as_array().cloned().unwrap_or_default();
    let text = |lack: &Value| format!("{}: {}", lack["what"].as_str().unwrap(), lack["why"].as_str().unwrap());
    (status, lacks.iter().map(text).collect())
}

fn serves(address: std::net::SocketAddr) -> bool {
    get(address, "/").is_ok_and(|(status, _)| status == 200)
}

/// Whoever opens connections to the probes and says nothing does not keep a prober out.
#[test]
fn silent_connections_do_not_shut_out_a_probe() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let probes = sandbox.path("probes");
    let settings = [("WASMCLOUD_JOIN", "never"), ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8"))];
    let _host = sandbox.run_again(&settings);
    eventually("probes are answered", || UnixStream::connect(&probes).is_ok());
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.extend((0..40).map(|_| UnixStream::connect(&probes).expect("probes are answered")));
        assert_eq!(probe(&probes, "/livez").0, 200);
    }
}

#[test]
fn a_first_start_over_a_slow_link_is_no_dead_one() {
    let (sandbox, registry) = (sandbox(), Registry::open());
    let module = std::fs::read(guests::module_path("counter")).expect("it is built");
    registry.push("counter", "1", MODULE, &module);
    let link = Mischief::before(registry.address());
    // Two minutes for all of it.
    link.slow(module.len() as u64 / 120, Duration::from_secs(3600));
    let (manager, socket) = ServiceManager::listen(&sandbox);
    let (probes, near, far) = (sandbox.path("probes.sock"), free_address(), free_address());
    application(&sandbox, "near", "echo", &of_file("echo"), near);
    application(&sandbox, "far", "counter", &format!("{}/counter:1", link.address()), far);
    let folder = sandbox.path("manifests");
    let name = link.address().to_string();
    let settings = [
        ("NOTIFY_SOCKET", &*socket),
        ("WATCHDOG_USEC", "4000000"),
        ("WASMCLOUD_JOIN", "never"),
        ("WASMCLOUD_OCI_ALLOWED_INSECURE", &*name),
        ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8")),
    ];
    let host = sandbox.run(&folder, &settings);
    eventually("what needs no link is served meanwhile", || serves(near));
    manager.hear("STATUS=starting: manifest far.yaml: ", &host);
    assert_eq!(lacks(&probes), (500, vec!["manifest far.yaml: what it names is being fetched".to_owned()]));
    assert_eq!(probe(&probes, "/livez").0, 200);
    eventually("bytes arrive", || host.status().downloads.first().is_some_and(|download| download.received > 0));
    // One at the start, one at the first look, and one because bytes have come since.
    for _ in 0..2 {
        let heard = manager.hear("EXTEND_TIMEOUT_USEC=", &host).concat();
        assert!(!heard.contains("READY=1"), "{heard}");
    }
    manager.hear("WATCHDOG=1\n", &host);
    let asked = Instant::now();
    let (status, output) = host.terminate();
    assert!(status.success(), "{output}");
    assert!(asked.elapsed() < PATIENCE / 2, "nobody waits for the download");

    link.slow(u64::MAX, Duration::from_secs(3600));
    let host = sandbox.run(&folder, &settings);
    manager.hear("READY=1", &host);
    assert!(serves(near) && TcpStream::connect(far).is_ok());
}

#[test]
fn what_a_manifest_names_is_asked_for_again_until_its_source_is_back() {
    let (sandbox, mut registry) = (sandbox(), Registry::open());
    registry.push("echo", "1", MODULE, &std::fs::read(guests::module_path("echo")).expect("it is built"));
    registry.stop();
    let (manager, socket) = ServiceManager::listen(&sandbox);
    let (probes, address) = (sandbox.path("probes.sock"), free_address());
    application(&sandbox, "far", "echo", &format!("{}/echo:1", registry.name()), address);
    let file = sandbox.path("manifests/far.yaml");
    let name = registry.name();
    // A single manifest, too: a board that was given one waits for its source and does not end.
    let mut host = sandbox.run(
        &file,
        &[
            ("NOTIFY_SOCKET", &*socket),
            ("WASMCLOUD_JOIN", "never"),
            ("WASMCLOUD_ARTIFACT_ATTEMPTS", "1"),
            ("WASMCLOUD_OCI_ALLOWED_INSECURE", &*name),
            ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8")),
        ],
    );
    host.wait_for("far.yaml is left as it was");
    host.wait_for("next attempt in 2 s");
    eventually("it says what is away", || {
        let (status, lacking) = lacks(&probes);
        status == 500 && lacking.iter().any(|one| one.starts_with("manifest far.yaml: ") && one.contains(&name))
    });
    eventually("status does too", || host.status().problems.iter().any(|problem| problem.contains("far.yaml")));
    registry.resume();
    let heard = manager.hear("READY=1", &host).concat();
    assert_eq!(heard.matches("READY=1").count(), 1, "{heard}");
    assert!(serves(address));
    assert_eq!(lacks(&probes), (200, Vec::new()));
}

#[test]
fn a_start_that_gets_no_further_goes_on_with_what_it_has() {
    let sandbox = sandbox();
    let (manager, socket) = ServiceManager::listen(&sandbox);
    let (probes, address) = (sandbox.path("probes.sock"), free_address());
    application(&sandbox, "app", "echo", &of_file("echo"), address);
    let broken = sandbox.write("manifests/broken.yaml", "kind: [");
    let nowhere = free_address().port().to_string();
    let host = sandbox.run(
        &sandbox.path("manifests"),
        &[
            ("NOTIFY_SOCKET", &*socket),
            // It looks for a lattice that it does not wait for, as a host without any setting does.
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*nowhere),
            ("WASMCLOUD_READINESS", "local"),
            ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8")),
        ],
    );
    manager.hear("STATUS=starting: manifest broken.yaml: ", &host);
    eventually("the other one is served", || serves(address));
    // It waits a minute for something to happen.
    manager.hear_within(3 * PATIENCE, "READY=1", &host);
    manager.hear("degraded: manifest broken.yaml: ", &host);
    assert_eq!(lacks(&probes).0, 500, "it still says what is wrong");
    std::fs::remove_file(broken).expect("it is there");
    host.signal(rustix::process::Signal::HUP);
    eventually("nothing is wrong any more", || lacks(&probes).0 == 200);
}

#[test]
fn a_reload_takes_logins_and_lists_of_registries_and_a_bad_one_changes_nothing() {
    let (sandbox, registry) = (sandbox(), Registry::with_account());
    let module = std::fs::read(guests::module_path("echo")).expect("it is built");
    for tag in ["1", "2"] {
        registry.push("team/echo", tag, MODULE, &module);
    }
    let (probes, address) = (sandbox.path("probes.sock"), free_address());
    let tagged = |tag: &str| format!("{}/team/echo:{tag}", registry.name());
    application(&sandbox, "app", "echo", &tagged("1"), address);
    let logins = sandbox.path("logins.json");
    let login = |password: &str| {
        let text =
            format!(r#"{{"auths": {{"{}": {{"username": "{USER}", "password": "{password}"}}}}}}"#, registry.name());
        std::fs::write(&logins, text).expect("a file of this test");
        std::fs::set_permissions(&logins, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("our file");
    };
    login("wrong-7");
    let write = |more: &str| {
        let text = format!("WASMCLOUD_OCI_AUTH_FILE={}\nHOST_SITE=one\n{more}", logins.display());
        sandbox.write("settings.env", text)
    };
    let insecure = format!("WASMCLOUD_OCI_ALLOWED_INSECURE={}\n", registry.name());
    let settings = write("");
    let folder = sandbox.path("manifests");
    let mut host = sandbox.run_with(
        &["run", "--env-file", settings.to_str().expect("UTF-8"), folder.to_str().expect("UTF-8")],
        &[
            ("WASMCLOUD_JOIN", "never"),
            ("WASMCLOUD_ARTIFACT_ATTEMPTS", "1"),
            ("WASMCLOUD_PROBES", probes.to_str().expect("UTF-8")),
        ],
    );
    host.wait_for("app.yaml is left as it was");
    assert!(!host.output().contains("401"), "TLS is not spoken there: {}", host.output());
    let reload = |host: &mut Host, said: &str| {
        let before = host.output().len();
        host.signal(rustix::process::Signal::HUP);
        eventually(said, || host.output()[before..].contains(said));
    };

    write(&insecure);
    reload(&mut host, "answered 401");
    login(PASSWORD);
    reload(&mut host, "reloaded; now in effect: logins for registries");
    eventually("it runs with the login", || serves(address) && lacks(&probes).0 == 200);

    // Nothing of a reload counts when a part of it cannot be had.
    std::fs::write(&logins, "no logins").expect("a file of this test");
    write(&format!("{insecure}HOST_FLOOR=3\n"));
    reload(&mut host, "nothing was reloaded: ");
    assert!(!host.status().labels.contains_key("floor"), "{:?}", host.status().labels);

    // A login that is taken away is gone at once.
    std::fs::write(&logins, r#"{"auths": {}}"#).expect("a file of this test");
    application(&sandbox, "app", "echo", &tagged("2"), address);
    reload(&mut host, "without a login");
    assert!(serves(address), "what ran goes on");
    assert!(!host.output().contains(PASSWORD) && !host.output().contains("wrong-7"));
}

#[test]
fn ports_that_are_taken_keep_no_host_from_running() {
    let sandbox = sandbox();
    let (probes, mirror) = (std::net::TcpListener::bind("127.0.0.1:0"), std::net::TcpListener::bind("127.0.0.1:0"));
    let (probes, mirror) = (probes.expect("a free port"), mirror.expect("a free port"));
    let [at, mirror_at] = [&probes, &mirror].map(|socket| socket.local_addr().expect("a bound socket"));
    let (http, [at_text, mirror_text]) = (free_address(), [at, mirror_at].map(|address| address.to_string()));
    let mut host = sandbox.run(
        &echo(&sandbox, http),
        &[("WASMCLOUD_JOIN", "never"), ("WASMCLOUD_PROBES", &*at_text), ("WASMCLOUD_MIRROR_LISTEN", &*mirror_text)],
    );
    for setting in ["WASMCLOUD_PROBES", "WASMCLOUD_MIRROR_LISTEN"] {
        host.wait_for(&format!("{setting}: cannot listen on"));
    }
    eventually("it runs all the same", || serves(http));
    drop((probes, mirror));
    eventually("probes are answered", || get(at, "/readyz").is_ok_and(|(status, _)| status == 200));
    host.wait_for(&format!("the mirror serves this board's artifacts on http://{mirror_at}"));
}
