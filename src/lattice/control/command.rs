//! Commands to this host: actors, providers, its own end. Each becomes a change of what should run, on disk before it is
//! answered; what comes of it is told by events.

use std::sync::Arc;

use super::{
    Shared,
    intention::{Artifact, Subject, Ticket},
};
use crate::{
    artifact::Requester,
    error::{Error, Result},
    host::{
        change::Module,
        desired::{Desired, DesiredProvider},
    },
    wire::{
        control::{
            Annotations,
            actor::{LaunchActor, ScaleActor, ScaleTarget, StopActor, UpdateActor},
            host::StopHost,
            provider::{LaunchProvider, StopProvider},
        },
        event::provider::ProviderStartFailed,
        subject::Verb,
    },
};

pub async fn run(shared: &Arc<Shared>, ticket: &Ticket, verb: Verb, body: &[u8]) -> Result<()> {
    match verb {
        Verb::LaunchActor => launch_actor(shared, ticket, LaunchActor::parse(body)?).await,
        Verb::StopActor => stop_actor(shared, ticket, StopActor::parse(body)?).await,
        Verb::ScaleActor => scale_actor(shared, ticket, ScaleActor::parse(body)?).await,
        Verb::UpdateActor => update_actor(shared, ticket, UpdateActor::parse(body)?).await,
        Verb::LaunchProvider => launch_provider(shared, ticket, LaunchProvider::parse(body)?).await,
        Verb::StopProvider => stop_provider(shared, ticket, StopProvider::parse(body)?).await,
        // The answer goes out first; the caller of this then asks the host to end.
        Verb::StopHost => {
            StopHost::parse(body)?;
            shared.remote().check_operators("the operator of this board started this host")
        }
    }
}

/// What a command is about; nothing for one that is about the host, or cannot be read.
pub fn subject(verb: Verb, body: &[u8]) -> Option<Subject> {
    Some(match verb {
        Verb::StopActor => {
            let stop = StopActor::parse(body).ok()?;
            Subject { artifact: Artifact::Key(stop.actor_id), link_name: None, ends: stop.count.is_none() }
        }
        Verb::StopProvider => {
            let stop = StopProvider::parse(body).ok()?;
            let (key, link_name) = (stop.provider_ref, Some(stop.link_name));
            Subject { artifact: Artifact::Key(key), link_name, ends: true }
        }
        Verb::LaunchProvider => {
            let launch = LaunchProvider::parse(body).ok()?;
            let link_name = Some(launch.link_name);
            Subject { artifact: Artifact::Reference(launch.provider_ref), link_name, ends: false }
        }
        Verb::ScaleActor => {
            let scale = ScaleActor::parse(body).ok()?;
            let artifact = match scale.target {
                ScaleTarget::Key { actor_id, actor_ref: None } => Artifact::Key(actor_id),
                ScaleTarget::Key { actor_ref: Some(reference), .. } | ScaleTarget::Reference(reference) => {
                    Artifact::Reference(reference)
                }
            };
            Subject { artifact, link_name: None, ends: scale.count == Some(0) }
        }
        Verb::LaunchActor => Subject::of(LaunchActor::parse(body).ok()?.actor_ref),
        Verb::UpdateActor => Subject::of(UpdateActor::parse(body).ok()?.new_actor_ref),
        Verb::StopHost => return None,
    })
}

async fn launch_actor(shared: &Arc<Shared>, ticket: &Ticket, launch: LaunchActor) -> Result<()> {
    let LaunchActor { actor_ref, count, annotations } = launch;
    let started = async {
        let (module, _) = fetch(shared, &actor_ref).await?;
        ticket.change_of(&module.public_key, shared, |desired| desired.start_actor(&module, count, &annotations)).await
    };
    let outcome = started.await;
    report_start(shared, ticket, None, &actor_ref, &annotations, count, outcome)
}

