//! `wasmcloud:builtin:numbergen`: random numbers for actors (`protocol/actor-abi.md §5`), from the kernel's generator.
//!
//! Needs no link: the router calls [`call`] directly. [`Numbers`] exists so that it can be listed like any provider.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    host::{BoxFuture, Call, Capability},
    wire::{
        LinkDefinition, codec, id,
        interface::{NUMBERGEN, RangeLimit},
    },
};

/// Answers `operation`.
///
/// # Errors
/// `Invalid` for an unknown operation or a payload that cannot be decoded; `Unavailable` when the kernel has no
/// randomness.
pub fn call(operation: &str, payload: &[u8]) -> Result<Vec<u8>> {
    match operation {
        "NumberGen.GenerateGuid" => codec::encode(&id::strict_uuid()?.as_str()),
        "NumberGen.Random32" => codec::encode(&random_u32()?),
        "NumberGen.RandomInRange" => {
            let range: RangeLimit = codec::decode("NumberGen.RandomInRange request", payload)?;
            codec::encode(&in_range(range.min, range.max, random_u32)?)
        }
        _ => Err(Error::invalid(format!(
            "{NUMBERGEN} has no operation {operation:?}; it has NumberGen.GenerateGuid, RandomInRange and Random32"
        ))),
    }
}

fn random_u32() -> Result<u32> {
    id::random_bytes().map(u32::from_le_bytes)
}

/// A number from `min` to `max`, both included and all equally likely; ends in the wrong order are swapped.
fn in_range(min: u32, max: u32, mut random: impl FnMut() -> Result<u32>) -> Result<u32> {
    let (min, max) = (min.min(max), min.max(max));
    let Some(count) = (max - min).checked_add(1) else { return random() };
    // Numbers above the last whole multiple of `count` would make the small answers likelier: draw again.
    let limit = u32::MAX - (u32::MAX % count + 1) % count;
    loop {
        let number = random()?;
        if number <= limit {
            return Ok(min + number % count);
        }
    }
}

/// The built-in as a provider.
#[derive(Debug, Default)]
pub struct Numbers;

impl Capability for Numbers {
    fn contract_id(&self) -> &str {
        NUMBERGEN
    }

    fn link(&self, _link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn unlink(&self, _link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn call(&self, _link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move { self::call(&call.operation, &call.payload) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drawn(min: u32, max: u32, numbers: &[u32]) -> u32 {
        let mut numbers = numbers.iter().copied();
        in_range(min, max, || Ok(numbers.next().expect("enough numbers"))).unwrap()
    }

    #[test]
    fn ranges_include_both_ends_and_have_no_bias() {
        assert_eq!(drawn(1, 6, &[0]), 1);
        assert_eq!(drawn(1, 6, &[5]), 6);
        assert_eq!(drawn(6, 1, &[5]), 6, "swapped ends");
        assert_eq!(drawn(7, 7, &[u32::MAX]), 7);
        assert_eq!(drawn(0, u32::MAX, &[u32::MAX]), u32::MAX);
        // 2^32 is 715827882 * 6 + 4: the last four numbers are drawn again.
        assert_eq!(drawn(0, 5, &[u32::MAX, u32::MAX - 3, u32::MAX - 4]), 5);
        assert_eq!(drawn(0, 1, &[u32::MAX]), 1, "a power of two divides evenly");
        assert_eq!(drawn(0, 1 << 31, &[1 << 31]), 1 << 31);
        assert_eq!(drawn(0, 1 << 31, &[(1 << 31) + 1, 3]), 3);
    }

    proptest! {
        #[test]
        fn every_answer_lies_in_its_range(min: u32, max: u32) {
            let range = RangeLimit { min, max };
            let answer = call("NumberGen.RandomInRange", &codec::encode(&range).unwrap()).unwrap();
            let answer: u32 = codec::decode("answer", &answer).unwrap();
            prop_assert!((min.min(max)..=min.max(max)).contains(&answer));
        }
    }

    #[test]
    fn a_guid_is_a_version_4_uuid() {
        let answer: String = codec::decode("guid", &call("NumberGen.GenerateGuid", b"").unwrap()).unwrap();
        assert_eq!(answer.len(), 36);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(call("NumberGen.Other", b"").is_err());
        assert!(call("NumberGen.RandomInRange", b"\xc1").is_err());
    }

    /// `protocol/vectors/interfaces.json`: the requests are understood and the answers have the shape shown.
    #[test]
    fn vectors() {
        let vectors = crate::capability::key_value::tests::vectors();
        for operation in ["NumberGen.GenerateGuid", "NumberGen.RandomInRange", "NumberGen.Random32"] {
            let request = vectors.request(operation);
            let answer = call(operation, &request).unwrap();
            let shown = vectors.response(operation);
            if operation.ends_with("Guid") {
                assert_eq!((answer.len(), &answer[..2]), (shown.len(), &shown[..2]));
            } else {
                let _: u32 = codec::decode("the shown answer", &shown).unwrap();
                let answer: u32 = codec::decode("an answer", &answer).unwrap();
                assert!(operation.ends_with("32") || (1..=6).contains(&answer));
            }
        }
        let log =
            crate::capability::logging::call("MVECTORS", "Logging.WriteLog", &vectors.request("Logging.WriteLog"));
        assert_eq!(log.unwrap(), vectors.response("Logging.WriteLog"));
    }
}
