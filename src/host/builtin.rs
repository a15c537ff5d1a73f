//! Providers inside this process, as the host starts them: by the name in `builtin:NAME`.
//!
//! The rooms that implement them sit above this floor, so they register here what they can start.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    claims::builtin_provider_key,
    error::{Error, Result},
    host::{Capability, ProviderContext},
};

/// Starts one kind of built-in provider.
pub type Start = Box<dyn Fn(ProviderContext) -> Result<Arc<dyn Capability>> + Send + Sync>;

/// One kind of built-in provider.
pub struct Builtin {
    /// What stands after `builtin:`.
    pub name: &'static str,
    /// Contract it serves.
    pub contract_id: &'static str,
    /// How it is started.
    pub start: Start,
}

impl Builtin {
    /// Its stable public key: the same on every host, as a released provider's is, so that a link names it lattice-wide.
    pub fn public_key(&self) -> String {
        builtin_provider_key(self.name).to_string()
    }
}

/// All kinds this process can start.
#[derive(Default)]
pub struct Builtins(BTreeMap<&'static str, Arc<Builtin>>);

impl Builtins {
    /// Adds a kind.
    pub fn register(&mut self, builtin: Builtin) {
        self.0.insert(builtin.name, Arc::new(builtin));
    }

    /// The names of all of them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    /// The kind called `name`.
    ///
    /// # Errors
    /// There is none; the text lists those there are.
    pub fn find(&self, name: &str) -> Result<Arc<Builtin>> {
        self.0.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.0.keys().copied().collect();
            Error::not_found(format!("there is no built-in provider {name}: this host has {}", known.join(", ")))
        })
    }
}
