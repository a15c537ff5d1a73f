//! What a manifest says, checked: actors, capabilities, links.
//!
//! The model is that of wadm 0.4 to 0.7 (`core.oam.dev/v1beta1`). What one board cannot honour becomes a warning, what
//! makes no sense anywhere an error at its line and column.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    reader::{Map, Warnings, text},
    tree::{Content, Flaw, Node, Position},
};
use crate::{
    artifact::{Reference, Source},
    claims::{PublicKey, Role},
    suggest::hint,
};

const API_VERSION: &str = "core.oam.dev/v1beta1";
const KIND: &str = "Application";
/// Link name of a capability that gives none.
const DEFAULT_LINK_NAME: &str = "default";
/// Longest name of an application or component, bytes; names are shown in tables and logs.
const MAX_NAME_BYTES: usize = 128;

/// An application: actors, providers and links that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// Its name.
    pub name: String,
    /// The annotation `version`, `""` without one.
    pub version: String,
    /// The annotation `description`, `""` without one.
    pub description: String,
    /// Components of type `actor`.
    pub actors: Vec<Actor>,
    /// Components of type `capability`.
    pub capabilities: Vec<Capability>,
    /// What was read differently from what a wadm lattice would do, `FILE:LINE:COLUMN: text` each.
    pub warnings: Vec<String>,
}

/// One actor.
#[derive(Clone, Debug, PartialEq)]
pub struct Actor {
    /// Name inside the application.
    pub name: String,
    /// Where the component stands in the manifest.
    pub position: Position,
    /// The image, as it was written.
    pub reference: Reference,
    /// The module's file; nothing for one that is fetched.
    pub path: Option<PathBuf>,
    /// Invocations that may run at once: the replicas of its scaler. Without one, the host's default.
    pub max_concurrent: Option<u16>,
    /// Accounts that may have signed it; any where there are none.
    pub issuers: Vec<String>,
    /// Links to capabilities of this application.
    pub links: Vec<Link>,
    /// Whether it runs on this host: its spread asks for no labels that this host lacks.
    pub runs_here: bool,
}

/// One link, written as a trait of its actor.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Name of a capability component.
    pub target: String,
    /// Where the target is named.
    pub position: Position,
    /// Values for the provider.
    pub values: BTreeMap<String, String>,
}

/// One provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Capability {
    /// Name inside the application.
    pub name: String,
    /// Where the component stands in the manifest.
    pub position: Position,
    /// The image, as it was written.
    pub reference: Reference,
    /// Contract it serves.
    pub contract_id: String,
    /// Link name it serves.
    pub link_name: String,
    /// Start configuration; an object was made JSON text.
    pub configuration: Option<String>,
    /// Accounts that may have signed it; any where there are none.
    pub issuers: Vec<String>,
    /// Whether it runs on this host: its spread asks for no labels that this host lacks, or an actor here needs it.
    pub runs_here: bool,
}

/// What the reader needs to know beside the text.
pub struct Place<'a> {
    /// Directory that relative files count from.
    pub directory: &'a Path,
    /// Labels of this host, to judge requirements by.
    pub labels: &'a BTreeMap<String, String>,
}

/// Reads the document `root`. Warnings come without the file's name.
pub fn application(root: &Node, place: &Place<'_>) -> Result<(Application, Warnings), Flaw> {
    let mut warnings = Warnings::new();
    let mut top = Map::of(root, "the manifest")?;
    expect(&mut top, "apiVersion", API_VERSION, &mut warnings)?;
    expect(&mut top, "kind", KIND, &mut warnings)?;

    let mut metadata = Map::of(top.need("metadata")?, "metadata")?;
    let (name, position) = metadata.need_text("name", &mut warnings)?;
    check_name(&name, position)?;
    let mut version = String::new();
    let mut description = String::new();
    if let Some(annotations) = metadata.take("annotations") {
        let mut annotations = Map::of(annotations, "annotations")?;
        version = annotations.take_text("version", &mut warnings)?.unwrap_or_default();
        description = annotations.take_text("description", &mut warnings)?.unwrap_or_default();
    }
    metadata.take("labels");
    metadata.finish(&["name", "annotations", "labels"], &mut warnings);

    let mut specification = Map::of(top.need("spec")?, "spec")?;
    let mut application =
        Application { name, version, description, actors: vec![], capabilities: vec![], warnings: vec![] };
    let components = specification.need("components")?;
    let Content::List(items) = &components.content else {
        return Err(Flaw::new(
            components.position,
            format!("components must be a list, this is {}", components.content.kind()),
        ));
    };
    if items.is_empty() {
        return Err(Flaw::new(components.position, "components is empty: there is nothing to run"));
    }
    for item in items {
        component(item, place, &mut application, &mut warnings)?;
    }
    specification.finish(&["components"], &mut warnings);
    top.finish(&["apiVersion", "kind", "metadata", "spec"], &mut warnings);
    check_links(&application)?;
    keep_needed(&mut application, &mut warnings);
    Ok((application, warnings))
}

