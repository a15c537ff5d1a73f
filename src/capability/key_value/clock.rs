//! The time by which keys expire: the wall clock, made to never run backwards.
//!
//! Small boards start with a wrong clock, corrected once a network is there. The rule:
//!
//! * Within a run, time is the wall clock, or the time passed since it was last right, whichever is later. A clock set
//!   back changes nothing: keys go on living, and dying, at the pace of real time.
//! * Over a restart, time goes on from the latest that was written with an expiring key. A board that wakes up in 1970
//!   counts from there: a key then lives out the rest of its time in powered-on time, and none is lost early.
//! * A clock set forward is believed: keys whose time has come by it are gone, as in any store with a wall clock.
//!
//! A key seen as expired is removed durably before anyone is told so; what was gone once stays gone, whatever the clock
//! says next.

use std::time::{Duration, Instant, SystemTime};

use crate::lock::Mutex;

/// Where time comes from: wall clock since 1970, and a clock that only runs forward.
pub(super) type Source = Box<dyn Fn() -> (Duration, Duration) + Send + Sync>;

/// A clock that never runs backwards.
pub(super) struct Clock {
    source: Source,
    /// The latest time given, and the steady clock at that moment.
    last: Mutex<(Duration, Duration)>,
}

impl Clock {
    /// A clock that starts no earlier than `floor`.
    pub(super) fn new(source: Source, floor: Duration) -> Self {
        let (_, steady) = source();
        Self { source, last: Mutex::new((floor, steady)) }
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        let (wall, steady) = (self.source)();
        let mut last = self.last.lock();
        let passed = last.0.saturating_add(steady.saturating_sub(last.1));
        *last = (passed.max(wall), steady);
        u64::try_from(last.0.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The clocks of this machine.
pub(super) fn system() -> Source {
    let start = Instant::now();
    Box::new(move || (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(), start.elapsed()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};

    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let wall = Arc::new(AtomicU64::new(50));
        let steady = Arc::new(AtomicU64::new(0));
        let (shown_wall, shown_steady) = (Arc::clone(&wall), Arc::clone(&steady));
        let seconds = |clock: &AtomicU64| Duration::from_secs(clock.load(Relaxed));
        let source = Box::new(move || (seconds(&shown_wall), seconds(&shown_steady)));
        let clock = Clock::new(source, Duration::from_secs(100));
        assert_eq!(clock.now_ms(), 100_000, "the clock starts behind what was written");
        steady.store(5, Relaxed);
        assert_eq!(clock.now_ms(), 105_000, "time passes all the same");
        wall.store(1000, Relaxed);
        assert_eq!(clock.now_ms(), 1_000_000, "the network sets it right");
        wall.store(3, Relaxed);
        steady.store(6, Relaxed);
        assert_eq!(clock.now_ms(), 1_001_000, "a jump back changes nothing");
    }
}
