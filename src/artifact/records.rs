//! What this board remembers of artifacts: which reference brought which content, which content is pinned, and in which
//! order they were used.
//!
//! Small records in the store, read once at the start. A use is noted in memory and goes to disk with the next record that
//! is written anyway: starting what is here already writes nothing. All else is in memory when it is on disk and not before,
//! so that both say the same whatever a commit comes to. It never touches the content itself; `retention` does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use smol::{channel, lock};

use crate::{
    artifact::Content,
    error::{Error, Result},
    lock::{Mutex, MutexGuard},
    log,
    store::{Batch, Digest, Store, Table},
};

/// How many references are remembered. A board runs a few dozen; past this the one unused for longest is forgotten and
/// needs its source the next time.
pub const MAX_RECORDS: usize = 256;

/// How many contents can be pinned; one more is refused. Pins are an operator's promise, made one by one.
pub const MAX_PINS: usize = 256;

/// Beginning of the name of a reference's record.
const REFERENCE: &str = "r/";

/// Longest manifest that is kept, bytes. One of an artifact has 600; an index of twenty platforms 10 000. A longer one is not
/// kept: boards that have its image by the digest of the manifest get it from the registry and not from this board's mirror.
pub const MAX_KEPT_MANIFEST_BYTES: usize = 16 << 10;

/// Beginning of the name under which a manifest is kept.
const MANIFEST: &str = "m/";

/// Beginning of the name of a pin's record.
const PIN: &str = "p/";

/// What is remembered of a reference. Members added later get a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the content, as text.
    digest: String,
    /// Of the manifest that named it, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// Of the manifests between reference and content that are kept, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kept_manifests: Vec<String>,
    /// The higher, the later it was used.
    #[serde(default)]
    order: u64,
    /// When the content was fetched, Unix seconds by the board's clock.
    #[serde(default)]
    pub fetched: u64,
    /// Nobody has checked yet what the content is worth. Such content is not given to other boards.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unchecked: bool,
}

impl Record {
    /// Of the content.
    pub fn digest(&self) -> Option<Digest> {
        self.digest.parse().ok()
    }

    /// Of the manifest that named it.
    pub fn manifest(&self) -> Option<Digest> {
        self.manifest.as_ref()?.parse().ok()
    }

    /// The higher, the later it was used.
    pub fn order(&self) -> u64 {
        self.order
    }

    /// As it is kept.
    fn to_bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|cause| Error::internal(format!("cannot write the record of an artifact: {cause}")))
    }

    /// Whether both say the same of their reference.
    fn agrees_with(&self, other: &Self) -> bool {
        (&self.digest, &self.manifest, &self.kept_manifests) == (&other.digest, &other.manifest, &other.kept_manifests)
    }
}

/// The manifest with this digest, if a reference was followed through it and it is kept. Small, and not among the blobs: it
/// comes and goes with the record of its reference, in the same commit.
///
/// # Errors
/// `Storage`.
pub fn kept_manifest(store: &Store, digest: Digest) -> Result<Option<Vec<u8>>> {
    let text = store.get(Table::Artifact, format!("{MANIFEST}{digest}").as_bytes())?;
    Ok(text.filter(|text| Digest::of(text) == digest))
}

#[derive(Default)]
struct State {
    records: BTreeMap<String, Record>,
    pins: BTreeSet<Digest>,
    /// The highest given so far.
    order: u64,
}

/// Has the manifests of `gone`, whose record is not there any more, removed where none of those that `stay` needs them.
fn without_manifests_of<'a>(gone: &Record, stay: impl Iterator<Item = &'a Record> + Clone, mut batch: Batch) -> Batch {
    for manifest in &gone.kept_manifests {
        if !stay.clone().any(|record| record.kept_manifests.contains(manifest)) {
            batch = batch.delete(Table::Artifact, format!("{MANIFEST}{manifest}"));
        }
    }
    batch
}

impl State {
    /// Whether the content `digest` was accepted, under any reference; `None` where no reference brought it.
    fn is_accepted(&self, digest: &str) -> Option<bool> {
        let mut records = self.records.values().filter(|record| record.digest == digest).peekable();
        records.peek()?;
        Some(records.any(|record| !record.unchecked))
    }