/// Takes a member that may have one value only.
fn expect(map: &mut Map<'_>, key: &str, value: &str, warnings: &mut Warnings) -> Result<(), Flaw> {
    let (found, position) = map.need_text(key, warnings)?;
    if found == value {
        return Ok(());
    }
    Err(Flaw::new(
        position,
        format!("{key} must be {value}, this is {found:?}; only wadm application manifests are read"),
    ))
}

fn check_name(name: &str, position: Position) -> Result<(), Flaw> {
    if name.len() > MAX_NAME_BYTES {
        return Err(Flaw::new(position, format!("a name has at most {MAX_NAME_BYTES} bytes, this one {}", name.len())));
    }
    if name.chars().any(char::is_control) {
        return Err(Flaw::new(position, "a name has no control characters"));
    }
    Ok(())
}

fn component(node: &Node, place: &Place<'_>, into: &mut Application, warnings: &mut Warnings) -> Result<(), Flaw> {
    let mut map = Map::of(node, "the component")?;
    let (name, position) = map.need_text("name", warnings)?;
    check_name(&name, position)?;
    let mut others = into.actors.iter().map(|actor| (&actor.name, actor.position));
    let mut more = into.capabilities.iter().map(|capability| (&capability.name, capability.position));
    if let Some((_, first)) =
        others.find(|(other, _)| **other == name).or_else(|| more.find(|(other, _)| **other == name))
    {
        return Err(Flaw::new(position, format!("the name {name:?} is taken by the component on line {}", first.line)));
    }
    let (kind, kind_position) = map.need_text("type", warnings)?;
    let properties = map.need("properties")?;
    let traits = map.take_list("traits")?;
    map.finish(&["name", "type", "properties", "traits"], warnings);
    match kind.as_str() {
        "actor" => into.actors.push(actor(name, position, properties, traits, place, warnings)?),
        "capability" => into.capabilities.push(capability(name, position, properties, traits, place, warnings)?),
        "component" => {
            let text = "type component belongs to wasmCloud 1.0, which runs WebAssembly components; here a signed module is an actor";
            return Err(Flaw::new(kind_position, text));
        }
        other => {
            let meant = hint(other, ["actor", "capability"]);
            return Err(Flaw::new(
                kind_position,
                format!("type must be actor or capability, this is {other:?}{meant}"),
            ));
        }
    }
    Ok(())
}

