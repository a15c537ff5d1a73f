//! A counter on kvredis whose module and provider archive come from a registry with accounts, from an object store behind
//! leaf and hub, and from a mirror on a wire that leads nowhere else. Each is started by the published client, and runs
//! again after a power cut with its source gone.

mod support;

use std::{
    collections::HashMap,
    path::Path,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use async_nats_031::Client;
use latticed::{
    claims::builtin_provider_key,
    store::Digest,
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use support::{
    counter::{count, first_count},
    dark::Dark,
    guests,
    host::{Host, Sandbox},
    http::free_address,
    manifest::Manifest,
    namespace::Cable,
    nats::{self, NatsServer, block_on, control_client, eventually},
    provider,
    redis::RedisServer,
    registry::{ARCHIVE, MODULE, PASSWORD, Registry, USER},
};

const KVREDIS: &str = "kvredis";

/// The counter guest, and kvredis as a signed archive.
struct Artifacts {
    counter: Vec<u8>,
    kvredis: Vec<u8>,
}

fn artifacts() -> &'static Artifacts {
    static BOTH: OnceLock<Artifacts> = OnceLock::new();
    BOTH.get_or_init(|| Artifacts {
        counter: std::fs::read(guests::module_path("counter")).expect("the guest is built"),
        kvredis: provider::archive(KVREDIS, KEY_VALUE, &provider::stripped(Path::new(env!("CARGO_BIN_EXE_kvredis")))),
    })
}

/// A board on the NATS server at `port`, with `more` settings.
fn settings<'a>(port: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    static SEED: OnceLock<String> = OnceLock::new();
    let seed = SEED.get_or_init(|| nats::cluster().seed().expose().to_owned());
    let mut settings = vec![
        ("NATS_HOST", "127.0.0.1"),
        ("NATS_PORT", port),
        ("WASMCLOUD_CLUSTER_SEED", seed.as_str()),
        // Development builds on a busy machine.
        ("WASMCLOUD_RPC_TIMEOUT_MS", "20000"),
    ];
    settings.extend_from_slice(more);
    settings
}

/// Commands the counter at `actor` on kvredis at `provider` as from afar, over `nats`; counts, and counts on after a power
/// cut during which `gone` took the source away.
async fn counts_through_a_power_cut(
    sandbox: &Sandbox,
    settings: &[(&str, &str)],
    nats: &Client,
    (actor, provider): (&str, &str),
    gone: impl FnOnce(),
) {
    let redis = RedisServer::start();
    let rules = redis.rule();
    let settings = &[settings, &[("WASMCLOUD_PROVIDER_RULES", &*rules)]].concat()[..];
    let mut board = sandbox.run_again(settings);
    board.wait_for("listening for commands");
    let control = control_client(nats).await;
    let id = board.status().host_id;
    let said = |board: &Host| board.output();
    for reference in ["builtin:httpserver", provider] {
        let ack = control.start_provider(&id, reference, Some("default".into()), None, None).await;
        let ack = ack.expect("the host answers");
        assert!(ack.accepted, "{}\n{}", ack.error, said(&board));
    }
    let (counter, address) = (guests::key("counter"), free_address());
    let server = builtin_provider_key("httpserver").to_string();
    let links = [
        (provider::key(KVREDIS), KEY_VALUE, ("URL", redis.url())),
        (server, HTTP_SERVER, ("address", address.to_string())),
    ];
    for (target, contract, (name, value)) in links {
        let values = HashMap::from([(name.to_owned(), value)]);
        control.advertise_link(&counter, &target, contract, "default", values).await.expect("the bucket takes it");
    }
    let ack = control.scale_actor(&id, actor, Some(2), None).await.expect("the host answers");
    assert!(ack.accepted, "{}\n{}", ack.error, said(&board));
    assert_eq!(first_count(&board, address), 1);
    assert_eq!(count(address), Ok(2));
    runs(&board, actor, provider);

    gone();
    board.kill();
    let board = sandbox.run_again(settings);
    assert_eq!(first_count(&board, address), 3, "{}", said(&board));
    runs(&board, actor, provider);

    // And by a manifest that names them, as a service starts: what is here needs nobody either.
    board.kill();
    let mut manifest = Manifest::empty("counting");
    manifest.capability_from(KVREDIS, KEY_VALUE, provider).actor_from("counter", actor, 1);
    let manifest = sandbox.write("counting.yaml", manifest.text());
    let start = Instant::now();
    let board = sandbox.run(&manifest, settings);
    assert_eq!(first_count(&board, address), 4, "{}", said(&board));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}: {}", start.elapsed(), said(&board));
    runs(&board, actor, provider);
    assert!(!board.output().contains("panicked") && !board.output().contains(PASSWORD), "{}", said(&board));
}

