//! Limits of messaging: what the host sets, and what a link may ask for at most.

use std::{fmt, sync::Arc, time::Duration};

use crate::host::Broker;

/// Subscriptions of one link at most. Each is kept by the broker and by us for as long as the link is there; wildcards
/// cover more with one.
pub const MAX_SUBSCRIPTIONS: usize = 64;

/// Messages one link may have in its actor's hands at once, at most: more than any board runs.
pub const MAX_IN_FLIGHT_LIMIT: usize = 256;

/// Messages that may wait for an actor in memory at most; past it they are dropped and counted.
pub const MAX_WAITING_LIMIT: usize = 65_536;

/// Bytes of these: 64 MiB, an eighth of the smallest board.
pub const MAX_WAITING_BYTES_LIMIT: u64 = 64 << 20;

/// Longest time that can be set: an hour. Longer is a mistake in the unit.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Messages an outbox may keep at most. Each costs 16 bytes of memory beside its record on disk and the store's index.
pub const MAX_OUTBOX_MESSAGES: usize = 100_000;

/// Bytes an outbox may keep on disk at most. The store as a whole has a limit of its own (`WASMCLOUD_STORE_BYTES`).
pub const MAX_OUTBOX_BYTES: u64 = 1 << 30;

/// Publishes of one link with an outbox that may be under way at once: they are stored one after another, and an actor
/// that does not wait for them would pile them up in memory. One more is refused as busy.
pub const MAX_PUBLISHING: usize = 64;

/// What the host sets for all links.
#[derive(Clone)]
pub struct Settings {
    /// The way to brokers; without one no link can be made.
    pub broker: Option<Arc<dyn Broker>>,
    /// How long an actor may take over a message, where its link does not say.
    pub timeout: Duration,
    /// Largest message given to an actor, bytes; larger ones are dropped and counted.
    pub payload_bytes: usize,
    /// Messages of a link that its actor handles at once.
    pub max_in_flight: usize,
    /// Messages of a link that wait for that.
    pub max_waiting: usize,
    /// Their bytes.
    pub max_waiting_bytes: usize,
    /// Messages an outbox keeps.
    pub outbox_messages: usize,
    /// Their bytes on disk.
    pub outbox_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            broker: None,
            timeout: Duration::from_millis(2000),
            payload_bytes: crate::actor::settings::PAYLOAD_BYTES,
            // As many as an actor may run at once by default: more would only wait in another place.
            max_in_flight: usize::from(crate::actor::settings::MAX_CONCURRENT),
            // A second of a busy sensor network, and half of what the connection itself buffers.
            max_waiting: 512,
            // With eight links full, half of what a 512 MB board has for everything.
            max_waiting_bytes: 1 << 20,
            // Sixteen hours of a reading a minute.
            outbox_messages: 1000,
            outbox_bytes: 1 << 20,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("broker", &self.broker.is_some())
            .field("timeout", &self.timeout)
            .field("max_in_flight", &self.max_in_flight)
            .field("max_waiting", &self.max_waiting)
            .finish_non_exhaustive()
    }
}
