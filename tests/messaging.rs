//! `builtin:messaging` in the real program against a real server: an unmodified actor publishes, asks, listens; too fast, cut
//! off, without a link, and with an outbox through a power cut.

mod support;

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use async_nats_031::{Client, Subscriber, jetstream};
use futures_util::StreamExt;
use latticed::wire::{
    codec,
    interface::{HttpRequest, HttpResponse, MESSAGING},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use support::{
    guests,
    host::{Host, Sandbox},
    http::free_address,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on, eventually},
};

fn sandbox() -> Sandbox {
    Sandbox::new(env!("CARGO_BIN_EXE_latticed"))
}

/// An application: the mailbox with this link to messaging.
fn manifest(sandbox: &Sandbox, values: &[(&str, &str)]) -> std::path::PathBuf {
    let mut manifest = Manifest::new("mail");
    manifest
        .capability("messaging", MESSAGING)
        .actor("mailbox", &guests::module_path("mailbox"), 20)
        .link("messaging", values);
    sandbox.write("mail.yaml", manifest.text())
}

/// Settings of a host at `server`, in which nothing takes too long for a slow machine.
fn settings(server: &NatsServer) -> Vec<(&'static str, String)> {
    vec![
        ("NATS_HOST", server.url()),
        ("WASMCLOUD_CLUSTER_SEED", nats::cluster().seed().expose().to_owned()),
        ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "200".to_owned()),
        ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "1000".to_owned()),
        ("WASMCLOUD_RPC_TIMEOUT_MS", "60000".to_owned()),
        ("WASMCLOUD_ACTOR_DEADLINE_MS", "60000".to_owned()),
    ]
}

