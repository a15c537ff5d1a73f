//! Applications that somebody asked for and that are not desired state yet: their manifest could not be read, or what they
//! name could not be fetched.
//!
//! Kept by whoever reads manifests; readiness and status tell of them, and the waits between attempts are those of steps.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    host::{Host, retry::Failures},
    lock::{Mutex, MutexGuard},
};

/// See the file. By subject: `manifest /etc/latticed/manifests/app.yaml`.
#[derive(Default)]
pub struct PendingApplications(Mutex<State>);

#[derive(Default)]
struct State {
    under_way: BTreeSet<String>,
    failures: Failures,
}

impl PendingApplications {
    /// Each and why it is not there yet.
    pub fn complaints(&self) -> Vec<(String, String)> {
        let state = self.state();
        let under_way = state.under_way.iter();
        let fetching = under_way.map(|subject| (subject.clone(), "what it names is being fetched".to_owned()));
        let failed = state.failures.iter().filter(|(subject, _)| !state.under_way.contains(*subject));
        fetching.chain(failed.map(|(subject, why)| (subject.to_owned(), why.to_owned()))).collect()
    }

    /// One sentence for each that failed.
    pub fn problems(&self) -> Vec<String> {
        self.state().failures.texts().collect()
    }

    /// When the next of them is tried again.
    pub fn next(&self) -> Option<Instant> {
        self.state().failures.next()
    }

    /// When the next of those is tried again that wait for something that is away.
    pub fn next_passing(&self) -> Option<Instant> {
        self.state().failures.next_passing()
    }

    /// Whether `subject` is being worked on.
    pub fn is_under_way(&self, subject: &str) -> bool {
        self.state().under_way.contains(subject)
    }

    /// Whether `subject` failed before and is to be tried again at `now`.
    pub fn is_due(&self, subject: &str, now: Instant) -> bool {
        let state = self.state();
        state.failures.contains(subject) && state.failures.may_try(subject, now)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Host {
    /// Applications that are not desired state yet.
    pub fn pending(&self) -> &PendingApplications {
        &self.pending
    }

    /// Work on the application of `subject` begins.
    pub fn pend(&self, subject: &str) {
        self.pending.state().under_way.insert(subject.to_owned());
        self.announce();
    }

    /// It ended: the application is desired state now, or failed and is tried again after the time answered, if that may
    /// help.
    pub fn pended(&self, subject: &str, failed: Option<Error>) -> Option<Duration> {
        let wait = {
            let mut state = self.pending.state();
            state.under_way.remove(subject);
            match failed {
                Some(error) => state.failures.failed(subject.to_owned(), error, Instant::now()),
                None => {
                    state.failures.succeeded(subject);
                    None
                }
            }
        };
        self.announce();
        wait
    }

    /// Forgets all but those of `subjects`: nobody asks for the others any more.
    pub fn retain_pending(&self, subjects: &BTreeSet<String>) {
        {
            let mut state = self.pending.state();
            state.under_way.retain(|subject| subjects.contains(subject));
            state.failures.retain(|subject| subjects.contains(subject));
        }
        self.announce();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_and_tried_again_when_that_may_help() {
        let (pending, now) = (PendingApplications::default(), Instant::now());
        pending.state().under_way.insert("manifest a".into());
        assert_eq!(pending.complaints(), [("manifest a".into(), "what it names is being fetched".into())]);
        assert_eq!((pending.next(), pending.problems()), (None, Vec::new()));
        let fail = |subject: &str, error| pending.state().failures.failed(subject.into(), error, now);
        fail("manifest a", Error::unavailable("no route"));
        fail("manifest b", Error::config("no YAML"));
        assert_eq!(pending.complaints().len(), 2, "one line each");
        let next = pending.next().expect("the first is tried again");
        assert_eq!(pending.next_passing(), Some(next));
        assert!(!pending.is_due("manifest a", now) && pending.is_due("manifest a", next));
        assert!(!pending.is_due("manifest b", next + Duration::from_secs(10_000)));
        assert!(!pending.is_due("manifest c", next), "it did not fail");
        pending.state().failures.retain(|subject| subject == "manifest b");
        assert_eq!(pending.next_passing(), None);
        assert_eq!((pending.next(), pending.problems()), (None, vec!["manifest b: no YAML".to_owned()]));
    }
}
