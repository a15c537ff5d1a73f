//! What should run on this host, as it is kept on disk.
//!
//! Everything a command or a manifest asks for becomes records here first; what runs follows from them (`reconcile`),
//! so a cold boot needs nothing but this table. Pure except for [`Desired::load`], which reads the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    artifact::Requester,
    error::{Error, Result},
    host::{
        applied::Applied,
        health::Patient,
        links::{MAX_LATTICE_LINKS_BYTES, MAX_LINK_BYTES, MAX_LINKS},
        remote::{self, Rights},
    },
    store::{Batch, Digest, Store, Table},
    wire::LinkDefinition,
};

/// Distinct actors and distinct providers a host takes on at most: ten times what a 512 MB board can usefully hold.
/// One more is refused with an error that says so.
pub const MAX_ENTITIES: usize = 1024;

/// Groups of instances with different annotations that one actor has at most. An application of `wadm` makes one group for
/// each of its spreads. Each group costs memory, disk and a part of every inventory; one more is refused.
pub const MAX_GROUPS: usize = 256;

/// An actor that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredActor {
    /// Where it comes from, as the operator wrote it; a relative file is written out in full.
    pub reference: String,
    /// `M…`, from the claims of the module.
    pub public_key: String,
    /// The module's bytes in the blob store.
    #[serde(with = "digest_text")]
    pub digest: Digest,
    /// The module it ran before this one: kept, so that the way back needs no network.
    #[serde(default, with = "digest_option", skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// Who asked for how many instances; never empty.
    pub groups: Vec<Group>,
    /// On whose word it comes from `reference`.
    #[serde(default, skip_serializing_if = "Requester::is_lattice")]
    pub requester: Requester,
    /// The account that signed it; nothing in records of earlier versions and for what is part of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// Instances of one actor that were asked for together. An instance is a place for one invocation at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// How many.
    pub count: u16,
    /// Free text of whoever asked for them; stops and scales may select by it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The application they belong to, `""` for a command.
    #[serde(default)]
    pub application: String,
}

impl DesiredActor {
    /// Whether a change from one to the other changes nothing that runs: who asked for its module and who signed it do not.
    pub fn runs_like(&self, other: &Self) -> bool {
        *self == Self { requester: self.requester, issuer: self.issuer.clone(), ..other.clone() }
    }

    /// Instances that were asked for without annotations: those of manifests and of people.
    pub fn unannotated(&self) -> u16 {
        let groups = self.groups.iter().filter(|group| group.annotations.is_empty());
        groups.fold(0, |sum, group| sum.saturating_add(group.count))
    }

    /// Invocations that may run at once.
    pub fn max_concurrent(&self) -> u16 {
        self.groups.iter().fold(0, |sum, group| sum.saturating_add(group.count))
    }

    /// How many instances each set of annotations has, in the order of the groups. Clients know instances by their
    /// annotations alone, so groups of several applications with the same annotations are one here.
    pub fn counts(&self) -> Vec<(u16, &BTreeMap<String, String>)> {
        let mut counts: Vec<(u16, &BTreeMap<String, String>)> = Vec::new();
        for group in &self.groups {
            match counts.iter_mut().find(|(_, annotations)| **annotations == group.annotations) {
                Some((count, _)) => *count = count.saturating_add(group.count),
                None => counts.push((group.count, &group.annotations)),
            }
        }
        counts
    }
}

/// A provider that should run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredProvider {
    /// `builtin:NAME`, or where its archive comes from.
    pub reference: String,
    /// `V…`.
    pub public_key: String,
    /// Link name it serves.
    pub link_name: String,
    /// Contract it serves.
    pub contract_id: String,
    /// Start configuration, opaque.
    #[serde(default)]
    pub configuration: Option<String>,
    /// Free text of whoever asked for it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The applications that need it, `""` for a command. It stops when the last one lets go: applications share a
    /// built-in provider as lattices share a released one.
    #[serde(default)]
    pub applications: BTreeSet<String>,
    /// The token of the archive it was found in; nothing for one inside this process.
    #[serde(default)]
    pub token: Option<String>,
    /// On whose word it comes from `reference`.
    #[serde(default, skip_serializing_if = "Requester::is_lattice")]
    pub requester: Requester,
    /// The account that signed it; nothing in records of earlier versions and for what is part of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
}

/// A link that should exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredLink {
    /// The link itself: one copy in memory for all who look at it.
    #[serde(with = "shared_link")]
    pub link: Arc<LinkDefinition>,
    /// The application it belongs to, `""` for one put by itself.
    #[serde(default)]
    pub application: String,
    /// It came over the lattice while commands could change only what came over it: servers of this process listen for it
    /// on loopback, where no setting names more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confined: bool,
}

