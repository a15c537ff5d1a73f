//! Guests that mean harm, in the real program, beside one that does not.
//!
//! `tests/actors/hostile/*.wat` say in their second line what they must end in: `ends in: TEXT` is the error of a call,
//! `refused with: TEXT` why an actor cannot start.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

mod support;
use support::{
    guests,
    host::{Host, Sandbox},
    http,
    manifest::Manifest,
    process,
};

/// Fuel of a call in these tests: enough for anything well-behaved, burnt in a fraction of a second by a debug build.
const FUEL: &str = "10000000";

/// Time of a call in these tests, ms: so much that fuel runs out first on a machine that runs all tests at once.
const DEADLINE_MS: &str = "50000";

/// Room for compiled modules in these tests: the echo's and little more, so that memory can return to what it was.
const MODULE_CACHE_BYTES: &str = "1000000";

/// How far memory may stay above what it was.
const TOLERANCE_BYTES: u64 = 1_000_000;

/// How long the host may take to give memory back.
const SETTLE: Duration = Duration::from_secs(30);

/// How long the host is left alone before its memory is taken as what it was.
const REST: Duration = Duration::from_secs(12);

/// The longest the well-behaved guest may wait for an answer. A slice is some milliseconds; the rest is for machines
/// that run all tests at once.
const ECHO_PATIENCE: Duration = Duration::from_secs(2);

/// One hostile guest and what its file says of it.
struct Hostile {
    name: String,
    expected: Expected,
}

enum Expected {
    /// A call ends in an error with this text.
    EndsIn(String),
    /// It never starts, and the host tells the reason in this text.
    RefusedWith(String),
}

fn hostile_guests() -> Vec<Hostile> {
    let folder = fs::read_dir(guests::sources().join("hostile")).expect("the guests are there");
    let mut guests: Vec<Hostile> = folder
        .map(|entry| {
            let path = entry.expect("the folder can be read").path();
            let source = fs::read_to_string(&path).expect("a guest is text");
            let note = source.lines().nth(1).unwrap_or_default();
            let expected = match (note.strip_prefix(";; ends in: "), note.strip_prefix(";; refused with: ")) {
                (Some(text), None) => Expected::EndsIn(text.to_string()),
                (None, Some(text)) => Expected::RefusedWith(text.to_string()),
                _ => panic!("the second line of {} does not say what it must end in", path.display()),
            };
            let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("names of guests are UTF-8");
            Hostile { name: format!("hostile/{stem}"), expected }
        })
        .collect();
    guests.sort_by(|one, other| one.name.cmp(&other.name));
    guests
}

/// Asks the echo without a pause until stopped; every answer must come, be right and be in time.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<u32>,
}

impl Witness {
    fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut answers = 0;
            let mut connection = http::Connection::open(address).expect("the echo listens");
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let path = format!("/{answers}");
                let (status, body) = connection.exchange(&http::request("GET", &path, b"")).expect("the echo answers");
                let body = String::from_utf8_lossy(body);
                assert!(status == 200 && body.contains(&format!("{path:?}")), "answer {answers}: {status} {body}");
                assert!(asked.elapsed() < ECHO_PATIENCE, "answer {answers} took {:?}", asked.elapsed());
                answers += 1;
                thread::sleep(Duration::from_millis(5));
            }
            answers
        });
        Self { stop, thread }
    }

    /// How many answers it got.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the well-behaved guest answered every request")
    }
}

#[test]
fn each_hostile_guest_ends_in_its_own_error_and_harms_nobody() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let address = http::free_address();
    let hostile = hostile_guests();
    let mut manifest = Manifest::new("hostile");
    manifest.actor("echo", &guests::module_path("echo"), 2).http(address);
    for guest in &hostile {
        // As many places as calls may nest, so that the guest that calls itself meets that limit and not its own queue.
        manifest.actor(&guest.name.replace(['/', '_'], "-"), &guests::module_path(&guest.name), 8);
    }
    let manifest = sandbox.write("hostile.yaml", manifest.text());
    let settings = [
        ("WASMCLOUD_ACTOR_FUEL", FUEL),
        ("WASMCLOUD_ACTOR_DEADLINE_MS", DEADLINE_MS),
        ("WASMCLOUD_MODULE_CACHE_BYTES", MODULE_CACHE_BYTES),
    ];
    let mut host = sandbox.run(&manifest, &settings);
    host.wait_for(&format!("http://{address}"));
    http::wait_for_200(address, SETTLE).unwrap();

    for guest in &hostile {
        if let Expected::RefusedWith(text) = &guest.expected {
            assert_refused(&host, &guest.name, text);
        }
    }

    // Once first: what the program reads of itself from the disk to answer them counts as memory too, once.
    call_all(&host, &hostile);
    let before = at_rest(&host);
    let witness = Witness::start(address);
    for _ in 0..3 {
        call_all(&host, &hostile);
    }
    let answers = witness.stop();
    assert!(answers > 10, "only {answers} answers of the well-behaved guest meanwhile");
    let limit = before + TOLERANCE_BYTES;
    let after = settled(&host, limit);
    assert!(after <= limit, "{before} bytes before, {after} bytes {SETTLE:?} after");

    let (status, output) = host.terminate();
    assert!(status.success(), "{status}: {output}");
    assert!(!output.contains("panicked"), "{output}");
    // The log flood wrote 1.8 GB in three calls.
    assert!(output.len() < 1_000_000, "{} bytes of log", output.len());
}

