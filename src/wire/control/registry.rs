//! Credentials of registries, sent to all hosts (`protocol/lattice.md §3.6`, `protocol/cache.md §7`).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Registries that a host keeps credentials for at most; one more is refused.
pub const MAX_REGISTRIES: usize = 64;

/// How to log in to one registry. No `Debug` output shows the secrets; serialised, it holds them, for the host's own disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredential {
    /// `oci`, or `bindle`, which this host does not fetch from.
    #[serde(rename = "registryType")]
    pub registry_type: String,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Token; with a user name it stands for the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl fmt::Debug for RegistryCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryCredential").field("registry_type", &self.registry_type).finish_non_exhaustive()
    }
}

/// Reads `registries.put`: the usable entries by the registry's host, as [`normalise`] writes it.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
pub fn parse(body: &[u8]) -> Result<BTreeMap<String, RegistryCredential>> {
    const REFUSAL: &str = "Failed to update registry credential map";
    // One unusable entry shall not cost the others, so each is read by itself.
    let wire: BTreeMap<String, serde_json::Value> = super::parse(REFUSAL, body)?;
    if wire.len() > MAX_REGISTRIES {
        return Err(Error::limit(format!("{REFUSAL}: {} registries, at most {MAX_REGISTRIES} are kept", wire.len())));
    }
    Ok(usable(wire))
}

/// The usable entries of a credential map, by normalised registry.
pub fn usable(map: BTreeMap<String, serde_json::Value>) -> BTreeMap<String, RegistryCredential> {
    map.into_iter()
        .filter_map(|(registry, entry)| {
            let entry: RegistryCredential = serde_json::from_value(entry).ok()?;
            let secret = [&entry.username, &entry.password, &entry.token].into_iter().any(Option::is_some);
            secret.then(|| (normalise(&registry, &entry.registry_type), entry))
        })
        .collect()
}

/// The host part under which credentials are found again: scheme stripped; for `oci` the part before the first `/`, for
/// `bindle` the part after the last `@`.
pub fn normalise(registry: &str, registry_type: &str) -> String {
    let bare = registry.split_once("://").map_or(registry, |(_, rest)| rest);
    let host = match registry_type {
        "oci" => bare.split('/').next(),
        "bindle" => bare.rsplit('@').next(),
        _ => None,
    };
    host.unwrap_or(bare).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_known_by_their_host() {
        for (given, kind, host) in [
            ("https://registry.example/v2/", "oci", "registry.example"),
            ("registry.example:5000", "oci", "registry.example:5000"),
            ("bindle://app/1.0@bindle.example", "bindle", "bindle.example"),
            ("https://other.example/x", "git", "other.example/x"),
        ] {
            assert_eq!(normalise(given, kind), host);
        }
    }

    #[test]
    fn entries_without_a_type_or_a_secret_are_left_out() {
        let read = parse(
            br#"{"oci://a.example/x":{"registryType":"oci","username":"u","password":"swordfish"},
                "b.example":{"registryType":"oci"},"c.example":{"token":"t"},"d.example":7,
                "e.example":{"registryType":"oci","token":"t","username":null}}"#,
        )
        .unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a.example", "e.example"]);
        assert!(!format!("{read:?}").contains("swordfish"));
        assert!(parse(b"[]").unwrap_err().text().starts_with("Failed to update registry credential map"));
        let many: BTreeMap<String, u8> = (0..=MAX_REGISTRIES).map(|one| (one.to_string(), 0)).collect();
        assert!(parse(&serde_json::to_vec(&many).unwrap()).is_err());
    }
}
