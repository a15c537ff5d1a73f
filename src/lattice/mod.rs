//! The lattice's edge: commands in, calls in and out, the lattice's bucket, events, heartbeat, over a connection of
//! [`crate::nats`].
//!
//! Beside that room the only one that names tokio and async-nats. What it is given and what it gives works on any
//! thread; what the client library needs its runtime for is handed to that runtime through the connection. The host
//! runs without all this: nothing here is on the way of a local call, and nothing here is waited for without a
//! deadline.

mod actor_events;
pub mod ask;
pub mod broker;
pub mod bucket;
pub mod cache;
pub mod config_service;
mod conflict;
pub mod control;
pub mod entity_config;
pub mod event_queue;
pub mod events;
pub mod gather;
pub mod heartbeat;
pub mod mailbox;
pub mod objects;
pub mod remote;
pub mod rpc;
pub mod settings;
pub mod sync;
pub mod watch;

#[cfg(test)]
mod broker_tests;
#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod count_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod lattice_tests;
#[cfg(test)]
mod sync_tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use smol::Task;

pub use broker::{NatsBroker, check as check_bus};
pub use events::LatticeEvents;
pub use mailbox::Mailbox;
pub use settings::Settings;

use crate::{
    artifact::Remote,
    claims::AntiForgery,
    error::{Error, Result},
    host::{BoxFuture, Host, desired::Desired, remote::Rights},
    log,
    nats::{Connection, Endpoint, Standing, bodies::Bodies},
    store::Batch,
    task,
    wire::{LinkDefinition, subject::Subjects},
};

/// What the parts of this room share.
pub struct Shared {
    host: Arc<Host>,
    host_id: String,
    settings: Settings,
    subjects: Subjects,
    anti_forgery: Arc<AntiForgery>,
    /// Accepted cluster keys, comma-joined as ping replies carry them.
    issuers: String,
    control: Connection,
    rpc: Connection,
    bodies: Bodies,
    events: Arc<LatticeEvents>,
    invocations: rpc::InvocationEvents,
    cache: Arc<cache::Cache>,
    heart: heartbeat::Heart,
    pings: control::pings::Pings,
    pending: Arc<control::pending::PendingCommands>,
    entity_config: entity_config::EntityConfig,
    remotes: Arc<remote::Remotes>,
    /// Links as the lattice was told of them.
    links: smol::lock::Mutex<BTreeMap<String, Arc<LinkDefinition>>>,
}

impl Shared {
    /// What commands over the lattice may do now.
    fn remote(&self) -> Rights {
        self.host.rules().remote.on(self.control.requires_login())
    }

    /// Changes what should run as a command over the lattice asks; `by` names the command, and `also` is written with it.
    ///
    /// # Errors
    /// Those of `change`; `Denied` where it may not touch what it changes; the disk failed. Nothing was changed then.
    async fn change(&self, by: &str, also: Batch, change: impl FnOnce(&Desired) -> Result<Desired>) -> Result<()> {
        let remote = self.remote();
        remote.check_change()?;
        let allowed = |before: &Desired| {
            let after = change(before)?;
            remote.check(before, &after)?;
            Ok(after)
        };
        self.host.change_and(by, also, allowed).await
    }

    /// Whether a command from afar may read `reference`.
    fn may_fetch(&self, reference: &str) -> Result<()> {
        self.may_load("actor", reference)
    }

    /// Whether a command from afar may start a provider from `reference`.
    fn may_fetch_provider(&self, reference: &str) -> Result<()> {
        self.may_load("provider", reference)
    }

    fn may_load(&self, what: &str, reference: &str) -> Result<()> {
        if !self.host.rules().file_load && reference.starts_with("file:") {
            return Err(Error::denied(format!("{what} file loading is disabled")));
        }
        Ok(())
    }
}

/// Tells the host of each change of a connection: its readiness may depend on it.
async fn announce_for_ever(shared: Arc<Shared>) {
    loop {
        let (control, rpc) = (shared.control.changed(), shared.rpc.changed());
        shared.host.announce();
        smol::future::or(control, rpc).await;
    }
}

