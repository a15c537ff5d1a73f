//! The session of `wash` 0.26 in `vectors/wash_026.json`, sent again to a real host on a real server.
//!
//! Each request goes out as recorded. Only names are exchanged that cannot be the same here: the host's key, the keys of
//! actors and providers, references (an image of the recording's registry becomes a signed guest in a file, its two
//! provider archives become the built-in providers of the same contracts), and the two ports of the HTTP server. Answers
//! and events are judged by what that client reads (`protocol/wash.md`, `protocol/events.md §4`).

mod support;

use std::{
    borrow::Cow,
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::Client;
use futures_util::StreamExt;
use latticed::{
    claims::{Actor, AntiForgery, Claims, KeyPair, Now, Role, builtin_provider_key, module},
    wire::{
        Entity, Invocation, InvocationResponse,
        interface::{HttpRequest, HttpResponse},
    },
};
use serde_json::Value;
use support::{guests, host::Sandbox};

/// What a test waits for comes far sooner; only a hang reaches this.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the client waits for an answer before it calls the command failed.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback works").local_addr().expect("it is bound").port()
}

fn nats_server(directory: &Path) -> (Running, u16) {
    let port = free_port();
    let log = fs::File::create(directory.join("nats.log")).expect("the temporary folder is writable");
    let child = Command::new("nats-server")
        .args(["--addr", "127.0.0.1", "--port", &port.to_string(), "--jetstream", "--store_dir"])
        .arg(directory.join("js"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("nats-server must be installed for this test (Debian: apt-get install nats-server)");
    let server = Running(child);
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < until, "nats-server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (server, port)
}

fn cluster() -> KeyPair {
    KeyPair::from_name(Role::Cluster, "wash 0.26")
}

/// The guest `name` signed again with another revision, as an update needs it.
fn with_revision(name: &str, revision: i32) -> Vec<u8> {
    let actor = Actor {
        name: Some(name.to_owned()),
        caps: Some(vec!["wasmcloud:httpserver".to_owned()]),
        rev: Some(revision),
        ver: Some("0.3.9".to_owned()),
        ..Actor::default()
    };
    let claims = Claims::new(guests::key(name), actor, Now::from_system(0)).expect("claims are complete");
    let guest = fs::read(guests::module_path(name)).expect("guests are built");
    module::sign(&guest, claims, &guests::account()).expect("a guest can be signed").0
}

/// The recording's names and ours.
struct Names(Vec<(&'static str, String)>);

impl Names {
    fn ours(&self, recorded: &str) -> String {
        self.0.iter().fold(recorded.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
    }
}

/// The client, with everything it heard on the subjects it listens to.
struct Wash {
    client: Client,
    events: async_nats::Subscriber,
    heard: Vec<(String, Value)>,
    host: String,
}

impl Wash {
    /// Asks until the client would give up; `None` where nobody answers.
    async fn ask(&self, subject: &str, body: &str) -> Option<Value> {
        let asked = self.client.request(subject.to_owned(), body.to_owned().into());
        let answer = tokio::time::timeout(CLIENT_PATIENCE, asked).await.ok()?.ok()?;
        Some(serde_json::from_slice(&answer.payload).unwrap_or_else(|error| panic!("{subject}: {error}")))
    }

    /// Forgets what was heard: a command listens only from its own start.
    async fn listen(&mut self) {
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), self.events.next()).await {}
        self.heard.clear();
    }

    /// Waits for an event of one of `names` whose `member` is `value`, as this client does: an event of these names from
    /// this host without the member as a string ends the wait with an error, whatever it is about.
    async fn wait(&mut self, names: &[&str], member: &str, value: &str) -> Value {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = tokio::time::timeout_at(until, self.events.next()).await;
            let Ok(Some(message)) = next else { panic!("none of {names:?} with {member} {value}: {:?}", self.heard) };
            let event: Value = serde_json::from_slice(&message.payload).expect("events are JSON");
            let name = message.subject.rsplit('.').next().expect("a subject has a last part").to_owned();
            assert_eq!(event["type"], format!("com.wasmcloud.lattice.{name}"), "the subject and the type are one");
            for attribute in ["specversion", "id", "source", "time"] {
                assert!(event[attribute].is_string(), "{attribute}: {event}");
            }
            self.heard.push((name.clone(), event.clone()));
            if names.contains(&name.as_str()) && event["source"] == self.host.as_str() {
                let data = &event["data"];
                let Some(is) = data[member].as_str() else { panic!("{name}: {member} is no string: {event}") };
                if is == value {
                    return data.clone();
                }
            }
        }
    }
}

fn strings(value: &Value, members: &[&str]) {
    for member in members {
        assert!(value[*member].is_string(), "{member} is a string: {value}");
    }
}

/// A map whose values are strings; another value fails the whole answer at the client.
fn string_map(value: &Value) {
    let map = value.as_object().unwrap_or_else(|| panic!("a map: {value}"));
    assert!(map.values().all(Value::is_string), "strings only: {value}");
}

fn ack(answer: &Value) {
    assert!(answer["accepted"].is_boolean() && answer["error"].is_string(), "an ack: {answer}");
}

/// What the client reads of a host that answers a ping.
fn ping(answer: &Value, host: &str) {
    assert_eq!((answer["id"].as_str(), answer["lattice"].as_str()), (Some(host), Some("default")));
    strings(answer, &["friendly_name", "version", "uptime_human", "cluster_issuers", "ctl_host", "rpc_host"]);
    assert!(answer["uptime_seconds"].is_u64(), "{answer}");
    string_map(&answer["labels"]);
}

/// What it reads of an inventory.
fn inventory(answer: &Value, host: &str) {
    assert_eq!(answer["host_id"], host);
    strings(answer, &["issuer", "friendly_name", "version", "uptime_human"]);
    assert!(answer["uptime_seconds"].is_u64(), "{answer}");
    string_map(&answer["labels"]);
    for actor in answer["actors"].as_array().expect("actors are listed") {
        strings(actor, &["id", "image_ref", "name"]);
        for instance in actor["instances"].as_array().expect("instances are listed") {
            strings(instance, &["instance_id"]);
            assert!(instance["revision"].is_i64(), "{instance}");
        }
    }
    for provider in answer["providers"].as_array().expect("providers are listed") {
        strings(provider, &["id", "image_ref", "contract_id", "link_name"]);
    }
}

/// The instances of `actor` in an inventory.
fn instances(answer: &Value, actor: &str) -> u64 {
    let actors = answer["actors"].as_array().expect("actors are listed");
    let found = actors.iter().find(|one| one["id"] == actor);
    let listed = found.map_or(&[][..], |one| one["instances"].as_array().expect("instances are listed"));
    // One entry for each set of annotations, with how many there are.
    listed.iter().map(|entry| entry["max_instances"].as_u64().expect("a number")).sum()
}

/// Calls an actor with the body and the names `wash call` gives: the actor itself as the origin.
async fn call(wash: &Wash, actor: &str, operation: &str, body: Vec<u8>, key: KeyPair) -> InvocationResponse<'static> {
    let signer = AntiForgery::new(key, []).expect("a cluster key signs");
    let mut invocation = Invocation {
        origin: Entity::actor(actor),
        target: Entity::actor(actor),
        operation: operation.into(),
        id: format!("{operation}-1"),
        host_id: "NwashHostCallerId000000000000000000000000000000000000000".into(),
        content_length: Some(body.len() as u64),
        ..Invocation::default()
    };
    invocation.encoded_claims = signer.sign(&invocation, &body, Now::from_system(0)).expect("it can be signed");
    invocation.msg = Cow::Owned(body);
    let asked = wash.client.request(
        format!("wasmbus.rpc.default.{actor}"),
        invocation.encode().expect("an envelope can be written").into(),
    );
    let answer = tokio::time::timeout(PATIENCE, asked).await.expect("in time").expect("the actor answers");
    let response = InvocationResponse::decode(&answer.payload).expect("a response");
    InvocationResponse {
        msg: Cow::Owned(response.msg.into_owned()),
        invocation_id: response.invocation_id,
        error: response.error,
        content_length: response.content_length,
        trace_context: response.trace_context,
        instance_id: response.instance_id,
    }
}

fn get(path: &str) -> Vec<u8> {
    let request = HttpRequest { method: "GET".into(), path: path.into(), ..HttpRequest::default() };
    rmp_serde::to_vec_named(&request).expect("a request can be written")
}

#[test]
fn the_recorded_session_of_wash_026_succeeds() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(session("full"));
}

