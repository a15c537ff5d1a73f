//! The link table: who may call which provider under which contract and link name.
//!
//! Pure: the reconciler fills it, the router asks it.

use std::{collections::HashMap, sync::Arc};

use crate::wire::LinkDefinition;

/// Links this host holds at most. 4096 links cost about 2 MB; a board runs a few dozen. One more is refused.
pub const MAX_LINKS: usize = 4096;

/// Names and values of one link that comes over the lattice, bytes. Certificates and settings files take a few tens of
/// thousands; a longer link is refused.
pub const MAX_LINK_BYTES: usize = 128 * 1024;

/// Names and values of all links that came over the lattice, bytes: they are in memory at each boot, and a board of 512 MB
/// has other use for it. Those of manifests are bounded by the manifests. One that does not fit is refused; of a state
/// directory that holds more, the rest is dropped.
pub const MAX_LATTICE_LINKS_BYTES: usize = 2 << 20;

/// All known links, by the actor they belong to, those of one actor in the order of contract and link name: an actor has a
/// handful, so a look-up compares a few strings instead of hashing the link's identity on every call, and one with thousands
/// costs no more than their logarithm.
#[derive(Debug, Default)]
pub struct Links(HashMap<String, Vec<Arc<LinkDefinition>>>);

impl Links {
    /// Adds a link, or replaces the one with its identity.
    pub fn put(&mut self, link: Arc<LinkDefinition>) {
        if !self.0.contains_key(&link.actor_id) {
            self.0.insert(link.actor_id.clone(), Vec::new());
        }
        let Some(links) = self.0.get_mut(&link.actor_id) else { return };
        match position(links, &link.contract_id, &link.link_name) {
            Ok(there) => links[there] = link,
            Err(place) => links.insert(place, link),
        }
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
        let links = self.0.get(actor)?;
        position(links, contract, link_name).ok().map(|there| links[there].clone())
    }

    /// All links, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LinkDefinition>> {
        self.0.values().flatten()
    }
}

/// Where the link of this contract and name is among the links of one actor, or belongs.
fn position(links: &[Arc<LinkDefinition>], contract: &str, link_name: &str) -> Result<usize, usize> {
    links.binary_search_by(|link| (link.contract_id.as_str(), link.link_name.as_str()).cmp(&(contract, link_name)))
}
