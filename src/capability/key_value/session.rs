//! One operation at work: the store as it sees it, restricted to its keyspace, with quotas and expiry.

use std::collections::HashMap;

use super::{layout, space::Space};
use crate::{
    error::{Error, Result},
    store::{Table, Transaction, Usage, View},
};

/// What each keyspace takes, so that it need not be counted for each change. Forgotten when a write fails.
#[derive(Default)]
pub(super) struct Totals {
    /// [`View::failed_writes`] when these were last right.
    as_of: u64,
    spaces: HashMap<Vec<u8>, Total>,
}

/// What one keyspace takes.
#[derive(Clone, Copy, Default)]
struct Total {
    usage: Usage,
    /// No key expires before this moment, as far as known; 0 is unknown.
    next_expiry_ms: u64,
}

/// Where an operation reads and writes.
enum Access<'a, 't> {
    Look(&'a View<'a>),
    Change(&'a mut Transaction<'t>),
}

/// One operation at work.
pub(super) struct Session<'a, 't> {
    access: Access<'a, 't>,
    space: &'a Space,
    now_ms: u64,
    /// What this operation adds, keys and bytes.
    growth: (i64, i64),
    /// The earliest expiry this operation has set.
    sets_expiry: Option<u64>,
    /// Keys seen to be expired that could not be removed because this only looks.
    pub(super) expired: Vec<String>,
}

impl<'a, 't> Session<'a, 't> {
    /// An operation that only reads.
    pub(super) fn look(view: &'a View<'a>, space: &'a Space, now_ms: u64) -> Self {
        Self::new(Access::Look(view), space, now_ms)
    }

    /// An operation that may change something; [`finish`](Self::finish) must follow.
    pub(super) fn change(transaction: &'a mut Transaction<'t>, space: &'a Space, now_ms: u64) -> Self {
        Self::new(Access::Change(transaction), space, now_ms)
    }

    fn new(access: Access<'a, 't>, space: &'a Space, now_ms: u64) -> Self {
        Self { access, space, now_ms, growth: (0, 0), sets_expiry: None, expired: Vec::new() }
    }

