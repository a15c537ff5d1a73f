//! Hosts between hostile servers and publishers: they stay up, stay small, serve what is local, and answer their operator.
//!
//! A few seconds of it run with the other tests. As long as wanted, with figures, and with the released program:
//! `LATTICED_HOSTILE_SECONDS=600 LATTICED_HOSTILE_PROGRAM=target/release/latticed cargo test --test hostile_lattice -- --nocapture`.

mod support;

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use serde_json::Value;
use support::{
    guests,
    host::{Host, Sandbox},
    http::{free_address, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on},
};

/// How long it lasts unless set otherwise, seconds.
const SHORT_SECONDS: u64 = 12;

/// What a host may take beyond what it took before, bytes.
const MORE_BYTES: u64 = 16 << 20;

/// Messages at once and the pause after them: a host without optimisation reads a tenth as fast as the released one. With
/// `LATTICED_HOSTILE_FLOOD=full` there are no pauses.
const GENTLE: (usize, Duration) = (50, Duration::from_millis(5));

/// How long an answer may take in the long form; the short one runs beside other tests and asks only for an answer.
const ANSWER: Duration = Duration::from_secs(2);

fn seconds() -> u64 {
    std::env::var("LATTICED_HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SHORT_SECONDS)
}

/// Names another program than the one that was built with the tests.
const PROGRAM: &str = "LATTICED_HOSTILE_PROGRAM";

/// The program that is attacked.
fn program() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_latticed").into(), PathBuf::from)
}

/// Something that is done again and again beside the test until this is dropped.
struct Beside {
    ended: Arc<AtomicBool>,
    worker: Option<JoinHandle<()>>,
}

impl Beside {
    fn start(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        Self { ended, worker: Some(thread::spawn(move || work(&told))) }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.ended.store(true, SeqCst);
        if let Some(worker) = self.worker.take() {
            // A failure inside was printed.
            let _ = worker.join();
        }
    }
}

/// Resident memory of `pid`. Of a program without optimisation only what is not its own text: that has tens of megabytes more
/// than the released one's, which come into memory as they are first run.
fn resident(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the host lives");
    let of = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("the kernel says it");
        line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number") * 1024
    };
    if std::env::var_os(PROGRAM).is_some() { of("VmRSS:") } else { of("RssAnon:") + of("RssShmem:") }
}

/// Watches the memory of `pid`.
fn watch(pid: u32) -> (Beside, Arc<AtomicU64>) {
    let peak = Arc::new(AtomicU64::new(resident(pid)));
    let noted = peak.clone();
    let watching = Beside::start(move |ended| {
        while !ended.load(SeqCst) {
            noted.fetch_max(resident(pid), SeqCst);
            thread::sleep(Duration::from_millis(20));
        }
    });
    (watching, peak)
}

/// A message as a publisher writes it; `headers` is everything before the body, if there are any.
fn publish(subject: &[u8], headers: Option<&[u8]>, body: &[u8]) -> Vec<u8> {
    let verb: &[u8] = if headers.is_some() { b"HPUB " } else { b"PUB " };
    let mut said = [verb, subject, b" _INBOX.evil.1 "].concat();
    if let Some(headers) = headers {
        said.extend_from_slice(format!("{} ", headers.len()).as_bytes());
    }
    let headers = headers.unwrap_or_default();
    said.extend_from_slice(format!("{}\r\n", headers.len() + body.len()).as_bytes());
    [&said, headers, body, b"\r\n"].concat()
}