impl DesiredLink {
    /// Whether servers of this process listen for it on loopback only.
    pub fn is_confined(&self, rule: remote::Rule) -> bool {
        self.application.is_empty()
            && match rule {
                remote::Rule::Always(remote) => remote != Rights::Full,
                remote::Rule::ByLogin => self.confined,
            }
    }

    /// What it counts against the bytes of links from the lattice: nothing where a manifest of this board brought it.
    pub fn lattice_bytes(&self) -> usize {
        if self.application.is_empty() { self.bytes() } else { 0 }
    }

    /// Bytes of its names and values.
    pub fn bytes(&self) -> usize {
        let link = &self.link;
        let names = [&link.actor_id, &link.provider_id, &link.link_name, &link.contract_id];
        let values = link.values.iter().map(|(name, value)| name.len() + value.len());
        names.into_iter().map(String::len).sum::<usize>() + values.sum::<usize>()
    }
}

/// Everything that should run here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By public key.
    pub actors: BTreeMap<String, DesiredActor>,
    /// By public key and link name.
    pub providers: BTreeMap<(String, String), DesiredProvider>,
    /// By link identity.
    pub links: BTreeMap<String, DesiredLink>,
    /// Who signed the actor or provider of this key, as long as it should run or has links here. Another issuer does not get
    /// its place and its links by a command.
    pub issuers: BTreeMap<String, String>,
    /// Manifests as they were last applied, by the name of their application.
    pub applied: BTreeMap<String, Applied>,
}

/// Record names: one letter for the kind, then the identity.
fn actor_name(key: &str) -> Vec<u8> {
    format!("a/{key}").into_bytes()
}

fn provider_name((key, link_name): &(String, String)) -> Vec<u8> {
    format!("p/{key}/{link_name}").into_bytes()
}

fn link_name(id: &str) -> Vec<u8> {
    format!("l/{id}").into_bytes()
}

fn issuer_name(key: &str) -> Vec<u8> {
    format!("i/{key}").into_bytes()
}

fn applied_name(application: &str) -> Vec<u8> {
    format!("m/{application}").into_bytes()
}

impl Desired {
    /// Whether `patient` should run.
    pub fn wants(&self, patient: &Patient) -> bool {
        match patient {
            Patient::Actor(key) => self.actors.contains_key(key),
            Patient::Provider(key, link_name) => self.providers.contains_key(&(key.clone(), link_name.clone())),
        }
    }

