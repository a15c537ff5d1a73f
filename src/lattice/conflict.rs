//! Links of this board's manifests that the lattice's bucket wants otherwise: they stay as they are here, and the
//! difference is told.
//!
//! The bucket is shared by every host of the lattice, so a value in it may be older than a new memory card, or meant for
//! another board that runs the same actor. It never changes what a manifest of this board says, nor what a command to
//! this board made of that.

use super::Shared;
use crate::{
    host::{desired::Desired, remote::Rights},
    log,
    wire::LinkDefinition,
};

impl Shared {
    /// Whether the link `id` is kept from what the bucket says of it: `said`, or that it is deleted.
    pub(super) fn is_kept(&self, desired: &Desired, id: &str, said: Option<&LinkDefinition>) -> bool {
        let remote = self.remote();
        let link = said.or_else(|| desired.links.get(id).map(|there| &*there.link));
        let Some(manifest) = desired.manifest_of_link(id) else {
            // Where the lattice may not change what manifests brought, their actors get no other links either.
            let of_manifest = || link.is_some_and(|link| desired.manifest_of_actor(&link.actor_id).is_some());
            return !remote.may_change() || (remote != Rights::Full && of_manifest());
        };
        let text = match (said, desired.links.get(id)) {
            // It was deleted by a command here, and is deleted there.
            (None, None) => return true,
            (None, Some(here)) => format!(
                "{}: the lattice has deleted it, and this board keeps it, because manifest {manifest} asks for it: remove it \
                 from the manifest if it is to go",
                name(&here.link)
            ),
            (Some(said), here) => format!(
                "{}: the lattice has other values for it ({}), and this board {}, because manifest {manifest} is about it: \
                 change the manifest if the lattice's values are to hold here",
                name(said),
                differing(said, here.map(|here| &*here.link)),
                if here.is_some() { "keeps its own" } else { "leaves it deleted, as a command to it said" }
            ),
        };
        let before = self.host.conflicts().insert(id.to_owned(), text.clone());
        if before.as_ref() != Some(&text) {
            log::warn!("{text}");
        }
        true
    }
}

fn name(link: &LinkDefinition) -> String {
    format!("the link of actor {} to {} ({})", link.actor_id, link.contract_id, link.link_name)
}

/// Names of the values that differ; the values may be secrets.
fn differing(said: &LinkDefinition, here: Option<&LinkDefinition>) -> String {
    let Some(here) = here else { return "this board has none".to_owned() };
    let mut names: Vec<&str> = said.values.keys().chain(here.values.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| said.values.get(*name) != here.values.get(*name));
    if said.provider_id != here.provider_id {
        names.insert(0, "provider");
    }
    names.join(", ")
}
