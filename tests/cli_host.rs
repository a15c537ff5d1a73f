//! The commands against a running host: `run`, `status`, `call`, `stop`, and two hosts that want one socket.
//!
//! Everything is the shipped binary and a signed guest; each test has directories of its own.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use latticed::host::HostStatus;
use support::guests;

/// Generous: the machine may be busy, and a debug build compiles actors slowly.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory for a host's state and socket, and the environment that points there.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        let manifest = format!(
            "apiVersion: core.oam.dev/v1beta1\nkind: Application\nmetadata:\n  name: test\n  annotations:\n    \
             version: v0.0.1\nspec:\n  components:\n    - name: echo\n      type: actor\n      properties:\n        \
             image: file://{}\n    - name: spinner\n      type: actor\n      properties:\n        image: file://{}\n",
            guests::module_path("echo").display(),
            guests::module_path("hostile/endless_loop").display(),
        );
        fs::write(directory.path().join("test.yaml"), manifest).expect("write");
        Self { directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/admin.sock")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.directory.path())
            .env("WASMCLOUD_STATE_DIR", self.directory.path().join("state"))
            .env("WASMCLOUD_ADMIN_SOCKET", self.socket())
            .env("WASMCLOUD_JOIN", "never")
            .stdin(Stdio::null());
        command
    }

    fn latticed(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    fn status(&self) -> HostStatus {
        let output = self.latticed(&["status", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("a status")
    }

    /// Starts a host and waits until both of its actors run.
    fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let log = thread::spawn(move || log.lines().map_while(Result::ok).collect());
        let mut running = Running { child, log: Some(log) };
        let start = Instant::now();
        loop {
            let output = self.latticed(&["status", "--json"]);
            if let Ok(status) = serde_json::from_slice::<HostStatus>(&output.stdout)
                && status.actors.len() == 2
                && status.actors.iter().all(|actor| actor.state == "running")
            {
                return running;
            }
            let ended = running.child.try_wait().expect("a child");
            if ended.is_some() || start.elapsed() > PATIENCE {
                panic!("no host came up: {ended:?} {output:?}\n{}", running.end().join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A host's process; killed when the test ends early.
struct Running {
    child: Child,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Running {
    /// Ends the process if it still runs, and gives its log.
    fn end(&mut self) -> Vec<String> {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.take().and_then(|log| log.join().ok()).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

const REQUEST: &str = r#"{"method":"GET","path":"/raw","queryString":"","header":{},"body":{"$bin":"aGVsbG8="}}"#;

#[test]
fn a_running_host_is_called_shown_and_stopped() {
    let place = Place::new();
    let mut host = place.start(&["run", "test.yaml"]);

    for actor in ["test/echo", &guests::key("echo")] {
        let answer = place.latticed(&["call", actor, "HttpServer.HandleRequest", REQUEST]);
        assert!(answer.status.success(), "{answer:?}");
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
        assert_eq!((&answer["statusCode"], &answer["body"]), (&200.into(), &"hello".into()), "{answer}");
    }

    let status = place.status();
    let echo = status.actors.iter().find(|actor| actor.public_key == guests::key("echo")).expect("echo");
    assert_eq!((echo.calls, echo.errors, echo.instances, echo.name.as_str()), (2, 0, 0, "echo"));
    assert!(echo.fuel > 0 && status.memory.pss_bytes > 0, "{status:?}");
    let page = String::from_utf8(place.latticed(&["status"]).stdout).expect("UTF-8");
    for part in [&status.friendly_name, &status.host_id, &guests::key("echo"), "endless_loop"] {
        assert!(page.contains(part), "{part}: {page}");
    }

    // Whatever the status shows names the actor: its name, and the beginning of its key.
    for word in ["echo", &guests::key("echo")[..12]] {
        let answer = place.latticed(&["call", word, "HttpServer.HandleRequest", REQUEST]);
        assert!(answer.status.success() && answer.stderr.is_empty(), "{word}: {answer:?}");
    }

    let stopped = place.latticed(&["stop"]);
    assert!(stopped.status.success(), "{stopped:?}");
    // `stop` returns when the process is gone, not when it has promised to go.
    let ended = host.child.try_wait().expect("a child").expect("it has ended");
    assert!(ended.success(), "{ended:?}: {:?}", host.end());
    assert!(!place.socket().exists());
    assert_eq!(place.latticed(&["stop"]).status.code(), Some(10));
}

#[test]
fn what_goes_wrong_in_a_call_has_its_exit_code() {
    let place = Place::new();
    let _host = place.start(&["run", "test.yaml"]);
    for (arguments, code) in [
        (&["call", "nobody", "A.B"][..], 4),
        (&["call", &guests::key("fetch"), "A.B"], 10),
        (&["call", "test/echo", "HttpServer.HandleRequest", "[1]"], 12),
        (&["call", "test/echo", "No.Such"], 12),
        (&["call", "hostile/endless_loop", "A.B", "--timeout", "0.3"], 9),
    ] {
        let answer = place.latticed(arguments);
        assert_eq!(answer.status.code(), Some(code), "{arguments:?}: {answer:?}");
        let error = String::from_utf8(answer.stderr).expect("UTF-8");
        assert!(error.starts_with("latticed: ") && error.trim_end().lines().count() == 1, "{arguments:?}: {error}");
    }
    // The host is none the worse.
    assert!(place.latticed(&["call", "test/echo", "HttpServer.HandleRequest", REQUEST]).status.success());
}

#[test]
fn a_payload_beyond_the_limit_is_refused_by_name() {
    let place = Place::new();
    let _host = place.start(&["run", "test.yaml"]);
    let large = place.directory.path().join("large");
    fs::write(&large, vec![0; 8 * 1024 * 1024]).expect("write");
    let answer = place.latticed(&["call", "test/echo", "HttpServer.HandleRequest", "--body", "large"]);
    assert_eq!(answer.status.code(), Some(8), "{answer:?}");
    assert!(String::from_utf8_lossy(&answer.stderr).contains("limit"), "{answer:?}");
}

#[test]
fn a_second_host_is_refused_and_a_killed_one_is_followed() {
    let place = Place::new();
    let mut first = place.start(&["run", "test.yaml"]);
    let host_id = place.status().host_id;

    // A state directory of its own: the socket alone must stop it.
    let second = place
        .command(&["run", "test.yaml"])
        .env("WASMCLOUD_STATE_DIR", place.directory.path().join("other"))
        .output()
        .expect("the binary starts");
    assert_eq!(second.status.code(), Some(5), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another host answers"), "{second:?}");
    assert_eq!(place.status().host_id, host_id, "the first one keeps its socket");

    first.end();
    assert!(place.socket().exists(), "a killed host cannot clean up");
    assert_eq!(place.latticed(&["status"]).status.code(), Some(10));
    // Without the manifest: what ran before runs again, under the same identity.
    let _third = place.start(&["run"]);
    assert_eq!(place.status().host_id, host_id);
}