/// Both run, by the references they were commanded with.
fn runs(board: &Host, actor: &str, provider: &str) {
    let status = board.status();
    assert!(status.actors.iter().any(|one| one.image_ref == actor), "{:?}", status.actors);
    let found = status.providers.iter().find(|one| one.image_ref == provider);
    assert_eq!(found.map(|one| (&*one.public_key, &*one.state)), Some((&*provider::key(KVREDIS), "running")));
}

#[test]
fn from_a_registry_with_accounts() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let mut registry = Registry::with_account();
        registry.push("team/counter", "0.1.0", MODULE, &artifacts().counter);
        registry.push("team/kvredis", "0.3.0", ARCHIVE, &artifacts().kvredis);
        let (port, name) = (server.port().to_string(), registry.name());
        let settings = settings(
            &port,
            &[
                ("WASMCLOUD_OCI_ALLOWED_INSECURE", &*name),
                ("OCI_REGISTRY", &*name),
                ("OCI_REGISTRY_USER", USER),
                ("OCI_REGISTRY_PASSWORD", PASSWORD),
            ],
        );
        let nats = nats::connect(&server).await;
        let references = (format!("{name}/team/counter:0.1.0"), format!("{name}/team/kvredis:0.3.0"));
        let mut dark = None;
        let gone = || {
            registry.stop();
            dark = Some(Dark::at(registry.address()));
        };
        counts_through_a_power_cut(&sandbox, &settings, &nats, (&references.0, &references.1), gone).await;
    });
}

/// Writes both into the sandbox and runs `latticed artifact` with `arguments` and `to(name)` for each; answers the digests.
fn hand_over(
    sandbox: &Sandbox,
    settings: &[(&str, &str)],
    arguments: impl Fn(&str, &str) -> Vec<String>,
) -> [Digest; 2] {
    let both = [("counter", &artifacts().counter), (KVREDIS, &artifacts().kvredis)];
    both.map(|(name, content)| {
        let file = sandbox.write(name, content).display().to_string();
        let arguments = arguments(name, &file);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command: Command = sandbox.command(&arguments);
        let output = command.envs(settings.iter().copied()).output().expect("the program starts");
        assert!(output.status.success(), "{output:?}");
        Digest::of(content)
    })
}

#[test]
fn from_an_object_store_behind_leaf_and_hub() {
    block_on(async {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let (mut hub, leaf) = nats::hub_and_leaf();
        let port = leaf.port().to_string();
        let settings = settings(&port, &[("WASMCLOUD_JS_DOMAIN", "hub")]);
        let reached = || {
            let mut command = sandbox.command(&["artifact", "list", "nats://none"]);
            let output = command.envs(settings.iter().copied()).output().expect("the program starts");
            // "Not there" is an answer of the hub.
            output.status.code() == Some(4)
        };
        eventually("the hub is reached", reached);
        let [counter, kvredis] = hand_over(&sandbox, &settings, |name, file| {
            ["artifact", "push", file, &format!("nats://fleet/{name}")].map(str::to_owned).to_vec()
        });
        let nats = nats::connect(&hub).await;
        let references =
            (format!("nats://fleet/counter@sha256:{counter}"), format!("nats://fleet/kvredis@sha256:{kvredis}"));
        // The board's own leaf stays: calls of providers go over it.
        counts_through_a_power_cut(&sandbox, &settings, &nats, (&references.0, &references.1), || hub.kill()).await;
    });
}

#[test]
fn from_a_mirror_on_a_wire_that_leads_nowhere_else() {
    let cable = Cable::new();
    let ([mirror, board], _programs) = cable.sandboxes(env!("CARGO_BIN_EXE_latticed"));
    let listen = "10.77.0.1:8099";
    let mut serving = mirror.run_again(&[("WASMCLOUD_MIRROR_LISTEN", listen)]);
    serving.wait_for("the mirror serves");
    let [counter, kvredis] = hand_over(&mirror, &[], |name, file| {
        ["artifact", "publish", &format!("site/{name}"), file].map(str::to_owned).to_vec()
    });
    let references =
        (format!("mirror://site/counter@sha256:{counter}"), format!("mirror://site/kvredis@sha256:{kvredis}"));
    // The board, its NATS server, Redis and whoever commands are at the other end.
    cable.run_at(1, || {
        block_on(async {
            let server = NatsServer::start();
            let port = server.port().to_string();
            let mirrors = format!("http://{listen}");
            let settings = settings(&port, &[("WASMCLOUD_MIRRORS", &*mirrors)]);
            let nats = nats::connect(&server).await;
            let gone = || {
                cable.plug(false);
                serving.kill();
            };
            counts_through_a_power_cut(&board, &settings, &nats, (&references.0, &references.1), gone).await;
        });
    });
}