fn actor(
    name: String,
    position: Position,
    properties: &Node,
    traits: &[Node],
    place: &Place<'_>,
    warnings: &mut Warnings,
) -> Result<Actor, Flaw> {
    let mut map = Map::of(properties, "properties of the actor")?;
    let (image, image_position) = map.need_text("image", warnings)?;
    let reference = reference(&image, image_position)?;
    let path = reference.path_from(place.directory);
    if path.is_none() && !reference.is_fetched() {
        return Err(Flaw::new(image_position, reference.cannot_give("an actor").text()));
    }
    // Whatever is wrong with a digest is known before anything is fetched.
    if let Err(error) = reference.content_digest().and_then(|_| reference.manifest_digest()) {
        return Err(Flaw::new(image_position, error.text()));
    }
    if map.take("config").is_some() {
        warnings.push(Flaw::new(
            properties.position,
            "config of an actor has no effect: actors of this protocol take none",
        ));
    }
    let issuers = issuers(map.take("issuer"))?;
    map.take("annotations");
    map.finish(&["image", "config", "issuer", "annotations"], warnings);

    let mut links: Vec<Link> = Vec::new();
    let mut scaler = None;
    for node in traits {
        match component_trait(node, warnings)? {
            Trait::Ignored => {}
            Trait::Link(map) => links.push(link(map, warnings)?),
            Trait::Scaler(map) => {
                let scale = scale(map, place, warnings)?;
                if scaler.replace(scale).is_some() {
                    return Err(Flaw::new(
                        node.position,
                        format!("the actor {name:?} has a second scaler; one says it all"),
                    ));
                }
            }
        }
    }
    if scaler.is_none() {
        warnings.push(Flaw::new(
            position,
            format!("the actor {name:?} has no scaler: it runs here with this host's default, wadm would not start it"),
        ));
    }
    let runs_here = scaler.as_ref().is_none_or(|scale| scale.lacking.is_empty());
    if let Some(scale) = scaler.as_ref().filter(|_| !runs_here) {
        warnings.push(Flaw::new(
            scale.position,
            format!("the actor {name:?} does not run on this host: its spread asks for {}", scale.lacking),
        ));
    }
    let max_concurrent = scaler.map(|scale| scale.replicas);
    if max_concurrent == Some(0) {
        warnings.push(Flaw::new(position, format!("the actor {name:?} has 0 replicas: it is not started")));
    }
    Ok(Actor { name, position, reference, path, max_concurrent, issuers, links, runs_here })
}

fn capability(
    name: String,
    position: Position,
    properties: &Node,
    traits: &[Node],
    place: &Place<'_>,
    warnings: &mut Warnings,
) -> Result<Capability, Flaw> {
    let mut map = Map::of(properties, "properties of the capability")?;
    let (image, image_position) = map.need_text("image", warnings)?;
    let mut reference = reference(&image, image_position)?;
    if let Some(path) = reference.path_from(place.directory) {
        reference = self::reference(&format!("file://{}", path.display()), image_position)?;
    } else if !matches!(reference.source(), Source::Builtin(_)) && !reference.is_fetched() {
        return Err(Flaw::new(image_position, reference.cannot_give("a capability").text()));
    }
    if let Err(error) = reference.content_digest().and_then(|_| reference.manifest_digest()) {
        return Err(Flaw::new(image_position, error.text()));
    }
    let (contract_id, _) = map.need_text("contract", warnings)?;
    let link_name = map.take_text("link_name", warnings)?.filter(|name| !name.is_empty());
    let configuration = map.take("config").map(configuration).transpose()?;
    let issuers = issuers(map.take("issuer"))?;
    if !issuers.is_empty() && matches!(reference.source(), Source::Builtin(_)) {
        warnings
            .push(Flaw::new(position, format!("issuer has no effect on {reference}, which is part of this program")));
    }
    map.take("annotations");
    map.finish(&["image", "contract", "link_name", "config", "issuer", "annotations"], warnings);

    let mut scaled = false;
    let mut runs_here = true;
    for node in traits {
        match component_trait(node, warnings)? {
            Trait::Ignored => {}
            Trait::Link(map) => {
                return Err(Flaw::new(map.position, "a linkdef is a trait of the actor; its target is the capability"));
            }
            Trait::Scaler(map) => {
                let scale = scale(map, place, warnings)?;
                if std::mem::replace(&mut scaled, true) {
                    return Err(Flaw::new(
                        node.position,
                        format!("the capability {name:?} has a second scaler; one says it all"),
                    ));
                }
                runs_here = scale.lacking.is_empty();
                if scale.replicas != 1 {
                    warnings.push(Flaw::new(
                        scale.position,
                        format!("the capability {name:?} runs once on this board, not {} times", scale.replicas),
                    ));
                }
            }
        }
    }
    let link_name = link_name.unwrap_or_else(|| DEFAULT_LINK_NAME.into());
    Ok(Capability { name, position, reference, contract_id, link_name, configuration, issuers, runs_here })
}

fn reference(image: &str, position: Position) -> Result<Reference, Flaw> {
    Reference::parse(image).map_err(|error| Flaw::new(position, error.text()))
}

