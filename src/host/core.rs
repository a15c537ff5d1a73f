//! One host: its parts, its life from start to drained stop, and the one way its desired state changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use event_listener::{Event as Signal, EventListener};
use smol::{channel, future, lock};

use crate::{
    actor::{Actor, Engine},
    artifact::{self, Artifacts, Download, Images, Remote},
    claims::{self, KeyPair},
    error::Result,
    host::{
        Processes, Router,
        applications::PendingApplications,
        builtin::Builtins,
        desired::{Desired, Loaded},
        event::{Event, Events},
        health::{Health, Patient},
        reconcile::Reconciler,
        remote::{self, Rights},
    },
    lock::{Mutex, MutexGuard},
    log,
    store::{self, Batch, Store, Table},
};

/// Records removed in one write at most; their names have a hundred bytes each.
const SURPLUS_AT_ONCE: usize = 1024;

/// What may run here and who may say so; a reload changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Who may sign what runs here.
    pub issuers: claims::AllowedIssuers,
    /// Whose actors and providers may take the place of those of another issuer.
    pub update_issuers: claims::AllowedIssuers,
    /// Whether commands from afar may name files of this board.
    pub file_load: bool,
    /// Whether a live update may not claim more than the running revision.
    pub strict_update: bool,
    /// What commands over the lattice may do.
    pub remote: remote::Rule,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            issuers: claims::AllowedIssuers::any(),
            update_issuers: claims::AllowedIssuers::none(),
            file_load: false,
            strict_update: false,
            remote: remote::Rule::Always(Rights::Full),
        }
    }
}

/// What a host is told about itself.
pub struct Settings {
    /// Name of the lattice it belongs to.
    pub lattice: String,
    /// Name for people.
    pub friendly_name: String,
    /// Labels, built-in ones included.
    pub labels: BTreeMap<String, String>,
    /// How long in-flight work may take when the host stops.
    pub drain: Duration,
    /// What may run here.
    pub rules: Rules,
    /// Limits of what is fetched and kept.
    pub artifacts: artifact::Settings,
}

/// Who is asked for otherwise in `after` than in `before`.
fn touched(before: &Desired, after: &Desired) -> Vec<Patient> {
    let actors = after.actors.iter().filter(|(key, actor)| before.actors.get(*key) != Some(*actor));
    let providers = after.providers.iter().filter(|(key, provider)| before.providers.get(*key) != Some(*provider));
    let actors = actors.map(|(key, _)| Patient::Actor(key.clone()));
    actors.chain(providers.map(|((key, name), _)| Patient::Provider(key.clone(), name.clone()))).collect()
}

/// What a host is made of.
pub struct Parts {
    /// The host's own key.
    pub key: KeyPair,
    /// What survives a power cut.
    pub store: Store,
    /// Where guests run.
    pub engine: Engine,
    /// Providers this process can start.
    pub builtins: Builtins,
    /// Contracts every actor reaches without a link: names of built-ins.
    pub intrinsics: &'static [&'static str],
    /// Who listens.
    pub events: Vec<Arc<dyn Events>>,
    /// What the time is, as far as the board knows.
    pub clock: Box<dyn Clock>,
}

/// The time as far as it can be trusted; boards without a clock chip wake up in 1970.
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> claims::Now;
}

/// What of the settings may change while the host runs.
pub(super) struct Configured {
    pub labels: BTreeMap<String, String>,
    pub rules: Rules,
    /// Why the last reload changed nothing.
    pub not_reloaded: Option<String>,
}

/// A running host.
pub struct Host {
    pub(super) settings: Settings,
    pub(super) key: KeyPair,
    pub(super) store: Store,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) engine: Engine,
    pub(super) builtins: Builtins,
    /// Runs providers as processes, where there is a lattice to reach them by.
    pub(super) processes: OnceLock<Arc<dyn Processes>>,
    pub(super) router: Arc<Router>,
    pub(super) started: Instant,
    labels: Mutex<BTreeMap<String, String>>,
    /// What could not be read at the start.
    pub(super) damage: Vec<String>,
    /// Names of records that were beyond a limit at the start, until they are removed.
    surplus: Mutex<Vec<Vec<u8>>>,
    events: Vec<Arc<dyn Events>>,
    clock: Box<dyn Clock>,
    desired: Mutex<Arc<Desired>>,
    /// Changes one at a time: each is computed from the state the one before left on disk.
    changing: lock::Mutex<()>,
    pub(super) reconciler: Reconciler,
    /// A module that was tried for a live update, loaded, until it takes its place.
    pub(super) tried: Mutex<Option<(store::Digest, Actor)>>,
    pub(super) health: Health,
    pub(super) pending: PendingApplications,
    /// Expired claims that were said.
    pub(super) expiry: super::expiry::Expiry,
    /// What the lattice says otherwise than a manifest of this board, by link. Bounded by the links of manifests.
    conflicts: Mutex<BTreeMap<String, String>>,
    /// Something that readiness depends on has changed.
    news: Signal,
    stopping: AtomicBool,
    configured: Mutex<Configured>,
    stop: (channel::Sender<()>, channel::Receiver<()>),
}