/// The session touches only what it started, but for its last command: the host's end.
#[test]
fn the_recorded_session_of_wash_026_succeeds_where_it_may_change_only_its_own() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(session("own"));
}

async fn session(remote: &str) {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let (_server, port) = nats_server(&sandbox.path(""));
    let updated = sandbox.write("echo-0.3.9.wasm", with_revision("echo", 5));
    let log = fs::File::create(sandbox.path("host.log")).expect("the temporary folder is writable");
    let mut host = Running(
        sandbox
            .command(&["run"])
            .env("WASMCLOUD_RPC_PORT", port.to_string())
            .env("WASMCLOUD_CTL_PORT", port.to_string())
            .env("WASMCLOUD_ALLOW_FILE_LOAD", "true")
            .env("WASMCLOUD_REMOTE", remote)
            .env("WASMCLOUD_CLUSTER_SEED", cluster().seed().expose())
            .env("HOST_site", "bench")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program can be started"),
    );
    let printed = || fs::read_to_string(sandbox.path("host.log")).unwrap_or_default();

    let client = async_nats::connect(format!("127.0.0.1:{port}")).await.expect("the server takes clients");
    let events = client.subscribe("wasmbus.evt.default.*".to_owned()).await.expect("a subscription");
    let mut wash = Wash { client, events, heard: Vec::new(), host: String::new() };
    let until = Instant::now() + PATIENCE;
    while wash.host.is_empty() {
        assert!(Instant::now() < until, "no host answers: {}", printed());
        match wash.ask("wasmbus.ctl.default.ping.hosts", "").await {
            Some(answer) => answer["id"].as_str().expect("a host has a key").clone_into(&mut wash.host),
            None => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }

    let recorded: Value = serde_json::from_str(include_str!("vectors/wash_026.json")).expect("the vector is JSON");
    let file = |name: &str| format!("file://{}", guests::module_path(name).display());
    let (echo, counter, small) = (guests::key("echo"), guests::key("counter"), guests::key("echo_small"));
    let missing = format!("file://{}", sandbox.path("nosuch.wasm").display());
    let names = Names(vec![
        ("NCP7XEYQNC33YYWEKQN3RZM6775KW6ET3BZ4MZACICCY3ALEVXNNA3GJ", wash.host.clone()),
        ("file:///artifacts/rawecho_s.wasm", file("echo_small")),
        ("127.0.0.1:5000/echo:0.3.8", file("echo")),
        ("127.0.0.1:5000/echo:0.3.9", format!("file://{}", updated.display())),
        ("127.0.0.1:5000/kvcounter:0.4.2", file("counter")),
        ("127.0.0.1:5000/nosuch:1.0.0", missing.clone()),
        ("127.0.0.1:5000/httpserver:0.19.1", "builtin:httpserver".to_owned()),
        ("127.0.0.1:5000/kvredis:0.23.0", "builtin:keyvalue".to_owned()),
        ("MCOYJCHL7WJYTWBUVMOZVBJFTOF26GQTKRBLRU42Y2SKZ35O25RZAXS2", echo.clone()),
        ("MBDBQK7XD3O72U3EIOHTPX6BCGYME7QLROKIREEPDVJEUREQNAGIC2I4", counter.clone()),
        ("VDR4IPVWDQJJVITBLIT4MB6QTE2DWIMK2WOOO3NRF7YSKW36HIWNSBCT", builtin_provider_key("httpserver").to_string()),
        ("VDHHFU7QKK7LBUJXSZMGAT76XX26YWHLVOTZTTA5NPGQL4CULYV5P2HJ", builtin_provider_key("keyvalue").to_string()),
        ("127.0.0.1:8080", format!("127.0.0.1:{}", free_port())),
        ("127.0.0.1:8081", format!("127.0.0.1:{}", free_port())),
    ]);

    let mut last_inventory = Value::Null;
    for step in recorded["steps"].as_array().expect("steps are a list") {
        let command = step["command"].as_str().expect("a step has its command");
        eprintln!("{command}");
        wash.listen().await;
        let mut answer = Value::Null;
        for request in step["requests"].as_array().expect("a step has requests") {
            let subject = names.ours(request["subject"].as_str().expect("text"));
            let body = names.ours(request["body"].as_str().expect("text"));
            let answered = wash.ask(&subject, &body).await;
            if command.contains("site=nowhere") {
                // The host of the recording bid although its label differs; the client then went on to start.
                assert_eq!(answered, None, "no bid for a label this host does not have");
                break;
            }
            answer = answered.unwrap_or_else(|| panic!("no answer to {subject} {body}: {}", printed()));
            if subject.contains(".auction.") {
                assert_eq!(answer["host_id"], wash.host.as_str());
                let reference = if subject.ends_with("actor") { "actor_ref" } else { "provider_ref" };
                let sent: Value = serde_json::from_str(&body).expect("the vector's bodies are JSON");
                assert_eq!(answer[reference], sent[reference], "echoed byte for byte");
                string_map(&answer["constraints"]);
            } else if subject.contains(".cmd.") || subject.contains("linkdefs.") || subject.contains(".labels.") {
                ack(&answer);
                let others = remote == "own" && subject.ends_with(".stop");
                assert_eq!(answer["accepted"], !command.contains("nosuch") && !others, "{command}: {answer}");
                if others {
                    let error = answer["error"].as_str().expect("text");
                    assert!(error.contains("set WASMCLOUD_REMOTE=full"), "{error}");
                    host.0.kill().expect("it can be ended");
                }
            }
        }

        // What the client does with the answer and with the events after it.
        let words: Vec<&str> = command.split(' ').collect();
        let reference = |at: usize| names.ours(words[at]);
        match words[1..3] {
            ["get", "hosts"] => ping(&answer, &wash.host),
            ["get", "inventory"] => {
                inventory(&answer, &wash.host);
                last_inventory = answer;
            }
            ["get", "links"] => {
                for link in answer["links"].as_array().expect("links are listed") {
                    strings(link, &["actor_id", "provider_id", "contract_id", "link_name"]);
                    string_map(&link["values"]);
                }
            }
            ["get", "claims"] => {
                let claims = answer["claims"].as_array().expect("claims are listed");
                claims.iter().for_each(string_map);
                for key in [&echo, &counter, &small] {
                    let one = claims.iter().find(|one| one["sub"] == key.as_str());
                    strings(one.unwrap_or_else(|| panic!("{key}: {answer}")), &["iss", "caps", "rev", "version"]);
                }
            }
            ["start", "actor"] if command.contains("site=nowhere") => {}
            ["start", "actor"] if command.contains("nosuch") => {
                assert!(answer["error"].as_str().expect("text").contains("nosuch.wasm"), "{answer}");
                for failure in ["actor_start_failed", "actor_scale_failed"] {
                    let told = wash.wait(&[failure], "actor_ref", &missing).await;
                    strings(&told, &["error"]);
                }
            }
            ["start", "actor"] => {
                // Either is enough for the client; both come.
                for started in ["actor_started", "actor_scaled"] {
                    strings(&wash.wait(&[started], "image_ref", &reference(3)).await, &["public_key"]);
                }
            }
            ["start", "provider"] => {
                let told = wash.wait(&["provider_started"], "image_ref", &reference(3)).await;
                strings(&told, &["public_key", "contract_id", "link_name"]);
            }
            ["stop", "actor"] => {
                for stopped in ["actor_stopped", "actor_scaled"] {
                    wash.wait(&[stopped], "public_key", &reference(3)).await;
                }
            }
            ["stop", "provider"] => {
                let told = wash.wait(&["provider_stopped"], "public_key", &reference(3)).await;
                strings(&told, &["contract_id", "link_name"]);
            }
            ["scale", "actor"] => {
                wash.wait(&["actor_scaled"], "image_ref", &reference(4)).await;
            }
            ["update", "actor"] => {
                wash.wait(&["actor_updated"], "public_key", &echo).await;
                let response = call(&wash, &echo, "HttpServer.HandleRequest", get("/after-update"), cluster()).await;
                assert_eq!(response.error, None);
                let page: HttpResponse = rmp_serde::from_slice(&response.msg).expect("a page");
                assert_eq!(page.status_code, 200);
            }
            ["link", "put"] => {
                wash.wait(&["linkdef_set"], "actor_id", &reference(3)).await;
            }
            ["link", "del"] => {
                wash.wait(&["linkdef_deleted"], "actor_id", &reference(3)).await;
            }
            ["label", _] | ["stop", "host"] => {}
            _ => panic!("the vector has a command this test does not know: {command}"),
        }
        match words[1] {
            "scale" if command.ends_with("--max-instances 5") => {
                let refused = call(&wash, &echo, "No.SuchOperation", b"\x80".to_vec(), cluster()).await;
                assert!(refused.error.is_some(), "an unknown operation is an error: {refused:?}");
                let stranger = KeyPair::from_name(Role::Cluster, "stranger");
                let refused = call(&wash, &echo, "HttpServer.HandleRequest", get("/"), stranger).await;
                let text = refused.error.expect("a stranger's signature is refused");
                assert!(text.contains("valid issuers"), "{text}");
            }
            "get" if command.contains("inventory") && command.ends_with("json") => {
                assert_eq!(instances(&last_inventory, &echo), 5, "{last_inventory}");
            }
            "label" => {
                let answer = wash.ask("wasmbus.ctl.default.ping.hosts", "").await.expect("a host answers");
                assert_eq!(answer["labels"]["zone"], "z1");
            }
            _ => {}
        }
    }

    // At the end everything of the session but the first actor and the HTTP server was stopped again.
    assert_eq!(instances(&last_inventory, &echo) + instances(&last_inventory, &counter), 0, "{last_inventory}");
    assert_eq!(instances(&last_inventory, &small), 1, "{last_inventory}");
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = host.0.try_wait().expect("the child can be asked") {
            break status;
        }
        assert!(Instant::now() < until, "`wash stop host` does not stop it: {}", printed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(status.success(), remote == "full", "{status}: {}", printed());
}
