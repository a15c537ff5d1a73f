//! How keys, lists and sets lie in the store's table. Pure.
//!
//! ```text
//! 0x00                                                     latest time written with an expiring key, u64 ms
//! n keyspace[n] 'v' key                                    0 value  |  1 expires:u64 ms value
//! n keyspace[n] 'l' length:u16 key index:u64               one element of a list; indexes grow and may have gaps
//! n keyspace[n] 's' length:u16 key 0 member                one short member of a set, no value
//! n keyspace[n] 's' length:u16 key 1 sha256(member)        a longer one; the value is the member
//! ```
//! Integers are big-endian, so that elements lie in order. An element is a record of its own: adding or removing one
//! writes that one, however long the list or set is. Lists and sets have no record beside their elements; an empty one
//! does not exist, as in Redis.

use sha2::{Digest, Sha256};

/// Where the latest time lies.
pub(super) const CLOCK: &[u8] = &[0];

/// Longest name of a keyspace, bytes: it stands before each key, in memory and on disk. A longer one refuses the link.
pub(super) const MAX_KEYSPACE_BYTES: usize = 64;

/// Longest key, bytes. Each is in memory; Redis allows 512 MB, which no client of this contract uses.
pub(super) const MAX_KEY_BYTES: usize = 1024;

/// Longer members of sets are kept under their hash, so that memory holds no more than this of each.
const SHORT_MEMBER_BYTES: usize = 64;

const VALUE: u8 = b'v';
const LIST: u8 = b'l';
const SET: u8 = b's';
const SHORT: u8 = 0;
const HASHED: u8 = 1;
const FOR_EVER: u8 = 0;
const EXPIRES: u8 = 1;

/// What stands before every key of `keyspace`.
pub(super) fn keyspace(name: &str) -> Vec<u8> {
    let mut prefix = vec![name.len() as u8];
    prefix.extend_from_slice(name.as_bytes());
    prefix
}

/// What stands before every string value of a keyspace.
pub(super) fn values(keyspace: &[u8]) -> Vec<u8> {
    [keyspace, &[VALUE]].concat()
}

/// Where the string value of `key` lies.
pub(super) fn value(keyspace: &[u8], key: &str) -> Vec<u8> {
    [keyspace, &[VALUE], key.as_bytes()].concat()
}

/// What stands before every element of the list `key`.
pub(super) fn list(keyspace: &[u8], key: &str) -> Vec<u8> {
    collection(keyspace, LIST, key)
}

/// What stands before every member of the set `key`.
pub(super) fn set(keyspace: &[u8], key: &str) -> Vec<u8> {
    collection(keyspace, SET, key)
}

fn collection(keyspace: &[u8], kind: u8, key: &str) -> Vec<u8> {
    [keyspace, &[kind], &(key.len() as u16).to_be_bytes(), key.as_bytes()].concat()
}

/// Where element `index` of a list lies.
pub(super) fn element(list: &[u8], index: u64) -> Vec<u8> {
    [list, &index.to_be_bytes()].concat()
}

/// The index in an element's key.
pub(super) fn index(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Where `member` of a set lies, and the value to keep there.
pub(super) fn member(set: &[u8], member: &str) -> (Vec<u8>, Vec<u8>) {
    if member.len() <= SHORT_MEMBER_BYTES {
        ([set, &[SHORT], member.as_bytes()].concat(), Vec::new())
    } else {
        ([set, &[HASHED], &Sha256::digest(member.as_bytes())].concat(), member.as_bytes().to_vec())
    }
}

/// The member that lies under `key`, if the key itself says so; else it is the value there.
pub(super) fn short_member<'a>(set: &[u8], key: &'a [u8]) -> Option<&'a [u8]> {
    match key.get(set.len()..)? {
        [SHORT, member @ ..] => Some(member),
        _ => None,
    }
}

/// A string value as it is kept.
pub(super) fn encode(value: &str, expires_ms: Option<u64>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + value.len());
    match expires_ms {
        None => bytes.push(FOR_EVER),
        Some(expires) => {
            bytes.push(EXPIRES);
            bytes.extend_from_slice(&expires.to_be_bytes());
        }
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

/// A kept string value: what it is, and when it expires. `None` when it is none.
pub(super) fn decode(mut bytes: Vec<u8>) -> Option<(String, Option<u64>)> {
    let (expires, start) = match *bytes.first()? {
        FOR_EVER => (None, 1),
        EXPIRES => (Some(u64::from_be_bytes(*bytes.get(1..)?.first_chunk()?)), 9),
        _ => return None,
    };
    bytes.drain(..start);
    Some((String::from_utf8(bytes).ok()?, expires))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_read_back(text: String, expires: Option<u64>) {
            prop_assert_eq!(decode(encode(&text, expires)), Some((text, expires)));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(bytes);
        }

        #[test]
        fn no_key_lies_within_another(a in ".{0,20}", b in ".{0,20}", space in ".{0,8}") {
            prop_assume!(a != b);
            let space = keyspace(&space);
            prop_assert!(!element(&list(&space, &a), 7).starts_with(&list(&space, &b)));
            prop_assert!(!member(&set(&space, &a), &b).0.starts_with(&set(&space, &b)));
        }
    }
}
