//! Makes what runs follow what should run, step by step, and tries again what failed.
//!
//! One task runs this, so steps never overlap. The plan is made anew after each change; a failed step is left out of
//! it until its wait is over (`retry`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use event_listener::{Event as Signal, EventListener};
use smol::{Timer, future};

use crate::{
    actor::{Actor, ModuleSource},
    claims,
    error::{Error, Result},
    host::{
        Capability, Host, Invoke, ProviderContext,
        desired::{Desired, DesiredActor, DesiredProvider},
        event::Event,
        health::Patient,
        plan::{Running, Step, is_of_another_board, plan},
        process::ProviderName,
        refetch::Awaited,
        restart::Restarts,
        retry::Failures,
        router::Counters,
        routes::{RunningActor, RunningProvider, unclaimed},
    },
    lock::{Mutex, MutexGuard},
    log,
    store::{Blobs, Digest},
    task,
    wire::LinkDefinition,
};

/// How long a capability may take over a link or a stop. Ten seconds: a TLS listener on a slow board needs one.
/// Past it the step counts as failed and is tried again.
const CAPABILITY_PATIENCE: Duration = Duration::from_secs(10);

/// Least time between two passes that nobody asked for. A second: the shortest wait of a step that failed.
const PASS_GAP: Duration = Duration::from_secs(1);

/// What the reconciler remembers between passes.
#[derive(Default)]
pub struct Reconciler {
    state: Mutex<State>,
    /// Something changed.
    changed: Signal,
    /// A pass ended.
    passed: Signal,
    /// The loop is asked to come round, and did.
    round_asked: Signal,
    came_round: Signal,
}

#[derive(Default)]
struct State {
    /// Changes asked for and changes seen to: equal when what runs has followed.
    asked: u64,
    done: u64,
    links: BTreeMap<String, (Arc<LinkDefinition>, bool)>,
    failures: Failures,
    /// Questions whether the loop moves, and the last one answered.
    rounds: (u64, u64),
    /// The step under way and when it began.
    step: Option<(String, Instant)>,
    /// Steps begun.
    steps: u64,
    /// Running actors are to be put in place anew.
    renew: bool,
    /// Provider processes that ended by themselves.
    restarts: Restarts,
    /// Provider processes that are to be started anew.
    renewed: BTreeSet<ProviderName>,
    /// Provider archives that are being fetched again.
    awaited: Awaited,
}

impl State {
    /// One sentence for each step that failed last time or waits for something.
    fn troubles(&self) -> Vec<String> {
        let awaited = self.awaited.iter().map(|(subject, why)| format!("{subject}: {why}"));
        self.failures.texts().chain(awaited).collect()
    }

    /// When something is to be tried again.
    fn due(&self) -> Option<Instant> {
        [self.failures.next(), self.restarts.next()].into_iter().flatten().min()
    }

    fn may_try(&self, step: &Step, subject: &str) -> bool {
        let now = Instant::now();
        let rested = match step {
            Step::StartProvider(provider) => {
                !self.awaited.has(provider)
                    && self.restarts.may_start(&(provider.public_key.clone(), provider.link_name.clone()), now)
            }
            _ => true,
        };
        rested && self.failures.may_try(subject, now)
    }
}

impl Reconciler {
    /// Asks for a pass with every past failure forgiven.
    pub fn wake(&self) {
        {
            let mut state = self.state();
            state.asked += 1;
            state.failures.clear();
        }
        self.changed.notify(usize::MAX);
    }

    /// Asks for a pass; failures keep their waits.
    pub fn nudge(&self) {
        self.state().asked += 1;
        self.changed.notify(usize::MAX);
    }

    /// Asks for every running actor to be put in place anew.
    pub fn renew_actors(&self) {
        self.state().renew = true;
        self.nudge();
    }

    /// Leaves `subject` alone until `again`, or until a command releases it, because of `error`.
    pub(super) fn hold(&self, subject: String, error: Error, again: Option<Instant>) {
        self.state().failures.hold(subject, error, again);
    }

    /// Lets `subject` start again that was held; answers whether it was.
    pub(super) fn release(&self, subject: &str) -> bool {
        self.state().failures.release(subject)
    }

    /// `subject` failed at `now`.
    pub(super) fn fail(&self, subject: String, error: Error, now: Instant) {
        self.state().failures.failed(subject, error, now);
    }

    /// Wakes when a pass is asked for.
    pub(super) fn woken(&self) -> EventListener {
        self.changed.listen()
    }