    fn with_view<T>(&self, work: impl FnOnce(&View<'_>) -> T) -> T {
        match &self.access {
            Access::Look(view) => work(view),
            Access::Change(transaction) => work(&transaction.view()),
        }
    }

    /// What stands before every key of the keyspace.
    pub(super) fn prefix(&self) -> &'a [u8] {
        &self.space.prefix
    }

    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.with_view(|view| view.get(Table::KeyValue, key))
    }

    pub(super) fn value_len(&self, key: &[u8]) -> Option<usize> {
        self.with_view(|view| view.value_len(Table::KeyValue, key))
    }

    pub(super) fn keys(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        self.with_view(|view| view.keys(Table::KeyValue, prefix))
    }

    pub(super) fn count(&self, prefix: &[u8]) -> u64 {
        self.with_view(|view| view.count(Table::KeyValue, prefix))
    }

    pub(super) fn last_key(&self, prefix: &[u8]) -> Option<Vec<u8>> {
        self.with_view(|view| view.last_key(Table::KeyValue, prefix))
    }

    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.account(key, Some(value.len()));
        if let Access::Change(transaction) = &mut self.access {
            transaction.put(Table::KeyValue, key, value);
        }
    }

    /// Removes `key`; answers whether it was there.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        self.account(key, None);
        match &mut self.access {
            Access::Change(transaction) => transaction.delete(Table::KeyValue, key),
            Access::Look(_) => false,
        }
    }

    /// Removes every key under `prefix`; answers whether there was one.
    pub(super) fn delete_all(&mut self, prefix: &[u8]) -> bool {
        let keys = self.keys(prefix);
        for key in &keys {
            self.delete(key);
        }
        !keys.is_empty()
    }

    /// Adds the change of `key` to a value of `new` bytes to what this operation costs.
    fn account(&mut self, key: &[u8], new: Option<usize>) {
        let key_len = key.len() - self.space.prefix.len();
        let cost = |value: Option<usize>| value.map_or((0, 0), |length| (1, (key_len + length) as i64));
        let (old, new) = (cost(self.value_len(key)), cost(new));
        self.growth.0 += new.0 - old.0;
        self.growth.1 += new.1 - old.1;
    }

    /// The string value of `key` and when it expires. One that has expired is removed and does not exist.
    pub(super) fn string(&mut self, key: &str) -> Result<Option<(String, Option<u64>)>> {
        let place = layout::value(self.prefix(), key);
        let Some(bytes) = self.value(&place)? else { return Ok(None) };
        let (value, expires) = layout::decode(bytes)
            .ok_or_else(|| Error::storage("a kept value makes no sense although its checksum matches"))?;
        if expires.is_some_and(|moment| moment <= self.now_ms) {
            match &self.access {
                Access::Look(_) => self.expired.push(key.to_string()),
                Access::Change(_) => {
                    self.delete(&place);
                }
            }
            return Ok(None);
        }
        Ok(Some((value, expires)))
    }

    /// Keeps `value`; with an expiry, the time of this operation is kept too (see `clock`).
    pub(super) fn put_string(&mut self, key: &str, value: &str, expires_ms: Option<u64>) {
        self.put(&layout::value(self.prefix(), key), layout::encode(value, expires_ms));
        if let Some(moment) = expires_ms {
            self.sets_expiry = Some(self.sets_expiry.map_or(moment, |earlier| earlier.min(moment)));
            let now = self.now_ms.to_be_bytes();
            if let Access::Change(transaction) = &mut self.access {
                transaction.put(Table::KeyValue, layout::CLOCK, now);
            }
        }
    }

    /// Milliseconds since 1970, as this operation sees it.
    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    pub(super) fn check_key(&self, key: &str) -> Result<()> {
        if key.len() > layout::MAX_KEY_BYTES {
            return Err(Error::limit(format!(
                "a key of {} bytes is longer than the {} that are possible",
                key.len(),
                layout::MAX_KEY_BYTES
            )));
        }
        Ok(())
    }

    pub(super) fn check_value(&self, value: &str) -> Result<()> {
        let limit = self.space.quotas.max_value_bytes;
        if value.len() as u64 > limit {
            return Err(Error::limit(format!(
                "a value of {} bytes is longer than {limit}; the link value max_value_bytes sets the limit",
                value.len()
            )));
        }
        Ok(())
    }

    /// Refuses one more element in a `what` (list or set) that has `count`.
    pub(super) fn check_elements(&self, count: u64, what: &str) -> Result<()> {
        let limit = self.space.quotas.max_elements;
        if count >= limit {
            return Err(Error::limit(format!(
                "the {what} has {count} elements and no more than {limit} are possible; the link value max_elements \
                 sets the limit"
            )));
        }
        Ok(())
    }

    /// Checks the quotas of the keyspace and takes the change into `totals`.
    ///
    /// # Errors
    /// `Limit` when the operation would take the keyspace beyond a quota, even after removing what has expired.
    pub(super) fn finish(mut self, totals: &mut Totals) -> Result<()> {
        let as_of = self.with_view(|view| view.failed_writes());
        if totals.as_of != as_of {
            totals.spaces.clear();
            totals.as_of = as_of;
        }
        let mut total = match totals.spaces.get(self.prefix()) {
            // The view has the growth of this operation in it already.
            None => Total { usage: self.usage(), next_expiry_ms: 0 },
            Some(total) => Total { usage: grown(total.usage, self.growth), ..*total },
        };
        if let Some(moment) = self.sets_expiry {
            total.next_expiry_ms = total.next_expiry_ms.min(moment);
        }
        let result = match self.over_quota(total.usage) {
            Err(_) if total.next_expiry_ms <= self.now_ms => {
                total.next_expiry_ms = self.remove_expired()?;
                total.usage = self.usage();
                self.over_quota(total.usage)
            }
            other => other,
        };
        // A refused operation is undone, so what was known before stays true.
        if result.is_ok() {
            totals.spaces.insert(self.prefix().to_vec(), total);
        }
        result
    }

    fn usage(&self) -> Usage {
        let usage = self.with_view(|view| view.usage(Table::KeyValue, self.prefix()));
        Usage { bytes: usage.bytes - usage.keys * self.prefix().len() as u64, ..usage }
    }

    fn over_quota(&self, usage: Usage) -> Result<()> {
        let quotas = &self.space.quotas;
        if self.growth.0 > 0 && usage.keys > quotas.max_keys {
            return Err(Error::limit(format!(
                "keyspace {} would have {} keys and elements, its limit is {}: delete some, or raise the link value \
                 max_keys",
                self.space.name, usage.keys, quotas.max_keys
            )));
        }
        if self.growth.1 > 0 && usage.bytes > quotas.max_bytes {
            return Err(Error::limit(format!(
                "keyspace {} would take {} bytes, its limit is {}: delete something, or raise the link value max_bytes",
                self.space.name, usage.bytes, quotas.max_bytes
            )));
        }
        Ok(())
    }

    /// Removes every value that has expired; answers when the next one will.
    fn remove_expired(&mut self) -> Result<u64> {
        let mut next = u64::MAX;
        for place in self.keys(&layout::values(self.prefix())) {
            let expires = self.value(&place)?.and_then(layout::decode).and_then(|(_, expires)| expires);
            match expires {
                Some(moment) if moment <= self.now_ms => {
                    if let Access::Change(transaction) = &mut self.access {
                        transaction.delete(Table::KeyValue, &place);
                    }
                }
                Some(moment) => next = next.min(moment),
                None => {}
            }
        }
        Ok(next)
    }
}

fn grown(usage: Usage, (keys, bytes): (i64, i64)) -> Usage {
    Usage { keys: usage.keys.saturating_add_signed(keys), bytes: usage.bytes.saturating_add_signed(bytes) }
}
