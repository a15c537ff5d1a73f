//! What each manifest of this board said when it was last applied, and where commands have changed that since.
//!
//! The rule (README, *Commands and manifests*): a manifest says what should run as it was when it was last changed. A
//! later command wins over an unchanged manifest and survives restarts. A changed manifest wins over earlier commands.
//! The lattice's bucket never changes what a manifest of this board says. Pure: the host writes these records to disk in
//! the same step as the desired state itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    error::{Error, Result},
    host::{
        Application,
        desired::{Desired, digest_text},
    },
    store::Digest,
    wire::LinkDefinition,
};

/// A manifest as it was last applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Name of its application.
    pub name: String,
    /// What the whole manifest said; another digest means that somebody changed it.
    #[serde(with = "digest_text")]
    pub content: Digest,
    /// Its actors, by public key.
    #[serde(default)]
    pub actors: BTreeMap<String, AppliedActor>,
    /// Its providers, by public key and link name.
    #[serde(default)]
    pub providers: Vec<AppliedProvider>,
    /// Its links, by identity: what provider and values they had.
    #[serde(default)]
    pub links: BTreeMap<String, DigestText>,
    /// What commands have changed since, by subject: `actor M…`, `provider V…/default`, `link …`. Bounded by the three
    /// tables above.
    #[serde(default)]
    pub changes: BTreeMap<String, Change>,
}

/// A digest inside a table, as its hexadecimal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DigestText(#[serde(with = "digest_text")] pub Digest);

/// An actor as a manifest asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedActor {
    /// Where its module comes from.
    pub reference: String,
    /// How many instances.
    pub count: u16,
}

/// A provider as a manifest asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedProvider {
    /// `V…`.
    pub public_key: String,
    /// Link name it serves.
    pub link_name: String,
    /// Where it comes from and how it is configured.
    pub content: DigestText,
}

/// What a command changed of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The difference: `is stopped`.
    pub what: String,
    /// When the command came, seconds since 1970; 0 where the clock was not to be trusted.
    pub since: u64,
    /// The command, as the sentence "by command of …" ends.
    pub by: String,
}

impl Applied {
    /// The record of `application`, which became `part`.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn new(application: &Application, part: &Desired) -> Result<Self> {
        let actors = part.actors.values().map(|actor| {
            let applied = AppliedActor { reference: actor.reference.clone(), count: actor.max_concurrent() };
            (actor.public_key.clone(), applied)
        });
        let providers = part.providers.values().map(|provider| AppliedProvider {
            public_key: provider.public_key.clone(),
            link_name: provider.link_name.clone(),
            content: provider_content(&provider.reference, provider.configuration.as_deref()),
        });
        let links = part.links.values().map(|link| (link.link.id.clone(), link_content(&link.link)));
        Ok(Self {
            name: application.name.clone(),
            content: content(application)?,
            actors: actors.collect(),
            providers: providers.collect(),
            links: links.collect(),
            changes: BTreeMap::new(),
        })
    }

    /// Whether `application` says what it said when it was last applied.
    pub fn is_unchanged(&self, application: &Application) -> bool {
        content(application).is_ok_and(|now| now == self.content)
    }

    /// Where `desired` is not what the manifest says, by subject.
    fn differences(&self, desired: &Desired) -> BTreeMap<String, String> {
        let actors = self.actors.iter().map(|(key, applied)| {
            let what = match desired.actors.get(key) {
                None => Some("is stopped".to_owned()),
                Some(now) if now.reference != applied.reference => {
                    Some(format!("runs from {} instead of {}", now.reference, applied.reference))
                }
                Some(now) if now.unannotated() != applied.count => {
                    Some(format!("runs {} instances instead of {}", now.unannotated(), applied.count))
                }
                Some(_) => None,
            };
            (format!("actor {key}"), what)
        });
        let providers = self.providers.iter().map(|applied| {
            let key = (applied.public_key.clone(), applied.link_name.clone());
            let what = match desired.providers.get(&key) {
                None => Some("is stopped".to_owned()),
                Some(now) if provider_content(&now.reference, now.configuration.as_deref()) != applied.content => {
                    Some("runs from another reference or with another configuration".to_owned())
                }
                Some(_) => None,
            };
            (format!("provider {}/{}", key.0, key.1), what)
        });
        let links = self.links.iter().map(|(id, applied)| {
            let what = match desired.links.get(id) {
                None => Some("is deleted".to_owned()),
                Some(now) if link_content(&now.link) != *applied => Some("has other values".to_owned()),
                Some(_) => None,
            };
            (format!("link {id}"), what)
        });
        let all = actors.chain(providers).chain(links);
        all.filter_map(|(subject, what)| Some((subject, what?))).collect()
    }

    /// Whether everything that is not as the manifest says was changed by a command. Else a record was lost, and the
    /// manifest is applied anew.
    pub fn is_explained(&self, desired: &Desired) -> bool {
        self.differences(desired).keys().all(|subject| self.changes.contains_key(subject))
    }

    /// One sentence for each difference.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        self.changes.iter().map(|(subject, Change { what, since, by })| {
            let since = match since {
                0 => "a time that this board's clock did not know".to_owned(),
                since => utc(*since),
            };
            format!("{subject} {what}: differs from manifest {} since {since}, by command of {by}", self.name)
        })
    }
}

