//! One provider process, from its start to its end, as the host deals with it.
//!
//! Started by the reconciler through [`super::Providers`], called by the router as any [`Capability`]: a call goes out over
//! the lattice, where the process listens by itself. Three tasks live as long as it does: one hears the supervisor, one logs
//! what it prints, one probes it. Nothing here waits without a deadline, and when this is dropped, the process ends.

use std::{
    collections::BTreeMap,
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream, unix::process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use event_listener::Event as Signal;
use smol::{
    Async, Timer, future,
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
};
use zeroize::Zeroizing;

use super::{
    cgroup,
    credentials::{Credentials, Described},
    health::Answer,
    layers::Layers,
    output, quota,
    settings::{Nats, Settings},
    supervisor,
    supervisor_protocol::{self, MAX_LINE_BYTES, Orders, Report},
    supervisors::{Enlisted, Supervisors},
    watch::Limits,
};
use crate::{
    error::{Context, Error, Kind, Result},
    host::{BoxFuture, Call, Capability, Probed, ProcessStart, Uplink, Watcher},
    lock::{Mutex, MutexGuard},
    log, task,
    wire::{
        LinkDefinition, codec,
        host_data::{HostData, OtelConfig},
        json,
        subject::{ProviderTopic, Subjects},
    },
};

/// How long a supervisor may take to start a process. It takes milliseconds; a machine that swaps takes seconds.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// How long a provider may take to answer that it will end (`protocol/providers.md §8`).
const HANDSHAKE: Duration = Duration::from_secs(2);

/// How long the supervisor may take to kill and collect everything, before it is killed itself.
const SWEEP: Duration = Duration::from_secs(6);

/// How long the end may take once it is forced: the supervisor's time, that of what it leaves, and as much again.
const FORCED_END: Duration = SWEEP.saturating_mul(3);

/// First wait between two looks whether a new process listens already; the next ones double.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// Longest wait between two such looks.
const LONGEST_LOOK: Duration = Duration::from_millis(1000);

/// Shortest time for the answer to such a look. Where anything else listens to `wasmbus.rpc.>`, the server does not say that
/// the provider does not listen yet, and a look that came too early is never answered: the next one must not wait for it.
const SHORTEST_LOOK_PATIENCE: Duration = Duration::from_millis(50);

/// How long one probe may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Pause after a link was taken away: providers hear that and new links on two subscriptions, in no order, and a new link that
/// comes first would be ignored as known and then taken away.
const LINK_PAUSE: Duration = Duration::from_millis(100);

/// The port of a NATS server whose URL names none.
const NATS_PORT: u16 = 4222;

/// Most threads of the host that a provider's filters name, where the kernel does not confine signals otherwise: each makes every
/// signal of the provider a little slower. The host has a dozen; its own number comes first.
const MAX_PROTECTED: usize = 100;

/// A probe's body, as the most widely used host sends it; providers ignore it.
const PROBE: &[u8] = b"\x81\xabplaceholder\xc3";

/// Contracts whose providers call actors of their own accord. They stop first, so that nothing new comes in while actors end;
/// all others stop last, so that actors that finish their work can still use them.
const ORIGINATING: [&str; 2] = ["wasmcloud:httpserver", "wasmcloud:messaging"];

/// One process.
pub struct Process {
    settings: Arc<Settings>,
    public_key: String,
    link_name: String,
    contract_id: String,
    process_id: i32,
    /// How it is confined, for people.
    confined: String,
    has_group: bool,
    uplink: Arc<dyn Uplink>,
    watcher: Watcher,
    started: Instant,
    /// What the supervisor listens to. Taken away, everything ends.
    orders: Mutex<Option<Arc<Async<UnixStream>>>>,
    state: Mutex<State>,
    /// Something in the state has changed.
    changed: Signal,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// Why it is not well, as far as it was asked.
    complaint: Option<String>,
    /// Links it should have, by identity.
    links: BTreeMap<String, Arc<LinkDefinition>>,
    /// Links it was started with.
    given: BTreeMap<String, LinkDefinition>,
    /// Its supervisor was told to end everything.
    forced: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Phase {
    /// It runs and does not listen yet, as far as is known.
    #[default]
    Starting,
    /// It has answered: all its subscriptions are in force.
    Ready,
    /// It was asked to end.
    Stopping,
    /// It and everything below it are gone.
    Ended,
}

impl Process {
    /// Starts `binary`, which was checked, in `directory` as the provider of `start`.
    ///
    /// # Errors
    /// [`Kind::Storage`]: its control group cannot be made. [`Kind::Unavailable`]: the system starts no process.
    pub async fn start(
        settings: Arc<Settings>,
        supervisors: Arc<Supervisors>,
        (binary, directory): (PathBuf, PathBuf),
        start: ProcessStart,
    ) -> Result<Arc<Self>> {
        let desired = &start.desired;
        let mut confinement = settings.rules.apply(&desired.public_key, &settings.confinement);
        let nats = login(&settings, &start)?;
        // What the host tells it to connect to it may.
        for url in std::iter::once(&nats.url).chain(&settings.telemetry.1) {
            port_of(url).into_iter().for_each(|port| confinement.connect.allow(port));
        }
        let (layers, missing) = Layers::require(&confinement, settings.kernel)?;
        if let Some(user) = confinement.user {
            let (binary, directory) = (binary.clone(), directory.clone());
            let state = settings.directory.parent().unwrap_or(&settings.directory).to_owned();
            smol::unblock(move || user.prepare(&binary, &directory, &state)).await?;
        }
        let kept = {
            let (directory, bytes, files) = (directory.clone(), confinement.disk_bytes, confinement.disk_files);
            // Without the filter it could leave its project.
            smol::unblock(move || quota::keep(&directory, bytes, files)).await && layers.syscalls
        };
        let confined = format!("{}, {}", confinement.words(kept), layers.words(&confinement, &missing));
        let mut supervisor = Supervisor { child: None, group: None };
        let group = settings.cgroup.as_ref().map(|base| cgroup::make(base, &start.instance_id, &confinement));
        let group = group.transpose()?;
        let limits = match &group {
            Some(group) => Limits::of(&confinement, group.keeps_memory, group.keeps_tasks),
            None => Limits::of(&confinement, false, false),
        };
        supervisor.group = group.map(|group| group.path);
        let host_data = Zeroizing::new(host_data(&settings, &nats, &start).to_line()?);
        let orders = Orders {
            environment: settings.environment.of(
                &desired.public_key,
                &directory.to_string_lossy(),
                // What is not text no provider of this line reads.
                std::env::vars_os()
                    .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
            ),
            host_data,
            limits,
            layers,
            protected: own_threads(),
            confinement,
            cgroup: supervisor.group.clone(),
            binary,
            directory,
        };
        let (ours, theirs) = UnixStream::pair().context(Kind::Unavailable, "cannot make a socket")?;
        let mut command = Command::new(&settings.helper);
        command
            .arg(supervisor::ARGUMENT)
            .env_clear()
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A terminal's Ctrl-C is for the host, which then asks its providers in order.
            .process_group(0);
        let (mut child, place) = supervisors
            .start(&mut command, &desired.public_key)
            .context(Kind::Unavailable, format_args!("cannot start {}", settings.helper.display()))?;
        // Its end of the socket, which must close when it does.
        drop(command);
        let printed = (child.stdout.take(), child.stderr.take());
        supervisor.child = Some((child, place));
        let socket = Arc::new(Async::new(ours).context(Kind::Unavailable, "cannot use a socket")?);
        let mut reports = Reports(BufReader::new(Shared(socket.clone())));
        if let Some(stream) = printed.0 {
            log_from(&desired.public_key, stream)?;
        }
        if let Some(stream) = printed.1 {
            log_from(&desired.public_key, stream)?;
        }
        let first = async {
            send(&socket, &orders).await?;
            reports.next().await
        };
        let first = task::within(START_PATIENCE, first).await.unwrap_or_else(|| {
            Err(Error::timeout(format!("the provider was not started within {} s", START_PATIENCE.as_secs())))
        });
        let process_id = match first? {
            Report::Started { process_id } => process_id,
            other => return Err(Error::unavailable(format!("the provider could not be started: {}", other.words()))),
        };
        let links = start.links.iter().map(|link| (link.id.clone(), Arc::new(link.clone()))).collect();
        let process = Arc::new(Self {
            public_key: desired.public_key.clone(),
            link_name: desired.link_name.clone(),
            contract_id: desired.contract_id.clone(),
            process_id,
            confined,
            has_group: supervisor.group.is_some(),
            uplink: start.uplink,
            watcher: start.watcher,
            started: Instant::now(),
            orders: Mutex::new(Some(socket)),
            state: Mutex::new(State {
                links,
                given: start.links.into_iter().map(|link| (link.id.clone(), link)).collect(),
                ..State::default()
            }),
            changed: Signal::new(),
            settings,
        });
        task::spawn(process.clone().hear(reports, supervisor)).detach();
        task::spawn(process.clone().probe_while_it_runs()).detach();
        Ok(process)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn enter(&self, phase: Phase) {
        self.state().phase = phase;
        self.changed.notify(usize::MAX);
    }

    /// Waits until the state is as `wanted` says.
    async fn until(&self, wanted: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.listen();
            if wanted(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    async fn ended(&self) {
        self.until(|state| state.phase == Phase::Ended).await;
    }

    /// Hears the supervisor until it is gone.
    async fn hear(self: Arc<Self>, mut reports: Reports, mut supervisor: Supervisor) {
        let told = async {
            match reports.next().await {
                Ok(report) => report.words(),
                Err(_) => "was lost with its supervisor".to_owned(),
            }
        };
        let silent = async {
            self.until(|state| state.forced).await;
            Timer::after(SWEEP).await;
            supervisor.kill();
            "was killed with its supervisor, which did not answer".to_owned()
        };
        let reason = future::or(told, silent).await;
        // After its last word it ends; whatever holds it up, it is gone after this.
        supervisor.finish().await;
        self.over(reason);
    }

    /// It is gone. Told only the first time, and only when nobody had asked for it.
    fn over(&self, reason: String) {
        let asked = {
            let mut state = self.state();
            let asked = matches!(state.phase, Phase::Stopping | Phase::Ended);
            state.phase = Phase::Ended;
            asked
        };
        self.changed.notify(usize::MAX);
        if !asked {
            self.watcher.ended(reason);
        }
    }

    /// Finds out when it listens, gives it its links then, and probes it for the rest of its life.
    async fn probe_while_it_runs(self: Arc<Self>) {
        future::or(self.probe_for_ever(), self.ended()).await;
    }

    async fn probe_for_ever(&self) {
        let first_probe = self.started + self.settings.first_probe;
        let mut wait = FIRST_LOOK;
        // Quietly: that it does not listen in its first moments is no news.
        while Instant::now() + wait < first_probe {
            Timer::after(wait).await;
            // It grows with the wait, so that a provider that answers slowly is heard as well.
            let patience = wait.max(SHORTEST_LOOK_PATIENCE);
            if let Ok(Some(answer)) = self.ask(ProviderTopic::Health, PROBE.to_vec(), patience).await {
                self.answered(Some(Answer::read(&answer))).await;
                break;
            }
            wait = (wait * 2).min(LONGEST_LOOK);
        }
        let mut next = first_probe;
        let renewal = self.settings.minting.as_ref().map(|minting| self.started + minting.renewal());
        loop {
            Timer::at(renewal.map_or(next, |renewal| renewal.min(next))).await;
            if renewal.is_some_and(|renewal| renewal <= Instant::now()) {
                // It read its login once, at its start; the server ends the connection when that is over.
                self.watcher.renew();
                return;
            }
            next = Instant::now() + self.settings.probe_interval;
            match self.ask(ProviderTopic::Health, PROBE.to_vec(), PROBE_PATIENCE).await {
                Ok(answer) => self.answered(answer.as_deref().map(Answer::read)).await,
                // Our own line is down: that says nothing about the provider.
                Err(error) => log::debug!("no probe: {error}"; provider_id = self.public_key),
            }
        }
    }

    /// A probe was answered, or not.
    async fn answered(&self, answer: Option<Answer>) {
        let is_first = answer.is_some() && self.state().phase == Phase::Starting;
        if is_first {
            self.give_links().await;
        }
        let found = Probed::from(answer);
        {
            let mut state = self.state();
            if matches!(state.phase, Phase::Stopping | Phase::Ended) {
                return;
            }
            state.complaint = match &found {
                Probed::Well => None,
                Probed::Unwell(complaint) => Some(complaint.clone()),
                Probed::Silent => Some("it does not answer".to_owned()),
            };
        }
        self.watcher.probed(found);
    }

    /// It listens now. Links that were put while it did not may have been lost on the way, so it gets all of them; it ignores
    /// those it has.
    async fn give_links(&self) {
        let (changed, links): (Vec<_>, Vec<_>) = {
            let mut state = self.state();
            if state.phase == Phase::Starting {
                state.phase = Phase::Ready;
            }
            let given = std::mem::take(&mut state.given);
            let is_other = |link: &LinkDefinition| state.links.get(&link.id).is_none_or(|now| **now != *link);
            (given.into_values().filter(is_other).collect(), state.links.values().cloned().collect())
        };
        let has_changed = !changed.is_empty();
        for link in changed {
            let _ = self.tell(ProviderTopic::LinkDelete, &link).await;
        }
        if has_changed {
            Timer::after(LINK_PAUSE).await;
        }
        for link in links {
            if let Err(error) = self.tell(ProviderTopic::LinkPut, &link).await {
                log::warn!("a provider did not get a link: {error}"; provider_id = self.public_key, actor_id = link.actor_id);
            }
        }
        self.changed.notify(usize::MAX);
    }

    async fn tell(&self, topic: ProviderTopic, link: &LinkDefinition) -> Result<()> {
        let body = codec::encode(link)?;
        self.uplink.tell_provider(&self.public_key, &self.link_name, topic, body).await
    }

    async fn ask(&self, topic: ProviderTopic, body: Vec<u8>, patience: Duration) -> Result<Option<Vec<u8>>> {
        self.uplink.ask_provider(&self.public_key, &self.link_name, topic, body, patience).await
    }

    /// Asks it to end, and sees to it that it does: also when nobody waits for this any longer.
    async fn end(&self) {
        if self.state().phase == Phase::Ended {
            return;
        }
        self.enter(Phase::Stopping);
        let force = Force(self);
        let shutdown = format!(r#"{{"host_id":"{}"}}"#, self.settings.host_id).into_bytes();
        let answer = future::or(self.ask(ProviderTopic::Shutdown, shutdown, HANDSHAKE), async {
            self.ended().await;
            Ok(None)
        });
        let answer = task::within(HANDSHAKE, answer).await;
        if !matches!(answer, Some(Ok(Some(_)))) {
            log::debug!("the provider did not answer that it will end"; provider_id = self.public_key);
        }
        // It may still have work in hand, and messages on their way.
        if task::within(self.settings.shutdown_delay, self.ended()).await.is_some() {
            return;
        }
        if let Some(socket) = self.supervisor() {
            let _ = task::within(HANDSHAKE, send(&socket, &supervisor_protocol::Command::Terminate)).await;
        }
        if task::within(self.settings.shutdown_delay, self.ended()).await.is_some() {
            return;
        }
        log::warn!("the provider did not end when asked and is killed"; provider_id = self.public_key);
        drop(force);
        let _ = task::within(FORCED_END, self.ended()).await;
    }

    fn supervisor(&self) -> Option<Arc<Async<UnixStream>>> {
        self.orders.lock().clone()
    }

    /// Lets the supervisor see the end of its socket: it kills everything below it and ends.
    fn lose_supervisor(&self) {
        self.state().forced = true;
        self.changed.notify(usize::MAX);
        let socket = self.orders.lock().take();
        if let Some(socket) = socket {
            // The task that hears it holds it too.
            let _ = socket.get_ref().shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Has the process ended by force when this is dropped; nothing happens to one that has ended.
struct Force<'a>(&'a Process);

impl Drop for Force<'_> {
    fn drop(&mut self) {
        self.0.lose_supervisor();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lose_supervisor();
    }
}

impl Capability for Process {
    fn contract_id(&self) -> &str {
        &self.contract_id
    }

    fn link(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let is_ready = {
                let mut state = self.state();
                state.links.insert(link.id.clone(), link.clone());
                state.phase == Phase::Ready
            };
            // Before it listens nothing reaches it; it gets all of them then.
            if is_ready { self.tell(ProviderTopic::LinkPut, &link).await } else { Ok(()) }
        })
    }

    fn unlink(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let is_ready = {
                let mut state = self.state();
                state.links.remove(&link.id);
                state.phase == Phase::Ready
            };
            if is_ready && let Err(error) = self.tell(ProviderTopic::LinkDelete, &link).await {
                log::warn!("a provider was not told that a link is gone: {error}"; provider_id = self.public_key);
            }
            if is_ready {
                Timer::after(LINK_PAUSE).await;
            }
        })
    }

    fn call(&self, _link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            // A caller that comes before it listens waits for it, within its own deadline.
            self.until(|state| state.phase != Phase::Starting).await;
            self.uplink.call(call).await
        })
    }

    fn state(&self) -> String {
        let state = Process::state(self);
        match (&state.phase, &state.complaint) {
            (Phase::Starting, None) => "running, not ready yet".to_owned(),
            (Phase::Ready, None) => "running".to_owned(),
            (Phase::Starting | Phase::Ready, Some(complaint)) => format!("running, not well: {complaint}"),
            (Phase::Stopping, _) => "stopping".to_owned(),
            (Phase::Ended, _) => "ended".to_owned(),
        }
    }

    fn detail(&self) -> String {
        let login = if self.settings.minting.is_some() { "; a NATS login of its own" } else { "" };
        let group = if self.has_group { ", own control group" } else { "" };
        format!("process {}: {}{group}{login}", self.process_id, self.confined)
    }

    fn originates(&self) -> bool {
        ORIGINATING.contains(&self.contract_id.as_str())
    }

    fn is_on_lattice(&self) -> bool {
        true
    }

    fn longest_stop(&self) -> Option<Duration> {
        Some((HANDSHAKE + self.settings.shutdown_delay) * 2 + FORCED_END)
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }
}

/// What the provider reaches NATS by: a login of its own where this host makes them, else the one of the settings.
fn login(settings: &Settings, start: &ProcessStart) -> Result<Nats> {
    let Some(minting) = &settings.minting else { return Ok(settings.nats.clone()) };
    let subjects = Subjects::new(&settings.control_prefix, &settings.lattice)?;
    let described = Described {
        public_key: &start.desired.public_key,
        link_name: &start.desired.link_name,
        contract_id: &start.desired.contract_id,
        instance_id: &start.instance_id,
    };
    let Credentials { jwt, seed } = minting.mint(&subjects, &described, (settings.clock)())?;
    Ok(Nats { jwt, seed, ..settings.nats.clone() })
}

/// The port that `url` leads to.
fn port_of(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => NATS_PORT,
    };
    // The last colon, unless it is inside of an IPv6 address.
    let port = place.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    port.map_or(Some(usual), |(_, port)| port.parse().ok())
}

