//! The operations of the contract on the store, each decided on in one piece: no other change comes between what an
//! operation reads and what it writes. Semantics are those of Redis behind the first-party provider.
//!
//! An operation that changes something becomes a change of the store (see `store::Store::update`); one that only reads
//! becomes a look at it.

use std::collections::BTreeSet;

use super::{layout, session::Session};
use crate::error::{Error, Result};

/// Largest answer of an operation, bytes: 4 MiB. It is in memory several times on its way to the guest.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Sets one union or intersection may name: 128. Each may have as many members as its quota allows.
const MAX_SETS: usize = 128;

impl Session<'_, '_> {
    /// `KeyValue.Get`.
    pub(super) fn get(&mut self, key: &str) -> Result<Option<String>> {
        self.check_key(key)?;
        if let Some((value, _)) = self.string(key)? {
            return Ok(Some(value));
        }
        if self.is_list(key) || self.is_set(key) { Err(wrong_type()) } else { Ok(None) }
    }

    /// `KeyValue.Set`: replaces whatever `key` was. `expires_ms` is a moment; `None` is never.
    pub(super) fn set(&mut self, key: &str, value: &str, expires_ms: Option<u64>) -> Result<()> {
        self.check_key(key)?;
        self.check_value(value)?;
        self.clear_list(key);
        self.clear_set(key);
        self.put_string(key, value, expires_ms);
        Ok(())
    }

    /// `KeyValue.Del`, `ListClear` and `SetClear`: removes `key` of any type, as the provider's own `DEL` does.
    pub(super) fn del(&mut self, key: &str) -> Result<bool> {
        self.check_key(key)?;
        let existed = self.string(key)?.is_some();
        self.delete(&layout::value(self.prefix(), key));
        let list = self.clear_list(key);
        let set = self.clear_set(key);
        Ok(existed || list || set)
    }

    /// `KeyValue.Contains`.
    pub(super) fn contains(&mut self, key: &str) -> Result<bool> {
        self.check_key(key)?;
        Ok(self.is_list(key) || self.is_set(key) || self.string(key)?.is_some())
    }

    /// `KeyValue.Increment`: keeps the expiry of the key, as Redis does.
    pub(super) fn increment(&mut self, key: &str, by: i32) -> Result<i32> {
        self.check_key(key)?;
        let (old, expires) = match self.string(key)? {
            Some((text, expires)) => (integer(&text).ok_or_else(no_integer)?, expires),
            None if self.is_list(key) || self.is_set(key) => return Err(wrong_type()),
            None => (0, None),
        };
        let new = old.checked_add(by).ok_or_else(|| Error::invalid("increment or decrement would overflow"))?;
        self.put_string(key, &new.to_string(), expires);
        Ok(new)
    }

    /// `KeyValue.ListAdd`: at the end. Answers the new length.
    pub(super) fn list_add(&mut self, key: &str, value: &str) -> Result<u32> {
        self.check_key(key)?;
        self.check_value(value)?;
        self.must_not_be(key, Other::NotList)?;
        let list = layout::list(self.prefix(), key);
        let length = self.count(&list);
        self.check_elements(length, "list")?;
        let next = match self.last_key(&list) {
            // Two to the 64th additions are out of reach.
            Some(last) => layout::index(&last).saturating_add(1),
            None => 0,
        };
        self.put(&layout::element(&list, next), value.as_bytes().to_vec());
        Ok(u32::try_from(length + 1).unwrap_or(u32::MAX))
    }

    /// `KeyValue.ListDel`: removes every element that equals `value`.
    pub(super) fn list_del(&mut self, key: &str, value: &str) -> Result<bool> {
        self.check_key(key)?;
        self.must_not_be(key, Other::NotList)?;
        let mut found = false;
        for element in self.keys(&layout::list(self.prefix(), key)) {
            // Only one of the right length can be equal; the others need not be read.
            if self.value_len(&element) == Some(value.len())
                && self.value(&element)?.is_some_and(|bytes| bytes == value.as_bytes())
            {
                self.delete(&element);
                found = true;
            }
        }
        Ok(found)
    }