impl Desired {
    /// Names of all applications of which something should run here or is known.
    pub fn applications(&self) -> BTreeSet<String> {
        let actors = self.actors.values().flat_map(|actor| &actor.groups).map(|group| &group.application);
        let providers = self.providers.values().flat_map(|provider| &provider.applications);
        let links = self.links.values().map(|link| &link.application);
        let all = actors.chain(providers).chain(links).filter(|name| !name.is_empty());
        all.chain(self.applied.keys()).cloned().collect()
    }

    /// The manifest that says something about the link `id`.
    pub fn manifest_of_link(&self, id: &str) -> Option<&str> {
        let applied = self.applied.values().find(|applied| applied.links.contains_key(id));
        let owner = || self.links.get(id).map(|link| link.application.as_str()).filter(|name| !name.is_empty());
        applied.map(|applied| applied.name.as_str()).or_else(owner)
    }

    /// The manifest that says something about the actor `key`.
    pub fn manifest_of_actor(&self, key: &str) -> Option<&str> {
        let applied = self.applied.values().find(|applied| applied.actors.contains_key(key));
        let owner = || {
            let groups = self.actors.get(key).map_or(&[][..], |actor| &actor.groups);
            groups.iter().map(|group| group.application.as_str()).find(|name| !name.is_empty())
        };
        applied.map(|applied| applied.name.as_str()).or_else(owner)
    }

    /// The manifest that says something about the provider `key`.
    pub fn manifest_of_provider(&self, key: &(String, String)) -> Option<&str> {
        let names = |applied: &&Applied| {
            applied.providers.iter().any(|one| (&one.public_key, &one.link_name) == (&key.0, &key.1))
        };
        let owner = || {
            let provider = self.providers.get(key)?;
            provider.applications.iter().map(String::as_str).find(|name| !name.is_empty())
        };
        self.applied.values().find(names).map(|applied| applied.name.as_str()).or_else(owner)
    }

    /// Notes what differs from each manifest by now; `by` made the last change, at `now`.
    pub(super) fn note_changes(&mut self, by: &str, now: u64) {
        let mut notes = BTreeMap::new();
        for (name, applied) in &self.applied {
            let differences = applied.differences(self);
            let note = |(subject, what): (String, String)| {
                let before = applied.changes.get(&subject).filter(|before| before.what == what);
                let change = before.cloned().unwrap_or_else(|| Change { what, since: now, by: by.to_owned() });
                (subject, change)
            };
            notes.insert(name.clone(), differences.into_iter().map(note).collect::<BTreeMap<_, _>>());
        }
        for (name, changes) in notes {
            if let Some(applied) = self.applied.get_mut(&name) {
                applied.changes = changes;
            }
        }
    }
}

/// A time for people: `2026-11-30 14:05 UTC`.
fn utc(unix_seconds: u64) -> String {
    let time = i64::try_from(unix_seconds).ok().and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.map_or_else(
        || format!("second {unix_seconds} of 1970"),
        |time| {
            let (date, hour, minute) = (time.date(), time.hour(), time.minute());
            format!("{date} {hour:02}:{minute:02} UTC")
        },
    )
}

fn content(application: &Application) -> Result<Digest> {
    let text = serde_json::to_vec(application)
        .map_err(|cause| Error::internal(format!("cannot write the application {}: {cause}", application.name)))?;
    Ok(Digest::of(&text))
}

fn provider_content(reference: &str, configuration: Option<&str>) -> DigestText {
    // The reference holds no NUL, so the two parts cannot be taken for each other.
    DigestText(Digest::of(
        format!("{reference}\0{}", configuration.map_or(String::new(), |text| format!("={text}"))).as_bytes(),
    ))
}

fn link_content(link: &LinkDefinition) -> DigestText {
    let mut text = link.provider_id.clone();
    for (name, value) in &link.values {
        // Lengths first: no two tables of values become one text.
        text.push_str(&format!("\0{}={name}{}={value}", name.len(), value.len()));
    }
    DigestText(Digest::of(text.as_bytes()))
}