    /// The manifests that are kept for another reference with the manifest of `record`.
    fn manifests_like(&self, record: &Record) -> Vec<String> {
        let same = |other: &&Record| other.manifest == record.manifest && other.digest == record.digest;
        let manifests = || self.records.values().filter(same).map(|other| other.kept_manifests.clone());
        match record.manifest {
            Some(_) => manifests().max_by_key(Vec::len).unwrap_or_default(),
            None => Vec::new(),
        }
    }
}

/// All records of one store.
pub struct Records {
    store: Store,
    state: Arc<Mutex<State>>,
    /// Changes one at a time: each is computed from what the one before left on disk.
    changing: Arc<lock::Mutex<()>>,
}

/// The right to change something, until it is on disk and in memory, or in neither.
type Turn = lock::MutexGuardArc<()>;

impl Records {
    /// Those in `store`. One that cannot be read is left out: its content is fetched again.
    pub fn load(store: Store) -> Self {
        let mut state = State::default();
        for key in store.look(|view| view.keys(Table::Artifact, b"")) {
            let name = String::from_utf8_lossy(&key).into_owned();
            if let Some(digest) = name.strip_prefix(PIN) {
                state.pins.extend(digest.parse::<Digest>());
            } else if let Some(reference) = name.strip_prefix(REFERENCE) {
                let value = store.get(Table::Artifact, &key).ok().flatten();
                match value.and_then(|value| serde_json::from_slice::<Record>(&value).ok()) {
                    Some(record) => {
                        state.order = state.order.max(record.order);
                        state.records.insert(reference.to_owned(), record);
                    }
                    None => {
                        log::warn!("a record of an artifact cannot be read; it is fetched again"; reference = reference)
                    }
                }
            }
        }
        Self { store, state: Arc::new(Mutex::new(state)), changing: Arc::default() }
    }

    /// What is remembered of `reference`.
    pub fn find(&self, reference: &str) -> Option<Record> {
        self.state().records.get(reference).cloned()
    }

    /// The content that any reference had by the manifest `manifest`.
    pub fn by_manifest(&self, manifest: Digest) -> Option<Digest> {
        let text = manifest.to_string();
        self.state().records.values().find(|record| record.manifest.as_ref() == Some(&text))?.digest()
    }

    /// Everything, by reference.
    pub fn all(&self) -> BTreeMap<String, Record> {
        self.state().records.clone()
    }

    /// Whether the content `digest` was accepted, under any reference; `None` where no reference brought it.
    pub fn is_accepted(&self, digest: Digest) -> Option<bool> {
        self.state().is_accepted(&digest.to_string())
    }

    /// The contents to which the kept manifest `manifest` led.
    pub fn behind_manifest(&self, manifest: Digest) -> Vec<Digest> {
        let text = manifest.to_string();
        let state = self.state();
        let through = state.records.values().filter(|record| record.kept_manifests.contains(&text));
        through.filter_map(Record::digest).collect()
    }

    /// Notes in memory that `reference` is used.
    pub fn touch(&self, reference: &str) {
        let mut state = self.state();
        state.order += 1;
        let order = state.order;
        if let Some(record) = state.records.get_mut(reference) {
            record.order = order;
        }
    }

    /// Remembers that `reference` stands for `content`, on disk when this returns. Writes nothing where that is known.
    /// Content that was not accepted before waits for [`Records::accept`]. Where there are too many references, the one
    /// unused for longest goes, but none of `needed`.
    ///
    /// # Errors
    /// `Storage`, `Limit`: those of the store.
    pub async fn remember(
        &self,
        reference: &str,
        digest: Digest,
        content: &Content,
        needed: &BTreeSet<Digest>,
    ) -> Result<()> {
        self.note(reference, digest, content, needed, false).await
    }

    /// As [`Records::remember`], for content that is accepted already: written at once.
    ///
    /// # Errors
    /// Those of [`Records::remember`].
    pub async fn remember_accepted(
        &self,
        reference: &str,
        digest: Digest,
        content: &Content,
        needed: &BTreeSet<Digest>,
    ) -> Result<()> {
        self.note(reference, digest, content, needed, true).await
    }

