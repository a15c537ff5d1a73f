//! Manifests on disk: which there are, and what they say.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    config::{Config, manifest},
    error::{Error, Result},
    host::{
        Application,
        application::{ActorComponent, LinkComponent, ProviderComponent},
    },
    log,
};

/// Manifests in one directory at most; the same bound as on actors.
const MAX_FILES: usize = 1024;

/// The manifests in `directory`, by name.
///
/// # Errors
/// It cannot be read, or holds more than a host takes.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed =
        |cause: std::io::Error| Error::config(format!("cannot read the directory {}: {cause}", directory.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_manifest = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if is_manifest && !hidden {
            files.push(path);
        }
    }
    if files.len() > MAX_FILES {
        return Err(Error::limit(format!(
            "the directory {} holds {} manifests, a host takes {MAX_FILES}",
            directory.display(),
            files.len()
        )));
    }
    files.sort();
    Ok(files)
}

/// Reads the manifest and says what this board cannot honour.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read(path: &Path, config: &Config) -> Result<manifest::Application> {
    let manifest = manifest::read(path, &config.labels)?;
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    Ok(manifest)
}

/// What of `manifest` runs on this host.
pub fn wanted(manifest: manifest::Application, config: &Config) -> Application {
    Application {
        name: manifest.name,
        version: manifest.version,
        actors: manifest
            .actors
            .into_iter()
            .filter(|actor| actor.runs_here)
            .map(|actor| ActorComponent {
                name: actor.name,
                reference: match actor.path {
                    Some(path) => format!("file://{}", path.display()),
                    None => actor.reference.text().to_owned(),
                },
                max_concurrent: actor.max_concurrent.unwrap_or(config.actor.max_concurrent),
                issuers: actor.issuers,
                links: actor
                    .links
                    .into_iter()
                    .map(|link| LinkComponent { target: link.target, values: link.values })
                    .collect(),
            })
            .collect(),
        providers: manifest
            .capabilities
            .into_iter()
            .filter(|capability| capability.runs_here)
            .map(|capability| ProviderComponent {
                name: capability.name,
                reference: capability.reference.text().to_owned(),
                contract_id: capability.contract_id,
                link_name: capability.link_name,
                configuration: capability.configuration,
                issuers: capability.issuers,
            })
            .collect(),
    }
}
