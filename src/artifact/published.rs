//! The names under which this board offers artifacts to others: a small table, name to content.
//!
//! An operator fills it (`latticed artifact publish`), the mirror serves it. What a name points to is replaced in one
//! durable step, so a reader finds the old content or the new one. It never removes content; a published one counts as
//! needed and stays in the store.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    store::{Batch, Digest, Store, Table},
};

/// Names at most. A site's fleet runs a few dozen artifacts; one more is refused, and what is published stays in the store,
/// so this also bounds what cannot be evicted.
pub const MAX_NAMES: u64 = 256;

/// Longest name, bytes: as long as a repository in a registry.
pub const MAX_NAME_BYTES: usize = 255;

/// What a name points to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The name.
    pub name: String,
    /// Of the content.
    pub digest: Digest,
    /// Where the content came from, as the operator said.
    pub origin: String,
}

/// The record on disk. Members added later get a default.
#[derive(Serialize, Deserialize)]
struct Record {
    digest: String,
    #[serde(default)]
    origin: String,
}

/// The table.
#[derive(Clone)]
pub struct Names {
    store: Store,
}

impl Names {
    /// The names in `store`.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// What `name` points to. A record that cannot be read counts as missing.
    ///
    /// # Errors
    /// `Storage`.
    pub fn find(&self, name: &str) -> Result<Option<Published>> {
        Ok(self.store.get(Table::Published, name.as_bytes())?.and_then(|record| read(name.as_bytes(), &record)))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// `Storage`.
    pub fn all(&self) -> Result<Vec<Published>> {
        let records = self.store.scan(Table::Published, b"")?;
        Ok(records.iter().filter_map(|(name, record)| read(name, record)).collect())
    }

    /// The content of all names, which must stay in the store.
    ///
    /// # Errors
    /// `Storage`.
    pub fn digests(&self) -> Result<BTreeSet<Digest>> {
        Ok(self.all()?.into_iter().map(|published| published.digest).collect())
    }

    /// Whether any name points to `digest`; not where the names cannot be read.
    pub fn offer(&self, digest: Digest) -> bool {
        self.digests().is_ok_and(|offered| offered.contains(&digest))
    }

    /// `name` points to `digest` from now on; durable when this returns. The content must be in the store.
    ///
    /// # Errors
    /// `Invalid` for a name that cannot be one; `NotFound` without the content; `Limit` for one name too many; `Storage`.
    pub async fn publish(&self, name: &str, digest: Digest, origin: &str) -> Result<()> {
        check_name(name)?;
        let blobs = self.store.blobs();
        smol::unblock(move || blobs.verify_blocking(digest)).await?;
        let (key, record) = (name.to_owned(), Record { digest: digest.to_string(), origin: origin.to_owned() });
        let record = serde_json::to_vec(&record)
            .map_err(|cause| Error::internal(format!("cannot write the record of a published name: {cause}")))?;
        self.store
            .update(move |transaction| {
                let view = transaction.view();
                let known = view.contains(Table::Published, key.as_bytes());
                if !known && view.count(Table::Published, b"") >= MAX_NAMES {
                    return Err(Error::limit(format!(
                        "this board publishes {MAX_NAMES} names already; withdraw one with `latticed artifact publish \
                         NAME --remove`"
                    )));
                }
                transaction.put(Table::Published, key.as_bytes(), record);
                Ok(())
            })
            .await
    }

    /// Takes `name` back; answers whether it was there.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn withdraw(&self, name: &str) -> Result<bool> {
        let there = self.store.look(|view| view.contains(Table::Published, name.as_bytes()));
        if there {
            self.store.commit(Batch::new().delete(Table::Published, name)).await?;
        }
        Ok(there)
    }
}

fn read(name: &[u8], record: &[u8]) -> Option<Published> {
    let record: Record = serde_json::from_slice(record).ok()?;
    Some(Published {
        name: String::from_utf8(name.to_vec()).ok()?,
        digest: record.digest.parse().ok()?,
        origin: record.origin,
    })
}

/// Refuses what cannot be a name: parts of letters, digits, `.`, `_` and `-`, separated by `/`, each beginning with a letter
/// or digit. So a name is a path in a URL and on disk as it is, and never leads out of anything.
///
/// # Errors
/// `Invalid`.
pub fn check_name(name: &str) -> Result<()> {
    let part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphanumeric())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    if name.len() <= MAX_NAME_BYTES && name.split('/').all(part) {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::invalid(format!(
        "{shown:?} cannot be a name: parts of letters, digits, `.`, `_` and `-` separated by `/`, each beginning with a \
         letter or digit, {MAX_NAME_BYTES} bytes at most"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        error::Kind,
        store::{FaultDisk, Settings},
    };

    fn open(disk: &FaultDisk) -> Store {
        Store::open(Settings::default(), Arc::new(disk.clone())).unwrap().0
    }

    #[test]
    fn a_name_points_to_what_is_there_and_survives_a_restart() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        let (one, two) = (store.blobs().put_blocking(b"one").unwrap(), store.blobs().put_blocking(b"two").unwrap());
        let names = Names::new(store.clone());
        smol::block_on(async {
            names.publish("site/echo", one, "file:///a").await.unwrap();
            names.publish("site/echo", two, "file:///b").await.unwrap();
            let missing = names.publish("other", Digest::of(b"three"), "").await.unwrap_err();
            assert_eq!(missing.kind(), Kind::NotFound);
            names.publish("gone", one, "").await.unwrap();
            assert!(names.withdraw("gone").await.unwrap() && !names.withdraw("gone").await.unwrap());
        });
        drop((names, store));
        let names = Names::new(open(&disk));
        let echo = Published { name: "site/echo".into(), digest: two, origin: "file:///b".into() };
        assert_eq!(names.all().unwrap(), std::slice::from_ref(&echo));
        assert_eq!(names.find("site/echo").unwrap(), Some(echo));
        assert_eq!(names.digests().unwrap(), BTreeSet::from([two]));
    }

    #[test]
    fn names_are_bounded_in_number_and_in_kind() {
        let store = open(&FaultDisk::new());
        let digest = store.blobs().put_blocking(b"one").unwrap();
        let names = Names::new(store);
        smol::block_on(async {
            for number in 0..MAX_NAMES {
                names.publish(&format!("n{number}"), digest, "").await.unwrap();
            }
            assert_eq!(names.publish("more", digest, "").await.unwrap_err().kind(), Kind::Limit);
            names.publish("n0", digest, "again").await.unwrap();
        });
        for good in ["echo", "Echo_1.2-x", "a/b.wasm", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a b", "a%2f", "a\n", "ü", &"x".repeat(256)] {
            assert_eq!(check_name(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }
}
