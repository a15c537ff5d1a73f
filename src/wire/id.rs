//! Identities and the moment they are made: UUIDs of events, calls, objects and processes, names of instances, ids of
//! messages.
//!
//! The one file of this room that asks the system for something: random bytes and the clock.

use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::{
    error::{Context, Kind, Result},
    wire::control::Annotations,
};

/// The text of a UUID.
pub type Uuid = heapless::String<36>;

/// The UUID (version 4) made of `bytes`.
pub fn uuid_of(mut bytes: [u8; 16]) -> Uuid {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = Uuid::new();
    for (place, byte) in bytes.iter().enumerate() {
        let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
        // 32 digits and 4 dashes fill the 36 bytes exactly.
        let _ = write!(text, "{dash}{byte:02x}");
    }
    text
}

/// Sixteen random bytes; without a source of randomness, the clock, since an event is better than none.
pub fn random_id() -> [u8; 16] {
    random_bytes().unwrap_or_else(|_| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&unix_micros().to_be_bytes());
        id
    })
}

/// The UUID of a [`random_id`].
pub fn random_uuid() -> Uuid {
    uuid_of(random_id())
}

/// A random UUID for what no clock may name.
///
/// # Errors
/// Those of [`random_bytes`].
pub fn strict_uuid() -> Result<Uuid> {
    random_bytes().map(uuid_of)
}

/// The identity of a message that a stream keeps: two that are alike would be taken for one message sent twice.
///
/// # Errors
/// Those of [`random_bytes`].
pub fn message_id() -> Result<String> {
    random_bytes::<16>().map(|bytes| HEXLOWER.encode(&bytes))
}

/// Random bytes from the kernel.
///
/// # Errors
/// [`Kind::Unavailable`]: the system gives no random numbers.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context(Kind::Unavailable, "the system gives no random numbers")?;
    Ok(bytes)
}

/// A name for instance `number` of `key` on `host_id`: instances have no life of their own here, clients want a UUID.
pub fn instance_id(host_id: &str, key: &str, number: u16) -> Uuid {
    actor_instance_id(host_id, key, &Annotations::new(), number)
}

/// The name of instance `number` of those of the actor `key` on `host_id` that have these annotations.
pub fn actor_instance_id(host_id: &str, key: &str, annotations: &Annotations, number: u16) -> Uuid {
    let mut hash = Sha256::new().chain_update(host_id).chain_update(key).chain_update(number.to_be_bytes());
    for text in annotations.iter().flat_map(|(name, value)| [name, value]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hash.finalize()[..16]);
    uuid_of(id)
}

/// Now, in microseconds since 1970, as the clock says.
pub fn unix_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_version_4_uuids() {
        assert_eq!(uuid_of([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uuid_of([0; 16]), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn names_of_processes_are_uuids() {
        let uuid = strict_uuid().unwrap();
        assert_eq!((uuid.len(), &uuid[14..15]), (36, "4"));
        assert_ne!(uuid, strict_uuid().unwrap());
    }

    #[test]
    fn messages_have_identities_of_their_own() {
        let id = message_id().unwrap();
        assert_eq!(id.len(), 32);
        assert_ne!(id, message_id().unwrap());
    }

    #[test]
    fn an_instance_keeps_its_name_and_annotations_tell_instances_apart() {
        let name = instance_id("N1", "M1", 0);
        assert_eq!(name, "cd2c52e4-e142-4ed1-905d-f895c0971135");
        assert_eq!(name, instance_id("N1", "M1", 0));
        assert_ne!(name, instance_id("N1", "M1", 1));
        let annotations = Annotations::from([("a".to_owned(), "b".to_owned())]);
        assert_ne!(name, actor_instance_id("N1", "M1", &annotations, 0));
    }
}
