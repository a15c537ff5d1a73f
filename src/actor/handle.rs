//! One running actor: who may call it, how many at once, what it did so far, and how it stops.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use smol::{
    Timer,
    channel::{Receiver, Sender},
    future,
};

use crate::{
    actor::{
        engine::Shared,
        guest::Surroundings,
        invocation,
        module::Compiled,
        permits::Permits,
        signal::Signal,
        slot::{ModuleSource, Slot},
    },
    error::Result,
    lock::Mutex,
    task,
    wire::Trace,
};

/// How the caller of one invocation bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// When the caller stops waiting.
    pub deadline: Instant,
    /// How many invocations led to this one; 0 for one from outside.
    pub depth: u8,
}

/// A running actor. Clones are cheap and mean the same actor.
#[derive(Clone)]
pub struct Actor(pub(super) Arc<Inner>);

/// What an actor did since it was loaded, and does now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Invocations, refused ones included.
    pub calls: u64,
    /// Of these, failed or refused.
    pub errors: u64,
    /// Fuel burnt; about one unit per Wasm instruction.
    pub fuel: u64,
    /// Invocations running now, those waiting for a host call included.
    pub running: u32,
    /// Invocations waiting for a place now.
    pub queued: u32,
    /// Whether the compiled module is in memory now.
    pub compiled: bool,
}

/// The sums behind [`Counts`].
#[derive(Default)]
pub struct Counters {
    pub calls: AtomicU64,
    pub errors: AtomicU64,
    pub fuel: AtomicU64,
    pub running: AtomicU32,
    pub queued: AtomicU32,
}

/// Until when an invocation may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// The earlier one of the caller's deadline and the actor's own.
    pub at: Instant,
    /// Whether it is the actor's own: the limit of the settings.
    pub own: bool,
}

/// Why waiting ended before what was waited for came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The deadline passed.
    Deadline(Until),
    /// The actor was stopped and its grace is over.
    Stopped,
}

/// What all clones of an [`Actor`] share.
pub struct Inner {
    pub engine: Arc<Shared>,
    pub surroundings: Arc<Surroundings>,
    pub name: String,
    pub source: Arc<dyn ModuleSource>,
    pub slot: Mutex<Slot>,
    /// When it was last used, in uses of all actors.
    pub last_used: AtomicU64,
    pub counters: Counters,
    places: Permits,
    /// Each invocation holds a clone. Taken away when the actor stops: nothing new starts then.
    accepting: Mutex<Option<Sender<Infallible>>>,
    /// Ends when the last clone of `accepting` is gone.
    drained: Receiver<Infallible>,
    /// Given when the grace of a stop is over.
    cut: Signal,
}

impl Inner {
    pub fn new(
        engine: Arc<Shared>,
        surroundings: Arc<Surroundings>,
        name: &str,
        source: Arc<dyn ModuleSource>,
    ) -> Self {
        let settings = &surroundings.settings;
        let (accepting, drained) = smol::channel::bounded(1);
        Self {
            places: Permits::new(usize::from(settings.max_concurrent), settings.queue),
            engine,
            surroundings,
            name: name.to_string(),
            source,
            slot: Mutex::new(Slot::Cold),
            last_used: AtomicU64::new(0),
            counters: Counters::default(),
            accepting: Mutex::new(Some(accepting)),
            drained,
            cut: Signal::new(),
        }
    }

    /// Whether nothing new may start.
    #[cfg(test)]
    pub fn is_stopping(&self) -> bool {
        self.accepting.lock().is_none()
    }

    /// Whether what still runs is to end now.
    pub fn is_cut(&self) -> bool {
        self.cut.is_given()
    }

    /// Waits for `future`, but not beyond `until` and not beyond the actor's end. No timer is made for what is ready.
    pub async fn bounded<T>(&self, until: Until, future: impl Future<Output = T>) -> Result<T> {
        let mut future = pin!(future);
        if let Some(ready) = future::poll_once(future.as_mut()).await {
            return Ok(ready);
        }
        let wait = async { Ok(future.await) };
        let stopped = async {
            self.cut.given().await;
            Err(Ended::Stopped)
        };
        let late = async {
            Timer::at(until.at).await;
            Err(Ended::Deadline(until))
        };
        future::or(wait, future::or(stopped, late)).await.map_err(|ended| self.ended(ended))
    }

