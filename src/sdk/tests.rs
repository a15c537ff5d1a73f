//! A provider on a real nats-server; the test plays its host and its actors.
//!
//! `every_recorded_step` goes through the session that was recorded with a provider of the published SDK
//! (`tests/vectors/provider_live.json`) and expects the same answers.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Call, Lattice, Provider, serve::serve};
use crate::{
    claims::{AntiForgery, KeyPair, Now, Role},
    error::{Error, Result},
    nats::{
        Connection,
        bodies::Bodies,
        calls::{read_answer, seal},
        connection::Answer,
        testing::{NatsServer, PATIENCE, connect, eventually, run, steady},
    },
    task,
    wire::{Entity, Invocation, InvocationResponse, LinkDefinition, chunk, codec, host_data::HostData},
};

const SECOND_ACTOR: &str = "MDT7CYVBBPWFLGX6UGK6JXHIJNUVNDK5FSYJMPVUI3AGQXRLC7ZPBKHD";
const LATTICE: &str = "spec";

/// What the provider of the recording did, and what the tests below need.
struct Recorded {
    lattice: Lattice,
    healthy: Arc<AtomicBool>,
    story: Arc<Mutex<Vec<String>>>,
}

impl Recorded {
    fn tell(&self, what: impl Into<String>) {
        self.story.lock().unwrap().push(what.into());
    }
}

impl Provider for Recorded {
    async fn call(&self, call: Call) -> Result<Vec<u8>> {
        match call.operation.as_str() {
            "Test.Echo" => Ok(call.payload),
            "Test.Fail" => Err(Error::guest("deliberate")),
            "Test.CallActor" => self.lattice.call_actor(&call.link, "Sub.Handle", call.payload).await,
            "Test.Never" => std::future::pending().await,
            _ => Err(call.not_handled()),
        }
    }

    async fn link(&self, link: &LinkDefinition) -> Result<()> {
        if link.values.contains_key("REFUSED") {
            return Err(Error::config("REFUSED is set"));
        }
        self.tell(format!("link {}", link.values.values().next().cloned().unwrap_or_default()));
        Ok(())
    }

    async fn unlink(&self, link: &LinkDefinition) {
        self.tell(format!("unlink {}", link.values.values().next().cloned().unwrap_or_default()));
    }

    async fn health(&self) -> Result<()> {
        if self.healthy.load(SeqCst) { Ok(()) } else { Err(Error::unavailable("no more tea")) }
    }

    async fn shutdown(&self) {
        self.tell("shutdown");
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../tests/vectors/provider_live.json")).unwrap()
}

fn step(name: &str) -> Value {
    let vectors = vectors();
    let steps = vectors["steps"].as_array().unwrap();
    steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no step {name}")).clone()
}

/// The host, the actors, and a provider in the process of the test.
struct Scene {
    connection: Connection,
    bodies: Bodies,
    signer: AntiForgery,
    data: HostData,
    actor: String,
    healthy: Arc<AtomicBool>,
    story: Arc<Mutex<Vec<String>>>,
    provider: smol::Task<Result<()>>,
    /// Last, so that it outlives the connections.
    server: NatsServer,
}

impl Scene {
    async fn new() -> Self {
        let server = NatsServer::start("");
        let mut data: HostData = serde_json::from_value(vectors()["host_data"].clone()).unwrap();
        data.lattice_rpc_url = format!("127.0.0.1:{}", server.port);
        let connection = connect(&server.endpoint(), &steady()).await;
        let bodies = Bodies::new(connection.clone(), LATTICE, None);
        let signer = AntiForgery::new(KeyPair::from_seed(&data.invocation_seed).unwrap(), []).unwrap();
        let (healthy, story) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<Vec<String>>>::default());
        // Opened here and not in the task, which may run on the runtime of another test.
        let lattice = Lattice::open(data.clone()).await.unwrap();
        let recorded = Recorded { lattice: lattice.clone(), healthy: Arc::clone(&healthy), story: Arc::clone(&story) };
        let provider = task::spawn(serve(lattice, recorded));
        let actor = data.link_definitions[0].actor_id.clone();
        let scene = Self { connection, bodies, signer, data, actor, healthy, story, provider, server };
        scene.health().await;
        scene
    }

    fn subject(&self, tail: &str) -> String {
        format!("wasmbus.rpc.{LATTICE}.{}.{}{tail}", self.data.provider_key, self.data.link_name)
    }

