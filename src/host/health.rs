//! How well what runs is: what probes find, what the lattice is told of it, and when something is ended because of it.
//!
//! Whoever probes (the host its actors, the provider room its processes) reports to [`Host::report_health`], nowhere
//! else. The verdicts are a plain table over time ([`Health`]); ending and starting again is left to the reconciler, which
//! alone changes what runs. Nothing here asks anybody anything (`checkup` does) or waits.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    host::{Host, event::Event},
    lock::Mutex,
    log,
};

/// Time between two probes, unless set: as hosts of this protocol probe providers (`protocol/config.md §8`).
pub const DEFAULT_PERIOD: Duration = Duration::from_secs(30);

/// Failed probes in a row after which an entity is ended, unless set. Three: one is a bad moment, two a slow board.
pub const DEFAULT_FAILURES: u32 = 3;

/// Times an entity is started again for bad health before it is left alone, unless set. Five restarts at growing
/// distance take a quarter of an hour; what has not recovered by then does not recover by itself.
pub const DEFAULT_RESTARTS: u32 = 5;

/// Wait before the first start after bad health; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Time in good health after which earlier restarts no longer count.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// How health is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Time between two probes; zero probes nobody.
    pub period: Duration,
    /// Failed probes in a row after which an entity is ended; 0 never ends one.
    pub failures: u32,
    /// Times it is started again.
    pub restarts: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { period: DEFAULT_PERIOD, failures: DEFAULT_FAILURES, restarts: DEFAULT_RESTARTS }
    }
}

/// An actor, or a provider under a link name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Patient {
    /// `M…`.
    Actor(String),
    /// `V…` and link name.
    Provider(String, String),
}

impl Patient {
    /// What the reconciler remembers its failures by.
    pub(super) fn subject(&self) -> String {
        match self {
            Patient::Actor(key) => format!("actor {key}"),
            Patient::Provider(key, link_name) => format!("provider {key}/{link_name}"),
        }
    }
}

/// What a probe says compared with the one before (`protocol/providers.md §7`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Well, and was not before (or is new).
    Passed,
    /// Unwell, and was not before.
    Failed,
    /// As before.
    Unchanged,
}

/// What is to be done after a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Nothing.
    None,
    /// End it; start it again after this wait, or not until a command asks for it.
    End(Option<Duration>),
}

/// One entity's record.
#[derive(Clone, Debug)]
struct Record {
    /// Why it is unwell; `None` for a well one.
    complaint: Option<String>,
    /// Since when that is so.
    since: Instant,
    /// Failed probes in a row.
    failures: u32,
    /// Starts for bad health since the last long stretch of good health.
    restarts: u32,
    /// It was ended and has not been started again.
    ended: bool,
    /// It was ended for good: it is not expected to run until a command releases it.
    given_up: bool,
}

/// Records by entity. Bounded by what should run: others are forgotten with each pass of the reconciler.
#[derive(Debug, Default)]
pub struct Records(BTreeMap<Patient, Record>);

impl Records {
    /// Takes in what a probe of `patient` found at `now`.
    pub fn report(
        &mut self,
        patient: &Patient,
        complaint: Option<String>,
        settings: &Settings,
        now: Instant,
    ) -> (Verdict, Consequence) {
        let new = !self.0.contains_key(patient);
        let record = self.0.entry(patient.clone()).or_insert_with(|| Record {
            complaint: None,
            since: now,
            failures: 0,
            restarts: 0,
            ended: false,
            given_up: false,
        });
        let was_well = record.complaint.is_none();
        let is_well = complaint.is_none();
        // An entity that was never asked counts as unwell, so its first good answer is news.
        let verdict = match (new || record.ended, was_well, is_well) {
            (true, _, true) | (false, false, true) => Verdict::Passed,
            (true, _, false) | (false, true, false) => Verdict::Failed,
            (false, ..) => Verdict::Unchanged,
        };
        if was_well != is_well || new || record.ended {
            record.since = now;
        }
        (record.ended, record.given_up) = (false, false);
        record.complaint = complaint;
        if is_well {
            record.failures = 0;
            if now.saturating_duration_since(record.since) >= FORGIVEN_AFTER {
                record.restarts = 0;
            }
            return (verdict, Consequence::None);
        }
        record.failures = record.failures.saturating_add(1);
        if settings.failures == 0 || record.failures < settings.failures {
            return (verdict, Consequence::None);
        }
        record.failures = 0;
        record.ended = true;
        if record.restarts >= settings.restarts {
            record.given_up = true;
            return (verdict, Consequence::End(None));
        }
        let wait = FIRST_WAIT.saturating_mul(1 << record.restarts.min(16)).min(LONGEST_WAIT);
        record.restarts += 1;
        (verdict, Consequence::End(Some(wait)))
    }

    /// Failures of `patient` so far do not count towards its end.
    pub fn excuse(&mut self, patient: &Patient) {
        if let Some(record) = self.0.get_mut(patient) {
            record.failures = 0;
        }
    }

