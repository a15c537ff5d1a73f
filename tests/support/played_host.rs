//! A provider as a process, and the test in the place of its host and of its actors.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use latticed::{
    claims::{AntiForgery, KeyPair, Now, Role},
    wire::{Entity, Invocation, LinkDefinition, codec, host_data::HostData},
};
use serde::{Deserialize, Serialize};

use super::{
    calls::answered,
    nats::{self, NatsServer, PATIENCE},
};

/// The link name of every provider here.
const LINK_NAME: &str = "default";

/// What a provider says of its health.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Health {
    /// Whether it is well.
    pub healthy: bool,
    /// Why not.
    #[serde(default)]
    pub message: String,
}

/// A provider, its host played by the test, and the server between them.
pub struct PlayedHost {
    runtime: tokio::runtime::Runtime,
    nats: async_nats_031::Client,
    signer: AntiForgery,
    data: HostData,
    contract: String,
    child: Child,
    /// Held open, as hosts of one generation do.
    _stdin: ChildStdin,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    calls: std::cell::Cell<u64>,
    _server: NatsServer,
}

impl PlayedHost {
    /// Starts `program` as the provider of `contract`, with its `links` (actor and value of `URL`) and configuration.
    pub fn start(
        program: &Path,
        contract: &str,
        links: &[(&str, &str)],
        configuration: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Self {
        let server = NatsServer::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let nats = runtime.block_on(nats::connect(&server));
        let key = |role, name: &str| KeyPair::from_name(role, name).public_key().to_string();
        let mut data = HostData {
            host_id: key(Role::Server, "played host"),
            lattice_rpc_prefix: "default".into(),
            link_name: LINK_NAME.into(),
            lattice_rpc_url: format!("127.0.0.1:{}", server.port()),
            instance_id: "01234567-89ab-4def-8123-456789abcdef".into(),
            provider_key: key(Role::Service, program.to_str().expect("paths of programs are UTF-8")),
            config_json: configuration.map(str::to_owned),
            cluster_issuers: vec![nats::cluster().public_key().to_string()],
            invocation_seed: nats::cluster().seed().expose().to_owned().into(),
            ..HostData::default()
        };
        data.link_definitions = links.iter().map(|(actor, url)| link(&data, contract, actor, url)).collect();
        let mut child = Command::new(program)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the provider can be started");
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(data.to_line().expect("it is short").as_bytes()).expect("the provider reads its host data");
        let log = Arc::<Mutex<String>>::default();
        let reader = thread::spawn({
            let (log, stderr) = (log.clone(), child.stderr.take().expect("it is piped"));
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        let signer = AntiForgery::new(nats::cluster(), []).expect("a cluster key");
        Self {
            runtime,
            nats,
            signer,
            data,
            contract: contract.to_owned(),
            child,
            _stdin: stdin,
            log,
            reader: Some(reader),
            calls: std::cell::Cell::default(),
            _server: server,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn subject(&self, tail: &str) -> String {
        format!("wasmbus.rpc.default.{}.{LINK_NAME}{tail}", self.data.provider_key)
    }

    fn request(&self, subject: String, body: Vec<u8>) -> Result<Vec<u8>, String> {
        let answer = self.runtime.block_on(self.nats.request(subject, body.into()));
        answer.map(|message| message.payload.to_vec()).map_err(|error| error.to_string())
    }

    /// Waits until it hears everything, and says how it is.
    pub fn health(&mut self) -> Health {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.request(self.subject(".health"), Vec::new()) {
                Ok(answer) if !answer.is_empty() => {
                    return rmp_serde::from_slice(&answer).expect("an answer to a health probe");
                }
                outcome => assert!(Instant::now() < end, "no sign of life ({outcome:?}): {}", self.log()),
            }
            let ended = self.child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "the provider ended ({ended:?}): {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Calls `operation` as `actor`; a failure is the text of whoever refused.
    pub fn call(&self, actor: &str, operation: &str, body: &[u8]) -> Result<Vec<u8>, String> {
        self.calls.set(self.calls.get() + 1);
        let mut invocation = Invocation {
            origin: Entity::actor(actor),
            target: Entity::provider(&self.data.provider_key, &self.contract, LINK_NAME),
            operation: operation.into(),
            msg: Cow::Borrowed(body),
            id: format!("call-{}", self.calls.get()),
            host_id: self.data.host_id.clone(),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        };
        invocation.encoded_claims = self.signer.sign(&invocation, body, Now::from_system(0)).expect("it is signed");
        answered(&self.request(self.subject(""), invocation.encode().expect("it can be written"))?)
    }

    /// The same with MessagePack both ways.
    pub fn ask<T: for<'a> Deserialize<'a>>(
        &self,
        actor: &str,
        operation: &str,
        request: &impl Serialize,
    ) -> Result<T, String> {
        let answer = self.call(actor, operation, &codec::encode(request).expect("it can be written"))?;
        rmp_serde::from_slice(&answer).map_err(|error| format!("{operation} answered {answer:?}: {error}"))
    }

    /// Links `actor`, or ends its link (`put`, `del`).
    pub fn tell_link(&self, what: &str, actor: &str, url: &str) {
        let link = codec::encode(&link(&self.data, &self.contract, actor, url)).expect("it can be written");
        let told = async {
            self.nats.publish(self.subject(&format!(".linkdefs.{what}")), link.into()).await.expect("it is sent");
            self.nats.flush().await.expect("it is sent");
        };
        self.runtime.block_on(told);
    }

    /// Waits until it logged `text`.
    pub fn wait_for(&self, text: &str) {
        nats::eventually(text, || self.log().contains(text));
    }

    /// Ends it as its host does, and says how it ended.
    pub fn shut_down(mut self) -> (ExitStatus, String) {
        let told = serde_json::json!({ "host_id": self.data.host_id }).to_string().into_bytes();
        assert_eq!(self.request(self.subject(".shutdown"), told).as_deref(), Ok(&b"shutting down"[..]));
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        nats::eventually("the provider ends", || {
            status = self.child.try_wait().expect("the child can be asked");
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("readers do not panic");
        }
        (status.expect("it was waited for"), self.log())
    }
}

impl Drop for PlayedHost {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn link(data: &HostData, contract: &str, actor: &str, url: &str) -> LinkDefinition {
    let values: BTreeMap<String, String> =
        if url.is_empty() { BTreeMap::new() } else { [("URL".to_owned(), url.to_owned())].into() };
    LinkDefinition {
        actor_id: actor.to_owned(),
        provider_id: data.provider_key.clone(),
        link_name: LINK_NAME.into(),
        contract_id: contract.to_owned(),
        values,
        ..LinkDefinition::default()
    }
}
