//! When a provider that ended by itself is started again. Pure: time and randomness come in.
//!
//! Other hosts of this protocol never do; here a process is part of the desired state, so it is started again after a wait
//! that doubles with each short life. One that lived long enough starts with a clean record. Past the limit it is given up,
//! which stays so, whatever else changes, until somebody commands a start or the host starts anew.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::process::ProviderName;

/// First wait. A second: a provider that lost its server finds it again about as fast.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait. Two minutes: long enough that a crash loop costs nothing, short enough that one cured by itself is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// A process that lived this long was well: its past is forgotten.
const STEADY: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Record {
    started: Instant,
    /// Short lives in a row.
    short_lives: u32,
    /// Why it ended last.
    reason: String,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Runs,
    Waits(Instant),
    GivenUp,
}

/// All processes that were ever started and are still wanted.
#[derive(Debug, Default)]
pub struct Restarts(BTreeMap<ProviderName, Record>);

impl Restarts {
    /// The process `name` runs since `now`.
    pub fn started(&mut self, name: &ProviderName, now: Instant) {
        let record = self.0.entry(name.clone()).or_insert_with(|| Record {
            started: now,
            short_lives: 0,
            reason: String::new(),
            state: State::Runs,
        });
        (record.started, record.state) = (now, State::Runs);
    }

    /// It ended by itself. `limit` is how many short lives in a row are put up with; `random` spreads the wait between half
    /// and all of its width, so that boards that lost the same server do not come back together.
    pub fn ended(&mut self, name: &ProviderName, reason: &str, limit: u32, now: Instant, random: u32) {
        let Some(record) = self.0.get_mut(name) else { return };
        if now.saturating_duration_since(record.started) >= STEADY {
            record.short_lives = 0;
        }
        record.short_lives += 1;
        record.reason = reason.to_owned();
        record.state = if record.short_lives > limit {
            State::GivenUp
        } else {
            let width = FIRST_WAIT.saturating_mul(1 << (record.short_lives - 1).min(16)).min(LONGEST_WAIT);
            State::Waits(now + width / 2 + (width / 2).mul_f64(f64::from(random) / f64::from(u32::MAX)))
        };
    }

    /// Whether `name` may be started at `now`.
    pub fn may_start(&self, name: &ProviderName, now: Instant) -> bool {
        self.0.get(name).is_none_or(|record| match record.state {
            State::Runs => true,
            State::Waits(until) => until <= now,
            State::GivenUp => false,
        })
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        let due = |record: &Record| match record.state {
            State::Waits(until) => Some(until),
            _ => None,
        };
        self.0.values().filter_map(due).min()
    }

    /// Gives `name` a clean record; whether it had been given up or waits.
    pub fn forgive(&mut self, name: &ProviderName) -> bool {
        self.0.remove(name).is_some_and(|record| record.state != State::Runs)
    }

    /// Forgets those that are no longer wanted.
    pub fn retain(&mut self, wanted: impl Fn(&ProviderName) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// How `name` stands, where it does not run: a text for people.
    pub fn text(&self, name: &ProviderName) -> Option<String> {
        let record = self.0.get(name)?;
        match record.state {
            State::Runs => None,
            State::Waits(_) => Some(format!("waits to be started again: {}", record.reason)),
            State::GivenUp if record.short_lives <= 1 => {
                Some(format!("failed: {}; it is not started again", record.reason))
            }
            State::GivenUp => Some(format!(
                "failed: {}; given up after {} short lives in a row, start it again by a command once it is mended",
                record.reason, record.short_lives
            )),
        }
    }

    /// One sentence for each that does not run.
    pub fn texts(&self) -> Vec<String> {
        self.0
            .keys()
            .filter_map(|name| self.text(name).map(|text| format!("provider {}/{}: {text}", name.0, name.1)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ProviderName {
        ("V1".into(), "default".into())
    }

    #[test]
    fn waits_double_with_jitter_up_to_a_ceiling_and_then_it_is_given_up() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut waits = Vec::new();
        for life in 0..10 {
            restarts.started(&name(), start);
            restarts.ended(&name(), "signal 11", 10, start, if life % 2 == 0 { u32::MAX } else { 0 });
            waits.push(restarts.next().expect("it waits") - start);
        }
        assert_eq!(waits[..4], [1000, 1000, 4000, 4000].map(Duration::from_millis));
        assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
        restarts.started(&name(), start);
        restarts.ended(&name(), "signal 11", 10, start, 0);
        assert!(!restarts.may_start(&name(), start + Duration::from_secs(1_000_000)) && restarts.next().is_none());
        assert!(restarts.texts()[0].contains("given up after 11"), "{:?}", restarts.texts());
        assert!(restarts.forgive(&name()) && restarts.may_start(&name(), start));
    }

    #[test]
    fn a_long_life_clears_the_record_and_a_limit_of_nothing_never_restarts() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        for _ in 0..100 {
            restarts.started(&name(), start);
            restarts.ended(&name(), "status 1", 1, start + STEADY, 0);
            assert!(restarts.may_start(&name(), start + STEADY + FIRST_WAIT));
        }
        restarts.started(&name(), start);
        restarts.ended(&name(), "status 1", 0, start + STEADY, 0);
        assert!(restarts.text(&name()).expect("it does not run").contains("not started again"));
        restarts.retain(|_| false);
        assert!(restarts.texts().is_empty());
    }
}