    /// Asks until the provider answers: then it hears everything.
    async fn health(&self) -> Vec<u8> {
        for _ in 0..400 {
            let asked = self.connection.request(self.subject(".health"), None, Vec::new(), PATIENCE).await;
            if let Ok(Answer::Message(message)) = asked {
                return message.payload.to_vec();
            }
            smol::Timer::after(Duration::from_millis(50)).await;
        }
        panic!("the provider gives no sign of life: {}", self.server.log());
    }

    fn unsigned(&self, id: &str, operation: &str, body: &[u8]) -> Invocation<'static> {
        Invocation {
            origin: Entity::actor(&self.actor),
            target: Entity::provider(&self.data.provider_key, "wasmcloud:test", &self.data.link_name),
            operation: operation.to_owned(),
            msg: Cow::Owned(body.to_vec()),
            id: id.to_owned(),
            host_id: self.data.host_id.clone(),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        }
    }

    fn signed(&self, mut invocation: Invocation<'static>) -> Invocation<'static> {
        invocation.encoded_claims =
            self.signer.sign(&invocation, &invocation.msg.clone(), Now::from_system(0)).unwrap();
        invocation
    }

    async fn ask(&self, body: Vec<u8>) -> InvocationResponse<'static> {
        let answer = self.connection.request(self.subject(""), None, body, PATIENCE).await.unwrap();
        let Answer::Message(message) = answer else { panic!("no answer: {answer:?}") };
        let InvocationResponse { msg, invocation_id, error, content_length, trace_context, instance_id } =
            InvocationResponse::decode(&message.payload).unwrap();
        let msg = Cow::Owned(msg.into_owned());
        InvocationResponse { msg, invocation_id, error, content_length, trace_context, instance_id }
    }

    async fn send(&self, invocation: Invocation<'static>) -> InvocationResponse<'static> {
        self.ask(invocation.encode().unwrap()).await
    }

    async fn say(&self, tail: &str, link: &LinkDefinition) {
        self.connection.publish(self.subject(tail), codec::encode(link).unwrap()).await.unwrap();
    }

    fn story(&self) -> Vec<String> {
        self.story.lock().unwrap().clone()
    }

    fn link(&self, actor: &str, value: &str) -> LinkDefinition {
        LinkDefinition {
            actor_id: actor.to_owned(),
            values: [("A".to_owned(), value.to_owned())].into(),
            ..self.data.link_definitions[0].clone()
        }
    }

    async fn end(self) {
        let told = json!({ "host_id": self.data.host_id }).to_string().into_bytes();
        let answer = self.connection.request(self.subject(".shutdown"), None, told, PATIENCE).await.unwrap();
        let Answer::Message(message) = answer else { panic!("no answer: {answer:?}") };
        assert_eq!(&message.payload[..], step("shutdown for this host")["result"]["Ok"].as_str().unwrap().as_bytes());
        self.provider.await.unwrap();
    }
}

/// The same answer as recorded, whatever else the envelope holds.
fn assert_recorded(name: &str, response: &InvocationResponse<'_>) {
    let recorded = step(name);
    let bytes = HEXLOWER.decode(recorded["reply_hex"].as_str().unwrap().as_bytes()).unwrap();
    let recorded = InvocationResponse::decode(&bytes).unwrap();
    assert_eq!(response.error, recorded.error, "{name}");
    assert_eq!(response.content_length, recorded.content_length, "{name}");
    assert_eq!(response.msg.len(), recorded.msg.len(), "{name}");
    assert_eq!(response.invocation_id, recorded.invocation_id, "{name}");
}

