//! How fast downloads may come in, all of them together, and when to try again what failed.
//!
//! Pure but for the clock and random numbers that callers hand in; they do the waiting.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::lock::Mutex;

/// Widest first wait before another attempt.
const RETRY_BASE: Duration = Duration::from_millis(500);

/// Widest wait ever before another attempt: on a link that comes and goes nobody waits much longer than the link does.
const RETRY_CAP: Duration = Duration::from_secs(30);

/// How long a source may ask to be left alone before that counts as a failure. A registry that limits pulls says minutes;
/// one that says hours is down for whoever waits here.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(15 * 60);

/// A rate limit shared by all downloads.
#[derive(Debug)]
pub struct Pace {
    /// Nothing is slowed down with 0.
    bytes_per_second: AtomicU64,
    /// When what came in so far would have come in at that rate.
    due: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most so many bytes a second; 0 for as fast as they come.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.into(), due: Mutex::default() }
    }

    /// The same with another rate from now on; what came in before is not counted again.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Relaxed);
    }

    /// `bytes` have come in: how long to wait before the next are asked for.
    pub fn take(&self, bytes: u64, now: Instant) -> Duration {
        let rate = self.bytes_per_second.load(Relaxed);
        if rate == 0 {
            return Duration::ZERO;
        }
        let mut due = self.due.lock();
        // What was not used before is not saved up: a link has no memory either.
        let start = due.filter(|due| *due > now).unwrap_or(now);
        let after = start + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *due = Some(after);
        after - now
    }
}

/// How long to wait after `fruitless` attempts in a row, drawn by `random` between half of a width that doubles and all of
/// it: boards that lost one server together do not come back together.
pub fn retry_wait(fruitless: u32, random: u32) -> Duration {
    let width = RETRY_BASE.saturating_mul(2_u32.saturating_pow(fruitless.min(16))).min(RETRY_CAP);
    width / 2 + (width / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_shared_and_nothing_is_saved_up() {
        let start = Instant::now();
        let pace = Pace::new(1000);
        assert_eq!(pace.take(500, start), Duration::from_millis(500));
        assert_eq!(pace.take(500, start), Duration::from_millis(1000), "somebody else's bytes count too");
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.take(100, later), Duration::from_millis(100));
        pace.set(0);
        assert_eq!(pace.take(u64::MAX, start), Duration::ZERO);
    }

    #[test]
    fn waits_grow_to_their_cap_and_differ() {
        assert_eq!(retry_wait(0, 0), RETRY_BASE / 2);
        assert_eq!(retry_wait(0, u32::MAX), RETRY_BASE);
        assert_eq!(retry_wait(3, 0), RETRY_BASE * 4);
        assert_eq!((retry_wait(40, 0), retry_wait(40, u32::MAX)), (RETRY_CAP / 2, RETRY_CAP));
    }
}