    /// `KeyValue.ListRange`: both ends included, negative ones counted from the end, cut to the list.
    pub(super) fn list_range(&mut self, key: &str, start: i32, stop: i32) -> Result<Vec<String>> {
        self.check_key(key)?;
        self.must_not_be(key, Other::NotList)?;
        let elements = self.keys(&layout::list(self.prefix(), key));
        let Some(range) = range(elements.len(), start, stop) else { return Ok(Vec::new()) };
        let mut answer = Answer::default();
        for element in &elements[range] {
            if let Some(bytes) = self.value(element)? {
                answer.push(bytes)?;
            }
        }
        Ok(answer.texts)
    }

    /// `KeyValue.SetAdd`. Answers how many were added, 0 or 1.
    pub(super) fn set_add(&mut self, key: &str, member: &str) -> Result<u32> {
        self.check_key(key)?;
        self.check_value(member)?;
        self.must_not_be(key, Other::NotSet)?;
        let set = layout::set(self.prefix(), key);
        let (place, value) = layout::member(&set, member);
        if self.value_len(&place).is_some() {
            return Ok(0);
        }
        let count = self.count(&set);
        self.check_elements(count, "set")?;
        self.put(&place, value);
        Ok(1)
    }

    /// `KeyValue.SetDel`. Answers how many were removed, 0 or 1.
    pub(super) fn set_del(&mut self, key: &str, member: &str) -> Result<u32> {
        self.check_key(key)?;
        self.must_not_be(key, Other::NotSet)?;
        let set = layout::set(self.prefix(), key);
        Ok(u32::from(self.delete(&layout::member(&set, member).0)))
    }

    /// `KeyValue.SetQuery`: all members.
    pub(super) fn set_query(&mut self, key: &str) -> Result<Vec<String>> {
        let mut answer = Answer::default();
        for member in self.members(key)? {
            answer.push(member)?;
        }
        Ok(answer.texts)
    }

    /// `KeyValue.SetUnion`. A set that does not exist is an empty one.
    pub(super) fn set_union(&mut self, keys: &[String]) -> Result<Vec<String>> {
        check_sets(keys)?;
        let mut union = BTreeSet::new();
        let mut bytes = 0;
        for key in keys {
            for member in self.members(key)? {
                let length = member.len();
                if union.insert(member) {
                    bytes += length;
                    check_answer(bytes)?;
                }
            }
        }
        union.into_iter().map(text).collect()
    }

    /// `KeyValue.SetIntersection`.
    pub(super) fn set_intersection(&mut self, keys: &[String]) -> Result<Vec<String>> {
        check_sets(keys)?;
        let Some((first, others)) = keys.split_first() else { return Ok(Vec::new()) };
        for key in others {
            self.check_key(key)?;
            self.must_not_be(key, Other::NotSet)?;
        }
        let sets: Vec<Vec<u8>> = others.iter().map(|key| layout::set(self.prefix(), key)).collect();
        let mut answer = Answer::default();
        for member in self.members(first)? {
            let member = text(member)?;
            if sets.iter().all(|set| self.value_len(&layout::member(set, &member).0).is_some()) {
                answer.push(member.into_bytes())?;
            }
        }
        Ok(answer.texts)
    }

    fn members(&mut self, key: &str) -> Result<Vec<Vec<u8>>> {
        self.check_key(key)?;
        self.must_not_be(key, Other::NotSet)?;
        let set = layout::set(self.prefix(), key);
        let mut members = Vec::new();
        let mut bytes = 0;
        for place in self.keys(&set) {
            let member = match layout::short_member(&set, &place) {
                Some(member) => member.to_vec(),
                None => self.value(&place)?.unwrap_or_default(),
            };
            bytes += member.len();
            check_answer(bytes)?;
            members.push(member);
        }
        Ok(members)
    }