fn run(sandbox: &Sandbox, values: &[(&str, &str)], settings: &[(&'static str, String)]) -> Host {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    up(sandbox.run(&manifest(sandbox, values), &settings))
}

fn run_again(sandbox: &Sandbox, settings: &[(&'static str, String)]) -> Host {
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    up(sandbox.run_again(&settings))
}

/// The host once the mailbox and its link are there; the link may be refused.
fn up(mut host: Host) -> Host {
    host.wait_for("actor mailbox started");
    eventually("the link is looked at", || !detail(&host).is_empty() || !host.status().problems.is_empty());
    host
}

/// Has the mailbox do what `path` and `query` say.
fn post(host: &Host, path: &str, query: &str, body: &str) -> (u16, String) {
    let client = host.client();
    // Not on this thread: the HTTP client shares the budget that the test's runtime gives each of its turns, and would wait
    // for ever for more once a hundred requests have used it up.
    let answer = thread::scope(|scope| scope.spawn(|| ask(&client, path, query, body)).join()).expect("it asked");
    answer.unwrap_or_else(|error| panic!("{error}: {}", host.output()))
}

fn ask(client: &latticed::web::Client, path: &str, query: &str, body: &str) -> latticed::error::Result<(u16, String)> {
    let request = HttpRequest {
        method: "POST".into(),
        path: path.into(),
        query_string: query.into(),
        header: BTreeMap::new(),
        body: body.into(),
    };
    let payload = codec::encode(&request).expect("it can be encoded");
    let key = guests::key("mailbox");
    let answer = latticed::task::block_on(client.call(&key, "HttpServer.HandleRequest", payload, PATIENCE))?;
    let answer: HttpResponse = codec::decode("answer", &answer).expect("it is an HTTP response");
    Ok((answer.status_code, String::from_utf8(answer.body).expect("UTF-8")))
}

/// How messaging says it stands.
fn detail(host: &Host) -> String {
    let status = host.status();
    let messaging = status.providers.into_iter().find(|provider| provider.contract_id == MESSAGING);
    messaging.expect("messaging runs").detail
}

async fn next(messages: &mut Subscriber) -> (String, String) {
    let message = tokio::time::timeout(PATIENCE, messages.next()).await.expect("a message comes").expect("more come");
    (message.subject.to_string(), String::from_utf8(message.payload.to_vec()).expect("UTF-8"))
}

/// Listens, and is sure to.
async fn listen(nats: &Client, subject: &str) -> Subscriber {
    let messages = nats.subscribe(subject.to_owned()).await.expect("it can listen");
    barrier(nats).await;
    messages
}

/// Waits until the server has taken everything this client said.
async fn barrier(nats: &Client) {
    let mut heard = nats.subscribe("barrier".into()).await.expect("it can listen");
    nats.publish("barrier".into(), "".into()).await.expect("it can speak");
    next(&mut heard).await;
}

/// Says `body` until the mailbox has handled it once: it does not listen in the moment in which it starts.
async fn until_handled(nats: &Client, subject: &str, body: &str) {
    let mut handled = listen(nats, &format!("handled.{subject}")).await;
    for _ in 0..600 {
        nats.publish(subject.to_owned(), body.to_owned().into()).await.expect("it can speak");
        if tokio::time::timeout(Duration::from_millis(100), handled.next()).await.is_ok() {
            return;
        }
    }
    panic!("nobody handles {subject}");
}

/// Asks until somebody answers.
async fn until_answered(nats: &Client, subject: &str) -> String {
    for _ in 0..600 {
        if let Ok(answer) = nats.request(subject.to_owned(), "x".into()).await {
            return String::from_utf8(answer.payload.to_vec()).expect("UTF-8");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("nobody answers {subject}");
}

#[test]
fn an_actor_publishes_asks_and_listens() {
    block_on(async {
        let (sandbox, mut server) = (sandbox(), NatsServer::start());
        let settings = settings(&server);
        let host = run(&sandbox, &[("SUBSCRIPTION", "box.>, shared|workers")], &settings);
        let nats = nats::connect(&server).await;
        until_handled(&nats, "box.start", "x").await;

        // Out: as it is, and with a place for answers.
        let mut out = listen(&nats, "out.>").await;
        assert_eq!(post(&host, "/publish", "out.a", "hello"), (200, String::new()));
        assert_eq!(next(&mut out).await, ("out.a".into(), "hello".into()));
        assert_eq!(post(&host, "/publish", "out.b&answers.here", "hello").0, 200);
        let message = out.next().await.expect("a message");
        assert_eq!(message.reply.map(|reply| reply.to_string()).as_deref(), Some("answers.here"));

        // Asked: the answer comes back, and whose fault it is when none does.
        let mut asked = listen(&nats, "service").await;
        let answering = nats.clone();
        let service = tokio::spawn(async move {
            let message = asked.next().await.expect("somebody asks");
            let answer = [&message.payload[..], b"!"].concat();
            answering.publish(message.reply.expect("for an answer"), answer.into()).await.expect("it can speak");
        });
        let client = host.client();
        let answer = tokio::task::spawn_blocking(move || ask(&client, "/request", "service", "ping")).await;
        assert_eq!(answer.expect("it was asked"), Ok((200, "ping!".into())));
        service.await.expect("the service worked");
        let (status, body) = post(&host, "/request", "nobody.here", "ping");
        assert!(status == 502 && body.contains("nobody listens on nobody.here"), "{status} {body}");
        let _silent = listen(&nats, "silent").await;
        let (status, body) = post(&host, "/request", "silent&50", "ping");
        assert!(status == 502 && body.contains("nobody answered on silent within 50 ms"), "{status} {body}");

        // In: handled, answered where that is wanted, refused and counted.
        let mut handled = listen(&nats, "handled.>").await;
        nats.publish("box.one".into(), "hi".into()).await.expect("it can speak");
        assert_eq!(next(&mut handled).await, ("handled.box.one".into(), "box.one: hi".into()));
        assert_eq!(until_answered(&nats, "box.two").await, "box.two: x");
        nats.publish("box.three".into(), "fail".into()).await.expect("it can speak");
        barrier(&nats).await;
        eventually("the failure is counted", || detail(&host).contains("1 not handled"));

        // What is the lattice's own is out of reach.
        let mut commands = listen(&nats, "wasmbus.ctl.default.cmd.>").await;
        let (status, body) = post(&host, "/publish", "wasmbus.ctl.default.cmd.N.stop", "{}");
        assert!(status == 502 && body.contains("belongs to the lattice"), "{status} {body}");
        let (status, body) = post(&host, "/request", "$JS.API.INFO", "");
        assert!(status == 502 && body.contains("belongs to the broker"), "{status} {body}");
        barrier(&nats).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), commands.next()).await.is_err(), "it was said");

        // The server goes and comes again: it is listened to as before.
        drop((out, handled, commands, nats));
        server.kill();
        eventually("the loss is noticed", || detail(&host).contains("away"));
        let (status, body) = post(&host, "/publish", "out.a", "hello");
        assert!(status == 502 && body.contains("no connection to NATS"), "{status} {body}");
        server.resume();
        let nats = nats::connect(&server).await;
        until_handled(&nats, "box.again", "x").await;

        // Without its link the actor is not called any more.
        let del = json!({"actor_id": guests::key("mailbox"), "contract_id": MESSAGING, "link_name": "default"});
        let subject = "wasmbus.ctl.default.linkdefs.del";
        let ack = nats.request(subject.into(), del.to_string().into()).await.expect("an answer");
        let ack: Value = serde_json::from_slice(&ack.payload).expect("JSON");
        assert_eq!(ack["accepted"], true, "{ack}");
        eventually("the link is gone", || detail(&host).is_empty());
        let error = nats.request("box.two".into(), "x".into()).await.expect_err("nobody is there");
        assert_eq!(error.kind(), async_nats_031::RequestErrorKind::NoResponders, "{error}");
        let (status, output) = host.terminate();
        assert!(status.success(), "{output}");
    });
}

#[test]
fn a_queue_group_gets_each_message_once() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let host = run(&sandbox, &[("SUBSCRIPTION", "start,shared.*|workers")], &settings(&server));
        let nats = nats::connect(&server).await;
        until_handled(&nats, "start", "x").await;
        let mut handled = listen(&nats, "handled.shared.>").await;
        let mut other = nats.queue_subscribe("shared.*".into(), "workers".into()).await.expect("it can listen");
        barrier(&nats).await;
        const MESSAGES: usize = 200;
        for number in 0..MESSAGES {
            nats.publish(format!("shared.{number}"), "x".into()).await.expect("it can speak");
        }
        let (mut here, mut there) = (Vec::new(), Vec::new());
        while here.len() + there.len() < MESSAGES {
            let (subject, _) = smol::future::or(next(&mut handled), next(&mut other)).await;
            match subject.strip_prefix("handled.") {
                Some(subject) => here.push(subject.to_owned()),
                None => there.push(subject),
            }
        }
        // Either one is left out by chance once in 2 to the 200.
        assert!(!here.is_empty() && !there.is_empty(), "{} and {}", here.len(), there.len());
        let mut all = [here, there].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), MESSAGES, "one came twice");
        drop(host);
    });
}