#[test]
fn every_recorded_step() {
    run(async {
        let scene = Scene::new().await;
        assert_eq!(HEXLOWER.encode(&scene.health().await), step("health")["reply_hex"]);

        let echo = |id: &str, body: &[u8]| scene.signed(scene.unsigned(id, "Test.Echo", body));
        assert_recorded("echo from linked actor", &scene.send(echo("id1", &[0xa1, b'x'])).await);
        let failing = scene.signed(scene.unsigned("id2", "Test.Fail", b"x"));
        assert_recorded("provider returns an error", &scene.send(failing).await);
        let unknown = scene.signed(scene.unsigned("id3", "Nope.X", b"x"));
        assert_recorded("unknown operation", &scene.send(unknown).await);

        let from = |actor: &str, id: &str| Invocation {
            origin: Entity::actor(actor),
            ..scene.unsigned(id, "Test.Echo", &[1])
        };
        assert_recorded("unlinked actor", &scene.send(scene.signed(from(SECOND_ACTOR, "id4"))).await);

        let mut strange = scene.unsigned("id5", "Test.Echo", b"x");
        let stranger = AntiForgery::new(KeyPair::from_name(Role::Cluster, "stranger"), []).unwrap();
        strange.encoded_claims = stranger.sign(&strange, b"x", Now::from_system(0)).unwrap();
        assert_recorded("unknown issuer", &scene.send(strange).await);

        // Which bodies were recorded is not known, so the hashes differ.
        let mut changed = echo("id6", b"x");
        changed.msg = Cow::Borrowed(b"y");
        let mut response = scene.send(changed).await;
        let (said, recorded) = (response.error.take().unwrap(), step("body changed after signing"));
        let without_hashes = |text: &str| text.split_once('(').unwrap().0.to_owned();
        assert_eq!(without_hashes(&said), without_hashes(recorded["error"].as_str().unwrap()));
        assert_eq!(said.len(), recorded["error"].as_str().unwrap().len());
        assert_eq!((response.content_length, response.invocation_id.as_str()), (Some(0), "id6"));

        // The SDK names the host where it means itself.
        let mut elsewhere = scene.unsigned("id7", "Test.Echo", b"x");
        elsewhere.target.public_key = SECOND_ACTOR.replace('M', "V");
        let mut response = scene.send(scene.signed(elsewhere)).await;
        response.error = response.error.map(|text| text.replace(&scene.data.provider_key, &scene.data.host_id));
        assert_recorded("other target key", &response);

        let hosted =
            |id: &str, host_id: &str| Invocation { host_id: host_id.into(), ..scene.unsigned(id, "Test.Echo", &[1]) };
        let cluster = scene.data.cluster_issuers[0].clone();
        assert_recorded("host_id is the cluster key", &scene.send(scene.signed(hosted("id8", &cluster))).await);
        assert_recorded("host_id garbage", &scene.send(scene.signed(hosted("id9", "garbage"))).await);
        assert_recorded("not msgpack at all", &scene.ask(b"hello".to_vec()).await);

        scene.say(".linkdefs.put", &scene.link(SECOND_ACTOR, "2")).await;
        eventually("linked", || scene.story().contains(&"link 2".to_owned())).await;
        assert_recorded("second actor after linkdefs.put", &scene.send(scene.signed(from(SECOND_ACTOR, "id10"))).await);
        scene.say(".linkdefs.del", &scene.link(SECOND_ACTOR, "2")).await;
        eventually("unlinked", || scene.story().contains(&"unlink 2".to_owned())).await;
        assert_recorded("second actor after linkdefs.del", &scene.send(scene.signed(from(SECOND_ACTOR, "id11"))).await);

        // The actor of the recording answered with a msgpack str, as hosts of one generation do.
        let actor = scene.connection.subscribe(format!("wasmbus.rpc.{LATTICE}.{}", scene.actor), None).await.unwrap();
        let heard = task::spawn(answer_as_old_hosts(scene.connection.clone(), actor));
        let calling = scene.signed(scene.unsigned("id12", "Test.CallActor", &[1]));
        assert_recorded("provider calls actor, answer had msg as msgpack str", &scene.send(calling).await);
        assert_eq!(heard.await, step("what the actor side saw")["invocation"]);

        let big: Vec<u8> = (0..1_000_000_u32).map(|at| at as u8).collect();
        let mut invocation = scene.unsigned("bigid", "Test.Echo", &big);
        invocation = scene.signed(invocation);
        invocation.msg = Cow::Borrowed(b"");
        scene.bodies.store(chunk::request_object("bigid"), big.clone(), PATIENCE).await.unwrap();
        assert_recorded("chunked echo, 1000000 bytes", &scene.send(invocation).await);
        let answer = scene.bodies.take(chunk::response_object("bigid"), 1_000_000, PATIENCE).await.unwrap();
        assert!(answer == big);
        // The request is gone: whoever reads it deletes it.
        assert!(scene.bodies.take(chunk::request_object("bigid"), 1_000_000, PATIENCE).await.is_err());

        let other = json!({ "host_id": format!("N{}", "A".repeat(55)) }).to_string().into_bytes();
        let answer = scene.connection.request(scene.subject(".shutdown"), None, other, Duration::from_secs(1)).await;
        assert!(matches!(answer.unwrap(), Answer::Silence));
        // A plain message is not enough, and the provider still lives.
        scene.connection.publish(scene.subject(".shutdown"), Vec::new()).await.unwrap();
        scene.health().await;
        let story = scene.story.clone();
        scene.end().await;
        assert_eq!(story.lock().unwrap().last().map(String::as_str), Some("shutdown"));
    });
}

