//! Auctions: who could run this (`protocol/lattice.md §3.7`).
//!
//! A host that cannot, or does not understand, stays silent: clients would take any answer for a bid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::parse;
use crate::{error::Result, wire::json::null_is_default};

/// Labels a host must have, exact in key and value.
pub type Constraints = BTreeMap<String, String>;

/// `auction.actor`, and the bid for it when `host_id` is filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorAuction {
    /// What shall run.
    pub actor_ref: String,
    /// Where it may.
    #[serde(default, deserialize_with = "null_is_default")]
    pub constraints: Constraints,
    /// The bidder; only in bids.
    #[serde(default, deserialize_with = "ignored")]
    pub host_id: String,
}

impl ActorAuction {
    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        parse("Invalid JSON request for actor auction", body)
    }
}

/// `auction.provider`, and the bid for it when `host_id` is filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderAuction {
    /// What shall run.
    pub provider_ref: String,
    /// Under which link name.
    #[serde(default = "default_link")]
    pub link_name: String,
    /// Where it may.
    #[serde(default, deserialize_with = "null_is_default")]
    pub constraints: Constraints,
    /// The bidder; only in bids.
    #[serde(default, deserialize_with = "ignored")]
    pub host_id: String,
}

impl ProviderAuction {
    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        parse("Invalid JSON request to auction provider", body)
    }
}

fn default_link() -> String {
    "default".to_owned()
}

/// What a client wrote into a member that is ours to fill.
fn ignored<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bid_repeats_the_request_and_names_the_host() {
        let mut auction = ActorAuction::parse(br#"{"actor_ref":"r","constraints":{"k":"v"},"host_id":null}"#).unwrap();
        auction.host_id = "N".into();
        assert_eq!(
            serde_json::to_string(&auction).unwrap(),
            r#"{"actor_ref":"r","constraints":{"k":"v"},"host_id":"N"}"#
        );
        let mut auction = ProviderAuction::parse(br#"{"provider_ref":"r","constraints":null}"#).unwrap();
        auction.host_id = "N".into();
        assert_eq!(
            serde_json::to_string(&auction).unwrap(),
            r#"{"provider_ref":"r","link_name":"default","constraints":{},"host_id":"N"}"#
        );
        assert!(ActorAuction::parse(b"{}").is_err());
    }
}
