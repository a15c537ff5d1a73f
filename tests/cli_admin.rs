//! The admin API over a real Unix socket: curl and the command line as clients, and hostile ones.
//!
//! The host behind it is this test's own [`Control`], so that what is tested is the edge alone: what a client may do to
//! it, and what it sees.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use latticed::{
    error::{Error, Kind, Result},
    host::{ActorStatus, BoxFuture, Control, HostStatus},
    task,
    web::{Admin, Client, Settings, admin::MAX_CONNECTIONS},
};

/// Generous: the machine may be busy. Nothing waits for it unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// The largest payload of the hosts here, bytes.
const BODY_LIMIT_BYTES: usize = 1000;

#[derive(Default)]
struct Desk {
    stop_asked: AtomicBool,
    running: AtomicUsize,
}

/// Counts a call for as long as its future lives.
struct Running(Arc<Desk>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

struct TestHost(Arc<Desk>);

impl Control for TestHost {
    fn status(&self) -> HostStatus {
        let actor = ActorStatus {
            public_key: format!("M{}", "A".repeat(55)),
            name: "echo".into(),
            calls: 41,
            state: "running".into(),
            ..ActorStatus::default()
        };
        HostStatus { friendly_name: "test-host-1".into(), actors: vec![actor], ..HostStatus::default() }
    }

    fn call(
        &self,
        actor: String,
        operation: String,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>>> {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(self.0.clone());
        Box::pin(async move {
            let _running = running;
            match operation.as_str() {
                "Test.Echo" => Ok(payload),
                "Test.Names" => Ok(format!("\u{fffd}{actor} {}", timeout.as_millis()).into_bytes()),
                "Test.Large" => Ok(vec![7; 4 * 1024 * 1024]),
                "Test.Hang" => std::future::pending().await,
                kind => Err(Error::new(Kind::from_name(kind).unwrap_or(Kind::Internal), "as you asked")),
            }
        })
    }

    fn request_stop(&self) {
        self.0.stop_asked.store(true, Ordering::SeqCst);
    }
}

/// A served socket in a directory of its own.
struct Served {
    admin: Option<Admin>,
    desk: Arc<Desk>,
    directory: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        static EXECUTOR: Once = Once::new();
        EXECUTOR.call_once(|| {
            thread::spawn(|| task::block_on(std::future::pending::<()>()));
        });
        let directory = tempfile::tempdir().expect("temporary directory");
        let desk = Arc::new(Desk::default());
        let admin = task::block_on(Admin::start(settings(&directory), Arc::new(TestHost(desk.clone()))));
        Self { admin: Some(admin.expect("the socket is free")), desk, directory }
    }

    fn socket(&self) -> PathBuf {
        settings(&self.directory).socket
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).expect("the host accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("time-out");
        stream
    }

    /// Sends `bytes` and reads whatever comes until the host hangs up.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // The host may hang up on a hostile client in the middle of it.
        let _ = stream.write_all(bytes);
        read_all(&mut stream)
    }

    fn latticed(&self, arguments: &[&str]) -> Output {
        self.latticed_with(arguments, b"")
    }

    fn latticed_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_latticed"))
            .args(arguments)
            .env("WASMCLOUD_ADMIN_SOCKET", self.socket())
            .env_remove("COLUMNS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        child.stdin.take().expect("piped").write_all(input).expect("it reads");
        child.wait_with_output().expect("it ends")
    }

    fn still_serves(&self) {
        assert!(self.exchange(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 200"));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(admin) = self.admin.take() {
            task::block_on(admin.stop());
        }
    }
}

fn settings(directory: &tempfile::TempDir) -> Settings {
    Settings {
        body_limit_bytes: BODY_LIMIT_BYTES,
        head_timeout: Duration::from_millis(700),
        body_timeout: Duration::from_millis(300),
        answer_timeout: Duration::from_millis(300),
        ..Settings::at(directory.path().join("admin.sock"))
    }
}

fn read_all(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // A host that hangs up on unread bytes resets the connection; what it said before arrived.
        Err(cause) => assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionReset),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        thread::sleep(Duration::from_millis(5));
    }
}

