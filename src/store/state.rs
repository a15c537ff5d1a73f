//! The index in memory: where in the log each key's value lies.
//!
//! A key costs its own length plus about 90 bytes (a 16-byte pointer, a 16-byte location, the allocator's header and
//! rounding, and a B-tree that is two thirds full). Values stay on disk and are checked each time they are read.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use super::{
    disk::{Disk, DiskFile, failed},
    format::{self, Salt},
};
use crate::error::{Error, Result};

/// Where a value lies. Sixteen bytes, as there is one for each key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) bytes: u32,
    /// Of the value alone, so that one value can be checked without its whole frame. Costs memory, no disk.
    pub(super) crc: u32,
}

/// One file of the log.
pub(super) struct Segment {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) name: String,
    pub(super) salt: Salt,
    /// Where the next frame goes.
    pub(super) end: u64,
    /// Length of the file; zeros from `end` on.
    pub(super) allocated: u64,
    /// Bytes of operations in it that still count.
    pub(super) live: u64,
}

/// What the log holds now.
#[derive(Default)]
pub(super) struct State {
    pub(super) index: BTreeMap<Box<[u8]>, Location>,
    pub(super) segments: BTreeMap<u32, Segment>,
    /// Bytes of operations that count, over all segments.
    pub(super) live_bytes: u64,
    /// Changes that were decided on and then not made.
    pub(super) failed_writes: u64,
}

impl State {
    pub(super) fn put(&mut self, key: &[u8], location: Location) {
        let bytes = format::put_bytes(key.len(), location.bytes as usize);
        let old = match self.index.get_mut(key) {
            Some(old) => Some(std::mem::replace(old, location)),
            None => self.index.insert(key.into(), location),
        };
        self.account(key, old);
        self.live_bytes += bytes;
        if let Some(segment) = self.segments.get_mut(&location.segment) {
            segment.live += bytes;
        }
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        let old = self.index.remove(key);
        self.account(key, old);
    }

    /// Takes what `key` cost at `old` off the books.
    fn account(&mut self, key: &[u8], old: Option<Location>) {
        let Some(old) = old else { return };
        let bytes = format::put_bytes(key.len(), old.bytes as usize);
        self.live_bytes -= bytes;
        if let Some(segment) = self.segments.get_mut(&old.segment) {
            segment.live -= bytes;
        }
    }

    /// Bytes the segments take, without the zeros at their ends.
    pub(super) fn log_bytes(&self) -> u64 {
        self.segments.values().map(|segment| segment.end).sum()
    }

    /// The file and place of `key`'s value.
    pub(super) fn locate(&self, key: &[u8]) -> Option<(Arc<dyn DiskFile>, Location)> {
        let location = *self.index.get(key)?;
        let segment = self.segments.get(&location.segment)?;
        Some((Arc::clone(&segment.file), location))
    }

    /// Entries whose key starts with `prefix`, in order.
    pub(super) fn range<'a>(&'a self, prefix: &'a [u8]) -> impl DoubleEndedIterator<Item = (&'a [u8], Location)> + 'a {
        let end = after(prefix);
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.index.range::<[u8], _>((Bound::Included(prefix), upper)).map(|(key, location)| (&**key, *location))
    }
}

/// Reads the value at `location` and checks it.
pub(super) fn read_value(disk: &dyn Disk, file: &dyn DiskFile, location: Location) -> Result<Vec<u8>> {
    let mut value = vec![0; location.bytes as usize];
    let count = file
        .read_at(u64::from(location.offset), &mut value)
        .map_err(|cause| failed("cannot read a value", disk, &cause))?;
    if count != value.len() || crc32fast::hash(&value) != location.crc {
        return Err(Error::storage(format!(
            "a value in the state directory {} was damaged since it was written (segment {:08x}, byte {}): \
             the storage medium is failing; set the key again, and replace the medium",
            disk.place(),
            location.segment,
            location.offset,
        )));
    }
    Ok(value)
}

/// The least byte string above all that start with `prefix`; `None` when there is none.
pub(super) fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// What becomes of a key: a new value, or `None` to remove it.
type Change = Option<Vec<u8>>;

