//! Values that clients keep for actors and providers (`protocol/lattice.md §3.8`): on disk before they are acknowledged,
//! known again after a boot without a network, bounded.
//!
//! Guests of this ABI cannot read them; this host keeps them for those who put and get them. Each host of the lattice keeps
//! its own copy: a host that was away while a value was put does not have it. Values may be secrets and are never logged.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Result},
    store::{Store, Table, Transaction},
    wire::control::config::ConfigReply,
};

/// Beginning of a value's record name, in the table of the host.
const RECORD: &str = "config/";

/// Values of all entities together, at most: a few for each actor a board can run.
pub const MAX_VALUES: u64 = 1024;

/// Longest value, bytes. Clients read it as an array of numbers, four times as long; this keeps an answer within one message.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// Names and values together, bytes. With [`MAX_VALUES`] a thousand bytes each.
pub const MAX_BYTES: u64 = 1 << 20;

/// Longest name of an entity or of a value, bytes. Entities are keys of 56.
const MAX_NAME_BYTES: usize = 256;

/// The values of all entities.
pub struct EntityConfig(Store);

impl EntityConfig {
    /// Those that `store` keeps.
    pub fn new(store: Store) -> Self {
        Self(store)
    }

    /// Sets the value `key` of `entity`.
    ///
    /// # Errors
    /// `Limit`: it is too long, or there are too many; `Storage`.
    pub async fn put(&self, entity: &str, key: &str, value: &[u8]) -> Result<()> {
        for (what, name) in [("entity", entity), ("key", key)] {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return Err(Error::invalid(format!("the name of an {what} has from 1 to {MAX_NAME_BYTES} bytes")));
            }
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(Error::limit(format!(
                "the value {key} of {entity} has {} bytes, at most {MAX_VALUE_BYTES} are kept",
                value.len()
            )));
        }
        let (name, value) = (name(entity, key), value.to_vec());
        let change = move |transaction: &mut Transaction<'_>| {
            transaction.put(Table::Host, name.as_bytes(), value);
            let usage = transaction.view().usage(Table::Host, RECORD.as_bytes());
            if usage.keys > MAX_VALUES || usage.bytes > MAX_BYTES {
                return Err(Error::limit(format!(
                    "this host keeps {MAX_VALUES} values of entities, {MAX_BYTES} bytes of them at most: delete some first"
                )));
            }
            Ok(())
        };
        self.0.update(change).await
    }

    /// Removes one value of `entity`, or all of them. What is not there is removed too.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn delete(&self, entity: &str, key: Option<&str>) -> Result<()> {
        let (one, all) = (key.map(|key| name(entity, key)), name(entity, ""));
        let change = move |transaction: &mut Transaction<'_>| {
            match one {
                Some(one) => drop(transaction.delete(Table::Host, one.as_bytes())),
                None => {
                    for name in transaction.view().keys(Table::Host, all.as_bytes()) {
                        transaction.delete(Table::Host, &name);
                    }
                }
            }
            Ok(())
        };
        self.0.update(change).await
    }

    /// The value `key` of `entity`, as clients read it.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn get(&self, entity: &str, key: &str) -> Result<ConfigReply> {
        let name = name(entity, key);
        let value = self.0.read(move |view| view.get(Table::Host, name.as_bytes())).await?;
        Ok(ConfigReply { found: value.is_some(), data: value.unwrap_or_default() })
    }

    /// All values of `entity`, by key.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn all(&self, entity: &str) -> Result<BTreeMap<String, Vec<u8>>> {
        let prefix = name(entity, "");
        let length = prefix.len();
        let found = self.0.read(move |view| view.scan(Table::Host, prefix.as_bytes())).await?;
        let key = |name: Vec<u8>| String::from_utf8_lossy(&name[length..]).into_owned();
        Ok(found.into_iter().map(|(name, value)| (key(name), value)).collect())
    }
}

/// The length tells where the entity ends: both parts are free to hold slashes.
fn name(entity: &str, key: &str) -> String {
    format!("{RECORD}{:03}/{entity}/{key}", entity.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        error::Kind,
        store::{self, FaultDisk},
    };

    fn open(disk: &FaultDisk) -> EntityConfig {
        EntityConfig::new(Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap().0)
    }

    #[test]
    fn values_are_kept_and_deleted_one_by_one_or_together() {
        smol::block_on(async {
            let disk = FaultDisk::new();
            let config = open(&disk);
            config.put("M1", "url", b"one").await.unwrap();
            config.put("M1", "url", b"two").await.unwrap();
            config.put("M1", "key", b"").await.unwrap();
            config.put("M1/a", "url", b"another").await.unwrap();
            let disk = disk.after_kill();
            drop(config);
            let config = open(&disk);
            assert_eq!(config.get("M1", "url").await.unwrap(), ConfigReply { found: true, data: b"two".to_vec() });
            assert_eq!(config.get("M1", "no").await.unwrap(), ConfigReply::default());
            let all = config.all("M1").await.unwrap();
            assert_eq!(all, BTreeMap::from([("key".into(), b"".to_vec()), ("url".into(), b"two".to_vec())]));
            config.delete("M1", Some("key")).await.unwrap();
            config.delete("M1", Some("never")).await.unwrap();
            assert!(!config.get("M1", "key").await.unwrap().found && config.get("M1", "url").await.unwrap().found);
            config.delete("M1", None).await.unwrap();
            assert!(config.all("M1").await.unwrap().is_empty());
            assert!(config.get("M1/a", "url").await.unwrap().found);
        });
    }

    #[test]
    fn they_are_bounded() {
        smol::block_on(async {
            let config = open(&FaultDisk::new());
            let refused = |outcome: Result<()>| outcome.unwrap_err().kind();
            assert_eq!(refused(config.put("M1", "long", &[0; MAX_VALUE_BYTES + 1]).await), Kind::Limit);
            assert_eq!(refused(config.put("M1", &"k".repeat(257), b"").await), Kind::Invalid);
            for number in 0..MAX_BYTES / MAX_VALUE_BYTES as u64 - 1 {
                config.put("M1", &number.to_string(), &[0; MAX_VALUE_BYTES]).await.unwrap();
            }
            assert_eq!(refused(config.put("M2", "x", &[0; MAX_VALUE_BYTES]).await), Kind::Limit);
            assert!(!config.get("M2", "x").await.unwrap().found, "what was refused is not kept");
            config.put("M1", "0", b"short").await.unwrap();
            config.put("M2", "x", &[0; MAX_VALUE_BYTES]).await.unwrap();
            config.delete("M1", None).await.unwrap();
            let (mut kept, mut number) = (1, 0);
            while config.put("M3", &number.to_string(), b"v").await.is_ok() {
                (kept, number) = (kept + 1, number + 1);
            }
            assert_eq!(kept, MAX_VALUES);
        });
    }
}
