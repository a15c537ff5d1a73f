//! The answer to `get.claims`: one map of strings per known actor and provider (`protocol/lattice.md §3.2`).

use serde::Serialize;

use crate::wire::cache::ClaimsRecord;

/// Every known entity.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClaimsList<'a> {
    /// In the shape of the bucket.
    pub claims: &'a [ClaimsRecord],
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn old_clients_read_every_entry_as_strings() {
        #[derive(serde::Deserialize)]
        struct Client {
            claims: Vec<BTreeMap<String, String>>,
        }
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/vectors/control_interface.json")).unwrap();
        let accepted = vectors["reply_parsing"].as_array().unwrap().iter().find(|one| one["case"] == "claims").unwrap();
        let accepted: Client = serde_json::from_value(accepted["body"].clone()).unwrap();
        let record = ClaimsRecord {
            subject: "M".into(),
            issuer: "A".into(),
            name: "n".into(),
            revision: 1,
            version: "0.1.0".into(),
            ..ClaimsRecord::default()
        };
        let ours: Client =
            serde_json::from_str(&serde_json::to_string(&ClaimsList { claims: &[record] }).unwrap()).unwrap();
        assert_eq!(ours.claims, accepted.claims);
    }
}
