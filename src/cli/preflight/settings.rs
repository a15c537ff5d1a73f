//! Settings as a whole: values that only mean something together, and the files they name.

use std::path::Path;

use rustix::fs::{Access, access};

use crate::{
    artifact::Mirrors,
    certificate,
    claims::{AntiForgery, KeyPair, Role},
    cli::{joining, logins},
    config::Config,
    error::{Error, Result},
    nats::{Endpoint, Login},
    provider::rules::Rules,
    trust::Trust,
    web::{probes::Place, socket},
};

/// Refuses settings that a host cannot start with; answers what deserves a warning.
///
/// # Errors
/// Those of a start, each naming the setting.
pub fn settings(config: &Config) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    places(config)?;
    lattice(config, &mut warnings)?;
    providers(config)?;
    artifacts(config)?;
    Ok(warnings)
}

/// Where the host keeps and answers.
fn places(config: &Config) -> Result<()> {
    let state = &config.state_directory;
    if let Some(there) = state.ancestors().find(|path| path.exists())
        && !there.is_dir()
    {
        return Err(Error::config(format!(
            "WASMCLOUD_STATE_DIR: {} cannot be a directory, because {} is a file",
            state.display(),
            there.display()
        )));
    }
    socket::check_path(&config.admin_socket)?;
    match config.probes.as_deref().map(Place::parse).transpose()? {
        Some(Place::Unix(path)) => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            if !directory.is_dir() {
                return Err(Error::config(format!(
                    "WASMCLOUD_PROBES: there is no directory {} for the socket",
                    directory.display()
                )));
            }
            if path.as_os_str().len() > socket::MAX_PATH_BYTES {
                return Err(Error::config(format!(
                    "WASMCLOUD_PROBES: the path {} is longer than the {} bytes that Linux allows a socket",
                    path.display(),
                    socket::MAX_PATH_BYTES
                )));
            }
        }
        Some(Place::Tcp(address))
            if config.mirror.listen.is_some_and(|listen| super::applications::overlap(listen, address)) =>
        {
            return Err(Error::conflict(format!(
                "WASMCLOUD_PROBES and WASMCLOUD_MIRROR_LISTEN both name {address}: give one of them another port"
            )));
        }
        Some(Place::Tcp(_)) | None => {}
    }
    Ok(())
}

/// Refuses a state directory that this user cannot write to. Not among the rest: who looks at the settings of a service is
/// another user than the service.
///
/// # Errors
/// `Storage`.
pub fn writable(config: &Config) -> Result<()> {
    let state = &config.state_directory;
    let Some(there) = state.ancestors().find(|path| path.exists()) else { return Ok(()) };
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|cause| {
        Error::storage(format!(
            "WASMCLOUD_STATE_DIR: user id {} cannot write to {}: {}; give it that directory, or name another",
            rustix::process::geteuid().as_raw(),
            there.display(),
            std::io::Error::from(cause)
        ))
    })
}

/// The connections to NATS and whom the host believes there.
fn lattice(config: &Config, warnings: &mut Vec<String>) -> Result<()> {
    joining::endpoints(config)?;
    for (prefix, nats) in [("WASMCLOUD_RPC", &config.rpc), ("WASMCLOUD_CTL", &config.ctl)] {
        let (certificate, key) = match &nats.tls.certificate {
            Some((certificate, key)) => (Some(certificate), Some(key)),
            None => (None, None),
        };
        for (name, path) in [
            ("CREDSFILE", nats.credentials_file.as_ref()),
            ("TLS_CA_FILE", nats.tls.ca.as_ref()),
            ("TLS_CERT_FILE", certificate),
            ("TLS_KEY_FILE", key),
        ] {
            // It may come with a medium that is mounted later, and is looked for with each attempt to connect.
            if let Some(path) = path.filter(|path| !path.exists()) {
                let text = format!("{prefix}_{name}: there is no {}; no connection is made without it", path.display());
                if !warnings.contains(&text) {
                    warnings.push(text);
                }
            }
        }
    }
    let key = match config.cluster_key() {
        Some(key) => key,
        None => KeyPair::generate(Role::Cluster)?,
    };
    AntiForgery::new(key, config.cluster_issuers.iter().cloned())
        .map_err(|error| error.context("WASMCLOUD_CLUSTER_ISSUERS"))?;
    Ok(())
}

/// What provider processes are told and held to.
fn providers(config: &Config) -> Result<()> {
    let told = &config.provider_rpc;
    let text = |secret: &Option<crate::config::Secret>| secret.as_ref().map_or("", |secret| secret.expose()).to_owned();
    let login = Login::from_jwt_and_seed(&text(&told.jwt), &text(&told.seed))
        .map_err(|error| error.context("WASMCLOUD_PROV_RPC_JWT and WASMCLOUD_PROV_RPC_SEED"))?;
    Endpoint::parse(&told.host, told.port, login, told.tls.clone())
        .map_err(|error| error.context("WASMCLOUD_PROV_RPC_HOST"))?;
    config.providers.minting()?;
    Rules::parse(&config.providers.rules)?;
    Ok(())
}

/// Where artifacts come from, and the mirror for others.
fn artifacts(config: &Config) -> Result<()> {
    if let Some(path) = &config.artifacts.ca_file {
        Trust::with_file(path, "WASMCLOUD_ARTIFACT_CA_FILE")?;
    }
    for registry in &config.artifacts.insecure {
        plain_registry("WASMCLOUD_OCI_ALLOWED_INSECURE", registry)?;
    }
    if let Some(account) = &config.registry {
        plain_registry("OCI_REGISTRY", &account.registry)?;
    }
    logins::read(config)?;
    let token = config.mirror.token.as_ref().map(|token| token.expose());
    if !config.mirror.sources.is_empty() {
        Mirrors::new(config.artifacts.clone(), &config.mirror.sources, token)?;
    }
    if let Some((certificate, key)) = &config.mirror.tls {
        certificate::acceptor((certificate, "WASMCLOUD_MIRROR_TLS_CERT_FILE"), (key, "WASMCLOUD_MIRROR_TLS_KEY_FILE"))?;
    }
    Ok(())
}

/// Refuses what is no registry by itself: with a scheme or a path it would match no reference.
fn plain_registry(setting: &str, text: &str) -> Result<()> {
    if !text.is_empty() && !text.contains(['/', ' ', '@']) {
        return Ok(());
    }
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default();
    Err(Error::config(format!(
        "{setting}: {text:?} is no registry; write its host, with its port if it has one: {host}"
    )))
}