/// Changes decided on and not yet written, over a [`State`].
#[derive(Default)]
pub(super) struct Overlay {
    pub(super) changes: BTreeMap<Box<[u8]>, Change>,
    /// Bytes of keys and values in `changes`.
    pub(super) bytes: usize,
    /// How the live bytes and keys change by it.
    pub(super) growth_bytes: i64,
    pub(super) growth_keys: i64,
}

/// A consistent look at the store.
pub struct View<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) state: &'a State,
    pub(super) overlay: &'a Overlay,
}

/// What a part of a table takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl View<'_> {
    /// The value of `key`; reads it from disk.
    ///
    /// # Errors
    /// `Storage` when it cannot be read or was damaged.
    pub fn get(&self, table: super::Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_full(&table.full_key(key))
    }

    fn get_full(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(change) = self.overlay.changes.get(key) {
            return Ok(change.clone());
        }
        match self.state.locate(key) {
            Some((file, location)) => read_value(self.disk, file.as_ref(), location).map(Some),
            None => Ok(None),
        }
    }

    /// Whether `key` exists. Reads nothing.
    pub fn contains(&self, table: super::Table, key: &[u8]) -> bool {
        self.contains_full(&table.full_key(key))
    }

    pub(super) fn contains_full(&self, key: &[u8]) -> bool {
        match self.overlay.changes.get(key) {
            Some(change) => change.is_some(),
            None => self.state.index.contains_key(key),
        }
    }

    /// What `key` takes in the log, 0 if it does not exist.
    pub(super) fn cost(&self, key: &[u8]) -> u64 {
        self.value_len_full(key).map_or(0, |length| format::put_bytes(key.len(), length))
    }

    fn value_len_full(&self, key: &[u8]) -> Option<usize> {
        match self.overlay.changes.get(key) {
            Some(change) => change.as_ref().map(Vec::len),
            None => self.state.index.get(key).map(|location| location.bytes as usize),
        }
    }

    /// Length of `key`'s value, if it exists. Reads nothing.
    pub fn value_len(&self, table: super::Table, key: &[u8]) -> Option<usize> {
        self.value_len_full(&table.full_key(key))
    }

    /// Changes that were decided on and then not made, since the store was opened. Whoever keeps in memory what a
    /// [`Transaction`] did must forget it when this number has changed.
    pub fn failed_writes(&self) -> u64 {
        self.state.failed_writes
    }

    /// How many keys start with `prefix`. Reads nothing.
    pub fn count(&self, table: super::Table, prefix: &[u8]) -> u64 {
        let prefix = table.full_key(prefix);
        let stored = self.state.range(&prefix).count() as u64;
        let changes = self.changes(&prefix).fold(0_i64, |count, (key, value)| {
            count + i64::from(value.is_some()) - i64::from(self.state.index.contains_key(key))
        });
        stored.saturating_add_signed(changes)
    }

    /// The keys that start with `prefix`, in order. Reads nothing.
    pub fn keys(&self, table: super::Table, prefix: &[u8]) -> Vec<Vec<u8>> {
        let prefix = table.full_key(prefix);
        let mut keys: Vec<Vec<u8>> = self
            .state
            .range(&prefix)
            .map(|(key, _)| key)
            .filter(|key| !self.overlay.changes.contains_key(*key))
            .chain(self.changes(&prefix).filter(|(_, value)| value.is_some()).map(|(key, _)| key))
            .map(|key| key[1..].to_vec())
            .collect();
        keys.sort_unstable();
        keys
    }

    /// The last key that starts with `prefix`. Reads nothing.
    pub fn last_key(&self, table: super::Table, prefix: &[u8]) -> Option<Vec<u8>> {
        let prefix = table.full_key(prefix);
        let stored =
            self.state.range(&prefix).rev().map(|(key, _)| key).find(|key| !self.overlay.changes.contains_key(*key));
        let changed = self.changes(&prefix).filter(|(_, value)| value.is_some()).map(|(key, _)| key).last();
        stored.max(changed).map(|key| key[1..].to_vec())
    }

    /// Keys and bytes under `prefix`. Reads nothing.
    pub fn usage(&self, table: super::Table, prefix: &[u8]) -> Usage {
        let prefix = table.full_key(prefix);
        let mut usage = Usage::default();
        let mut add = |key: &[u8], value: usize| {
            usage.keys += 1;
            usage.bytes += (key.len() - 1 + value) as u64;
        };
        for (key, location) in self.state.range(&prefix) {
            if !self.overlay.changes.contains_key(key) {
                add(key, location.bytes as usize);
            }
        }
        for (key, value) in self.changes(&prefix) {
            if let Some(value) = value {
                add(key, value.len());
            }
        }
        usage
    }

    /// Keys and values under `prefix`, in key order.
    ///
    /// # Errors
    /// `Storage` when one of them cannot be read or was damaged.
    pub fn scan(&self, table: super::Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut found = Vec::new();
        for key in self.keys(table, prefix) {
            if let Some(value) = self.get(table, &key)? {
                found.push((key, value));
            }
        }
        Ok(found)
    }

    fn changes<'b>(&'b self, prefix: &'b [u8]) -> impl Iterator<Item = (&'b [u8], &'b Change)> + 'b {
        self.overlay
            .changes
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (&**key, value))
    }
}