/// What a hostile publisher says, one kind after the other.
fn mischief(host: &str) -> Vec<Vec<u8>> {
    let actor = format!("wasmbus.rpc.default.{}", guests::key("echo"));
    let commands = [
        "wasmbus.ctl.default.ping.hosts".to_owned(),
        "wasmbus.ctl.default.linkdefs.put".to_owned(),
        "wasmbus.ctl.default.get.links".to_owned(),
        "wasmbus.ctl.default.auction.actor".to_owned(),
        format!("wasmbus.ctl.default.cmd.{host}.scale"),
        format!("wasmbus.ctl.default.get.{host}.inv"),
    ];
    let large = vec![b'x'; 20_000];
    let link = format!(
        "{{\"actor_id\":\"{}\",\"provider_id\":\"VDHPKGFKDI34Y4RN4PWWZHRYZ6373HYRSNNEM4UTDLLOGO5B37TSVREP\",\
         \"link_name\":\"evil\",\"contract_id\":\"wasmcloud:evil\",\"values\":{{\"a\":\"{}\"}}}}",
        guests::key("echo"),
        "x".repeat(20_000)
    );
    let long_header = [&b"NATS/1.0\r\nX: "[..], &vec![b'y'; 500_000], b"\r\n\r\n"].concat();
    let mut all = Vec::new();
    for subject in commands.iter().chain([&actor]) {
        let subject = subject.as_bytes();
        for header in [
            &b"NATS/1.0\r\nX-A: a\rb\r\n\r\n"[..],
            b"NATS/1.0\r\nX-\xff: a\r\n\r\n",
            b"NATS/1.0\r\nX\xc3\xa9: a\r\n\r\n",
            b"NATS/1.0 abc\r\n\r\n",
            b"NATS/1.0\r\nnothing\r\n\r\n",
            b"nonsense",
            &long_header,
        ] {
            all.push(publish(subject, Some(header), b"{}"));
        }
        all.push(publish(subject, None, &large));
        all.push(publish(subject, None, b""));
    }
    all.push(publish(b"wasmbus.ctl.default.\xff\xfe", None, b""));
    all.push(publish("wasmbus.ctl.default.a\u{3000}b".as_bytes(), Some(b"NATS/1.0\r\n\r\n"), b""));
    all.push(publish(commands[1].as_bytes(), None, link.as_bytes()));
    all
}

/// Publishes without pause, a while of each kind.
fn flood(port: u16, host: String) -> Beside {
    Beside::start(move |ended| {
        let mischief = mischief(&host);
        let full = std::env::var("LATTICED_HOSTILE_FLOOD").is_ok_and(|flood| flood == "full");
        let (most, pause) = if full { (1000, Duration::ZERO) } else { GENTLE };
        'connections: loop {
            let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
            let mut reading = server.try_clone().expect("a socket can be shared");
            // What the server says goes nowhere.
            thread::spawn(move || {
                let mut lost = [0; 4096];
                while reading.read(&mut lost).is_ok_and(|length| length > 0) {}
            });
            let connect: &[u8] = b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n";
            if server.write_all(connect).is_err() {
                continue;
            }
            for said in mischief.iter().cycle() {
                let many = said.repeat((64 * 1024 / said.len()).clamp(1, most));
                let end = Instant::now() + Duration::from_millis(200);
                while Instant::now() < end {
                    if ended.load(SeqCst) {
                        return;
                    }
                    if server.write_all(&many).is_err() {
                        continue 'connections;
                    }
                    thread::sleep(pause);
                }
            }
        }
    })
}

/// Says `text` after a login, if `greeted`, then `more` again and again until the other side has had enough.
fn say(client: &mut TcpStream, greeted: bool, text: &[u8], more: &[u8]) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    client.set_write_timeout(Some(Duration::from_secs(5)))?;
    if greeted {
        client.write_all(b"INFO {\"max_payload\":1048576,\"headers\":true}\r\n")?;
        let mut said = Vec::new();
        while !said.windows(6).any(|window| window == b"PING\r\n") {
            let mut part = [0; 1024];
            match client.read(&mut part)? {
                0 => return Ok(()),
                length => said.extend_from_slice(&part[..length]),
            }
        }
        client.write_all(b"PONG\r\n")?;
    }
    client.write_all(text)?;
    // Enough to fill a small board, if somebody kept it.
    for _ in 0..(64 << 20) / more.len().max(1) {
        if more.is_empty() {
            break;
        }
        client.write_all(more)?;
    }
    Ok(())
}