/// This process and its threads.
fn own_threads() -> Vec<i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let own = rustix::process::getpid().as_raw_pid();
    let threads = threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|id| *id != own);
    std::iter::once(own).chain(threads).take(MAX_PROTECTED).collect()
}

/// What the provider is told. It holds seeds: it goes into a pipe and nowhere else.
fn host_data(settings: &Settings, nats: &Nats, start: &ProcessStart) -> HostData {
    let (traces_exporter, exporter_otlp_endpoint) = settings.telemetry.clone();
    HostData {
        host_id: settings.host_id.clone(),
        lattice_rpc_prefix: settings.lattice.clone(),
        link_name: start.desired.link_name.clone(),
        lattice_rpc_user_jwt: nats.jwt.clone(),
        lattice_rpc_user_seed: nats.seed.clone().into(),
        lattice_rpc_url: nats.url.clone(),
        lattice_rpc_tls: nats.tls,
        env_values: BTreeMap::new(),
        instance_id: start.instance_id.clone(),
        provider_key: start.desired.public_key.clone(),
        link_definitions: start.links.clone(),
        config_json: start.desired.configuration.clone(),
        default_rpc_timeout_ms: u64::try_from(settings.rpc_timeout.as_millis()).ok(),
        cluster_issuers: settings.cluster_issuers.clone(),
        invocation_seed: settings.cluster.seed().expose().to_owned().into(),
        js_domain: settings.js_domain.clone(),
        structured_logging: settings.structured_logging,
        log_level: settings.log_level.clone(),
        otel_config: OtelConfig { traces_exporter, exporter_otlp_endpoint },
    }
}