/// Changes being decided on, by code that sees what it has changed so far. See [`Store::update`](super::Store::update).
pub struct Transaction<'a> {
    pub(super) disk: &'a dyn Disk,
    pub(super) state: &'a State,
    pub(super) overlay: &'a mut Overlay,
    /// What the overlay said before this transaction changed it.
    undo: Vec<(Box<[u8]>, Option<Change>)>,
    seen: HashSet<Box<[u8]>>,
    before: (usize, i64, i64),
}

impl<'a> Transaction<'a> {
    pub(super) fn new(disk: &'a dyn Disk, state: &'a State, overlay: &'a mut Overlay) -> Self {
        let before = (overlay.bytes, overlay.growth_bytes, overlay.growth_keys);
        Self { disk, state, overlay, undo: Vec::new(), seen: HashSet::new(), before }
    }

    /// The store with the changes so far.
    pub fn view(&self) -> View<'_> {
        View { disk: self.disk, state: self.state, overlay: self.overlay }
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, table: super::Table, key: &[u8], value: impl Into<Vec<u8>>) {
        self.change(table.full_key(key).into(), Some(value.into()));
    }

    /// Removes `key`; answers whether it was there.
    pub fn delete(&mut self, table: super::Table, key: &[u8]) -> bool {
        let key = table.full_key(key);
        let existed = self.view().contains_full(&key);
        if existed {
            self.change(key.into(), None);
        }
        existed
    }

    fn change(&mut self, key: Box<[u8]>, value: Option<Vec<u8>>) {
        let old_cost = self.view().cost(&key);
        let new_cost = value.as_ref().map_or(0, |value| format::put_bytes(key.len(), value.len()));
        self.overlay.growth_bytes += new_cost as i64 - old_cost as i64;
        self.overlay.growth_keys += i64::from(new_cost > 0) - i64::from(old_cost > 0);
        self.overlay.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        let old = self.overlay.changes.insert(key.clone(), value);
        if self.seen.insert(key.clone()) {
            self.undo.push((key, old));
        }
    }

    /// Bytes this transaction has added to the overlay, and how it makes the live bytes and keys grow.
    pub(super) fn size(&self) -> (usize, i64, i64) {
        let (bytes, growth_bytes, growth_keys) = self.before;
        (self.overlay.bytes - bytes, self.overlay.growth_bytes - growth_bytes, self.overlay.growth_keys - growth_keys)
    }

    /// Takes every change of this transaction back.
    pub(super) fn undo(self) {
        for (key, old) in self.undo {
            match old {
                Some(old) => self.overlay.changes.insert(key, old),
                None => self.overlay.changes.remove(&key),
            };
        }
        (self.overlay.bytes, self.overlay.growth_bytes, self.overlay.growth_keys) = self.before;
    }
}
