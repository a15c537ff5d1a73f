//! The first thing a newcomer does: run the quickstart, count, pull the plug, run it again.

use std::{fs, net::SocketAddr};

mod support;
use support::{
    guests,
    host::{Host, Sandbox},
    http,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/quickstart");

/// The committed manifest `name` with `address` in place of `committed`, so that tests can run beside each other.
fn manifest(sandbox: &Sandbox, name: &str, committed: &str, address: SocketAddr) -> std::path::PathBuf {
    let text = fs::read_to_string(format!("{FOLDER}/{name}")).expect("the quickstart is there");
    assert_eq!(text.matches(committed).count(), 2, "the address stands in the manifest and its comment, nowhere else");
    let text = text.replace(committed, &address.to_string());
    let text = text.replace("file://../actors/", &format!("file://{}/", guests::sources().display()));
    sandbox.write(name, text)
}

fn run(sandbox: &Sandbox, manifest: &std::path::Path, address: SocketAddr) -> Host {
    let mut host = sandbox.run(manifest, &[]);
    host.wait_for(&format!("http://{address}"));
    host
}

fn count(address: SocketAddr) -> String {
    let (status, body) = http::get(address, "/").expect("the counter answers");
    assert_eq!(status, 200, "{body}");
    body
}

/// Promise: a committed change survives a power cut.
#[test]
fn the_counter_counts_on_after_kill_9() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let address = http::free_address();
    let manifest = manifest(&sandbox, "counter.yaml", "127.0.0.1:8080", address);

    let host = run(&sandbox, &manifest, address);
    assert_eq!(count(address), r#"{"counter":1}"#);
    assert_eq!(count(address), r#"{"counter":2}"#);
    host.kill();

    let host = run(&sandbox, &manifest, address);
    assert_eq!(count(address), r#"{"counter":3}"#);
    let (status, output) = host.terminate();
    assert!(status.success(), "{status}: {output}");
    assert!(!output.contains("panicked"), "{output}");
}

/// A line of the log as README shows it: keys and paths cut short, the name of the board `pump-3`, the port 8080.
fn shortened(line: &str, name: &str, address: SocketAddr) -> String {
    let line = line.split_once(' ').map_or("", |(_, rest)| rest).replace(&address.to_string(), "127.0.0.1:8080");
    let words = line.split(' ').map(|word| {
        let (field, value) = word.split_once('=').unwrap_or(("", word));
        let short = match field {
            "host_id" | "actor_id" | "provider_id" => {
                let (key, rest) = value.split_once('(').expect("a key with its name");
                format!("{}…({rest}", &key[..1])
            }
            "image_ref" => format!("file:///…/{}", value.rsplit('/').next().unwrap_or_default()),
            _ => return word.to_owned(),
        };
        format!("{field}={short}")
    });
    words.collect::<Vec<_>>().join(" ").replace(name, "pump-3")
}

#[test]
fn the_first_session_is_what_the_readme_shows() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("it is there");
    let session = readme.split("```").nth(1).expect("a session");
    let shown: Vec<&str> = session.lines().filter_map(|line| Some(line.split_once(" [info]")?.1)).collect();
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let address = http::free_address();
    let manifest = manifest(&sandbox, "counter.yaml", "127.0.0.1:8080", address);
    let mut host = sandbox.run(&manifest, &[("WASMCLOUD_HOST_NAME", "test-board-77")]);
    host.wait_for(&format!("listening on http://{address}"));
    host.wait_for("contract_id=wasmcloud:httpserver link_name=default\n");
    let seen = || -> Vec<String> {
        let lines = host.output().lines().map(|line| shortened(line, "test-board-77", address)).collect::<Vec<_>>();
        lines.iter().filter_map(|line| Some(line.strip_prefix("[info]")?.to_owned())).collect()
    };
    support::nats::eventually("the last link is set", || seen().len() >= shown.len());
    assert_eq!(seen(), shown);
}

#[test]
fn the_echo_answers_with_what_was_asked() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let address = http::free_address();
    let manifest = manifest(&sandbox, "echo.yaml", "127.0.0.1:8081", address);
    let host = run(&sandbox, &manifest, address);
    let (status, body) = http::post_like(address, "POST", "/any/path?a=1", b"hello").expect("the echo answers");
    assert_eq!(
        (status, body.as_str()),
        (200, r#"{"body":"hello","method":"POST","path":"/any/path","query_string":"a=1"}"#)
    );
    let raw: Vec<u8> = (0..=255).collect();
    let mut connection = http::Connection::open(address).expect("the echo listens");
    let (status, body) = connection.exchange(&http::request("POST", "/raw", &raw)).expect("the echo answers");
    assert_eq!((status, body), (200, raw.as_slice()));
    drop(host);
}