impl Host {
    /// Brings the host up with what its store says should run. Work begins with [`Host::run`].
    ///
    /// # Errors
    /// The store cannot be read, or a built-in the host itself needs cannot start.
    pub fn new(settings: Settings, parts: Parts) -> Result<Arc<Self>> {
        let Loaded { desired, problems: damage, surplus } = Desired::load(&parts.store)?;
        for problem in &damage {
            log::warn!("{problem}");
        }
        let labels = super::label::load(&parts.store)?;
        let router = Router::new(&settings.lattice);
        let configured =
            Configured { labels: settings.labels.clone(), rules: settings.rules.clone(), not_reloaded: None };
        let host = Arc::new(Self {
            key: parts.key,
            artifacts: Arc::new(Artifacts::new(parts.store.clone(), settings.artifacts.clone())),
            settings,
            store: parts.store,
            engine: parts.engine,
            builtins: parts.builtins,
            processes: OnceLock::new(),
            router,
            started: Instant::now(),
            labels: Mutex::new(labels),
            damage,
            surplus: Mutex::new(surplus),
            events: parts.events,
            clock: parts.clock,
            desired: Mutex::new(Arc::new(desired)),
            changing: lock::Mutex::new(()),
            reconciler: Reconciler::default(),
            tried: Mutex::default(),
            health: Health::default(),
            pending: PendingApplications::default(),
            expiry: super::expiry::Expiry::default(),
            conflicts: Mutex::default(),
            news: Signal::new(),
            stopping: AtomicBool::new(false),
            configured: Mutex::new(configured),
            stop: channel::bounded(1),
        });
        let download = Arc::new(Download::new(host.artifacts.settings().clone()));
        host.artifacts.register(Remote::Https, download.clone());
        host.artifacts.register(Remote::Http, download);
        let images = Images::new(host.artifacts.settings().clone(), host.artifacts.credentials().clone());
        host.artifacts.register(Remote::Image, Arc::new(images));
        host.declare_needs();
        for name in parts.intrinsics {
            host.start_intrinsic(name)?;
        }
        Ok(host)
    }

    /// The road for invocations.
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// What survives a power cut.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Where the bytes of actors and archives come from; sources of floors above register here.
    pub fn artifacts(&self) -> &Arc<Artifacts> {
        &self.artifacts
    }

