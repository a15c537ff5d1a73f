//! The links in force: actor to link (`protocol/providers.md §5`).
//!
//! Pure: says what a message changes; whoever calls tells the provider.

use std::{collections::HashMap, sync::Arc};

use crate::{
    error::{Error, Result},
    lock::{Mutex, MutexGuard},
    wire::LinkDefinition,
};

/// Actors linked to one provider process at most. A board runs a few hundred actors; one more is refused and logged.
pub const MAX_LINKS: usize = 4096;

/// What a link message asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it is in force already. Hosts repeat links, and all hosts tell of each.
    None,
    /// A link to make.
    Add,
    /// A link to end first, then one to make.
    Replace(Arc<LinkDefinition>),
}

/// The links of one provider process.
#[derive(Default)]
pub struct Links(Mutex<HashMap<String, Arc<LinkDefinition>>>);

impl Links {
    /// The link of `actor`.
    pub fn find(&self, actor: &str) -> Option<Arc<LinkDefinition>> {
        self.held().get(actor).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held().len()
    }

    /// What putting `link` means. Other SDKs ignore a put with other values for a linked actor; here the newest counts,
    /// since the host may have sent the `del` between them while the connection was down.
    ///
    /// # Errors
    /// [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn change(&self, link: &LinkDefinition) -> Result<Change> {
        let links = self.held();
        match links.get(&link.actor_id) {
            Some(there) if same(there, link) => Ok(Change::None),
            Some(there) => Ok(Change::Replace(there.clone())),
            None if links.len() >= MAX_LINKS => Err(Error::limit(format!(
                "{MAX_LINKS} actors are linked already; remove a link or start the provider under another link name"
            ))),
            None => Ok(Change::Add),
        }
    }

    /// Puts `link` in force.
    pub fn put(&self, link: LinkDefinition) {
        self.held().insert(link.actor_id.clone(), Arc::new(link));
    }

    /// Ends the link of `actor`.
    pub fn delete(&self, actor: &str) -> Option<Arc<LinkDefinition>> {
        self.held().remove(actor)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Arc<LinkDefinition>>> {
        self.0.lock()
    }
}

/// Ids are computed by some senders and left out by others.
fn same(one: &LinkDefinition, other: &LinkDefinition) -> bool {
    one.contract_id == other.contract_id && one.values == other.values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(actor: &str, value: &str) -> LinkDefinition {
        LinkDefinition {
            actor_id: actor.to_owned(),
            values: [("V".to_owned(), value.to_owned())].into(),
            ..LinkDefinition::default()
        }
    }

    #[test]
    fn a_repeated_link_changes_nothing_and_other_values_replace_it() {
        let links = Links::default();
        assert_eq!(links.change(&link("M1", "a")).unwrap(), Change::Add);
        links.put(link("M1", "a"));
        assert_eq!(links.change(&LinkDefinition { id: "X".into(), ..link("M1", "a") }).unwrap(), Change::None);
        assert_eq!(links.change(&link("M1", "b")).unwrap(), Change::Replace(Arc::new(link("M1", "a"))));
        assert_eq!(links.change(&link("M2", "a")).unwrap(), Change::Add);
        assert_eq!(links.delete("M1").unwrap().values["V"], "a");
        assert_eq!((links.delete("M1"), links.find("M1")), (None, None));
    }

    #[test]
    fn there_is_an_end_to_links() {
        let links = Links::default();
        for actor in 0..MAX_LINKS {
            links.put(link(&format!("M{actor}"), ""));
        }
        assert!(links.change(&link("N", "")).unwrap_err().text().contains("4096"));
        assert_eq!(links.change(&link("M1", "")).unwrap(), Change::None);
    }
}
