//! Events about links and references (`protocol/events.md §2`).

use serde::Serialize;

use super::{Data, actor::events};
use crate::wire::LinkDefinition;

/// A link is in force.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct LinkSet<'a>(pub &'a LinkDefinition);

impl Data for LinkSet<'_> {
    const NAME: &'static str = "linkdef_set";
}

/// A link is gone.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(transparent)]
pub struct LinkDeleted<'a>(pub &'a LinkDefinition);

impl Data for LinkDeleted<'_> {
    const NAME: &'static str = "linkdef_deleted";
}

events! {
    /// A reference turned out to be this entity.
    ReferenceSet = "refmap_set" {
        /// The reference.
        oci_url: &'a str,
        /// `M…` or `V…`.
        public_key: &'a str,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::written, *};

    #[test]
    fn a_link_event_is_the_link() {
        let link = LinkDefinition { id: "0F".into(), actor_id: "M1".into(), ..LinkDefinition::default() };
        let wanted = serde_json::to_value(&link).unwrap();
        assert_eq!((written(&LinkSet(&link)), written(&LinkDeleted(&link))), (wanted.clone(), wanted));
        assert_eq!(written(&ReferenceSet { oci_url: "r", public_key: "M1" })["oci_url"], "r");
    }
}
