//! From settings to the host's place in its lattice.
//!
//! A host joins when somebody named a NATS server; without one it stays by itself, and nothing of this is started.

use crate::{
    claims::{AntiForgery, KeyPair, Role},
    config::{Config, Nats, Origin},
    error::Result,
    lattice::{Endpoint, Login, Settings, Tls},
    log,
};

/// The settings whose presence means that this host belongs to a lattice.
const NAMING: [&str; 4] = ["WASMCLOUD_RPC_HOST", "WASMCLOUD_RPC_PORT", "WASMCLOUD_CTL_HOST", "WASMCLOUD_CTL_PORT"];

/// Where the lattice is and how its invocations are signed, or `None` for a host by itself.
pub fn settings(config: &Config) -> Result<Option<(Settings, AntiForgery)>> {
    let named =
        config.values().iter().any(|value| NAMING.contains(&value.setting.name) && value.origin != Origin::Default);
    if !named {
        return Ok(None);
    }
    let key = match config.cluster_key()? {
        Some(key) => key,
        None => {
            let key = KeyPair::generate(Role::Cluster)?;
            log::warn!(
                "no cluster seed is set, so this host makes up a cluster of its own and no other host or tool can call \
                 its actors: set WASMCLOUD_CLUSTER_SEED to the same seed (`latticed keys gen cluster`) everywhere";
                cluster_key = key.public_key()
            );
            key
        }
    };
    let anti_forgery = AntiForgery::new(key, config.cluster_issuers.iter().cloned())?;
    Ok(Some((endpoints(config)?, anti_forgery)))
}

/// Where the lattice is, whether or not somebody named it: for commands that are of no use without it.
pub fn endpoints(config: &Config) -> Result<Settings> {
    Ok(Settings {
        rpc: endpoint(&config.rpc)?,
        control_prefix: config.ctl_topic_prefix.clone(),
        js_domain: config.js_domain.clone(),
        rpc_timeout: config.rpc_timeout,
        allow_file_load: config.allow_file_load,
        ..Settings::new(config.lattice.clone(), endpoint(&config.ctl)?)
    })
}

fn endpoint(nats: &Nats) -> Result<Endpoint> {
    let text = |secret: &Option<crate::config::Secret>| secret.as_ref().map_or("", |secret| secret.expose()).to_owned();
    let login = Login::from_jwt_and_seed(&text(&nats.jwt), &text(&nats.seed))?;
    Endpoint::parse(&nats.host, nats.port, login, Tls { required: nats.tls, ..Tls::default() })
}