    /// When a step is tried again that failed because something was away.
    pub fn next_try(&self) -> Option<Instant> {
        self.state().failures.next_passing()
    }

    /// Whether a step is under way.
    pub fn is_at_work(&self) -> bool {
        self.state().step.is_some()
    }

    /// Steps begun since the start.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Whether every change asked for has been seen to.
    pub fn is_settled(&self) -> bool {
        let state = self.state();
        state.asked > 0 && state.done == state.asked
    }

    /// What failed last time or waits for something, and why.
    pub fn failing(&self) -> Vec<(String, String)> {
        let state = self.state();
        let failures = state.failures.unresolved().map(|(subject, why)| (subject.to_owned(), why.to_owned()));
        failures.chain(state.awaited.iter().map(|(subject, why)| (subject, why.to_owned()))).collect()
    }

    /// Makes the loop come round. One in the middle of a step is left to it for `allowance`.
    pub async fn come_round(&self, bound: Duration, allowance: Duration) -> Result<(), String> {
        let asked = {
            let mut state = self.state();
            state.rounds.0 += 1;
            state.rounds.0
        };
        self.round_asked.notify(usize::MAX);
        let came = async {
            loop {
                let came = self.came_round.listen();
                if self.state().rounds.1 >= asked {
                    return;
                }
                came.await;
            }
        };
        let at_work = || self.state().step.as_ref().is_some_and(|(_, since)| since.elapsed() < allowance);
        if at_work() || task::within(bound, came).await.is_some() || at_work() {
            return Ok(());
        }
        match &self.state().step {
            Some((step, since)) => Err(format!("it has been at {step} for {} s", since.elapsed().as_secs())),
            None => Err(format!("it did not come round within {} s", bound.as_secs())),
        }
    }

    pub(super) fn begin(&self, step: String) {
        let mut state = self.state();
        state.step = Some((step, Instant::now()));
        state.steps += 1;
    }

    /// One sentence for each step that failed last time or waits for something.
    pub fn problems(&self) -> Vec<String> {
        let state = self.state();
        let mut troubles = state.troubles();
        troubles.extend(state.restarts.texts());
        troubles
    }

    /// Has the process of the provider `name` ended and started anew.
    pub fn renew(&self, name: ProviderName) {
        self.state().renewed.insert(name);
        self.nudge();
    }

    /// The record of provider processes that ended by themselves.
    pub fn restarts(&self) -> RestartsGuard<'_> {
        RestartsGuard(self.state())
    }

    /// Provider archives that are being fetched again.
    pub(super) fn awaited(&self) -> AwaitedGuard<'_> {
        AwaitedGuard(self.state())
    }

    /// The links of the provider `name` are in force no longer.
    pub fn forget_links(&self, name: &ProviderName) {
        self.state().links.retain(|_, (link, _)| (&link.provider_id, &link.link_name) != (&name.0, &name.1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// The restarts inside the reconciler's state, as long as it is held.
pub struct RestartsGuard<'a>(MutexGuard<'a, State>);

impl Deref for RestartsGuard<'_> {
    type Target = Restarts;

    fn deref(&self) -> &Restarts {
        &self.0.restarts
    }
}

impl DerefMut for RestartsGuard<'_> {
    fn deref_mut(&mut self) -> &mut Restarts {
        &mut self.0.restarts
    }
}

/// The archives that are awaited inside the reconciler's state, as long as it is held.
pub(super) struct AwaitedGuard<'a>(MutexGuard<'a, State>);

impl Deref for AwaitedGuard<'_> {
    type Target = Awaited;

    fn deref(&self) -> &Awaited {
        &self.0.awaited
    }
}

impl DerefMut for AwaitedGuard<'_> {
    fn deref_mut(&mut self) -> &mut Awaited {
        &mut self.0.awaited
    }
}

/// The bytes of a module, from the blob store.
struct BlobSource {
    blobs: Blobs,
    digest: Digest,
}

impl ModuleSource for BlobSource {
    fn read(&self) -> Result<Vec<u8>> {
        self.blobs.read_blocking(self.digest)
    }
}

impl Host {
    /// Waits until what runs has followed every change made so far, and tells what could not be done.
    pub async fn settle(&self) -> Vec<String> {
        loop {
            let passed = self.reconciler.passed.listen();
            {
                let state = self.reconciler.state();
                if state.done == state.asked && state.asked > 0 {
                    return state.troubles();
                }
            }
            passed.await;
        }
    }

