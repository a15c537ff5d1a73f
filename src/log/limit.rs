//! How fast one source may fill the log: a token bucket each, in a table of fixed size.
//!
//! Pure: time comes in as a duration since any moment.

use std::{hash::BuildHasher, time::Duration};

use super::event::Key;

/// Lines one source may write at once. Enough for a start with a hundred actors; a loop that logs is cut after it.
pub(super) const BURST_LINES: u64 = 200;
/// Lines per second one source may write for ever after. At 200 bytes that is 36 MB an hour in the worst case, which
/// the journal's own limits cut further.
const LINES_PER_SECOND: u64 = 50;
/// Sources told apart at once. The one that has been quiet longest makes room, one with lines to report last; a new
/// source starts with a full bucket.
const SOURCES: usize = 64;
/// Tokens are counted in thousandths of a line, so that a millisecond adds a whole number of them.
const SCALE: u64 = 1000;

/// Whether an event may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may.
    Write,
    /// It may, and lines held back before should be reported first.
    WriteAfterReport,
    /// It came too fast and was counted.
    Suppress,
}

/// What was held back of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) target: &'static str,
    pub(super) key: Key,
    pub(super) lines: u64,
}

struct Bucket {
    target: &'static str,
    key: Key,
    /// Compared first; the whole key only when it matches.
    hash: u64,
    tokens: u64,
    updated: Duration,
    suppressed: u64,
}

impl Bucket {
    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.updated).as_millis();
        let gained = u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(LINES_PER_SECOND * SCALE / 1000);
        self.tokens = self.tokens.saturating_add(gained).min(BURST_LINES * SCALE);
        self.updated = self.updated.max(now);
    }

    /// What makes a bucket worth keeping: lines to report, then recent use.
    fn worth(&self) -> (bool, Duration) {
        (self.suppressed > 0, self.updated)
    }

    /// Half full: the flood is over, not merely dripping.
    fn recovered(&self) -> bool {
        self.suppressed > 0 && self.tokens >= BURST_LINES * SCALE / 2
    }
}

/// The buckets of all sources heard of lately.
pub(super) struct Limiter(heapless::Vec<Bucket, SOURCES>);

impl Limiter {
    pub(super) const fn new() -> Self {
        Self(heapless::Vec::new())
    }

    /// Decides over one event of `target` about `key`.
    pub(super) fn admit(&mut self, target: &'static str, key: Option<&str>, now: Duration) -> Verdict {
        let key = key.unwrap_or_default();
        let hash = hash(target, key);
        let found =
            self.0.iter().position(|bucket| bucket.hash == hash && bucket.target == target && bucket.key == key);
        let index = found.unwrap_or_else(|| self.insert(target, key, hash, now));
        let bucket = &mut self.0[index];
        bucket.refill(now);
        let verdict = match bucket.tokens.checked_sub(SCALE) {
            Some(left) => {
                bucket.tokens = left;
                Verdict::Write
            }
            None => {
                bucket.suppressed += 1;
                Verdict::Suppress
            }
        };
        let recovered = |bucket: &mut Bucket| {
            bucket.refill(now);
            bucket.recovered()
        };
        let report = verdict == Verdict::Write && self.0.iter_mut().any(recovered);
        if report { Verdict::WriteAfterReport } else { verdict }
    }

    /// Takes the count of one source that is quiet again.
    pub(super) fn take_report(&mut self, now: Duration) -> Option<Report> {
        self.0.iter_mut().for_each(|bucket| bucket.refill(now));
        let bucket = self.0.iter_mut().find(|bucket| bucket.recovered())?;
        let lines = std::mem::take(&mut bucket.suppressed);
        Some(Report { target: bucket.target, key: bucket.key.clone(), lines })
    }

    /// A place for a new source, in the place of the quietest where the table is full.
    fn insert(&mut self, target: &'static str, key: &str, hash: u64, now: Duration) -> usize {
        let key = Key::try_from(key).unwrap_or_default();
        let bucket = Bucket { target, key, hash, tokens: BURST_LINES * SCALE, updated: now, suppressed: 0 };
        match self.0.push(bucket) {
            Ok(()) => self.0.len() - 1,
            Err(bucket) => {
                let quietest = (0..self.0.len()).min_by_key(|&index| self.0[index].worth()).unwrap_or(0);
                self.0[quietest] = bucket;
                quietest
            }
        }
    }

    /// Makes every source quiet for `time`.
    #[cfg(test)]
    pub(super) fn age_for_test(&mut self, time: Duration) {
        for bucket in &mut self.0 {
            let now = bucket.updated + time;
            bucket.refill(now);
        }
    }
}

fn hash(target: &str, key: &str) -> u64 {
    static STATE: std::sync::OnceLock<std::hash::RandomState> = std::sync::OnceLock::new();
    STATE.get_or_init(std::hash::RandomState::new).hash_one((target, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn flood(limiter: &mut Limiter, key: &str, lines: u64, now: Duration) -> u64 {
        (0..lines).filter(|_| limiter.admit("t", Some(key), now) != Verdict::Suppress).count() as u64
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let mut limiter = Limiter::new();
        assert_eq!(flood(&mut limiter, "A", 1000, SECOND), BURST_LINES);
        assert_eq!(flood(&mut limiter, "A", 1000, 2 * SECOND), LINES_PER_SECOND);
    }

    #[test]
    fn sources_do_not_cost_each_other() {
        let mut limiter = Limiter::new();
        flood(&mut limiter, "A", 1000, SECOND);
        assert_eq!(limiter.admit("t", Some("B"), SECOND), Verdict::Write);
        assert_eq!(limiter.admit("u", Some("A"), SECOND), Verdict::Write);
        assert_eq!(limiter.admit("t", None, SECOND), Verdict::Write);
    }

    #[test]
    fn what_was_held_back_is_reported_once_the_source_is_quiet() {
        let mut limiter = Limiter::new();
        flood(&mut limiter, "A", BURST_LINES + 7, SECOND);
        assert_eq!(limiter.take_report(SECOND), None);
        assert_eq!(limiter.take_report(2 * SECOND), None);
        let report = limiter.take_report(60 * SECOND).expect("the bucket is full again");
        assert_eq!((report.target, report.key.as_str(), report.lines), ("t", "A", 7));
        assert_eq!(limiter.take_report(60 * SECOND), None);
    }

    #[test]
    fn any_line_brings_out_a_report() {
        let mut limiter = Limiter::new();
        flood(&mut limiter, "A", BURST_LINES + 7, SECOND);
        assert_eq!(limiter.admit("t", Some("B"), 2 * SECOND), Verdict::Write);
        assert_eq!(limiter.admit("t", Some("B"), 60 * SECOND), Verdict::WriteAfterReport);
    }

    #[test]
    fn the_table_forgets_the_quietest() {
        let mut limiter = Limiter::new();
        for index in 0..=SOURCES as u64 {
            flood(&mut limiter, &index.to_string(), BURST_LINES, index as u32 * Duration::from_millis(1));
        }
        assert_eq!(limiter.0.len(), SOURCES);
        assert!(!limiter.0.iter().any(|bucket| bucket.key == "0"));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut limiter = Limiter::new();
        flood(&mut limiter, "A", 1000, 10 * SECOND);
        assert_eq!(limiter.admit("t", Some("A"), SECOND), Verdict::Suppress);
        assert_eq!(flood(&mut limiter, "A", 1000, 11 * SECOND), LINES_PER_SECOND);
    }
}