    /// Another takes the place of `patient`, which ended or was stopped: it is asked as if for the first time.
    pub fn renew(&mut self, patient: &Patient) {
        if let Some(record) = self.0.get_mut(patient) {
            (record.failures, record.ended) = (0, true);
        }
    }

    /// Whether `patient` was asked before and was unwell.
    pub fn is_unwell(&self, patient: &Patient) -> bool {
        self.0.get(patient).is_some_and(|record| record.complaint.is_some())
    }

    /// Who is unwell, why, and since when; without those that were ended for good.
    pub fn unwell(&self) -> impl Iterator<Item = (&Patient, &str, Instant)> {
        let expected = self.0.iter().filter(|(_, record)| !record.given_up);
        expected.filter_map(|(patient, record)| Some((patient, record.complaint.as_deref()?, record.since)))
    }

    /// Forgets what was found of `patient`.
    pub fn forget(&mut self, patient: &Patient) {
        self.0.remove(patient);
    }

    /// Forgets all but those that `wanted` says should run.
    pub fn retain(&mut self, wanted: impl Fn(&Patient) -> bool) {
        self.0.retain(|patient, _| wanted(patient));
    }
}

/// One entity that must end.
pub(super) struct Condemned {
    pub patient: Patient,
    pub complaint: String,
    /// When it may start again; `None` waits for a command.
    pub again: Option<Instant>,
}

/// The health of what runs on one host.
#[derive(Default)]
pub struct Health {
    settings: Mutex<Settings>,
    records: Mutex<Records>,
    condemned: Mutex<Vec<Condemned>>,
}

impl Health {
    /// Judges by `settings` from now on.
    pub fn configure(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// How health is judged now.
    pub fn settings(&self) -> Settings {
        *self.settings.lock()
    }

    /// Whether `patient` was unwell when it was last asked.
    pub fn is_unwell(&self, patient: &Patient) -> bool {
        self.records.lock().is_unwell(patient)
    }

    /// Who is unwell: what the reconciler calls it, why, and since when.
    pub fn complaints(&self) -> Vec<(String, String, Instant)> {
        let records = self.records.lock();
        records.unwell().map(|(patient, why, since)| (patient.subject(), why.to_owned(), since)).collect()
    }

    pub(super) fn renew(&self, patient: &Patient) {
        self.records.lock().renew(patient);
    }

    pub(super) fn retain(&self, wanted: impl Fn(&Patient) -> bool) {
        self.records.lock().retain(wanted);
    }
}

impl Host {
    /// The health of what runs.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Takes in what a probe of `patient` found: nothing wrong, or why it is unwell. Tells the lattice, and has the
    /// reconciler end it after too many failures in a row. Returns at once.
    ///
    /// What does not run is not judged: a probe may come back after its entity was stopped.
    pub fn report_health(&self, patient: &Patient, found: Result<(), String>) {
        self.take_report(patient, found, self.health.settings());
    }

    /// Takes in that `patient` answered, and says itself that it is unwell. Told like any bad health; never its end, since it
    /// works and knows what it lacks.
    pub fn report_complaint(&self, patient: &Patient, complaint: String) {
        self.take_report(patient, Err(complaint), Settings { failures: 0, ..self.health.settings() });
        self.health.records.lock().excuse(patient);
    }

    fn take_report(&self, patient: &Patient, found: Result<(), String>, settings: Settings) {
        let (public_key, contract_id, link_name) = {
            let routes = self.router.routes();
            match patient {
                Patient::Actor(key) if routes.actor(key).is_some() => (key.clone(), String::new(), String::new()),
                Patient::Provider(key, link_name) => match routes.provider(key, link_name) {
                    Some(running) => (key.clone(), running.desired.contract_id.clone(), link_name.clone()),
                    None => return,
                },
                Patient::Actor(_) => return,
            }
        };
        let complaint = found.err();
        let now = Instant::now();
        let (verdict, consequence) = self.health.records.lock().report(patient, complaint.clone(), &settings, now);
        let complaint = complaint.unwrap_or_default();
        self.tell(&Event::HealthChecked { public_key, contract_id, link_name, verdict, complaint: complaint.clone() });
        if verdict != Verdict::Unchanged {
            self.announce();
        }
        if let Consequence::End(wait) = consequence {
            let again = wait.map(|wait| now + wait);
            self.health.condemned.lock().push(Condemned { patient: patient.clone(), complaint, again });
            self.reconciler.nudge();
        }
    }

    /// Lets start again what was ended because it was unwell: somebody asks for it.
    pub fn release(&self, patient: &Patient) {
        if self.reconciler.release(&patient.subject()) {
            self.health.records.lock().forget(patient);
            self.reconciler.nudge();
        }
    }