    pub(super) async fn reconcile_for_ever(self: &Arc<Self>) {
        self.reconciler.wake();
        let mut last_pass = Instant::now();
        loop {
            let changed = self.reconciler.changed.listen();
            let round_asked = self.reconciler.round_asked.listen();
            let (asked, done) = {
                let mut state = self.reconciler.state();
                state.rounds.1 = state.rounds.0;
                (state.asked, state.done)
            };
            self.reconciler.came_round.notify(usize::MAX);
            // What is due may have to wait for something else, which no pass after another brings about.
            let due = self.reconciler.state().due().map(|due| due.max(last_pass + PASS_GAP));
            if asked == done && due.is_none_or(|due| due > Instant::now()) {
                let retry = async {
                    match due {
                        Some(due) => drop(Timer::at(due).await),
                        None => future::pending().await,
                    }
                };
                future::or(future::or(changed, round_asked), retry).await;
                continue;
            }
            self.reconcile_once().await;
            last_pass = Instant::now();
            self.reconciler.state().done = asked;
            self.reconciler.passed.notify(usize::MAX);
            self.announce();
            self.reconciler.begin("tidying up what was fetched".to_owned());
            self.artifacts.tidy().await;
            self.engine.await_idle();
            self.reconciler.state().step = None;
        }
    }

    async fn reconcile_once(self: &Arc<Self>) {
        self.reconciler.begin("ending what is unwell".to_owned());
        self.end_the_unwell().await;
        let renewed = std::mem::take(&mut self.reconciler.state().renewed);
        for name in renewed {
            self.reconciler.begin(format!("ending the provider {}/{} for a new login", name.0, name.1));
            self.stop_provider(&name, "its NATS login is renewed").await;
        }
        let desired = self.desired();
        self.health.retain(|patient| desired.wants(patient));
        {
            // Calls may use a link as soon as it is known; the provider's part of it follows as a step.
            let mut routes = self.router.routes_mut();
            routes.links.retain(|link| desired.links.contains_key(&link.id));
            for wanted in desired.links.values() {
                routes.links.put(wanted.link.clone());
            }
        }
        {
            let mut state = self.reconciler.state();
            state.restarts.retain(|name| desired.providers.contains_key(name));
            let actors = desired.actors.keys().cloned().map(Patient::Actor);
            let providers = desired.providers.keys().cloned().map(|(key, name)| Patient::Provider(key, name));
            let wanted: BTreeSet<String> = actors.chain(providers).map(|patient| patient.subject()).collect();
            state.failures.retain_held(|subject| wanted.contains(subject));
            state.awaited.retain(|name| desired.providers.contains_key(name));
        }
        let mut steps = plan(&desired, &self.running(), self.rules().remote);
        if std::mem::take(&mut self.reconciler.state().renew) {
            let starts =
                |key: &str| steps.iter().any(|step| matches!(step, Step::StartActor(one) if one.public_key == key));
            let renewed: Vec<Step> =
                desired.actors.values().filter(|one| !starts(&one.public_key)).cloned().map(Step::StartActor).collect();
            steps.extend(renewed);
        }
        // Links that let requests in come last: connections may be waiting already, and what their actors need must be
        // there for the first of them.
        let mut gates = Vec::new();
        for step in steps {
            match &step {
                Step::Link(link, _) if self.capability(link).is_some_and(|capability| capability.originates()) => {
                    gates.push(step);
                }
                _ => self.try_step(step).await,
            }
        }
        for step in gates {
            self.try_step(step).await;
        }
    }

    async fn try_step(self: &Arc<Self>, step: Step) {
        let subject = step.subject();
        if !self.reconciler.state().may_try(&step, &subject) {
            return;
        }
        // A link waits for a provider that is held back; its own attempt would only fail and wait longer.
        if let Step::Link(link, _) = &step
            && self.is_held_back(link)
        {
            return;
        }
        self.reconciler.begin(subject.clone());
        match self.perform(&step).await {
            Ok(()) => self.reconciler.state().failures.succeeded(&subject),
            // It failed no more than it was tried: what it needs is on its way.
            Err(_) if matches!(&step, Step::StartProvider(one) if self.reconciler.awaited().has(one)) => {}
            // Another board's mistake does not make this one unready.
            Err(error) if matches!(&step, Step::Link(link, _) if is_of_another_board(&self.desired(), link)) => {
                log::debug!("a link of an actor that does not run here was not taken: {error}"; link_id = subject);
            }
            Err(error) => {
                self.tell_failure(&step, &error);
                self.reconciler.state().failures.failed(subject, error, Instant::now());
            }
        }
    }

