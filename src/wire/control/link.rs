//! Links over the control subjects: put, delete, list (`protocol/lattice.md §3.3, §3.5`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{not_empty, parse};
use crate::{
    error::Result,
    wire::{LinkDefinition, json::null_is_default, link::link_id, name_limits, subject::check_part},
};

/// `linkdefs.put`: the link, its identity computed whatever the client wrote.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
pub fn parse_put(body: &[u8]) -> Result<LinkDefinition> {
    const REFUSAL: &str = "Invalid link definition put request";
    #[derive(Deserialize)]
    struct Wire {
        actor_id: String,
        provider_id: String,
        link_name: String,
        contract_id: String,
        #[serde(default, deserialize_with = "null_is_default")]
        values: BTreeMap<String, String>,
    }
    let wire: Wire = parse(REFUSAL, body)?;
    for (name, value) in [
        ("actor_id", &wire.actor_id),
        ("provider_id", &wire.provider_id),
        ("link_name", &wire.link_name),
        ("contract_id", &wire.contract_id),
    ] {
        not_empty(REFUSAL, name, value)?;
    }
    for (what, value) in
        [("actor's key", &wire.actor_id), ("provider's key", &wire.provider_id), ("link name", &wire.link_name)]
    {
        check_part(what, value).map_err(|error| error.context(REFUSAL))?;
    }
    name_limits::check("contract", &wire.contract_id, name_limits::MAX_CONTRACT_BYTES)
        .and_then(|()| name_limits::check_values(&wire.values))
        .map_err(|error| error.context(REFUSAL))?;
    Ok(LinkDefinition {
        id: link_id(&wire.actor_id, &wire.contract_id, &wire.link_name),
        actor_id: wire.actor_id,
        provider_id: wire.provider_id,
        link_name: wire.link_name,
        contract_id: wire.contract_id,
        values: wire.values,
    })
}

/// `linkdefs.del`: which link.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DeleteLink {
    /// `M…`.
    pub actor_id: String,
    /// The contract.
    pub contract_id: String,
    /// The link name.
    pub link_name: String,
}

impl DeleteLink {
    const REFUSAL: &'static str = "Invalid link definition removal request";

    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        let delete: Self = parse(Self::REFUSAL, body)?;
        for (name, value) in
            [("actor_id", &delete.actor_id), ("contract_id", &delete.contract_id), ("link_name", &delete.link_name)]
        {
            not_empty(Self::REFUSAL, name, value)?;
            name_limits::check(name, value, name_limits::MAX_PART_BYTES)
                .map_err(|error| error.context(Self::REFUSAL))?;
        }
        Ok(delete)
    }

    /// The identity of the link meant.
    pub fn id(&self) -> String {
        link_id(&self.actor_id, &self.contract_id, &self.link_name)
    }
}

/// The answer to `get.links`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Links<'a> {
    /// Every known link.
    pub links: &'a [LinkDefinition],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_link_has_its_identity() {
        let put = parse_put(
            br#"{"id":"0000","actor_id":"Mbob","provider_id":"V","link_name":"default","contract_id":"wasmcloud:testy","values":null}"#,
        )
        .unwrap();
        assert_eq!(put.id, "B40411AD09B70A2C83D59923584F66BA2C5A3C274DC4F19416DA49CCD6531F9C");
        assert!(put.values.is_empty());
        for body in [
            r#"{"actor_id":"M","provider_id":"V","link_name":"default"}"#,
            r#"{"actor_id":"M","provider_id":null,"link_name":"default","contract_id":"c"}"#,
            r#"{"actor_id":"M","provider_id":"","link_name":"default","contract_id":"c"}"#,
            r#"{"actor_id":"M","provider_id":"V","link_name":"default","contract_id":"c","values":{"a":1}}"#,
        ] {
            let refusal = parse_put(body.as_bytes()).unwrap_err();
            assert!(refusal.text().starts_with("Invalid link definition put request"), "{body}");
        }
    }

    #[test]
    fn a_link_whose_names_have_no_end_is_refused() {
        let endless = "x".repeat(70_000);
        for (contract, name) in [(endless.as_str(), "a"), ("wasmcloud:testy", endless.as_str())] {
            let body = format!(
                r#"{{"actor_id":"M","provider_id":"V","link_name":"default","contract_id":"{contract}","values":{{"{name}":"1"}}}}"#
            );
            let refusal = parse_put(body.as_bytes()).unwrap_err();
            assert!(refusal.text().starts_with("Invalid link definition put request") && refusal.text().len() < 300);
        }
    }

    #[test]
    fn a_delete_names_the_same_link_as_its_put() {
        let delete = DeleteLink::parse(
            br#"{"actor_id":"Mbob","provider_id":"","link_name":"default","contract_id":"wasmcloud:testy","values":{}}"#,
        )
        .unwrap();
        assert_eq!(delete.id(), "B40411AD09B70A2C83D59923584F66BA2C5A3C274DC4F19416DA49CCD6531F9C");
        assert!(DeleteLink::parse(b"{}").unwrap_err().text().starts_with("Invalid link definition removal request"));
    }

    #[test]
    fn listed_links_have_every_member_clients_need() {
        let link = LinkDefinition { actor_id: "M".into(), ..LinkDefinition::default() };
        assert_eq!(
            serde_json::to_string(&Links { links: &[link] }).unwrap(),
            r#"{"links":[{"id":"","actor_id":"M","provider_id":"","link_name":"","contract_id":"","values":{}}]}"#
        );
    }
}
