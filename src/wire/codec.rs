//! MessagePack as the lattice speaks it: structs are maps keyed by field name (`protocol/invocation.md §1`).

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Deepest nesting of maps and arrays that is read. The protocol needs five levels. Each level takes room on the stack of the
/// thread that reads, so a message from outside that nests deeper is refused.
const MAX_DEPTH: usize = 64;

/// Encodes `value` with named fields.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|cause| Error::internal(format!("cannot encode a message: {cause}")))
}

/// Decodes a whole message. `what` names it in the error (`KeyValue.Set request`).
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    read(bytes).map_err(|cause| Error::invalid(format!("cannot decode the {what}: {cause}")))
}

/// Decodes a message that may borrow from `bytes`. Every message from outside is read here, because here its depth is bounded.
///
/// # Errors
/// It is no MessagePack, has another shape, or nests deeper than the protocol ever does.
pub fn read<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> std::result::Result<T, rmp_serde::decode::Error> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    T::deserialize(&mut deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Invocation, InvocationResponse};

    /// Arrays in arrays, as anybody may send them: alone, and inside a member that nobody knows.
    fn nested() -> [Vec<u8>; 2] {
        let arrays = vec![0x91; 200_000];
        let member = [&[0x81, 0xa1, b'x'][..], &arrays].concat();
        [arrays, member]
    }

    #[test]
    fn a_message_that_nests_too_deep_is_refused_on_a_small_stack() {
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        let read = small.spawn(|| {
            for bytes in nested() {
                assert!(Invocation::decode(&bytes).is_err());
                assert!(InvocationResponse::decode(&bytes).is_err());
                assert!(decode::<crate::wire::LinkDefinition>("link", &bytes).is_err());
            }
        });
        read.unwrap().join().unwrap();
    }

    #[test]
    fn what_nests_as_deep_as_the_limit_is_read() {
        let mut bytes = vec![0x91; MAX_DEPTH - 1];
        bytes.push(0xc0);
        assert!(read::<serde::de::IgnoredAny>(&bytes).is_ok());
    }
}