    /// Reads the table, and says in words what of it could not be read; such a record is left where it is. Links from the
    /// lattice beyond what a host keeps are left out.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn load(store: &Store) -> Result<Loaded> {
        let mut desired = Self::default();
        let (mut problems, mut surplus, mut lattice_bytes) = (Vec::new(), Vec::new(), 0);
        for (name, value) in store.scan(Table::Desired, b"")? {
            let text = String::from_utf8_lossy(&name).into_owned();
            let read = match text.split_once('/').map(|(kind, _)| kind) {
                Some("a") => decode::<DesiredActor>(&value).map(|actor| {
                    desired.actors.insert(actor.public_key.clone(), actor);
                }),
                Some("p") => decode::<DesiredProvider>(&value).map(|provider| {
                    desired.providers.insert((provider.public_key.clone(), provider.link_name.clone()), provider);
                }),
                Some("l") => decode::<DesiredLink>(&value).map(|link| {
                    let bytes = link.lattice_bytes();
                    if bytes > 0 && lattice_bytes + bytes > MAX_LATTICE_LINKS_BYTES {
                        surplus.push(name);
                    } else {
                        lattice_bytes += bytes;
                        desired.links.insert(link.link.id.clone(), link);
                    }
                }),
                Some("m") => decode::<Applied>(&value).map(|applied| {
                    desired.applied.insert(applied.name.clone(), applied);
                }),
                Some("i") => decode::<String>(&value).map(|issuer| {
                    desired.issuers.insert(text["i/".len()..].to_owned(), issuer);
                }),
                _ => Err("unknown kind of record".to_owned()),
            };
            if let Err(cause) = read {
                problems.push(format!("desired state: the record {text} cannot be used and was left alone: {cause}"));
            }
        }
        if !surplus.is_empty() {
            problems.push(format!(
                "desired state: {} links from the lattice were dropped: together they have more than \
                 {MAX_LATTICE_LINKS_BYTES} bytes",
                surplus.len()
            ));
        }
        Ok(Loaded { desired, problems, surplus })
    }

    /// The writes that turn `self` into `wanted` on disk, all or nothing.
    pub fn changes(&self, wanted: &Self) -> Result<Batch> {
        let batch = difference(Batch::new(), &self.actors, &wanted.actors, |key| actor_name(key))?;
        let batch = difference(batch, &self.providers, &wanted.providers, provider_name)?;
        let batch = difference(batch, &self.links, &wanted.links, |id| link_name(id))?;
        let batch = difference(batch, &self.issuers, &wanted.issuers, |key| issuer_name(key))?;
        difference(batch, &self.applied, &wanted.applied, |name| applied_name(name))
    }

    /// Notes who signed what should run, and forgets who signed what is gone with all its links.
    pub fn keep_issuers(&mut self) {
        let actors = self.actors.iter().map(|(key, actor)| (key, &actor.issuer));
        let providers = self.providers.values().map(|provider| (&provider.public_key, &provider.issuer));
        let signed = actors.chain(providers).filter_map(|(key, issuer)| Some((key.clone(), issuer.clone()?)));
        let signed: Vec<_> = signed.collect();
        self.issuers.extend(signed);
        let mut known = BTreeSet::new();
        known.extend(self.actors.keys());
        known.extend(self.providers.keys().map(|(key, _)| key));
        known.extend(self.links.values().flat_map(|link| [&link.link.actor_id, &link.link.provider_id]));
        self.issuers.retain(|key, _| known.contains(key));
    }

    /// Notes for each actor whose module is another one than `before` which that was.
    pub fn keep_previous(&mut self, before: &Self) {
        for (key, actor) in &mut self.actors {
            let Some(old) = before.actors.get(key) else { continue };
            actor.previous = if old.digest == actor.digest { old.previous } else { Some(old.digest) };
        }
    }

    /// Bytes of all links that came over the lattice.
    pub fn lattice_link_bytes(&self) -> usize {
        self.links.values().map(DesiredLink::lattice_bytes).sum()
    }

    /// Refuses more than this host takes on.
    pub fn check_limits(&self) -> Result<()> {
        let bytes = self.lattice_link_bytes();
        if bytes > MAX_LATTICE_LINKS_BYTES {
            return Err(Error::limit(format!(
                "the links from the lattice would have {bytes} bytes together, a host keeps {MAX_LATTICE_LINKS_BYTES}: \
                 remove some first"
            )));
        }
        for (what, count, limit) in [
            ("actors", self.actors.len(), MAX_ENTITIES),
            ("providers", self.providers.len(), MAX_ENTITIES),
            ("links", self.links.len(), MAX_LINKS),
        ] {
            if count > limit {
                return Err(Error::limit(format!(
                    "{count} {what} asked for, a host takes on {limit}: remove some first"
                )));
            }
        }
        for actor in self.actors.values() {
            let (key, groups) = (&actor.public_key, actor.groups.len());
            if groups > MAX_GROUPS {
                return Err(Error::limit(format!(
                    "{groups} groups of instances with different annotations asked for of the actor {key}, a host \
                     takes on {MAX_GROUPS}: stop some first"
                )));
            }
            let total: u64 = actor.groups.iter().map(|group| u64::from(group.count)).sum();
            if total > u64::from(u16::MAX) {
                return Err(Error::limit(format!(
                    "{total} instances asked for of the actor {key}, a host takes on {}: stop some first, or ask for \
                     fewer",
                    u16::MAX
                )));
            }
        }
        Ok(())
    }

    /// Takes everything away that belongs to the application `name`.
    pub fn without_application(&self, name: &str) -> Self {
        let mut next = self.clone();
        next.actors.retain(|_, actor| {
            actor.groups.retain(|group| group.application != name);
            !actor.groups.is_empty()
        });
        next.providers.retain(|_, provider| !(provider.applications.remove(name) && provider.applications.is_empty()));
        next.links.retain(|_, link| link.application != name);
        next.applied.remove(name);
        next
    }

    /// Replaces everything that belongs to the application of `applied` by what `new` holds. What commands made of the same
    /// actors, providers and links before gives way: a changed manifest is newer than they are.
    ///
    /// # Errors
    /// Something of `new` belongs to another application already, or is there under another reference.
    pub fn replace_application(&self, applied: Applied, new: Desired) -> Result<Self> {
        let mut next = self.with_application(&applied.name, new)?;
        next.applied.insert(applied.name.clone(), applied);
        Ok(next)
    }

    /// As [`Desired::replace_application`], without a record of what the manifest said.
    ///
    /// # Errors
    /// As [`Desired::replace_application`].
    pub fn with_application(&self, name: &str, new: Desired) -> Result<Self> {
        let mut next = self.without_application(name);
        for (key, actor) in new.actors {
            let Some(other) = next.actors.get_mut(&key) else {
                next.actors.insert(key, actor);
                continue;
            };
            if other.reference != actor.reference {
                if let Some(group) = other.groups.iter().find(|group| !group.application.is_empty()) {
                    return Err(Error::conflict(format!(
                        "the actor {key} of {name} already runs from {}, as the application {} says: stop it there \
                         first, or use that reference",
                        other.reference, group.application
                    )));
                }
                other.reference = actor.reference;
            }
            other.digest = actor.digest;
            other.requester = actor.requester;
            other.issuer = actor.issuer;
            other.groups.extend(actor.groups);
        }
        for (key, provider) in new.providers {
            match next.providers.get_mut(&key) {
                None => drop(next.providers.insert(key, provider)),
                Some(other) if other.applications.iter().all(String::is_empty) => {
                    let mut applications = std::mem::take(&mut other.applications);
                    applications.insert(name.to_owned());
                    *other = DesiredProvider { applications, annotations: other.annotations.clone(), ..provider };
                }
                Some(other) => {
                    if other.reference == provider.reference {
                        other.requester = provider.requester;
                    }
                    other.applications.insert(name.to_owned());
                }
            }
        }
        for (id, link) in new.links {
            let other = next.links.get(&id).filter(|other| !other.application.is_empty() && other.link != link.link);
            if let Some(other) = other {
                return Err(Error::conflict(format!(
                    "{name} links the actor {} under {} with link name {}, which the application {} did with other \
                     values: remove that link first",
                    link.link.actor_id, link.link.contract_id, link.link.link_name, other.application
                )));
            }
            next.links.insert(id, link);
        }
        next.check_limits()?;
        Ok(next)
    }

    /// Puts newer modules and archives of the application `name` in their places, where they run as its manifest says: the
    /// manifest is the same, and what it names has moved on.
    pub fn refresh_application(&self, name: &str, new: &Desired) -> Self {
        let mut next = self.clone();
        for (key, actor) in &new.actors {
            let there = next.actors.get_mut(key).filter(|there| there.reference == actor.reference);
            if let Some(there) = there.filter(|there| there.groups.iter().any(|group| group.application == name)) {
                there.digest = actor.digest;
                there.issuer.clone_from(&actor.issuer);
                there.requester = actor.requester;
            }
        }
        for (key, provider) in &new.providers {
            let there = next.providers.get_mut(key).filter(|there| there.reference == provider.reference);
            if let Some(there) = there.filter(|there| there.applications.contains(name)) {
                there.token.clone_from(&provider.token);
                there.contract_id.clone_from(&provider.contract_id);
            }
        }
        next
    }
}

