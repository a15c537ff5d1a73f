//! The tables of the store, and changes gathered to be made together.

/// What a record is about. The number is on disk: it is never reused for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Table {
    /// This host itself: its seed and labels.
    Host = 1,
    /// What should run: actors, providers, manifests.
    Desired = 2,
    /// Link definitions.
    Link = 3,
    /// Claims seen, so that names are known before the bytes are.
    Claims = 4,
    /// What actors keep through the key-value capability.
    KeyValue = 5,
    /// Where artifacts were fetched to: reference to digest; and which of them are pinned.
    Artifact = 6,
    /// Blobs that have arrived in part, for whoever fetches the rest.
    Partial = 7,
    /// Messages of actors that wait for a connection.
    Outgoing = 8,
    /// Names under which artifacts are offered to other boards: name to digest.
    Published = 9,
    /// Events that wait for a connection.
    Event = 10,
}

impl Table {
    /// `key` as the index and the log hold it: the table's number first.
    pub(super) fn full_key(self, key: &[u8]) -> Vec<u8> {
        let mut full = Vec::with_capacity(1 + key.len());
        full.push(self as u8);
        full.extend_from_slice(key);
        full
    }
}

/// Changes that are made together: after a power cut all of them are there, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub(super) changes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The changes of both, these first.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.changes.extend(other.changes);
        self
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Sets `key` to `value`, whatever was there.
    #[must_use]
    pub fn put(mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.changes.push((table, key.into(), Some(value.into())));
        self
    }

    /// Removes `key`, if it is there.
    #[must_use]
    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.changes.push((table, key.into(), None));
        self
    }
}