fn post(operation: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("POST /v1/call/echo/{operation} HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}").into_bytes()
}

#[test]
fn curl_works() {
    let served = Served::start();
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--unix-socket"])
            .arg(served.socket())
            .args(arguments)
            .output()
            .expect("curl is installed");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let status: HostStatus = serde_json::from_slice(&curl(&["http://localhost/v1/status"])).expect("a status");
    assert_eq!(status, TestHost(served.desk.clone()).status());
    assert_eq!(curl(&["--data-binary", "ab\tc", "http://localhost/v1/call/echo/Test.Echo"]), b"ab\tc");
    let answer = curl(&["--data", "", "http://localhost/v1/call/a/b%20c/Test.Names?timeout_ms=77"]);
    assert_eq!(text(&answer), "\u{fffd}a/b c 77");
    let answer = curl(&["--data", "", "http://localhost/v1/call/echo/not-found"]);
    assert_eq!(text(&answer), r#"{"error":{"kind":"not-found","text":"as you asked"}}"#);
    assert_eq!(text(&curl(&["--data", "", "http://localhost/v1/stop"])), r#"{"stopping":true}"#);
    assert!(served.desk.stop_asked.load(Ordering::SeqCst));
    // Larger than the limit and than any socket buffer: the refusal must still arrive.
    let large = "x".repeat(3_000_000);
    fs::write(served.directory.path().join("large"), &large).expect("write");
    let file = format!("@{}", served.directory.path().join("large").display());
    let answer = curl(&["--data-binary", &file, "http://localhost/v1/call/echo/Test.Echo"]);
    assert!(text(&answer).contains("larger than the limit of 1000 bytes"), "{}", text(&answer));
}

#[test]
fn call_speaks_json_and_bytes() {
    let served = Served::start();
    let answer = served.latticed(&["call", "echo", "Test.Echo", r#"{"b":[1,{"$bin":"/w=="}],"a":null}"#]);
    assert!(answer.status.success(), "{answer:?}");
    let shown: serde_json::Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert_eq!(shown, serde_json::json!({"a": null, "b": [1, {"$bin": "/w=="}]}));

    let answer = served.latticed_with(&["call", "echo", "Test.Echo", "-"], b"[true]");
    assert_eq!(text(&answer.stdout), "[\n  true\n]\n");

    let answer = served.latticed_with(&["call", "echo", "Test.Echo", "--body", "-", "--raw"], b"\xff\x00raw");
    assert_eq!(answer.stdout, b"\xff\x00raw");

    let answer = served.latticed(&["call", "echo", "Test.Echo"]);
    assert_eq!(text(&answer.stdout), "null\n");

    let answer = served.latticed(&["call", "a/ö ?", "Test.Names", "--raw", "--timeout", "0.077"]);
    assert_eq!(text(&answer.stdout), "\u{fffd}a/ö ? 77");

    let answer = served.latticed(&["call", "echo", "Test.Large", "--raw"]);
    assert_eq!(answer.stdout, vec![7; 4 * 1024 * 1024]);
}

#[test]
fn each_kind_of_error_has_its_exit_code() {
    let served = Served::start();
    for kind in Kind::ALL {
        let answer = served.latticed(&["call", "echo", kind.name()]);
        assert_eq!(answer.status.code(), Some(i32::from(kind.exit_code())), "{kind:?}");
        assert_eq!(text(&answer.stderr), "latticed: as you asked\n");
        assert!(answer.stdout.is_empty());

        let answer = served.latticed(&["--json", "call", "echo", kind.name()]);
        let error: serde_json::Value = serde_json::from_slice(&answer.stderr).expect("JSON");
        assert_eq!(error["error"]["kind"], kind.name());
    }
}

#[test]
fn a_call_that_hangs_ends_at_its_deadline() {
    let served = Served::start();
    let start = Instant::now();
    let answer = served.latticed(&["call", "echo", "Test.Hang", "--timeout", "0.2"]);
    assert_eq!(answer.status.code(), Some(9), "{answer:?}");
    assert!(text(&answer.stderr).contains("200 ms"), "{answer:?}");
    assert!(start.elapsed() < PATIENCE);
    eventually("the end of the call", || served.desk.running.load(Ordering::SeqCst) == 0);
}

#[test]
fn status_is_a_page_for_people_and_a_document_for_programs() {
    let served = Served::start();
    let page = served.latticed(&["status"]);
    assert!(page.status.success(), "{page:?}");
    for part in ["test-host-1", "echo", "41", &"A".repeat(55)] {
        assert!(text(&page.stdout).contains(part), "{part}: {}", text(&page.stdout));
    }
    let document = served.latticed(&["status", "--json"]);
    let status: HostStatus = serde_json::from_slice(&document.stdout).expect("a status");
    assert_eq!(status, TestHost(served.desk.clone()).status());
}

#[test]
fn a_watched_status_ends_with_its_reader() {
    let served = Served::start();
    let mut child = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .args(["status", "--watch", "0.02", "--socket"])
        .arg(served.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut first = [0; 500];
    stdout.read_exact(&mut first).expect("more than one page comes");
    drop(stdout);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn stop_asks_and_says_when_the_host_stays() {
    let served = Served::start();
    let answer = served.latticed(&["stop", "--no-wait"]);
    assert!(answer.status.success(), "{answer:?}");
    assert!(served.desk.stop_asked.load(Ordering::SeqCst));
    // The host is this very process, which has other things to do.
    let answer = served.latticed(&["stop", "--timeout", "0.1"]);
    assert_eq!(answer.status.code(), Some(9), "{answer:?}");
    assert!(text(&answer.stderr).contains("still runs"), "{answer:?}");
}

#[test]
fn without_a_host_the_remedy_is_named() {
    let served = Served::start();
    let missing = served.directory.path().join("missing.sock");
    for arguments in [&["status"][..], &["stop"], &["call", "echo", "Test.Echo"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
        let answer = command.args(arguments).arg("--socket").arg(&missing).output().expect("the binary starts");
        assert_eq!(answer.status.code(), Some(10), "{answer:?}");
        let error = text(&answer.stderr);
        assert!(error.contains("missing.sock") && error.contains("latticed run"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn the_socket_is_found_where_the_settings_say() {
    let served = Served::start();
    let status = |variable: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latticed"));
        command.arg("status").current_dir(served.directory.path()).env_remove("WASMCLOUD_ADMIN_SOCKET");
        command.env("XDG_RUNTIME_DIR", served.directory.path());
        command.envs(variable.map(|value| ("WASMCLOUD_ADMIN_SOCKET", value)));
        command.output().expect("the binary starts")
    };
    fs::write(served.directory.path().join(".env"), "WASMCLOUD_ADMIN_SOCKET=admin.sock\nWASMCLOUD_RPC_PORT=x\n")
        .expect("write");
    assert!(status(None).status.success(), "{:?}", status(None));
    assert_eq!(status(Some("other.sock")).status.code(), Some(10));
    fs::remove_file(served.directory.path().join(".env")).expect("remove");
    let place = served.directory.path().join("latticed");
    fs::create_dir(&place).expect("create");
    std::os::unix::fs::symlink(served.socket(), place.join("admin.sock")).expect("link");
    assert!(status(None).status.success(), "{:?}", status(None));
}

#[test]
fn two_hosts_cannot_have_one_socket() {
    let served = Served::start();
    let desk = Arc::new(Desk::default());
    let second = task::block_on(Admin::start(settings(&served.directory), Arc::new(TestHost(desk))));
    assert_eq!(second.expect_err("taken").kind(), Kind::Conflict);
    served.still_serves();
}

#[test]
fn a_stopped_host_leaves_no_socket_and_finishes_its_answers() {
    let mut served = Served::start();
    let socket = served.socket();
    let mut slow = served.connect();
    slow.write_all(&post("Test.Echo", "content-length: 4\r\n", "ab")).expect("sent");
    served.still_serves();
    let admin = served.admin.take().expect("running");
    let stopping = thread::spawn(move || task::block_on(admin.stop()));
    eventually("the end of accepting", || UnixStream::connect(&socket).is_err());
    slow.write_all(b"cd").expect("sent");
    assert!(read_all(&mut slow).ends_with("abcd"));
    stopping.join().expect("stopped");
    assert!(!socket.exists());
}

#[test]
fn garbage_and_huge_heads_are_refused() {
    let served = Served::start();
    assert!(served.exchange(b"\x16\x03\x01\x02\x00garbage\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(served.exchange(b"GET / HTTP/9.9\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(served.exchange(b""), "");
    let long = format!("GET /v1/status HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert!(served.exchange(long.as_bytes()).starts_with("HTTP/1.1 431"));
    let many = format!("GET /v1/status HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert!(served.exchange(many.as_bytes()).starts_with("HTTP/1.1 431"));
    let address = format!("GET /{} HTTP/1.1\r\n\r\n", "z".repeat(100_000));
    assert!(served.exchange(address.as_bytes()).starts_with("HTTP/1.1 4"));
    served.still_serves();
}

#[test]
fn bodies_are_bounded_however_they_come() {
    let served = Served::start();
    let announced = served.exchange(&post("Test.Echo", "content-length: 1001\r\n", ""));
    assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let chunked = served.exchange(&post("Test.Echo", "transfer-encoding: chunked\r\n", &chunk));
    assert!(chunked.starts_with("HTTP/1.1 413"), "{chunked}");
    let most = "x".repeat(BODY_LIMIT_BYTES);
    let fits = served.exchange(&post("Test.Echo", "content-length: 1000\r\n", &most));
    assert!(fits.starts_with("HTTP/1.1 200") && fits.ends_with(&most), "{fits}");
    served.still_serves();
}

#[test]
fn slow_clients_are_hung_up_on() {
    let served = Served::start();
    let start = Instant::now();
    // A head that never ends, fed byte by byte.
    let mut stream = served.connect();
    stream.write_all(b"GET /v1/status HTTP/1.1\r\n").expect("sent");
    while stream.write_all(b"a").is_ok() {
        assert!(start.elapsed() < PATIENCE, "the host waits for ever");
        thread::sleep(Duration::from_millis(20));
    }
    // A body that never ends.
    let late = served.exchange(&post("Test.Echo", "content-length: 10\r\n", "abc"));
    assert!(late.starts_with("HTTP/1.1 408") && late.contains("300 ms"), "{late}");
    // An answer that is never read: what the socket could not hold is lost.
    let mut stream = served.connect();
    stream.write_all(&post("Test.Large", "content-length: 0\r\n", "")).expect("sent");
    thread::sleep(Duration::from_millis(1500));
    assert!(read_all(&mut stream).len() < 4 * 1024 * 1024);
    served.still_serves();
}

#[test]
fn a_client_that_goes_away_takes_its_call_with_it() {
    let served = Served::start();
    let mut stream = served.connect();
    stream.write_all(&post("Test.Hang?timeout_ms=600000", "content-length: 0\r\n", "")).expect("sent");
    eventually("the call", || served.desk.running.load(Ordering::SeqCst) == 1);
    drop(stream);
    eventually("the end of the call", || served.desk.running.load(Ordering::SeqCst) == 0);
}

#[test]
fn a_flood_of_connections_is_refused_and_passes() {
    let served = Served::start();
    let hang = post("Test.Hang?timeout_ms=600000", "content-length: 0\r\n", "");
    let mut streams = Vec::new();
    for number in 1..=MAX_CONNECTIONS {
        let mut stream = served.connect();
        stream.write_all(&hang).expect("sent");
        streams.push(stream);
        eventually("the call", || served.desk.running.load(Ordering::SeqCst) == number);
    }
    let answer = served.exchange(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("try again"), "{answer}");
    let error = task::block_on(Client::new(served.socket()).status()).expect_err("full");
    assert_eq!(error.kind(), Kind::Unavailable);
    // Far more than are even refused with words: the host hangs up, and goes on.
    let flood: Vec<_> = (0..60).filter_map(|_| UnixStream::connect(served.socket()).ok()).collect();
    drop(flood);
    drop(streams);
    eventually("the end of the calls", || served.desk.running.load(Ordering::SeqCst) == 0);
    eventually("an answer", || {
        served.exchange(b"GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").starts_with("HTTP/1.1 200")
    });
}
