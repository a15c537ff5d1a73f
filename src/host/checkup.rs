//! Asks actors how they are: `Actor.HealthRequest` (`protocol/actor-abi.md §4`), on a period.
//!
//! Hosts of this protocol do not poll actors, and an idle board must stay idle, so only those are asked that did
//! something since they were last asked, or were unwell then: an actor nobody calls costs nothing, its compiled module is
//! not brought back for it, and it cannot have fallen ill since. One at a time, so that a round never takes more than one
//! place of the host. One that is busy to its limit is left alone: it works, and its deadline bounds it.
//!
//! Who does not implement the operation is well. SDKs answer an operation they do not know with an error of their own,
//! others with an echo, so *implementing* means to have answered once as the interface says; only from then on does an
//! error, a time-out or `healthy: false` count against an actor. A trap always counts: whatever is asked, a guest that is
//! well answers.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use smol::Timer;

use crate::{
    actor::{self, Context},
    error::{Error, Kind, Result},
    host::{Host, health::Patient, routes::RunningActor},
    store::Digest,
    wire::codec,
};

/// The operation.
const OPERATION: &str = "Actor.HealthRequest";

/// Its request: an empty map.
const REQUEST: &[u8] = &[0x80];

/// How long an actor may take to say how it is; as long as any call in the lattice by default.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a host that probes nobody looks whether it should.
const SWITCHED_OFF: Duration = Duration::from_secs(60);

/// What an actor answers.
#[derive(Deserialize)]
struct Answer {
    healthy: bool,
    #[serde(default)]
    message: Option<String>,
}

/// What is known of an actor from its last checkup. Bounded by what runs.
#[derive(Clone, Copy)]
struct Known {
    /// The module it was; another one starts afresh.
    digest: Digest,
    /// Calls it had had then, that one included.
    calls: u64,
    /// It has answered as the interface says.
    implements: bool,
}

impl Host {
    /// Asks for ever.
    pub(super) async fn check_up_for_ever(self: &Arc<Self>) {
        let mut known = BTreeMap::new();
        loop {
            let period = self.health().settings().period;
            if period.is_zero() {
                Timer::after(SWITCHED_OFF).await;
                continue;
            }
            Timer::after(period).await;
            self.check_up(&mut known).await;
        }
    }

    async fn check_up(&self, known: &mut BTreeMap<String, Known>) {
        let actors: Vec<Arc<RunningActor>> = self.router().routes().actors().cloned().collect();
        known.retain(|key, _| actors.iter().any(|actor| actor.desired.public_key == *key));
        for running in actors {
            let key = &running.desired.public_key;
            let digest = running.desired.digest;
            let patient = Patient::Actor(key.clone());
            let before = known.get(key).copied().filter(|before| before.digest == digest);
            let counts = running.actor.counts();
            let busy = counts.queued > 0 || counts.running >= u32::from(running.actor.max_concurrent());
            let stirred = counts.calls != before.map_or(0, |before| before.calls);
            if busy || !(stirred && counts.compiled || self.health().is_unwell(&patient)) {
                continue;
            }
            let context = Context { deadline: Instant::now() + PATIENCE, depth: 0 };
            let outcome = running.actor.invoke(OPERATION, REQUEST.to_vec(), context).await;
            let implements = before.is_some_and(|before| before.implements);
            let (found, implements) = judge(outcome, implements);
            known.insert(key.clone(), Known { digest, calls: running.actor.counts().calls, implements });
            if let Some(found) = found {
                self.report_health(&patient, found);
            }
        }
    }
}

/// What `outcome` says of an actor that `implements` the operation as far as is known: its health, nothing where it tells
/// nothing about the actor; and whether it implements the operation.
fn judge(outcome: Result<Vec<u8>>, implements: bool) -> (Option<Result<(), String>>, bool) {
    let answer = outcome.and_then(|bytes| codec::decode::<Answer>("answer to the health request", &bytes));
    match answer {
        Ok(Answer { healthy: true, .. }) => (Some(Ok(())), true),
        Ok(Answer { healthy: false, message }) => (Some(Err(message.unwrap_or_else(|| "it says so".to_owned()))), true),
        // It is stopping, or the host is full: no fault of the actor. That it took too long is.
        Err(error) if error.kind().is_curable() && error.kind() != Kind::Timeout => (None, implements),
        Err(error) if actor::is_trap(&error) => (Some(Err(short(&error))), implements),
        Err(_) if !implements => (Some(Ok(())), false),
        Err(error) => (Some(Err(short(&error))), true),
    }
}

/// Longest complaint that is kept, characters: it stands in a status line.
const COMPLAINT_CHARACTERS: usize = 200;

fn short(error: &Error) -> String {
    error.text().chars().take(COMPLAINT_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_answered_properly_is_well_whatever_it_says() {
        for outcome in [
            Err(Error::guest("method not handled Actor::HealthRequest")),
            Err(Error::timeout("late")),
            Ok(b"{}".to_vec()),
            Ok(Vec::new()),
        ] {
            assert_eq!(judge(outcome, false), (Some(Ok(())), false));
        }
    }

    #[test]
    fn a_trap_is_no_health() {
        let trap = || Err(Error::trap("wasm `unreachable` instruction executed"));
        for implements in [false, true] {
            let (found, still) = judge(trap(), implements);
            assert!(found.is_some_and(|found| found.is_err_and(|why| why.starts_with("wasm `unreachable`"))));
            assert_eq!(still, implements);
        }
    }

    #[test]
    fn who_did_is_held_to_it() {
        let (healthy, ill) = (b"\x81\xa7healthy\xc3".to_vec(), b"\x82\xa7healthy\xc2\xa7message\xa3dry".to_vec());
        assert_eq!(judge(Ok(healthy), false), (Some(Ok(())), true));
        assert_eq!(judge(Ok(ill), false), (Some(Err("dry".into())), true));
        assert_eq!(judge(Err(Error::guest("no sensor")), true), (Some(Err("no sensor".into())), true));
        assert_eq!(judge(Err(Error::limit("fuel")), true), (Some(Err("fuel".into())), true));
        assert_eq!(judge(Err(Error::busy("full")), true), (None, true));
    }
}
