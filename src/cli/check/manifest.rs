//! Manifests with everything they refer to: files, claims, limits, links, and what they ask of one host together.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;

use super::{
    module::{Checked, verdict},
    place,
};
use crate::{
    artifact::{Limit, Reference, Remote, Requester, Source, file::read_blocking, image},
    claims::{Now, Policy, archive, builtin_provider_key, judge_provider},
    cli::{
        Output,
        manifests::files,
        preflight::{self, applications::Judge},
        table::printable,
    },
    config::{
        Config,
        manifest::{self, Actor, Application, Capability, Link},
    },
    error::{Error, Result},
    host::{
        desired::{Desired, DesiredActor, DesiredLink, DesiredProvider, Group},
        issuer::{check_named, of_nobody},
    },
    store::{Digest, MAX_BLOB_BYTES},
    wire::{LinkDefinition, link::link_id},
};

#[derive(Serialize)]
struct Shown {
    name: String,
    version: String,
    actors: Vec<ShownActor>,
    capabilities: Vec<ShownCapability>,
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct ShownActor {
    name: String,
    reference: String,
    /// Nothing of the three is known of one that is fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    max_concurrent: u16,
    runs_here: bool,
    links: Vec<String>,
}

#[derive(Serialize)]
struct ShownCapability {
    name: String,
    reference: String,
    contract_id: String,
    link_name: String,
    runs_here: bool,
}

/// Shows the manifest at `path`.
pub(super) fn check(path: &Path, config: &Config, output: &mut Output) -> Result<()> {
    preflight::writable(config)?;
    let mut shown = Together::new(config).add(path)?;
    let mut warnings = super::carried(config, output);
    warnings.append(&mut shown.warnings);
    shown.warnings = warnings;
    if output.json() {
        return output.document(&shown);
    }
    super::warn(&shown.warnings);
    print(&shown, output)?;
    output.line("this host would run it")
}

/// Shows the manifests in the directory `path`, each and what they ask for together.
pub(super) fn check_directory(path: &Path, config: &Config, output: &mut Output) -> Result<()> {
    #[derive(Serialize)]
    struct Document {
        applications: Vec<Shown>,
        warnings: Vec<String>,
    }
    preflight::writable(config)?;
    let mut together = Together::new(config);
    let (mut applications, mut refused) = (Vec::new(), Vec::new());
    for file in files::list(path)? {
        match together.add(&file) {
            Ok(shown) => applications.push(shown),
            Err(error) => refused.push(error),
        }
    }
    if !output.json() {
        applications.iter().for_each(|shown| super::warn(&shown.warnings));
        // The last is the error of the command.
        for error in refused.iter().rev().skip(1).rev() {
            eprintln!("latticed: {}", printable(error.text()));
        }
        applications.iter().try_for_each(|shown| print(shown, output))?;
    }
    if let Some(error) = refused.pop() {
        return Err(error);
    }
    if output.json() {
        let warnings = super::carried(config, output);
        return output.document(&Document { applications, warnings });
    }
    match applications.len() {
        0 => output.line("no manifests are there (*.yaml, *.yml)"),
        1 => output.line("this host would run it"),
        count => output.line(format_args!("this host would run all {count}")),
    }
}

/// Manifests of one host, judged one after another.
struct Together<'a> {
    config: &'a Config,
    judge: Judge,
    /// What those so far ask for.
    desired: Desired,
    /// Applications by name, with their files.
    names: BTreeMap<String, PathBuf>,
}

impl<'a> Together<'a> {
    fn new(config: &'a Config) -> Self {
        Self { config, judge: Judge::new(config), desired: Desired::default(), names: BTreeMap::new() }
    }

