//! A host on a NATS server that runs providers of a test's choice, and a client of both.

use std::{borrow::Cow, time::Duration};

use async_nats_031::Client;
use futures_util::StreamExt;
use latticed::{
    claims::{AntiForgery, Now},
    wire::{
        Entity, Invocation, InvocationResponse,
        interface::{IncrementRequest, KEY_VALUE},
    },
};
use serde_json::{Value, json};

use super::{
    guests,
    host::{Host, Sandbox},
    nats::{self, NatsServer, PATIENCE, connect},
    provider,
};

/// The program; the benchmarks, which share this folder and not this file, are not told.
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_latticed");

/// For a test that looks at each end of a provider: none is started again.
pub const ONCE: (&str, &str) = ("WASMCLOUD_PROVIDER_RESTARTS", "0");

/// The actor that is linked where no actor needs to run.
pub fn actor() -> String {
    guests::key("counter")
}

/// A host on a server, and a client of both.
pub struct Stage {
    pub sandbox: Sandbox,
    pub port: u16,
    /// Ended with the stage, where it is the stage's own.
    _server: Option<NatsServer>,
    pub host: Option<Host>,
    pub host_id: String,
    pub nats: Client,
    pub events: async_nats_031::Subscriber,
}

impl Stage {
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::of(Sandbox::new(PROGRAM.expect("cargo names the program to tests")), settings).await
    }

    /// The same, in `sandbox`.
    pub async fn of(sandbox: Sandbox, settings: &[(&str, &str)]) -> Self {
        let server = NatsServer::start();
        let nats = connect(&server).await;
        let mut stage = Self::inside(sandbox, &server, nats, settings).await;
        stage._server = Some(server);
        stage
    }

    /// On `server`, where `nats` may do what the test does.
    pub async fn with(server: &NatsServer, nats: Client, settings: &[(&str, &str)]) -> Self {
        Self::inside(Sandbox::new(PROGRAM.expect("cargo names the program to tests")), server, nats, settings).await
    }

    /// The same, in `sandbox`.
    pub async fn inside(sandbox: Sandbox, server: &NatsServer, nats: Client, settings: &[(&str, &str)]) -> Self {
        let events = nats.subscribe("wasmbus.evt.default".into()).await.expect("the server listens");
        nats.flush().await.expect("the server answers");
        let mut stage =
            Self { sandbox, port: server.port(), _server: None, host: None, host_id: String::new(), nats, events };
        stage.start_host(settings).await;
        stage
    }

    /// Links and starts the provider `name`, and waits until it has its link; what it sees then.
    pub async fn linked(&mut self, name: &str) -> Value {
        self.put_link(name, json!({})).await;
        self.launch(name, json!({})).await;
        self.event("health_check_passed").await;
        self.place_where(name, |place| place["link"].is_object()).await
    }

    pub async fn start_host(&mut self, settings: &[(&str, &str)]) {
        let mut all = vec![("WASMCLOUD_PROVIDER_FIRST_PROBE_MS", "3000"), ("WASMCLOUD_PROVIDER_PROBE_MS", "1000")];
        all.extend_from_slice(settings);
        let host = nats::joined(&self.sandbox, self.port, &all);
        self.host_id = host.status().host_id;
        self.host = Some(host);
    }

    pub fn host(&self) -> &Host {
        self.host.as_ref().expect("it runs")
    }

    /// Puts an archive of the mannered provider where the host may load it; its reference.
    pub fn archive(&self, name: &str) -> String {
        let binary = provider::stripped(provider::mannered());
        let path = self.sandbox.write(&format!("{name}.par.gz"), provider::archive(name, KEY_VALUE, &binary));
        format!("file://{}", path.display())
    }

    pub async fn command(&self, verb: &str, body: Value) -> Value {
        let subject = format!("wasmbus.ctl.default.cmd.{}.{verb}", self.host_id);
        self.ask(subject, body).await
    }

    pub async fn ask(&self, subject: String, body: Value) -> Value {
        let answer = self.nats.request(subject, body.to_string().into()).await.expect("the host answers");
        serde_json::from_slice(&answer.payload).expect("an answer")
    }

    /// Starts the provider `name` with `manners`.
    pub async fn launch(&self, name: &str, manners: Value) -> String {
        let reference = self.archive(name);
        let body = json!({ "provider_ref": reference, "link_name": "default", "configuration": manners.to_string() });
        let ack = self.command("lp", body).await;
        assert_eq!(ack["accepted"], true, "{ack}\n{}", self.host().output());
        reference
    }

    /// Runs `script` in a shell of the provider `name`, and does not wait for it.
    pub async fn leave_running(&self, name: &str, script: &str) {
        let script = format!("({script}) </dev/null >/dev/null 2>&1 &");
        // The provider may be ended before it answers.
        let _ = self.call(name, "Test.Execute", script.as_bytes()).await;
    }

    pub async fn stop(&self, name: &str) {
        let ack = self.command("sp", json!({ "provider_ref": provider::key(name), "link_name": "default" })).await;
        assert_eq!(ack["accepted"], true, "{ack}");
    }

    pub async fn put_link(&self, name: &str, values: Value) {
        let link = json!({ "actor_id": actor(), "provider_id": provider::key(name), "link_name": "default",
            "contract_id": KEY_VALUE, "values": values });
        let ack = self.ask("wasmbus.ctl.default.linkdefs.put".into(), link).await;
        assert_eq!(ack["accepted"], true, "{ack}");
    }

    pub async fn delete_link(&self) {
        let link = json!({ "actor_id": actor(), "link_name": "default", "contract_id": KEY_VALUE });
        let ack = self.ask("wasmbus.ctl.default.linkdefs.del".into(), link).await;
        assert_eq!(ack["accepted"], true, "{ack}");
    }

    /// The next event called `name`.
    pub async fn event(&mut self, name: &str) -> Value {
        let wanted = format!("com.wasmcloud.lattice.{name}");
        let search = async {
            loop {
                let message = self.events.next().await.expect("the subscription lasts");
                let Ok(event) = serde_json::from_slice::<Value>(&message.payload) else { continue };
                if event["type"] == wanted {
                    return event["data"].clone();
                }
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(event) => event,
            Err(_) => panic!("no event {name}: {}", self.host.as_ref().map(Host::output).unwrap_or_default()),
        }
    }

    /// Calls `operation` of the provider `name` as the linked actor.
    pub async fn call(&self, name: &str, operation: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        let signer = AntiForgery::new(nats::cluster(), []).expect("a cluster key");
        let mut invocation = Invocation {
            origin: Entity::actor(actor()),
            target: Entity::provider(provider::key(name), KEY_VALUE, "default"),
            operation: operation.into(),
            msg: Cow::Borrowed(body),
            id: "feedfeedfeedfeedfeedfeedfeedfeed".into(),
            host_id: self.host_id.clone(),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        };
        invocation.encoded_claims = signer.sign(&invocation, body, Now::from_system(0)).expect("signed");
        let subject = format!("wasmbus.rpc.default.{}.default", provider::key(name));
        let answer = self.nats.request(subject, invocation.encode().expect("encoded").into()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let response = InvocationResponse::decode(&answer.payload).map_err(|error| error.to_string())?;
        match response.error {
            Some(error) => Err(error),
            None => Ok(response.msg.into_owned()),
        }
    }

    pub async fn increment(&self, name: &str) -> Result<i32, String> {
        let request = rmp_serde::to_vec_named(&IncrementRequest { key: "n".into(), value: 1 }).expect("encoded");
        let answer = self.call(name, "KeyValue.Increment", &request).await?;
        rmp_serde::from_slice(&answer).map_err(|error| error.to_string())
    }

    /// What the provider `name` sees of the world.
    pub async fn place(&self, name: &str) -> Value {
        let answer = self.call(name, "Test.Place", b"").await.expect("it tells");
        serde_json::from_slice(&answer).expect("JSON")
    }

    /// Asks until `condition` holds of what the provider sees.
    pub async fn place_where(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let start = std::time::Instant::now();
        loop {
            if let Ok(answer) = self.call(name, "Test.Place", b"").await {
                let place: Value = serde_json::from_slice(&answer).expect("JSON");
                if condition(&place) {
                    return place;
                }
            }
            assert!(start.elapsed() < PATIENCE, "it did not come about: {}", self.host().output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn provider_state(&self, name: &str) -> String {
        let status = self.host().status();
        let found = status.providers.iter().find(|there| there.public_key == provider::key(name));
        found.map_or_else(|| "absent".to_owned(), |there| there.state.clone())
    }
}

/// Whether the process `id` lives; one that ended and was not collected does not.
pub fn lives(id: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Every process below `pid`, orphans of the supervisors in between included.
pub fn descendants(pid: u32) -> Vec<u64> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u64>().ok());
        parents.extend(parent.map(|parent| (child, parent)));
    }
    let mut found = vec![u64::from(pid)];
    let mut at = 0;
    while at < found.len() {
        let of = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}