    async fn note(
        &self,
        reference: &str,
        digest: Digest,
        content: &Content,
        needed: &BTreeSet<Digest>,
        accepted: bool,
    ) -> Result<()> {
        let turn = self.turn().await;
        let (batch, record, oldest) = {
            let mut state = self.state();
            state.order += 1;
            let mut record = Record {
                digest: digest.to_string(),
                manifest: content.manifest.map(|manifest| manifest.to_string()),
                kept_manifests: content.manifests.iter().map(|text| Digest::of(text).to_string()).collect(),
                order: state.order,
                fetched: unix_seconds(),
                unchecked: !accepted && state.is_accepted(&digest.to_string()) != Some(true),
            };
            // Whoever had no need to look at them again does not take them away.
            if record.kept_manifests.is_empty() {
                record.kept_manifests = state.manifests_like(&record);
            }
            if let Some(known) = state.records.get_mut(reference)
                && known.agrees_with(&record)
                && known.unchecked == record.unchecked
            {
                known.order = record.order;
                return Ok(());
            }
            let mut batch = Batch::new();
            for (text, digest) in content.manifests.iter().zip(&record.kept_manifests) {
                batch = batch.put(Table::Artifact, format!("{MANIFEST}{digest}"), text.clone());
            }
            let mut oldest = None;
            if !state.records.contains_key(reference) && state.records.len() >= MAX_RECORDS {
                let free = |record: &&Record| record.digest().is_none_or(|digest| !needed.contains(&digest));
                let free = state.records.iter().filter(|(_, record)| free(record));
                oldest = free.min_by_key(|(_, record)| record.order).map(|(name, _)| name.clone());
            }
            if let Some(oldest) = &oldest {
                batch = batch.delete(Table::Artifact, format!("{REFERENCE}{oldest}"));
            }
            let goes = |name: &str| name == reference || oldest.as_deref() == Some(name);
            let stay = state.records.iter().filter(|(name, _)| !goes(name)).map(|(_, record)| record);
            for gone in state.records.iter().filter(|(name, _)| goes(name)).map(|(_, record)| record) {
                batch = without_manifests_of(gone, stay.clone().chain([&record]), batch);
            }
            let value = record.to_bytes()?;
            (batch.put(Table::Artifact, format!("{REFERENCE}{reference}"), value), record, oldest)
        };
        let reference = reference.to_owned();
        self.change(turn, batch, move |state| {
            if let Some(oldest) = oldest {
                state.records.remove(&oldest);
            }
            state.records.insert(reference, record);
        })
        .await
    }

    /// The content `digest` that `reference` brought is what it should be, on disk when this returns. Writes nothing
    /// where that is known, or the reference stands for something else by now.
    ///
    /// # Errors
    /// `Storage`, `Limit`: those of the store.
    pub async fn accept(&self, reference: &str, digest: Digest) -> Result<()> {
        let turn = self.turn().await;
        let accepted = match self.state().records.get(reference) {
            Some(record) if record.unchecked && record.digest() == Some(digest) => {
                Record { unchecked: false, ..record.clone() }
            }
            _ => return Ok(()),
        };
        let batch = Batch::new().put(Table::Artifact, format!("{REFERENCE}{reference}"), accepted.to_bytes()?);
        let reference = reference.to_owned();
        self.change(turn, batch, move |state| {
            if let Some(record) = state.records.get_mut(&reference) {
                record.unchecked = false;
            }
        })
        .await
    }