/// Refuses a link that is too long.
pub(super) fn check_length(link: &DesiredLink) -> Result<()> {
    let bytes = link.bytes();
    if bytes > MAX_LINK_BYTES {
        return Err(Error::limit(format!(
            "the link of actor {:.60} has {bytes} bytes of names and values, a link has at most {MAX_LINK_BYTES}",
            link.link.actor_id
        )));
    }
    Ok(())
}

/// The desired state as the store remembers it.
pub struct Loaded {
    /// What should run.
    pub desired: Desired,
    /// What could not be read, one sentence each.
    pub problems: Vec<String>,
    /// Names of records beyond what a host keeps: to be removed.
    pub surplus: Vec<Vec<u8>>,
}

fn difference<K: Ord, V: PartialEq + Serialize>(
    mut batch: Batch,
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    name: impl Fn(&K) -> Vec<u8>,
) -> Result<Batch> {
    for key in old.keys().filter(|key| !new.contains_key(key)) {
        batch = batch.delete(Table::Desired, name(key));
    }
    for (key, value) in new.iter().filter(|(key, value)| old.get(key) != Some(value)) {
        let text = serde_json::to_vec(value)
            .map_err(|cause| Error::internal(format!("cannot write a desired state record: {cause}")))?;
        batch = batch.put(Table::Desired, name(key), text);
    }
    Ok(batch)
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|cause| cause.to_string())
}

/// A link that many look at, as the link itself.
mod shared_link {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::wire::LinkDefinition;

    pub fn serialize<S: Serializer>(link: &Arc<LinkDefinition>, serializer: S) -> Result<S::Ok, S::Error> {
        link.as_ref().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<LinkDefinition>, D::Error> {
        LinkDefinition::deserialize(deserializer).map(Arc::new)
    }
}

/// A digest as its hexadecimal text.
pub(super) mod digest_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::store::Digest;

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A digest that need not be there.
mod digest_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::store::Digest;

    pub fn serialize<S: Serializer>(digest: &Option<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.collect_str(digest),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
