//! What one link may do: its keyspace and its quotas, read from link values. Pure.

use super::layout;
use crate::{
    capability::preview::unknown,
    error::{Error, Result},
    wire::LinkDefinition,
};

/// Default of `max_keys`: 10 000 keys, elements of lists and members of sets together. About 1.5 MB of memory.
pub const DEFAULT_MAX_KEYS: u64 = 10_000;
/// Default of `max_bytes`: 16 MiB of keys, values, elements and members together; at most twice that on disk.
pub const DEFAULT_MAX_BYTES: u64 = 16 << 20;
/// Default of `max_value_bytes`: 1 MiB for one value, element or member.
pub const DEFAULT_MAX_VALUE_BYTES: u64 = 1 << 20;
/// Default of `max_elements`: 10 000 in one list or set.
pub const DEFAULT_MAX_ELEMENTS: u64 = 10_000;

/// What a keyspace may take, as seen by one link. Each limit has its own error, which names the link value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Keys, elements and members together (link value `max_keys`).
    pub max_keys: u64,
    /// Bytes of keys, values, elements and members together (link value `max_bytes`).
    pub max_bytes: u64,
    /// Bytes of one value, element or member (link value `max_value_bytes`).
    pub max_value_bytes: u64,
    /// Elements of one list, members of one set (link value `max_elements`).
    pub max_elements: u64,
}

/// Link values that mean something here, and the one that links made for Redis have.
const KEYS: [&str; 6] = ["keyspace", "max_keys", "max_bytes", "max_value_bytes", "max_elements", "URL"];

/// What of the values of `link` means nothing here, one sentence each.
///
/// # Errors
/// `Config`: a misspelt name.
pub(super) fn unknown_values(link: &LinkDefinition) -> Result<Vec<String>> {
    let strange = link.values.keys().filter(|name| !KEYS.iter().any(|known| name.eq_ignore_ascii_case(known)));
    strange.map(|name| unknown("link value", name, "the key-value store", KEYS)).collect()
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            max_keys: DEFAULT_MAX_KEYS,
            max_bytes: DEFAULT_MAX_BYTES,
            max_value_bytes: DEFAULT_MAX_VALUE_BYTES,
            max_elements: DEFAULT_MAX_ELEMENTS,
        }
    }
}

/// A link as the keyspaces sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// The link value `keyspace`, or the link name: actors linked under one name share their data, as with one Redis;
    /// actors linked under different names never do, unless both links name the same keyspace.
    pub(super) name: String,
    /// What stands before each of its keys in the store.
    pub(super) prefix: Vec<u8>,
    pub(super) quotas: Quotas,
}

impl Space {
    /// Reads the values of `link` over `defaults`.
    ///
    /// # Errors
    /// `Config` when a value cannot be used.
    pub(super) fn of(link: &LinkDefinition, defaults: Quotas) -> Result<Self> {
        let name = link.value("keyspace").unwrap_or(&link.link_name);
        if name.is_empty() || name.len() > layout::MAX_KEYSPACE_BYTES {
            return Err(Error::config(format!(
                "keyspace {:?} of link {} has {} bytes: 1 to {} are possible; set the link value keyspace",
                name.chars().take(layout::MAX_KEYSPACE_BYTES).collect::<String>(),
                link.link_name.chars().take(layout::MAX_KEYSPACE_BYTES).collect::<String>(),
                name.len(),
                layout::MAX_KEYSPACE_BYTES
            )));
        }
        let number = |key: &str, default: u64| match link.value(key) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|_| {
                Error::config(format!("link value {key} of link {} is no number of bytes or items", link.link_name))
            }),
        };
        let quotas = Quotas {
            max_keys: number("max_keys", defaults.max_keys)?,
            max_bytes: number("max_bytes", defaults.max_bytes)?,
            max_value_bytes: number("max_value_bytes", defaults.max_value_bytes)?,
            max_elements: number("max_elements", defaults.max_elements)?,
        };
        Ok(Self { prefix: layout::keyspace(name), name: name.into(), quotas })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn link(name: &str, values: &[(&str, &str)]) -> LinkDefinition {
        LinkDefinition {
            link_name: name.into(),
            values: values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
            ..LinkDefinition::default()
        }
    }

    #[test]
    fn link_values_are_read_over_defaults() {
        let space = Space::of(&link("default", &[]), Quotas::default()).unwrap();
        assert_eq!((space.name.as_str(), space.quotas), ("default", Quotas::default()));
        let space = Space::of(&link("a", &[("KEYSPACE", "shared"), ("max_keys", " 5 ")]), Quotas::default()).unwrap();
        assert_eq!((space.name.as_str(), space.quotas.max_keys), ("shared", 5));
        for values in [&[("max_bytes", "many")][..], &[("max_keys", "-1")], &[("keyspace", "")]] {
            assert_eq!(Space::of(&link("a", values), Quotas::default()).unwrap_err().kind(), Kind::Config);
        }
        assert!(Space::of(&link(&"x".repeat(65), &[]), Quotas::default()).is_err());
    }
}
