//! When a step that failed is tried again. Pure: the caller brings the time.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::error::{Error, Kind};

/// Wait after the first failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait. Five minutes: an operator who mends the cause (a busy port, a full disk) need not do anything more,
/// and a board whose cause stays wakes up 12 times an hour for it.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// One step's bad record.
#[derive(Clone, Debug)]
struct Failure {
    error: Error,
    attempts: u32,
    next: Option<Instant>,
    /// It runs into no error when it is tried; it was ended on purpose. A command about something else does not release it.
    held: bool,
}

/// Failed steps by subject. Bounded by the desired state: a subject that is no longer wanted is forgotten.
#[derive(Debug, Default)]
pub struct Failures(BTreeMap<String, Failure>);

impl Failures {
    /// Whether `subject` may be tried at `now`.
    pub fn may_try(&self, subject: &str, now: Instant) -> bool {
        self.0.get(subject).is_none_or(|failure| failure.next.is_some_and(|next| next <= now))
    }

    /// Remembers that `subject` failed at `now`. Waiting cures no malformed module or missing right: those are tried
    /// again only when a command changes them. Answers the wait, if there is a next time.
    ///
    /// More is tried again than [`Kind::is_curable`] says: nobody looks after a board, and somebody elsewhere may
    /// publish what was not found, or free what was taken.
    pub fn failed(&mut self, subject: String, error: Error, now: Instant) -> Option<Duration> {
        let attempts = self.0.get(&subject).map_or(0, |failure| failure.attempts) + 1;
        let curable = !matches!(error.kind(), Kind::Invalid | Kind::Denied | Kind::Config | Kind::Usage | Kind::Limit);
        let wait = FIRST_WAIT.saturating_mul(1 << (attempts - 1).min(16)).min(LONGEST_WAIT);
        self.0.insert(subject, Failure { error, attempts, next: curable.then_some(now + wait), held: false });
        curable.then_some(wait)
    }

    /// Leaves `subject` alone until `again`, or until a command releases it, because of `error`.
    pub fn hold(&mut self, subject: String, error: Error, again: Option<Instant>) {
        self.0.insert(subject, Failure { error, attempts: 1, next: again, held: true });
    }

    /// Forgets that `subject` was held; answers whether it was.
    pub fn release(&mut self, subject: &str) -> bool {
        let held = self.0.get(subject).is_some_and(|failure| failure.held);
        if held {
            self.0.remove(subject);
        }
        held
    }

    /// Forgets those that were held and that `wanted` does not name.
    pub fn retain_held(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|subject, failure| !failure.held || wanted(subject));
    }

    /// Forgets `subject`: it went well.
    pub fn succeeded(&mut self, subject: &str) {
        self.0.remove(subject);
    }

    /// Forgets whom `wanted` does not name.
    pub fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|subject, _| wanted(subject));
    }

    /// Whether `subject` failed.
    pub fn contains(&self, subject: &str) -> bool {
        self.0.contains_key(subject)
    }

    /// Forgets everything but what is held: a command changed what is wanted, so each step deserves a fresh try.
    pub fn clear(&mut self) {
        self.0.retain(|_, failure| failure.held);
    }

    /// When the next retry is due.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().filter_map(|failure| failure.next).min()
    }

    /// The same among those that failed because something was away: their retries are a wait, those of others a hope.
    pub fn next_passing(&self) -> Option<Instant> {
        let passes = |failure: &&Failure| failure.error.kind().is_passing();
        self.0.values().filter(passes).filter_map(|failure| failure.next).min()
    }

    /// Each subject and why it failed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(subject, failure)| (subject.as_str(), failure.error.text()))
    }

    /// The same without those that are held for good: nothing is expected of them any more.
    pub fn unresolved(&self) -> impl Iterator<Item = (&str, &str)> {
        let expected = |(_, failure): &(&String, &Failure)| !failure.held || failure.next.is_some();
        self.0.iter().filter(expected).map(|(subject, failure)| (subject.as_str(), failure.error.text()))
    }

    /// One sentence for each failure.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(subject, failure)| match failure.attempts {
            1 => format!("{subject}: {}", failure.error),
            attempts => format!("{subject}: {} (tried {attempts} times)", failure.error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_waits_for_a_command_of_its_own() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let later = start + Duration::from_secs(9);
        failures.hold("actor waits".into(), Error::unavailable("ill"), Some(later));
        failures.hold("actor ended".into(), Error::unavailable("ill"), None);
        failures.failed("link x".into(), Error::unavailable("port busy"), start);
        assert_eq!(failures.unresolved().map(|(subject, _)| subject).collect::<Vec<_>>(), ["actor waits", "link x"]);
        failures.clear();
        assert_eq!(failures.texts().count(), 2, "both are still told");
        assert!(!failures.may_try("actor waits", start) && failures.may_try("actor waits", later));
        assert!(!failures.may_try("actor ended", later));
        assert!(failures.release("actor ended") && !failures.release("actor ended"));
        assert!(failures.may_try("actor ended", start));
        failures.retain_held(|_| false);
        assert!(failures.may_try("actor waits", start));
    }

    #[test]
    fn waits_grow_to_a_ceiling_and_incurable_ones_wait_for_a_command() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..20 {
            failures.failed("link x".into(), Error::unavailable("port busy"), start);
            waits.push(failures.next().expect("a curable failure is retried") - start);
        }
        assert_eq!(waits[..4], [1, 2, 4, 8].map(Duration::from_secs));
        assert_eq!(waits[19], LONGEST_WAIT);
        assert!(!failures.may_try("link x", start + Duration::from_secs(299)));
        assert!(failures.may_try("link x", start + LONGEST_WAIT));

        failures.failed("actor y".into(), Error::denied("issuer"), start);
        assert!(!failures.may_try("actor y", start + Duration::from_secs(1_000_000)));
        failures.clear();
        assert!(failures.may_try("actor y", start));
    }
}
