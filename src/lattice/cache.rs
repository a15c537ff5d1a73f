//! The lattice's bucket, seen from this host: claims, references and aliases kept here and on disk, links made part of what
//! should run (`protocol/cache.md`).
//!
//! One watch is the trigger for everything others change. What this host changes goes into the bucket as soon as there is a
//! connection; until then it waits, on disk too, and the newest value of a key is the one that counts. Without JetStream
//! nothing is lost but the sharing.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    kv::{self, Operation},
};
use event_listener::Event as Signal;
use futures_util::StreamExt;

use super::{
    Shared,
    connection::{Answer, within},
};
use crate::{
    error::{Error, Result},
    host::desired::Desired,
    log,
    store::{Batch, Store, Table},
    wire::{
        LinkDefinition,
        cache::{
            Aliases, ClaimsRecord, Key, ReferenceRecord, bucket, create_request, create_subject, encode_link,
            parse_link,
        },
        event::link::{LinkDeleted, LinkSet, ReferenceSet},
        text,
    },
};

/// Entities and references kept at most; more of a lattice than this a board need not know.
const MAX_ENTRIES: usize = 8192;

/// How long one request to JetStream may take.
const JETSTREAM_PATIENCE: Duration = Duration::from_secs(5);

/// Wait before the bucket is looked for again after it could not be had. There may be no JetStream at all, so a try now and
/// then has to do.
const RETRY: Duration = Duration::from_secs(30);

/// Record names in the store: what is known by its key in the bucket, what waits to be written after this letter.
const WAITING: &str = "w/";

/// What this host knows of its lattice.
pub struct Cache {
    store: Store,
    known: Mutex<Known>,
    /// Something waits to be written.
    waiting: Signal,
    /// Held while a link is changed here and in what waits for the bucket, so that nobody sees one without the other.
    linking: smol::lock::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// What the bucket says of links, as far as this host has heard.
    links: BTreeMap<String, LinkDefinition>,
    claims: BTreeMap<String, ClaimsRecord>,
    references: BTreeMap<String, String>,
    aliases: Aliases,
    /// Not in the bucket yet: a value, or `None` for a delete.
    waiting: BTreeMap<String, Option<Vec<u8>>>,
}

impl Cache {
    /// The cache as the store remembers it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn load(store: Store) -> Result<Arc<Self>> {
        let mut known = Known::default();
        for (name, value) in store.scan(Table::Claims, b"")? {
            let name = String::from_utf8_lossy(&name).into_owned();
            match name.strip_prefix(WAITING) {
                Some(key) => drop(known.waiting.insert(key.to_owned(), Some(value).filter(|value| !value.is_empty()))),
                None => known.put(&name, &value),
            }
        }
        Ok(Arc::new(Self {
            store,
            known: Mutex::new(known),
            waiting: Signal::new(),
            linking: smol::lock::Mutex::new(()),
        }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Every entity known, with its claims.
    pub fn claims(&self) -> Vec<ClaimsRecord> {
        self.known().claims.values().cloned().collect()
    }

    /// The actor somewhere in the lattice that answers to `alias`.
    pub fn resolve_alias(&self, alias: &str) -> Option<String> {
        self.known().aliases.find(alias).map(str::to_owned)
    }

    /// The entity that `reference` turned out to be.
    pub fn resolve_reference(&self, reference: &str) -> Option<String> {
        self.known().references.get(reference).cloned()
    }

    /// Remembers what a key of the bucket says now, in memory and on disk. `None` is a delete.
    async fn remember(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let stored = self.store.get(Table::Claims, key.as_bytes())?;
        if stored.as_deref() == value {
            return Ok(());
        }
        match value {
            Some(value) => {
                self.known().put(key, value);
                self.store.commit(Batch::new().put(Table::Claims, key.as_bytes(), value)).await
            }
            None => {
                self.known().remove(key);
                self.store.commit(Batch::new().delete(Table::Claims, key.as_bytes())).await
            }
        }
    }

    /// Has `value` written to the bucket as soon as may be, and keeps it on disk until then. `None` is a delete.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn write(&self, key: &Key, value: Option<Vec<u8>>) -> Result<()> {
        let text = key.text();
        if !matches!(key, Key::Link(_)) {
            self.remember(&text, value.as_deref()).await?;
        }
        let record = value.clone().unwrap_or_default();
        self.known().waiting.insert(text.clone(), value);
        self.store.commit(Batch::new().put(Table::Claims, format!("{WAITING}{text}"), record)).await?;
        self.waiting.notify(usize::MAX);
        Ok(())
    }

    /// To be held while a link is changed here and written there.
    pub async fn linking(&self) -> smol::lock::MutexGuard<'_, ()> {
        self.linking.lock().await
    }

