//! Whether a start that takes long is still getting anywhere. Pure: the caller brings the time.

use std::time::{Duration, Instant};

/// How long the service manager is asked to wait each time. Longer than [`LOOK`] by far, so that a slow moment does not
/// cost the start, and short enough that a start that stopped moving is ended soon.
pub const EXTENSION: Duration = Duration::from_secs(60);

/// Time between two looks at a start.
pub const LOOK: Duration = Duration::from_secs(15);

/// How long nothing may happen beyond the moment at which something was due.
const GRACE: Duration = Duration::from_secs(60);

/// What a start has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Passes of the reconciler and steps begun.
    pub steps: u64,
    /// Attempts to connect.
    pub attempts: u64,
    /// How far downloads have come: their bytes and attempts.
    pub fetched: u64,
    /// Until the next attempt of whatever waits for one.
    pub next_try: Option<Duration>,
}

/// The judge of one start.
pub struct Progress {
    seen: Seen,
    /// Until when the last thing that happened counts.
    until: Instant,
}

impl Progress {
    /// A start that began at `now`.
    pub fn new(now: Instant) -> Self {
        Self { seen: Seen::default(), until: now + GRACE }
    }

    /// Whether the start gets somewhere: a step, a byte, another attempt since the last look, or a wait that is not over.
    pub fn is_real(&mut self, seen: Seen, now: Instant) -> bool {
        let done = |seen: Seen| (seen.steps, seen.attempts, seen.fetched);
        let wait = seen.next_try.unwrap_or_default();
        if done(seen) != done(self.seen) || !wait.is_zero() {
            self.until = self.until.max(now + wait + GRACE);
        }
        self.seen = seen;
        now <= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_go_on_are_progress_and_a_standstill_is_not() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen = |attempts, next| Seen { attempts, next_try: Some(Duration::from_secs(next)), ..Seen::default() };
        assert!(progress.is_real(seen(1, 60), at(0)));
        assert!(progress.is_real(seen(1, 5), at(55)), "the next attempt is not due yet");
        for hour in 1..10 {
            assert!(progress.is_real(seen(1 + hour, 60), at(55 + hour * 110)), "attempt after attempt");
        }
        let last = 55 + 9 * 110;
        assert!(progress.is_real(seen(10, 0), at(last + 119)));
        assert!(!progress.is_real(seen(10, 0), at(last + 121)), "nothing has happened since it was due");
        assert!(progress.is_real(Seen { steps: 1, ..seen(10, 0) }, at(last + 122)));
    }

    #[test]
    fn a_download_is_progress_for_as_long_as_bytes_come() {
        let start = Instant::now();
        let mut progress = Progress::new(start);
        let look = |progress: &mut Progress, fetched, seconds| {
            progress.is_real(Seen { fetched, ..Seen::default() }, start + Duration::from_secs(seconds))
        };
        for minute in 1..60 {
            assert!(look(&mut progress, minute * 4096, minute * 50));
        }
        assert!(look(&mut progress, 59 * 4096, 59 * 50 + 60));
        assert!(!look(&mut progress, 59 * 4096, 59 * 50 + 61), "it hangs");
    }
}
