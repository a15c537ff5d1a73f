//! The link table: who may call which provider under which contract and link name.
//!
//! Pure: the reconciler fills it, the router asks it.

use std::{collections::HashMap, sync::Arc};

use crate::wire::{LinkDefinition, link::link_id};

/// Links this host holds at most. 4096 links cost about 2 MB; a board runs a few dozen. One more is refused.
pub const MAX_LINKS: usize = 4096;

/// All known links by identity.
#[derive(Debug, Default)]
pub struct Links(HashMap<String, Arc<LinkDefinition>>);

impl Links {
    /// Adds or replaces the link with this identity and returns the one it replaces.
    pub fn put(&mut self, link: Arc<LinkDefinition>) -> Option<Arc<LinkDefinition>> {
        self.0.insert(link.id.clone(), link)
    }

    /// Removes the link with this identity.
    pub fn remove(&mut self, id: &str) -> Option<Arc<LinkDefinition>> {
        self.0.remove(id)
    }

    /// The link through which `actor` reaches `contract` under `link_name`.
    pub fn find(&self, actor: &str, contract: &str, link_name: &str) -> Option<Arc<LinkDefinition>> {
        self.0.get(&link_id(actor, contract, link_name)).cloned()
    }

    /// All links, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LinkDefinition>> {
        self.0.values()
    }
}
