//! `latticed keys`, `claims` and `archive`, run as a user runs them: the real binary on real files.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use latticed::claims::{KeyPair, Now, Policy, Role, archive::host_target, verify_actor, verify_provider};
use serde_json::Value;
use tempfile::TempDir;

/// A directory with keys in it, and the program to run there.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
        command.current_dir(self.path()).args(words.split_whitespace());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a command that must succeed and gives its standard output.
    fn ok(&self, words: &str) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --json"))).unwrap()
    }

    /// Runs a command that must end with `code` and gives its standard error.
    fn fails(&self, words: &str, code: i32) -> String {
        let output = self.run(words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words}: {error}");
        error
    }

    fn key(&self, role: &str, file: &str) -> String {
        self.json(&format!("keys gen {role} --out {file}"))["public_key"].as_str().unwrap().to_string()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path().join(name)).unwrap()
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {pointer} in {value}"))
}

/// A module of a few bytes that uses nothing.
fn module() -> Vec<u8> {
    wat::parse_str("(module (func (export \"__guest_call\") (param i32 i32) (result i32) i32.const 1))").unwrap()
}

#[test]
fn every_role_can_be_generated_and_shown() {
    let desk = Desk::new();
    for (role, letter) in [
        ("host", 'N'),
        ("cluster", 'C'),
        ("operator", 'O'),
        ("account", 'A'),
        ("user", 'U'),
        ("module", 'M'),
        ("actor", 'M'),
        ("service", 'V'),
        ("provider", 'V'),
    ] {
        let made = desk.json(&format!("keys gen {role}"));
        let pair = KeyPair::from_seed(text(&made, "/seed")).unwrap();
        assert_eq!(pair.public_key().to_string(), text(&made, "/public_key"));
        assert!(text(&made, "/public_key").starts_with(letter));
        desk.write("seed", text(&made, "/seed"));
        let shown = desk.ok("keys show seed");
        assert!(shown.contains(text(&made, "/public_key")) && !shown.contains(text(&made, "/seed")), "{shown}");
    }
    let people = desk.ok("keys gen account");
    assert!(people.contains("Public key  A") && people.contains("Seed        SA"), "{people}");
    assert!(desk.fails("keys gen wizard", 2).contains("no key role 'wizard'"));
}

#[test]
fn a_seed_file_is_private_and_is_not_overwritten_by_chance() {
    let desk = Desk::new();
    let said = desk.ok("keys gen account --out account.nk");
    let seed = String::from_utf8(desk.read("account.nk")).unwrap();
    assert_eq!(seed.trim_end(), seed, "other tools take the whole file for the seed");
    assert!(seed.starts_with("SA") && !said.contains(seed.trim()), "{said}");
    let mode = fs::metadata(desk.path().join("account.nk")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert!(desk.fails("keys gen account --out account.nk", 5).contains("--force"));
    assert_eq!(desk.read("account.nk"), seed.as_bytes());
    desk.ok("keys gen account --out account.nk --force");
    assert_ne!(desk.read("account.nk"), seed.as_bytes());
}

#[test]
fn seeds_come_from_files_and_the_environment_and_never_from_the_command_line() {
    let desk = Desk::new();
    let pair = KeyPair::generate(Role::Account).unwrap();
    let seed = pair.seed();
    let output = desk.command("keys show env:LATTICED_SEED").env("LATTICED_SEED", seed.expose()).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(&pair.public_key().to_string()));

    let error = desk.fails(&format!("keys show {}", seed.expose()), 2);
    assert!(!error.contains(seed.expose()) && error.contains("env:NAME"), "{error}");

    let mut damaged = seed.expose().to_string();
    let other = if &damaged[20..21] == "2" { "3" } else { "2" };
    damaged.replace_range(20..21, other);
    desk.write("damaged.nk", damaged);
    let error = desk.fails("keys show damaged.nk", 6);
    assert!(error.contains("checksum") && error.contains("damaged.nk"), "{error}");
    assert!(desk.fails("keys show nothing.nk", 4).contains("latticed keys gen"));
    let public = pair.public_key().to_string();
    assert!(desk.ok(&format!("keys show {public}")).contains("account"));
}

