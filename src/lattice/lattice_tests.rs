//! Whole hosts in one lattice, on a real server: managed with plain NATS requests, calling each other, cut off and back.

use std::{borrow::Cow, collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Lattice, LatticeEvents, Mailbox, Settings};
use crate::{
    actor::{self, Engine},
    artifact, capability,
    claims::{AntiForgery, KeyPair, Now, Role, builtin_provider_key},
    error::Kind,
    host::{self, Host, Parts},
    nats::{
        connection::{Answer, Background, Connection},
        endpoint::{Endpoint, Login, Tls},
        testing::{NatsServer, connect, eventually, forward, free_port, run, steady},
    },
    service::clock::SystemClock,
    store::{self, RealDisk, Store},
    task,
    wire::{
        Entity, Invocation, InvocationResponse, LinkDefinition,
        cache::encode_link,
        chunk,
        interface::{HTTP_SERVER, HttpRequest, HttpResponse, KEY_VALUE},
        link::link_id,
    },
};

pub fn module(name: &str) -> String {
    format!("file://{}/tests/actors/built/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

/// What the boards are set to; not what they are unless set otherwise.
const MAX_CONCURRENT: u16 = 6;

fn cluster() -> KeyPair {
    KeyPair::from_name(Role::Cluster, "test cluster")
}

pub fn anti_forgery() -> AntiForgery {
    AntiForgery::new(cluster(), []).unwrap()
}

/// A running host in its lattice.
pub struct Board {
    pub host: Arc<Host>,
    pub lattice: Lattice,
    running: smol::Task<()>,
}

impl Board {
    pub async fn start(name: &str, directory: &Path, endpoint: &Endpoint) -> Self {
        let settings = Settings { timing: steady(), ..Settings::new("default", endpoint.clone()) };
        Self::start_with(name, directory, settings).await
    }

    pub async fn start_with(name: &str, directory: &Path, settings: Settings) -> Self {
        let disk = Arc::new(RealDisk::new(directory.to_owned()));
        let mut opened = Store::open(store::Settings::default(), disk.clone());
        for _ in 0..1000 {
            // Answers on their way out hold the host that was here before for a moment longer than its end.
            if opened.as_ref().is_err_and(|error| error.kind() == Kind::Conflict) {
                smol::Timer::after(Duration::from_millis(20)).await;
                opened = Store::open(store::Settings::default(), disk.clone());
            }
        }
        let (store, damage) = opened.unwrap();
        assert_eq!(damage, []);
        let key = KeyPair::from_name(Role::Server, name);
        let limits = (settings.outbox_events, settings.outbox_bytes);
        let id = key.public_key().to_string();
        let mailbox = Mailbox::open(&id, limits, Some(store.clone()), false).unwrap();
        let events = LatticeEvents::new(&id, mailbox);
        let host = Host::new(
            host::Settings {
                lattice: "default".into(),
                friendly_name: format!("{name}-1"),
                labels: BTreeMap::from([("site".to_owned(), name.to_owned())]),
                drain: Duration::from_secs(1),
                rules: host::Rules { file_load: true, ..host::Rules::default() },
                artifacts: artifact::Settings::default(),
            },
            Parts {
                key,
                builtins: capability::builtins(&store, &capability::Settings::default()),
                store,
                engine: Engine::new(actor::Settings { max_concurrent: MAX_CONCURRENT, ..actor::Settings::default() })
                    .unwrap(),
                intrinsics: capability::INTRINSICS,
                events: vec![events.clone()],
                clock: Box::new(SystemClock),
            },
        )
        .unwrap();
        let lattice = Lattice::start(settings, host.clone(), anti_forgery(), events).await.unwrap();
        let running = task::spawn({
            let host = host.clone();
            async move { host.run().await }
        });
        Self { host, lattice, running }
    }

    pub fn id(&self) -> String {
        self.host.id()
    }

    pub async fn stop(self) {
        self.host.request_stop();
        self.ended().await;
    }

    /// Waits until it was stopped from afar.
    pub async fn ended(self) {
        self.running.await;
        self.lattice.stop().await;
    }
}

/// A client with everything it heard.
pub struct Client {
    pub connection: Connection,
    pub heard: Arc<std::sync::Mutex<Vec<(String, Value)>>>,
    _listening: Vec<Background>,
}

impl Client {
    pub async fn new(endpoint: &Endpoint) -> Self {
        let connection = connect(endpoint, &steady()).await;
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut listening = Vec::new();
        for subject in ["wasmbus.evt.>", "wasmbus.rpcevt.>"] {
            let mut messages = connection.subscribe(subject.to_owned(), None).await.unwrap();
            let heard = heard.clone();
            listening.push(connection.spawn(async move {
                while let Some(message) = messages.next().await {
                    let event = serde_json::from_slice(&message.payload).unwrap();
                    heard.lock().unwrap().push((message.subject.to_string(), event));
                }
            }));
        }
        Self { connection, heard, _listening: listening }
    }

    async fn raw(&self, subject: &str, body: Vec<u8>) -> Answer {
        self.connection.request(subject, None, body, Duration::from_secs(20)).await.unwrap()
    }

    pub async fn ask(&self, tail: &str, body: Value) -> Value {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let subject = format!("wasmbus.ctl.default.{tail}");
        match self.raw(&subject, body).await {
            Answer::Message(message) => serde_json::from_slice(&message.payload).unwrap(),
            other => panic!("{subject}: {other:?}"),
        }
    }

    /// A request until somebody answers: the barrier behind a start.
    pub async fn until_answered(&self, tail: &str) -> Value {
        let subject = format!("wasmbus.ctl.default.{tail}");
        for _ in 0..500 {
            let asked = self.connection.request(subject.clone(), None, "", Duration::from_secs(2)).await;
            if let Ok(Answer::Message(message)) = asked {
                return serde_json::from_slice(&message.payload).unwrap();
            }
            smol::Timer::after(Duration::from_millis(20)).await;
        }
        panic!("nobody answers {subject}");
    }

    pub fn events(&self, name: &str) -> Vec<Value> {
        let subject = format!("wasmbus.evt.default.{name}");
        let heard = self.heard.lock().unwrap();
        let named: Vec<Value> = heard.iter().filter(|(on, _)| *on == subject).map(|(_, event)| event.clone()).collect();
        for event in &named {
            assert!(heard.iter().any(|(on, other)| on == "wasmbus.evt.default" && other["id"] == event["id"]));
        }
        named
    }

    pub async fn event(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = || self.events(name).into_iter().map(|event| event["data"].clone()).find(|data| wanted(data));
        eventually(name, || found().is_some()).await;
        found().unwrap()
    }

    /// Calls an actor as `wash call` does.
    pub async fn call(
        &self,
        actor: &str,
        operation: &str,
        body: Vec<u8>,
        signer: &AntiForgery,
    ) -> InvocationResponse<'static> {
        let mut invocation = Invocation {
            origin: Entity::actor("__WASH__"),
            target: Entity::actor(actor),
            operation: operation.into(),
            msg: Cow::Borrowed(&[]),
            id: crate::wire::id::instance_id(actor, operation, 0).as_str().into(),
            host_id: "NwashHostCallerId000000000000000000000000000000000000000".into(),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        };
        invocation.encoded_claims = signer.sign(&invocation, &body, Now::from_system(0)).unwrap();
        let bodies = crate::nats::bodies::Bodies::new(self.connection.clone(), "default", None);
        if chunk::must_store(body.len()) || body.len() + 4096 > self.connection.max_payload() {
            bodies.store(invocation.id.clone(), body, Duration::from_secs(10)).await.unwrap();
        } else {
            invocation.msg = Cow::Owned(body);
        }
        let answer = self.raw(&format!("wasmbus.rpc.default.{actor}"), invocation.encode().unwrap()).await;
        let Answer::Message(message) = answer else { panic!("{answer:?}") };
        let response = InvocationResponse::decode(&message.payload).unwrap();
        let msg = if response.is_stored() {
            let name = chunk::response_object(&invocation.id);
            bodies.take(name, response.content_length.unwrap(), Duration::from_secs(10)).await.unwrap()
        } else {
            response.msg.into_owned()
        };
        InvocationResponse {
            msg: Cow::Owned(msg),
            invocation_id: response.invocation_id,
            error: response.error,
            content_length: response.content_length,
            trace_context: response.trace_context,
            instance_id: response.instance_id,
        }
    }

    pub async fn http(&self, actor: &str, path: &str, query: &str, body: Vec<u8>) -> HttpResponse {
        let request = HttpRequest {
            method: "POST".into(),
            path: path.into(),
            query_string: query.into(),
            body,
            ..HttpRequest::default()
        };
        let body = rmp_serde::to_vec_named(&request).unwrap();
        let response = self.call(actor, "HttpServer.HandleRequest", body, &anti_forgery()).await;
        assert_eq!(response.error, None);
        rmp_serde::from_slice(&response.msg).unwrap()
    }
}

/// A board alone on a server, and a client that is answered.
pub struct Alone {
    pub board: Board,
    pub client: Client,
    /// The board's key.
    pub id: String,
    pub server: NatsServer,
    pub directory: tempfile::TempDir,
}

impl Alone {
    /// On a server with `configuration`.
    pub async fn start(configuration: &str) -> Self {
        let (server, directory) = (NatsServer::start(configuration), tempfile::tempdir().unwrap());
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        let client = Client::new(&server.endpoint()).await;
        let id = board.id();
        client.until_answered(&format!("get.{id}.inv")).await;
        Self { board, client, id, server, directory }
    }
}

pub fn accepted(answer: &Value) {
    assert_eq!(answer, &json!({"accepted": true, "error": ""}));
}

#[test]
fn a_board_is_managed_from_afar_and_keeps_what_it_was_told() {
    run(async {
        let server = NatsServer::start("");
        let directory = tempfile::tempdir().unwrap();
        let board = Board::start("alpha", directory.path(), &server.endpoint()).await;
        let client = Client::new(&server.endpoint()).await;
        let id = board.id();
        let command = |verb: &str| format!("cmd.{id}.{verb}");

        let ping = client.until_answered("ping.hosts").await;
        assert_eq!((ping["id"].as_str(), ping["lattice"].as_str()), (Some(id.as_str()), Some("default")));
        assert_eq!(ping["labels"]["site"], "alpha");
        client.event("host_heartbeat", |data| data["friendly_name"] == "alpha-1").await;

        // Actors, in the older dialect and in the newer.
        let bid = client.ask("auction.actor", json!({"actor_ref": "r", "constraints": {"site": "alpha"}})).await;
        assert_eq!(bid["host_id"], id.as_str());
        let echo = module("echo_small");
        accepted(
            &client
                .ask(&command("la"), json!({"actor_ref": echo, "count": 1, "host_id": id, "annotations": {"a": "b"}}))
                .await,
        );
        let started = client.event("actor_started", |data| data["image_ref"] == echo.as_str()).await;
        let key = started["public_key"].as_str().unwrap().to_owned();
        assert_eq!(started["annotations"], json!({"a": "b"}));
        client.event("actors_started", |data| data["count"] == 1).await;
        client.event("actor_scaled", |data| data["max_instances"] == 1).await;
        accepted(
            &client.ask(&command("scale"), json!({"actor_ref": echo, "count": 3, "annotations": {"a": "b"}})).await,
        );
        client.event("actor_scaled", |data| data["max_instances"] == 3).await;
        let inventory = client.ask(&format!("get.{id}.inv"), Value::Null).await;
        let listed = inventory["actors"][0]["instances"].as_array().unwrap();
        assert_eq!((listed.len(), &listed[0]["max_concurrent"]), (1, &json!(3)));
        assert_eq!(inventory["actors"][0]["image_ref"], echo.as_str());
        let before = client.events("actor_started").len();
        accepted(
            &client.ask(&command("scale"), json!({"actor_ref": echo, "count": 3, "annotations": {"a": "b"}})).await,
        );
        eventually("told again", || client.events("actor_started").len() > before).await;

        // What the command line lists.
        let settings = Settings { timing: steady(), ..Settings::new("default", server.endpoint()) };
        let hosts = super::gather::hosts(&settings, Duration::from_millis(700)).await.unwrap();
        assert_eq!((hosts.len(), hosts[0].id.as_str(), hosts[0].labels["site"].as_str()), (1, id.as_str(), "alpha"));
        let nobody = Settings::new("empty", server.endpoint());
        assert!(super::gather::hosts(&nobody, Duration::from_secs(10)).await.unwrap().is_empty());

        // Calls: one that is right, one signed by a stranger, one for another target, one too long for a message.
        assert_eq!(client.http(&key, "/", "", b"hello".to_vec()).await.body, b"hello");
        let stranger = AntiForgery::new(KeyPair::from_name(Role::Cluster, "stranger"), []).unwrap();
        let refused = client.call(&key, "HttpServer.HandleRequest", b"\x80".to_vec(), &stranger).await;
        assert_eq!(
            refused.error.as_deref(),
            Some("Anti-forgery check failed: Issuer of this invocation is not among the list of valid issuers")
        );
        let large = module("echo");
        accepted(&client.ask(&command("la"), json!({"actor_ref": large})).await);
        let started = client.event("actor_started", |data| data["image_ref"] == large.as_str()).await;
        let large = started["public_key"].as_str().unwrap().to_owned();
        let long = vec![7; 1_000_000];
        assert_eq!(client.http(&large, "/raw", "", long.clone()).await.body, long);
        accepted(&client.ask(&command("sa"), json!({"actor_ref": large})).await);
        client.event("actor_stopped", |data| data["public_key"] == large.as_str()).await;
        eventually("calls are told", || {
            client.heard.lock().unwrap().iter().any(|(on, event)| {
                on == "wasmbus.rpcevt.default" && event["type"] == "com.wasmcloud.lattice.invocation_succeeded"
            })
        })
        .await;

        // Providers and links, by request and by the bucket.
        let bid = client
            .ask(
                "auction.provider",
                json!({"provider_ref": "builtin:keyvalue", "link_name": "default", "constraints": {}}),
            )
            .await;
        assert_eq!(bid["host_id"], id.as_str());
        accepted(
            &client.ask(&command("lp"), json!({"provider_ref": "builtin:keyvalue", "link_name": "default"})).await,
        );
        let provider = client.event("provider_started", |data| data["image_ref"] == "builtin:keyvalue").await;
        assert_eq!(provider["contract_id"], KEY_VALUE);
        let again =
            client.ask(&command("lp"), json!({"provider_ref": "builtin:keyvalue", "link_name": "default"})).await;
        assert_eq!(again["error"], "Provider with that link name is already running on this host");
        let provider_id = builtin_provider_key("keyvalue").to_string();
        let mut link = LinkDefinition {
            id: link_id(&key, KEY_VALUE, "default"),
            actor_id: key.clone(),
            provider_id: provider_id.clone(),
            link_name: "default".into(),
            contract_id: KEY_VALUE.into(),
            values: BTreeMap::new(),
        };
        accepted(&client.ask("linkdefs.put", serde_json::to_value(&link).unwrap()).await);
        client.event("linkdef_set", |data| data["id"] == link.id.as_str()).await;
        let bucket = client.connection.jetstream(None, Duration::from_secs(5));
        let bucket = client
            .connection
            .run(async move { bucket.get_key_value("LATTICEDATA_default").await.unwrap() })
            .await
            .unwrap();
        let (text, kv) = (format!("LINKDEF_{}", link.id), bucket.clone());
        let in_bucket = client.connection.run(async move {
            for _ in 0..200 {
                if let Ok(Some(value)) = kv.get(text.clone()).await {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("the link never reached the bucket")
        });
        assert_eq!(serde_json::from_slice::<LinkDefinition>(&in_bucket.await.unwrap()).unwrap(), link);
        link.link_name = "second".into();
        link.id = link_id(&key, KEY_VALUE, "second");
        let (name, value, kv) = (format!("LINKDEF_{}", link.id), encode_link(&link).unwrap(), bucket.clone());
        client.connection.run(async move { kv.put(name, value.into()).await.unwrap() }).await.unwrap();
        eventually("a link put into the bucket is taken", || board.host.desired().links.len() == 2).await;
        let (name, kv) = (format!("LINKDEF_{}", link.id), bucket.clone());
        client.connection.run(async move { kv.delete(name).await.unwrap() }).await.unwrap();
        eventually("and one deleted is dropped", || board.host.desired().links.len() == 1).await;
        assert_eq!(client.ask("get.links", Value::Null).await["links"].as_array().unwrap().len(), 1);
        let claims = client.ask("get.claims", Value::Null).await;
        let claims: Vec<BTreeMap<String, String>> = serde_json::from_value(claims["claims"].clone()).unwrap();
        assert!(claims.iter().any(|one| one["sub"] == key) && claims.iter().any(|one| one["sub"] == provider_id));

        // Labels, and what nobody knows.
        accepted(&client.ask(&format!("labels.{id}.put"), json!({"key": "zone", "value": "z1"})).await);
        assert_eq!(client.ask("ping.hosts", Value::Null).await["labels"]["zone"], "z1");
        let unknown = client.ask(&command("dance"), json!({})).await;
        assert_eq!(unknown, json!({"accepted": false, "error": "unsupported subject"}));
        let bad = client.ask(&command("la"), json!({"count": 1})).await;
        assert!(bad["error"].as_str().unwrap().starts_with("Invalid launch actor JSON request"));
        let missing = client.ask(&command("scale"), json!({"actor_ref": "file:///nowhere.wasm", "count": 1})).await;
        assert_eq!(missing["accepted"], false);
        client.event("actor_start_failed", |data| data["actor_ref"] == "file:///nowhere.wasm").await;

        // A cold boot without a network finds everything again.
        board.stop().await;
        client.event("host_stopped", |data| data["labels"]["zone"] == "z1").await;
        let gate = free_port();
        let closed = Endpoint::parse("127.0.0.1", gate, Login::None, Tls::default()).unwrap();
        let board = Board::start("alpha", directory.path(), &closed).await;
        assert_eq!(board.host.settle().await, Vec::<String>::new());
        let desired = board.host.desired();
        assert_eq!((desired.actors[&key].max_concurrent(), desired.providers.len(), desired.links.len()), (3, 1, 1));
        assert_eq!(board.host.labels()["zone"], "z1");

        // What happens offline is told when the way is open, with its own time.
        let (stopped, _) = board.host.desired().stop_actor(&key, None, &BTreeMap::new());
        board.host.change(|_| Ok(stopped)).await.unwrap();
        let offline = crate::wire::id::unix_micros();
        smol::Timer::after(Duration::from_millis(300)).await;
        client.heard.lock().unwrap().clear();
        forward(gate, server.port, Arc::default());
        let all = client.event("actors_stopped", |data| data["count"] == 3).await;
        assert_eq!(all["remaining"], 0);
        let told = client.events("actor_stopped")[0]["time"].as_str().unwrap().to_owned();
        assert!(told.as_str() <= crate::wire::event::event_time(offline + 200_000).as_str(), "{told}");
        let answered = client.until_answered("ping.hosts").await;
        assert_eq!(answered["id"], id.as_str());
        let stopping = client.ask(&command("stop"), json!({"host_id": id, "timeout": 100})).await;
        accepted(&stopping);
        board.ended().await;
    });
}

#[test]
fn actors_and_providers_of_two_hosts_call_each_other() {
    run(async {
        let server = NatsServer::start("");
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Board::start("one", one.path(), &server.endpoint()).await;
        let second = Board::start("two", two.path(), &server.endpoint()).await;
        let client = Client::new(&server.endpoint()).await;
        for board in [&first, &second] {
            client.until_answered(&format!("get.{}.inv", board.id())).await;
        }
        let (a, b) = (first.id(), second.id());
        for (host, actor) in [(&a, "caller"), (&a, "counter"), (&b, "callee")] {
            accepted(&client.ask(&format!("cmd.{host}.la"), json!({"actor_ref": module(actor), "count": 1})).await);
        }
        accepted(
            &client
                .ask(&format!("cmd.{b}.lp"), json!({"provider_ref": "builtin:keyvalue", "link_name": "default"}))
                .await,
        );
        let key = async |name: &str| {
            let data = client.event("actor_started", |data| data["image_ref"] == module(name).as_str()).await;
            data["public_key"].as_str().unwrap().to_owned()
        };
        let (caller, counter) = (key("caller").await, key("counter").await);
        client.event("provider_started", |_| true).await;
        key("callee").await;

        // An actor by its call alias, on the other host.
        let known = || first.lattice.shared.cache.resolve_alias("test/callee").is_some();
        eventually("the alias is known", known).await;
        let greeting = client.http(&caller, "/Ada", "via=test/callee", Vec::new()).await;
        let greeting = String::from_utf8(greeting.body).unwrap();
        assert!(greeting.contains("callee") && greeting.contains("Ada"), "{greeting}");

        // A provider on the other host: refused without a link, served with one.
        let link = json!({
            "actor_id": counter, "provider_id": builtin_provider_key("keyvalue").to_string(),
            "link_name": "default", "contract_id": KEY_VALUE, "values": {}
        });
        accepted(&client.ask("linkdefs.put", link).await);
        let linked = || [&first, &second].iter().all(|board| board.host.router().routes().links.iter().count() == 1);
        eventually("both know the link", linked).await;
        let mut counts = Vec::new();
        for _ in 0..2 {
            let body = client.http(&counter, "/", "", Vec::new()).await.body;
            counts.push(String::from_utf8(body).unwrap());
        }
        assert!(counts[0] != counts[1] && counts[1].contains('2'), "{counts:?}");
        assert!(HTTP_SERVER != KEY_VALUE);

        // The other host gone, the call ends in time and says so.
        second.stop().await;
        let request =
            HttpRequest { path: "/Ada".into(), query_string: "via=test/callee".into(), ..HttpRequest::default() };
        let body = rmp_serde::to_vec_named(&request).unwrap();
        let answer = client.call(&caller, "HttpServer.HandleRequest", body, &anti_forgery()).await;
        assert!(answer.error.is_some_and(|error| error.contains("request timeout")));
        first.stop().await;
    });
}

#[test]
fn what_one_message_does_not_take_is_cut_or_stored_and_not_lost() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } =
            Alone::start("max_payload: 65536").await;
        let echo = module("echo");
        accepted(&client.ask(&format!("cmd.{id}.scale"), json!({"actor_ref": echo, "count": null})).await);
        let started = client.event("actor_started", |data| data["image_ref"] == echo.as_str()).await;
        let key = started["public_key"].as_str().unwrap().to_owned();
        assert_eq!(board.host.desired().actors[&key].max_concurrent(), MAX_CONCURRENT);

        accepted(&client.ask(&format!("cmd.{id}.scale"), json!({"actor_ref": echo, "count": 1000})).await);
        client.event("actor_scaled", |data| data["max_instances"] == 1000).await;
        let inventory = client.ask(&format!("get.{id}.inv"), Value::Null).await;
        let listed = inventory["actors"][0]["instances"].as_array().unwrap();
        assert_eq!((listed.len(), &listed[0]["max_instances"]), (1, &json!(1000)));

        let long = vec![7; 100_000];
        assert_eq!(client.http(&key, "/raw", "", long.clone()).await.body, long);
        board.stop().await;
    });
}

