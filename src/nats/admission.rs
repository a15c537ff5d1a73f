//! How much work from the network is under way at once, in number and in bytes, and how much of it for one source.
//!
//! What is not admitted is refused by the task that reads the subscription, without a task for itself. So a flood costs
//! what its refusals cost, and no memory.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Sources that are told apart. Two that fall together share a part; which, nobody outside can know.
const SOURCES: usize = 64;

/// The part of all places that one source may have: a quarter, so that three floods leave room for everybody else.
const SOURCE_PART: usize = 4;

/// Admits work up to its limits; clones share them.
#[derive(Clone)]
pub struct Admission(Arc<Counts>);

struct Counts {
    number: AtomicUsize,
    bytes: AtomicUsize,
    max_number: usize,
    max_bytes: usize,
    /// Work of each source, in number and in bytes.
    sources: [(AtomicUsize, AtomicUsize); SOURCES],
    hasher: RandomState,
}

/// A place within; given back when dropped.
pub struct Pass {
    admission: Admission,
    number: usize,
    bytes: usize,
    source: Option<usize>,
}

impl Admission {
    /// Admits `max_number` pieces of work with `max_bytes` together.
    pub fn new(max_number: usize, max_bytes: usize) -> Self {
        Self(Arc::new(Counts {
            number: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_number,
            max_bytes,
            sources: [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; SOURCES],
            hasher: RandomState::new(),
        }))
    }

    /// A place for one piece of work of `bytes`, if there is room. One that is larger than all the room gets in alone.
    pub fn enter(&self, bytes: usize) -> Option<Pass> {
        self.take(1, bytes, None)
    }

    /// As [`Admission::enter`], for whoever waits for the answer on `reply`. One source gets no more than its part of
    /// the places, so that others find some. Whoever waits for no answer is one source too.
    pub fn enter_for(&self, reply: Option<&str>, bytes: usize) -> Option<Pass> {
        let source = self.0.hasher.hash_one(source_of(reply)) as usize % SOURCES;
        self.take(1, bytes, Some(source))
    }

    /// Room for `bytes` more of work that is within already.
    pub fn reserve(&self, bytes: usize) -> Option<Pass> {
        self.take(0, bytes, None)
    }

    fn take(&self, number: usize, bytes: usize, source: Option<usize>) -> Option<Pass> {
        let counts = &*self.0;
        let bytes = bytes.min(counts.max_bytes);
        // Counted first and looked at after: two that come at once both see both.
        let pass = Pass { admission: self.clone(), number, bytes, source };
        let (of_source, bytes_before) = source.map_or((0, 0), |source| {
            let (numbers, source_bytes) = &counts.sources[source];
            (numbers.fetch_add(number, Relaxed) + number, source_bytes.fetch_add(bytes, Relaxed))
        });
        let numbers = counts.number.fetch_add(number, Relaxed) + number;
        let before = counts.bytes.fetch_add(bytes, Relaxed);
        let fits = numbers <= counts.max_number
            && of_source <= counts.max_number.div_ceil(SOURCE_PART)
            && (bytes_before == 0 || bytes_before + bytes <= counts.max_bytes / SOURCE_PART)
            && (before == 0 || before + bytes <= counts.max_bytes);
        fits.then_some(pass)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.admission.0.number.fetch_sub(self.number, Relaxed);
        self.admission.0.bytes.fetch_sub(self.bytes, Relaxed);
        if let Some(source) = self.source {
            let (numbers, bytes) = &self.admission.0.sources[source];
            numbers.fetch_sub(self.number, Relaxed);
            bytes.fetch_sub(self.bytes, Relaxed);
        }
    }
}

/// What the answers of one client share: all but the last word of their subjects.
fn source_of(reply: Option<&str>) -> &str {
    reply.and_then(|reply| reply.rsplit_once('.')).map_or("", |(source, _)| source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_so_much_and_it_comes_back() {
        let admission = Admission::new(2, 100);
        let first = admission.enter(60).unwrap();
        assert!(admission.enter(50).is_none(), "too much");
        let second = admission.enter(40).unwrap();
        assert!(admission.enter(0).is_none(), "too many");
        assert!(admission.reserve(1).is_none());
        drop(first);
        let more = admission.reserve(60).unwrap();
        assert!(admission.enter(1).is_none());
        drop((second, more));
        drop(admission.enter(usize::MAX).expect("a large one alone"));
        assert_eq!((admission.0.number.load(Relaxed), admission.0.bytes.load(Relaxed)), (0, 0));
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let admission = Admission::new(8, 100);
        let flood: Vec<_> = (0..9).filter_map(|n| admission.enter_for(Some(&format!("_INBOX.flood.{n}")), 1)).collect();
        assert_eq!(flood.len(), 2);
        let others =
            (0..SOURCES).filter_map(|n| admission.enter_for(Some(&format!("_INBOX.{n}.1")), 1)).collect::<Vec<_>>();
        assert_eq!(others.len(), 6, "all places are used");
        drop((flood, others));
        let silent: Vec<_> = (0..9).filter_map(|_| admission.enter_for(None, 1)).collect();
        assert_eq!(silent.len(), 2);
        drop(silent);
        let first = admission.enter_for(None, 90).expect("a large one alone");
        assert!(admission.enter_for(None, 1).is_none(), "its source has had its bytes");
        assert!((0..SOURCES).any(|n| admission.enter_for(Some(&format!("_INBOX.{n}.1")), 5).is_some()));
        drop(first);
    }
}