/// Calls every guest that can be called, and looks at how it ends.
fn call_all(host: &Host, hostile: &[Hostile]) {
    for guest in hostile {
        if let Expected::EndsIn(text) = &guest.expected {
            let error = match host.call(&guest.name, "Hostile.Run", b"\xa7payload") {
                Err(error) => error,
                Ok(answer) => panic!("{} was to end in {text:?} and answered {} bytes", guest.name, answer.len()),
            };
            assert!(error.contains(text.as_str()), "{} was to end in {text:?}: {error:.1000}", guest.name);
            assert!(error.len() < 100_000, "{} ended in an error of {} bytes", guest.name, error.len());
        }
    }
}

/// The host tells what keeps the guest `name` from running, and tells it in `text`.
fn assert_refused(host: &Host, name: &str, text: &str) {
    let key = guests::key(name);
    let end = Instant::now() + SETTLE;
    loop {
        let status = host.status();
        if let Some(problem) = status.problems.iter().find(|problem| problem.contains(&key)) {
            assert!(problem.contains(text), "{name} was to be refused with {text:?}: {problem}");
            assert!(status.actors.iter().all(|actor| actor.public_key != key), "{name} was refused and runs");
            return;
        }
        assert!(Instant::now() < end, "{name} was not refused; the host's problems: {:#?}", status.problems);
        thread::sleep(Duration::from_millis(50));
    }
}

fn memory(host: &Host) -> u64 {
    process::memory(host.pid()).expect("the kernel tells").pss
}

/// The least memory the host has while nothing happens: what its start left behind is given back within this time.
fn at_rest(host: &Host) -> u64 {
    let start = Instant::now();
    let mut least = u64::MAX;
    while start.elapsed() < REST {
        thread::sleep(Duration::from_millis(500));
        least = least.min(memory(host));
    }
    least
}

/// Memory of the host once it is at most `limit`, or after [`SETTLE`].
fn settled(host: &Host, limit: u64) -> u64 {
    let start = Instant::now();
    loop {
        let now = memory(host);
        if now <= limit || start.elapsed() > SETTLE {
            return now;
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Runs a manifest with the module `bytes`; the host must refuse it and say `text`.
fn assert_run_refuses(what: &str, bytes: &[u8], text: &str) {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let module = sandbox.write("module.wasm", bytes);
    let mut manifest = Manifest::new("refused");
    manifest.actor("refused", &module, 1);
    let manifest = sandbox.write("refused.yaml", manifest.text());
    let (status, output) = run_to_end(&sandbox, &manifest);
    assert!(!status.success(), "{what}: {output}");
    assert!(output.contains(text), "{what} was to be refused with {text:?}: {output}");
    assert!(!output.contains("panicked"), "{what}: {output}");
}

fn run_to_end(sandbox: &Sandbox, manifest: &Path) -> (std::process::ExitStatus, String) {
    let path = manifest.to_str().expect("temporary paths are UTF-8");
    let output = sandbox.command(&["run", path]).output().expect("the program can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_module_that_is_none_is_refused() {
    assert_run_refuses("an empty file", b"", "module");
    assert_run_refuses("a text", b"#!/bin/sh\nexit 0\n", "module");
    let echo = fs::read(guests::module_path("echo")).expect("the echo is built");
    for cut in [1, 7, 8, 9, 100, 50_000, echo.len() - 1] {
        assert_run_refuses(&format!("the first {cut} bytes of the echo"), &echo[..cut], "refused");
    }
}

#[test]
fn a_module_that_nobody_vouches_for_is_refused() {
    let unsigned = wat::parse_str(r#"(module (memory (export "memory") 1))"#).expect("it is well-formed");
    assert_run_refuses("an unsigned module", &unsigned, "No claims found in source module");
    let mut tampered = fs::read(guests::module_path("echo")).expect("the echo is built");
    let place = tampered.windows(12).position(|bytes| bytes == b"query_string").expect("the echo holds this text");
    tampered[place] = b'Q';
    assert_run_refuses("a module changed after signing", &tampered, "Invalid module hash");
}