#[test]
fn an_actor_that_is_too_slow_holds_back_only_so_much() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let values = [("subscription", "start,work.*"), ("max_in_flight", "2"), ("max_waiting", "3")];
        let host = run(&sandbox, &values, &settings(&server));
        let nats = nats::connect(&server).await;
        until_handled(&nats, "start", "x").await;
        let mut asked = listen(&nats, "gate").await;
        let mut handled = listen(&nats, "handled.work.*").await;
        let mut gates = Vec::new();
        for number in 0..2 {
            nats.publish(format!("work.{number}"), "ask gate".into()).await.expect("it can speak");
        }
        for _ in 0..2 {
            gates.push(asked.next().await.expect("the actor asks").reply.expect("for an answer"));
        }
        for number in 2..10 {
            nats.publish(format!("work.{number}"), "ask gate".into()).await.expect("it can speak");
        }
        barrier(&nats).await;
        eventually("three wait and the rest is dropped", || detail(&host).contains("3 waiting, 5 dropped"));
        // Nobody else was called meanwhile.
        assert!(tokio::time::timeout(Duration::from_millis(100), asked.next()).await.is_err());
        for number in 0..5 {
            let gate = match gates.pop() {
                Some(gate) => gate,
                None => asked.next().await.expect("the actor asks").reply.expect("for an answer"),
            };
            nats.publish(gate, "go".into()).await.expect("it can speak");
            let (subject, body) = next(&mut handled).await;
            assert!(body.ends_with(": go"), "{number}: {subject} {body}");
        }
        eventually("nothing waits", || !detail(&host).contains("waiting"));
        assert!(detail(&host).contains("5 dropped") && host.output().contains("5 messages were dropped in a row"));
        until_handled(&nats, "start", "x").await;
    });
}

