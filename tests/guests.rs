//! The well-behaved guests in the real program: what an actor built on the public SDK asks of a host, it gets.

use std::net::SocketAddr;

mod support;
use support::{
    guests,
    host::{Host, Sandbox},
    http,
    manifest::Manifest,
};

/// A host with every guest of `tests/actors`, and where the three that speak HTTP to the outside are.
struct All {
    host: Host,
    caller: SocketAddr,
    echo: SocketAddr,
    fetch: SocketAddr,
    lottery: SocketAddr,
    // Last, so that the folder outlives the host in it.
    _sandbox: Sandbox,
}

fn all() -> All {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let [caller, echo, fetch, lottery] = std::array::from_fn(|_| http::free_address());
    let mut manifest = Manifest::new("guests");
    manifest.capability("httpclient", "wasmcloud:httpclient");
    // As many places as calls may nest: an actor that is called again while it waits needs one more each time.
    manifest.actor("callee", &guests::module_path("callee"), 8);
    manifest.actor("caller", &guests::module_path("caller"), 8).http(caller);
    manifest.actor("echo", &guests::module_path("echo"), 1).http(echo);
    let allowed = [("allowed_hosts", "127.0.0.1")];
    manifest.actor("fetch", &guests::module_path("fetch"), 1).http(fetch).link("httpclient", &allowed);
    manifest.actor("lottery", &guests::module_path("lottery"), 1).http(lottery);
    let manifest = sandbox.write("guests.yaml", manifest.text());
    let mut host = sandbox.run(&manifest, &[("WASMCLOUD_LOG_LEVEL", "debug")]);
    for address in [caller, echo, fetch, lottery] {
        host.wait_for(&format!("http://{address}"));
    }
    All { host, caller, echo, fetch, lottery, _sandbox: sandbox }
}

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    http::get(address, path).expect("the guest answers")
}

#[test]
fn guests_of_the_public_sdk_get_what_they_ask_for() {
    let All { mut host, caller, echo, fetch, lottery, _sandbox } = all();

    // An actor calls another by call alias, by key, and back again.
    assert_eq!(get(caller, "/Ada"), (200, "Hello Ada, says caller".into()));
    assert_eq!(get(caller, "/Ada?via=test/callee"), (200, "Hello Ada, says callee to caller".into()));
    let by_key = format!("/Ada?via={}", guests::key("callee"));
    assert_eq!(get(caller, &by_key), (200, "Hello Ada, says callee to caller".into()));
    let (status, body) = get(caller, "/Ada?via=test/callee,test/caller,test/callee");
    assert_eq!((status, body.as_str()), (200, "Hello Ada, says callee to caller to callee to caller"));

    // Nobody calls deeper than the limit, and nobody calls who is not there; the guest reads why.
    let (status, body) = get(caller, &format!("/Ada?via={}", ["test/callee"; 20].join(",")));
    assert_eq!(status, 500, "{body}");
    let (status, body) = get(caller, "/Ada?via=test/nobody");
    assert_eq!(status, 500, "{body}");

    // An actor fetches a page; what the link does not allow is refused.
    let (status, body) = get(fetch, &format!("/?http://{echo}/page"));
    assert!(status == 200 && body.contains(r#""path":"/page""#), "{status} {body}");
    let (status, body) = get(fetch, &format!("/?http://localhost:{}/page", echo.port()));
    assert!(status == 502 && body.contains("localhost"), "{status} {body}");

    // An actor draws numbers and logs them.
    let mut salts = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let (status, body) = get(lottery, "/cheat");
        assert_eq!(status, 200, "{body}");
        let draw: serde_json::Value = serde_json::from_str(&body).expect("the guest answers JSON");
        let name = draw["draw"].as_str().expect("a draw has a name").to_string();
        assert!(name.len() == 36 && name.as_bytes()[14] == b'4', "{name} is no UUID of version 4");
        assert!((1..=6).contains(&draw["number"].as_u64().expect("a draw has a number")), "{body}");
        salts.insert(draw["salt"].as_u64().expect("a draw has a salt"));
        for text in ["was tampered with", "asked for by /cheat", "gives"] {
            host.wait_for(&format!("draw {name} {text}"));
        }
    }
    assert_eq!(salts.len(), 3, "random numbers repeat: {salts:?}");

    let (status, output) = host.terminate();
    assert!(status.success(), "{status}: {output}");
    assert!(!output.contains("panicked"), "{output}");
}
