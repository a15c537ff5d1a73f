//! CloudEvents of the lattice (`protocol/events.md`): the envelope here, what happened in the files beside.
//!
//! Written into a buffer the caller keeps, so that a heartbeat allocates nothing. No member that clients wait for is ever
//! `null`: that ends their wait with an error.

pub mod actor;
pub mod host;
pub mod invocation;
pub mod link;
pub mod provider;

use std::fmt::Write;

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    error::Result,
    wire::{id, json},
};

/// Longest event, bytes: a heartbeat that names a thousand actors and as many providers. NATS servers pass 1 MiB.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;

/// What every type starts with.
const TYPE_PREFIX: &str = "com.wasmcloud.lattice.";

/// Something that happened, as its `data` member tells it.
pub trait Data: Serialize {
    /// Last part of the type, and of the subject newer clients listen to.
    const NAME: &'static str;
}

/// A moment as events carry it: RFC 3339, UTC, microseconds.
pub type EventTime = heapless::String<32>;

/// Writes the event `data` of `source` into `buffer`. `id` is 16 random bytes, `unix_micros` the moment it happened.
///
/// # Errors
/// [`Kind::Limit`](crate::error::Kind::Limit): it would be longer than [`MAX_EVENT_BYTES`].
pub fn write<D: Data>(buffer: &mut Vec<u8>, source: &str, id: [u8; 16], unix_micros: u64, data: &D) -> Result<()> {
    #[derive(Serialize)]
    struct Envelope<'a, D> {
        specversion: &'static str,
        id: &'a str,
        #[serde(rename = "type")]
        name: &'a str,
        source: &'a str,
        time: &'a str,
        datacontenttype: &'static str,
        data: &'a D,
    }
    let mut name = heapless::String::<64>::new();
    // Every name is a constant of this room and shorter than 40 characters; a test writes each.
    let _ = name.push_str(TYPE_PREFIX).and_then(|()| name.push_str(D::NAME));
    let envelope = Envelope {
        specversion: "1.0",
        id: &id::uuid_of(id),
        name: &name,
        source,
        time: &event_time(unix_micros),
        datacontenttype: "application/json",
        data,
    };
    json::write(buffer, MAX_EVENT_BYTES, &envelope)
}

/// The text of a moment given in microseconds since 1970.
pub fn event_time(unix_micros: u64) -> EventTime {
    let moment =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_micros) * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    let (hour, minute, second, micros) = (moment.hour(), moment.minute(), moment.second(), moment.microsecond());
    let mut text = EventTime::new();
    // 27 characters for the years the library knows.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    text
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;

    /// The event as a client sees it.
    pub fn written<D: Data>(data: &D) -> Value {
        let mut buffer = Vec::new();
        write(&mut buffer, "N1", [7; 16], 1_700_000_000_123_456, data).unwrap();
        let event: Value = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(event["type"], format!("com.wasmcloud.lattice.{}", D::NAME));
        event["data"].clone()
    }

    #[derive(Serialize)]
    struct Sample {
        a: u8,
    }

    impl Data for Sample {
        const NAME: &'static str = "actor_started";
    }

    #[test]
    fn the_envelope_is_the_one_clients_accept() {
        let mut buffer = Vec::new();
        write(&mut buffer, "N", [0; 16], 1_704_067_200_000_000, &Sample { a: 1 }).unwrap();
        assert_eq!(
            String::from_utf8(buffer).unwrap(),
            r#"{"specversion":"1.0","id":"00000000-0000-4000-8000-000000000000","type":"com.wasmcloud.lattice.actor_started","source":"N","time":"2024-01-01T00:00:00.000000Z","datacontenttype":"application/json","data":{"a":1}}"#
        );
        let vectors: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/control_interface.json")).unwrap();
        let plain = vectors["event_parsing"].as_array().unwrap().iter().find(|one| one["case"] == "plain").unwrap();
        let mut buffer = Vec::new();
        write(&mut buffer, "N", [0; 16], 1_704_067_200_000_000, &Sample { a: 1 }).unwrap();
        let mut ours: Value = serde_json::from_slice(&buffer).unwrap();
        ours["id"] = "1".into();
        assert_eq!(ours, plain["event"]);
    }

    #[test]
    fn any_moment_has_a_text() {
        assert_eq!(event_time(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(event_time(1_700_000_000_000_001), "2023-11-14T22:13:20.000001Z");
        assert_eq!(event_time(u64::MAX), "1970-01-01T00:00:00.000000Z");
    }
}
