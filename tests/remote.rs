//! What commands over the lattice may do on a board whose operator put something there (`WASMCLOUD_REMOTE`).

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use latticed::{
    claims::builtin_provider_key,
    wire::interface::{HTTP_SERVER, KEY_VALUE, MESSAGING},
};
use serde_json::{Value, json};
use support::{
    guests,
    host::{Host, Sandbox},
    http::free_address,
    manifest::Manifest,
    nats::{self, NatsServer, block_on, eventually},
};

struct Board {
    host: Host,
    id: String,
    client: async_nats_031::Client,
    _sandbox: Sandbox,
}

impl Board {
    /// A host with the echo actor behind HTTP at `address` from a manifest, under these settings.
    async fn start(server: &NatsServer, address: SocketAddr, more: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let mut manifest = Manifest::new("own");
        manifest.actor("echo", &guests::module_path("echo"), 1).http(address);
        let manifest = sandbox.write("own.yaml", manifest.text());
        let (port, seed) = (server.port().to_string(), nats::cluster().seed().expose().to_owned());
        let mut settings = vec![
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            ("HOST_site", "roof"),
        ];
        settings.extend_from_slice(more);
        let mut host = sandbox.run(&manifest, &settings);
        host.wait_for("listening for commands");
        eventually("it serves", || TcpStream::connect(address).is_ok());
        eventually("it listens to the lattice", || {
            host.status().uplink.is_some_and(|uplink| uplink.connected && uplink.listening)
        });
        let options = match more.iter().any(|(name, _)| *name == "WASMCLOUD_CTL_USER") {
            true => async_nats_031::ConnectOptions::with_user_and_password("board".into(), "secret".into()),
            false => async_nats_031::ConnectOptions::new(),
        };
        let client = options.request_timeout(Some(nats::PATIENCE)).connect(server.url()).await.expect("it lets us in");
        let id = host.status().host_id;
        Self { host, id, client, _sandbox: sandbox }
    }

    async fn ask(&self, subject: &str, body: Value) -> Value {
        let subject = format!("wasmbus.ctl.default.{}", subject.replace("{id}", &self.id));
        let answer = self.client.request(subject.clone(), body.to_string().into()).await;
        let answer = answer.unwrap_or_else(|error| panic!("{subject}: {error}\n{}", self.host.output()));
        serde_json::from_slice(&answer.payload).expect("answers are JSON")
    }

    async fn accepted(&self, subject: &str, body: Value) {
        let answer = self.ask(subject, body.clone()).await;
        assert_eq!(answer["accepted"], true, "{subject} {body}: {answer}");
    }