    fn add(&mut self, path: &Path) -> Result<Shown> {
        let config = self.config;
        let application = manifest::read(path, &config.labels)?;
        let file = path.display().to_string();
        if let Some(other) = self.names.insert(application.name.clone(), path.to_owned()) {
            return Err(Error::conflict(format!(
                "{file}: {} is a manifest of the application {} too",
                other.display(),
                application.name
            )));
        }
        let mut warnings = application.warnings.clone();
        warnings.extend(self.judge.judge(path, &application)?);
        for address in self.judge.listens(path) {
            warnings.extend(place::try_out(address).map_err(|error| error.context(&file))?);
        }
        let mut part = Desired::default();
        let mut providers = BTreeMap::new();
        for capability in &application.capabilities {
            let at = |error: Error| error.context(format!("{file}:{}: {}", capability.position, capability.name));
            if capability.runs_here
                && let Some(provider) = provider(capability, &application.name, config).map_err(at)?
            {
                let key = (provider.public_key.clone(), provider.link_name.clone());
                providers.insert(capability.name.as_str(), provider.clone());
                part.providers.insert(key, provider);
            }
        }
        let mut actors = Vec::new();
        for actor in &application.actors {
            let at = |error: Error| error.context(format!("{file}:{}: {}", actor.position, actor.name));
            if !actor.runs_here {
                actors.push(shown(actor, None, config));
                continue;
            }
            let Some(module) = &actor.path else {
                obtainable(&actor.reference, "an actor", &actor.issuers, config).map_err(at)?;
                warnings.push(format!(
                    "{file}:{}: {} is fetched when the host starts it and was not looked at",
                    actor.position,
                    actor.reference.text()
                ));
                actors.push(shown(actor, None, config));
                continue;
            };
            let limit = Limit { bytes: config.actor.module_bytes as u64, setting: "WASMCLOUD_ACTOR_MODULE_BYTES" };
            let bytes = read_blocking(module, limit).map_err(at)?;
            let digest = Digest::of(&bytes);
            let checked = verdict(bytes, config).map_err(at)?;
            if !actor.issuers.is_empty() {
                check_named(&checked.claims.issuer, &actor.issuers).map_err(at)?;
            }
            warnings.extend(unclaimed(&file, &application, actor, &checked));
            let key = checked.claims.subject.clone();
            for link in &actor.links {
                if let Some(provider) = providers.get(link.target.as_str()) {
                    let link = definition(&key, provider, link);
                    let application = application.name.clone();
                    let wanted = DesiredLink { link: Arc::new(link), application, confined: false };
                    part.links.insert(wanted.link.id.clone(), wanted);
                }
            }
            let count = actor.max_concurrent.unwrap_or(config.actor.max_concurrent);
            if count > 0 {
                let group = Group { count, annotations: BTreeMap::new(), application: application.name.clone() };
                let reference = format!("file://{}", module.display());
                let wanted = DesiredActor {
                    reference,
                    public_key: key.clone(),
                    digest,
                    previous: None,
                    groups: vec![group],
                    requester: Requester::Operator,
                    issuer: Some(checked.claims.issuer.clone()),
                };
                if part.actors.insert(key.clone(), wanted).is_some() {
                    let other = actors.iter().find(|other: &&ShownActor| other.subject.as_ref() == Some(&key));
                    let other = other.map_or_else(String::new, |other| other.name.clone());
                    let text = format!("is the same actor as {other:?}: one module needs one component");
                    return Err(at(Error::conflict(text)));
                }
            }
            actors.push(shown(actor, Some(checked), config));
        }
        self.desired = self.desired.with_application(&application.name, part).map_err(|error| error.context(&file))?;
        let capabilities = application.capabilities.iter().map(|capability| ShownCapability {
            name: capability.name.clone(),
            reference: capability.reference.text().to_owned(),
            contract_id: capability.contract_id.clone(),
            link_name: capability.link_name.clone(),
            runs_here: capability.runs_here,
        });
        Ok(Shown {
            capabilities: capabilities.collect(),
            name: application.name,
            version: application.version,
            actors,
            warnings,
        })
    }
}

/// The provider behind `capability`; nothing for one that is fetched.
fn provider(capability: &Capability, application: &str, config: &Config) -> Result<Option<DesiredProvider>> {
    let reference = &capability.reference;
    let (public_key, contract_id, token, issuer) = match reference.source() {
        Source::Builtin(name) => (builtin_provider_key(name).to_string(), capability.contract_id.clone(), None, None),
        Source::File(path) => {
            let policy = Policy {
                issuers: config.allowed_issuers.clone(),
                legacy_archives: config.providers.legacy_archives,
                ..Policy::new(Now::from_system(0))
            };
            let bytes = read_blocking(path, Limit::fixed(MAX_BLOB_BYTES as u64))?;
            let found = judge_provider(&bytes, &archive::host_target(), &policy)?;
            if !capability.issuers.is_empty() {
                check_named(&found.issuer, &capability.issuers)?;
            }
            if found.contract_id != capability.contract_id {
                return Err(Error::config(format!(
                    "{} serves {}, the manifest says {}",
                    reference, found.contract_id, capability.contract_id
                )));
            }
            (found.subject, found.contract_id, Some(found.token), Some(found.issuer))
        }
        Source::Remote(_) => {
            obtainable(reference, "a capability", &capability.issuers, config)?;
            return Ok(None);
        }
    };
    Ok(Some(DesiredProvider {
        reference: reference.text().to_owned(),
        public_key,
        link_name: capability.link_name.clone(),
        contract_id,
        configuration: capability.configuration.clone(),
        annotations: BTreeMap::new(),
        applications: BTreeSet::from([application.to_owned()]),
        token,
        requester: Requester::Operator,
        issuer,
    }))
}

