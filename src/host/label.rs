//! Labels of this host: those of its machine and its settings, over them those that were given at run time, which are kept.
//!
//! A label given at run time wins over one of the settings until it is deleted.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Result},
    host::{Host, core::Configured},
    lock::MutexGuard,
    log,
    store::{Batch, Store, Table},
};

/// Labels given at run time at most; they travel in every ping reply and heartbeat.
pub const MAX_LABELS: usize = 64;

/// Beginning of a label's record name.
const RECORD: &str = "label/";

/// The labels given at run time, as the store keeps them.
pub(super) fn load(store: &Store) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for (name, value) in store.scan(Table::Host, RECORD.as_bytes())? {
        match (String::from_utf8(name), String::from_utf8(value)) {
            (Ok(name), Ok(value)) => drop(labels.insert(name.trim_start_matches(RECORD).to_owned(), value)),
            _ => log::warn!("a label kept on disk is not text and was left alone"),
        }
    }
    Ok(labels)
}

/// All labels, to look at while nobody changes them.
pub struct LabelTables<'a> {
    configured: MutexGuard<'a, Configured>,
    given: MutexGuard<'a, BTreeMap<String, String>>,
}

impl LabelTables<'_> {
    /// Each label once.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        let configured = self.configured.labels.iter().filter(|(name, _)| !self.given.contains_key(*name));
        configured.chain(self.given.iter())
    }
}

impl Host {
    /// All labels where they are, for whoever writes them often.
    pub fn label_tables(&self) -> LabelTables<'_> {
        LabelTables { configured: self.configured(), given: self.given_labels() }
    }

    /// All labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.configured().labels.clone();
        labels.extend(self.given_labels().clone());
        labels
    }

    /// Whether the settings of this board have a label of this name.
    pub fn is_configured_label(&self, key: &str) -> bool {
        self.configured().labels.contains_key(key)
    }

    /// Gives the host a label, on disk first.
    ///
    /// # Errors
    /// There are [`MAX_LABELS`] already, or the disk failed.
    pub async fn put_label(&self, key: String, value: String) -> Result<()> {
        {
            let given = self.given_labels();
            if given.len() >= MAX_LABELS && !given.contains_key(&key) {
                return Err(Error::limit(format!("this host has {MAX_LABELS} labels of this kind: delete one first")));
            }
        }
        self.store.commit(Batch::new().put(Table::Host, format!("{RECORD}{key}"), value.clone())).await?;
        self.given_labels().insert(key, value);
        Ok(())
    }

    /// Takes a label away that was given at run time; one of the settings shows again.
    ///
    /// # Errors
    /// The label comes from the settings alone, or the disk failed.
    pub async fn delete_label(&self, key: &str) -> Result<()> {
        if !self.given_labels().contains_key(key) {
            if self.configured().labels.contains_key(key) {
                return Err(Error::denied(format!(
                    "the label '{key}' comes from this host's settings: remove it there"
                )));
            }
            return Ok(());
        }
        self.store.commit(Batch::new().delete(Table::Host, format!("{RECORD}{key}"))).await?;
        self.given_labels().remove(key);
        Ok(())
    }
}