    fn clear_list(&mut self, key: &str) -> bool {
        self.delete_all(&layout::list(self.prefix(), key))
    }

    fn clear_set(&mut self, key: &str) -> bool {
        self.delete_all(&layout::set(self.prefix(), key))
    }

    fn is_list(&self, key: &str) -> bool {
        self.last_key(&layout::list(self.prefix(), key)).is_some()
    }

    fn is_set(&self, key: &str) -> bool {
        self.last_key(&layout::set(self.prefix(), key)).is_some()
    }

    /// Refuses a key that exists as something else than the operation is for.
    fn must_not_be(&mut self, key: &str, other: Other) -> Result<()> {
        let collection = match other {
            Other::NotList => self.is_set(key),
            Other::NotSet => self.is_list(key),
        };
        if collection || self.string(key)?.is_some() { Err(wrong_type()) } else { Ok(()) }
    }
}

/// What a key must not be.
#[derive(Clone, Copy)]
enum Other {
    NotList,
    NotSet,
}

/// An answer that grows up to its limit.
#[derive(Default)]
struct Answer {
    texts: Vec<String>,
    bytes: usize,
}

impl Answer {
    fn push(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.bytes += bytes.len();
        check_answer(self.bytes)?;
        self.texts.push(text(bytes)?);
        Ok(())
    }
}

fn check_answer(bytes: usize) -> Result<()> {
    if bytes > MAX_ANSWER_BYTES {
        return Err(Error::limit(format!(
            "the answer has more than {MAX_ANSWER_BYTES} bytes: ask for less of the list, or keep smaller sets"
        )));
    }
    Ok(())
}

fn check_sets(keys: &[String]) -> Result<()> {
    if keys.len() > MAX_SETS {
        return Err(Error::limit(format!("{} sets in one operation: {MAX_SETS} are possible", keys.len())));
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::storage("a kept value is no text although its checksum matches"))
}

/// Redis' words: clients look for the first one.
fn wrong_type() -> Error {
    Error::invalid("WRONGTYPE Operation against a key holding the wrong kind of value")
}

/// Redis' words.
fn no_integer() -> Error {
    Error::invalid("ERR value is not an integer or out of range")
}

/// The integer that `text` is, in the one way Redis writes it: no spaces, no `+`, no leading zeros.
fn integer(text: &str) -> Option<i32> {
    text.parse::<i32>().ok().filter(|number| number.to_string() == text)
}

/// The elements of a list of `length` that Redis' `LRANGE start stop` means.
fn range(length: usize, start: i32, stop: i32) -> Option<std::ops::Range<usize>> {
    let length = i64::try_from(length).ok()?;
    let from_start = |at: i32| if at < 0 { length + i64::from(at) } else { i64::from(at) };
    let first = from_start(start).max(0);
    let last = from_start(stop).min(length - 1);
    if first > last {
        return None;
    }
    Some(usize::try_from(first).ok()?..usize::try_from(last).ok()? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_redis() {
        for (text, expected) in [("0", Some(0)), ("-1", Some(-1)), ("2147483647", Some(i32::MAX))] {
            assert_eq!(integer(text), expected);
        }
        for text in ["", " 1", "1 ", "+1", "01", "-0", "1.0", "2147483648", "0x1", "one"] {
            assert_eq!(integer(text), None, "{text:?}");
        }
    }

    #[test]
    fn ranges_are_those_of_redis() {
        assert_eq!(range(3, 0, -1), Some(0..3));
        assert_eq!(range(3, -2, -1), Some(1..3));
        assert_eq!(range(3, -100, 100), Some(0..3));
        assert_eq!(range(3, 1, 1), Some(1..2));
        assert_eq!(range(3, 2, 1), None);
        assert_eq!(range(3, 3, 5), None);
        assert_eq!(range(3, 0, -4), None);
        assert_eq!(range(0, 0, -1), None);
        assert_eq!(range(3, i32::MIN, i32::MAX), Some(0..3));
    }
}