/// Refuses a reference that this host would not fetch by its settings.
fn obtainable(reference: &Reference, wanted: &str, issuers: &[String], config: &Config) -> Result<()> {
    let Source::Remote(remote) = reference.source() else { return Ok(()) };
    let missing = match remote {
        Remote::Nats => !config.joins(),
        Remote::Mirror => config.mirror.sources.is_empty(),
        _ => false,
    };
    if missing {
        return Err(reference.cannot_give(wanted));
    }
    let is_open = || config.mirror.sources.iter().any(|source| !source.starts_with("https://"));
    let signed_by_anybody = issuers.is_empty() && config.allowed_issuers.is_any();
    if *remote == Remote::Mirror && !reference.is_pinned() && signed_by_anybody && is_open() {
        return Err(of_nobody());
    }
    if config.artifacts.require_digest && !reference.is_pinned() {
        return Err(Error::denied(format!("{reference} is not pinned, and WASMCLOUD_REQUIRE_DIGEST is set")));
    }
    if *remote == Remote::Image {
        image::check_tag(reference, config.artifacts.allow_latest)?;
    }
    Ok(())
}

fn definition(actor: &str, provider: &DesiredProvider, link: &Link) -> LinkDefinition {
    LinkDefinition {
        id: link_id(actor, &provider.contract_id, &provider.link_name),
        actor_id: actor.to_owned(),
        provider_id: provider.public_key.clone(),
        link_name: provider.link_name.clone(),
        contract_id: provider.contract_id.clone(),
        values: link.values.clone(),
    }
}

/// Without what was `checked`, one that is fetched or runs elsewhere.
fn shown(actor: &Actor, checked: Option<Checked>, config: &Config) -> ShownActor {
    let claims = checked.map(|checked| checked.claims);
    ShownActor {
        name: actor.name.clone(),
        reference: actor.reference.text().to_owned(),
        subject: claims.as_ref().map(|claims| claims.subject.clone()),
        issuer: claims.as_ref().map(|claims| claims.issuer.clone()),
        version: claims.map(|claims| claims.version),
        max_concurrent: actor.max_concurrent.unwrap_or(config.actor.max_concurrent),
        runs_here: actor.runs_here,
        links: actor.links.iter().map(|link| link.target.clone()).collect(),
    }
}

/// Links that the actor may not use, because its claims do not name the contract.
fn unclaimed<'a>(
    file: &'a str,
    application: &'a Application,
    actor: &'a Actor,
    checked: &'a Checked,
) -> impl Iterator<Item = String> + 'a {
    actor.links.iter().filter_map(move |link| {
        let target = application.capabilities.iter().find(|capability| capability.name == link.target)?;
        let contract = &target.contract_id;
        (!checked.claims.may_use(contract)).then(|| {
            format!(
                "{file}:{}: {} does not claim {contract}: its calls to {:?} will be refused; sign it with --cap {contract}",
                link.position, actor.name, link.target
            )
        })
    })
}

fn print(shown: &Shown, output: &mut Output) -> Result<()> {
    output.line(format_args!("application {} {}", printable(&shown.name), printable(&shown.version)))?;
    for actor in &shown.actors {
        let links = if actor.links.is_empty() { "nothing".to_owned() } else { actor.links.join(", ") };
        if !actor.runs_here {
            output.line(format_args!("  actor {} runs on other hosts", printable(&actor.name)))?;
            continue;
        }
        output.line(format_args!(
            "  actor {} {} from {}\n    up to {} at once, linked to {}",
            printable(&actor.name),
            actor.subject.as_deref().unwrap_or("(not known yet)"),
            printable(&actor.reference),
            actor.max_concurrent,
            printable(&links)
        ))?;
    }
    for capability in &shown.capabilities {
        if !capability.runs_here {
            output.line(format_args!("  capability {} runs on other hosts", printable(&capability.name)))?;
            continue;
        }
        output.line(format_args!(
            "  capability {} {}: {} as {}",
            printable(&capability.name),
            printable(&capability.reference),
            printable(&capability.contract_id),
            printable(&capability.link_name)
        ))?;
    }
    Ok(())
}
