//! `latticed check`, run as a user runs it: the real binary, real files, an environment of its own.

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use latticed::{
    claims::{KeyPair, Role},
    config::settings,
};
use serde_json::Value;
use tempfile::TempDir;

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    /// Runs `latticed check WORDS` in the desk's directory with nothing but `environment` set.
    fn run(&self, words: &str, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
        command.current_dir(self.0.path()).arg("check").args(words.split_whitespace()).env_clear();
        command.env("HOME", self.0.path()).envs(environment.iter().copied()).output().unwrap()
    }

    fn ok(&self, words: &str, environment: &[(&str, &str)]) -> (String, String) {
        let output = self.run(words, environment);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words}: {error}");
        (String::from_utf8(output.stdout).unwrap(), error)
    }

    fn json(&self, words: &str, environment: &[(&str, &str)]) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --json"), environment).0).unwrap()
    }

    fn fails(&self, words: &str, environment: &[(&str, &str)], code: i32) -> String {
        let output = self.run(words, environment);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}: {error}");
        error
    }

    /// A manifest of one actor with these modules and links beside it.
    fn manifest(&self, module: &str, traits: &str) {
        let text = format!(
            "apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: app, annotations: {{version: v1}}}}
spec:
  components:
    - name: guest
      type: actor
      properties:
        image: file://{module}
      traits:
        - {{type: spreadscaler, properties: {{replicas: 2}}}}
{traits}    - name: store
      type: capability
      properties:
        image: builtin:keyvalue
        contract: wasmcloud:keyvalue
"
        );
        self.write("app.yaml", text);
    }

    fn guest(&self, name: &str, file: &str) {
        fs::copy(support::guests::module_path(name), self.0.path().join(file)).unwrap();
    }
}

const LINK: &str = "        - {type: linkdef, properties: {target: store}}\n";

