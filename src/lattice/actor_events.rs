//! What the lattice is told of actors.
//!
//! Clients know instances by the annotations they were asked for with, so instances are counted by annotations. Each change
//! of a count is told in three ways: by one event for each instance (the oldest clients wait for one), by one event with the
//! difference (`wadm` 0.7 to 0.10 add and subtract it), and by one event with the new count (the newest clients). An event
//! with a difference is told when a count has changed and at no other time: `wadm` answers a wrong sum with one more command,
//! without end (`protocol/lattice.md §4.3`).

use std::collections::HashMap;

use super::events::LatticeEvents;
use crate::{
    claims::{Now, SignedModule},
    wire::{
        control::Annotations,
        event::actor::{
            ActorClaims, ActorScaleFailed, ActorScaled, ActorStartFailed, ActorStarted, ActorStopped,
            ActorUpdateFailed, ActorUpdated, ActorsStartFailed, ActorsStarted, ActorsStopped,
        },
        id::actor_instance_id,
    },
};

/// Instances that are told one by one when a count changes. Clients wait for the first of them; the number is in the event
/// with the difference, and a scale to ten thousand must not send ten thousand messages.
const MAX_SINGLE_EVENTS: u16 = 16;

/// An actor as it was last told about.
#[derive(Clone)]
pub struct Told {
    reference: String,
    claims: SignedModule,
    /// Instances by annotations.
    counts: Vec<(u16, Annotations)>,
}

impl Told {
    fn total(&self) -> u16 {
        self.counts.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count))
    }

    fn count(&self, annotations: &Annotations) -> u16 {
        self.counts.iter().find(|(_, there)| there == annotations).map_or(0, |(count, _)| *count)
    }
}

impl LatticeEvents {
    /// Tells a client that waits for it that `key` runs as asked, though nothing had to change: by the event of one instance
    /// that runs already, and by the count as it is.
    pub fn tell_unchanged(&self, key: &str, reference: &str, annotations: &Annotations) {
        let Some((now, told)) = self.running(key) else { return };
        self.tell_instances(now, key, reference, &told.claims, annotations, 0..1);
        self.tell_scaled(now, key, &told, annotations);
    }

    /// Tells a client that waits for a start that `key` runs, with fewer instances than before: by the event of one instance
    /// that runs already, and by nothing else.
    pub fn tell_fewer(&self, key: &str, reference: &str, annotations: &Annotations) {
        let Some((now, told)) = self.running(key) else { return };
        self.tell_instances(now, key, reference, &told.claims, annotations, 0..1);
    }

    /// Tells that `reference` could not be started.
    pub fn tell_start_failed(
        &self,
        key: Option<&str>,
        reference: &str,
        annotations: &Annotations,
        count: u16,
        error: &str,
    ) {
        let key = key.unwrap_or("N/A");
        let host_id = &self.host_id;
        self.emit(&ActorsStartFailed { public_key: key, image_ref: reference, annotations, host_id, error });
        self.emit(&ActorStartFailed { actor_ref: reference, error });
        self.emit(&ActorScaleFailed {
            public_key: key,
            actor_ref: reference,
            claims: ActorClaims::default(),
            annotations,
            host_id,
            image_ref: reference,
            max_instances: count,
            error,
        });
    }

    /// Tells that the instances of `key` have a new module.
    pub(super) fn tell_updated(&self, key: &str, revision: i32) {
        let counts = self.running(key).map(|(_, told)| told.counts).unwrap_or_default();
        let instances = counts.iter().flat_map(|(count, annotations)| {
            (0..*count).map(move |number| actor_instance_id(&self.host_id, key, annotations, number))
        });
        for instance_id in instances.take(usize::from(MAX_SINGLE_EVENTS)) {
            self.emit(&ActorUpdated { public_key: key, revision, instance_id: &instance_id });
        }
    }

    /// Tells that the actor `key` keeps its old module.
    pub fn tell_update_failed(&self, key: &str, revision: i32, reason: &str) {
        let counts = self.running(key).map(|(_, told)| told.counts).unwrap_or_default();
        let none = Annotations::new();
        let annotations = counts.first().map_or(&none, |(_, annotations)| annotations);
        let instance_id = &actor_instance_id(&self.host_id, key, annotations, 0);
        self.emit(&ActorUpdateFailed { public_key: key, revision, instance_id, reason });
    }

    /// The actor `key` as it runs now.
    fn running(&self, key: &str) -> Option<(Now, Told)> {
        let host = self.host()?;
        let running = host.router().routes().actor(key)?;
        let counts = running.desired.counts().into_iter().map(|(count, annotations)| (count, annotations.clone()));
        let told = Told {
            reference: running.desired.reference.clone(),
            claims: running.claims.clone(),
            counts: counts.collect(),
        };
        Some((host.now(), told))
    }