    fn is_held_back(&self, link: &LinkDefinition) -> bool {
        let (name, now) = ((link.provider_id.clone(), link.link_name.clone()), Instant::now());
        let subject = Patient::Provider(name.0.clone(), name.1.clone()).subject();
        let state = self.reconciler.state();
        !state.failures.may_try(&subject, now)
            || !state.restarts.may_start(&name, now)
            || state.awaited.iter().any(|(awaited, _)| awaited == subject)
    }

    fn running(&self) -> Running {
        let routes = self.router.routes();
        let actors = routes.actors().map(|actor| (actor.desired.public_key.clone(), actor.desired.clone())).collect();
        let providers = routes
            .providers()
            .map(|provider| provider.desired.clone())
            .map(|desired| ((desired.public_key.clone(), desired.link_name.clone()), desired))
            .collect();
        Running { actors, providers, links: self.reconciler.state().links.clone() }
    }

    async fn perform(self: &Arc<Self>, step: &Step) -> Result<()> {
        match step {
            Step::StartActor(actor) => self.start_actor(actor).await,
            Step::Scale(actor) => {
                self.scale(actor);
                Ok(())
            }
            Step::StopActor(key) => {
                self.stop_actor(key).await;
                Ok(())
            }
            Step::StartProvider(provider) => self.start_provider(provider).await,
            Step::StopProvider(key) => {
                self.stop_provider(key, "no longer wanted").await;
                self.leave_process(key).await;
                Ok(())
            }
            Step::Link(link, confined) => self.link(link, *confined).await,
            Step::Unlink(link) => {
                self.unlink(link).await;
                Ok(())
            }
        }
    }

    /// Loads a module that is in the store as a start would: what fails here must not take the place of a module that
    /// works, neither now nor after the next boot. What loads is kept for that start, which follows at once.
    ///
    /// # Errors
    /// As [`crate::actor::Engine::load`].
    pub async fn try_module(&self, module: &crate::host::change::Module, name: &str) -> Result<()> {
        let source = Arc::new(BlobSource { blobs: self.store.blobs(), digest: module.digest });
        let actor = self.engine.load(&module.public_key, name, source, self.router.clone()).await?;
        *self.tried() = Some((module.digest, actor));
        Ok(())
    }