/// A server that does everything wrong, each time something else; how often it was asked.
fn hostile_server() -> (u16, Beside, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let port = listener.local_addr().expect("it has an address").port();
    listener.set_nonblocking(true).expect("a socket can be told");
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let serving = Beside::start(move |ended| {
        let endless = vec![b'x'; 64 * 1024];
        let flood: Vec<u8> = (0..24)
            .flat_map(|sid| {
                let mut said = format!("MSG wasmbus.ctl.default.ping.hosts {sid} _INBOX.a.b 20000\r\n").into_bytes();
                said.extend_from_slice(&[b'y'; 20_000]);
                said.extend_from_slice(b"\r\n");
                said
            })
            .collect();
        let scripts: [(bool, &[u8], &[u8]); 16] = [
            (false, b"INFO {\"server_id\":\"", &endless),
            (false, b"", &endless),
            (false, b"INFO {\"tls_required\":true}\r\n", &endless),
            (false, b"INFO {\"tls_required\":true}\r\n", b""),
            (false, b"HTTP/1.1 400 Bad Request\r\n\r\n", b""),
            (true, b"MSG ", &endless),
            (true, b"MSG a 1 18446744073709551615\r\n", &endless),
            (true, b"HMSG a 1 18446744073709551615 18446744073709551615\r\n", &endless),
            (true, b"-ERR\r\n", b""),
            (true, b"MSG a 1 4294967295\r\n", &endless),
            (true, b"\0\xff\x16\x03\x01", &endless),
            (true, b"MSG a 1 100\r\nhalf", b""),
            (true, b"", &flood),
            (true, b"", b"PING\r\n"),
            (true, b"", b"INFO {\"ldm\":true,\"connect_urls\":[\"127.0.0.1:1\"]}\r\n"),
            (true, b"HMSG a 1 19 19\r\nNATS/1.0\r\nX:a\rb\r\n\r\n", b"-ERR 'x'\r\n"),
        ];
        for (greeted, text, more) in scripts.into_iter().cycle() {
            let mut client = loop {
                match listener.accept() {
                    Ok((client, _)) => break client,
                    Err(_) if ended.load(SeqCst) => return,
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            };
            count.fetch_add(1, SeqCst);
            client.set_nonblocking(false).expect("a socket can be told");
            // The other side ends it in the middle, as it should.
            let _ = say(&mut client, greeted, text, more);
        }
    });
    (port, serving, asked)
}

/// A host with the actor that is served locally.
fn host(sandbox: &Sandbox, address: std::net::SocketAddr, settings: &[(&str, &str)]) -> Host {
    let mut manifest = Manifest::empty("local");
    manifest.capability("httpserver", "wasmcloud:httpserver");
    manifest.actor("echo", &guests::module_path("echo"), 4).http(address);
    let manifest = sandbox.write("local.yaml", manifest.text());
    let seed = nats::cluster().seed().expose().to_owned();
    let mut all = vec![("NATS_HOST", "127.0.0.1"), ("WASMCLOUD_CLUSTER_SEED", seed.as_str())];
    all.extend_from_slice(settings);
    let mut host = sandbox.run(&manifest, &all);
    host.wait_for("listening for commands");
    wait_for_200(address, PATIENCE).expect("the actor is served");
    host
}

/// What a well-behaved client saw.
#[derive(Debug, Default)]
struct Answers {
    answered: usize,
    refused: usize,
    worst: Duration,
    /// The same of a client that sends back what comes: what the server and the machine take.
    bystander_worst: Duration,
}

/// Where that client listens.
const BYSTANDER: &str = "bystander";

/// Sends back what comes.
async fn stand_by(server: &NatsServer) -> tokio::task::JoinHandle<()> {
    let client = nats::connect(server).await;
    let mut heard = client.subscribe(BYSTANDER.into()).await.expect("it can listen");
    let asking = client.clone();
    let answering = tokio::spawn(async move {
        while let Some(message) = heard.next().await {
            if let Some(reply) = message.reply {
                let _ = client.publish(reply, message.payload).await;
            }
        }
    });
    // The server may not have heard of it yet.
    while asking.request(BYSTANDER.into(), "".into()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    answering
}

/// Asks `host` for its inventory again and again, for `time`.
async fn operate(nats: &async_nats_031::Client, host: &str, time: Duration) -> Answers {
    let (mut answers, end) = (Answers::default(), Instant::now() + time);
    while Instant::now() < end {
        let began = Instant::now();
        nats.request(BYSTANDER.into(), "".into()).await.expect("the bystander answers");
        answers.bystander_worst = answers.bystander_worst.max(began.elapsed());
        let began = Instant::now();
        let answer = nats.request(format!("wasmbus.ctl.default.get.{host}.inv"), "".into()).await;
        let answer = answer.unwrap_or_else(|error| panic!("no answer after {:?}: {error}", began.elapsed()));
        answers.worst = answers.worst.max(began.elapsed());
        let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
        if answer["host_id"] == host || answer["response"]["host_id"] == host {
            answers.answered += 1;
        } else {
            answers.refused += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    answers
}

fn judge(what: &str, host: &Host, idle: u64, peak: &AtomicU64, load: HttpLoad, answers: &Answers) {
    let (peak, outcome) = (peak.load(SeqCst), load.end());
    println!(
        "{what}: idle {} KiB, peak {} KiB, {} local requests, {} failed; control: {answers:?}",
        idle >> 10,
        peak >> 10,
        outcome.requests(),
        outcome.failures().len()
    );
    assert_eq!(outcome.failures(), Vec::<&String>::new(), "local traffic");
    assert!(outcome.requests() > 50, "too little load to tell");
    assert!(peak <= idle + MORE_BYTES, "memory: {} KiB more than before\n{}", (peak - idle) >> 10, host.output());
    assert!(answers.answered > 10 && answers.refused * 10 <= answers.answered, "{answers:?}");
    if seconds() > SHORT_SECONDS {
        assert!(answers.worst <= ANSWER + answers.bystander_worst, "{answers:?}");
    }
    let lost = host.output().matches("lost the NATS connection for control").count();
    assert_eq!(lost, 0, "a publisher costs no connection: {}", host.output());
}

#[test]
fn a_host_beside_a_hostile_publisher_serves_and_stays_small() {
    block_on(async {
        let (server, sandbox, address) = (NatsServer::start(), Sandbox::new(program()), free_address());
        let port = server.port().to_string();
        let mut host = host(&sandbox, address, &[("NATS_PORT", &port)]);
        host.wait_for("the lattice's bucket is followed");
        let (id, nats) = (host.status().host_id, nats::connect(&server).await);
        let load = HttpLoad::start(address, b"hello", 20, 2);
        let _bystander = stand_by(&server).await;
        operate(&nats, &id, Duration::from_secs(2)).await;
        let idle = resident(host.pid());
        let (_watching, peak) = watch(host.pid());
        let floods = [flood(server.port(), id.clone())];
        let answers = operate(&nats, &id, Duration::from_secs(seconds())).await;
        drop(floods);
        judge("publisher", &host, idle, &peak, load, &answers);
    });
}

#[test]
fn a_host_of_a_hostile_server_serves_and_stays_small() {
    block_on(async {
        let (server, sandbox, address) = (NatsServer::start(), Sandbox::new(program()), free_address());
        let (hostile, _serving, asked) = hostile_server();
        let (control, calls) = (server.port().to_string(), hostile.to_string());
        let settings = [
            ("WASMCLOUD_CTL_PORT", control.as_str()),
            ("WASMCLOUD_RPC_PORT", calls.as_str()),
            ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "50"),
            ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "200"),
        ];
        let host = host(&sandbox, address, &settings);
        let (id, nats) = (host.status().host_id, nats::connect(&server).await);
        let _bystander = stand_by(&server).await;
        let load = HttpLoad::start(address, b"hello", 20, 2);
        operate(&nats, &id, Duration::from_secs(2)).await;
        let idle = resident(host.pid());
        let (_watching, peak) = watch(host.pid());
        let answers = operate(&nats, &id, Duration::from_secs(seconds())).await;
        judge("server", &host, idle, &peak, load, &answers);
        assert!(asked.load(SeqCst) > 8, "it was asked {} times", asked.load(SeqCst));
        println!("the hostile server was asked {} times", asked.load(SeqCst));
    });
}
