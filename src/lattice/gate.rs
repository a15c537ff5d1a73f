//! How much work from the network is under way at once, in number and in bytes.
//!
//! Whoever finds the gate shut is refused from the task that reads the subscription, without a task of its own: a flood then
//! costs what its refusals cost, and not memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A gate; clones are the same one.
#[derive(Clone)]
pub struct Gate(Arc<Counts>);

struct Counts {
    number: AtomicUsize,
    bytes: AtomicUsize,
    max_number: usize,
    max_bytes: usize,
}

/// A place within; given back when dropped.
pub struct Pass {
    gate: Gate,
    number: usize,
    bytes: usize,
}

impl Gate {
    /// A gate for `max_number` pieces of work with `max_bytes` together.
    pub fn new(max_number: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Counts { number: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_number, max_bytes }))
    }

    /// A place for one piece of work of `bytes`, if there is room. One that is larger than all the room gets in alone.
    pub fn enter(&self, bytes: usize) -> Option<Pass> {
        self.take(1, bytes)
    }

    /// Room for `bytes` more of work that is within already.
    pub fn reserve(&self, bytes: usize) -> Option<Pass> {
        self.take(0, bytes)
    }

    fn take(&self, number: usize, bytes: usize) -> Option<Pass> {
        let counts = &*self.0;
        let bytes = bytes.min(counts.max_bytes);
        // Counted first and looked at after: two that come at once both see both.
        let pass = Pass { gate: self.clone(), number, bytes };
        let numbers = counts.number.fetch_add(number, Relaxed) + number;
        let before = counts.bytes.fetch_add(bytes, Relaxed);
        let fits = numbers <= counts.max_number && (before == 0 || before + bytes <= counts.max_bytes);
        fits.then_some(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.gate.0.number.fetch_sub(self.number, Relaxed);
        self.gate.0.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_so_much_and_it_comes_back() {
        let gate = Gate::new(2, 100);
        let first = gate.enter(60).unwrap();
        assert!(gate.enter(50).is_none(), "too much");
        let second = gate.enter(40).unwrap();
        assert!(gate.enter(0).is_none(), "too many");
        assert!(gate.reserve(1).is_none());
        drop(first);
        let more = gate.reserve(60).unwrap();
        assert!(gate.enter(1).is_none());
        drop((second, more));
        drop(gate.enter(usize::MAX).expect("a large one alone"));
        assert_eq!((gate.0.number.load(Relaxed), gate.0.bytes.load(Relaxed)), (0, 0));
    }
}