    fn tried(&self) -> MutexGuard<'_, Option<(Digest, Actor)>> {
        self.tried.lock()
    }

    async fn start_actor(self: &Arc<Self>, desired: &DesiredActor) -> Result<()> {
        let source = BlobSource { blobs: self.store.blobs(), digest: desired.digest };
        let policy = self.policy_for(desired.digest);
        let source = Arc::new(source);
        let reader = source.clone();
        let again = source.clone();
        let bytes = match smol::unblock(move || reader.read()).await {
            Ok(bytes) => bytes,
            Err(error) => {
                log::warn!("{error}; fetching it again"; actor_id = desired.public_key, reference = desired.reference);
                self.restore_module(desired)
                    .await
                    .map_err(|cause| Error::new(error.kind(), format!("{error}; {cause}")))?;
                smol::unblock(move || again.read()).await?
            }
        };
        let claims = smol::unblock(move || claims::verify_actor(&bytes, &policy)).await?;
        log::name(&desired.public_key, &claims.name);
        if !claims.hash_matches {
            log::warn!(
                "the actor's token is older than hashes and does not vouch for its bytes: sign it again";
                actor_id = desired.public_key
            );
        }
        // Whatever was tried for another update is not what comes.
        let tried = self.tried().take().filter(|(digest, _)| *digest == desired.digest);
        let actor = match tried {
            Some((_, actor)) => actor,
            None => self.engine.load(&desired.public_key, &claims.name, source, self.router.clone()).await?,
        };
        actor.set_max_concurrent(desired.max_concurrent());
        let (name, revision) = (claims.name.clone(), claims.revision);
        for link in desired_links(&self.desired(), &desired.public_key) {
            warn_of_unclaimed(&claims, link);
        }
        let before = self.router.routes_mut().put_actor(RunningActor { desired: desired.clone(), claims, actor });
        match before {
            // Invocations in flight end on the module they began with, and nobody waits for them here.
            Some(before) => {
                log::info!(
                    "sha256:{} takes the place of sha256:{}", desired.digest, before.desired.digest;
                    actor_id = desired.public_key, revision = revision
                );
                let drain = self.settings.drain;
                task::spawn(async move { before.actor.stop(drain).await }).detach();
                self.tell(&Event::ActorUpdated { public_key: desired.public_key.clone(), revision });
            }
            None => {
                // As with providers: it may have answered a probe after it was stopped and forgotten.
                self.health.renew(&Patient::Actor(desired.public_key.clone()));
                self.tell(&Event::ActorStarted {
                    public_key: desired.public_key.clone(),
                    name,
                    image_ref: desired.reference.clone(),
                    max_concurrent: desired.max_concurrent(),
                });
            }
        }
        Ok(())
    }

    fn scale(&self, desired: &DesiredActor) {
        {
            let mut routes = self.router.routes_mut();
            let Some(there) = routes.actor(&desired.public_key) else { return };
            there.actor.set_max_concurrent(desired.max_concurrent());
            routes.put_actor(RunningActor {
                desired: desired.clone(),
                claims: there.claims.clone(),
                actor: there.actor.clone(),
            });
        }
        self.tell(&Event::ActorScaled {
            public_key: desired.public_key.clone(),
            max_concurrent: desired.max_concurrent(),
        });
    }

    pub(super) async fn stop_actor(&self, key: &str) {
        let gone = self.router.routes_mut().remove_actor(key);
        if let Some(gone) = gone {
            self.tell(&Event::Leaving { public_key: key.to_owned() });
            gone.actor.stop(self.settings.drain).await;
            self.tell(&Event::ActorStopped { public_key: key.to_owned() });
        }
    }

    pub(super) fn start_intrinsic(self: &Arc<Self>, name: &str) -> Result<()> {
        let builtin = self.builtins.find(name)?;
        let capability = (builtin.start)(self.context(builtin.public_key(), "default", None))?;
        self.router.routes_mut().add_intrinsic(builtin.contract_id, capability);
        Ok(())
    }

    fn context(&self, public_key: String, link_name: &str, configuration: Option<String>) -> ProviderContext {
        let invoke: Arc<dyn Invoke> = self.router.clone();
        ProviderContext { public_key, link_name: link_name.to_owned(), configuration, invoke }
    }

    async fn start_provider(self: &Arc<Self>, desired: &DesiredProvider) -> Result<()> {
        let Some(name) = desired.reference.strip_prefix("builtin:") else {
            return self.start_process(desired).await;
        };
        log::name(&desired.public_key, name);
        let builtin = self.builtins.find(name)?;
        let context = self.context(desired.public_key.clone(), &desired.link_name, desired.configuration.clone());
        let capability = (builtin.start)(context)?;
        self.put_provider(RunningProvider {
            desired: desired.clone(),
            capability,
            counters: Counters::default(),
            claims: None,
            instance_id: None,
        });
        // A provider of this process is well as long as the process is: clients wait for the first word of it.
        self.report_health(&Patient::Provider(desired.public_key.clone(), desired.link_name.clone()), Ok(()));
        Ok(())
    }

    pub(super) fn put_provider(&self, provider: RunningProvider) {
        let desired = provider.desired.clone();
        // The one before may have answered a probe after it was forgotten.
        self.health.renew(&Patient::Provider(desired.public_key.clone(), desired.link_name.clone()));
        self.router.routes_mut().put_provider(provider);
        self.tell(&Event::ProviderStarted {
            public_key: desired.public_key,
            image_ref: desired.reference,
            contract_id: desired.contract_id,
            link_name: desired.link_name,
        });
    }

    pub(super) async fn stop_provider(&self, key: &(String, String), reason: &str) {
        let gone = self.router.routes_mut().remove_provider(key);
        if let Some(gone) = gone {
            self.tell(&Event::Leaving { public_key: key.0.clone() });
            // A listener waits for requests in flight, so it gets the drain time and a little more to close.
            // A process ends itself within a time of its own.
            let patience = gone.capability.longest_stop().unwrap_or(self.settings.drain + CAPABILITY_PATIENCE);
            let reason = match task::within(patience, gone.capability.stop()).await {
                Some(()) => reason.to_owned(),
                None => format!("{reason}; it did not stop within {} s and was left behind", patience.as_secs()),
            };
            self.reconciler.forget_links(key);
            self.tell(&Event::ProviderStopped {
                public_key: key.0.clone(),
                contract_id: gone.desired.contract_id.clone(),
                link_name: key.1.clone(),
                reason,
            });
        }
    }

    fn capability(&self, link: &LinkDefinition) -> Option<Arc<dyn Capability>> {
        self.router.routes().provider(&link.provider_id, &link.link_name).map(|provider| provider.capability.clone())
    }

    async fn link(&self, link: &Arc<LinkDefinition>, confined: bool) -> Result<()> {
        let capability = self.capability(link).ok_or_else(|| {
            Error::unavailable(format!(
                "the provider {} with link name {} does not run",
                link.provider_id, link.link_name
            ))
        })?;
        let outcome = task::within(CAPABILITY_PATIENCE, async {
            match confined {
                true => capability.link_confined(link.clone()).await,
                false => capability.link(link.clone()).await,
            }
        })
        .await
        .unwrap_or_else(|| {
            Err(Error::timeout(format!(
                "the provider did not take the link within {} s",
                CAPABILITY_PATIENCE.as_secs()
            )))
        });
        outcome?;
        if let Some(actor) = self.router.routes().actor(&link.actor_id) {
            warn_of_unclaimed(&actor.claims, link);
        }
        self.reconciler.state().links.insert(link.id.clone(), (link.clone(), confined));
        self.tell(&Event::LinkSet(link.clone()));
        Ok(())
    }

    async fn unlink(&self, link: &Arc<LinkDefinition>) {
        if let Some(capability) = self.capability(link) {
            task::within(self.settings.drain + CAPABILITY_PATIENCE, capability.unlink(link.clone())).await;
        }
        self.reconciler.state().links.remove(&link.id);
        self.tell(&Event::LinkDeleted(link.clone()));
    }

    /// Stops everything: first the providers that let work in, then guests, then the providers they used. Each of the
    /// three waves takes the drain time at most, however many are in it.
    pub(super) async fn drain(self: &Arc<Self>) {
        self.reconciler.awaited().clear();
        let (gates, servants): (Vec<_>, Vec<_>) =
            self.router.routes().providers().cloned().partition(|provider| provider.capability.originates());
        let actors: Vec<String> = self.router.routes().actors().map(|actor| actor.desired.public_key.clone()).collect();
        all(servants.iter().map(|provider| {
            let capability = provider.capability.clone();
            async move {
                // One that does not become quiet is stopped all the same.
                let _ = task::within(CAPABILITY_PATIENCE, capability.quiet()).await;
            }
        }))
        .await;
        self.stop_providers(gates).await;
        let host = self;
        all(actors.into_iter().map(|key| {
            let host = host.clone();
            async move { host.stop_actor(&key).await }
        }))
        .await;
        self.stop_providers(servants).await;
    }

    async fn stop_providers(self: &Arc<Self>, providers: Vec<Arc<RunningProvider>>) {
        all(providers.into_iter().map(|provider| {
            let host = self.clone();
            let key = (provider.desired.public_key.clone(), provider.desired.link_name.clone());
            async move { host.stop_provider(&key, "host stops").await }
        }))
        .await;
    }

    pub(super) fn tell_failure(&self, step: &Step, error: &Error) {
        let error = error.text().to_owned();
        match step {
            Step::StartActor(actor) | Step::Scale(actor) => self.tell(&Event::ActorStartFailed {
                public_key: actor.public_key.clone(),
                image_ref: actor.reference.clone(),
                error,
            }),
            Step::StartProvider(provider) => self.tell(&Event::ProviderStartFailed {
                provider_ref: provider.reference.clone(),
                link_name: provider.link_name.clone(),
                error,
            }),
            Step::Link(link, _) => self.tell(&Event::LinkFailed(link.clone(), error)),
            Step::Unlink(_) | Step::StopActor(_) | Step::StopProvider(_) => {}
        }
    }
}

/// The links of the actor `key` to providers of this host.
fn desired_links<'a>(desired: &'a Desired, key: &'a str) -> impl Iterator<Item = &'a LinkDefinition> {
    let here = |link: &LinkDefinition| {
        desired.providers.keys().any(|(provider, name)| *provider == link.provider_id && *name == link.link_name)
    };
    desired.links.values().map(|wanted| &*wanted.link).filter(move |link| link.actor_id == key && here(link))
}

/// Says that a link is of no use to an actor whose claims do not name its contract.
fn warn_of_unclaimed(claims: &claims::SignedModule, link: &LinkDefinition) {
    if !claims.may_use(&link.contract_id) {
        log::warn!("{}", unclaimed(&claims.name, &link.contract_id); actor_id = link.actor_id, link_name = link.link_name);
    }
}

/// Runs all of `work` side by side to its end.
async fn all(work: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) {
    let running: Vec<_> = work.map(task::spawn).collect();
    for task in running {
        task.await;
    }
}
