//! Who calls and who is called (`protocol/invocation.md §1.2, §2`).

use serde::{Deserialize, Serialize};

/// One end of an invocation: an actor (only `public_key` set) or a provider (all three set).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// `M…` of an actor, `V…` of a provider.
    #[serde(default)]
    pub public_key: String,
    /// The link name, `""` for an actor.
    #[serde(default)]
    pub link_name: String,
    /// The contract, `""` for an actor.
    #[serde(default)]
    pub contract_id: String,
}

impl Entity {
    /// The entity of the actor `public_key`.
    pub fn actor(public_key: impl Into<String>) -> Self {
        Self { public_key: public_key.into(), ..Self::default() }
    }

    /// The entity of a provider under one link name.
    pub fn provider(
        public_key: impl Into<String>,
        contract_id: impl Into<String>,
        link_name: impl Into<String>,
    ) -> Self {
        Self { public_key: public_key.into(), link_name: link_name.into(), contract_id: contract_id.into() }
    }

    /// Whether receivers treat this entity as an actor: link name or contract is empty.
    pub fn is_actor(&self) -> bool {
        self.link_name.is_empty() || self.contract_id.is_empty()
    }

    /// The URL that claims of an invocation carry. Only the first letter of the key decides its form.
    pub fn url(&self) -> String {
        if self.public_key.starts_with(['M', 'm']) {
            return format!("wasmbus://{}", self.public_key);
        }
        let contract = self.contract_id.replace(':', "/").replace(' ', "_").to_lowercase();
        let link = self.link_name.replace(' ', "_").to_lowercase();
        format!("wasmbus://{contract}/{link}/{}", self.public_key)
    }
}
