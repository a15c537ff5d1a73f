//! The place of an actor's compiled module: empty, being filled, or filled.
//!
//! However many invocations wait for it, the module is compiled once, on the blocking pool, and finished even if all of
//! them have gone.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use crate::{
    actor::{handle::Inner, module::Compiled, signal::Signal},
    error::{Error, Result},
    lock::MutexGuard,
    task,
};

/// Where an actor's signed module comes from. It must answer the same bytes each time: the source checks what it reads
/// (a digest made when the signature was verified), this room trusts it.
pub trait ModuleSource: Send + Sync + 'static {
    /// Reads the module. Called on the blocking pool.
    ///
    /// # Errors
    /// Whatever keeps it from reading; shown to the caller that woke the actor.
    fn read(&self) -> Result<Vec<u8>>;
}

/// See the file's header.
pub enum Slot {
    /// Only its bytes exist, where the source keeps them.
    Cold,
    /// Being compiled.
    Compiling(Arc<Flight>),
    /// Ready.
    Compiled(Arc<Compiled>),
}

/// One compilation and those who wait for it.
pub struct Flight {
    outcome: OnceLock<Result<Arc<Compiled>>>,
    landed: Signal,
}

impl Inner {
    /// The compiled module, compiled now if need be.
    pub(super) async fn compiled(self: &Arc<Self>) -> Result<Arc<Compiled>> {
        let flight = {
            let mut slot = self.slot();
            match &*slot {
                Slot::Compiled(compiled) => return Ok(compiled.clone()),
                Slot::Compiling(flight) => flight.clone(),
                Slot::Cold => {
                    let flight = Arc::new(Flight { outcome: OnceLock::new(), landed: Signal::new() });
                    *slot = Slot::Compiling(flight.clone());
                    task::spawn(compile(Landing { actor: self.clone(), flight: Some(flight.clone()) })).detach();
                    flight
                }
            }
        };
        flight.landed.given().await;
        flight.outcome.get().cloned().unwrap_or_else(|| Err(Error::internal("the compilation of a module was lost")))
    }

    /// Whether the module is in memory.
    pub(super) fn is_compiled(&self) -> bool {
        matches!(&*self.slot(), Slot::Compiled(_))
    }

    /// Whether the module is in memory and nobody uses it.
    pub(super) fn is_idle_and_compiled(&self) -> bool {
        matches!(&*self.slot(), Slot::Compiled(compiled) if Arc::strong_count(compiled) == 1)
    }

    /// Drops the module unless somebody uses it. Answers whether it did.
    pub(super) fn forget_module(&self) -> bool {
        let mut slot = self.slot();
        let Slot::Compiled(compiled) = &*slot else { return false };
        if Arc::strong_count(compiled) > 1 {
            return false;
        }
        self.engine.cache.removed(compiled.footprint);
        *slot = Slot::Cold;
        true
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.forget_module();
    }
}

async fn compile(landing: Landing) {
    let actor = landing.actor.clone();
    let _place = actor.engine.compilations.enter().await;
    let (source, surroundings) = (actor.source.clone(), actor.surroundings.clone());
    // The module's bytes are gone when this closure ends: the compiled module does not refer to them.
    let outcome = smol::unblock(move || source.read().and_then(|wasm| Compiled::new(&wasm, &surroundings))).await;
    landing.land(outcome);
}

/// Ends a flight, also when the compilation was dropped half-way.
struct Landing {
    actor: Arc<Inner>,
    /// `None` once landed.
    flight: Option<Arc<Flight>>,
}

impl Landing {
    fn land(&self, outcome: Result<Compiled>) {
        let actor = &self.actor;
        let outcome = outcome.map(Arc::new).map_err(|cause| cause.context(format!("actor {}", actor.name)));
        if let Ok(compiled) = &outcome {
            actor.engine.cache.added(compiled.footprint);
            actor.last_used.store(actor.engine.cache.tick(), Ordering::Relaxed);
            *actor.slot() = Slot::Compiled(compiled.clone());
        }
        if let Some(flight) = &self.flight {
            // The first outcome stands; there is one landing per flight, so this is the first.
            let _ = flight.outcome.set(outcome);
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        {
            let mut slot = self.actor.slot();
            if matches!(&*slot, Slot::Compiling(_)) {
                *slot = Slot::Cold;
            }
        }
        if let Some(flight) = self.flight.take() {
            let landed = flight.landed.clone();
            // Let go before anybody is told: what it holds would count as in use.
            drop(flight);
            landed.give();
        }
        self.actor.engine.clone().tidy();
    }
}
