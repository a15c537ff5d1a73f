//! The way into a lattice as settings give it: TLS with a private authority, a client certificate, user and password.

mod support;

use std::{
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use support::{certificates::Authority, host::Sandbox};

/// What a test waits for comes far sooner; only a hang reaches this.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that ends with the test.
struct NatsServer(Child);

impl Drop for NatsServer {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The smallest application there is: the host is what is looked at.
const SMALL: &str = "apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {name: small, annotations: {version: v1}}
spec:
  components:
    - {name: keyvalue, type: capability, properties: {image: 'builtin:keyvalue', contract: 'wasmcloud:keyvalue'}}
";

/// Writes `ca.pem`, and a certificate with its key for the server and for its client.
fn certificates(sandbox: &Sandbox) {
    let authority = Authority::new("test authority");
    let ca = sandbox.write("ca.pem", authority.pem());
    for name in ["server", "client"] {
        authority.issue(ca.parent().expect("it is in a folder"), name);
    }
}

/// A server that wants a client certificate, and the user `board`.
fn server(sandbox: &Sandbox) -> (NatsServer, u16) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .expect("loopback works")
        .port();
    let path = |name: &str| sandbox.path(name).display().to_string();
    let configuration = format!(
        "listen: 127.0.0.1:{port}
jetstream {{ store_dir: \"{}\" }}
tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}
authorization {{ user: board, password: swordfish }}
",
        path("js"),
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let configuration = sandbox.write("nats.conf", configuration);
    let child = Command::new("nats-server")
        .arg("--config")
        .arg(configuration)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed");
    (NatsServer(child), port)
}

/// Waits until `latticed hosts` with these settings names `host_id`.
fn found(sandbox: &Sandbox, settings: &[(&str, &str)], host_id: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer =
            sandbox.command(&["hosts"]).envs(settings.iter().copied()).output().expect("the program can be started");
        let text = String::from_utf8_lossy(&answer.stdout);
        if answer.status.success() && text.contains(host_id) {
            return;
        }
        assert!(Instant::now() < end, "no host: {text}{}", String::from_utf8_lossy(&answer.stderr));
    }
}

#[test]
fn private_authority_client_certificate_and_password_lead_in() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    certificates(&sandbox);
    let (_server, port) = server(&sandbox);
    let manifest = sandbox.write("small.yaml", SMALL);
    let path = |name: &str| sandbox.path(name).display().to_string();
    let (url, ca, certificate, key) =
        (format!("tls://127.0.0.1:{port}"), path("ca.pem"), path("client.pem"), path("client.key"));
    let way_in = [
        ("NATS_HOST", url.as_str()),
        ("WASMCLOUD_NATS_TLS_CA_FILE", ca.as_str()),
        ("WASMCLOUD_NATS_TLS_CERT_FILE", certificate.as_str()),
        ("WASMCLOUD_NATS_TLS_KEY_FILE", key.as_str()),
        ("WASMCLOUD_NATS_USER", "board"),
        ("WASMCLOUD_NATS_PASSWORD", "swordfish"),
        ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "200"),
        ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "1000"),
    ];
    let mut host = sandbox.run(&manifest, &way_in);
    host.wait_for("connected to NATS");
    found(&sandbox, &way_in, &host.status().host_id);
    let uplink = host.status().uplink.expect("it has a place in a lattice");
    assert!(uplink.connected && uplink.reason.is_empty(), "{uplink:?}");
    let (status, output) = host.terminate();
    assert!(status.success(), "{status}: {output}");
    assert!(!output.contains("swordfish"), "the password is in the log: {output}");

    // Without the authority nobody is trusted, and the host says so and goes on.
    let strangers: Vec<_> = way_in.iter().copied().filter(|(name, _)| !name.ends_with("CA_FILE")).collect();
    let mut host = sandbox.run(&manifest, &strangers);
    host.wait_for("cannot connect to NATS");
    let standing = host.status();
    assert!(standing.problems.is_empty(), "a missing server is no problem of what runs here");
    let uplink = standing.uplink.expect("it wants a place in a lattice");
    assert!(!uplink.connected && !uplink.reason.is_empty() && uplink.waiting_events > 0, "{uplink:?}");
    let (status, output) = host.terminate();
    assert!(status.success() && !output.contains("connected to NATS for"), "{status}: {output}");
}
