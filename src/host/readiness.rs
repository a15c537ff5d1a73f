//! Whether the host does what it was told, and if not, what is missing and since when.
//!
//! Asked by the notifications to the service manager and by `/readyz`. Pure but for the look at the host.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{host::Host, lock::Mutex};

/// What a host must have before it counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// What should run runs and is well, and the lattice is joined: connected, and listening to commands.
    Lattice,
    /// What should run runs and is well.
    Local,
}

/// Something that keeps the host from being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lack {
    /// What: `lattice`, `manifest …`, `desired state`, or the entity: `actor M…`, `provider V…/default`, `link …`.
    pub what: String,
    /// Why.
    pub why: String,
    /// For how long, seconds.
    pub since_seconds: u64,
}

/// Remembers since when what has been lacking.
#[derive(Default)]
pub struct Readiness(Mutex<BTreeMap<String, Instant>>);

impl Readiness {
    /// What `host` lacks under `policy` now; nothing when it is ready.
    pub fn lacks(&self, host: &Host, policy: Policy) -> Vec<Lack> {
        let now = Instant::now();
        let mut found: Vec<(String, String, Option<Instant>)> = Vec::new();
        if policy == Policy::Lattice
            && let Some(uplink) = host.router.uplink_status()
            && !uplink.listening
        {
            let why = match (uplink.connected, uplink.reason.is_empty()) {
                (true, _) => "connected, and about to listen to commands".to_owned(),
                (false, true) => "not connected yet".to_owned(),
                (false, false) => uplink.reason,
            };
            found.push(("lattice".to_owned(), why, now.checked_sub(Duration::from_secs(uplink.since_seconds))));
        }
        found.extend(host.pending.complaints().into_iter().map(|(what, why)| (what, why, None)));
        if !host.reconciler.is_settled() {
            found.push(("desired state".to_owned(), "what should run is being started".to_owned(), None));
        }
        found.extend(host.reconciler.failing().into_iter().map(|(what, why)| (what, why, None)));
        for (what, why, since) in host.health.complaints() {
            if !found.iter().any(|(other, ..)| *other == what) {
                found.push((what, why, Some(since)));
            }
        }
        let mut known = self.0.lock();
        known.retain(|what, _| found.iter().any(|(other, ..)| other == what));
        found
            .into_iter()
            .map(|(what, why, since)| {
                let first = *known.entry(what.clone()).or_insert(now);
                let since = since.unwrap_or(first);
                Lack { what, why, since_seconds: now.saturating_duration_since(since).as_secs() }
            })
            .collect()
    }
}