#[test]
fn what_an_actor_is_at_when_the_host_stops_it_can_still_say() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let mut settings = settings(&server);
        settings.push(("WASMCLOUD_DRAIN_MS", "60000".to_owned()));
        let host = run(&sandbox, &[("SUBSCRIPTION", "box.>")], &settings);
        let nats = nats::connect(&server).await;
        until_handled(&nats, "box.start", "x").await;
        let mut asked = listen(&nats, "gate").await;
        let mut handled = listen(&nats, "handled.box.last").await;
        nats.publish("box.last".into(), "ask gate".into()).await.expect("it can speak");
        let gate = asked.next().await.expect("the actor asks").reply.expect("for an answer");
        let stopping = tokio::task::spawn_blocking(move || host.terminate());
        // It takes no more in,
        let deaf = async {
            // One that came in just before may get no answer; that nobody listens is said at once.
            let ask = || tokio::time::timeout(Duration::from_millis(500), nats.request("box.more".into(), "x".into()));
            while !matches!(ask().await, Ok(Err(_))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, deaf).await.expect("it listens no longer");
        // and what is under way comes to its end.
        nats.publish(gate, "go".into()).await.expect("it can speak");
        assert_eq!(next(&mut handled).await, ("handled.box.last".into(), "box.last: go".into()));
        let (status, output) = stopping.await.expect("it stops");
        assert!(status.success(), "{output}");
    });
}

/// A stream for `readings.>`.
async fn stream(nats: &Client) -> jetstream::stream::Stream {
    let config = jetstream::stream::Config {
        name: "READINGS".into(),
        subjects: vec!["readings.>".into()],
        ..jetstream::stream::Config::default()
    };
    jetstream::new(nats.clone()).get_or_create_stream(config).await.expect("JetStream works")
}

/// What the stream holds, in its order.
async fn bodies(stream: &mut jetstream::stream::Stream) -> Vec<String> {
    let messages = stream.info().await.expect("the stream is there").state.messages;
    let mut bodies = Vec::new();
    for number in 1..=messages {
        let message = stream.get_raw_message(number).await.expect("it holds its messages");
        let payload = data_encoding::BASE64.decode(message.payload.as_bytes()).expect("base64");
        bodies.push(String::from_utf8(payload).expect("UTF-8"));
    }
    bodies
}