#[test]
fn a_module_is_signed_inspected_and_accepted_by_a_host() {
    let desk = Desk::new();
    let account = desk.key("account", "account.nk");
    let actor = desk.key("module", "echo.nk");
    desk.write("echo.wasm", module());
    let said =
        desk.ok("claims sign echo.wasm --issuer account.nk --subject echo.nk --name Echo --cap wasmcloud:httpserver \
         --cap wasmcloud:keyvalue,acme:thing --tag test --rev 4 --ver 0.4.0 --call-alias Acme/Echo-Actor \
         --expires-in 30d");
    assert!(said.contains("echo_s.wasm") && said.contains(&actor) && said.contains(&account), "{said}");

    let accepted = verify_actor(&desk.read("echo_s.wasm"), &Policy::new(Now::from_system(0))).unwrap();
    assert_eq!((accepted.subject.as_str(), accepted.issuer.as_str()), (actor.as_str(), account.as_str()));
    assert_eq!((accepted.name.as_str(), accepted.version.as_str(), accepted.revision), ("Echo", "0.4.0", 4));
    assert_eq!(accepted.caps, ["wasmcloud:httpserver", "wasmcloud:keyvalue", "acme:thing"]);
    assert_eq!(accepted.call_alias.as_deref(), Some("acme/echo_actor"));
    assert_eq!(accepted.expires, Some(accepted.issued + 30 * 86_400));

    let shown = desk.json("claims inspect echo_s.wasm");
    assert_eq!(shown["valid"], true);
    assert_eq!(shown["problem"], Value::Null);
    assert_eq!(text(&shown, "/kind"), "module");
    assert_eq!(text(&shown, "/claims/call_alias"), "acme/echo_actor");
    assert_eq!(text(&shown, "/token"), accepted.token);
    let shown = desk.ok("claims inspect echo_s.wasm");
    for part in ["Echo", "wasmcloud:httpserver, wasmcloud:keyvalue, acme:thing", "Revision      4", "Valid         yes"]
    {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    // Half a minute of slack would read `in 29 days 23 h`.
    assert!(shown.contains("(in 30 days)") || shown.contains("(in 29 days"), "{shown}");

    // Signing again replaces the token, and -o and a public key as subject work.
    desk.ok(&format!("claims sign echo_s.wasm --issuer account.nk --subject {actor} -o again.wasm"));
    let again = verify_actor(&desk.read("again.wasm"), &Policy::new(Now::from_system(0))).unwrap();
    assert_eq!((again.name.as_str(), again.caps.len(), again.expires), ("echo_s", 0, None));
    assert_eq!(again.module_hash, accepted.module_hash);
}

#[test]
fn what_a_host_would_refuse_is_shown_and_ends_with_a_code() {
    let desk = Desk::new();
    desk.key("account", "account.nk");
    desk.key("module", "echo.nk");
    desk.write("echo.wasm", module());
    assert!(desk.fails("claims inspect echo.wasm", 6).contains("No claims found in source module"));

    desk.ok("claims sign echo.wasm --issuer account.nk --subject echo.nk --valid-in 1w -o early.wasm");
    assert!(desk.fails("claims inspect early.wasm", 7).contains("Claims token cannot be used yet"));

    desk.ok("claims sign echo.wasm --issuer account.nk --subject echo.nk");
    let mut tampered = desk.read("echo_s.wasm");
    let at = tampered.windows(12).position(|window| window == b"__guest_call").unwrap();
    tampered[at] = b'X';
    desk.write("tampered.wasm", tampered);
    let output = desk.run("claims inspect tampered.wasm --json");
    assert_eq!(output.status.code(), Some(6));
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["valid"], false);
    assert!(text(&shown, "/problem").ends_with("Invalid module hash"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("tampered.wasm"));

    desk.write("text.wasm", "(module)");
    assert!(desk.fails("claims sign text.wasm --issuer account.nk --subject echo.nk", 6).contains("WebAssembly text"));
    assert!(desk.fails("claims sign echo.wasm --issuer echo.nk --subject echo.nk", 2).contains("account"));
    assert!(desk.fails("claims sign echo.wasm --issuer account.nk --subject account.nk", 2).contains("module"));
    let wrong = "claims sign echo.wasm --issuer account.nk --subject echo.nk";
    assert!(desk.fails(&format!("{wrong} --call-alias a+b"), 2).contains("call alias"));
    assert!(desk.fails(&format!("{wrong} --expires-in 1h --valid-in 2h"), 2).contains("expire before"));
    assert!(desk.fails(&format!("{wrong} --rev 0"), 2).contains("--rev"));
    assert!(desk.fails(&format!("{wrong} --expires-in soon"), 2).contains("30d"));
}

#[test]
fn tokens_of_every_kind_are_written_and_inspected() {
    let desk = Desk::new();
    for (role, file) in
        [("operator", "o.nk"), ("account", "a.nk"), ("cluster", "c.nk"), ("module", "m.nk"), ("service", "v.nk")]
    {
        desk.key(role, file);
    }
    let signer = desk.key("account", "a2.nk");
    desk.write("echo.wasm", module());
    desk.write("kv", "binary");
    desk.write("schema.json", r#"{"type":"object"}"#);
    for (kind, options, shows) in [
        ("actor", "--issuer a.nk --subject m.nk --module echo.wasm --cap a:b --expires-in 1h", "a:b"),
        (
            "provider",
            "--issuer a.nk --subject v.nk --name KV --vendor Acme --capid a:kv --schema schema.json \
             --binary arm-linux=kv",
            "arm-linux",
        ),
        ("account", &format!("--issuer o.nk --subject a.nk --name Edge --signer {signer}"), &signer),
        ("operator", "--issuer o.nk --name Acme", "Acme"),
        ("cluster", "--issuer o.nk --subject c.nk --name Plant", "Plant"),
    ] {
        let token = desk.ok(&format!("claims token {kind} {options}"));
        desk.write("token.jwt", &token);
        let shown = desk.ok("claims inspect token.jwt");
        assert!(shown.contains(shows) && shown.contains("Valid         yes"), "{shown}");
        assert_eq!(shown, desk.ok(&format!("claims inspect {}", token.trim())));

        let (signed, signature) = token.trim().rsplit_once('.').unwrap();
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let forged = format!("{signed}.{first}{}", &signature[1..]);
        assert!(desk.fails(&format!("claims inspect {forged}"), 7).contains("Invalid signature"));
    }
    let module_hash = desk.json("claims token actor --issuer a.nk --subject m.nk --module echo.wasm");
    assert!(text(&module_hash, "/token").starts_with("eyJ"));
    assert!(desk.fails("claims token account --issuer a.nk --subject a.nk", 2).contains("operator"));
}

#[test]
fn an_archive_of_several_targets_is_created_inspected_and_loaded() {
    let desk = Desk::new();
    let account = desk.key("account", "account.nk");
    let provider = desk.key("service", "kv.nk");
    desk.write("mine", b"binary for this machine");
    desk.write("other", vec![7; 70_000]);
    let target = host_target();
    let options = format!(
        "--issuer account.nk --subject kv.nk --name AcmeKV --vendor Acme --capid wasmcloud:keyvalue --rev 2 \
         --binary {target}=mine --binary riscv64-linux=other"
    );
    for (flags, file, compressed) in [("", "acmekv.par", false), ("--compress", "acmekv.par.gz", true)] {
        let said = desk.ok(&format!("archive create {options} {flags}"));
        assert!(said.contains(file) && said.contains(&provider) && said.contains("riscv64-linux"), "{said}");
        let shown = desk.json(&format!("archive inspect {file}"));
        assert_eq!((&shown["valid"], &shown["compressed"]), (&Value::from(true), &Value::from(compressed)));
        assert_eq!(shown["binaries"].as_array().map(Vec::len), Some(2));
        assert_eq!(text(&shown, "/claims/capid"), "wasmcloud:keyvalue");
        let people = desk.ok(&format!("archive inspect {file}"));
        assert!(people.contains("riscv64-linux, 70000 bytes, hash matches"), "{people}");

        let mut binary = Vec::new();
        let archive = desk.read(file);
        let loaded =
            verify_provider(archive.as_slice(), &target, &mut binary, &Policy::new(Now::from_system(0))).unwrap();
        assert_eq!((loaded.subject.as_str(), loaded.issuer.as_str()), (provider.as_str(), account.as_str()));
        assert_eq!((loaded.name.as_str(), loaded.revision, loaded.expires), ("AcmeKV", 2, None));
        assert_eq!(binary, b"binary for this machine");
    }
    assert!(desk.fails("claims inspect acmekv.par.gz", 2).contains("archive inspect"));

    let mut damaged = desk.read("acmekv.par");
    let at = damaged.windows(8).position(|window| window == [7; 8]).unwrap();
    damaged[at] = 8;
    desk.write("damaged.par", damaged);
    let output = desk.run("archive inspect damaged.par");
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8(output.stdout).unwrap().contains("HASH DOES NOT MATCH"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("do not match for 'riscv64-linux'"));

    desk.write("short.par", "x");
    assert!(desk.fails("archive inspect short.par", 6).contains("Not enough bytes to be a valid PAR file"));
    assert!(desk.fails(&format!("archive create {options} --binary {target}=other"), 2).contains("twice"));
    assert!(desk.fails(&format!("archive create {options} --binary claims=other"), 2).contains("not a target"));
    assert!(desk.fails(&format!("archive create {options} --binary arm-linux=nothing"), 4).contains("nothing"));
}

#[test]
fn help_of_every_command_has_an_example() {
    let desk = Desk::new();
    for command in [
        "keys",
        "keys gen",
        "keys show",
        "claims",
        "claims sign",
        "claims inspect",
        "claims token",
        "claims token actor",
        "claims token provider",
        "claims token account",
        "claims token operator",
        "claims token cluster",
        "archive",
        "archive create",
        "archive inspect",
    ] {
        let help = desk.ok(&format!("{command} --help"));
        assert!(help.contains(&format!("latticed {command} ")), "{command}: {help}");
    }
}
