//! How commands change what should run. Plain functions of the state before: the host writes what they return to disk
//! and then makes it so.
//!
//! Instances are counted in groups: those that were asked for with the same annotations. A start adds to its group, a
//! scale sets it, a stop takes from all groups that carry the annotations it names (`protocol/lattice.md §4.1–4.3`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    artifact::Requester,
    error::{Error, Result},
    host::desired::{Desired, DesiredActor, DesiredLink, DesiredProvider, Group, check_length},
    store::Digest,
    wire::LinkDefinition,
};

/// Key-value pairs of whoever asked.
pub type Annotations = BTreeMap<String, String>;

/// What a stop did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Instances that end.
    pub count: u16,
    /// Instances that stay.
    pub remaining: u16,
}

/// A module that was fetched, checked and kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Where it came from, as it was asked for.
    pub reference: String,
    /// `M…`, from its claims.
    pub public_key: String,
    /// Its bytes in the blob store.
    pub digest: Digest,
    /// On whose word it was fetched.
    pub requester: Requester,
    /// The account that signed it, as far as it is known.
    pub issuer: Option<String>,
}

impl Desired {
    /// Adds `count` instances of `module`.
    ///
    /// # Errors
    /// The actor runs from another reference, or there are too many.
    pub fn start_actor(&self, module: &Module, count: u16, annotations: &Annotations) -> Result<Self> {
        self.with_groups(module, annotations, |own| {
            let there = own.iter().position(|group| group.application.is_empty()).unwrap_or_else(|| {
                own.push(Group { count: 0, annotations: annotations.clone(), application: String::new() });
                own.len() - 1
            });
            own[there].count = own[there].count.checked_add(count).ok_or_else(|| {
                let total = u32::from(own[there].count) + u32::from(count);
                Error::limit(format!(
                    "{total} instances asked for of the actor {}, a host takes on {}: stop some first, or ask for fewer",
                    module.public_key,
                    u16::MAX
                ))
            })?;
            Ok(())
        })
    }

    /// Sets the instances of `module` under these annotations to `count`; 0 stops them. Those that a manifest asked for have
    /// no annotations, and stay the manifest's when a command scales them.
    ///
    /// # Errors
    /// As [`Desired::start_actor`].
    pub fn scale_actor(&self, module: &Module, count: u16, annotations: &Annotations) -> Result<Self> {
        self.with_groups(module, annotations, |own| {
            let owner = own.iter().map(|group| &group.application).find(|name| !name.is_empty());
            let application = owner.cloned().unwrap_or_default();
            *own = vec![Group { count, annotations: annotations.clone(), application }];
            Ok(())
        })
    }

    /// Changes the groups of `module` that have exactly these annotations.
    fn with_groups(
        &self,
        module: &Module,
        annotations: &Annotations,
        change: impl FnOnce(&mut Vec<Group>) -> Result<()>,
    ) -> Result<Self> {
        let mut next = self.clone();
        let actor = next.actors.entry(module.public_key.clone()).or_insert_with(|| DesiredActor {
            reference: module.reference.clone(),
            public_key: module.public_key.clone(),
            digest: module.digest,
            previous: None,
            groups: Vec::new(),
            requester: module.requester,
            issuer: module.issuer.clone(),
        });
        if actor.reference != module.reference {
            return Err(Error::conflict(format!(
                "Cannot start new instance of {} from ref '{}', it is already running with different reference. To \
                 upgrade an actor, use live update.",
                module.public_key, module.reference
            )));
        }
        let (mut own, others): (Vec<Group>, Vec<Group>) =
            std::mem::take(&mut actor.groups).into_iter().partition(|group| group.annotations == *annotations);
        change(&mut own)?;
        actor.groups = others;
        actor.groups.extend(own.into_iter().filter(|group| group.count > 0));
        if actor.groups.is_empty() {
            next.actors.remove(&module.public_key);
        }
        next.check_limits()?;
        Ok(next)
    }

    /// Takes `count` instances (all for `None`) from the groups of the actor that carry every given annotation.
    pub fn stop_actor(&self, public_key: &str, count: Option<u16>, annotations: &Annotations) -> (Self, Stopped) {
        let mut next = self.clone();
        let mut stopped = Stopped { count: 0, remaining: 0 };
        let Some(actor) = next.actors.get_mut(public_key) else {
            return (next, stopped);
        };
        let mut left = count.unwrap_or(u16::MAX);
        for group in &mut actor.groups {
            let selected = annotations.iter().all(|(name, value)| group.annotations.get(name) == Some(value));
            let taken = if selected { group.count.min(left) } else { 0 };
            group.count -= taken;
            left -= taken;
            stopped.count = stopped.count.saturating_add(taken);
        }
        actor.groups.retain(|group| group.count > 0);
        stopped.remaining = actor.max_concurrent();
        if actor.groups.is_empty() {
            next.actors.remove(public_key);
        }
        (next, stopped)
    }

    /// Puts another module in the place of a running actor's; its instances stay as they are.
    ///
    /// # Errors
    /// The actor does not run here.
    pub fn update_actor(&self, module: &Module) -> Result<Self> {
        let mut next = self.clone();
        let actor = next
            .actors
            .get_mut(&module.public_key)
            .ok_or_else(|| Error::not_found(format!("the actor {} is not running on this host", module.public_key)))?;
        actor.reference = module.reference.clone();
        actor.requester = module.requester;
        actor.issuer = module.issuer.clone();
        actor.digest = module.digest;
        Ok(next)
    }

