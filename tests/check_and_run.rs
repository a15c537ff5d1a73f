//! `latticed check` and `latticed run` on the same manifests and settings, each with one mistake: what `check` accepts starts
//! and all its links come into force, and what `check` refuses does not.

mod support;

use std::{
    fs::Permissions,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use latticed::{
    claims::{KeyPair, Role},
    task,
    web::Client,
};
use support::{guests, host::Sandbox, http::free_address, manifest::Manifest};

/// How long a host may take to become ready or to say what is wrong. Far above what it takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cases at work at once. Each is a short-lived process and mostly waits.
const AT_ONCE: usize = 4;

/// One manifest or directory of them, and settings.
struct Case {
    name: String,
    /// Files of the sandbox, `{address}` and `{other}` being free addresses, `{folder}` the sandbox.
    files: Vec<(&'static str, String)>,
    settings: Vec<(&'static str, String)>,
    /// What is checked and run.
    target: &'static str,
    /// Whether the user is one without rights, also where the tests run as root.
    nobody: bool,
    good: bool,
}

impl Case {
    fn bad(name: &str, manifest: String) -> Self {
        Self {
            name: name.to_owned(),
            files: vec![("app.yaml", manifest)],
            settings: Vec::new(),
            target: "app.yaml",
            nobody: false,
            good: false,
        }
    }

    fn good(name: &str, manifest: String) -> Self {
        Self { good: true, ..Self::bad(name, manifest) }
    }

    fn directory(name: &str, one: String, two: String) -> Self {
        Self {
            files: vec![("all/one.yaml", one), ("all/two.yaml", two)],
            target: "all",
            ..Self::bad(name, String::new())
        }
    }

    fn with(mut self, setting: &'static str, value: &str) -> Self {
        self.settings.push((setting, value.to_owned()));
        self
    }

    fn file(mut self, name: &'static str, content: &str) -> Self {
        self.files.push((name, content.to_owned()));
        self
    }
}

/// The echo behind HTTP.
fn base() -> String {
    http(&[("address", "{address}")])
}

fn http(values: &[(&str, &str)]) -> String {
    linked("echo", "httpserver", "wasmcloud:httpserver", values)
}

fn linked(guest: &str, provider: &str, contract: &str, values: &[(&str, &str)]) -> String {
    let mut manifest = Manifest::empty("app");
    manifest.capability(provider, contract);
    manifest.actor(guest, &guests::module_path(guest), 1).link(provider, values);
    manifest.text()
}

/// The echo of another application, under another key, so that both can run.
fn second(name: &str, address: &str) -> String {
    let mut manifest = Manifest::empty(name);
    manifest.capability("httpserver", "wasmcloud:httpserver");
    manifest.actor("counter", &guests::module_path("counter"), 1).link("httpserver", &[("address", address)]);
    manifest.text()
}

fn link_values(cases: &mut Vec<Case>) {
    let http_mistakes: &[(&str, &[(&str, &str)])] = &[
        ("a host name as address", &[("address", "localhost:8080")]),
        ("a URL as address", &[("address", "http://{address}")]),
        ("an address without a port", &[("address", "127.0.0.1")]),
        ("an address with a large port", &[("address", "127.0.0.1:70000")]),
        ("a large port", &[("port", "70000")]),
        ("a port in words", &[("port", "eighty")]),
        ("address misspelt", &[("adress", "{address}")]),
        ("port misspelt", &[("prot", "8080")]),
        ("an unknown value and no address", &[("listen_on", "{address}")]),
        ("bad base64", &[("address", "{address}"), ("config_b64", "!!")]),
        ("base64 of no JSON", &[("address", "{address}"), ("config_b64", "aGVsbG8=")]),
        ("JSON cut off", &[("address", "{address}"), ("config_json", "{")]),
        ("JSON of a list", &[("config_json", "[]")]),
        ("a misspelt member of the JSON", &[("config_json", r#"{"adress":"{address}"}"#)]),
        (
            "TLS files that are missing",
            &[(
                "config_json",
                r#"{"address":"{address}","tls":{"cert_file":"/nowhere/c","priv_key_file":"/nowhere/k"}}"#,
            )],
        ),
        ("half of TLS", &[("config_json", r#"{"address":"{address}","tls":{"cert_file":"/nowhere/c"}}"#)]),
        ("a time-out of nothing", &[("address", "{address}"), ("config_json", r#"{"timeout_ms":0}"#)]),
        (
            "an origin that is none",
            &[("address", "{address}"), ("config_json", r#"{"cors":{"allowed_origins":["ftp://x"]}}"#)],
        ),
        ("a level that is none", &[("address", "{address}"), ("config_json", r#"{"log":{"level":"loud"}}"#)]),
        ("a settings file that is missing", &[("address", "{address}"), ("config_file", "/nowhere/x.json")]),
        ("a settings file of an unknown kind", &[("address", "{address}"), ("config_file", "{folder}/app.yaml")]),
        ("a switch misspelt", &[("address", "{address}"), ("readonly_mode", "ture")]),
        ("a negative time-out", &[("address", "{address}"), ("timeout_ms", "-1")]),
        ("a length in words", &[("address", "{address}"), ("max_content_len", "much")]),
        ("a header with a line end", &[("address", "{address}"), ("cache_control", "a\r\nb")]),
        ("an address of another machine", &[("address", "192.0.2.1:8080")]),
        ("one value twice", &[("address", "{address}"), ("ADDRESS", "{other}")]),
    ];
    cases.extend(http_mistakes.iter().map(|(name, values)| Case::bad(&format!("http server: {name}"), http(values))));
    for (name, values) in [
        ("no number", [("max_keys", "many")]),
        ("a negative number", [("max_bytes", "-1")]),
        ("no keyspace", [("keyspace", "")]),
        ("keyspace misspelt", [("keyspce", "mine")]),
    ] {
        let manifest = linked("counter", "keyvalue", "wasmcloud:keyvalue", &values);
        cases.push(Case::bad(&format!("key-value: {name}"), manifest));
    }
    let client_mistakes: &[(&str, &[(&str, &str)])] = &[
        ("no authority", &[("tls_ca_file", "/nowhere/ca.pem")]),
        ("a proxy of another kind", &[("allowed_hosts", "example.org"), ("proxy", "socks5://127.0.0.1:1")]),
        ("a proxy for any host", &[("proxy", "http://127.0.0.1:3128")]),
        ("hosts misspelt", &[("alowed_hosts", "example.org")]),
    ];
    for (name, values) in client_mistakes {
        let manifest = linked("fetch", "httpclient", "wasmcloud:httpclient", values);
        cases.push(Case::bad(&format!("http client: {name}"), manifest));
    }
    let server = ("URI", "nats://127.0.0.1:1");
    let messaging_mistakes: &[(&str, &[(&str, &str)])] = &[
        ("no way to NATS", &[]),
        ("a URL of another kind", &[("URI", "http://127.0.0.1:1")]),
        ("an empty part of a subject", &[server, ("SUBSCRIPTION", "a..b")]),
        ("a blank in a subject", &[server, ("SUBSCRIPTION", "a b")]),
        ("no queue after the bar", &[server, ("SUBSCRIPTION", "a|")]),
        ("nothing in flight", &[server, ("max_in_flight", "0")]),
        ("an unknown word", &[server, ("outbox_full", "perhaps")]),
        ("a token without its seed", &[server, ("CLIENT_JWT", "a.b.c")]),
        ("an authority that is missing", &[("URI", "tls://127.0.0.1:1"), ("TLS_CA_FILE", "/nowhere/ca.pem")]),
        ("an authority that is none", &[("URI", "tls://127.0.0.1:1"), ("TLS_CA", "no PEM")]),
        ("a login without a server", &[("CLIENT_SEED", "SU")]),
        ("subscription misspelt", &[server, ("SUBSCRIPTON", "a.b")]),
        ("bad JSON", &[server, ("config_json", "{]")]),
    ];
    for (name, values) in messaging_mistakes {
        let manifest = linked("mailbox", "messaging", "wasmcloud:messaging", values);
        cases.push(Case::bad(&format!("messaging: {name}"), manifest));
    }
}

fn manifests(cases: &mut Vec<Case>) {
    let edit = |from: &str, to: &str| {
        let text = base();
        assert!(text.contains(from), "{from} is not in {text}");
        text.replace(from, to)
    };
    let mut twins = Manifest::new("app");
    twins.actor("echo", &guests::module_path("echo"), 1).link("httpserver", &[("address", "{address}")]);
    twins.actor("counter", &guests::module_path("counter"), 1).link("httpserver", &[("address", "{address}")]);
    let mut wide = Manifest::new("app");
    wide.actor("echo", &guests::module_path("echo"), 1).link("httpserver", &[("address", "{address}")]);
    wide.actor("counter", &guests::module_path("counter"), 1).link("httpserver", &[("address", "0.0.0.0:{port}")]);
    let mut idle = Manifest::new("app");
    idle.actor("echo", &guests::module_path("echo"), 1).link("httpserver", &[("address", "{address}")]);
    idle.actor("counter", &guests::module_path("counter"), 0).link("httpserver", &[("address", "{address}")]);
    let mut again = Manifest::new("app");
    again.actor("echo", &guests::module_path("echo"), 1);
    again.actor("other", &guests::module_path("echo"), 1);
    let mut archive = Manifest::empty("app");
    archive.capability_from("redis", "wasmcloud:keyvalue", "file:///nowhere/redis.par.gz");
    archive.actor("echo", &guests::module_path("echo"), 1);
    let actor_from = |reference: &str| {
        let mut manifest = Manifest::empty("app");
        manifest.actor_from("echo", reference, 1);
        manifest.text()
    };
    let digest = "0".repeat(64);
    for (name, manifest) in [
        ("a built-in misspelt", edit("builtin:httpserver", "builtin:httpsrver")),
        ("another contract", edit("contract: wasmcloud:httpserver", "contract: wasmcloud:keyvalue")),
        (
            "a link name with a blank",
            edit("contract: wasmcloud:httpserver", "contract: wasmcloud:httpserver\n        link_name: 'a b'"),
        ),
        ("two actors on one port", twins.text()),
        ("two actors on one port, one of them on every address", wide.text()),
        ("an actor that is not started yet on a port in use", idle.text()),
        ("one module twice", again.text()),
        ("a provider as a process on a host by itself", archive.text()),
        ("a target misspelt", edit("target: httpserver", "target: htpserver")),
        ("a trait misspelt", edit("type: linkdef", "type: linkdeff")),
        ("an unclosed bracket", edit("kind: Application", "kind: [Application")),
        ("another kind", edit("kind: Application", "kind: Deployment")),
        ("fewer than no replicas", edit("replicas: 1", "replicas: -1")),
        ("no name", edit("  name: app\n", "")),
        ("a module that is missing", actor_from("file:///nowhere/echo.wasm")),
        ("a home directory", actor_from("file://~/echo.wasm")),
        ("an unknown scheme", actor_from("ftp://127.0.0.1/echo.wasm")),
        ("an object store on a host by itself", actor_from("nats://ACTORS/echo")),
        ("a mirror where none is named", actor_from("mirror://echo")),
        ("the tag latest", actor_from("127.0.0.1:1/echo:latest")),
        ("a download without a digest", actor_from("http://127.0.0.1:1/echo.wasm")),
        ("a download with half a digest", actor_from(&format!("http://127.0.0.1:1/e.wasm#sha256={}", &digest[1..]))),
        ("a built-in as an actor", actor_from("builtin:keyvalue")),
    ] {
        cases.push(Case::bad(&format!("manifest: {name}"), manifest));
    }
    let module =
        |name: &str, file: &'static str| Case::bad(&format!("module: {name}"), actor_from(&format!("file://{file}")));
    cases.push(module("text", "text.wasm").file("text.wasm", "no module"));
    cases.push(module("without claims", "bare.wasm").file("bare.wasm", "\0asm\x01\0\0\0"));
    cases.push(Case::bad("module: larger than the limit", base()).with("WASMCLOUD_ACTOR_MODULE_BYTES", "1K"));
    let stranger = KeyPair::from_name(Role::Account, "stranger").public_key().to_string();
    cases.push(Case::bad("module: of another issuer", base()).with("WASMCLOUD_ALLOWED_ISSUERS", &stranger));
    cases.push(
        Case::bad("module: not pinned", actor_from("127.0.0.1:1/echo:1")).with("WASMCLOUD_REQUIRE_DIGEST", "true"),
    );

    let named = |name: &str| base().replace("name: app\n", &format!("name: {name}\n"));
    let copied = named("two").replace(&guests::module_path("echo").display().to_string(), "{folder}/copy.wasm");
    cases.push(Case::directory("directory: one port twice", base(), second("two", "{address}")));
    cases.push(Case::directory(
        "directory: one port twice, once on every address",
        base(),
        second("two", "[::]:{port}"),
    ));
    cases.push(Case::directory("directory: one application twice", base(), second("app", "{other}")));
    cases.push(Case::directory(
        "directory: one link with two addresses",
        base(),
        named("two").replace("{address}", "{other}"),
    ));
    cases.push(Case::directory("directory: one actor from two files", base(), copied));
    cases.push(Case::directory("directory: no YAML", base(), "kind: [".to_owned()));
    let good = Case::directory("directory: two applications", base(), second("two", "{other}"));
    cases.push(Case { good: true, ..good });
}

fn settings(cases: &mut Vec<Case>) {
    let long = format!("/{}", "x".repeat(120));
    let account = KeyPair::from_name(Role::Account, "nats").seed().expose().to_owned();
    for (setting, value) in [
        ("WASMCLOUD_PROBES", "8081"),
        ("WASMCLOUD_PROBES", "localhost:8081"),
        ("WASMCLOUD_PROBES", "/nowhere/probes.sock"),
        ("WASMCLOUD_PROBES", "{address}"),
        ("WASMCLOUD_PROBES", "192.0.2.1"),
        ("WASMCLOUD_MIRRORS", "mirror.example:8099"),
        ("WASMCLOUD_MIRRORS", "ftp://mirror.example"),
        ("WASMCLOUD_MIRROR_LISTEN", "8099"),
        ("WASMCLOUD_MIRROR_LISTEN", "{address}"),
        ("WASMCLOUD_MIRROR_TLS_CERT_FILE", "/nowhere/cert.pem"),
        ("WASMCLOUD_RPC_JWT", "a.b.c"),
        ("WASMCLOUD_CTL_JWT", "a.b.c"),
        ("WASMCLOUD_PROV_RPC_JWT", "a.b.c"),
        ("WASMCLOUD_RPC_SEED", "SUnonsense"),
        ("WASMCLOUD_RPC_USER", "ada"),
        ("WASMCLOUD_RPC_HOST", "http://127.0.0.1"),
        ("WASMCLOUD_PROV_RPC_HOST", "a/b"),
        ("WASMCLOUD_RPC_PORT", "0"),
        ("WASMCLOUD_LATTICE_PREFIX", "two words"),
        ("WASMCLOUD_LATTICE_PREFIX", "all.*"),
        ("WASMCLOUD_CTL_TOPIC_PREFIX", "a..b"),
        ("WASMCLOUD_CTL_TOPIC_PREFIX", "a b"),
        ("WASMCLOUD_CTL_TOPIC_PREFIX", "wasmbus.>"),
        ("WASMCLOUD_JS_DOMAIN", "two words"),
        ("WASMCLOUD_CLUSTER_ISSUERS", "foo"),
        ("WASMCLOUD_CLUSTER_SEED", "SCnonsense"),
        ("WASMCLOUD_ALLOWED_ISSUERS", "foo"),
        ("WASMCLOUD_ALLOWED_ISSUERS", ",,"),
        ("WASMCLOUD_ARTIFACT_CA_FILE", "/nowhere/ca.pem"),
        ("WASMCLOUD_ARTIFACT_CA_FILE", "{folder}/app.yaml"),
        ("WASMCLOUD_OCI_AUTH_FILE", "/nowhere/auth.json"),
        ("WASMCLOUD_OCI_ALLOWED_INSECURE", "http://127.0.0.1:5000"),
        ("WASMCLOUD_PROVIDER_RULES", "bogus=1"),
        ("WASMCLOUD_PROVIDER_RULES", "memory=much"),
        ("WASMCLOUD_PROVIDER_NATS_ACCOUNT_SEED", "SA"),
        ("WASMCLOUD_STATE_DIR", "{folder}/app.yaml"),
        ("WASMCLOUD_ADMIN_SOCKET", long.as_str()),
        ("WASMCLOUD_HOST_NAME", "two words"),
        ("WASMCLOUD_LOG_LEVEL", "loud"),
        ("WASMCLOUD_JOIN", "perhaps"),
        ("WASMCLOUD_ACTOR_MEMORY_BYTES", "1"),
        ("WASMCLOUD_WORKERS", "-1"),
    ] {
        cases.push(Case::bad(&format!("{setting}={value}"), base()).with(setting, value));
    }
    cases.push(
        Case::bad("an account that is none", base())
            .with("WASMCLOUD_PROVIDER_NATS_ACCOUNT_SEED", &account)
            .with("WASMCLOUD_PROVIDER_NATS_ACCOUNT", "AX"),
    );
    let closed =
        Case::bad("a state directory of somebody else", base()).with("WASMCLOUD_STATE_DIR", "{folder}/closed/state");
    cases.push(Case { nobody: true, ..closed });
    cases.push(Case::bad("half a certificate", base()).with("WASMCLOUD_CTL_TLS_KEY_FILE", "/nowhere/key.pem"));
}

/// What deserves a warning at most.
fn warned_of(cases: &mut Vec<Case>) {
    let spread = "replicas: 1\n            spread: [{name: far, requirements: {zone: barn}}]";
    let traits = "traits:\n        - type: nightly-backup\n          properties: {hour: 3}";
    let configured = "contract: wasmcloud:httpserver\n        config: {port: 80}";
    for (name, manifest) in [
        ("nothing", base()),
        ("an unknown value beside an address", http(&[("address", "{address}"), ("worker_threads", "2")])),
        ("an IP address beside a port", http(&[("address", "127.0.0.1"), ("port", "{port}")])),
        ("a URL for the key-value store", linked("counter", "keyvalue", "wasmcloud:keyvalue", &[("URL", "redis://x")])),
        (
            "a server that is away",
            linked(
                "mailbox",
                "messaging",
                "wasmcloud:messaging",
                &[("URI", "nats://127.0.0.1:1"), ("SUBSCRIPTION", "a.>")],
            ),
        ),
        ("an actor without the claim", linked("echo", "keyvalue", "wasmcloud:keyvalue", &[])),
        ("an actor that runs elsewhere", base().replace("replicas: 1", spread)),
        ("a trait of somebody's own", base().replace("traits:", traits)),
        ("a configuration of a built-in", base().replace("contract: wasmcloud:httpserver", configured)),
    ] {
        cases.push(Case::good(&format!("good: {name}"), manifest));
    }
    for (setting, value) in [
        ("NATS_URL", "nats://127.0.0.1:1"),
        ("WASMCLOUD_DASHBOARD_PORT", "4000"),
        ("WASMCLOUD_LOGLEVEL", "debug"),
        ("WASMCLOUD_HOST_SEED", "SNnonsense"),
        ("WASMCLOUD_PROBES", "{folder}/probes.sock"),
        ("WASMCLOUD_RPC_CREDSFILE", "/nowhere/host.creds"),
    ] {
        cases.push(Case::good(&format!("good: {setting}={value}"), base()).with(setting, value));
    }
}

/// How a command ended, and what it said.
struct Outcome {
    /// Whether all is well; else the exit code, where the command ended by itself.
    refused: Option<Option<i32>>,
    said: String,
}

struct Place {
    sandbox: Sandbox,
    address: SocketAddr,
    other: SocketAddr,
}

impl Place {
    fn new(case: &Case) -> Self {
        let sandbox = if case.nobody { Sandbox::of_nobody } else { Sandbox::new };
        let place =
            Self { sandbox: sandbox(env!("CARGO_BIN_EXE_latticed")), address: free_address(), other: free_address() };
        for (name, content) in &case.files {
            let path = place.sandbox.path(name);
            std::fs::create_dir_all(path.parent().expect("a file of a folder")).expect("the folder is ours");
            place.sandbox.write(name, place.filled(content));
        }
        let closed = place.sandbox.path("closed");
        std::fs::create_dir(&closed).expect("the folder is ours");
        std::fs::set_permissions(&closed, Permissions::from_mode(0o555)).expect("the folder is ours");
        std::fs::copy(guests::module_path("echo"), place.sandbox.path("copy.wasm")).expect("the guest is built");
        place
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{address}", &self.address.to_string())
            .replace("{other}", &self.other.to_string())
            .replace("{port}", &self.address.port().to_string())
            .replace("{folder}", &self.sandbox.path("").display().to_string())
    }

    fn command(&self, word: &str, case: &Case) -> Command {
        let mut command = self.sandbox.command(&[word, case.target]);
        command.envs(case.settings.iter().map(|(name, value)| (*name, self.filled(value))));
        command
    }

    fn check(&self, case: &Case) -> Outcome {
        let output = self.command("check", case).output().expect("the program can be started");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Outcome { refused: (!output.status.success()).then(|| output.status.code()), said }
    }

    /// Runs the host until it is ready, has ended, or tells a problem.
    fn run(&self, case: &Case) -> Outcome {
        let socket = self.sandbox.path("notify.sock");
        let manager = UnixDatagram::bind(&socket).expect("a fresh folder");
        manager.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
        let log: PathBuf = self.sandbox.path("log");
        let file = std::fs::File::create(&log).expect("the folder is ours");
        let mut command = self.command("run", case);
        command.env("NOTIFY_SOCKET", &socket).stdout(Stdio::null()).stderr(file);
        let host = Killed(command.spawn().expect("the program can be started"));
        let refused = self.watch(host, &manager);
        Outcome { refused, said: std::fs::read_to_string(&log).unwrap_or_default() }
    }

    fn watch(&self, mut host: Killed, manager: &UnixDatagram) -> Option<Option<i32>> {
        let client = Client::new(self.sandbox.path("latticed/admin.sock"));
        let end = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        while Instant::now() < end {
            if let Ok(length) = manager.recv(&mut bytes)
                && String::from_utf8_lossy(&bytes[..length]).contains("READY=1")
            {
                return None;
            }
            if let Some(status) = host.0.try_wait().expect("the child can be asked") {
                return Some(status.code());
            }
            if let Ok(status) = task::block_on(client.status())
                && !status.problems.is_empty()
                // Said of a host that is well otherwise.
                && !status.problems.iter().all(|problem| problem.contains("does not claim"))
            {
                return Some(None);
            }
        }
        panic!("the host became neither ready nor said what is wrong within {PATIENCE:?}");
    }
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is wrong with how `case` ended, if anything.
fn disagreement(case: &Case) -> Option<String> {
    let place = Place::new(case);
    let (check, run) = (place.check(case), place.run(case));
    let codes_differ = match (check.refused, run.refused) {
        (Some(Some(check)), Some(Some(run))) => check != run,
        _ => false,
    };
    let expected = (!case.good, !case.good);
    if (check.refused.is_some(), run.refused.is_some()) == expected && !codes_differ {
        return None;
    }
    Some(format!(
        "{}: expected {}, check {:?}, run {:?}\n  check: {}\n  run: {}",
        case.name,
        if case.good { "good" } else { "bad" },
        check.refused,
        run.refused,
        check.said.trim(),
        run.said.trim()
    ))
}

#[test]
fn check_and_run_never_disagree() {
    let mut cases = Vec::new();
    link_values(&mut cases);
    manifests(&mut cases);
    settings(&mut cases);
    warned_of(&mut cases);
    let mistakes = cases.iter().filter(|case| !case.good).count();
    assert!(mistakes >= 60, "{mistakes} mistakes are too few");
    let (todo, found) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(case) = next else { return };
                    if let Some(text) = disagreement(case) {
                        found.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(found.is_empty(), "{} of {} cases:\n{}", found.len(), cases.len(), found.join("\n"));
}
