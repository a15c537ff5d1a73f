//! What is left of blobs that were cut off on their way: a file each, and a record of how much of it is sure to be there.
//!
//! `incoming` puts them here when it stops before the end and takes them again to go on; nobody else looks. Within one
//! process all that arrived is known and counts. The next process goes by the record, because of what was written after
//! it a power cut may have left anything; its file is hashed again from the beginning.
//!
//! It never hands out a byte, and never keeps more than [`MAX_PARTIALS`] or one for longer than [`MAX_AGE`].

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Batch, Store, Table,
    blobs::BLOBS_DIR,
    disk::{Disk, DiskFile},
    log::Shared,
};

/// Ends the name of a file that waits for the rest of its bytes.
pub(super) const PART: &str = ".part";

/// How many are kept. A board fetches a few artifacts at a time; one more makes room by giving up the oldest.
pub(super) const MAX_PARTIALS: usize = 8;

/// How long one is kept: a week, the longest outage somebody may wait out. Older ones are removed at the next start.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// 2020-01-01: a board whose clock says less does not know the time, and gives up nothing for its age.
const CLOCK_IS_SET: u64 = 1_577_836_800;

/// Read at once to hash what is there already, bytes.
const PIECE_BYTES: usize = 16 << 10;

/// One of them on disk. Members added later get a default, so that an update does not lose what a board has fetched.
#[derive(Serialize, Deserialize)]
struct Record {
    file: String,
    bytes: u64,
    #[serde(default)]
    validator: Option<String>,
    #[serde(default)]
    total: Option<u64>,
    /// When it was begun, Unix seconds by the board's clock.
    #[serde(default)]
    since: u64,
}

/// Which content the bytes are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// What its source calls this very content: an ETag, the identity of an object.
    pub(super) validator: Option<String>,
    /// Length of all of it.
    pub(super) total: Option<u64>,
}

/// One that waits for the rest.
pub(super) struct Partial {
    /// In the folder of blobs.
    pub(super) file: String,
    /// How many bytes of the file count.
    pub(super) bytes: u64,
    /// Of these bytes, where this process has seen them all.
    pub(super) hash: Option<Sha256>,
    pub(super) content: Content,
    since: u64,
    in_use: bool,
    /// Whether there is a record on disk.
    recorded: bool,
    order: u64,
}

/// All of them, by what whoever fetches calls them.
#[derive(Default)]
pub(super) struct Partials {
    by_name: BTreeMap<String, Partial>,
    next: u64,
}

/// What is taken to go on with.
pub(super) struct Taken {
    pub(super) file_name: String,
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) hash: Sha256,
    pub(super) bytes: u64,
    pub(super) content: Content,
}

/// Takes what is left of `name`, or begins it; `None` while another one works on it.
pub(super) fn take(shared: &Arc<Shared>, name: &str, limit: u64) -> Option<Taken> {
    let (file_name, bytes, hash, content) = {
        let mut partials = shared.partials.lock();
        if !partials.by_name.contains_key(name) {
            partials.make_room(shared);
            partials.next += 1;
            let order = partials.next;
            let partial = Partial {
                file: format!("incoming-{:016x}{PART}", random()),
                bytes: 0,
                hash: Some(Sha256::new()),
                content: Content::default(),
                since: now(),
                in_use: false,
                recorded: false,
                order,
            };
            partials.by_name.insert(name.to_owned(), partial);
        }
        let partial = partials.by_name.get_mut(name)?;
        if partial.in_use {
            return None;
        }
        partial.in_use = true;
        (partial.file.clone(), partial.bytes, partial.hash.take(), partial.content.clone())
    };
    let path = format!("{BLOBS_DIR}/{file_name}");
    if bytes > 0 && bytes <= limit {
        let found = shared.disk.open(&path).and_then(|file| {
            let hash = match hash {
                Some(hash) => hash,
                None => hash_of(file.as_ref(), bytes)?,
            };
            file.set_len(bytes)?;
            Ok((file, hash))
        });
        if let Ok((file, hash)) = found {
            return Some(Taken { file_name: path, file: Some(file), hash, bytes, content });
        }
    }
    // Nothing there, or nothing to go on with.
    let _ = shared.disk.remove(&path);
    Some(Taken { file_name: path, file: None, hash: Sha256::new(), bytes: 0, content: Content::default() })
}

/// What notes on disk that `bytes` of `name` are there for sure. The caller has synced them, and commits it.
pub(super) fn record(shared: &Arc<Shared>, name: &str, bytes: u64, content: &Content) -> Option<Batch> {
    let mut partials = shared.partials.lock();
    let partial = partials.by_name.get_mut(name)?;
    partial.recorded = true;
    let record = Record {
        file: partial.file.clone(),
        bytes,
        validator: content.validator.clone(),
        total: content.total,
        since: partial.since,
    };
    // Strings and numbers always serialise.
    Some(Batch::new().put(Table::Partial, name, serde_json::to_vec(&record).ok()?))
}

/// Puts back what has arrived so far, for whoever goes on with it.
pub(super) fn put_back(shared: &Arc<Shared>, name: &str, bytes: u64, hash: Sha256, content: Content) {
    if let Some(partial) = shared.partials.lock().by_name.get_mut(name) {
        (partial.bytes, partial.hash, partial.content, partial.in_use) = (bytes, Some(hash), content, false);
    }
}

/// Takes the note of `name` back: its bytes are about to be others.
pub(super) fn unrecord(shared: &Arc<Shared>, name: &str) {
    let recorded = shared.partials.lock().by_name.get_mut(name).is_some_and(|it| std::mem::take(&mut it.recorded));
    if recorded {
        // Starts at once, and what is committed later stays later.
        drop(Store { shared: shared.clone() }.commit(Batch::new().delete(Table::Partial, name)));
    }
}