    /// Adds a provider.
    ///
    /// # Errors
    /// It runs already under this link name.
    pub fn start_provider(&self, provider: DesiredProvider) -> Result<Self> {
        let mut next = self.clone();
        let key = (provider.public_key.clone(), provider.link_name.clone());
        if next.providers.contains_key(&key) {
            return Err(Error::conflict("Provider with that link name is already running on this host"));
        }
        next.providers.insert(key, DesiredProvider { applications: BTreeSet::from([String::new()]), ..provider });
        next.check_limits()?;
        Ok(next)
    }

    /// Removes a provider, whoever asked for it; its links stay.
    pub fn stop_provider(&self, public_key: &str, link_name: &str) -> Self {
        let mut next = self.clone();
        next.providers.remove(&(public_key.to_owned(), link_name.to_owned()));
        next
    }

    /// Adds a link, or replaces the one with its identity; one of a manifest stays the manifest's with other values.
    ///
    /// # Errors
    /// There are too many.
    pub fn put_link(&self, link: LinkDefinition) -> Result<Self> {
        self.put_link_from_afar(link, false)
    }

    /// As [`Desired::put_link`]; `confined` is whether servers of this process may listen for it on loopback only.
    ///
    /// # Errors
    /// As [`Desired::put_link`]; it is too long.
    pub fn put_link_from_afar(&self, link: LinkDefinition, confined: bool) -> Result<Self> {
        let mut next = self.clone();
        let application = self.manifest_of_link(&link.id).unwrap_or_default().to_owned();
        let link = DesiredLink { link: Arc::new(link), application, confined };
        check_length(&link)?;
        next.links.insert(link.link.id.clone(), link);
        next.check_limits()?;
        Ok(next)
    }

    /// Removes a link.
    pub fn delete_link(&self, id: &str) -> Self {
        let mut next = self.clone();
        next.links.remove(id);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::desired::MAX_GROUPS;

    fn module(reference: &str) -> Module {
        Module {
            reference: reference.into(),
            public_key: "MECHO".into(),
            digest: Digest::of(reference.as_bytes()),
            requester: Requester::Lattice,
            issuer: None,
        }
    }

    fn annotated(value: &str) -> Annotations {
        BTreeMap::from([("wadm".to_owned(), value.to_owned())])
    }

    #[test]
    fn starts_add_scales_set_and_stops_take_from_what_they_name() -> Result<()> {
        let (none, one) = (Annotations::new(), annotated("one"));
        let echo = module("file:///echo.wasm");
        let state = Desired::default().start_actor(&echo, 2, &none)?.start_actor(&echo, 3, &one)?;
        assert_eq!(state.actors["MECHO"].max_concurrent(), 5);
        let state = state.scale_actor(&echo, 1, &one)?;
        assert_eq!(state.actors["MECHO"].max_concurrent(), 3);
        let (state, stopped) = state.stop_actor("MECHO", Some(9), &one);
        assert_eq!(stopped, Stopped { count: 1, remaining: 2 });
        let (state, stopped) = state.stop_actor("MECHO", None, &none);
        assert_eq!(stopped, Stopped { count: 2, remaining: 0 });
        assert_eq!(state, Desired::default());
        let (state, stopped) = state.stop_actor("MECHO", None, &none);
        assert_eq!((state, stopped.count), (Desired::default(), 0));
        Ok(())
    }

    #[test]
    fn another_reference_needs_a_live_update() -> Result<()> {
        let none = Annotations::new();
        let state = Desired::default().start_actor(&module("file:///v1.wasm"), 1, &none)?;
        let refused = state.start_actor(&module("file:///v2.wasm"), 1, &none).expect_err("a second reference");
        assert!(refused.text().contains("use live update"), "unexpected text: {refused}");
        let state = state.update_actor(&module("file:///v2.wasm"))?;
        assert_eq!(state.actors["MECHO"].reference, "file:///v2.wasm");
        assert_eq!(state.actors["MECHO"].max_concurrent(), 1);
        Ok(())
    }

    #[test]
    fn more_instances_than_the_type_of_their_number_holds_are_refused() -> Result<()> {
        let echo = module("file:///echo.wasm");
        let state = Desired::default().start_actor(&echo, u16::MAX, &Annotations::new())?;
        for annotations in [Annotations::new(), annotated("more")] {
            let refused = state.start_actor(&echo, 1, &annotations).expect_err("one too many");
            assert!(refused.text().contains("65536 instances asked for of the actor MECHO"), "{refused}");
            assert!(refused.text().contains("takes on 65535"), "{refused}");
        }
        Ok(())
    }

    #[test]
    fn groups_of_instances_are_limited() -> Result<()> {
        let echo = module("file:///echo.wasm");
        let mut state = Desired::default();
        for number in 0..MAX_GROUPS {
            state = state.scale_actor(&echo, 1, &annotated(&number.to_string()))?;
        }
        let refused = state.scale_actor(&echo, 1, &annotated("one more")).expect_err("one group too many");
        assert!(refused.text().contains("stop some first"), "{refused}");
        Ok(())
    }
}
