//! Configuration values of entities, as the newer Rust hosts keep them (`protocol/lattice.md §3.8`), and the service that a
//! starting host may ask for its own (`protocol/cache.md §7`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::registry::{RegistryCredential, usable};
use crate::{
    error::Result,
    wire::json::{self, null_is_default},
};

/// The answer to `get.config`: bytes as an array of numbers, as that client reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfigReply {
    /// Whether there is such a value.
    pub found: bool,
    /// The value.
    pub data: Vec<u8>,
}

/// What a starting host tells the service about itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ConfigRequest<'a> {
    /// All labels.
    pub labels: &'a BTreeMap<String, String>,
}

/// What the service wants of a starting host. Every part is optional.
#[derive(Clone, Debug, Default)]
pub struct ConfigAnswer {
    /// Providers to start.
    pub providers: Vec<AutoStartProvider>,
    /// References of actors to start.
    pub actors: Vec<String>,
    /// Credentials by registry.
    pub credentials: BTreeMap<String, RegistryCredential>,
    /// Providers that lack a reference or a link name and were left out.
    pub unusable_providers: usize,
}

/// One provider to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoStartProvider {
    /// Where it comes from.
    pub image_reference: String,
    /// The link name it shall serve.
    pub link_name: String,
}

impl ConfigAnswer {
    /// Reads the answer.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            #[serde(default, deserialize_with = "null_is_default")]
            auto_start_providers: Vec<WireProvider>,
            #[serde(default, deserialize_with = "null_is_default")]
            auto_start_actors: Vec<String>,
            #[serde(default, deserialize_with = "null_is_default")]
            registry_credentials: BTreeMap<String, serde_json::Value>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct WireProvider {
            image_reference: Option<String>,
            link_name: Option<String>,
        }
        let wire: Wire =
            json::read("cannot read the answer of the configuration service", body, json::MAX_REQUEST_BYTES)?;
        let all = wire.auto_start_providers.len();
        let providers: Vec<AutoStartProvider> = wire
            .auto_start_providers
            .into_iter()
            .filter_map(|one| {
                Some(AutoStartProvider { image_reference: one.image_reference?, link_name: one.link_name? })
            })
            .collect();
        Ok(Self {
            unusable_providers: all - providers.len(),
            providers,
            actors: wire.auto_start_actors,
            credentials: usable(wire.registry_credentials),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_an_array_of_numbers() {
        let reply = ConfigReply { found: true, data: b"ab".to_vec() };
        assert_eq!(serde_json::to_string(&reply).unwrap(), r#"{"found":true,"data":[97,98]}"#);
    }

    #[test]
    fn the_service_may_leave_anything_out() {
        let full = ConfigAnswer::parse(
            br#"{"autoStartProviders":[{"imageReference":"r","linkName":"a"},{"imageReference":"r"}],
                "autoStartActors":["x","y"],
                "registryCredentials":{"registry.example":{"registryType":"oci","username":"u","password":"p"}}}"#,
        )
        .unwrap();
        assert_eq!(full.providers, [AutoStartProvider { image_reference: "r".into(), link_name: "a".into() }]);
        assert_eq!((full.actors.len(), full.credentials.len(), full.unusable_providers), (2, 1, 1));
        let empty = ConfigAnswer::parse(br#"{"autoStartActors":null}"#).unwrap();
        assert!(empty.providers.is_empty() && empty.actors.is_empty() && empty.credentials.is_empty());
        assert!(ConfigAnswer::parse(b"no").is_err());
    }
}