    async fn refused(&self, subject: &str, body: Value) {
        let answer = self.ask(subject, body.clone()).await;
        assert_eq!(answer["accepted"], false, "{subject} {body}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|why| why.contains("WASMCLOUD_REMOTE")), "{answer}");
    }
}

/// Every command that touches what the manifest and the settings of [`Board::start`] brought.
fn on_the_operators(address: SocketAddr) -> Vec<(&'static str, Value)> {
    let echo = guests::key("echo");
    let (http, store) = (builtin_provider_key("httpserver").to_string(), builtin_provider_key("keyvalue").to_string());
    let same = format!("file://{}", guests::module_path("echo").display());
    let link = |provider: &str, contract: &str, name: &str| {
        json!({
            "actor_id": echo, "provider_id": provider, "contract_id": contract, "link_name": name,
            "values": { "address": address.to_string() }
        })
    };
    vec![
        ("cmd.{id}.la", json!({ "actor_ref": same, "count": 1 })),
        ("cmd.{id}.sa", json!({ "actor_ref": echo, "count": 0 })),
        ("cmd.{id}.scale", json!({ "actor_id": echo, "actor_ref": "", "count": 9 })),
        ("cmd.{id}.scale", json!({ "actor_id": echo, "actor_ref": "", "count": 0 })),
        ("cmd.{id}.scale", json!({ "actor_ref": same, "count": 4, "annotations": { "wadm": "x" } })),
        ("cmd.{id}.upd", json!({ "actor_id": echo, "new_actor_ref": "file:///nowhere.wasm" })),
        ("cmd.{id}.sp", json!({ "provider_ref": http, "link_name": "default", "contract_id": HTTP_SERVER })),
        ("linkdefs.put", link(&http, HTTP_SERVER, "default")),
        ("linkdefs.put", link(&http, HTTP_SERVER, "second")),
        ("linkdefs.put", link(&store, KEY_VALUE, "default")),
        ("linkdefs.del", json!({ "actor_id": echo, "contract_id": HTTP_SERVER, "link_name": "default" })),
        ("labels.{id}.put", json!({ "key": "site", "value": "cellar" })),
        ("cmd.{id}.stop", json!({ "timeout": 1000 })),
    ]
}

fn everything(host: &Host) -> Value {
    let status = serde_json::to_value(host.status()).expect("a status is JSON");
    json!([
        status["links"],
        status["labels"],
        status["actors"][0]["max_concurrent"],
        status["providers"].as_array().map(Vec::len)
    ])
}

#[test]
fn own_changes_only_what_came_over_the_lattice_and_listens_on_loopback() {
    block_on(async {
        let (server, address) = (NatsServer::start(), free_address());
        let board = Board::start(&server, address, &[("WASMCLOUD_REMOTE", "own")]).await;
        let before = everything(&board.host);
        for (subject, body) in on_the_operators(free_address()) {
            board.refused(subject, body).await;
        }
        assert_eq!(everything(&board.host), before);
        assert!(TcpStream::connect(address).is_ok(), "the manifest's actor serves as before");

        // What came over the lattice is the lattice's.
        let (small, port) = (guests::key("echo_small"), free_address().port());
        let reference = format!("file://{}", guests::module_path("echo_small").display());
        board.accepted("cmd.{id}.scale", json!({ "actor_id": small, "actor_ref": reference, "count": 2 })).await;
        let http = builtin_provider_key("httpserver").to_string();
        let link = |address: String| {
            json!({
                "actor_id": small, "provider_id": http, "contract_id": HTTP_SERVER, "link_name": "default",
                "values": { "address": address }
            })
        };
        board.accepted("linkdefs.put", link(format!("0.0.0.0:{port}"))).await;
        eventually("it listens on loopback", || {
            let status = board.host.status();
            status.providers.iter().any(|one| one.detail.contains(&format!("http://127.0.0.1:{port}")))
        });
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        board.accepted("linkdefs.put", link(format!("192.0.2.7:{port}"))).await;
        eventually("another address is refused by name", || {
            let problems = board.host.status().problems;
            problems.iter().any(|why| why.contains("WASMCLOUD_REMOTE_LISTEN") && why.contains("192.0.2.7"))
        });
        let messaging = builtin_provider_key("messaging").to_string();
        board.accepted("cmd.{id}.lp", json!({ "provider_ref": "builtin:messaging", "link_name": "default" })).await;
        let own_server = json!({
            "actor_id": small, "provider_id": messaging, "contract_id": MESSAGING, "link_name": "default",
            "values": { "SUBSCRIPTION": "a", "URI": "nats://127.0.0.1:1" }
        });
        board.accepted("linkdefs.put", own_server).await;
        eventually("a server of its own is refused by name", || {
            board
                .host
                .status()
                .problems
                .iter()
                .any(|why| why.contains("`URI`") && why.contains("WASMCLOUD_REMOTE=full"))
        });
        board
            .accepted("linkdefs.del", json!({ "actor_id": small, "contract_id": MESSAGING, "link_name": "default" }))
            .await;
        board.accepted("cmd.{id}.sp", json!({ "provider_ref": messaging, "link_name": "default" })).await;
        board
            .accepted("linkdefs.del", json!({ "actor_id": small, "contract_id": HTTP_SERVER, "link_name": "default" }))
            .await;
        board.accepted("labels.{id}.put", json!({ "key": "zone", "value": "z1" })).await;
        board.accepted("cmd.{id}.sa", json!({ "actor_ref": small, "count": 0 })).await;
        eventually("all of it is gone", || board.host.status().actors.len() == 1);
    });
}

#[test]
fn read_answers_questions_and_off_only_pings() {
    block_on(async {
        let server = NatsServer::start();
        for mode in ["read", "off"] {
            let address = free_address();
            let board = Board::start(&server, address, &[("WASMCLOUD_REMOTE", mode)]).await;
            let before = everything(&board.host);
            let small = format!("file://{}", guests::module_path("echo_small").display());
            let mut commands = on_the_operators(free_address());
            commands.push(("cmd.{id}.la", json!({ "actor_ref": small, "count": 1 })));
            commands.push(("labels.{id}.put", json!({ "key": "zone", "value": "z1" })));
            commands.push(("registries.put", json!({})));
            commands.push(("config.put.MX.key", json!("value")));
            for (subject, body) in commands {
                board.refused(subject, body).await;
            }
            assert_eq!(everything(&board.host), before);
            assert_eq!(board.ask("ping.hosts", json!({})).await["id"], board.id.as_str());
            if mode == "read" {
                assert_eq!(board.ask("get.{id}.inv", json!({})).await["host_id"], board.id.as_str());
            } else {
                // Answers come in order of arrival, so one to a later ping tells that there is none to this question.
                let asked = board.client.request(format!("wasmbus.ctl.default.get.{}.inv", board.id), "".into());
                let silent = tokio::time::timeout(std::time::Duration::from_secs(2), asked).await;
                assert!(silent.is_err(), "{silent:?}");
            }
            // Or the next one, which has the same key for the lattice, would not be alone.
            board.host.kill();
        }
    });
}

/// What a service does where nothing is set: it trusts a server that lets nobody in without a login.
#[test]
fn a_service_trusts_the_lattice_only_behind_a_login() {
    block_on(async {
        let login = [("WASMCLOUD_CTL_USER", "board"), ("WASMCLOUD_CTL_PASSWORD", "secret")];
        let rpc = [("WASMCLOUD_RPC_USER", "board"), ("WASMCLOUD_RPC_PASSWORD", "secret")];
        for (with_login, service) in [(true, true), (false, true), (false, false)] {
            let authorization = if with_login { "authorization { user: board, password: secret }" } else { "" };
            let server = NatsServer::configured(&format!(
                "listen: \"127.0.0.1:{{port}}\"\njetstream {{ store_dir: \"{{dir}}/js\" }}\n{authorization}\n"
            ));
            let mut settings: Vec<(&str, &str)> = Vec::new();
            if with_login {
                settings.extend(login.iter().chain(&rpc));
            }
            let folder = tempfile::tempdir().expect("the temporary folder is writable");
            let socket = folder.path().join("notify");
            let _manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("it can listen");
            if service {
                settings.push(("NOTIFY_SOCKET", socket.to_str().expect("UTF-8")));
            }
            let board = Board::start(&server, free_address(), &settings).await;
            let scale = json!({ "actor_id": guests::key("echo"), "actor_ref": "", "count": 3 });
            if service && !with_login {
                board.refused("cmd.{id}.scale", scale).await;
            } else {
                board.accepted("cmd.{id}.scale", scale).await;
            }
        }
    });
}

/// The bucket's records of claims carry no token: what runs here is told from its module.
#[test]
fn forged_claims_in_the_bucket_are_not_told() {
    block_on(async {
        let server = NatsServer::start();
        let board = Board::start(&server, free_address(), &[]).await;
        let echo = guests::key("echo");
        let stranger = guests::key("stranger of this board");
        let told = async |key: &str| {
            let answer = board.ask("get.claims", json!({})).await;
            answer["claims"].as_array().expect("claims are listed").iter().find(|one| one["sub"] == key).cloned()
        };
        while told(&echo).await.is_none() {}
        let put = async |key: &str, claims: Value| {
            let subject = format!("$KV.LATTICEDATA_default.CLAIMS_{key}");
            let answer = board.client.request(subject, claims.to_string().into()).await.expect("JetStream answers");
            assert!(String::from_utf8_lossy(&answer.payload).contains("\"seq\""), "{answer:?}");
        };
        let forged = |key: &str, issuer: &str| {
            json!({
                "sub": key, "iss": issuer, "name": "forged", "caps": "wasmcloud:everything", "rev": "999", "version": "9",
                "tags": "", "call_alias": ""
            })
        };
        let account = guests::account().public_key().to_string();
        put(&echo, forged(&echo, &account)).await;
        put("MNOKEY", forged("MNOKEY", &account)).await;
        put(&guests::key("another"), forged(&echo, &account)).await;
        // The watch tells changes in their order: once this one is known, so are those before.
        put(&stranger, forged(&stranger, &account)).await;
        while told(&stranger).await.is_none() {}
        assert_eq!(told(&echo).await.expect("it runs")["name"], "echo");
        assert_eq!((told("MNOKEY").await, told(&guests::key("another")).await), (None, None));
    });
}

#[test]
fn check_names_an_address_that_is_none() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let checked = sandbox.command(&["check"]).env("WASMCLOUD_REMOTE_LISTEN", "192.0.2.7:80").output();
    let checked = checked.expect("the program can be started");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success() && said.contains("WASMCLOUD_REMOTE_LISTEN"), "{said}");
}