#[test]
fn what_is_published_while_the_line_is_down_is_in_the_stream_exactly_once_after_power_cuts() {
    block_on(async {
        let (sandbox, mut server) = (sandbox(), NatsServer::start());
        let settings = settings(&server);
        let values = [("outbox_stream", "READINGS"), ("outbox_messages", "150")];
        let mut host = run(&sandbox, &values, &settings);
        host.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        stream(&nats).await;
        drop(nats);
        // With the line up it goes straight through, nothing is left behind.
        eventually("the stream takes one", || post(&host, "/publish", "readings.a", "0").0 == 200);
        assert!(!detail(&host).contains("outbox"), "{}", detail(&host));

        server.kill();
        for number in 1..=100 {
            assert_eq!(post(&host, "/publish", "readings.a", &number.to_string()), (200, String::new()));
        }
        assert!(detail(&host).contains("100 in the outbox"), "{}", detail(&host));
        host.kill();
        let host = run_again(&sandbox, &settings);
        eventually("the outbox is known again", || detail(&host).contains("100 in the outbox"));
        // Order holds over the power cut, and room is bounded.
        for number in 101..=150 {
            assert_eq!(post(&host, "/publish", "readings.a", &number.to_string()).0, 200, "{number}");
        }
        let (status, body) = post(&host, "/publish", "readings.a", "too many");
        assert!(status == 502 && body.contains("150 messages") && body.contains("outbox_messages"), "{body}");
        // Whoever wants an answer is not served by an outbox.
        let (status, body) = post(&host, "/publish", "readings.a&reply", "now");
        assert!(status == 502 && body.contains("no connection to NATS"), "{body}");

        // The power goes again somewhere in the middle of the sending, or just after it.
        server.resume();
        let nats = nats::connect(&server).await;
        let mut readings = stream(&nats).await;
        while readings.info().await.expect("the stream is there").state.messages < 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        host.kill();
        let host = run_again(&sandbox, &settings);
        eventually("the outbox is empty", || !detail(&host).contains("outbox") && detail(&host).contains("connected"));
        let expected: Vec<String> = (0..=150).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&mut readings).await, expected);
        assert_eq!(post(&host, "/publish", "readings.a", "151").0, 200);
        assert_eq!(bodies(&mut readings).await.last().map(String::as_str), Some("151"));
    });
}

#[test]
fn an_outbox_may_give_up_its_oldest_and_waits_for_a_stream() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let values = [("outbox", "on"), ("outbox_messages", "3"), ("outbox_full", "drop-oldest")];
        let mut host = run(&sandbox, &values, &settings(&server));
        host.wait_for("listening for commands");
        // Connected, but no stream takes it: it is kept, and the reason is told.
        for number in 1..=5 {
            assert_eq!(post(&host, "/publish", "readings.a", &number.to_string()), (200, String::new()));
        }
        let told = |host: &Host| {
            let detail = detail(host);
            detail.contains("3 in the outbox, 2 of the outbox given up") && detail.contains("no JetStream stream takes")
        };
        eventually("it tells what is wrong", || told(&host));
        let nats = nats::connect(&server).await;
        let mut readings = stream(&nats).await;
        eventually("the outbox is empty", || !detail(&host).contains("in the outbox"));
        assert_eq!(bodies(&mut readings).await, ["3", "4", "5"]);
    });
}

/// One message that no stream takes holds up no other, and nothing that a stream has is sent again, also when the host starts
/// again after the time in which the stream knows what comes twice. Answers never wait.
#[test]
fn one_message_that_no_stream_takes_neither_holds_up_nor_repeats_others() {
    block_on(async {
        let (sandbox, server) = (sandbox(), NatsServer::start());
        let settings = settings(&server);
        let mut host = run(&sandbox, &[("outbox", "on"), ("SUBSCRIPTION", "box.>")], &settings);
        host.wait_for("listening for commands");
        let nats = nats::connect(&server).await;
        const WINDOW: Duration = Duration::from_millis(500);
        let stream_of = |name: &str, subject: &str| {
            let config = jetstream::stream::Config {
                name: name.into(),
                subjects: vec![subject.into()],
                duplicate_window: WINDOW,
                ..jetstream::stream::Config::default()
            };
            let context = jetstream::new(nats.clone());
            async move { context.get_or_create_stream(config).await.expect("JetStream works") }
        };
        let mut readings = stream_of("READINGS", "readings.>").await;

        // Whoever asks is answered, usual place or not, and nothing of that stays in the outbox.
        assert_eq!(until_answered(&nats, "box.two").await, "box.two: x");
        let mut place = listen(&nats, "replies.to.me").await;
        nats.publish_with_reply("box.three".into(), "replies.to.me".into(), "hi".into()).await.expect("it can speak");
        assert_eq!(next(&mut place).await, ("replies.to.me".into(), "box.three: hi".into()));
        assert!(!detail(&host).contains("outbox"), "{}", detail(&host));

        assert_eq!(post(&host, "/publish", "homeless.a", "first").0, 200);
        for number in 1..=40 {
            assert_eq!(post(&host, "/publish", "readings.a", &number.to_string()).0, 200);
        }
        assert_eq!(post(&host, "/publish", "homeless.b", "second").0, 200);
        let left = |host: &Host| {
            let detail = detail(host);
            detail.contains("2 in the outbox") && detail.contains("no JetStream stream takes homeless.")
        };
        eventually("the others are in the stream", || left(&host));
        let expected: Vec<String> = (1..=40).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&mut readings).await, expected);

        host.kill();
        // The stream forgets what it saw: from here on it would take everything a second time.
        tokio::time::sleep(4 * WINDOW).await;
        let host = run_again(&sandbox, &settings);
        eventually("the outbox is known again", || left(&host));
        assert_eq!(post(&host, "/publish", "readings.a", "41").0, 200);
        eventually("what is new goes through", || left(&host));
        let expected: Vec<String> = (1..=41).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&mut readings).await, expected);

        // What waited is sent as soon as somebody takes it.
        let mut homeless = stream_of("HOMELESS", "homeless.>").await;
        eventually("the outbox is empty", || {
            !detail(&host).contains("outbox") && !detail(&host).contains("no JetStream")
        });
        let mut found = bodies(&mut homeless).await;
        found.sort();
        assert_eq!(found, ["first", "second"]);
        assert_eq!(bodies(&mut readings).await, expected);
    });
}

