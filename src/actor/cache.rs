//! Which compiled modules stay in memory: all that fit the budget, those used last first.
//!
//! A module in use is never dropped; its actor's next idle moment is soon enough. The cache knows actors only weakly, so
//! an actor that is gone takes its module with it.

use std::sync::{
    Weak,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::{actor::handle::Inner, lock::Mutex};

/// The cache of one host.
pub struct Cache {
    budget_bytes: usize,
    bytes: AtomicUsize,
    clock: AtomicU64,
    actors: Mutex<Vec<Weak<Inner>>>,
}

impl Cache {
    /// An empty cache that keeps idle modules of `budget_bytes` together.
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, bytes: AtomicUsize::new(0), clock: AtomicU64::new(0), actors: Mutex::new(Vec::new()) }
    }

    /// Bytes of all compiled modules, in use or not, as estimated.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The time of a use, in uses.
    pub fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// How many uses there were so far.
    pub fn uses(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Makes an actor's module known to the cache.
    pub fn register(&self, actor: Weak<Inner>) {
        let mut actors = self.actors.lock();
        actors.retain(|actor| actor.strong_count() > 0);
        actors.push(actor);
    }

    /// A module of `bytes` was compiled.
    pub fn added(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A module of `bytes` was dropped.
    pub fn removed(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether more is kept than the budget allows.
    pub fn is_over_budget(&self) -> bool {
        self.bytes() > self.budget_bytes
    }

    /// Drops modules of idle actors, least recently used first, until the rest fits the budget. Answers whether any
    /// memory was given back.
    pub fn evict(&self) -> bool {
        if !self.is_over_budget() {
            return false;
        }
        // Held to the end, or two at once would each drop what one of them should.
        let known = self.actors.lock();
        let actors: Vec<_> = known.iter().filter_map(Weak::upgrade).collect();
        let mut idle: Vec<_> = actors.iter().filter(|actor| actor.is_idle_and_compiled()).collect();
        idle.sort_by_key(|actor| actor.last_used.load(Ordering::Relaxed));
        let mut dropped = false;
        for actor in idle {
            if !self.is_over_budget() {
                break;
            }
            dropped |= actor.forget_module();
        }
        dropped
    }
}
