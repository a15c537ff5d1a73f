//! What runs on this host: the tables behind the router. Pure data; the reconciler changes it, everybody else reads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use crate::{
    actor::Actor,
    claims::{SignedModule, SignedProvider},
    error::{Error, Result},
    host::{Capability, desired::DesiredActor, desired::DesiredProvider, links::Links, router::Counters},
    wire::names::{self, Candidate},
};

/// One actor that runs.
pub struct RunningActor {
    /// What it was started from.
    pub desired: DesiredActor,
    /// What its token says.
    pub claims: SignedModule,
    /// The guest.
    pub actor: Actor,
}

/// One provider that runs.
pub struct RunningProvider {
    /// What it was started from.
    pub desired: DesiredProvider,
    /// Where calls go.
    pub capability: Arc<dyn Capability>,
    /// Calls from actors.
    pub counters: Counters,
    /// What its token says; nothing for one inside this process.
    pub claims: Option<SignedProvider>,
    /// Name of its process; nothing for one inside this process.
    pub instance_id: Option<String>,
}

impl RunningProvider {
    /// Name for people.
    pub fn name(&self) -> &str {
        match &self.claims {
            Some(claims) => &claims.name,
            None => self.desired.reference.trim_start_matches("builtin:"),
        }
    }
}

/// What to say of the actor `name` that is linked to a contract its claims do not name.
pub fn unclaimed(name: &str, contract: &str) -> String {
    format!(
        "the actor {name} does not claim {contract}: calls between it and the provider it is linked to are refused; sign it \
         with --cap {contract}"
    )
}

/// Everything that runs.
#[derive(Default)]
pub struct Routes {
    actors: BTreeMap<String, Arc<RunningActor>>,
    /// Actors that are not called any more while what they are at comes to its end.
    leaving: Vec<Weak<RunningActor>>,
    /// By public key, then link name.
    providers: BTreeMap<String, BTreeMap<String, Arc<RunningProvider>>>,
    intrinsics: HashMap<&'static str, Arc<dyn Capability>>,
    aliases: HashMap<String, String>,
    /// Links in force for calls, whether or not their provider has taken them yet.
    pub links: Links,
}

/// Names that an error lists at most; `latticed status` shows all.
const LISTED_NAMES: usize = 16;

/// Length of a public key's text.
const KEY_CHARACTERS: usize = 56;

impl Routes {
    /// The actor with this key.
    pub fn actor(&self, key: &str) -> Option<Arc<RunningActor>> {
        self.actors.get(key).cloned()
    }

    /// Whether the actor with this key may call `contract`: one that is being stopped may, as long as it is at something.
    pub fn may_use(&self, key: &str, contract: &str) -> bool {
        let leaving = || {
            let named = |actor: &Arc<RunningActor>| actor.desired.public_key == key;
            self.leaving.iter().filter_map(Weak::upgrade).find(named)
        };
        self.actor(key).or_else(leaving).is_some_and(|actor| actor.claims.may_use(contract))
    }

    /// All actors, by key.
    pub fn actors(&self) -> impl Iterator<Item = &Arc<RunningActor>> {
        self.actors.values()
    }

    /// The provider with this key under this link name.
    pub fn provider(&self, key: &str, link_name: &str) -> Option<Arc<RunningProvider>> {
        self.providers.get(key)?.get(link_name).cloned()
    }

    /// Whether the provider `name` runs, and is the process `instance_id`.
    pub(super) fn runs_instance(&self, name: &(String, String), instance_id: &str) -> bool {
        self.provider(&name.0, &name.1).is_some_and(|there| there.instance_id.as_deref() == Some(instance_id))
    }

    /// All providers, by key and link name.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<RunningProvider>> {
        self.providers.values().flat_map(BTreeMap::values)
    }

    /// The capability every actor reaches without a link under `contract`.
    pub fn intrinsic(&self, contract: &str) -> Option<Arc<dyn Capability>> {
        self.intrinsics.get(contract).cloned()
    }

    /// The key of the actor that `name` means: a key as it is, else a call alias.
    pub fn resolve_actor(&self, name: &str) -> Option<String> {
        if name.len() == KEY_CHARACTERS && name.starts_with('M') {
            return Some(name.to_owned());
        }
        self.aliases.get(name).cloned()
    }

    /// The key of the actor that a person means by `word`: a key, also of one that runs elsewhere, a call alias, a name, or
    /// the beginning of a key.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::error::Kind::Conflict): several match; [`Kind::NotFound`](crate::error::Kind::NotFound):
    /// none does.
    pub fn meant(&self, word: &str) -> Result<String> {
        if let Some(key) = self.resolve_actor(word) {
            return Ok(key);
        }
        let candidates: Vec<Candidate<'_>> =
            self.actors.iter().map(|(key, actor)| Candidate { key, name: &actor.claims.name, alias: "" }).collect();
        names::pick(word, &candidates)?.map(str::to_owned).ok_or_else(|| {
            let known: Vec<&str> = candidates.iter().map(|one| one.name).take(LISTED_NAMES).collect();
            let known = if known.is_empty() { "no actor runs".to_owned() } else { known.join(", ") };
            Error::not_found(format!(
                "{word} is neither key, call alias nor name of an actor on this host, which has: {known}"
            ))
        })
    }

    pub(super) fn add_intrinsic(&mut self, contract: &'static str, capability: Arc<dyn Capability>) {
        self.intrinsics.insert(contract, capability);
    }

    /// Puts `actor` in force; its call alias means it from now on (the last start wins, `protocol/invocation.md §5.4`).
    pub(super) fn put_actor(&mut self, actor: RunningActor) -> Option<Arc<RunningActor>> {
        let key = actor.desired.public_key.clone();
        self.aliases.retain(|_, owner| *owner != key);
        if let Some(alias) = actor.claims.call_alias.clone().filter(|alias| alias.len() > 1) {
            self.aliases.insert(alias, key.clone());
        }
        self.actors.insert(key, Arc::new(actor))
    }

    pub(super) fn remove_actor(&mut self, key: &str) -> Option<Arc<RunningActor>> {
        let gone = self.actors.remove(key)?;
        self.leaving.retain(|actor| actor.strong_count() > 0);
        self.leaving.push(Arc::downgrade(&gone));
        self.aliases.retain(|_, owner| owner != key);
        // Another actor may claim the alias too and have lost it to this one.
        for (other, actor) in &self.actors {
            if let Some(alias) =
                actor.claims.call_alias.as_ref().filter(|alias| gone.claims.call_alias.as_ref() == Some(alias))
            {
                self.aliases.insert(alias.clone(), other.clone());
            }
        }
        Some(gone)
    }

    pub(super) fn put_provider(&mut self, provider: RunningProvider) {
        let names = self.providers.entry(provider.desired.public_key.clone()).or_default();
        names.insert(provider.desired.link_name.clone(), Arc::new(provider));
    }

    pub(super) fn remove_provider(&mut self, key: &(String, String)) -> Option<Arc<RunningProvider>> {
        let names = self.providers.get_mut(&key.0)?;
        let gone = names.remove(&key.1);
        if names.is_empty() {
            self.providers.remove(&key.0);
        }
        gone
    }
}