async fn scale_actor(shared: &Arc<Shared>, ticket: &Ticket, scale: ScaleActor) -> Result<()> {
    let ScaleActor { target, count, annotations, awaits_start } = scale;
    // Absent means as often as this host lets any actor run.
    let count = count.unwrap_or_else(|| shared.host.max_concurrent());
    let (key, reference) = match target {
        ScaleTarget::Key { actor_id, actor_ref } => {
            if count == 0 {
                let (_, stopped) = shared.host.desired().stop_actor(&actor_id, None, &Annotations::new());
                if stopped.count == 0 {
                    return Ok(());
                }
                let all = Annotations::new();
                return ticket.change(shared, |desired| Ok(desired.stop_actor(&actor_id, None, &all).0)).await;
            }
            let running = shared.host.desired().actors.get(&actor_id).map(|actor| actor.reference.clone());
            let Some(reference) = actor_ref.or(running) else {
                return Err(Error::invalid("Scaling actor up without an OCI reference is not currently supported"));
            };
            (Some(actor_id), reference)
        }
        ScaleTarget::Reference(reference) => {
            // None of it runs and none is wanted: nothing is fetched to learn that.
            if count == 0 && !shared.host.desired().actors.values().any(|actor| actor.reference == reference) {
                return Ok(());
            }
            (None, reference)
        }
    };
    let scaled = async {
        let (module, unchanged) = fetch(shared, &reference).await?;
        if let Some(key) = key.as_ref().filter(|key| **key != module.public_key) {
            return Err(Error::conflict(format!("{reference} is the actor {}, not {key}", module.public_key)));
        }
        let total =
            |desired: &Desired| desired.actors.get(&module.public_key).map_or(0, |actor| actor.max_concurrent());
        let (mut before, mut after) = (0, 0);
        let scaled = |desired: &Desired| {
            let next = desired.scale_actor(&module, count, &annotations)?;
            (before, after) = (total(desired), total(&next));
            Ok(next)
        };
        ticket.change_of(&module.public_key, shared, scaled).await?;
        // A client that starts an actor by scaling it waits for the event of a single start, even when nothing has to be
        // started. The events that count instances come from what changes, and from nothing else.
        if unchanged && count > 0 && before == after {
            shared.events.tell_unchanged(&module.public_key, &reference, &annotations);
        } else if unchanged && count > 0 && after < before && awaits_start {
            shared.events.tell_fewer(&module.public_key, &reference, &annotations);
        }
        Ok(())
    };
    let outcome = scaled.await;
    report_start(shared, ticket, key.as_deref(), &reference, &annotations, count, outcome)
}

/// Tells a failed start by events, in which clients look for it.
fn report_start(
    shared: &Shared,
    ticket: &Ticket,
    key: Option<&str>,
    reference: &str,
    annotations: &Annotations,
    count: u16,
    outcome: Result<()>,
) -> Result<()> {
    outcome.inspect_err(|error| {
        if !ticket.goes_on_after(error) {
            shared.events.tell_start_failed(key, reference, annotations, count, error.text());
        }
    })
}

/// The module behind `reference`: what runs from it already, else fetched. The second value is whether it runs.
async fn fetch(shared: &Shared, reference: &str) -> Result<(Module, bool)> {
    let desired = shared.host.desired();
    if let Some(there) = desired.actors.values().find(|actor| actor.reference == reference) {
        let module = Module {
            reference: reference.to_owned(),
            public_key: there.public_key.clone(),
            digest: there.digest,
            requester: there.requester,
            issuer: there.issuer.clone(),
        };
        return Ok((module, true));
    }
    shared.may_fetch(reference)?;
    let (module, _) = shared.host.fetch_module(reference, Requester::Lattice).await?;
    Ok((module, false))
}

async fn stop_actor(shared: &Shared, ticket: &Ticket, stop: StopActor) -> Result<()> {
    let StopActor { actor_id, count, annotations } = stop;
    let stopped = |desired: &Desired| {
        let (next, stopped) = desired.stop_actor(&actor_id, count, &annotations);
        // A client waits for the event of the stop, which never comes where nothing stops.
        if stopped.count == 0 && !ticket.may_concern_a_start() {
            return Err(Error::not_found(match desired.actors.contains_key(&actor_id) {
                true => format!("the actor {actor_id} has no instance with these annotations on this host"),
                false => format!("the actor {actor_id} is not running on this host"),
            }));
        }
        Ok(next)
    };
    ticket.change(shared, stopped).await
}