/// A server that speaks TLS and wants a password.
struct PrivateServer {
    child: Child,
    port: u16,
}

impl PrivateServer {
    /// Starts it, and gives the authority of its certificate, PEM.
    fn start(sandbox: &Sandbox) -> (Self, String) {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names are good names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("random numbers"))
            .expect("the authority can sign itself");
        let key = KeyPair::generate().expect("random numbers");
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])
            .expect("good names")
            .signed_by(&key, &authority)
            .expect("the authority can sign");
        let port = free_address().port();
        let configuration = format!(
            "listen: 127.0.0.1:{port}\ntls {{ cert_file: {:?}, key_file: {:?} }}\nauthorization {{ user: mail, password: \
             swordfish }}\n",
            sandbox.write("server.pem", certificate.pem()),
            sandbox.write("server.key", key.serialize_pem())
        );
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(sandbox.write("private.conf", configuration))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed");
        (Self { child, port }, authority.pem())
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_link_may_have_a_connection_of_its_own() {
    block_on(async {
        let sandbox = sandbox();
        let (server, authority) = PrivateServer::start(&sandbox);
        let uri = format!("nats://mail:swordfish@localhost:{}", server.port);
        // The host itself knows no server.
        let quick = [
            ("WASMCLOUD_JOIN", "never".to_owned()),
            ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "200".to_owned()),
            ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "1000".to_owned()),
        ];
        let host = run(&sandbox, &[("URI", &uri), ("TLS_CA", &authority), ("SUBSCRIPTION", "$x.>,box")], &quick);
        eventually("it is connected", || detail(&host).contains("connected"));
        // What it says it hears itself: on a connection of its own nothing is out of reach.
        eventually("it hears what it says", || {
            let (status, body) = post(&host, "/request", "box&1000", "hello");
            assert!(status == 200 || body.contains("nobody"), "{body}");
            (status, body) == (200, "box: hello".into())
        });
        assert_eq!(post(&host, "/publish", "$x.y", "hello").0, 200);
        let (status, output) = host.terminate();
        assert!(status.success() && output.contains("listening to $x.>, box"), "{output}");
        assert!(!output.contains("swordfish"), "the password is in the log: {output}");

        // Without a server anywhere the start says what is missing.
        let manifest = manifest(&sandbox, &[("SUBSCRIPTION", "box")]);
        let mut command = sandbox.command(&["run", manifest.to_str().expect("UTF-8")]);
        let refused = command.envs(quick).output().expect("the program can be started");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(said.contains("give the link a `URI`") && said.contains("NATS_HOST"), "{said}");
    });
}
