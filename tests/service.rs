//! The program as a service manager and a prober see it: notifications on a real socket, probes, health, reload.

mod support;

use std::{
    io::{Read, Write},
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
    nats::{NatsServer, PATIENCE, eventually},
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
        let end = Instant::now() + PATIENCE;
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
    assert_eq!((status, &body["ready"], &body["lacks"][0]["what"]), (503, &false.into(), &"lattice".into()), "{body}");
    assert!(body["lacks"][0]["since_seconds"].is_u64(), "{body}");
    assert_eq!(probe(&probes, "/livez"), (200, serde_json::json!({ "live": true })));
    assert_eq!(probe(&probes, "/other").0, 404);

    server.resume();
    manager.hear("READY=1", &host);
    // What the lattice's bucket brings is being followed for a moment.
    eventually("it says so itself", || probe(&probes, "/api/readyz") == (200, serde_json::json!({ "ready": true })));
    manager.hear(&format!("STATUS=connected to nats://127.0.0.1:{port}"), &host);

    server.kill();
    eventually("the loss is told", || probe(&probes, "/readyz").0 == 503);
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
    let (status, body) = probe(&probes, "/readyz");
    let key = guests::key("ill");
    assert_eq!((status, body["lacks"][0]["what"].as_str()), (503, Some(&*format!("actor {key}"))), "{body}");
    assert!(body["lacks"][0]["why"].as_str().is_some_and(|why| why.contains("too dry")), "{body}");
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
    host.wait_for("the application one goes, as its manifest did");
    eventually("the second listens", || std::net::TcpStream::connect(two).is_ok());
    eventually("the first has gone", || std::net::TcpStream::connect(one).is_err());
    host.kill();

    // What was there at the end is there after a start, and what went stays away.
    let host = sandbox.run(&folder, &[("WASMCLOUD_JOIN", "never")]);
    eventually("the second listens again", || std::net::TcpStream::connect(two).is_ok());
    assert!(std::net::TcpStream::connect(one).is_err());
    assert_eq!(host.status().actors.len(), 1);
}
