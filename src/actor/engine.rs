//! What all actors of a host share: limits, places, turns, and the cache of compiled modules.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use smol::Timer;

use crate::{
    actor::{
        Outcalls,
        cache::Cache,
        console::Console,
        guest::Surroundings,
        handle::{Actor, Inner},
        permits::Permits,
        settings::Settings,
        slot::ModuleSource,
    },
    error::{Error, Result},
    lock::{Mutex, RwLock},
    task,
};

/// How long the host must be idle before freed memory is handed back to the system. Long enough that a steady trickle of
/// requests keeps its memory at hand, short enough to be through before the next housekeeping tick.
const IDLE_DELAY: Duration = Duration::from_secs(2);

/// Compilations at once. Each may use some ten times the size of its module for a moment; more at once would not be
/// faster on a board with few cores.
const COMPILATIONS: usize = 1;

/// Share of the host's places that each deeper nesting depth has for itself.
const NESTED_SHARE: usize = 4;

/// The actors' part of a host. Clones are cheap and mean the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

/// See the file's header.
pub struct Shared {
    /// Limits of actors loaded from now on.
    settings: RwLock<Arc<Settings>>,
    /// Permits of the host, for each nesting depth its own: a caller that waits for its callee holds one of its depth
    /// only, so callees always get one.
    places: Vec<Permits>,
    /// Turns on the threads, for all slices but the first one of an invocation.
    pub turns: Permits,
    /// Places for compilations.
    pub compilations: Permits,
    /// Compiled modules.
    pub cache: Cache,
    when_idle: OnceLock<fn()>,
    idle_watch: AtomicBool,
}

impl Engine {
    /// An engine with the limits of `settings`.
    ///
    /// # Errors
    /// `Config`: a limit is 0 where that makes no sense.
    pub fn new(settings: Settings) -> Result<Self> {
        check(&settings)?;
        let places = (0..settings.nesting).map(|depth| {
            let places = if depth == 0 { settings.max_running } else { settings.max_running.div_ceil(NESTED_SHARE) };
            Permits::new(places, settings.host_queue)
        });
        Ok(Self(Arc::new(Shared {
            places: places.collect(),
            // Bounded by the places above: only who has one takes turns.
            turns: Permits::new(settings.threads, usize::MAX),
            // Bounded by the number of actors: each compiles once at a time.
            compilations: Permits::new(COMPILATIONS, usize::MAX),
            cache: Cache::new(settings.module_cache_bytes),
            settings: RwLock::new(Arc::new(settings)),
            when_idle: OnceLock::new(),
            idle_watch: AtomicBool::new(false),
        })))
    }

    /// What to do some seconds after the last invocation ended, on the blocking pool: hand freed memory back. The first
    /// call counts.
    pub fn when_idle(&self, what: fn()) {
        let _ = self.0.when_idle.set(what);
    }

    /// Something large has come and gone besides invocations, as when an artifact was unpacked: what is to be done in an idle
    /// moment is done when it comes.
    pub fn await_idle(&self) {
        self.0.clone().tidy();
    }

    /// The limits in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.read().clone()
    }

    /// Changes the limits of actors loaded from now on; answers whether they are others. What all actors share, places
    /// and the cache, stays as it was made.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn limit(&self, settings: Settings) -> Result<bool> {
        check(&settings)?;
        let mut held = self.0.settings.write();
        // The number of gates was made for the old nesting limit.
        let settings = Settings { nesting: held.nesting, ..settings };
        let changed = **held != settings;
        *held = Arc::new(settings);
        Ok(changed)
    }

    /// Bytes of all compiled modules, as estimated.
    pub fn module_cache_bytes(&self) -> usize {
        self.0.cache.bytes()
    }

    /// Loads an actor: reads its module, compiles it, checks it, and keeps what the cache has room for.
    ///
    /// # Errors
    /// What the source answers; `Invalid`, `Denied` or `Limit` for a module that cannot run here, see
    /// `protocol/actor-abi.md §1, §2`.
    pub async fn load(
        &self,
        key: &str,
        name: &str,
        source: Arc<dyn ModuleSource>,
        outcalls: Arc<dyn Outcalls>,
    ) -> Result<Actor> {
        let settings = self.settings();
        let console = Console::new(settings.log_bytes, settings.log_per_second, Instant::now());
        let surroundings = Surroundings { key: key.into(), settings, outcalls, console: Mutex::new(console) };
        let inner = Arc::new(Inner::new(self.0.clone(), Arc::new(surroundings), name, source));
        self.0.cache.register(Arc::downgrade(&inner));
        inner.compiled().await?;
        self.0.clone().tidy();
        Ok(Actor(inner))
    }
}

/// Refuses limits under which no actor could ever run.
fn check(settings: &Settings) -> Result<()> {
    for (value, name) in [
        (settings.memory_bytes, "WASMCLOUD_ACTOR_MEMORY_BYTES"),
        (settings.stack_depth, "WASMCLOUD_ACTOR_STACK_DEPTH"),
        (settings.module_bytes, "WASMCLOUD_ACTOR_MODULE_BYTES"),
        (usize::from(settings.max_concurrent), "WASMCLOUD_ACTOR_MAX_CONCURRENT"),
        (settings.max_running, "WASMCLOUD_MAX_RUNNING"),
        (usize::from(settings.nesting), "WASMCLOUD_ACTOR_NESTING"),
        (usize::from(settings.slice_fuel > 0), "WASMCLOUD_SLICE_FUEL"),
        (usize::from(settings.fuel > 0), "WASMCLOUD_ACTOR_FUEL"),
        (usize::from(!settings.deadline.is_zero()), "WASMCLOUD_ACTOR_DEADLINE_MS"),
        (settings.threads, "the number of threads"),
    ] {
        if value == 0 {
            return Err(Error::config(format!("{name} is 0, so no actor could ever run")));
        }
    }
    Ok(())
}

impl Shared {
    /// The places for invocations at `depth`, which must be below the nesting limit.
    pub fn places(&self, depth: u8) -> &Permits {
        // `Engine::new` makes permits for each depth and refuses a limit of 0.
        &self.places[usize::from(depth).min(self.places.len() - 1)]
    }

    /// Something ended: drops modules beyond the budget and sees to it that memory is handed back once all is quiet.
    pub fn tidy(self: Arc<Self>) {
        self.cache.evict();
        if self.when_idle.get().is_some() && !self.idle_watch.swap(true, Ordering::AcqRel) {
            task::spawn(self.watch_for_idleness()).detach();
        }
    }

    /// Waits until nothing was used for [`IDLE_DELAY`], then hands memory back.
    async fn watch_for_idleness(self: Arc<Self>) {
        let mut seen = self.cache.uses();
        loop {
            Timer::after(IDLE_DELAY).await;
            let now = self.cache.uses();
            if now == seen {
                break;
            }
            seen = now;
        }
        self.idle_watch.store(false, Ordering::Release);
        if let Some(&what) = self.when_idle.get() {
            smol::unblock(what).await;
        }
    }
}
