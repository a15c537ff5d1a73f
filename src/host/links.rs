//! The link table: who may call which provider under which contract and link name.
//!
//! Pure: the reconciler fills it, the router asks it.

use std::{collections::HashMap, sync::Arc};

use crate::wire::LinkDefinition;

/// Links this host holds at most. 4096 links cost about 2 MB; a board runs a few dozen. One more is refused.
pub const MAX_LINKS: usize = 4096;

/// All known links, by the actor they belong to: an actor has a handful, so a look-up compares a few strings instead of
/// hashing the link's identity on every call.
#[derive(Debug, Default)]
pub struct Links(HashMap<String, Vec<Arc<LinkDefinition>>>);

impl Links {
    /// Adds a link, or replaces the one with its identity.
    pub fn put(&mut self, link: Arc<LinkDefinition>) {
        let links = self.0.entry(link.actor_id.clone()).or_default();
        links.retain(|there| !same(there, &link.contract_id, &link.link_name));
        links.push(link);
    }

    /// Removes every link that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(&LinkDefinition) -> bool) {
        self.0.retain(|_, links| {
            links.retain(|link| keep(link));
            !links.is_empty()
        });
    }

    /// The link through which `actor` reaches `contract` under `link_name`.
    pub fn find(&self, actor: &str, contract: &str, link_name: &str) -> Option<Arc<LinkDefinition>> {
        self.0.get(actor)?.iter().find(|link| same(link, contract, link_name)).cloned()
    }

    /// All links, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LinkDefinition>> {
        self.0.values().flatten()
    }
}

/// Whether `link` has the identity that these and its actor make.
fn same(link: &LinkDefinition, contract: &str, link_name: &str) -> bool {
    link.contract_id == contract && link.link_name == link_name
}