/// A host's place in its lattice, for as long as this lives.
pub struct Lattice {
    shared: Arc<Shared>,
    tasks: Vec<Task<()>>,
    /// Sends events. It ends last: cancelled in the middle of sending some, it would leave them to be sent again.
    sender: Task<()>,
}

/// How long a host that ends waits for the server to have its last events. A dead line would hold it up past the time
/// that systemd gives it; what is not known to have arrived stays on disk, where that is set.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(3);

/// Beginnings of the subjects that are the lattice's own, where control subjects begin with `control_prefix`.
pub fn reserved(control_prefix: &str) -> Vec<String> {
    vec!["wasmbus".to_owned(), control_prefix.to_owned()]
}

impl Lattice {
    /// Begins to connect `host` to its lattice and returns at once; whether there is a server makes no difference.
    /// `events` must be among the host's listeners.
    ///
    /// # Errors
    /// A setting cannot be used, the store cannot be read, or this is not the main thread's runtime.
    pub async fn start(
        settings: Settings,
        host: Arc<Host>,
        anti_forgery: AntiForgery,
        events: Arc<LatticeEvents>,
    ) -> Result<Self> {
        let subjects = Subjects::new(&settings.control_prefix, &settings.lattice)?;
        let host_id = host.id();
        let anti_forgery = Arc::new(anti_forgery);
        let control = connect("control", &settings, &settings.control, &host_id).await?;
        let rpc = if settings.rpc == settings.control {
            control.clone()
        } else {
            connect("invocations", &settings, &settings.rpc, &host_id).await?
        };
        let cache = cache::Cache::load(host.store().clone())?;
        let bodies = Bodies::new(rpc.clone(), &settings.lattice, settings.js_domain.as_deref());
        let invocations = rpc::InvocationEvents::new(control.clone(), &subjects, &host_id);
        events.attach(&host, &control);
        let remotes = Arc::<remote::Remotes>::default();
        let pending = Arc::new(control::pending::PendingCommands::new(host.store().clone()));
        host.router().set_uplink(Arc::new(rpc::RpcUplink {
            connection: rpc.clone(),
            control: control.clone(),
            events: events.clone(),
            subjects: subjects.clone(),
            host_id: host_id.clone(),
            anti_forgery: anti_forgery.clone(),
            bodies: bodies.clone(),
            cache: cache.clone(),
            invocations: invocations.clone(),
            remotes: remotes.clone(),
            pending: pending.clone(),
            timeout: settings.rpc_timeout,
        }));
        let objects = objects::ObjectStore::new(control.clone(), settings.js_domain.as_deref());
        host.artifacts().register(Remote::Nats, Arc::new(objects));
        let issuers = anti_forgery.issuers().collect::<Vec<_>>().join(",");
        // What was known before the start was told before the start.
        let links = host.desired().links.iter().map(|(id, wanted)| (id.clone(), wanted.link.clone())).collect();
        let entity_config = entity_config::EntityConfig::new(host.store().clone());
        let shared = Arc::new(Shared {
            host,
            host_id,
            settings,
            subjects,
            anti_forgery,
            issuers,
            control,
            rpc,
            bodies,
            events,
            invocations,
            cache,
            heart: heartbeat::Heart::default(),
            remotes,
            pings: control::pings::Pings::default(),
            pending,
            entity_config,
            links: smol::lock::Mutex::new(links),
        });
        control::intention::resume(&shared)?;
        let mut tasks = vec![
            task::spawn(warn_of_ad_hoc_cluster(shared.clone())),
            task::spawn(warn_of_exposure(shared.clone())),
            task::spawn(keep_events(shared.clone())),
            task::spawn(heartbeat::beat_for_ever(shared.clone())),
            task::spawn(rpc::serve_for_ever(shared.clone())),
            task::spawn(control::serve_for_ever(shared.clone())),
            task::spawn(sync::publish_for_ever(shared.clone())),
            task::spawn(sync::tell_links_for_ever(shared.clone())),
            task::spawn(sync::follow_for_ever(shared.clone())),
            task::spawn(announce_for_ever(shared.clone())),
            task::spawn(rpc::reconsider_for_ever(shared.clone())),
            task::spawn(remote::watch_for_ever(shared.clone())),
            task::spawn(remote::say_links_for_ever(shared.clone())),
        ];
        if shared.settings.config_service {
            tasks.push(task::spawn(config_service::ask_once(shared.clone())));
        }
        let sender = task::spawn(send_events(shared.clone()));
        Ok(Self { shared, tasks, sender })
    }

