//! What a token says beyond who signed it for whom: its `wascap` object, one shape per kind (`protocol/claims.md §2.1`).
//!
//! Member order and presence are those of the tools that write these tokens, so that re-signing gives the same bytes.
//! Members this version does not know are ignored on reading.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::keys::Role;

/// One kind of `wascap` object.
pub trait Body: Serialize + DeserializeOwned {
    /// What the token is for, as error texts name it.
    const NOUN: &'static str;
    /// The role its subject must have; `None` when the subject is not a key.
    const SUBJECT: Option<Role>;
    /// The roles that sign this kind.
    const ISSUERS: &'static [Role];
}

/// What an actor is and may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Upper-case hex SHA-256 of the module's canonical bytes (`protocol/claims.md §3.1`).
    #[serde(rename = "hash")]
    pub module_hash: String,
    /// Free labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Contracts the actor may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<Vec<String>>,
    /// Revision: an update must have a higher one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<i32>,
    /// Version for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ver: Option<String>,
    /// A second name by which other actors may call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_alias: Option<String>,
    /// Legacy: the module is a provider. Always false on modules made since.
    #[serde(default, rename = "prov")]
    pub provider: bool,
}

impl Body for Actor {
    const NOUN: &'static str = "module";
    const SUBJECT: Option<Role> = Some(Role::Module);
    const ISSUERS: &'static [Role] = &[Role::Account];
}

/// What a provider serves, and which binaries are really it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Name for people.
    pub name: Option<String>,
    /// The contract served.
    pub capid: String,
    /// Who made it.
    pub vendor: String,
    /// Revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<i32>,
    /// Version for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ver: Option<String>,
    /// Target (`x86_64-linux`) to the upper-case hex SHA-256 of its binary.
    pub target_hashes: BTreeMap<String, String>,
    /// JSON schema of the provider's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<serde_json::Value>,
}

impl Body for Provider {
    const NOUN: &'static str = "provider";
    const SUBJECT: Option<Role> = Some(Role::Service);
    const ISSUERS: &'static [Role] = &[Role::Account];
}

macro_rules! organisations {
    ($($(#[$doc:meta])* $name:ident: $noun:literal, $subject:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $name {
            /// Name for people.
            pub name: Option<String>,
            /// Further keys that may sign in its place.
            pub valid_signers: Option<Vec<String>>,
        }

        impl Body for $name {
            const NOUN: &'static str = $noun;
            const SUBJECT: Option<Role> = Some(Role::$subject);
            const ISSUERS: &'static [Role] = &[Role::Operator];
        }
    )*};
}

organisations! {
    /// Who signs actors and providers. Signed by an operator; hosts never check that chain.
    Account: "account", Account;
    /// Who signs accounts. Signed by itself.
    Operator: "operator", Operator;
    /// Hosts that trust each other's invocations.
    Cluster: "cluster", Cluster;
}

/// What binds a token to one invocation (`protocol/invocation.md §3`). The subject is the invocation's id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// URL of the target, with the operation.
    pub target_url: String,
    /// URL of the origin.
    pub origin_url: String,
    /// Upper-case hex SHA-256 of origin URL, target URL, operation and body.
    pub hash: String,
}

impl Body for Invocation {
    const NOUN: &'static str = "invocation";
    const SUBJECT: Option<Role> = None;
    const ISSUERS: &'static [Role] = &[Role::Cluster];
}

/// A call alias as it is written into claims: lower case, ASCII only, blanks, `-` and `.` turned into `_`.
pub fn normalise_call_alias(alias: &str) -> String {
    let ascii: String = alias.to_lowercase().trim().chars().filter(char::is_ascii).collect();
    ascii.replace([' ', '-', '.'], "_")
}

/// The revision that orders versions of one entity: `rev` if it is positive, else the time of issue.
pub fn effective_revision(rev: Option<i32>, iat: u64) -> i32 {
    // Truncation is the protocol's: a plain cast, so that every host computes the same number.
    rev.filter(|rev| *rev > 0).unwrap_or(iat as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_aliases_are_normalised() {
        for (given, written) in
            [("Acme/Echo-Actor", "acme/echo_actor"), ("  My Actor.v2 ", "my_actor_v2"), ("Grüße", "gre"), ("", "")]
        {
            assert_eq!(normalise_call_alias(given), written);
        }
    }

    #[test]
    fn a_revision_that_is_missing_or_not_positive_gives_way_to_the_time_of_issue() {
        assert_eq!(effective_revision(Some(3), 1_700_000_000), 3);
        for rev in [None, Some(0), Some(-4)] {
            assert_eq!(effective_revision(rev, 1_700_000_000), 1_700_000_000);
        }
        assert_eq!(effective_revision(None, 1 << 32), 0);
    }
}
