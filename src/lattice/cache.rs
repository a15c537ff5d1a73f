//! What this host knows of its lattice: claims, references and aliases, kept here and on disk, and what waits to be written
//! to the bucket (`protocol/cache.md §5`).
//!
//! `sync` fills it and empties it; everybody else asks. What this host changes goes into the bucket as soon as there is one;
//! until then it waits, on disk too, and the newest value of a key is the one that counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use event_listener::Event as Signal;

use super::bucket::Entry;
use crate::{
    error::Result,
    lock::{Mutex, MutexGuard},
    log,
    store::{Batch, Store, Table},
    wire::cache::{Aliases, ClaimsRecord, Key, ReferenceRecord},
};

/// Entities and references kept at most; more of a lattice than this a board need not know.
const MAX_ENTRIES: usize = 8192;

/// Bytes of entries written to disk together; well below what one commit may hold.
const COMMIT_BYTES: usize = 256 * 1024;

/// Longest key that is written to the bucket, bytes. It is part of a subject, and a server ends the connection over a line of
/// more than 4096 bytes with subject and place for the answer. A reference whose key is longer stays known here alone.
const MAX_KEY_BYTES: usize = 3072;

/// Record names in the store: what is known by its key in the bucket, what waits to be written after this letter.
const WAITING: &str = "w/";

/// What this host knows of its lattice.
pub struct Cache {
    store: Store,
    known: Mutex<Known>,
    /// Something waits to be written.
    pub(super) waiting: Signal,
}