async fn update_actor(shared: &Arc<Shared>, ticket: &Ticket, update: UpdateActor) -> Result<()> {
    let mut about = (update.actor_id.clone(), 0);
    try_update(shared, ticket, &update, &mut about).await.map_err(|error| {
        if !ticket.goes_on_after(&error) {
            shared.events.tell_update_failed(about.0.as_deref().unwrap_or("N/A"), about.1, error.text());
        }
        error.context("Unable to perform live update")
    })
}

/// Updates an actor; `about` becomes its key and new revision as soon as they are known.
async fn try_update(
    shared: &Arc<Shared>,
    ticket: &Ticket,
    update: &UpdateActor,
    about: &mut (Option<String>, i32),
) -> Result<()> {
    let reference = &update.new_actor_ref;
    if let Some(key) = &update.actor_id
        && !shared.host.desired().actors.contains_key(key)
    {
        return Err(Error::not_found(format!("the actor {key} is not running on this host")));
    }
    if let Some(key) = &update.actor_id {
        // Before anything is fetched for it.
        shared.remote().check_actor(&shared.host.desired(), key)?;
    }
    shared.may_fetch(reference)?;
    let (module, claims) = shared.host.fetch_module(reference, Requester::Lattice).await?;
    if let Some(key) = update.actor_id.as_ref().filter(|key| **key != module.public_key) {
        return Err(Error::conflict(format!(
            "{reference} is the actor {}, not {key}: name that actor, or the reference of a module of {key}",
            module.public_key
        )));
    }
    *about = (Some(module.public_key.clone()), claims.revision);
    shared.host.check_update(&module, &claims).await?;
    ticket.change(shared, |desired| desired.update_actor(&module)).await
}

async fn launch_provider(shared: &Shared, ticket: &Ticket, launch: LaunchProvider) -> Result<()> {
    let LaunchProvider { provider_ref, link_name, configuration, annotations } = launch;
    let started = async {
        let running = shared.host.desired();
        let same = running
            .providers
            .values()
            .find(|there| (&there.reference, &there.link_name) == (&provider_ref, &link_name));
        if let Some(same) = same {
            // One that was given up is started by the same command as the first time.
            if shared.host.retry_provider(&same.public_key, &link_name) {
                return Ok(());
            }
            return Err(Error::conflict("Provider with that link name is already running on this host"));
        }
        shared.may_fetch_provider(&provider_ref)?;
        let found = shared.host.find_provider(&provider_ref, &link_name, Requester::Lattice).await?;
        let provider = DesiredProvider { configuration, annotations, ..found };
        let key = provider.public_key.clone();
        ticket.change_of(&key, shared, |desired| desired.start_provider(provider)).await
    };
    started.await.inspect_err(|error| {
        if ticket.goes_on_after(error) {
            return;
        }
        shared.events.emit(&ProviderStartFailed {
            provider_ref: &provider_ref,
            link_name: &link_name,
            host_id: &shared.host_id,
            error: error.text(),
        });
    })
}

async fn stop_provider(shared: &Shared, ticket: &Ticket, stop: StopProvider) -> Result<()> {
    let StopProvider { provider_ref, link_name, .. } = stop;
    let stopped = |desired: &Desired| {
        let wanted = (provider_ref.clone(), link_name.clone());
        let mut names = desired.providers.keys().filter(|(key, _)| *key == provider_ref).map(|(_, name)| name);
        if !desired.providers.contains_key(&wanted)
            && !ticket.may_concern_a_start()
            && let Some(other) = names.next()
        {
            return Err(Error::not_found(format!(
                "the provider {provider_ref} is not running under the link name {link_name} on this host, it runs \
                 under {other}"
            )));
        }
        Ok(desired.stop_provider(&provider_ref, &link_name))
    };
    ticket.change(shared, stopped).await
}