    /// Name for people.
    pub fn friendly_name(&self) -> &str {
        &self.settings.friendly_name
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time as far as it can be trusted.
    pub fn now(&self) -> claims::Now {
        self.clock.now()
    }

    /// `N…`.
    pub fn id(&self) -> String {
        self.key.public_key().to_string()
    }

    /// Works until somebody asks for a stop, then drains: listeners first, then guests, then the providers they used.
    pub async fn run(self: &Arc<Self>) {
        self.tell(&Event::HostStarted { host_id: self.id(), friendly_name: self.settings.friendly_name.clone() });
        self.tidy_processes().await;
        let surplus = std::mem::take(&mut *self.surplus.lock());
        for some in surplus.chunks(SURPLUS_AT_ONCE) {
            let batch = some.iter().fold(Batch::new(), |batch, name| batch.delete(Table::Desired, name.as_slice()));
            if let Err(error) = self.store.commit(batch).await {
                log::warn!("links beyond the limit are still on disk: {error}");
            }
        }
        let reconciling = self.reconcile_for_ever();
        let stopped = async {
            // An error means that every sender is gone, which cannot be while the host itself holds one.
            let _ = self.stop.1.recv().await;
        };
        future::or(stopped, future::or(reconciling, self.check_up_for_ever())).await;
        self.drain().await;
        self.tell(&Event::HostStopped);
    }

    /// Asks for a stop; the second time makes no difference.
    pub fn request_stop(&self) {
        self.stopping.store(true, Relaxed);
        self.announce();
        // Full means that somebody asked before.
        let _ = self.stop.0.try_send(());
    }

    /// Whether somebody asked for a stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// Wakes when something changed that readiness depends on; ask for it before looking.
    pub fn news(&self) -> EventListener {
        self.news.listen()
    }

    /// Something changed that readiness depends on.
    pub fn announce(&self) {
        self.news.notify(usize::MAX);
    }

    /// Steps begun since the start: whether it gets anywhere.
    pub fn steps(&self) -> u64 {
        self.reconciler.steps()
    }

    /// Whether a step is under way: one may take long, and is bounded by what [`crate::host::Liveness`] grants it.
    pub fn is_at_work(&self) -> bool {
        self.reconciler.is_at_work()
    }

    /// When something that failed because something was away is tried again: a step, an application, a download.
    pub fn next_try(&self) -> Option<Instant> {
        [self.reconciler.next_try(), self.pending.next_passing(), self.artifacts.next_attempt()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Asks for a look at what should run, every failure forgiven: something outside is better now than it was.
    pub fn reconsider(&self) {
        self.reconciler.wake();
    }

    /// What should run now.
    pub fn desired(&self) -> Arc<Desired> {
        self.lock_desired().clone()
    }

    /// Changes what should run: on disk first, then in memory, then what runs is asked to follow.
    ///
    /// # Errors
    /// Those of `change`, and the disk's; nothing was changed then.
    pub async fn change(&self, change: impl FnOnce(&Desired) -> Result<Desired>) -> Result<()> {
        self.change_and("this board", Batch::new(), change).await
    }

    /// As [`Host::change`], with more that is written in the same step; `by` says who asks, where that makes a difference to
    /// a manifest.
    ///
    /// # Errors
    /// As [`Host::change`].
    pub async fn change_and(
        &self,
        by: &str,
        also: Batch,
        change: impl FnOnce(&Desired) -> Result<Desired>,
    ) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.desired();
        let mut after = change(&before)?;
        after.keep_previous(&before);
        after.keep_issuers();
        let now = self.now();
        after.note_changes(by, if now.is_trusted() { now.unix_seconds() } else { 0 });
        let batch = before.changes(&after)?.and(also);
        if !batch.is_empty() {
            self.store.commit(batch).await?;
        }
        let touched = touched(&before, &after);
        *self.lock_desired() = Arc::new(after);
        touched.iter().for_each(|patient| self.release(patient));
        self.reconciler.wake();
        Ok(())
    }

    /// Wakes after the desired state may have changed; ask for it before looking at [`Host::desired`].
    pub fn desired_changed(&self) -> EventListener {
        self.reconciler.woken()
    }

    /// What may run here now.
    pub fn rules(&self) -> Rules {
        self.configured().rules.clone()
    }

    /// What modules are checked against now.
    pub(super) fn policy(&self) -> claims::Policy {
        let admitted = self.desired().providers.values().filter_map(|provider| provider.token.clone()).collect();
        claims::Policy { issuers: self.rules().issuers, admitted, ..claims::Policy::new(self.clock.now()) }
    }

    /// What the module with `digest` is checked against now. One that should run here was admitted when its dates were looked
    /// at, and its digest pins what was admitted: it stays admitted until it is replaced, whatever the clock says, while it
    /// runs as well as at the next start. Who may issue is still checked.
    pub(super) fn policy_for(&self, digest: store::Digest) -> claims::Policy {
        let pinned = self.desired().actors.values().any(|actor| actor.digest == digest);
        let policy = self.policy();
        claims::Policy { now: if pinned { claims::Now::UNKNOWN } else { policy.now }, ..policy }
    }

    pub(super) fn tell(&self, event: &Event) {
        for listener in &self.events {
            listener.happened(event);
        }
    }

    /// What of the settings may change.
    pub(super) fn configured(&self) -> MutexGuard<'_, Configured> {
        self.configured.lock()
    }

    /// Labels given at run time.
    pub(super) fn given_labels(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.labels.lock()
    }

    /// What the lattice says otherwise than a manifest of this board, by link.
    pub fn conflicts(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.conflicts.lock()
    }

    fn lock_desired(&self) -> MutexGuard<'_, Arc<Desired>> {
        self.desired.lock()
    }
}
