//! The settings of provider processes, typed.

use std::time::Duration;

use super::{Secret, Values};
use crate::{
    claims::{KeyPair, PublicKey, Role},
    error::{Error, Result},
    provider::{
        confine::Confinement,
        credentials::Minting,
        environment::Filter,
        layers::{self, Mode},
        rules::Rules,
    },
};

/// What providers as processes are held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Providers {
    /// What they may use and reach.
    pub confinement: Confinement,
    /// What single ones may, not read yet.
    pub rules: Vec<String>,
    /// Signs a NATS login for each; the key of an account, or a signing key of it.
    pub account_seed: Option<Secret>,
    /// The account, where the seed is a signing key.
    pub account: Option<String>,
    /// How long such a login holds.
    pub login_lifetime: Duration,
    /// What of the host's environment they see.
    pub environment: Filter,
    /// Whether archives run whose token is expired or badly signed.
    pub legacy_archives: bool,
    /// How often in a row one that ended by itself is started again.
    pub restarts: u32,
    /// Time from the start to the first probe.
    pub first_probe: Duration,
    /// Time between two probes.
    pub probe_interval: Duration,
}

impl Providers {
    /// Who signs NATS logins for providers, if anybody.
    ///
    /// # Errors
    /// `Config`: the account's key is none.
    pub fn minting(&self) -> Result<Option<Minting>> {
        let Some(seed) = &self.account_seed else { return Ok(None) };
        if let Some(account) = &self.account
            && !account.parse::<PublicKey>().is_ok_and(|key| key.role() == Role::Account)
        {
            return Err(Error::config(format!(
                "WASMCLOUD_PROVIDER_NATS_ACCOUNT: {account} is not an account's key (A…)"
            )));
        }
        let signer = KeyPair::from_seed(seed.expose())?;
        Ok(Some(Minting { signer, account: self.account.clone(), lifetime: self.login_lifetime }))
    }

    pub(super) fn read(values: &Values<'_>) -> Self {
        Self {
            confinement: Confinement {
                mode: Mode::parse(values.text(layers::SETTING)),
                landlock: values.flag("WASMCLOUD_PROVIDER_LANDLOCK"),
                memory_bytes: values.number("WASMCLOUD_PROVIDER_MEMORY_BYTES"),
                files: values.number("WASMCLOUD_PROVIDER_FILES"),
                processes: values.number("WASMCLOUD_PROVIDER_PROCESSES"),
                disk_bytes: values.number("WASMCLOUD_PROVIDER_DISK_BYTES"),
                disk_files: values.number("WASMCLOUD_PROVIDER_DISK_FILES"),
                ..Confinement::default()
            },
            rules: values.list(Rules::SETTING),
            account_seed: values.secret("WASMCLOUD_PROVIDER_NATS_ACCOUNT_SEED"),
            account: Some(values.text("WASMCLOUD_PROVIDER_NATS_ACCOUNT").to_owned()).filter(|key| !key.is_empty()),
            login_lifetime: Duration::from_secs(values.number("WASMCLOUD_PROVIDER_NATS_SECONDS")),
            environment: Filter::new(
                &values.list("WASMCLOUD_PROVIDER_ENV_DENY"),
                &values.list("WASMCLOUD_PROVIDER_ENV_ALLOW"),
            ),
            legacy_archives: values.flag("WASMCLOUD_PROVIDER_LEGACY_ARCHIVES"),
            restarts: values.number("WASMCLOUD_PROVIDER_RESTARTS"),
            first_probe: values.millis("WASMCLOUD_PROVIDER_FIRST_PROBE_MS"),
            probe_interval: values.millis("WASMCLOUD_PROVIDER_PROBE_MS"),
        }
    }
}
