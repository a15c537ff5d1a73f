//! Manifests as `latticed run` takes them: one file, or a directory of them, to applications.
//!
//! Called at start and at each reload. From a directory, applications whose file is gone go too, and one that cannot be
//! read leaves its application as it was: a board must not go dark because of one bad file.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{Config, manifest},
    error::{Error, Result},
    host::{
        Application, Host,
        application::{ActorComponent, Asking, LinkComponent, ProviderComponent},
        desired::Desired,
    },
    log,
    store::{Batch, Table},
};

/// Manifests in one directory at most; the same bound as on actors.
const MAX_FILES: usize = 1024;

/// Name of the record of what came from a directory.
const RECORD: &str = "manifests";

/// Applies the manifest at `path`, or all of that directory; `asking` says whether sources are asked for what is here.
///
/// # Errors
/// A single manifest cannot be used; or the directory, or the disk. Nothing was changed then. Single files of a directory
/// are reported and passed over.
pub async fn apply(host: &Arc<Host>, path: PathBuf, config: &Config, asking: Asking) -> Result<()> {
    if !path.is_dir() {
        let (config, read_path) = (config.clone(), path);
        let application = smol::unblock(move || read(&read_path, &config)).await?;
        return host.apply_asking(application, asking).await;
    }
    let files = {
        let path = path.clone();
        smol::unblock(move || files(&path)).await?
    };
    let before = recorded(host)?;
    let (mut applied, mut broken) = (BTreeSet::new(), false);
    for file in files {
        let (config, read_path) = (config.clone(), file.clone());
        let outcome = match smol::unblock(move || read(&read_path, &config)).await {
            Ok(application) => {
                let name = application.name.clone();
                let outcome = host.apply_asking(application, asking).await;
                applied.insert(name);
                outcome
            }
            Err(error) => {
                broken = true;
                Err(error)
            }
        };
        if let Err(error) = outcome {
            log::error!("{} is left as it was: {error}", file.display());
        }
    }
    let gone: Vec<String> = before.difference(&applied).cloned().collect();
    if broken && !gone.is_empty() {
        // The unreadable file may be the one of an application that seems gone.
        log::warn!("applications without a manifest stay until all manifests can be read: {}", gone.join(", "));
        applied.extend(gone);
    } else {
        for name in gone {
            log::info!("the application {name} goes, as its manifest did");
            host.change(|desired| desired.replace_application(&name, Desired::default())).await?;
        }
    }
    record(host, &applied, &before).await
}

/// The manifests in `directory`, by name.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
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

/// Names of the applications that came from a directory.
fn recorded(host: &Host) -> Result<BTreeSet<String>> {
    let Some(bytes) = host.store().get(Table::Host, RECORD.as_bytes())? else { return Ok(BTreeSet::new()) };
    Ok(serde_json::from_slice(&bytes).unwrap_or_else(|cause| {
        log::warn!("what came from the manifest directory is not known any more ({cause}); nothing is taken away");
        BTreeSet::new()
    }))
}

async fn record(host: &Host, applied: &BTreeSet<String>, before: &BTreeSet<String>) -> Result<()> {
    if applied == before {
        return Ok(());
    }
    let text = serde_json::to_vec(applied)
        .map_err(|cause| Error::internal(format!("cannot write the names of applications: {cause}")))?;
    host.store().commit(Batch::new().put(Table::Host, RECORD, text)).await
}

/// Reads the manifest and says what this board cannot honour.
pub fn read(path: &Path, config: &Config) -> Result<Application> {
    let manifest = manifest::read(path, &config.labels)?;
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    Ok(Application {
        name: manifest.name,
        version: manifest.version,
        actors: manifest
            .actors
            .into_iter()
            .map(|actor| ActorComponent {
                name: actor.name,
                reference: match actor.path {
                    Some(path) => format!("file://{}", path.display()),
                    None => actor.reference.text().to_owned(),
                },
                max_concurrent: actor.max_concurrent.unwrap_or(config.actor.max_concurrent),
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
            .map(|capability| ProviderComponent {
                name: capability.name,
                reference: capability.reference.text().to_owned(),
                contract_id: capability.contract_id,
                link_name: capability.link_name,
                configuration: capability.configuration,
            })
            .collect(),
    })
}