    /// Forgets these references, on disk when this returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn forget(&self, references: &[String]) -> Result<()> {
        let turn = self.turn().await;
        let (batch, known) = {
            let state = self.state();
            let goes = |name: &String| references.contains(name);
            let stay = state.records.iter().filter(|(name, _)| !goes(name)).map(|(_, record)| record);
            let (mut batch, mut known) = (Batch::new(), Vec::new());
            for (name, gone) in state.records.iter().filter(|(name, _)| goes(name)) {
                batch = batch.delete(Table::Artifact, format!("{REFERENCE}{name}"));
                batch = without_manifests_of(gone, stay.clone(), batch);
                known.push(name.clone());
            }
            (batch, known)
        };
        if known.is_empty() {
            return Ok(());
        }
        self.change(turn, batch, move |state| state.records.retain(|name, _| !known.contains(name))).await
    }

    /// What must stay, whatever else.
    pub fn pins(&self) -> BTreeSet<Digest> {
        self.state().pins.clone()
    }

    /// Pins `digest`, or lets it go; on disk when this returns.
    ///
    /// # Errors
    /// `Limit` for more than [`MAX_PINS`]; those of the store.
    pub async fn pin(&self, digest: Digest, pinned: bool) -> Result<()> {
        let turn = self.turn().await;
        let name = format!("{PIN}{digest}");
        if pinned && self.state().pins.len() >= MAX_PINS {
            return Err(Error::limit(format!("{MAX_PINS} artifacts are pinned already; let some go with --remove")));
        }
        let batch = match pinned {
            true => Batch::new().put(Table::Artifact, name, ""),
            false => Batch::new().delete(Table::Artifact, name),
        };
        self.change(turn, batch, move |state| {
            if pinned {
                state.pins.insert(digest);
            } else {
                state.pins.remove(&digest);
            }
        })
        .await
    }

    /// When `digest` was last used by any reference; 0 for what none brought.
    pub fn order_of(&self, digest: Digest) -> u64 {
        let text = digest.to_string();
        self.state()
            .records
            .values()
            .filter(|record| record.digest == text)
            .map(|record| record.order)
            .max()
            .unwrap_or(0)
    }

    async fn turn(&self) -> Turn {
        self.changing.lock_arc().await
    }

    /// Commits `batch`, and then, if that went well, does the same to what is in memory.
    async fn change(&self, turn: Turn, batch: Batch, follow: impl FnOnce(&mut State) + Send + 'static) -> Result<()> {
        let (committed, state) = (self.store.commit(batch), self.state.clone());
        let (telling, told) = channel::bounded(1);
        // Whoever waits for this may be dropped meanwhile, and the commit goes on: so must what follows it.
        smol::unblock(move || {
            let outcome = smol::block_on(committed);
            if outcome.is_ok() {
                follow(&mut state.lock());
            }
            drop(turn);
            // Nobody waits for it any more.
            let _ = telling.try_send(outcome);
        })
        .detach();
        told.recv().await.unwrap_or_else(|_| Err(Error::internal("a change of the records ended unexpectedly")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

/// Now, by the board's clock; 0 before 1970.
fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{self, FaultDisk};

    #[test]
    fn a_manifest_stays_as_long_as_a_reference_was_followed_through_it() {
        let store = Store::open(store::Settings::default(), Arc::new(FaultDisk::new())).unwrap().0;
        let records = Records::load(store.clone());
        let (index, own, other) = (b"index".to_vec(), b"own".to_vec(), b"other".to_vec());
        let (content, needed) = (Digest::of(b"module"), BTreeSet::new());
        let through = |manifests: &[&Vec<u8>]| Content {
            digest: Some(content),
            manifest: Some(Digest::of(manifests[0])),
            manifests: manifests.iter().map(|text| (*text).clone()).collect(),
            ..Content::default()
        };
        let remember = |name: &str, it: &Content| smol::block_on(records.remember(name, content, it, &needed)).unwrap();
        let kept = |text: &Vec<u8>| kept_manifest(&store, Digest::of(text)).unwrap().as_ref() == Some(text);
        remember("r.example/a:1", &through(&[&index, &own]));
        remember("r.example/b:1", &through(&[&own]));
        assert!(kept(&index) && kept(&own) && !kept(&other));

        // Found here and not looked at again: whoever says nothing of them takes nothing away, and holds them too.
        let pinned = Content { manifests: Vec::new(), ..through(&[&index]) };
        remember("r.example/a@sha256:…", &pinned);
        remember("r.example/a:1", &pinned);
        smol::block_on(records.forget(&["r.example/a:1".into()])).unwrap();
        assert!(kept(&index) && kept(&own));
        smol::block_on(records.forget(&["r.example/a@sha256:…".into()])).unwrap();
        assert!(!kept(&index) && kept(&own));

        // A tag that moved lets go of what it was.
        remember("r.example/b:1", &through(&[&other]));
        assert!(!kept(&own) && kept(&other));
        let again = Records::load(store.clone());
        assert_eq!(again.find("r.example/b:1").unwrap().manifest(), Some(Digest::of(&other)));
        smol::block_on(again.forget(&["r.example/b:1".into()])).unwrap();
        assert_eq!(store.look(|view| view.count(Table::Artifact, b"")), 0);
    }

    fn agree(records: &Records) {
        let disk = Records::load(records.store.clone());
        let digests = |records: &Records| {
            records.all().into_iter().map(|(name, record)| (name, record.digest())).collect::<Vec<_>>()
        };
        assert_eq!(digests(records), digests(&disk));
        assert_eq!(records.pins(), disk.pins());
    }

    #[test]
    fn memory_and_disk_say_the_same_when_a_commit_fails() {
        let disk = FaultDisk::new();
        let store = Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap().0;
        let records = Records::load(store);
        let (one, two, needed) = (Digest::of(b"one"), Digest::of(b"two"), BTreeSet::new());
        let remember =
            |name: &str, digest| smol::block_on(records.remember(name, digest, &Content::default(), &needed));
        remember("r.example/a:1", one).unwrap();
        for number in 2..=MAX_RECORDS {
            remember(&format!("r.example/many:{number}"), two).unwrap();
        }
        smol::block_on(records.pin(one, true)).unwrap();

        disk.set_read_only(true);
        // The first moves a tag, the second would push the oldest out.
        assert!(remember("r.example/a:1", two).is_err());
        agree(&records);
        assert!(remember("r.example/new:1", one).is_err());
        agree(&records);
        assert!(smol::block_on(records.forget(&["r.example/a:1".into()])).is_err());
        agree(&records);
        assert!(smol::block_on(records.pin(one, false)).is_err());
        assert!(smol::block_on(records.pin(two, true)).is_err());
        agree(&records);
        assert_eq!(records.find("r.example/a:1").unwrap().digest(), Some(one));

        disk.set_read_only(false);
        remember("r.example/a:1", two).unwrap();
        remember("r.example/new:1", one).unwrap();
        agree(&records);
        assert_eq!(records.all().len(), MAX_RECORDS);
    }

    #[test]
    fn content_is_unchecked_until_it_is_accepted_under_any_reference() {
        let store = Store::open(store::Settings::default(), Arc::new(FaultDisk::new())).unwrap().0;
        let records = Records::load(store.clone());
        let (one, two, needed) = (Digest::of(b"one"), Digest::of(b"two"), BTreeSet::new());
        let remember =
            |name: &str, digest| smol::block_on(records.remember(name, digest, &Content::default(), &needed)).unwrap();
        assert_eq!(records.is_accepted(one), None);
        remember("r.example/a:1", one);
        assert_eq!(records.is_accepted(one), Some(false));
        smol::block_on(records.accept("r.example/a:1", two)).unwrap();
        assert_eq!(records.is_accepted(one), Some(false), "something else was accepted");
        smol::block_on(records.accept("r.example/a:1", one)).unwrap();
        assert_eq!(records.is_accepted(one), Some(true));
        // Known content under another name; a name that moves to content nobody has seen.
        remember("r.example/b:1", one);
        assert_eq!(Records::load(store.clone()).is_accepted(one), Some(true));
        remember("r.example/a:1", two);
        assert_eq!((records.is_accepted(two), records.is_accepted(one)), (Some(false), Some(true)));
        // What an operator brought, under a name of its own.
        let vouched = Digest::of(b"vouched");
        smol::block_on(records.remember_accepted("r.example/c:1", vouched, &Content::default(), &needed)).unwrap();
        assert_eq!(Records::load(store.clone()).is_accepted(vouched), Some(true));
        smol::block_on(records.forget(&["r.example/c:1".into()])).unwrap();
        assert_eq!(Records::load(store.clone()).is_accepted(two), Some(false), "a restart accepts nothing");
        smol::block_on(records.forget(&["r.example/b:1".into()])).unwrap();
        assert_eq!(records.is_accepted(one), None);

        // As earlier versions wrote it: what was refused they had removed.
        let old = format!(r#"{{"digest":"{one}","order":3}}"#);
        smol::block_on(store.commit(Batch::new().put(Table::Artifact, "r/r.example/old:1", old))).unwrap();
        assert_eq!(Records::load(store).is_accepted(one), Some(true));
    }

    #[test]
    fn a_change_nobody_waits_for_any_more_is_made_in_both_places() {
        let store = Store::open(store::Settings::default(), Arc::new(FaultDisk::new())).unwrap().0;
        let records = Records::load(store);
        let (one, needed, content) = (Digest::of(b"one"), BTreeSet::new(), Content::default());
        smol::block_on(smol::future::poll_once(records.remember("r.example/a:1", one, &content, &needed)));
        // Comes after it.
        smol::block_on(records.pin(one, true)).unwrap();
        assert_eq!(records.find("r.example/a:1").unwrap().digest(), Some(one));
        agree(&records);
    }
}
