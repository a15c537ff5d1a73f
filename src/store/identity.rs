//! The host's seed and its made-up name, kept from its first start on.
//!
//! It lies in two records of their own, so that no single damaged place takes the host's identity away; a lost copy is
//! written again at the next start. The seed is never logged.

use super::{Batch, Store, Table};
use crate::{error::Result, log};

const COPIES: [&[u8]; 2] = [b"seed", b"seed copy"];

/// Record of the name that was made up.
const NAME: &[u8] = b"name";

impl Store {
    /// The host's seed; made by `make` and kept, if there is none. Called once at start.
    ///
    /// `usable` tells whether a kept text is a seed. A new one is made only if no copy can be read and used.
    ///
    /// # Errors
    /// Those of `make`. When a new seed cannot be kept, this start uses it all the same and the log says that the next
    /// one will have another.
    pub async fn host_seed(
        &self,
        usable: impl Fn(&str) -> bool + Send + 'static,
        make: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let (copies, lost) = self
            .read(move |view| {
                let mut lost = false;
                let copies = COPIES.map(|key| match view.get(Table::Host, key) {
                    Ok(Some(bytes)) => {
                        let text = String::from_utf8(bytes).ok().filter(|text| usable(text));
                        lost |= text.is_none();
                        text
                    }
                    Ok(None) => None,
                    Err(_) => {
                        lost = true;
                        None
                    }
                });
                (copies, lost)
            })
            .await;
        let seed = match copies.iter().flatten().next() {
            Some(seed) => seed.clone(),
            None => {
                if lost || !self.damage().is_empty() {
                    log::warn!("no readable host seed in {}: this host gets a new identity", self.place());
                }
                make()?
            }
        };
        for (key, copy) in COPIES.into_iter().zip(&copies) {
            if copy.as_deref() != Some(&seed)
                && let Err(error) = self.commit(Batch::new().put(Table::Host, key, seed.as_str())).await
            {
                log::error!("the host seed could not be kept, the next start may have another identity: {error}");
                break;
            }
        }
        Ok(seed)
    }

    /// The name that was made up for this host, the same at every start; `make` makes one where none is kept.
    ///
    /// # Errors
    /// Those of `make`. One that cannot be kept is used all the same, and the log says so.
    pub async fn host_name(
        &self,
        usable: impl Fn(&str) -> bool,
        make: impl FnOnce() -> Result<String>,
    ) -> Result<String> {
        let kept = self.get(Table::Host, NAME).ok().flatten().and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some(name) = kept.filter(|name| usable(name)) {
            return Ok(name);
        }
        let name = make()?;
        if let Err(error) = self.commit(Batch::new().put(Table::Host, NAME, name.as_str())).await {
            log::warn!("the name of this host could not be kept, the next start may have another: {error}");
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        store::{FaultDisk, Settings, Store},
        task,
    };

    #[test]
    fn a_made_up_name_is_the_same_at_every_start() {
        let disk = FaultDisk::default();
        let open =
            |disk: &FaultDisk| Store::open(Settings::default(), Arc::new(disk.clone())).expect("the disk is well").0;
        let name = |store: &Store, made: &str| {
            let made = made.to_owned();
            task::block_on(store.host_name(|name| !name.contains(' '), || Ok(made))).expect("a name")
        };
        assert_eq!(name(&open(&disk), "dry-ivy-12"), "dry-ivy-12");
        assert_eq!(name(&open(&disk.restart(1)), "calm-owl-7"), "dry-ivy-12");
    }
}