#[derive(Default)]
struct Known {
    claims: BTreeMap<String, ClaimsRecord>,
    references: BTreeMap<String, String>,
    aliases: Aliases,
    /// Not in the bucket yet: a value, or `None` for a delete.
    waiting: BTreeMap<String, Option<Vec<u8>>>,
    /// Keys of these that the bucket refused; not tried until something about them changes or the bucket is met anew.
    refused: BTreeSet<String>,
    /// Claims as this process wrote them last. What others make of them afterwards is theirs to say.
    told: BTreeMap<String, Vec<u8>>,
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
                // From before there was a limit.
                Some(key) if key.len() > MAX_KEY_BYTES => {}
                Some(key) => drop(known.waiting.insert(key.to_owned(), Some(value).filter(|value| !value.is_empty()))),
                None => drop(known.put(&name, &value)),
            }
        }
        Ok(Arc::new(Self { store, known: Mutex::new(known), waiting: Signal::new() }))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
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

    /// What is on disk of `key`, as it stands in the bucket.
    pub(super) fn stored(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.store.get(Table::Claims, key.as_bytes())
    }

    /// Remembers what keys of the bucket say now, in memory and on disk, in as few writes as will do.
    pub(super) async fn remember(&self, entries: &[Entry]) -> Result<()> {
        let (mut batch, mut bytes) = (Batch::new(), 0);
        for Entry { key, value, .. } in entries {
            if self.stored(key)?.as_deref() == value.as_deref() {
                continue;
            }
            match value {
                Some(value) if self.known().put(key, value) => {
                    bytes += key.len() + value.len();
                    batch = batch.put(Table::Claims, key.as_bytes(), &**value);
                }
                // What is not remembered costs no space on disk either.
                Some(_) => continue,
                None => {
                    self.known().remove(key);
                    bytes += key.len();
                    batch = batch.delete(Table::Claims, key.as_bytes());
                }
            }
            if bytes >= COMMIT_BYTES {
                self.store.commit(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        if bytes > 0 {
            self.store.commit(batch).await?;
        }
        Ok(())
    }

    /// Has `value` written to the bucket as soon as may be, and keeps it on disk until then. `None` is a delete.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn write(&self, key: &Key, value: Option<Vec<u8>>) -> Result<()> {
        let text = key.text();
        if !matches!(key, Key::Link(_)) {
            let entry = Entry { key: text.clone(), value: value.clone().map(Into::into), number: 0 };
            self.remember(std::slice::from_ref(&entry)).await?;
        }
        if text.len() > MAX_KEY_BYTES {
            log::debug!("a key of {} bytes is too long for the lattice's bucket and stays here", text.len());
            return Ok(());
        }
        let record = value.clone().unwrap_or_default();
        {
            let mut known = self.known();
            known.refused.remove(&text);
            if let (Key::Claims(_), Some(value)) = (key, &value) {
                known.told.insert(text.clone(), value.clone());
            }
            known.waiting.insert(text.clone(), value);
        }
        self.store.commit(Batch::new().put(Table::Claims, format!("{WAITING}{text}"), record)).await?;
        self.waiting.notify(usize::MAX);
        Ok(())
    }

    /// Something that waits to be written.
    pub(super) fn next_waiting(&self) -> Option<(String, Option<Vec<u8>>)> {
        let known = self.known();
        let next = known.waiting.iter().find(|(key, _)| !known.refused.contains(*key));
        next.map(|(key, value)| (key.clone(), value.clone()))
    }

    /// Whether a value of `key` waits that is newer than what the bucket says. One that the bucket refused does not count:
    /// what others say meanwhile holds.
    pub(super) fn waits(&self, key: &str) -> bool {
        let known = self.known();
        known.waiting.contains_key(key) && !known.refused.contains(key)
    }

    /// The same for the link `id`.
    pub(super) fn waits_for_link(&self, id: &str) -> bool {
        self.waits(&Key::Link(id.to_owned()).text())
    }

    /// The bucket does not take what waits for `key`: the others go on.
    pub(super) fn refused(&self, key: &str) {
        self.known().refused.insert(key.to_owned());
    }

    /// Everything that waits is tried again.
    pub(super) fn try_again(&self) {
        self.known().refused.clear();
    }

    /// Whether something was refused.
    pub(super) fn any_refused(&self) -> bool {
        !self.known().refused.is_empty()
    }

    /// Whether the claims `record`, written as `value`, are to be told: nobody knows them, or they differ from what is known
    /// and from what this process told, and are no older. Hosts with an older revision are silent, so that of two that run
    /// different ones during a change the newer stays in the bucket.
    pub(super) fn is_news(&self, record: &ClaimsRecord, value: &[u8]) -> Result<bool> {
        let key = Key::Claims(record.subject.clone()).text();
        let stored = self.stored(&key)?;
        let known = self.known();
        let newer = known.claims.get(&record.subject).is_some_and(|there| there.revision > record.revision);
        Ok(match stored {
            None => true,
            Some(stored) => stored != value && !newer && known.told.get(&key).is_none_or(|told| told != value),
        })
    }

    /// `value` of `key` is in the bucket.
    pub(super) async fn written(&self, key: &str, value: &Option<Vec<u8>>) -> Result<()> {
        {
            let mut known = self.known();
            // A newer value may have come meanwhile; that one still waits.
            if known.waiting.get(key) != Some(value) {
                return Ok(());
            }
            known.waiting.remove(key);
        }
        self.store.commit(Batch::new().delete(Table::Claims, format!("{WAITING}{key}"))).await
    }
}

impl Known {
    /// Takes over a value, and says whether it did.
    fn put(&mut self, key: &str, value: &[u8]) -> bool {
        match Key::parse(key) {
            Some(Key::Claims(subject)) => match ClaimsRecord::parse(value) {
                Ok(record) if record.subject != subject => {
                    log::warn!("claims in the lattice's bucket stand under a wrong key"; key = key);
                    false
                }
                Ok(record) if has_room(&self.claims, &subject) => {
                    self.aliases.put(&record);
                    self.claims.insert(subject, record);
                    true
                }
                Ok(_) => {
                    log::warn!("the lattice has more than {MAX_ENTRIES} entities; {subject} is not remembered");
                    false
                }
                Err(error) => {
                    log::warn!("{error}"; key = key);
                    false
                }
            },
            Some(Key::Reference(reference)) => match ReferenceRecord::parse(value) {
                Ok(record) if has_room(&self.references, &reference) => {
                    self.references.insert(reference, record.public_key);
                    true
                }
                Ok(_) => {
                    log::warn!("the lattice has more than {MAX_ENTRIES} references; one is not remembered");
                    false
                }
                Err(error) => {
                    log::warn!("{error}"; key = key);
                    false
                }
            },
            Some(Key::Link(_)) | None => false,
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

/// Whether `key` may be in `table`: what is known already may always change.
fn has_room<V>(table: &BTreeMap<String, V>, key: &str) -> bool {
    table.len() < MAX_ENTRIES || table.contains_key(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{RealDisk, Settings};

    fn claims(number: usize, name: &str) -> Entry {
        let subject = format!("M{number:05}");
        let record = ClaimsRecord { subject: subject.clone(), name: name.to_owned(), ..ClaimsRecord::default() };
        Entry { key: Key::Claims(subject).text(), value: Some(record.encode().unwrap().into()), number: 0 }
    }

    fn reference(number: usize, key: &str) -> Entry {
        let record = ReferenceRecord { reference: format!("registry/{number}:1"), public_key: key.to_owned() };
        let value = Some(record.encode().unwrap().into());
        Entry { key: Key::Reference(record.reference).text(), value, number: 0 }
    }

    #[test]
    fn a_full_table_still_takes_changes_of_what_it_knows_and_nothing_else_reaches_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) =
            Store::open(Settings::default(), Arc::new(RealDisk::new(directory.path().to_owned()))).unwrap();
        let cache = Cache::load(store.clone()).unwrap();
        let mut entries: Vec<Entry> = (0..MAX_ENTRIES).map(|number| claims(number, "old")).collect();
        entries.extend((0..MAX_ENTRIES).map(|number| reference(number, "Mold")));
        let changed =
            [claims(7, "new"), claims(MAX_ENTRIES, "late"), reference(7, "Mnew"), reference(MAX_ENTRIES, "Mlate")];
        smol::block_on(async {
            cache.remember(&entries).await.unwrap();
            cache.remember(&changed).await.unwrap();
        });
        for cache in [cache, Cache::load(store.clone()).unwrap()] {
            assert_eq!(cache.claims().len(), MAX_ENTRIES);
            assert_eq!(cache.claims()[7].name, "new");
            assert_eq!(cache.resolve_reference("registry/7:1").as_deref(), Some("Mnew"));
            assert_eq!(cache.resolve_reference(&format!("registry/{MAX_ENTRIES}:1")), None);
        }
        assert_eq!(store.scan(Table::Claims, b"").unwrap().len(), 2 * MAX_ENTRIES);
        // One that goes makes room for another.
        let gone = Entry { value: None, ..claims(3, "") };
        smol::block_on(cache_of(&store).remember(&[gone, claims(MAX_ENTRIES, "late")])).unwrap();
        assert!(cache_of(&store).claims().iter().any(|one| one.name == "late"));
    }

    fn cache_of(store: &Store) -> Arc<Cache> {
        Cache::load(store.clone()).unwrap()
    }
}