fn setting<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["settings"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

#[test]
fn the_settings_of_a_service_are_shown_with_their_file() {
    let desk = Desk::new();
    desk.write("service.env", "WASMCLOUD_LOG_LEVEL=debug\nWASMCLOUD_DRAIN_MS=7\nHOST_SITE=north\n");
    let shown = desk.json("--env-file service.env", &[("WASMCLOUD_DRAIN_MS", "9")]);
    let row = |name: &str| {
        let rows = shown["settings"].as_array().expect("rows");
        rows.iter().find(|row| row["name"] == name).expect("a setting").clone()
    };
    assert_eq!(
        (&row("WASMCLOUD_LOG_LEVEL")["value"], &row("WASMCLOUD_LOG_LEVEL")["origin"]),
        (&"debug".into(), &"service.env:1".into())
    );
    assert_eq!(row("WASMCLOUD_DRAIN_MS")["value"], "9", "the environment is stronger");
    assert_eq!(shown["labels"]["site"], "north");
    assert!(desk.fails("--env-file missing.env", &[], 4).contains("missing.env"));
}

#[test]
fn settings_are_shown_with_their_origin_and_secrets_are_not() {
    let desk = Desk::new();
    let seed = KeyPair::generate(Role::User).unwrap().seed().expose().to_owned();
    desk.write(".env", format!("# ours\nWASMCLOUD_RPC_HOST=nats.lan\nWASMCLOUD_RPC_SEED={seed}\n"));
    desk.write("host_config.json", r#"{"rpc_host": "elsewhere", "ctl_port": 4333, "rpc_jwt": "eyJVERYSECRET"}"#);
    let environment = [("WASMCLOUD_LATTICE", "farm"), ("WASMCLOUD_ACTOR_MEMORY_BYTES", "4MiB"), ("HOST_ZONE", "shed")];
    let document = desk.json("", &environment);
    let expect = |name: &str, value: &str, origin: &str| {
        let row = setting(&document, name);
        assert_eq!((row["value"].as_str(), row["origin"].as_str()), (Some(value), Some(origin)), "{row}");
    };
    expect("WASMCLOUD_RPC_HOST", "nats.lan", ".env:2");
    expect("WASMCLOUD_CTL_PORT", "4333", "host_config.json");
    expect("WASMCLOUD_LATTICE_PREFIX", "farm", "environment");
    expect("WASMCLOUD_ACTOR_MEMORY_BYTES", "4M", "environment");
    expect("WASMCLOUD_LOG_LEVEL", "info", "default");
    expect("WASMCLOUD_RPC_SEED", "(set, hidden)", ".env:3");
    expect("WASMCLOUD_RPC_JWT", "(set, hidden)", "host_config.json");
    assert_eq!(setting(&document, "WASMCLOUD_LATTICE_PREFIX")["alias"], "WASMCLOUD_LATTICE");
    assert_eq!(setting(&document, "WASMCLOUD_JS_DOMAIN")["value"], Value::Null);
    assert_eq!(document["labels"]["zone"], "shed");
    assert_eq!(document["settings"].as_array().unwrap().len(), settings::SETTINGS.len());

    let (text, _) = desk.ok("", &environment);
    assert!(text.contains("WASMCLOUD_RPC_HOST") && text.contains("zone=shed"), "{text}");
    for secret in ["VERYSECRET", &*seed] {
        assert!(!text.contains(secret) && !document.to_string().contains(secret), "{text}");
    }
}

#[test]
fn the_state_directory_follows_the_user_and_systemd() {
    let desk = Desk::new();
    let directory = |environment: &[(&str, &str)]| {
        setting(&desk.json("", environment), "WASMCLOUD_STATE_DIR")["value"].as_str().unwrap().to_owned()
    };
    assert_eq!(directory(&[("STATE_DIRECTORY", "/var/lib/service")]), "/var/lib/service");
    assert_eq!(directory(&[("WASMCLOUD_STATE_DIR", "/srv/x"), ("STATE_DIRECTORY", "/var/lib/service")]), "/srv/x");
}

#[test]
fn warnings_leave_the_exit_code_and_errors_set_it() {
    let desk = Desk::new();
    let (_, error) = desk.ok("", &[("WASMCLOUD_LOGLEVEL", "x"), ("WASMCLOUD_HOST_SEED", "SNVERYSECRET")]);
    assert!(error.contains("did you mean WASMCLOUD_LOG_LEVEL?") && error.contains("WASMCLOUD_HOST_SEED"), "{error}");
    assert!(!error.contains("VERYSECRET"), "{error}");
    let error = desk.fails("", &[("WASMCLOUD_RPC_PORT", "many")], 3);
    assert_eq!(
        error,
        "latticed: WASMCLOUD_RPC_PORT (environment): expected a whole number from 1 to 65535, got \"many\"\n"
    );
    let error = desk.fails("", &[("WASMCLOUD_CLUSTER_SEED", "SCVERYSECRET")], 3);
    assert!(error.contains("WASMCLOUD_CLUSTER_SEED") && !error.contains("VERYSECRET"), "{error}");
    desk.write(".env", "WASMCLOUD_LOG_LEVEL=info\nnonsense\n");
    assert!(desk.fails("", &[], 3).contains(".env:2: expected NAME=value"));
}

#[test]
fn a_host_config_elsewhere_can_be_checked() {
    let desk = Desk::new();
    desk.write("other.json", r#"{"lattice_prefix": "barn", "rpc_hots": "x"}"#);
    let document = desk.json("other.json", &[]);
    assert_eq!(setting(&document, "WASMCLOUD_LATTICE_PREFIX")["origin"], "other.json");
    assert!(document["warnings"][0].as_str().unwrap().contains("did you mean rpc_host?"), "{document}");
    assert!(desk.fails("missing.json", &[], 4).contains("missing.json"));
}

#[test]
fn a_module_is_shown_with_claims_and_imports() {
    let desk = Desk::new();
    desk.guest("echo", "echo.wasm");
    let document = desk.json("echo.wasm", &[]);
    assert_eq!(document["subject"], support::guests::key("echo"));
    assert_eq!(document["issuer"], support::guests::account().public_key().to_string());
    let imports = document["imports"].as_array().unwrap();
    assert!(imports.iter().any(|import| import == "wasmbus.__guest_request"), "{document}");
    assert!(document["memory_bytes"].as_u64().unwrap() >= 65536 && document["compiled_bytes"].as_u64().unwrap() > 0);
    let (text, error) = desk.ok("echo.wasm", &[]);
    assert!(text.ends_with("this host would run it\n") && error.is_empty(), "{text}{error}");
}

#[test]
fn a_module_that_would_be_refused_says_why() {
    let desk = Desk::new();
    desk.guest("echo", "echo.wasm");
    let mut bytes = fs::read(support::guests::module_path("echo")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    desk.write("changed.wasm", &bytes);
    let error = desk.fails("changed.wasm", &[], 6);
    assert!(error.starts_with("latticed: changed.wasm: "), "{error}");
    desk.write("unsigned.wasm", b"\0asm\x01\0\0\0");
    assert!(desk.fails("unsigned.wasm", &[], 6).contains("No claims found in source module"));
    let stranger = latticed::claims::KeyPair::from_name(latticed::claims::Role::Account, "stranger").public_key();
    let environment = [("WASMCLOUD_ALLOWED_ISSUERS", &*stranger.to_string())];
    assert!(desk.fails("echo.wasm", &environment, 7).contains("WASMCLOUD_ALLOWED_ISSUERS"));
    let error = desk.fails("echo.wasm", &[("WASMCLOUD_ACTOR_MODULE_BYTES", "1K")], 8);
    assert!(error.contains("WASMCLOUD_ACTOR_MODULE_BYTES"), "{error}");
}

#[test]
fn a_manifest_is_checked_with_its_files() {
    let desk = Desk::new();
    desk.guest("counter", "counter.wasm");
    desk.manifest("counter.wasm", LINK);
    let document = desk.json("app.yaml", &[]);
    assert_eq!(document["actors"][0]["subject"], support::guests::key("counter"));
    assert_eq!(document["actors"][0]["max_concurrent"], 2);
    assert_eq!(document["capabilities"][0]["link_name"], "default");
    assert_eq!(document["warnings"], Value::Array(Vec::new()), "{document}");
    let (text, _) = desk.ok("app.yaml", &[]);
    assert!(text.starts_with("application app v1\n") && text.ends_with("this host would run it\n"), "{text}");

    desk.guest("echo", "echo.wasm");
    desk.manifest("echo.wasm", LINK);
    let (_, error) = desk.ok("app.yaml", &[]);
    assert!(error.contains("app.yaml:12:48: guest does not claim wasmcloud:keyvalue"), "{error}");
}

#[test]
fn a_manifest_that_cannot_run_names_line_and_column() {
    let desk = Desk::new();
    desk.manifest("missing.wasm", "");
    let error = desk.fails("app.yaml", &[], 4);
    assert!(error.contains("app.yaml:6:13: guest: ") && error.contains("missing.wasm"), "{error}");
    desk.manifest("missing.wasm", &LINK.replace("store", "stoer"));
    let error = desk.fails("app.yaml", &[], 3);
    assert!(error.starts_with("latticed: app.yaml:12:48: the target \"stoer\"") && error.contains("store?"), "{error}");
    desk.write("app.yaml", "kind: [\n");
    assert!(desk.fails("app.yaml", &[], 3).contains("app.yaml:1:7: not valid YAML"));
}

#[test]
fn the_quickstarts_would_run() {
    for name in ["counter", "mailbox"] {
        let manifest = format!("{}/tests/quickstart/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let (text, error) = Desk::new().ok(&manifest, &[]);
        // What else runs on this machine may listen there just now.
        let free = error.lines().all(|line| line.contains(" a program listens on 127.0.0.1:"));
        assert!(text.ends_with("this host would run it\n") && free, "{text}{error}");
    }
    let (text, _) = Desk::new().ok(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/quickstart"), &[]);
    assert!(text.ends_with("this host would run all 3\n"), "no two of them listen on one port: {text}");
}

/// What `check` shows is what `run` does: a limit from the environment holds, and HOST_CONFIG is written first.
#[test]
fn a_run_takes_the_settings_that_check_shows() {
    let desk = Desk::new();
    desk.guest("echo", "echo.wasm");
    desk.manifest("echo.wasm", "");
    let mut host = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .current_dir(desk.0.path())
        .args(["run", "app.yaml"])
        .env_clear()
        .envs([("WASMCLOUD_STATE_DIR", "state"), ("WASMCLOUD_ADMIN_SOCKET", "admin.sock"), ("HOST_CONFIG", "out.json")])
        .envs([
            ("WASMCLOUD_ACTOR_MODULE_BYTES", "1K"),
            ("WASMCLOUD_LATTICE_PREFIX", "farm"),
            ("WASMCLOUD_JOIN", "never"),
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while host.try_wait().unwrap().is_none() && started.elapsed().as_secs() < 20 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A host that took the module still runs; it must not outlive the test.
    let _ = host.kill();
    let output = host.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(8), "{error}");
    assert!(error.contains("WASMCLOUD_ACTOR_MODULE_BYTES"), "{error}");
    let written: Value = serde_json::from_slice(&fs::read(desk.0.path().join("out.json")).unwrap()).unwrap();
    assert_eq!((&written["lattice_prefix"], &written["rpc_port"]), (&"farm".into(), &4222.into()));
}

#[test]
fn checking_writes_nothing() {
    let desk = Desk::new();
    desk.guest("counter", "counter.wasm");
    desk.manifest("counter.wasm", LINK);
    for words in ["", "app.yaml", "counter.wasm"] {
        desk.ok(words, &[]);
    }
    let mut names: Vec<_> = fs::read_dir(desk.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["app.yaml", "counter.wasm"]);
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/README.md")).unwrap();
    let (_, after) = readme.split_once("<!-- settings -->\n").expect("it marks where the table begins");
    let (table, _) = after.split_once("<!-- end of settings -->").expect("it marks where the table ends");
    let made = Desk::new().ok("--markdown", &[]).0;
    assert_eq!(made, settings::markdown());
    assert!(
        table.trim() == made.trim(),
        "src/config/README.md is behind: put in what `latticed check --markdown` prints"
    );
}
