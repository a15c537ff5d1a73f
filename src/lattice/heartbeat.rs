//! Signs of life: every thirty seconds, at a moment of the host's own within them, and after a ping unless one was just sent.
//!
//! Written from what runs into one buffer that is kept. A heartbeat that cannot be sent is not kept: the next one says more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::Shared;
use crate::{
    error::Result,
    lock::Mutex,
    log,
    nats::backoff,
    wire::{
        control::host::uptime_human,
        event::{
            self, Data,
            host::{HeartbeatProvider, HostHeartbeat},
        },
        id,
        json::{Items, Pairs},
    },
};

/// Time between two heartbeats; clients call a host lost after a few of these.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// A ping is not followed by a heartbeat if one was sent within this time. The reference sends one after each ping, so a
/// dashboard that pings every second makes each board speak every second; here pings cost their answer only.
pub const MIN_GAP: Duration = Duration::from_secs(10);

/// When the last one was sent, and the buffer it was written into.
#[derive(Default)]
pub struct Heart {
    last: Mutex<Option<Instant>>,
    buffers: Mutex<Buffers>,
}

/// Where heartbeats are written, and where they are given to the library from: its share comes back when it has sent them,
/// so that the same memory serves every heartbeat.
#[derive(Default)]
struct Buffers {
    text: Vec<u8>,
    given: BytesMut,
}

impl Buffers {
    /// What was written, to give away.
    fn give(&mut self) -> Bytes {
        self.given.extend_from_slice(&self.text);
        self.given.split().freeze()
    }
}

/// Sends heartbeats for ever. Without a connection it sleeps: a board that works alone does not wake up for nothing.
pub async fn beat_for_ever(shared: Arc<Shared>) {
    let first = Instant::now() + backoff::phase(&shared.host_id, INTERVAL);
    loop {
        shared.control.connected().await;
        smol::Timer::at(next_beat(first, Instant::now())).await;
        if let Err(error) = beat(&shared).await {
            log::debug!("no heartbeat: {error}");
        }
    }
}

/// The next moment after `now` that lies a whole number of intervals after `first`, so that the host keeps its phase.
fn next_beat(first: Instant, now: Instant) -> Instant {
    let Some(past) = now.checked_duration_since(first) else { return first };
    let beats = past.as_secs() / INTERVAL.as_secs() + 1;
    first + INTERVAL * u32::try_from(beats).unwrap_or(u32::MAX)
}

/// Sends one if the last is long enough ago.
pub async fn beat_after_ping(shared: &Shared) {
    let recent = {
        let last = shared.heart.last.lock();
        last.is_some_and(|last| last.elapsed() < MIN_GAP)
    };
    if !recent && let Err(error) = beat(shared).await {
        log::debug!("no heartbeat after a ping: {error}");
    }
}

async fn beat(shared: &Shared) -> Result<()> {
    // The first thing the lattice hears of a host is that it has started.
    if !shared.control.is_connected() || !shared.events.has_begun() {
        return Ok(());
    }
    let (name, body) = {
        let mut buffers = shared.heart.buffers.lock();
        (write(shared, &mut buffers.text)?, buffers.give())
    };
    *shared.heart.last.lock() = Some(Instant::now());
    shared.control.publish(shared.subjects.events(), body.clone()).await?;
    shared.control.publish(shared.subjects.events_named(name), body).await
}

fn write(shared: &Shared, buffer: &mut Vec<u8>) -> Result<&'static str> {
    fn name<D: Data>(_: &D) -> &'static str {
        D::NAME
    }
    let host = &shared.host;
    let uptime = host.uptime().as_secs();
    let (labels, routes) = (host.label_tables(), host.router().routes());
    let data = HostHeartbeat {
        actors: Pairs(|| routes.actors().map(|actor| (&actor.desired.public_key, actor.desired.max_concurrent()))),
        providers: Items(|| {
            routes.providers().map(|provider| HeartbeatProvider {
                public_key: &provider.desired.public_key,
                link_name: &provider.desired.link_name,
                contract_id: &provider.desired.contract_id,
            })
        }),
        labels: Pairs(|| labels.iter()),
        friendly_name: host.friendly_name(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: uptime,
        uptime_human: &uptime_human(uptime),
    };
    event::write(buffer, &shared.host_id, id::random_id(), id::unix_micros(), &data)?;
    Ok(name(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_memory_serves_every_heartbeat() {
        let mut buffers = Buffers::default();
        let mut places = std::collections::BTreeSet::new();
        for beat in 0..100 {
            buffers.text.clear();
            buffers.text.extend_from_slice(format!("{beat:0600}").as_bytes());
            let (one, other) = (buffers.give(), buffers.give());
            assert_eq!((one.len(), one == other), (600, true));
            // The library has sent both.
            places.insert(one.as_ptr());
        }
        // Two, and a few more where other threads of this process took memory meanwhile; a hundred without reuse.
        assert!(places.len() <= 30, "memory of its own for each: {}", places.len());
    }

    #[test]
    fn beats_keep_their_phase() {
        let first = Instant::now();
        let after = |seconds| next_beat(first, first + Duration::from_millis(seconds)) - first;
        assert_eq!(next_beat(first + Duration::from_secs(7), first), first + Duration::from_secs(7));
        assert_eq!(after(0), INTERVAL);
        assert_eq!(after(29_999), INTERVAL);
        assert_eq!(after(30_000), INTERVAL * 2);
        assert_eq!(after(86_400_001), INTERVAL * 2881);
    }
}