/// The child that supervises, and what there is because of it. Killed and cleared away when dropped, which takes the provider
/// with it.
struct Supervisor {
    child: Option<(Child, Enlisted)>,
    /// The control group of the provider.
    group: Option<PathBuf>,
}

impl Supervisor {
    /// Kills it, which takes the provider with it.
    fn kill(&mut self) {
        if let Some((child, _)) = &mut self.child {
            let _ = child.kill();
        }
    }

    /// Waits for its end, which is near, and helps it along when it is not. Nothing it is responsible for is left then.
    async fn finish(&mut self) {
        let (child, group) = (self.child.take(), self.group.take());
        smol::unblock(move || clear(child, group)).await;
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.kill();
        let (child, group) = (self.child.take(), self.group.take());
        if child.is_some() || group.is_some() {
            smol::unblock(move || clear(child, group)).detach();
        }
    }
}

/// Collects `child`, which is killed first when it does not end within [`SWEEP`], and ends what it may have left. Blocks.
fn clear(child: Option<(Child, Enlisted)>, group: Option<PathBuf>) {
    if let Some((mut child, place)) = child {
        let until = Instant::now() + SWEEP;
        while let Ok(None) = child.try_wait() {
            if Instant::now() >= until {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // It is a child no more, so what it left is.
        place.supervisors().sweep();
    }
    if let Some(group) = group {
        cgroup::end(&group);
    }
}

/// The supervisor's words.
struct Reports(BufReader<Shared>);

impl Reports {
    async fn next(&mut self) -> Result<Report> {
        let mut line = Vec::new();
        let count = self
            .0
            .read_until(b'\n', &mut line)
            .await
            .context(Kind::Unavailable, "the supervisor of the provider cannot be heard")?;
        if count == 0 || line.len() > MAX_LINE_BYTES {
            return Err(Error::unavailable("the supervisor of the provider ended"));
        }
        serde_json::from_slice(&line).context(Kind::Internal, "the supervisor of the provider said something odd")
    }
}

/// A socket that is read here and written elsewhere.
struct Shared(Arc<Async<UnixStream>>);

impl smol::io::AsyncRead for Shared {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut [u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        loop {
            match self.0.get_ref().read(buffer) {
                Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => {}
                outcome => return std::task::Poll::Ready(outcome),
            }
            std::task::ready!(self.0.poll_readable(context))?;
        }
    }
}

async fn send(socket: &Arc<Async<UnixStream>>, word: &impl serde::Serialize) -> Result<()> {
    let mut line = json::secret(word).context(Kind::Internal, "cannot write orders")?;
    line.push(b'\n');
    let mut socket: &Async<UnixStream> = socket;
    socket.write_all(&line).await.context(Kind::Unavailable, "the supervisor of the provider cannot be spoken to")
}

/// Logs what comes out of `stream` for as long as somebody writes to it.
fn log_from(provider: &str, stream: impl Into<OwnedFd>) -> Result<()> {
    let stream = std::fs::File::from(stream.into());
    let stream = Async::new(stream).context(Kind::Unavailable, "cannot read what the provider prints")?;
    task::spawn(output::log_lines(provider.to_owned(), stream)).detach();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_url_is_found() {
        for (url, port) in [
            ("nats://127.0.0.1:4333", Some(4333)),
            ("tls://hub", Some(4222)),
            ("nats://[::1]:99", Some(99)),
            ("nats://[::1]", Some(4222)),
            ("https://user:pw@otel.example/v1", Some(443)),
            ("http://otel:4317", Some(4317)),
            ("no url", None),
        ] {
            assert_eq!(port_of(url), port, "{url}");
        }
    }

    #[test]
    fn a_start_that_fails_leaves_neither_control_group_nor_process() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("provider-1");
        let supervisors = Arc::new(Supervisors::default());
        for command in [None, Some("sleep")] {
            std::fs::create_dir(&group).unwrap();
            let child = command.map(|name| supervisors.start(Command::new(name).arg("1000"), "VTEST").unwrap());
            let process = child.as_ref().map_or(0, |(child, _)| child.id());
            drop(Supervisor { child, group: Some(group.clone()) });
            let until = Instant::now() + SWEEP;
            while group.exists() {
                assert!(Instant::now() < until, "the group stays");
                std::thread::sleep(Duration::from_millis(5));
            }
            assert!(process == 0 || !std::path::Path::new(&format!("/proc/{process}")).exists());
        }
    }
}