    /// The start of the instances with these numbers.
    fn tell_instances(
        &self,
        now: Now,
        key: &str,
        reference: &str,
        claims: &SignedModule,
        annotations: &Annotations,
        numbers: std::ops::Range<u16>,
    ) {
        let (not_before, expires) = dates(now, claims);
        for number in numbers.take(usize::from(MAX_SINGLE_EVENTS)) {
            self.emit(&ActorStarted {
                public_key: key,
                image_ref: reference,
                api_version: "n/a",
                instance_id: &actor_instance_id(&self.host_id, key, annotations, number),
                annotations,
                claims: actor_claims(claims, &not_before, &expires),
            });
        }
    }

    fn tell_started(&self, now: Now, key: &str, told: &Told, annotations: &Annotations, was: u16) {
        let (reference, count) = (&told.reference, told.count(annotations));
        self.tell_instances(now, key, reference, &told.claims, annotations, was..count);
        let (not_before, expires) = dates(now, &told.claims);
        self.emit(&ActorsStarted {
            public_key: key,
            image_ref: reference,
            annotations,
            host_id: &self.host_id,
            claims: actor_claims(&told.claims, &not_before, &expires),
            count: count - was,
        });
    }

    fn tell_stopped(&self, key: &str, told: &Told, annotations: &Annotations, is: u16, remaining: u16) {
        let count = told.count(annotations);
        // The ones that started last end first, so that those that stay keep their names.
        for number in (is..count).rev().take(usize::from(MAX_SINGLE_EVENTS)) {
            let instance_id = &actor_instance_id(&self.host_id, key, annotations, number);
            self.emit(&ActorStopped { public_key: key, instance_id, annotations });
        }
        let (host_id, image_ref) = (&self.host_id, &told.reference);
        self.emit(&ActorsStopped { host_id, public_key: key, image_ref, count: count - is, remaining, annotations });
    }

    fn tell_scaled(&self, now: Now, key: &str, told: &Told, annotations: &Annotations) {
        let (not_before, expires) = dates(now, &told.claims);
        self.emit(&ActorScaled {
            public_key: key,
            claims: actor_claims(&told.claims, &not_before, &expires),
            annotations,
            host_id: &self.host_id,
            image_ref: &told.reference,
            max_instances: told.count(annotations),
        });
    }

    /// What runs under `key` may have changed: tells the difference to what was told last.
    pub(super) fn actor_changed(&self, key: &str) {
        let mut actors = self.actors.lock();
        let after = self.running(key);
        let now = after.as_ref().map_or(Now::from_system(0), |(now, _)| *now);
        let new = after.map(|(_, told)| told);
        let before = replace(&mut actors, key, new.clone());
        let remaining = new.as_ref().map_or(0, Told::total);
        let mut all: Vec<&Annotations> = Vec::new();
        for (_, annotations) in before.iter().chain(&new).flat_map(|told| &told.counts) {
            if !all.contains(&annotations) {
                all.push(annotations);
            }
        }
        for annotations in all {
            let count = |told: &Option<Told>| told.as_ref().map_or(0, |told| told.count(annotations));
            let (was, is) = (count(&before), count(&new));
            match (&before, &new) {
                (_, Some(told)) if is > was => self.tell_started(now, key, told, annotations, was),
                (Some(told), _) if is < was => self.tell_stopped(key, told, annotations, is, remaining),
                _ => continue,
            }
            match (&new, &before) {
                (Some(told), _) => self.tell_scaled(now, key, told, annotations),
                (None, Some(told)) => {
                    self.tell_scaled(now, key, &Told { counts: Vec::new(), ..told.clone() }, annotations);
                }
                (None, None) => {}
            }
        }
    }
}

/// Puts `new` in the place of what was told of `key` before, and returns that.
fn replace(actors: &mut HashMap<String, Told>, key: &str, new: Option<Told>) -> Option<Told> {
    match new {
        Some(told) => actors.insert(key.to_owned(), told),
        None => actors.remove(key),
    }
}

fn dates(now: Now, claims: &SignedModule) -> (String, String) {
    (now.not_before_human(claims.not_before), now.expires_human(claims.expires))
}

fn actor_claims<'a>(claims: &'a SignedModule, not_before: &'a str, expires: &'a str) -> ActorClaims<'a> {
    ActorClaims {
        call_alias: claims.call_alias.as_deref().unwrap_or_default(),
        caps: &claims.caps,
        issuer: &claims.issuer,
        tags: &claims.tags,
        name: &claims.name,
        version: &claims.version,
        revision: claims.revision,
        not_before_human: not_before,
        expires_human: expires,
    }
}