/// The accounts that `issuer` names: one, or a list of them.
fn issuers(node: Option<&Node>) -> Result<Vec<String>, Flaw> {
    let nodes = match node.map(|node| &node.content) {
        None => return Ok(Vec::new()),
        Some(Content::List(items)) => items.iter().collect(),
        Some(_) => node.into_iter().collect::<Vec<_>>(),
    };
    let account = |node: &&Node| {
        let Content::Text(text) = &node.content else {
            return Err(Flaw::new(node.position, format!("issuer must be text, this is {}", node.content.kind())));
        };
        let key = text.parse::<PublicKey>().map_err(|cause| Flaw::new(node.position, format!("issuer: {cause}")))?;
        match key.role() {
            Role::Account => Ok(key.to_string()),
            role => Err(Flaw::new(
                node.position,
                format!("issuer: {key} is the key of a {role}; issuers are accounts, their keys start with A"),
            )),
        }
    };
    nodes.iter().map(account).collect()
}

/// Text as it is; anything else as JSON.
fn configuration(node: &Node) -> Result<String, Flaw> {
    match &node.content {
        Content::Text(text) => Ok(text.clone()),
        Content::Map(_) | Content::List(_) => Ok(node.to_json()?.to_string()),
        other => Err(Flaw::new(node.position, format!("config must be text or a map, this is {}", other.kind()))),
    }
}

enum Trait<'a> {
    Link(Map<'a>),
    Scaler(Map<'a>),
    /// One that somebody made for a lattice of his own.
    Ignored,
}

fn component_trait<'a>(node: &'a Node, warnings: &mut Warnings) -> Result<Trait<'a>, Flaw> {
    let mut map = Map::of(node, "the trait")?;
    let (kind, position) = map.need_text("type", warnings)?;
    let properties = map.take("properties");
    map.finish(&["type", "properties"], warnings);
    let properties = |what| {
        let node = properties.ok_or_else(|| Flaw::new(node.position, format!("the {kind} has no properties")))?;
        Map::of(node, what)
    };
    match kind.as_str() {
        "linkdef" => Ok(Trait::Link(properties("properties of the linkdef")?)),
        "spreadscaler" | "daemonscaler" => Ok(Trait::Scaler(properties("properties of the scaler")?)),
        "link" => Err(Flaw::new(
            position,
            "the trait link belongs to wasmCloud 1.0; here it is a linkdef with target and values",
        )),
        other => {
            let known = ["spreadscaler", "daemonscaler", "linkdef"];
            let meant = hint(other, known);
            let text = format!("the trait {other:?} is not known{meant}; known are {}", known.join(", "));
            if !meant.is_empty() {
                return Err(Flaw::new(position, text));
            }
            warnings.push(Flaw::new(position, format!("{text}; it is ignored")));
            Ok(Trait::Ignored)
        }
    }
}

fn link(mut map: Map<'_>, warnings: &mut Warnings) -> Result<Link, Flaw> {
    let (target, position) = map.need_text("target", warnings)?;
    let mut values = BTreeMap::new();
    if let Some(node) = map.take("values") {
        let Content::Map(members) = &node.content else {
            return Err(Flaw::new(
                node.position,
                format!("values of the linkdef must be a map, this is {}", node.content.kind()),
            ));
        };
        for member in members {
            values.insert(member.key.clone(), text(&member.value, &format!("the value {}", member.key), warnings)?);
        }
    }
    map.finish(&["target", "values"], warnings);
    Ok(Link { target, position, values })
}

struct Scale {
    position: Position,
    replicas: u16,
    /// The labels that every group of its spread asks for and this host lacks, for people; empty where it runs here.
    lacking: String,
}