#[test]
fn no_long_body_is_left_in_the_object_store() {
    run(async {
        let Alone { board, client, id, server: _server, directory: _directory } = Alone::start("").await;
        accepted(&client.ask(&format!("cmd.{id}.la"), json!({"actor_ref": module("echo")})).await);
        let started = client.event("actor_started", |_| true).await;
        let key = started["public_key"].as_str().unwrap().to_owned();
        let long = vec![7; 1_000_000];
        assert_eq!(client.http(&key, "/raw", "", long.clone()).await.body, long);

        let bucket = crate::nats::objects::Bucket::new(client.connection.clone(), None, "default");
        let empty = async |what: &str| {
            let until = std::time::Instant::now() + Duration::from_secs(10);
            while bucket.next("$O.default.C.>", 0, Duration::from_secs(5)).await.unwrap().is_some() {
                assert!(std::time::Instant::now() < until, "chunks are left: {what}");
                smol::Timer::after(Duration::from_millis(20)).await;
            }
        };
        empty("answered").await;

        // Refused before its body was looked at.
        let bodies = crate::nats::bodies::Bodies::new(client.connection.clone(), "default", None);
        let sealed = async |target: &str, body: Vec<u8>| {
            let invocation = Invocation {
                origin: Entity::actor("__WASH__"),
                target: Entity::actor(target),
                operation: "HttpServer.HandleRequest".into(),
                host_id: id.clone(),
                ..Invocation::default()
            };
            crate::nats::calls::seal(invocation, body, &anti_forgery(), &bodies, Duration::from_secs(10)).await.unwrap()
        };
        let subject = format!("wasmbus.rpc.default.{key}");
        let wrong = sealed("MOTHER", long.clone()).await;
        assert!(bucket.next("$O.default.C.>", 0, Duration::from_secs(5)).await.unwrap().is_some());
        let Answer::Message(message) = client.raw(&subject, wrong.encode().unwrap()).await else { panic!() };
        let refused = InvocationResponse::decode(&message.payload).unwrap();
        assert!(refused.error.is_some_and(|error| error.contains("target key mismatch")));
        empty("refused").await;

        // Nobody wants to know the answer.
        let request =
            HttpRequest { method: "POST".into(), path: "/raw".into(), body: long.clone(), ..HttpRequest::default() };
        let right = sealed(&key, rmp_serde::to_vec_named(&request).unwrap()).await;
        client.connection.publish(subject, right.encode().unwrap()).await.unwrap();
        smol::Timer::after(Duration::from_secs(2)).await;
        empty("without a reader").await;

        // Nobody is there to take the request.
        let shared = &board.lattice.shared;
        let uplink = super::rpc::RpcUplink {
            connection: shared.rpc.clone(),
            control: shared.control.clone(),
            events: shared.events.clone(),
            subjects: shared.subjects.clone(),
            host_id: id.clone(),
            anti_forgery: shared.anti_forgery.clone(),
            bodies: shared.bodies.clone(),
            cache: shared.cache.clone(),
            invocations: shared.invocations.clone(),
            remotes: shared.remotes.clone(),
            pending: shared.pending.clone(),
            timeout: Duration::from_secs(2),
        };
        let call = host::Call {
            origin: Entity::actor(key.clone()),
            target: Entity::actor("MNOBODY"),
            operation: "Any".into(),
            payload: long.clone(),
            deadline: std::time::Instant::now() + Duration::from_secs(10),
            depth: 0,
            trace: None,
        };
        host::Uplink::call(&uplink, call).await.unwrap_err();
        empty("nobody").await;

        let body = vec![7; 16 << 20];
        bodies.store("whole".into(), body.clone(), Duration::from_secs(20)).await.unwrap();
        bodies.discard("whole".into()).await;
        empty("discarded").await;
        // Sixteen megabytes take longer than that.
        bodies.store("late".into(), body.clone(), Duration::from_millis(1)).await.unwrap_err();
        empty("late").await;
        // Broken off half-way: whoever asked goes away when the first chunk is there.
        let stored = async { Some(bodies.store("half".into(), body, Duration::from_secs(20)).await) };
        let begun = async {
            while bucket.next("$O.default.C.>", 0, Duration::from_secs(5)).await.unwrap().is_none() {}
            None
        };
        assert!(smol::future::or(stored, begun).await.is_none(), "it was stored before it was broken off");
        empty("half").await;
        board.stop().await;
    });
}