    /// Ends what was found unwell too often. The reconciler calls it before it makes its plan.
    pub(super) async fn end_the_unwell(&self) {
        let condemned = std::mem::take(&mut *self.health.condemned.lock());
        let failures = self.health.settings().failures;
        for Condemned { patient, complaint, again } in condemned {
            let reason = format!("unhealthy {failures} times in a row: {complaint}");
            // A step of its own: each takes its time.
            self.reconciler.begin(format!("ending {}, which is unwell", patient.subject()));
            match &patient {
                Patient::Actor(key) => self.stop_actor(key).await,
                Patient::Provider(key, link_name) => {
                    self.stop_provider(&(key.clone(), link_name.clone()), &reason).await;
                }
            }
            let subject = patient.subject();
            let wait = again.map(|again| again.saturating_duration_since(Instant::now()).as_secs_f32().ceil());
            let next = match wait {
                Some(wait) => format!("started again in {wait} s"),
                None => "it was started again too often and waits for a command about it".to_owned(),
            };
            log::warn!("{subject} was {reason}; {next}");
            self.reconciler.hold(subject, Error::unavailable(format!("{reason}; {next}")), again);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor() -> Patient {
        Patient::Actor("M1".into())
    }

    #[test]
    fn the_first_answer_is_news_and_only_changes_are_after_it() {
        let (mut records, settings, now) = (Records::default(), Settings::default(), Instant::now());
        let mut report = |well: bool| records.report(&actor(), (!well).then(|| "ill".into()), &settings, now).0;
        let found: Vec<Verdict> = [true, true, false, false, true].map(&mut report).into();
        assert_eq!(found, [Verdict::Passed, Verdict::Unchanged, Verdict::Failed, Verdict::Unchanged, Verdict::Passed]);
    }

    #[test]
    fn failures_in_a_row_end_it_with_growing_waits_and_then_for_good() {
        let (mut records, now) = (Records::default(), Instant::now());
        let settings = Settings { failures: 3, restarts: 3, ..Settings::default() };
        let mut ends = Vec::new();
        for probe in 1..=12 {
            let (_, consequence) = records.report(&actor(), Some("ill".into()), &settings, now);
            match consequence {
                Consequence::End(wait) => ends.push((probe, wait.map(|wait| wait.as_secs()))),
                Consequence::None => {}
            }
        }
        assert_eq!(ends, [(3, Some(1)), (6, Some(2)), (9, Some(4)), (12, None)]);
        assert_eq!(records.unwell().count(), 0, "nobody expects it to run");
        records.report(&actor(), Some("ill".into()), &settings, now);
        assert_eq!(records.unwell().count(), 1, "somebody started it again");
    }

    #[test]
    fn one_good_answer_breaks_the_row_and_a_long_good_time_forgives_restarts() {
        let (mut records, start) = (Records::default(), Instant::now());
        let settings = Settings { failures: 2, restarts: 1, ..Settings::default() };
        let mut report =
            |well: bool, at: Duration| records.report(&actor(), (!well).then(|| "ill".into()), &settings, start + at).1;
        let second = Duration::from_secs(1);
        assert_eq!(report(false, second), Consequence::None);
        assert_eq!(report(true, second), Consequence::None);
        assert_eq!(report(false, second), Consequence::None);
        assert_eq!(report(false, second), Consequence::End(Some(FIRST_WAIT)));
        assert_eq!(report(true, second), Consequence::None);
        assert_eq!(report(true, second + FORGIVEN_AFTER), Consequence::None);
        assert_eq!(report(false, second + FORGIVEN_AFTER), Consequence::None);
        assert_eq!(report(false, second + FORGIVEN_AFTER), Consequence::End(Some(FIRST_WAIT)));
        assert_eq!(report(false, second + FORGIVEN_AFTER), Consequence::None);
        assert_eq!(report(false, second + FORGIVEN_AFTER), Consequence::End(None));
    }

    #[test]
    fn the_first_answer_of_what_takes_its_place_is_news_again() {
        let (mut records, settings, now) = (Records::default(), Settings::default(), Instant::now());
        records.retain(|_| false);
        // A probe that was on its way when it was stopped and forgotten.
        assert_eq!(records.report(&actor(), None, &settings, now).0, Verdict::Passed);
        records.renew(&actor());
        assert_eq!(records.report(&actor(), None, &settings, now).0, Verdict::Passed);
        assert_eq!(records.report(&actor(), None, &settings, now).0, Verdict::Unchanged);
    }

    #[test]
    fn nothing_is_ended_where_that_is_switched_off() {
        let (mut records, now) = (Records::default(), Instant::now());
        let settings = Settings { failures: 0, ..Settings::default() };
        for _ in 0..50 {
            assert_eq!(records.report(&actor(), Some("ill".into()), &settings, now).1, Consequence::None);
        }
        assert_eq!(records.unwell().count(), 1);
        records.retain(|_| false);
        assert_eq!(records.unwell().count(), 0);
    }
}
