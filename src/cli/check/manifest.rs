//! A manifest with everything it refers to: files, claims, limits, links.

use std::path::Path;

use serde::Serialize;

use super::module::{Checked, verdict};
use crate::{
    artifact::{Limit, file::read_blocking},
    cli::{Output, table::printable},
    config::{
        Config,
        manifest::{self, Actor, Application},
    },
    error::{Error, Result},
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
    links: Vec<String>,
}

#[derive(Serialize)]
struct ShownCapability {
    name: String,
    reference: String,
    contract_id: String,
    link_name: String,
}

/// Shows the manifest at `path`.
pub(super) fn check(path: &Path, config: &Config, output: &mut Output) -> Result<()> {
    let application = manifest::read(path, &config.labels)?;
    let file = path.display().to_string();
    let mut warnings = super::carried(config, output);
    warnings.extend(application.warnings.iter().cloned());
    let mut actors: Vec<ShownActor> = Vec::new();
    for actor in &application.actors {
        let at = |error: Error| error.context(format!("{file}:{}: {}", actor.position, actor.name));
        let limit = Limit { bytes: config.actor.module_bytes as u64, setting: "WASMCLOUD_ACTOR_MODULE_BYTES" };
        let Some(path) = &actor.path else {
            warnings.push(format!(
                "{file}:{}: {} is fetched when the host starts it and was not looked at",
                actor.position,
                actor.reference.text()
            ));
            actors.push(shown(actor, None, config));
            continue;
        };
        let bytes = read_blocking(path, limit).map_err(at)?;
        let checked = verdict(bytes, config).map_err(at)?;
        if let Some(other) = actors.iter().find(|other| other.subject.as_ref() == Some(&checked.claims.subject)) {
            let text = format!("is the same actor as {:?}: one module needs one component", other.name);
            return Err(at(Error::conflict(text)));
        }
        warnings.extend(unclaimed(&file, &application, actor, &checked));
        actors.push(shown(actor, Some(checked), config));
    }
    let capabilities = application.capabilities.iter().map(|capability| ShownCapability {
        name: capability.name.clone(),
        reference: capability.reference.text().to_owned(),
        contract_id: capability.contract_id.clone(),
        link_name: capability.link_name.clone(),
    });
    let shown = Shown {
        capabilities: capabilities.collect(),
        name: application.name,
        version: application.version,
        actors,
        warnings,
    };
    if output.json() {
        return output.document(&shown);
    }
    super::warn(&shown.warnings);
    print(&shown, output)
}

/// Without what was `checked`, one that is fetched.
fn shown(actor: &Actor, checked: Option<Checked>, config: &Config) -> ShownActor {
    let claims = checked.map(|checked| checked.claims);
    ShownActor {
        name: actor.name.clone(),
        reference: actor.reference.text().to_owned(),
        subject: claims.as_ref().map(|claims| claims.subject.clone()),
        issuer: claims.as_ref().map(|claims| claims.issuer.clone()),
        version: claims.map(|claims| claims.version),
        max_concurrent: actor.max_concurrent.unwrap_or(config.actor.max_concurrent),
        links: actor.links.iter().map(|link| link.target.clone()).collect(),
    }
}

/// Links that the actor may not use, because its claims do not name the contract. The provider may still call it.
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
        output.line(format_args!(
            "  capability {} {}: {} as {}",
            printable(&capability.name),
            printable(&capability.reference),
            printable(&capability.contract_id),
            printable(&capability.link_name)
        ))?;
    }
    output.line("this host would run it")
}
