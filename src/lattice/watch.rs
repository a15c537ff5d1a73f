//! Listening to the lattice's events, for the command line.
//!
//! An event goes out on two subjects (`protocol/events.md §1`): each is shown once. What comes faster than it is taken is
//! dropped by the connection at a fixed length of its queue, and said in the log; memory does not grow with the flood.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use futures_util::StreamExt;
use serde_json::Value;

use super::{gather, settings::Settings};
use crate::{
    error::Result,
    nats::connection::Connection,
    task,
    wire::{event, json, subject::Subjects},
};

/// Identities of events remembered, to tell the second copy from a new event. Both copies leave a host together, so this
/// bridges far more than their distance.
const REMEMBERED: usize = 2048;

/// Longest identity that is remembered, bytes: a UUID has 36. Longer ones are cut, so that a stranger cannot fill memory.
const MAX_ID_BYTES: usize = 64;

/// Identities seen lately.
#[derive(Default)]
struct Seen {
    known: HashSet<Vec<u8>>,
    order: VecDeque<Vec<u8>>,
}

impl Seen {
    /// Whether this is the first event of that source and identity.
    fn is_new(&mut self, source: &str, id: &str) -> bool {
        if id.is_empty() {
            return true;
        }
        let part = |text: &str| text.as_bytes()[..text.len().min(MAX_ID_BYTES)].to_vec();
        let key = [part(source), part(id)].join(&b' ');
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Hands each event of the lattice to `each` until that answers `false` or an error, or `time` is over, which counts from
/// the moment a server is reached. Without a time it is endless. Invocation events are left out: they have a subject of
/// their own.
///
/// # Errors
/// No server could be reached within the time one attempt may take; those of `each`.
pub async fn events(
    settings: &Settings,
    time: Option<Duration>,
    mut each: impl FnMut(Value) -> Result<bool>,
) -> Result<()> {
    let subjects = Subjects::new(&settings.control_prefix, &settings.lattice)?;
    let connection: Connection = gather::reach(settings, "events").await?;
    let plain = connection.subscribe(subjects.events(), None).await?;
    let named = connection.subscribe(subjects.events_named("*"), None).await?;
    let mut messages = futures_util::stream::select(plain, named);
    let mut seen = Seen::default();
    let listening = async {
        while let Some(message) = messages.next().await {
            let event: Result<Value> = json::read("an event", &message.payload, event::MAX_EVENT_BYTES);
            let Ok(event) = event else { continue };
            let text = |key: &str| event[key].as_str().unwrap_or_default();
            if seen.is_new(text("source"), text("id")) && !each(event)? {
                break;
            }
        }
        Ok(())
    };
    match time {
        Some(time) => task::within(time, listening).await.unwrap_or(Ok(())),
        None => listening.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_new_once_and_memory_is_bounded() {
        let mut seen = Seen::default();
        assert!(seen.is_new("N1", "a") && !seen.is_new("N1", "a") && seen.is_new("N2", "a"));
        assert!(seen.is_new("N1", "") && seen.is_new("N1", ""));
        for number in 0..REMEMBERED * 3 {
            assert!(seen.is_new("N1", &format!("{number}{}", "\u{fc}".repeat(4000))));
        }
        assert_eq!((seen.known.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
        assert!(seen.order.iter().all(|key| key.len() <= 2 * MAX_ID_BYTES + 1));
    }
}