/// Forgets `name`: it is complete, or nobody can go on with it. Its file is the caller's.
pub(super) fn forget(shared: &Arc<Shared>, name: &str) {
    let removed = shared.partials.lock().by_name.remove(name);
    if removed.is_some_and(|partial| partial.recorded) {
        // Starts at once. A record whose file is gone means nothing, so nobody waits for this.
        drop(Store { shared: shared.clone() }.commit(Batch::new().delete(Table::Partial, name)));
    }
}

/// What `name` has so far.
#[cfg(test)]
pub(super) fn bytes_of(shared: &Shared, name: &str) -> Option<u64> {
    shared.partials.lock().by_name.get(name).map(|partial| partial.bytes)
}

/// What has arrived of something whose rest is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What whoever fetches it calls it.
    pub name: String,
    /// How much of the medium it takes now.
    pub bytes: u64,
}

/// All of them, the one begun first in front. Blocks.
pub(super) fn list(shared: &Shared) -> Vec<Unfinished> {
    let mut found: Vec<(u64, String, String)> = {
        let partials = shared.partials.lock();
        partials.by_name.iter().map(|(name, one)| (one.order, name.clone(), one.file.clone())).collect()
    };
    found.sort_unstable();
    let length = |file: &str| shared.disk.open(&format!("{BLOBS_DIR}/{file}")).and_then(|file| file.len());
    // Without a file: nothing of it has arrived yet.
    found.into_iter().map(|(_, name, file)| Unfinished { name, bytes: length(&file).unwrap_or(0) }).collect()
}

/// Gives up `name`, unless somebody works on it; answers whether it did. Blocks.
pub(super) fn give_up(shared: &Arc<Shared>, name: &str) -> bool {
    let mut partials = shared.partials.lock();
    let idle = partials.by_name.get(name).is_some_and(|partial| !partial.in_use);
    if idle {
        partials.remove(shared, name);
    }
    idle
}

impl Partials {
    /// Gives up the oldest that nobody works on, if there are too many.
    fn make_room(&mut self, shared: &Arc<Shared>) {
        while self.by_name.len() >= MAX_PARTIALS {
            let idle = self.by_name.iter().filter(|(_, partial)| !partial.in_use);
            let Some(oldest) = idle.min_by_key(|(_, partial)| partial.order).map(|(name, _)| name.clone()) else {
                return;
            };
            self.remove(shared, &oldest);
        }
    }

    fn remove(&mut self, shared: &Arc<Shared>, name: &str) {
        let Some(partial) = self.by_name.remove(name) else { return };
        let _ = shared.disk.remove(&format!("{BLOBS_DIR}/{}", partial.file));
        if partial.recorded {
            drop(Store { shared: shared.clone() }.commit(Batch::new().delete(Table::Partial, name)));
        }
    }
}

/// Reads the records when a store is opened, and removes what makes no sense any more.
pub(super) fn load(store: &Store) {
    let shared = &store.shared;
    let names = shared.disk.list(BLOBS_DIR).unwrap_or_default();
    let mut files: Vec<String> = names.into_iter().filter(|name| name.ends_with(PART)).collect();
    let mut lost = Batch::new();
    let mut found = Vec::new();
    for key in store.look(|view| view.keys(Table::Partial, b"")) {
        let name = String::from_utf8_lossy(&key).into_owned();
        let record = store.get(Table::Partial, &key).ok().flatten();
        let usable = record
            .and_then(|record| serde_json::from_slice::<Record>(&record).ok())
            .filter(|record| files.contains(&record.file) && !is_old(record.since))
            .filter(|record| long_enough(shared.disk.as_ref(), record));
        let Some(record) = usable else {
            lost = lost.delete(Table::Partial, key);
            continue;
        };
        files.retain(|file| *file != record.file);
        found.push((name, record));
    }
    found.sort_by_key(|(_, record)| record.since);
    let mut partials = shared.partials.lock();
    for (name, record) in found {
        partials.next += 1;
        let partial = Partial {
            file: record.file,
            bytes: record.bytes,
            hash: None,
            content: Content { validator: record.validator, total: record.total },
            since: record.since,
            in_use: false,
            recorded: true,
            order: partials.next,
        };
        partials.by_name.insert(name, partial);
    }
    drop(partials);
    for file in files {
        let _ = shared.disk.remove(&format!("{BLOBS_DIR}/{file}"));
    }
    if lost != Batch::new() {
        drop(store.commit(lost));
    }
}

fn long_enough(disk: &dyn Disk, record: &Record) -> bool {
    let length = disk.open(&format!("{BLOBS_DIR}/{}", record.file)).and_then(|file| file.len());
    length.is_ok_and(|length| length >= record.bytes)
}

fn is_old(since: u64) -> bool {
    since >= CLOCK_IS_SET && now().saturating_sub(since) > MAX_AGE.as_secs()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// Tells files apart, also those of a process before. Without random numbers the time does.
fn random() -> u64 {
    getrandom::u64()
        .unwrap_or_else(|_| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_nanos() as u64))
}

fn hash_of(file: &dyn DiskFile, bytes: u64) -> std::io::Result<Sha256> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    while done < bytes {
        let wanted = PIECE_BYTES.min(usize::try_from(bytes - done).unwrap_or(PIECE_BYTES));
        let count = file.read_at(done, &mut piece[..wanted])?;
        if count != wanted {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&piece[..count]);
        done += count as u64;
    }
    Ok(hash)
}
