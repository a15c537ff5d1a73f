//! A board behind a leaf: hub and leaf NATS servers with accounts, TLS and JetStream domains of their own; the board knows
//! the leaf alone and is managed from the hub, through everything that can happen to the servers, the links and the
//! certificates. And the plainest server there is: without JetStream.

mod support;

use std::{collections::HashMap, net::SocketAddr, path::Path, time::Duration};

use async_nats_031::{Client, ConnectOptions};
use futures_util::StreamExt;
use latticed::{
    claims::builtin_provider_key,
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use serde_json::{Value, json};
use support::{
    calls::Caller,
    certificates::Authority,
    door::Door,
    guests,
    host::{Host, Sandbox},
    http::{free_address, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on, eventually},
};

type Control = ctl_client_030::Client<ctl_client_030::kv::DirectKvStore>;

/// How long one request of the control client waits: what is asked while a link comes back is asked again.
const ASK: Duration = Duration::from_secs(3);

/// Requests to local actors per second while the lattice is shaken.
const LOCAL_PER_SECOND: u32 = 50;

/// Both servers, the certificates, and the links between them and the board.
struct Site {
    pki: Sandbox,
    hub: NatsServer,
    leaf: NatsServer,
    /// Between leaf and hub.
    trunk: Door,
    /// Between board and leaf.
    radio: Door,
}

impl Site {
    fn start() -> Self {
        let pki = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let folder = pki.path("");
        let authority = Authority::new("first authority");
        pki.write("ca.pem", authority.pem());
        // The board has a copy of its own: an operator exchanges it there.
        pki.write("board-ca.pem", authority.pem());
        for name in ["hub", "leaf"] {
            authority.issue(&folder, name);
        }
        let leaf_port = free_address().port();
        let mut hub = NatsServer::described(|port, store| hub(port, leaf_port, store, &folder));
        hub.resume();
        let trunk = Door::to(leaf_port);
        let mut leaf = NatsServer::described(|port, store| leaf(port, trunk.port(), store, &folder));
        leaf.resume();
        let radio = Door::to(leaf.port());
        Self { pki, hub, leaf, trunk, radio }
    }

    fn ca(&self, name: &str) -> String {
        self.pki.path(name).display().to_string()
    }

    async fn connect(&self, port: u16, user: &str) -> Client {
        ConnectOptions::with_user_and_password(user.to_owned(), "swordfish".to_owned())
            .add_root_certificates(self.pki.path("ca.pem"))
            .require_tls(true)
            .request_timeout(Some(ASK))
            .connection_timeout(PATIENCE)
            .connect(format!("tls://127.0.0.1:{port}"))
            .await
            .expect("the server lets it in")
    }
}

/// Both servers find out within seconds that the other side is silent.
const PROBES: &str = "ping_interval: \"1s\", ping_max: 2\n";

fn tls(folder: &Path, name: &str) -> String {
    let path = |file: String| folder.join(file).display().to_string();
    format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", path(format!("{name}.pem")), path(format!("{name}.key")))
}

fn hub(port: u16, leaf_port: u16, store: &Path, folder: &Path) -> String {
    format!(
        "server_name: hub, listen: \"127.0.0.1:{port}\"\n{PROBES}{tls}
jetstream {{ store_dir: \"{store}\", domain: hub }}
accounts {{
  FLEET {{ jetstream: enabled, users: [ {{user: operator, password: swordfish}}, {{user: leaf, password: swordfish}} ] }}
  OTHER {{ jetstream: enabled, users: [ {{user: stranger, password: swordfish}} ] }}
  SYS {{ users: [ {{user: sys, password: swordfish}} ] }}
}}
system_account: SYS
leafnodes {{ listen: \"127.0.0.1:{leaf_port}\", {tls} }}
",
        store = store.display(),
        tls = tls(folder, "hub")
    )
}

fn leaf(port: u16, trunk: u16, store: &Path, folder: &Path) -> String {
    format!(
        "server_name: leaf, listen: \"127.0.0.1:{port}\"\n{PROBES}{tls}
jetstream {{ store_dir: \"{store}\", domain: leaf }}
accounts {{
  BOARDS {{ jetstream: enabled, users: [ {{user: board, password: swordfish}} ] }}
  SYS {{ users: [ {{user: sys, password: swordfish}} ] }}
}}
system_account: SYS
leafnodes {{
  reconnect: 1
  remotes [ {{ url: \"tls://leaf:swordfish@127.0.0.1:{trunk}\", account: BOARDS, tls {{ ca_file: \"{ca}\" }} }} ]
}}
",
        store = store.display(),
        tls = tls(folder, "leaf"),
        ca = folder.join("ca.pem").display()
    )
}

/// Asks until it is accepted: while a link comes back a request may find nobody.
macro_rules! accepted {
    ($what:expr, $ask:expr) => {{
        let start = std::time::Instant::now();
        loop {
            match $ask.await {
                Ok(ack) if ack.accepted => break,
                other => assert!(start.elapsed() < PATIENCE, "{}: {other:?}", $what),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }};
}

/// Everything an operator does: finds the board, starts an actor on it, scales, links, calls, unlinks and stops it.
async fn manage(after: &str, client: &Control, caller: &Caller, board: &Host) {
    let id = board.status().host_id;
    let start = std::time::Instant::now();
    loop {
        let hosts = client.get_hosts().await;
        if matches!(&hosts, Ok(hosts) if hosts.iter().any(|host| host.id == id)) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{after}: the board is not found: {hosts:?}\n{}", board.output());
    }
    let found = start.elapsed();
    let reference = format!("file://{}", guests::module_path("echo").display());
    let key = guests::key("echo");
    let runs =
        |board: &Host| board.status().actors.iter().find(|one| one.public_key == key).map(|one| one.max_concurrent);
    accepted!(after, client.scale_actor(&id, &reference, Some(1), None));
    eventually("the actor runs", || runs(board) == Some(1));
    accepted!(after, client.scale_actor(&id, &reference, Some(3), None));
    eventually("it is scaled", || runs(board) == Some(3));

    let linked =
        |board: &Host| board.status().links.iter().any(|link| link.actor_id == key && link.contract_id == HTTP_SERVER);
    let provider = builtin_provider_key("httpserver").to_string();
    let address = free_address();
    let values = HashMap::from([("address".to_owned(), address.to_string())]);
    let start = std::time::Instant::now();
    while let Err(error) = client.advertise_link(&key, &provider, HTTP_SERVER, "default", values.clone()).await {
        assert!(start.elapsed() < PATIENCE, "{after}: the link is not taken: {error}");
    }
    eventually("it is linked", || linked(board));
    wait_for_200(address, PATIENCE).expect("it serves what it was linked to");

    let start = std::time::Instant::now();
    loop {
        let answer = caller.http(&key, "/raw", "", after.as_bytes()).await;
        if answer.as_deref() == Ok(after.as_bytes()) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{after}: it cannot be called: {answer:?}");
    }
    client.remove_link(&key, HTTP_SERVER, "default").await.expect("the link is taken back");
    eventually("it is not linked", || !linked(board));
    accepted!(after, client.stop_actor(&id, &key, None));
    eventually("it is gone", || runs(board).is_none());
    println!("{after}: found after {found:.1?}");
}

fn uplink(board: &Host) -> latticed::host::UplinkStatus {
    board.status().uplink.expect("it has a place in a lattice")
}

/// The streams of `domain`.
async fn streams(nats: &Client, domain: &str) -> Vec<Value> {
    let answer = nats.request(format!("$JS.{domain}.API.STREAM.NAMES"), "".into()).await.expect("JetStream answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    answer["streams"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_board_behind_a_leaf_is_managed_from_the_hub_through_all_failures() {
    block_on(async {
        let mut site = Site::start();
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let address: SocketAddr = free_address();
        let mut manifest = Manifest::new("hub");
        manifest.actor("counter", &guests::module_path("counter"), 2).http(address).link("keyvalue", &[]);
        let manifest = sandbox.write("hub.yaml", manifest.text());
        let (url, ca) = (format!("tls://127.0.0.1:{}", site.radio.port()), site.ca("board-ca.pem"));
        let seed = nats::cluster().seed().expose().to_owned();
        let settings = [
            ("NATS_HOST", url.as_str()),
            ("WASMCLOUD_NATS_TLS_CA_FILE", ca.as_str()),
            ("WASMCLOUD_NATS_USER", "board"),
            ("WASMCLOUD_NATS_PASSWORD", "swordfish"),
            ("WASMCLOUD_JS_DOMAIN", "leaf"),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "200"),
            ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "1000"),
            ("WASMCLOUD_NATS_SILENCE_MS", "4000"),
        ];
        let mut board = sandbox.run(&manifest, &settings);
        wait_for_200(address, PATIENCE).expect("it serves");
        let local = HttpLoad::start(address, b"", LOCAL_PER_SECOND, 2);
        board.wait_for("listening for commands");
        board.wait_for("the lattice's bucket is followed");

        // Managed from the hub. The bucket is in the leaf's domain and nowhere else.
        let nats = site.connect(site.hub.port(), "operator").await;
        let builder = ctl_client_030::ClientBuilder::new(nats.clone()).js_domain("leaf");
        let client = builder.timeout(ASK).auction_timeout(ASK).build().await.expect("the bucket is found");
        let caller = Caller::new(nats.clone());
        manage("at first", &client, &caller, &board).await;
        let bucket = json!("KV_LATTICEDATA_default");
        assert!(streams(&nats, "leaf").await.contains(&bucket));
        assert!(!streams(&nats, "hub").await.contains(&bucket), "the bucket is in the hub's domain");
        // Another account of the same server sees nothing of it.
        let stranger = site.connect(site.hub.port(), "stranger").await;
        let answer = stranger.request("wasmbus.ctl.default.ping.hosts".into(), "".into()).await;
        assert!(answer.is_err(), "a stranger finds the board: {answer:?}");

        site.hub.kill();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(uplink(&board).connected, "the board does not mind: its server is the leaf");
        site.hub.resume();
        manage("the hub was killed", &client, &caller, &board).await;

        site.leaf.kill();
        eventually("the board notices", || !uplink(&board).connected);
        site.leaf.resume();
        manage("the leaf was killed", &client, &caller, &board).await;

        site.radio.darken();
        eventually("the board notices the silence", || !uplink(&board).connected);
        site.radio.mend();
        manage("the board's link was dark", &client, &caller, &board).await;

        site.radio.smash();
        eventually("the board notices", || !uplink(&board).connected);
        site.radio.mend();
        manage("the board's link was cut", &client, &caller, &board).await;

        site.trunk.darken();
        eventually("the leaf notices", || site.leaf.log().contains("Stale"));
        assert!(uplink(&board).connected);
        site.trunk.mend();
        manage("the leaf's link was dark", &client, &caller, &board).await;

        let folder = site.pki.path("");
        let fresh = Authority::new("second authority");
        site.leaf.kill();
        eventually("the board notices", || !uplink(&board).connected);
        // Signed by an authority the board does not know yet: it says so, and nothing else stops.
        fresh.issue(&folder, "leaf");
        site.leaf.resume();
        let told = |board: &Host, word: &str| uplink(board).reason.to_lowercase().contains(word);
        eventually("the board says why it does not connect", || told(&board, "certificate"));
        assert!(!uplink(&board).connected);
        // The operator exchanges the board's file; no restart is needed.
        site.pki.write("board-ca.pem", fresh.pem());
        eventually("the board trusts the new authority", || uplink(&board).connected);
        manage("the authority was exchanged", &client, &caller, &board).await;
        site.leaf.kill();
        eventually("the board notices", || !uplink(&board).connected);
        fresh.issue(&folder, "leaf");
        site.leaf.resume();
        manage("the server's certificate was rotated", &client, &caller, &board).await;

        let local = local.end();
        println!("{} local requests, {:.0} a second", local.requests(), local.rate());
        assert_eq!(local.failures(), Vec::<&String>::new());
        assert!(local.requests() > 200, "too little load to tell: {}", local.requests());
        let (status, output) = board.terminate();
        assert!(status.success() && !output.contains("swordfish"), "{status}: {output}");
    });
}

/// The other way round: the board is at the hub, and the lattice's bucket in the leaf's domain. Whatever is asked of it
/// carries the domain; a word without it would be meant for the hub's own JetStream.
#[test]
fn a_bucket_in_another_domain_is_asked_under_its_name() {
    block_on(async {
        let site = Site::start();
        let nats = site.connect(site.hub.port(), "operator").await;
        let start = std::time::Instant::now();
        while nats.request("$JS.leaf.API.INFO".into(), "".into()).await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the leaf does not join the hub: {}", site.leaf.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut heard = nats.subscribe("$JS.>".into()).await.expect("it can listen");
        let mut plain = nats.subscribe("$KV.>".into()).await.expect("it can listen");
        nats.flush().await.expect("it listens");
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let mut manifest = Manifest::new("domain");
        manifest.actor("counter", &guests::module_path("counter"), 1).link("keyvalue", &[]);
        let manifest = sandbox.write("domain.yaml", manifest.text());
        let (url, ca) = (format!("tls://127.0.0.1:{}", site.hub.port()), site.ca("ca.pem"));
        let settings = [
            ("NATS_HOST", url.as_str()),
            ("WASMCLOUD_NATS_TLS_CA_FILE", ca.as_str()),
            ("WASMCLOUD_NATS_USER", "operator"),
            ("WASMCLOUD_NATS_PASSWORD", "swordfish"),
            ("WASMCLOUD_JS_DOMAIN", "leaf"),
        ];
        let mut board = sandbox.run(&manifest, &settings);
        board.wait_for("the lattice's bucket is followed");
        // Perhaps only now, after the bucket is followed: what comes about here is written there all the same.
        eventually("the manifest is applied", || !board.status().links.is_empty());
        let key = guests::key("counter");
        let link = board.status().links[0].id.clone();
        let mut missing = vec![
            "$JS.leaf.API.STREAM.CREATE.KV_LATTICEDATA_default".to_owned(),
            "$JS.leaf.API.CONSUMER.CREATE.KV_LATTICEDATA_default".to_owned(),
            format!("$JS.leaf.API.$KV.LATTICEDATA_default.CLAIMS_{key}"),
            format!("$JS.leaf.API.$KV.LATTICEDATA_default.LINKDEF_{link}"),
        ];
        while !missing.is_empty() {
            let next = tokio::time::timeout(PATIENCE, heard.next()).await;
            let message = next.unwrap_or_else(|_| panic!("{missing:?} is not asked\n{}", board.output()));
            let subject = message.expect("it is connected").subject;
            // The servers tell what they did, too.
            let theirs = ["$JS.ACK.", "$JS.EVENT."].iter().any(|prefix| subject.starts_with(prefix));
            assert!(theirs || subject.starts_with("$JS.leaf.API."), "{subject} has no domain");
            missing.retain(|wanted| *wanted != subject && !subject.starts_with(&format!("{wanted}.")));
        }
        assert!(streams(&nats, "leaf").await.contains(&json!("KV_LATTICEDATA_default")));
        assert_eq!(streams(&nats, "hub").await, Vec::<Value>::new());
        let outside = tokio::time::timeout(Duration::from_millis(200), plain.next()).await;
        assert!(outside.is_err(), "written without the domain: {outside:?}");
    });
}

/// The plainest server: no JetStream, so no bucket. What others would share through it stays on the board, and everything
/// else works: commands, links, calls, and a boot without network after it.
#[test]
fn without_jetstream_a_host_does_everything_but_share_its_bucket() {
    block_on(async {
        let mut server = NatsServer::described(|port, _| format!("listen: \"127.0.0.1:{port}\"\n"));
        server.resume();
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let (port, seed) = (server.port().to_string(), nats::cluster().seed().expose().to_owned());
        let settings = [
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "1000"),
        ];
        let mut board = sandbox.run_again(&settings);
        board.wait_for("the lattice's bucket cannot be used");
        let id = board.status().host_id;
        let nats = async_nats_030::connect(server.url()).await.expect("the server answers");
        let builder = ctl_client_027::ClientBuilder::new(nats).rpc_timeout(PATIENCE).auction_timeout(ASK);
        let client = builder.build().await.expect("this client does without a bucket");
        let hosts = client.get_hosts().await.expect("an answer");
        assert_eq!(hosts.iter().map(|host| &host.id).collect::<Vec<_>>(), [&id]);
        let (counter, address) = (guests::key("counter"), free_address());
        let reference = format!("file://{}", guests::module_path("counter").display());
        let ack = client.start_actor(&id, &reference, 3, None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        let values = HashMap::from([("address".to_owned(), address.to_string())]);
        for (provider, contract, values) in
            [("httpserver", HTTP_SERVER, values), ("keyvalue", KEY_VALUE, HashMap::new())]
        {
            let ack = client.start_provider(&id, &format!("builtin:{provider}"), None, None, None).await;
            assert!(ack.as_ref().is_ok_and(|ack| ack.accepted), "{ack:?}");
            let provider = builtin_provider_key(provider).to_string();
            // Without a bucket this client asks a host to do it.
            let ack = client.advertise_link(&counter, &provider, contract, "default", values).await;
            assert!(ack.as_ref().is_ok_and(|ack| ack.accepted), "{ack:?}");
        }
        wait_for_200(address, PATIENCE).expect("it serves what it was linked to");
        let links = client.query_links().await.expect("an answer").links;
        assert_eq!(links.len(), 2, "{links:?}");
        let claims = client.get_claims().await.expect("an answer").claims;
        assert!(claims.iter().any(|one| one.get("sub") == Some(&counter)), "{claims:?}");
        let caller = Caller::new(nats::connect(&server).await);
        let answer = caller.http(&counter, "/over-nats", "", b"").await.expect("it is called");
        assert_eq!(String::from_utf8_lossy(&answer), r#"{"counter":1}"#);

        server.kill();
        board.kill();
        let board = sandbox.run_again(&settings);
        wait_for_200(address, PATIENCE).expect("it serves without network");
        assert_eq!(board.status().links.len(), 2);
        server.resume();
        let caller = Caller::new(nats::connect(&server).await);
        let start = std::time::Instant::now();
        let answer = loop {
            match caller.http(&counter, "/over-nats", "", b"").await {
                Ok(answer) => break answer,
                Err(error) => assert!(start.elapsed() < PATIENCE, "it is not called again: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        assert_eq!(String::from_utf8_lossy(&answer), r#"{"counter":2}"#);
    });
}
