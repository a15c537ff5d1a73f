//! Logins for registries, as the settings and the file they name say them.

use crate::{
    artifact::{RegistryLogin, auth_file},
    config::{Config, RegistryAccount},
    error::Result,
};

/// All of them, by registry; the account of the settings last, as it counts where both name one. Blocks.
///
/// # Errors
/// Those of [`auth_file::read`].
pub fn read(config: &Config) -> Result<Vec<(String, RegistryLogin)>> {
    let mut logins = match &config.registry_logins {
        Some(path) => auth_file::read(path)?,
        None => Vec::new(),
    };
    if let Some(RegistryAccount { registry, user, password }) = &config.registry {
        logins.push((registry.clone(), RegistryLogin::basic(user, password.expose())));
    }
    Ok(logins)
}