    /// Lets capabilities use the connection for invocations, out of the lattice's own way.
    pub fn lend(&self, broker: &NatsBroker) {
        let Shared { rpc, settings, .. } = &*self.shared;
        broker.lend(rpc.clone(), settings.rpc.url(), reserved(&settings.control_prefix));
    }

    /// How the control and the invocation connection stand.
    pub fn standing(&self) -> (Standing, Standing) {
        (self.shared.control.standing(), self.shared.rpc.standing())
    }

    /// A question whether the loops of this room move, for whoever watches them.
    pub fn ask(&self) -> impl Fn(Duration) -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static {
        let connections = [self.shared.control.clone(), self.shared.rpc.clone()];
        move |bound| {
            let connections = connections.clone();
            Box::pin(async move {
                for connection in &connections {
                    if task::within(bound, connection.came_round()).await.is_none() {
                        return Err(format!("the NATS client did not move within {} s", bound.as_secs()));
                    }
                }
                Ok(())
            })
        }
    }

    /// Ends it: stops listening, sends what still waits, if there is a connection; the disk keeps the rest, where it may.
    pub async fn stop(self) {
        for task in self.tasks {
            task.cancel().await;
        }
        let mailbox = &self.shared.events.mailbox;
        // First what must not be lost, then what a dead line may hold up.
        keep_at_the_end(mailbox).await;
        if self.shared.control.is_connected() {
            let last_words = async {
                let _ = mailbox.send_all(&self.shared.control, &self.shared.subjects).await;
                self.shared.control.flush().await;
            };
            task::within(LAST_WORDS_PATIENCE, last_words).await;
        }
        self.sender.cancel().await;
        keep_at_the_end(mailbox).await;
    }
}

async fn keep_at_the_end(mailbox: &Mailbox) {
    if let Err(error) = mailbox.keep().await {
        log::warn!("events that wait are not on disk: {error}");
    }
}

async fn connect(purpose: &'static str, settings: &Settings, endpoint: &Endpoint, host_id: &str) -> Result<Connection> {
    if settings.named {
        Connection::open(purpose, endpoint, &settings.timing, host_id).await
    } else {
        Connection::look_for(purpose, endpoint, &settings.timing, host_id).await
    }
}

async fn send_events(shared: Arc<Shared>) {
    shared.events.mailbox.send_for_ever(&shared.control, &shared.subjects).await;
}

async fn keep_events(shared: Arc<Shared>) {
    shared.events.mailbox.keep_for_ever().await;
}

/// Says that nobody else can sign calls, once there is somebody else.
async fn warn_of_ad_hoc_cluster(shared: Arc<Shared>) {
    if shared.settings.ad_hoc_cluster {
        shared.rpc.connected().await;
        log::warn!(
            "no cluster seed is set, so this host made up a cluster of its own and no other host or tool can call its \
             actors: set WASMCLOUD_CLUSTER_SEED to the same seed (`latticed keys gen cluster`) everywhere";
            cluster_key = shared.anti_forgery.public_key()
        );
    }
}

/// Says once that whoever reaches the server can command this host; status says it for as long as it is so.
async fn warn_of_exposure(shared: Arc<Shared>) {
    shared.control.connected().await;
    if let Some(exposure) = shared.control.exposure() {
        log::warn!("{exposure}");
        return;
    }
    shared.rpc.connected().await;
    if let Some(exposure) = shared.rpc.exposure() {
        log::warn!("{exposure}");
    }
}