/// Answers one call with the text `ok`, and describes it as the recording does.
async fn answer_as_old_hosts(connection: Connection, mut calls: crate::nats::connection::Subscriber) -> Value {
    let message = calls.next().await.unwrap();
    let reply = rmp_serde::to_vec_named(&json!({ "msg": "ok" })).unwrap();
    connection.publish(message.reply.unwrap().to_string(), reply).await.unwrap();
    let invocation = Invocation::decode(&message.payload).unwrap();
    let mut token = invocation.encoded_claims.split('.').skip(1);
    let claims = data_encoding::BASE64URL_NOPAD.decode(token.next().unwrap().as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let host_data = &vectors()["host_data"];
    let mut seen = step("what the actor side saw")["invocation"].clone();
    seen["origin"] = serde_json::to_value(&invocation.origin).unwrap();
    seen["target"] = serde_json::to_value(&invocation.target).unwrap();
    seen["operation"] = invocation.operation.clone().into();
    seen["host_id_is_host"] = (host_data["host_id"] == invocation.host_id).into();
    seen["claims_issuer"] = claims["iss"].clone();
    seen["claims_subject_is_id"] = (claims["sub"] == invocation.id).into();
    seen["origin_url"] = claims["wascap"]["origin_url"].clone();
    seen["target_url"] = claims["wascap"]["target_url"].clone();
    seen["content_length"] = invocation.content_length.into();
    seen
}

#[test]
fn long_bodies_go_both_ways_between_provider_and_actor() {
    run(async {
        let scene = Scene::new().await;
        let mut calls =
            scene.connection.subscribe(format!("wasmbus.rpc.{LATTICE}.{}", scene.actor), None).await.unwrap();
        let (connection, bodies) = (scene.connection.clone(), scene.bodies.clone());
        let actor = task::spawn(async move {
            let message = calls.next().await.unwrap();
            let invocation = Invocation::decode(&message.payload).unwrap();
            assert!(invocation.is_stored());
            let length = invocation.content_length.unwrap();
            let mut body = bodies.take(chunk::request_object(&invocation.id), length, PATIENCE).await.unwrap();
            body.reverse();
            bodies.store(chunk::response_object(&invocation.id), body, PATIENCE).await.unwrap();
            let response = InvocationResponse {
                content_length: Some(length),
                ..InvocationResponse::success(&invocation.id, &b""[..])
            };
            connection.publish(message.reply.unwrap().to_string(), response.encode().unwrap()).await.unwrap();
        });
        let body: Vec<u8> = (0..1_200_000_u32).map(|at| (at / 7) as u8).collect();
        let mut invocation = scene.unsigned("", "Test.CallActor", b"");
        invocation.msg = Cow::Borrowed(b"");
        let invocation = seal(invocation, body.clone(), &scene.signer, &scene.bodies, PATIENCE).await.unwrap();
        let asked = scene.connection.request(scene.subject(""), None, invocation.encode().unwrap(), PATIENCE).await;
        let Answer::Message(message) = asked.unwrap() else { panic!("no answer") };
        let answer = read_answer(&scene.bodies, &invocation.id, &message, PATIENCE).await.unwrap();
        assert!(answer.iter().eq(body.iter().rev()));
        actor.await;

        // A long body that is not the one that was signed.
        let mut forged = scene.unsigned("forged", "Test.Echo", &body);
        forged = scene.signed(forged);
        forged.msg = Cow::Borrowed(b"");
        scene.bodies.store(chunk::request_object("forged"), vec![0; body.len()], PATIENCE).await.unwrap();
        let refused = scene.send(forged).await.error.unwrap();
        assert!(refused.starts_with("Invocation hash does not match signed claims hash"), "{refused}");
        scene.end().await;
    });
}

#[test]
fn an_empty_body_is_checked_too() {
    run(async {
        let scene = Scene::new().await;
        let mut emptied = scene.signed(scene.unsigned("id", "Test.Echo", b"x"));
        emptied.msg = Cow::Borrowed(b"");
        emptied.content_length = Some(0);
        let refused = scene.send(emptied).await.error.unwrap();
        assert!(refused.starts_with("Invocation hash does not match signed claims hash"), "{refused}");
        scene.end().await;
    });
}

#[test]
fn links_change_in_the_order_they_were_told() {
    run(async {
        let scene = Scene::new().await;
        let mut expected = vec!["link 1".to_owned()];
        for round in 0..50 {
            scene.say(".linkdefs.put", &scene.link(SECOND_ACTOR, &format!("{round}"))).await;
            scene.say(".linkdefs.put", &scene.link(SECOND_ACTOR, &format!("{round}"))).await;
            scene.say(".linkdefs.del", &scene.link(SECOND_ACTOR, "")).await;
            expected.extend([format!("link {round}"), format!("unlink {round}")]);
        }
        // Other values without the `del` between them, and a link that the provider refuses.
        for value in ["x", "y"] {
            scene.say(".linkdefs.put", &scene.link(SECOND_ACTOR, value)).await;
        }
        let mut refused = scene.link("MREFUSED", "");
        refused.values.insert("REFUSED".into(), "".into());
        scene.say(".linkdefs.put", &refused).await;
        scene.connection.publish(scene.subject(".linkdefs.put"), &b"nonsense"[..]).await.unwrap();
        scene.say(".linkdefs.put", &scene.link("MLAST", "last")).await;
        expected.extend(["link x", "unlink x", "link y", "link last"].map(str::to_owned));
        eventually("the last link", || scene.story().last().is_some_and(|last| last == "link last")).await;
        assert_eq!(scene.story(), expected);
        let from = Invocation { origin: Entity::actor("MREFUSED"), ..scene.unsigned("id", "Test.Echo", &[1]) };
        assert_eq!(scene.send(scene.signed(from)).await.error.unwrap(), "unlinked actor: 'MREFUSED'");
        scene.end().await;
    });
}

#[test]
fn it_says_why_it_is_not_well() {
    run(async {
        let scene = Scene::new().await;
        scene.healthy.store(false, SeqCst);
        let said: Value = rmp_serde::from_slice(&scene.health().await).unwrap();
        assert_eq!(said, json!({ "healthy": false, "message": "no more tea" }));
        scene.end().await;
    });
}

#[test]
fn a_call_that_never_ends_is_cut_off_and_the_others_go_on() {
    run(async {
        let scene = Scene::new().await;
        let never = scene.send(scene.signed(scene.unsigned("id", "Test.Never", b"x")));
        let echo = scene.send(scene.signed(scene.unsigned("id2", "Test.Echo", b"x")));
        let (never, echo) = futures_util::join!(never, echo);
        assert_eq!(echo.error, None);
        assert_eq!(never.error.unwrap(), "Test.Never was not answered within 2000 ms");
        scene.end().await;
    });
}

#[test]
fn it_comes_back_whenever_its_server_does() {
    run(async {
        let mut scene = Scene::new().await;
        for _ in 0..2 {
            scene.server.kill();
            eventually("lost", || !scene.connection.is_connected()).await;
            scene.server.resume();
            scene.connection.connected().await;
            scene.health().await;
            let response = scene.send(scene.signed(scene.unsigned("id", "Test.Echo", b"x"))).await;
            assert_eq!((response.error, &response.msg[..]), (None, &b"x"[..]));
        }
        scene.say(".linkdefs.put", &scene.link(SECOND_ACTOR, "again")).await;
        eventually("linked", || scene.story().last().is_some_and(|last| last == "link again")).await;
        scene.end().await;
    });
}

#[test]
fn unusable_host_data_is_refused_with_its_reason() {
    run(async {
        let data: HostData = serde_json::from_value(vectors()["host_data"].clone()).unwrap();
        let mut cases = Vec::new();
        for (name, change) in [
            ("provider_key", (|data| data.provider_key.clear()) as fn(&mut HostData)),
            ("invocation_seed", |data| data.invocation_seed = "SCNONSENSE".to_owned().into()),
            ("lattice name", |data| data.lattice_rpc_prefix = "a.b".into()),
            ("NATS server", |data| data.lattice_rpc_url = "http://x".into()),
            ("without its seed", |data| data.lattice_rpc_user_jwt = "a.b.c".into()),
        ] {
            let mut data = data.clone();
            change(&mut data);
            cases.push((name, data));
        }
        for (name, data) in cases {
            let made = Lattice::open(data).await.map(|_| ());
            let error = made.expect_err(name);
            assert!(error.text().starts_with("host data: ") && error.text().contains(name), "{name}: {error}");
            assert!(!error.text().contains("SCNONSENSE"));
        }
    });
}