fn scale(mut map: Map<'_>, place: &Place<'_>, warnings: &mut Warnings) -> Result<Scale, Flaw> {
    let position = map.position;
    // The name that later versions of wadm use.
    let replicas = match map.take("replicas").or_else(|| map.take("instances")) {
        None => return Err(Flaw::new(position, "the scaler has no replicas")),
        Some(node) => {
            let count = match &node.content {
                Content::Number(text) => text.parse::<u16>().ok(),
                _ => None,
            };
            count.ok_or_else(|| {
                Flaw::new(node.position, format!("replicas must be a whole number from 0 to {}", u16::MAX))
            })?
        }
    };
    let spread = map.take_list("spread")?;
    map.finish(&["replicas", "spread"], warnings);
    let mut lacking = Vec::new();
    let mut meets_one = spread.is_empty();
    let count = spread.len();
    if count > 1 {
        let groups = count;
        warnings.push(Flaw::new(
            position,
            format!(
                "of the spread over {groups} groups of hosts this host takes the first that it belongs to, with all \
                 {replicas} replicas"
            ),
        ));
    }
    for node in spread {
        let mut group = Map::of(node, "the spread")?;
        group.need_text("name", warnings)?;
        if let Some(weight) = group.take("weight").filter(|node| !matches!(node.content, Content::Number(_))) {
            return Err(Flaw::new(
                weight.position,
                format!("weight must be a number, this is {}", weight.content.kind()),
            ));
        }
        let mut missing = Vec::new();
        if let Some(requirements) = group.take("requirements") {
            let Content::Map(members) = &requirements.content else {
                return Err(Flaw::new(
                    requirements.position,
                    format!("requirements must be a map of labels, this is {}", requirements.content.kind()),
                ));
            };
            for member in members {
                let wanted = text(&member.value, &format!("the requirement {}", member.key), warnings)?;
                let found = place.labels.get(&member.key);
                if found != Some(&wanted) {
                    let found = found
                        .map_or_else(|| "this host has none".to_owned(), |found| format!("this host has {found:?}"));
                    missing.push(format!("the label {} = {wanted:?} ({found})", member.key));
                }
            }
        }
        match missing.is_empty() {
            true => meets_one = true,
            false => lacking.push(missing.join(" and ")),
        }
        group.finish(&["name", "requirements", "weight"], warnings);
    }
    let lacking = if meets_one { String::new() } else { lacking.join(", or ") };
    Ok(Scale { position, replicas, lacking })
}

/// A capability that a spread keeps away from this host runs here all the same where an actor here is linked to it.
fn keep_needed(application: &mut Application, warnings: &mut Warnings) {
    let Application { actors, capabilities, .. } = application;
    for capability in capabilities.iter_mut().filter(|capability| !capability.runs_here) {
        let user = actors
            .iter()
            .find(|actor| actor.runs_here && actor.links.iter().any(|link| link.target == capability.name));
        let name = &capability.name;
        let text = match user {
            Some(user) => format!(
                "the capability {name:?} runs here although its spread asks for other hosts: the actor {:?} needs it",
                user.name
            ),
            None => format!("the capability {name:?} does not run on this host: its spread asks for labels it lacks"),
        };
        capability.runs_here = user.is_some();
        warnings.push(Flaw::new(capability.position, text));
    }
}

/// Every link needs a capability, and no two may be the same link.
fn check_links(application: &Application) -> Result<(), Flaw> {
    for (index, capability) in application.capabilities.iter().enumerate() {
        let same = |other: &&Capability| {
            other.reference.text() == capability.reference.text() && other.link_name == capability.link_name
        };
        if let Some(other) = application.capabilities[..index].iter().find(same) {
            return Err(Flaw::new(
                capability.position,
                format!(
                    "{:?} is {} with link name {:?}, as {:?} on line {} is; give it another link_name",
                    capability.name, capability.reference, capability.link_name, other.name, other.position.line
                ),
            ));
        }
    }
    for actor in &application.actors {
        let mut seen: Vec<(&str, &str, Position)> = Vec::new();
        for link in &actor.links {
            let target = application.capabilities.iter().find(|capability| capability.name == link.target);
            let Some(target) = target else {
                let names = application.capabilities.iter().map(|capability| capability.name.as_str());
                let reason = if application.actors.iter().any(|actor| actor.name == link.target) {
                    " is an actor; actors call each other without a link".to_owned()
                } else {
                    format!(" is no component of this manifest{}", hint(&link.target, names))
                };
                return Err(Flaw::new(link.position, format!("the target {:?}{reason}", link.target)));
            };
            let (contract, name) = (target.contract_id.as_str(), target.link_name.as_str());
            if let Some((.., first)) = seen.iter().find(|(other, known, _)| (*other, *known) == (contract, name)) {
                return Err(Flaw::new(
                    link.position,
                    format!(
                        "the actor {:?} is linked to {contract} as {name:?} already on line {}; give one of the capabilities another link_name",
                        actor.name, first.line
                    ),
                ));
            }
            seen.push((contract, name, link.position));
        }
    }
    Ok(())
}
