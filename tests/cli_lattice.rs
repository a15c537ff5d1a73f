//! The commands that look into a lattice: `call --lattice` and `events`, against a real server and a real host.

mod support;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use latticed::claims::{KeyPair, Role};
use support::{guests, host::Sandbox};

/// What a test waits for comes far sooner; only a hang reaches this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that ends with the test, and writes each protocol line into `nats.log`.
struct NatsServer(Child);

impl Drop for NatsServer {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works");
    listener.local_addr().expect("it is bound").port()
}

fn server(sandbox: &Sandbox) -> (NatsServer, u16) {
    let port = free_port();
    let path = |name: &str| sandbox.path(name).display().to_string();
    let configuration = format!(
        "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{}\" }}\ntrace: true\nlog_file: \"{}\"\n",
        path("js"),
        path("nats.log")
    );
    let child = Command::new("nats-server")
        .arg("--config")
        .arg(sandbox.write("nats.conf", configuration))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed");
    let server = NatsServer(child);
    wait_for(sandbox, "Server is ready");
    (server, port)
}

/// Waits until the server's log has `text`.
fn wait_for(sandbox: &Sandbox, text: &str) {
    let end = Instant::now() + PATIENCE;
    while !fs::read_to_string(sandbox.path("nats.log")).is_ok_and(|log| log.contains(text)) {
        assert!(Instant::now() < end, "the server never logged {text}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn manifest() -> String {
    format!(
        "apiVersion: core.oam.dev/v1beta1\nkind: Application\nmetadata: {{name: test, annotations: {{version: v1}}}}\n\
         spec:\n  components:\n    - {{name: echo, type: actor, properties: {{image: 'file://{}'}}}}\n",
        guests::module_path("echo").display()
    )
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const REQUEST: &str = r#"{"method":"GET","path":"/raw","queryString":"","header":{},"body":{"$bin":"aGVsbG8="}}"#;

#[test]
fn events_are_waited_for_and_actors_are_called_over_nats() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let (_server, port) = server(&sandbox);
    let (url, seed) = (
        format!("127.0.0.1:{port}"),
        KeyPair::generate(Role::Cluster).expect("random numbers").seed().expose().to_owned(),
    );
    let settings = [("NATS_HOST", url.as_str()), ("WASMCLOUD_CLUSTER_SEED", seed.as_str())];
    let latticed =
        |arguments: &[&str]| sandbox.command(arguments).envs(settings).output().expect("the program can be started");
    let call = ["call", "--lattice", &guests::key("echo"), "HttpServer.HandleRequest", REQUEST, "--timeout", "30"];

    // Nobody runs it yet.
    let nobody = latticed(&call);
    assert_eq!(nobody.status.code(), Some(10), "{nobody:?}");
    assert!(error_of(&nobody).contains("no host of lattice default runs actor"), "{nobody:?}");

    let until = sandbox
        .command(&["events", "--until", "host_started", "--timeout", "60", "--json"])
        .envs(settings)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    wait_for(&sandbox, "SUB wasmbus.evt.default.*");
    let mut host = sandbox.run(&sandbox.write("test.yaml", manifest()), &settings);
    host.wait_for("listening for commands");
    let until = until.wait_with_output().expect("it ends");
    assert!(until.status.success(), "{until:?}");
    let shown = String::from_utf8(until.stdout).expect("UTF-8");
    assert!(shown.lines().last().is_some_and(|last| last.contains("host_started")), "{shown}");
    assert!(shown.contains(&host.status().host_id), "{shown}");

    // The actor may come up after the host.
    let end = Instant::now() + PATIENCE;
    let answer = loop {
        let answer = latticed(&call);
        if answer.status.code() != Some(10) || Instant::now() > end {
            break answer;
        }
    };
    assert!(answer.status.success(), "{answer:?}");
    assert_eq!(error_of(&answer), "", "nothing but the answer");
    let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!((&answer["statusCode"], &answer["body"]), (&200.into(), &"hello".into()), "{answer}");

    // By its call alias too, once the host knows its claims; and an alias nobody has is said to be one.
    let answer = latticed(&["call", "--lattice", "test/echo", "HttpServer.HandleRequest", REQUEST, "--timeout", "30"]);
    assert!(answer.status.success(), "{answer:?}");
    let answer = latticed(&["call", "--lattice", "echo", "HttpServer.HandleRequest", REQUEST, "--timeout", "30"]);
    assert!(answer.status.success(), "by its name: {answer:?}");
    let stranger = KeyPair::generate(Role::Cluster).expect("random numbers").seed().expose().to_owned();
    let refused = sandbox.command(&call).envs(settings).env("WASMCLOUD_CLUSTER_SEED", stranger).output();
    let refused = refused.expect("the program can be started");
    assert_eq!(refused.status.code(), Some(7), "{refused:?}");
    assert!(error_of(&refused).starts_with("latticed: Anti-forgery check failed"), "{refused:?}");
    let unknown = latticed(&["call", "--lattice", "test/nobody", "A.B", "--timeout", "30"]);
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
    assert!(error_of(&unknown).contains("test/nobody"), "{unknown:?}");

    let silent = latticed(&["events", "--until", "no_such_event", "--timeout", "0.5"]);
    assert_eq!(silent.status.code(), Some(9), "{silent:?}");
    let ended = latticed(&["events", "--type", "no_such_event", "--timeout", "0.5"]);
    assert!(ended.status.success(), "{ended:?}");
    let head = String::from_utf8(ended.stdout).expect("UTF-8");
    assert!(head.starts_with("TIME") && head.trim_end().ends_with("ABOUT") && head.lines().count() == 1, "{head}");
}

#[test]
fn a_call_without_a_seed_says_what_is_missing() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let unsigned = sandbox.command(&["call", "--lattice", &guests::key("echo"), "A.B"]).output().expect("it starts");
    assert!(!unsigned.status.success() && error_of(&unsigned).contains("WASMCLOUD_CLUSTER_SEED"), "{unsigned:?}");
}

#[test]
fn a_missing_server_is_an_error_however_short_the_time() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let url = format!("127.0.0.1:{}", free_port());
    let answer = sandbox.command(&["events", "--timeout", "0.1"]).env("NATS_HOST", url).output().expect("it starts");
    assert_eq!(answer.status.code(), Some(10), "{answer:?}");
}