    /// What the bucket says of the link under `key` now; `None` is a delete.
    fn heard_of_link(&self, key: &str, value: Option<&[u8]>) {
        let Some(Key::Link(id)) = Key::parse(key) else { return };
        match value.and_then(|value| parse_link(value).ok()) {
            Some(link) => drop(self.known().links.insert(id, link)),
            None => drop(self.known().links.remove(&id)),
        }
    }

    /// What waits to be written, oldest key first.
    fn next_waiting(&self) -> Option<(String, Option<Vec<u8>>)> {
        self.known().waiting.iter().next().map(|(key, value)| (key.clone(), value.clone()))
    }

    fn waits(&self, key: &str) -> bool {
        self.known().waiting.contains_key(key)
    }

    /// `value` of `key` is in the bucket.
    async fn written(&self, key: &str, value: &Option<Vec<u8>>) -> Result<()> {
        {
            let mut known = self.known();
            // A newer value may have come meanwhile; that one still waits.
            if known.waiting.get(key) != Some(value) {
                return Ok(());
            }
            known.waiting.remove(key);
        }
        self.heard_of_link(key, value.as_deref());
        self.store.commit(Batch::new().delete(Table::Claims, format!("{WAITING}{key}"))).await
    }
}

impl Known {
    fn put(&mut self, key: &str, value: &[u8]) {
        match Key::parse(key) {
            Some(Key::Claims(subject)) => match ClaimsRecord::parse(value) {
                Ok(record) if self.claims.len() < MAX_ENTRIES || self.claims.contains_key(&subject) => {
                    self.aliases.put(&record);
                    self.claims.insert(subject, record);
                }
                Ok(_) => log::warn!("the lattice has more than {MAX_ENTRIES} entities; {subject} is not remembered"),
                Err(error) => log::warn!("{error}"; key = key),
            },
            Some(Key::Reference(reference)) => match ReferenceRecord::parse(value) {
                Ok(record) if self.references.len() < MAX_ENTRIES => {
                    self.references.insert(reference, record.public_key);
                }
                Ok(_) => log::warn!("the lattice has more than {MAX_ENTRIES} references; one is not remembered"),
                Err(error) => log::warn!("{error}"; key = key),
            },
            Some(Key::Link(_)) | None => {}
        }
    }

    fn remove(&mut self, key: &str) {
        match Key::parse(key) {
            Some(Key::Claims(subject)) => {
                self.claims.remove(&subject);
                self.aliases.remove(&subject);
            }
            Some(Key::Reference(reference)) => drop(self.references.remove(&reference)),
            Some(Key::Link(_)) | None => {}
        }
    }
}

/// Follows the bucket for ever: sync at the start and after each lost connection, then each change.
pub async fn follow_for_ever(shared: Arc<Shared>) {
    let mut told = false;
    loop {
        shared.control.connected().await;
        let running = shared.clone();
        let following = async {
            match shared.control.run(async move { follow(&running).await }).await {
                Ok(Err(error)) | Err(error) => Some(error),
                Ok(Ok(never)) => match never {},
            }
        };
        // What changed while the line was down comes with the next sync; to wait for the watch to notice would take longer.
        let lost = async {
            shared.control.disconnected().await;
            None
        };
        let Some(error) = smol::future::or(following, lost).await else { continue };
        if !told {
            told = true;
            log::warn!("the lattice's bucket cannot be used: {error}; this host goes on with what it knows");
        }
        let lost = shared.control.changed();
        smol::future::or(lost, async {
            smol::Timer::after(RETRY).await;
        })
        .await;
    }
}

