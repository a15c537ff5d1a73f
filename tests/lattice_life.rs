//! The life of a host in its lattice as its operator sees it: the real program with the settings of a newcomer, or after a
//! power cut at a bad moment.

mod support;

use std::{
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use support::{
    guests,
    host::Sandbox,
    http::{free_address, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    nats::{NatsServer, PATIENCE, eventually},
};

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_latticed"))
}

/// Runs the test `name` of this program again in a network of its own, where the ports everybody knows are free, and says
/// whether this is that run.
fn in_a_network_of_its_own(name: &str) -> bool {
    const INSIDE: &str = "LATTICED_TEST_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test has a path");
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
    let output = Command::new("unshare")
        .arg("--net")
        .args(user)
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "yes")
        .stdin(Stdio::null())
        .output()
        .expect("unshare is installed (Debian: util-linux)");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "in a network of its own (unshare, ip): {text}");
    false
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
    board.wait_for("no NATS server to be had");
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
