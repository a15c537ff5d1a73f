//! A session of a real wadm with three hosts: it deploys, scales up and down, changes the image and undeploys, and the
//! commands it sends are counted meanwhile. Run by `tests/wadm/run`.
//!
//! `wadm-session LATTICED WADM [SECONDS]` runs the programs LATTICED and WADM; SECONDS is how long a quiet time lasts.

use std::{
    cell::RefCell,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use async_nats_031::Client;
use futures_util::StreamExt;
use latticed::{
    host::HostStatus,
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use serde_json::{Value, json};

#[path = "../support/mod.rs"]
mod support;
use support::{
    guests,
    host::{Host, Sandbox},
    nats::{self, NatsServer},
};

/// Where the three hosts are.
const SITES: [&str; 3] = ["north", "east", "south"];

/// Commands that wadm may send in a quiet time. It looks at everything again with each heartbeat, and sends nothing where
/// it finds what it wants.
const MAX_QUIET_COMMANDS: usize = 20;

/// How long wadm may take to bring about what a manifest says. It looks again with each heartbeat, every 30 seconds.
const PATIENCE: Duration = Duration::from_secs(180);

/// Name of the application.
const NAME: &str = "session";

/// A process that ends with the session.
struct Wadm(Child);

impl Drop for Wadm {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Session {
    nats: Client,
    hosts: Vec<Host>,
    /// Commands to hosts so far, by their last word.
    commands: Rc<RefCell<Vec<String>>>,
    quiet: Duration,
    /// How a manifest of this wadm calls the number of instances: `instances`, before 0.10 `replicas`.
    count: String,
}

impl Session {
    async fn api(&self, tail: &str, body: Value) -> Value {
        let subject = format!("wadm.api.default.model.{tail}");
        let start = Instant::now();
        loop {
            // It does not answer before it has its buckets.
            match self.nats.request(subject.clone(), body.to_string().into()).await {
                Ok(answer) if answer.status.is_none() => {
                    return serde_json::from_slice(&answer.payload).expect("wadm answers JSON");
                }
                other => assert!(start.elapsed() < PATIENCE, "wadm does not answer {subject}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Instances of each host, and how many providers run: `([2, 2, 1], 1)`.
    fn running(&self, image: &str) -> (Vec<u16>, usize) {
        let statuses: Vec<_> = self.hosts.iter().map(Host::status).collect();
        let instances = statuses.iter().map(|status| {
            let actors = status.actors.iter().filter(|actor| actor.image_ref == image);
            actors.map(|actor| actor.max_concurrent).sum()
        });
        (instances.collect(), statuses.iter().map(providers).sum())
    }

    /// Puts and deploys `version` of the application, and waits until it runs as it says.
    async fn deploy(&self, version: &str, image: &str, instances: u16) {
        let (start, before) = (Instant::now(), self.commands.borrow().len());
        let put = self.api("put", manifest(version, image, instances, &self.count)).await;
        assert!(put["result"] == "created" || put["result"] == "newversion", "{put}");
        let deployed = self.api(&format!("deploy.{NAME}"), json!({"version": version})).await;
        assert_eq!(deployed["result"], "acknowledged", "{deployed}");
        loop {
            let (there, providers) = self.running(image);
            let status = self.api(&format!("status.{NAME}"), json!({})).await;
            // Before 0.10 it says so with another word.
            let word = if self.count == "replicas" { "ready" } else { "deployed" };
            let is_deployed = status["status"]["status"]["type"] == word;
            if there.iter().sum::<u16>() == instances && providers == 1 && is_deployed {
                println!(
                    "{version}: {instances} instances as {there:?}, deployed after {:.1} s with {} commands",
                    start.elapsed().as_secs_f64(),
                    self.commands.borrow().len() - before
                );
                return;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{version}: {there:?}, {providers} providers, {status}: {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Counts the commands of a quiet time.
    async fn rest(&self, when: &str, holds: impl Fn() -> bool) {
        let before = self.commands.borrow().len();
        tokio::time::sleep(self.quiet).await;
        let said = self.commands.borrow()[before..].to_vec();
        println!("{when}: {} commands in {} quiet seconds", said.len(), self.quiet.as_secs());
        assert!(said.len() <= MAX_QUIET_COMMANDS, "{when}: {said:?}");
        assert!(holds(), "{when}: it did not stay: {}", self.said());
    }

    fn said(&self) -> String {
        let commands = self.commands.borrow();
        format!("{} commands, the last: {:?}", commands.len(), &commands[commands.len().saturating_sub(10)..])
    }
}

/// Providers that run on the host itself; its status names those of other hosts too.
fn providers(status: &HostStatus) -> usize {
    status.providers.iter().filter(|provider| provider.state != "remote").count()
}

/// An actor spread over the sites, and a provider that it is linked to.
fn manifest(version: &str, image: &str, instances: u16, count: &str) -> Value {
    let spread: Vec<Value> =
        SITES.iter().map(|site| json!({"name": site, "requirements": {"site": site}, "weight": 100})).collect();
    json!({
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "metadata": {"name": NAME, "annotations": {"version": version, "description": "a session"}},
        "spec": {"components": [
            {
                "name": "echo",
                "type": "actor",
                "properties": {"image": image},
                "traits": [
                    {"type": "spreadscaler", "properties": {count: instances, "spread": spread}},
                    {"type": "linkdef", "properties": {"target": "store", "values": {"a": "b"}}},
                ],
            },
            {
                "name": "store",
                "type": "capability",
                "properties": {"image": "builtin:keyvalue", "contract": KEY_VALUE},
                "traits": [{
                    "type": "spreadscaler",
                    "properties": {count: 1, "spread": [{"name": "one", "requirements": {"site": SITES[0]}}]},
                }],
            },
        ]},
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [latticed, wadm, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: wadm-session LATTICED WADM [SECONDS [instances|replicas]]");
        std::process::exit(2);
    };
    let quiet = rest.first().map_or(60, |text| text.parse().expect("SECONDS is a number"));
    let count = rest.get(1).map_or("instances", String::as_str).to_owned();
    nats::block_on(session(Path::new(latticed), Path::new(wadm), Duration::from_secs(quiet), count));
}

async fn session(latticed: &Path, wadm: &Path, quiet: Duration, count: String) {
    let server = NatsServer::start();
    let nats = nats::connect(&server).await;
    let commands = Rc::<RefCell<Vec<String>>>::default();
    let mut heard = nats.subscribe("wasmbus.ctl.default.cmd.>".into()).await.expect("the server listens");
    let listening = {
        let commands = commands.clone();
        async move {
            while let Some(message) = heard.next().await {
                let (_, verb) = message.subject.rsplit_once('.').expect("a command has a verb");
                let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
                commands.borrow_mut().push(format!("{verb} {} {}", body["count"], body["annotations"]));
            }
        }
    };
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let log = fs::File::create(folder.path().join("wadm.log")).expect("the temporary folder is writable");
    let child = Command::new(wadm)
        .args(["--nats-server", &format!("127.0.0.1:{}", server.port())])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .spawn()
        .expect("wadm can be started");
    let _wadm = Wadm(child);

    let work = async {
        let sandboxes: Vec<Sandbox> = SITES.iter().map(|_| Sandbox::new(latticed)).collect();
        let mut session = Session { nats: nats.clone(), hosts: Vec::new(), commands, quiet, count };
        // It must listen before the hosts say that they have started.
        session.api("list", json!({})).await;
        for (site, sandbox) in SITES.iter().zip(&sandboxes) {
            session.hosts.push(nats::joined(sandbox, server.port(), &[("HOST_site", site)]));
        }
        let first = format!("file://{}", guests::module_path("echo_small").display());
        let module = fs::read(guests::module_path("echo_small")).expect("it is built");
        let path = folder.path().join("echo_small_2.wasm");
        let signed = guests::sign_revision("echo_small", &[HTTP_SERVER], &module, 2).expect("it can be signed");
        fs::write(&path, signed).expect("the temporary folder is writable");
        let second = format!("file://{}", path.display());

        let total = |session: &Session, image: &str| session.running(image).0.iter().sum::<u16>();
        session.deploy("v1", &first, 5).await;
        session.rest("at 5", || total(&session, &first) == 5).await;
        session.deploy("v2", &first, 9).await;
        session.rest("at 9", || total(&session, &first) == 9).await;
        session.deploy("v3", &first, 2).await;
        session.deploy("v4", &second, 6).await;
        session.rest("another image", || total(&session, &second) == 6 && total(&session, &first) == 0).await;

        let start = Instant::now();
        let answer = session.api(&format!("undeploy.{NAME}"), json!({"non_destructive": false})).await;
        assert_eq!(answer["result"], "acknowledged", "{answer}");
        let nothing_runs = || {
            session.hosts.iter().all(|host| {
                let status = host.status();
                status.actors.is_empty() && providers(&status) == 0
            })
        };
        loop {
            let status = session.api(&format!("status.{NAME}"), json!({})).await;
            if nothing_runs() && status["status"]["status"]["type"] == "undeployed" {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "not undeployed: {status}: {}", session.said());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        println!("undeployed after {:.1} s", start.elapsed().as_secs_f64());
        session.rest("undeployed", nothing_runs).await;
        let links = nats.request("wasmbus.ctl.default.get.links".into(), "".into()).await.expect("a host answers");
        let links: Value = serde_json::from_slice(&links.payload).expect("an answer");
        assert_eq!(links, json!({"links": []}), "links are left");
        println!("{} commands in all; nothing is left", session.commands.borrow().len());
    };
    // The session ends the listening.
    tokio::select! {
        () = work => {}
        () = listening => panic!("the subscription ended"),
    }
}