/// Opens the bucket, takes over what is in it, and follows it until something breaks. Runs on the library's runtime.
async fn follow(shared: &Arc<Shared>) -> Result<Infallible> {
    let context = shared.control.jetstream(shared.settings.js_domain.as_deref(), JETSTREAM_PATIENCE);
    let store = open(shared, &context).await?;
    let status = store.status().await.map_err(|cause| unusable("ask for its status", &cause))?;
    let mut watch = store.watch_with_history(">").await.map_err(|cause| unusable("watch it", &cause))?;
    let mut seen = BTreeSet::new();
    if status.values() > 0 {
        loop {
            let entry = within(JETSTREAM_PATIENCE, watch.next()).await;
            let Some(Some(entry)) = entry else {
                return Err(Error::unavailable("its content did not arrive"));
            };
            let entry = entry.map_err(|cause| unusable("read it", &cause))?;
            seen.insert(entry.key.clone());
            apply(shared, &entry, false).await;
            if entry.seen_current {
                break;
            }
        }
    }
    log::info!("the lattice's bucket is followed, {} entries", seen.len());
    push_missing(shared, &seen).await?;
    loop {
        let (waiting, desired_changed) = (shared.cache.waiting.listen(), shared.host.desired_changed());
        publish_links(shared).await?;
        flush(shared, &store).await?;
        let next = smol::future::or(async { Some(watch.next().await) }, async {
            smol::future::or(waiting, desired_changed).await;
            None
        })
        .await;
        match next {
            None => {}
            Some(Some(Ok(entry))) => apply(shared, &entry, true).await,
            Some(Some(Err(cause))) => return Err(unusable("go on watching it", &cause)),
            Some(None) => return Err(Error::unavailable("the watch ended")),
        }
    }
}

fn unusable(what: &str, cause: &dyn std::fmt::Display) -> Error {
    Error::unavailable(format!("cannot {what}: {cause}"))
}

/// The bucket, made when it is missing. One that is there is never changed: operators replicate it as they like.
///
/// Made by a request of our own: the library's way first asks for the account's limits, in words that servers before 2.10
/// do not answer in.
async fn open(shared: &Shared, context: &jetstream::Context) -> Result<kv::Store> {
    let (lattice, domain) = (shared.subjects.lattice(), shared.settings.js_domain.as_deref());
    if let Ok(store) = context.get_key_value(bucket(lattice)).await {
        return Ok(store);
    }
    let subject = create_subject(lattice, domain);
    let answer = match shared.control.request(subject, None, create_request(lattice), JETSTREAM_PATIENCE).await? {
        Answer::Message(message) => String::from_utf8_lossy(&message.payload).into_owned(),
        Answer::Nobody => return Err(Error::unavailable("there is no JetStream here")),
        Answer::Silence => return Err(Error::unavailable("JetStream does not answer")),
    };
    // Whether we made it or another host was quicker: what counts is that it is there now.
    context.get_key_value(bucket(lattice)).await.map_err(|_| unusable("make it", &text::prefix(&answer, 300)))
}

/// Takes over one entry. `live`: it was changed just now, so it is told to the lattice.
async fn apply(shared: &Arc<Shared>, entry: &kv::Entry, live: bool) {
    // What this host is about to write is newer than what the bucket says.
    if shared.cache.waits(&entry.key) {
        return;
    }
    let value = match entry.operation {
        Operation::Put => Some(&*entry.value),
        Operation::Delete | Operation::Purge => None,
    };
    shared.cache.heard_of_link(&entry.key, value);
    let outcome = match (Key::parse(&entry.key), value) {
        (Some(Key::Link(id)), Some(value)) => match parse_link(value) {
            Ok(link) if link.id == id => put_link(shared, link, live).await,
            Ok(link) => {
                log::warn!("a link in the lattice's bucket stands under a wrong key"; actor_id = link.actor_id);
                Ok(())
            }
            Err(error) => Err(error),
        },
        (Some(Key::Link(id)), None) => delete_link(shared, &id, live).await,
        (Some(_), value) => shared.cache.remember(&entry.key, value).await,
        (None, _) => Ok(()),
    };
    if let Err(error) = outcome {
        log::warn!("an entry of the lattice's bucket was not taken over: {error}"; key = entry.key);
    }
}

async fn put_link(shared: &Arc<Shared>, link: LinkDefinition, live: bool) -> Result<()> {
    let known = shared.host.desired().links.get(&link.id).is_some_and(|there| there.link == link);
    if known {
        return Ok(());
    }
    shared.host.change(|desired| desired.put_link(link.clone())).await?;
    if live {
        shared.events.emit(&LinkSet(&link));
    }
    Ok(())
}

