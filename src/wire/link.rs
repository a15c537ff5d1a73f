//! Link definitions: which provider serves a contract for an actor, and with what values (`protocol/cache.md §2`).

use std::{collections::BTreeMap, fmt};

use data_encoding::HEXUPPER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One link. The triple (actor, contract, link name) is its identity; the provider is not part of it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkDefinition {
    /// See [`link_id`]. Clients leave it out; readers compute it.
    #[serde(default)]
    pub id: String,
    /// The actor that calls or is called.
    pub actor_id: String,
    /// The provider that serves the contract.
    pub provider_id: String,
    /// Tells several links of one contract apart.
    pub link_name: String,
    /// What the provider offers, `wasmcloud:keyvalue`.
    pub contract_id: String,
    /// Settings of this link, per contract (`protocol/interfaces.md`).
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

/// Names the values and hides them: people keep passwords there.
impl fmt::Debug for LinkDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkDefinition")
            .field("id", &self.id)
            .field("actor_id", &self.actor_id)
            .field("provider_id", &self.provider_id)
            .field("link_name", &self.link_name)
            .field("contract_id", &self.contract_id)
            .field("values", &self.values.keys())
            .finish()
    }
}

impl LinkDefinition {
    /// The value for `key`, its case ignored, as first-party providers read link values.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }
}

/// The identity of a link: upper-case hex SHA-256 of actor, contract and link name without separators.
pub fn link_id(actor_id: &str, contract_id: &str, link_name: &str) -> String {
    let mut hash = Sha256::new();
    for part in [actor_id, contract_id, link_name] {
        hash.update(part.as_bytes());
    }
    HEXUPPER.encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::link_id;

    /// The check value of `protocol/cache.md §2`.
    #[test]
    fn link_id_is_the_one_of_the_protocol() {
        assert_eq!(
            link_id("Mbob", "wasmcloud:testy", "default"),
            "B40411AD09B70A2C83D59923584F66BA2C5A3C274DC4F19416DA49CCD6531F9C"
        );
    }
}
