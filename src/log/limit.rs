//! How fast one source, and one part of the program, may fill the log: a token bucket each, in two tables of fixed size.
//!
//! A source is what a line is about (an actor, a link), as far as the line says. Whoever sends messages to this host may choose
//! that, and have a new source for each line. So the part of the program that writes (its module path, which nobody outside
//! chooses) has a bucket of its own, which all its sources share.
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
/// Lines one part of the program may write at once, whatever they are about. A start of many actors writes more than one
/// source may.
const PART_BURST_LINES: u64 = 400;
/// Lines per second it may write for ever after. Two sources that log without end fit in; a third makes them share.
const PART_LINES_PER_SECOND: u64 = 100;
/// Parts of the program told apart at once. There are fewer that log; the one that has been quiet longest makes room.
const PARTS: usize = 64;
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

/// How much goes into a bucket, and how fast.
#[derive(Clone, Copy)]
struct Rate {
    burst_lines: u64,
    lines_per_second: u64,
}

const SOURCE: Rate = Rate { burst_lines: BURST_LINES, lines_per_second: LINES_PER_SECOND };
const PART: Rate = Rate { burst_lines: PART_BURST_LINES, lines_per_second: PART_LINES_PER_SECOND };

struct Bucket {
    rate: Rate,
    target: &'static str,
    key: Key,
    /// Compared first; the whole key only when it matches.
    hash: u64,
    tokens: u64,
    updated: Duration,
    suppressed: u64,
}

impl Bucket {
    fn new(rate: Rate, target: &'static str, key: &str, now: Duration) -> Self {
        let hash = hash(target, key);
        let key = Key::try_from(key).unwrap_or_default();
        Self { rate, target, key, hash, tokens: rate.burst_lines * SCALE, updated: now, suppressed: 0 }
    }

    /// Takes a line's worth, if it holds that much.
    fn take(&mut self) -> bool {
        let left = self.tokens.checked_sub(SCALE);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }

    fn refill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.updated).as_millis();
        let gained =
            u64::try_from(elapsed).unwrap_or(u64::MAX).saturating_mul(self.rate.lines_per_second * SCALE / 1000);
        self.tokens = self.tokens.saturating_add(gained).min(self.rate.burst_lines * SCALE);
        self.updated = self.updated.max(now);
    }

    /// What makes a bucket worth keeping: lines to report, then recent use.
    fn worth(&self) -> (bool, Duration) {
        (self.suppressed > 0, self.updated)
    }

    /// Half full: the flood is over, not merely dripping.
    fn recovered(&self) -> bool {
        self.suppressed > 0 && self.tokens >= self.rate.burst_lines * SCALE / 2
    }
}

/// The buckets of all sources and parts heard of lately.
pub(super) struct Limiter {
    sources: Table<SOURCES>,
    parts: Table<PARTS>,
}

/// Buckets of one kind.
struct Table<const ROOM: usize>(heapless::Vec<Bucket, ROOM>);

impl<const ROOM: usize> Table<ROOM> {
    /// The bucket of a source, refilled; a new one in the place of the quietest where the table is full.
    fn bucket(&mut self, rate: Rate, target: &'static str, key: &str, now: Duration) -> &mut Bucket {
        let hash = hash(target, key);
        let found =
            self.0.iter().position(|bucket| bucket.hash == hash && bucket.target == target && bucket.key == key);
        let index = found.unwrap_or_else(|| self.insert(Bucket::new(rate, target, key, now)));
        let bucket = &mut self.0[index];
        bucket.refill(now);
        bucket
    }

    fn insert(&mut self, bucket: Bucket) -> usize {
        match self.0.push(bucket) {
            Ok(()) => self.0.len() - 1,
            Err(bucket) => {
                let quietest = (0..self.0.len()).min_by_key(|&index| self.0[index].worth()).unwrap_or(0);
                self.0[quietest] = bucket;
                quietest
            }
        }
    }
}

impl Limiter {
    pub(super) const fn new() -> Self {
        Self { sources: Table(heapless::Vec::new()), parts: Table(heapless::Vec::new()) }
    }

    /// Decides over one event of `target` about `key`.
    pub(super) fn admit(&mut self, target: &'static str, key: Option<&str>, now: Duration) -> Verdict {
        // The source first: one that floods does not use up what others of the same part may write.
        let source = self.sources.bucket(SOURCE, target, key.unwrap_or_default(), now);
        if !source.take() {
            source.suppressed += 1;
            return Verdict::Suppress;
        }
        let part = self.parts.bucket(PART, target, "", now);
        if !part.take() {
            part.suppressed += 1;
            return Verdict::Suppress;
        }
        let report = self.buckets().any(|bucket| {
            bucket.refill(now);
            bucket.recovered()
        });
        if report { Verdict::WriteAfterReport } else { Verdict::Write }
    }

    /// Takes the count of one source or part that is quiet again.
    pub(super) fn take_report(&mut self, now: Duration) -> Option<Report> {
        self.buckets().for_each(|bucket| bucket.refill(now));
        let bucket = self.buckets().find(|bucket| bucket.recovered())?;
        let lines = std::mem::take(&mut bucket.suppressed);
        Some(Report { target: bucket.target, key: bucket.key.clone(), lines })
    }

    fn buckets(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.sources.0.iter_mut().chain(&mut self.parts.0)
    }

    /// Makes every source quiet for `time`.
    #[cfg(test)]
    pub(super) fn age_for_test(&mut self, time: Duration) {
        for bucket in self.buckets() {
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
        assert_eq!(limiter.sources.0.len(), SOURCES);
        assert!(!limiter.sources.0.iter().any(|bucket| bucket.key == "0"));
    }

    #[test]
    fn a_new_source_for_each_line_gains_nothing() {
        let mut limiter = Limiter::new();
        let mut written = 0;
        for line in 0..100_000_u32 {
            let now = line * Duration::from_micros(100);
            written += flood(&mut limiter, &format!("stranger {line}"), 1, now);
        }
        assert!(written <= PART_BURST_LINES + 10 * PART_LINES_PER_SECOND + 1, "{written} lines in ten seconds");
        // Other parts of the program are heard, and the flood is reported.
        assert_eq!(limiter.admit("u", Some("operator"), 10 * SECOND), Verdict::Write);
        let report = limiter.take_report(60 * SECOND).expect("the flood is over");
        assert_eq!((report.target, report.key.as_str(), report.lines), ("t", "", 100_000 - written));
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut limiter = Limiter::new();
        flood(&mut limiter, "A", 1000, 10 * SECOND);
        assert_eq!(limiter.admit("t", Some("A"), SECOND), Verdict::Suppress);
        assert_eq!(flood(&mut limiter, "A", 1000, 11 * SECOND), LINES_PER_SECOND);
    }
}