async fn delete_link(shared: &Arc<Shared>, id: &str, live: bool) -> Result<()> {
    let Some(there) = shared.host.desired().links.get(id).map(|there| there.link.clone()) else {
        return Ok(());
    };
    shared.host.change(|desired| Ok(desired.delete_link(id))).await?;
    if live {
        shared.events.emit(&LinkDeleted(&there));
    }
    Ok(())
}

/// Links, claims and references of this host that the bucket has never heard of are written to it.
async fn push_missing(shared: &Arc<Shared>, seen: &BTreeSet<String>) -> Result<()> {
    // A bucket that was made anew knows nothing of what the old one said.
    shared.cache.known().links.retain(|id, _| seen.contains(&Key::Link(id.clone()).text()));
    publish_running(shared, &shared.host.desired(), seen).await
}

/// Links that came about here, by a manifest say, are written to the bucket as it does not have them.
async fn publish_links(shared: &Arc<Shared>) -> Result<()> {
    let _linking = shared.cache.linking().await;
    for wanted in shared.host.desired().links.values() {
        let (id, key) = (&wanted.link.id, Key::Link(wanted.link.id.clone()));
        if shared.cache.waits(&key.text()) || shared.cache.known().links.get(id) == Some(&wanted.link) {
            continue;
        }
        shared.cache.write(&key, Some(encode_link(&wanted.link)?)).await?;
        shared.events.emit(&LinkSet(&wanted.link));
    }
    Ok(())
}

/// Writes claims and references of what runs here, where the bucket does not have them already.
pub async fn publish_running(shared: &Arc<Shared>, desired: &Desired, seen: &BTreeSet<String>) -> Result<()> {
    let mut records = Vec::new();
    {
        let routes = shared.host.router().routes();
        for actor in routes.actors() {
            let claims = &actor.claims;
            let record = ClaimsRecord {
                call_alias: claims.call_alias.clone().unwrap_or_default(),
                issuer: claims.issuer.clone(),
                name: claims.name.clone(),
                capabilities: claims.caps.clone(),
                revision: claims.revision,
                tags: claims.tags.clone(),
                version: claims.version.clone(),
                subject: claims.subject.clone(),
                contract_id: String::new(),
                config_schema: None,
            };
            records.push((record, actor.desired.reference.clone()));
        }
    }
    for provider in desired.providers.values() {
        let record = ClaimsRecord {
            name: provider.reference.trim_start_matches("builtin:").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            subject: provider.public_key.clone(),
            contract_id: provider.contract_id.clone(),
            ..ClaimsRecord::default()
        };
        records.push((record, provider.reference.clone()));
    }
    for (record, reference) in records {
        let public_key = record.subject.clone();
        let key = Key::Claims(public_key.clone());
        let value = record.encode()?;
        let known = shared.cache.store.get(Table::Claims, key.text().as_bytes())?;
        if known.as_deref() != Some(&value) || (!seen.is_empty() && !seen.contains(&key.text())) {
            shared.cache.write(&key, Some(value)).await?;
        }
        if shared.cache.resolve_reference(&reference).as_ref() != Some(&public_key) {
            let value = ReferenceRecord { reference: reference.clone(), public_key: public_key.clone() }.encode()?;
            shared.cache.write(&Key::Reference(reference.clone()), Some(value)).await?;
            shared.events.emit(&ReferenceSet { oci_url: &reference, public_key: &public_key });
        }
    }
    Ok(())
}

/// Writes claims of what runs whenever that changes, for ever.
pub async fn publish_for_ever(shared: Arc<Shared>) {
    loop {
        let changed = shared.events.routes_changed.listen();
        let desired = shared.host.desired();
        if let Err(error) = publish_running(&shared, &desired, &BTreeSet::new()).await {
            log::warn!("claims were not kept: {error}");
        }
        changed.await;
    }
}

/// Writes to the bucket what waits for it.
async fn flush(shared: &Arc<Shared>, store: &kv::Store) -> Result<()> {
    while let Some((key, value)) = shared.cache.next_waiting() {
        let written = async {
            match &value {
                Some(value) => store.put(&key, value.clone().into()).await.map(drop).map_err(|cause| cause.to_string()),
                None => store.purge(&key).await.map_err(|cause| cause.to_string()),
            }
        };
        match within(JETSTREAM_PATIENCE, written).await {
            Some(Ok(())) => shared.cache.written(&key, &value).await?,
            Some(Err(cause)) => return Err(unusable("write to it", &cause)),
            None => return Err(unusable("write to it", &"it took too long")),
        }
    }
    Ok(())
}