    async fn invoke(
        self: Arc<Self>,
        operation: String,
        payload: Vec<u8>,
        context: Context,
        trace: Option<Trace>,
    ) -> Result<Vec<u8>> {
        self.counters.calls.fetch_add(1, Ordering::Relaxed);
        let outcome = self.admit(operation, payload, context, trace).await;
        if outcome.is_err() {
            self.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Takes the invocation through every limit in front of the guest, then runs it.
    async fn admit(
        self: &Arc<Self>,
        operation: String,
        payload: Vec<u8>,
        context: Context,
        trace: Option<Trace>,
    ) -> Result<Vec<u8>> {
        let settings = &self.surroundings.settings;
        let alive = self.accepting.lock().clone();
        let _alive = alive.ok_or_else(|| self.stopping())?;
        if payload.len().saturating_add(operation.len()) > settings.payload_bytes {
            return Err(self.payload_too_large(payload.len()));
        }
        if context.depth >= settings.nesting {
            return Err(self.nested_too_deep());
        }
        // A limit beyond what the clock can count is no limit.
        let own = Instant::now().checked_add(settings.deadline);
        let until = match own {
            Some(own) if own <= context.deadline => Until { at: own, own: true },
            _ => Until { at: context.deadline, own: false },
        };

        let _tidy = Tidy(self);
        let waiting = Counted::new(&self.counters.queued);
        let place = self.bounded(until, self.places.enter()).await?;
        let _place = place.map_err(|_| self.queue_full())?;
        let place = self.bounded(until, self.engine.places(context.depth).enter()).await?;
        let _host_place = place.map_err(|_| self.host_queue_full())?;
        drop(waiting);

        let _running = Counted::new(&self.counters.running);
        self.last_used.store(self.engine.cache.tick(), Ordering::Relaxed);
        let compiled: Arc<Compiled> = self.bounded(until, self.compiled()).await??;
        invocation::run(self, compiled, operation, payload, until, context.depth, trace).await
    }
}

impl Actor {
    /// The actor's public key.
    pub fn key(&self) -> &str {
        &self.0.surroundings.key
    }

    /// The name it was loaded under.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Runs `operation` in a fresh instance. The answer is the response body; `Guest` errors carry the guest's own text
    /// and nothing else (`protocol/actor-abi.md §3, step 5`).
    ///
    /// Dropping the future ends the invocation and leaves nothing behind.
    ///
    /// # Errors
    /// `Guest`: the guest failed or trapped. `Limit`: the text names the limit and its setting. `Timeout`: the deadline
    /// passed. `Unavailable`: the actor is stopping. Whatever compiling its module again may answer.
    pub fn invoke(
        &self,
        operation: impl Into<String>,
        payload: Vec<u8>,
        context: Context,
    ) -> impl Future<Output = Result<Vec<u8>>> + Send + 'static {
        self.invoke_traced(operation, payload, context, None)
    }

    /// As [`Actor::invoke`], as part of the request that `trace` belongs to.
    ///
    /// # Errors
    /// As [`Actor::invoke`].
    pub fn invoke_traced(
        &self,
        operation: impl Into<String>,
        payload: Vec<u8>,
        context: Context,
        trace: Option<Trace>,
    ) -> impl Future<Output = Result<Vec<u8>>> + Send + 'static {
        self.0.clone().invoke(operation.into(), payload, context, trace)
    }

    /// How many invocations may run at once. A lower number takes effect as running ones end.
    pub fn max_concurrent(&self) -> u16 {
        u16::try_from(self.0.places.places()).unwrap_or(u16::MAX)
    }

    /// Changes how many invocations may run at once; at least one.
    pub fn set_max_concurrent(&self, places: u16) {
        self.0.places.set_places(usize::from(places.max(1)));
    }

    /// What it did and does.
    pub fn counts(&self) -> Counts {
        let counters = &self.0.counters;
        Counts {
            calls: counters.calls.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            fuel: counters.fuel.load(Ordering::Relaxed),
            running: counters.running.load(Ordering::Relaxed),
            queued: counters.queued.load(Ordering::Relaxed),
            compiled: self.0.is_compiled(),
        }
    }

    /// Stops the actor: new invocations are refused, those inside or in the queue may finish within `grace` and are cut
    /// off after it. Returns when none is left; answers how many were cut off. The module's memory is given back.
    pub async fn stop(&self, grace: Duration) -> u32 {
        drop(self.0.accepting.lock().take());
        let mut cut_off = 0;
        if task::within(grace, self.0.drained.recv()).await.is_none() {
            let counts = self.counts();
            cut_off = counts.running + counts.queued;
            self.0.cut.give();
            let _ = self.0.drained.recv().await;
        }
        self.0.forget_module();
        self.0.engine.clone().tidy();
        cut_off
    }
}

/// Counts one up while it lives.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU32) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells the engine when an invocation is over, however it ended.
struct Tidy<'a>(&'a Arc<Inner>);

impl Drop for Tidy<'_> {
    fn drop(&mut self) {
        self.0.engine.clone().tidy();
    }
}
