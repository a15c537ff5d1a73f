//! What happens on this host, told once to everybody who listens: the log now; the lattice and the dashboard later.

use std::sync::Arc;

use crate::{host::health::Verdict, log, wire::LinkDefinition};

/// Something that happened. Names follow `protocol/events.md`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The host runs and has begun to reconcile.
    HostStarted {
        /// `N…`.
        host_id: String,
        /// Name for people.
        friendly_name: String,
    },
    /// The host drained and is about to end.
    HostStopped,
    /// An actor answers from now on.
    ActorStarted {
        /// `M…`.
        public_key: String,
        /// Name in its claims.
        name: String,
        /// Where it came from.
        image_ref: String,
        /// Invocations that may run at once.
        max_concurrent: u16,
    },
    /// An actor could not be started.
    ActorStartFailed {
        /// `M…`.
        public_key: String,
        /// Where it should have come from.
        image_ref: String,
        /// Why not.
        error: String,
    },
    /// A running actor got a new module.
    ActorUpdated {
        /// `M…`.
        public_key: String,
        /// Effective revision of the new module.
        revision: i32,
    },
    /// A running actor may now run more or less often, or for others.
    ActorScaled {
        /// `M…`.
        public_key: String,
        /// Invocations that may run at once.
        max_concurrent: u16,
    },
    /// An actor or a provider takes no more calls, and finishes those that are under way: others shall get what comes.
    Leaving {
        /// `M…` or `V…`.
        public_key: String,
    },
    /// An actor no longer answers.
    ActorStopped {
        /// `M…`.
        public_key: String,
    },
    /// A provider serves its contract from now on.
    ProviderStarted {
        /// `V…`.
        public_key: String,
        /// Where it came from.
        image_ref: String,
        /// Contract served.
        contract_id: String,
        /// Link name served.
        link_name: String,
    },
    /// A provider could not be started.
    ProviderStartFailed {
        /// `builtin:…` or an archive.
        provider_ref: String,
        /// Link name it should have served.
        link_name: String,
        /// Why not.
        error: String,
    },
    /// A provider serves no longer.
    ProviderStopped {
        /// `V…`.
        public_key: String,
        /// Contract served.
        contract_id: String,
        /// Link name served.
        link_name: String,
        /// Why.
        reason: String,
    },
    /// A probe came back.
    HealthChecked {
        /// `M…` or `V…`.
        public_key: String,
        /// Contract served; empty for an actor.
        contract_id: String,
        /// Link name served; empty for an actor.
        link_name: String,
        /// What it says compared with the one before.
        verdict: Verdict,
        /// Why it is unwell; empty for a well one.
        complaint: String,
    },
    /// A link is in force.
    LinkSet(Arc<LinkDefinition>),
    /// The provider could not take a link; it is tried again.
    LinkFailed(Arc<LinkDefinition>, String),
    /// A link is gone.
    LinkDeleted(Arc<LinkDefinition>),
}

/// Somebody who listens. Must not block and must bound what it keeps: the host calls it in the middle of its work.
pub trait Events: Send + Sync + 'static {
    /// `event` has just happened.
    fn happened(&self, event: &Event);
}

/// Writes each event as one line.
pub struct LogEvents;

fn invocations(count: u16) -> String {
    if count == 1 { "1 invocation".to_owned() } else { format!("{count} invocations") }
}

impl Events for LogEvents {
    fn happened(&self, event: &Event) {
        match event {
            Event::HostStarted { host_id, friendly_name } => {
                log::info!("host {friendly_name} started"; host_id = host_id);
            }
            Event::HostStopped => log::info!("host stopped"),
            Event::ActorStarted { public_key, name, image_ref, max_concurrent } => {
                log::info!(
                    "actor {name} started, up to {} at once", invocations(*max_concurrent);
                    actor_id = public_key, image_ref = image_ref
                );
            }
            Event::ActorStartFailed { public_key, image_ref, error } => {
                log::error!("actor did not start: {error}"; actor_id = public_key, image_ref = image_ref);
            }
            Event::ActorUpdated { public_key, revision } => {
                log::info!("actor updated to revision {revision}"; actor_id = public_key);
            }
            Event::ActorScaled { public_key, max_concurrent } => {
                log::info!("actor scaled to {} at once", invocations(*max_concurrent); actor_id = public_key);
            }
            Event::Leaving { public_key } => log::debug!("it takes no more calls"; entity = public_key),
            Event::ActorStopped { public_key } => log::info!("actor stopped"; actor_id = public_key),
            Event::ProviderStarted { public_key, image_ref, contract_id, link_name } => {
                log::info!(
                    "provider {image_ref} started";
                    provider_id = public_key, contract_id = contract_id, link_name = link_name
                );
            }
            Event::ProviderStartFailed { provider_ref, link_name, error } => {
                log::error!("provider {provider_ref} did not start: {error}"; link_name = link_name);
            }
            Event::ProviderStopped { public_key, contract_id, link_name, reason } => {
                log::info!(
                    "provider stopped: {reason}";
                    provider_id = public_key, contract_id = contract_id, link_name = link_name
                );
            }
            Event::HealthChecked { public_key, contract_id, link_name, verdict, complaint } => match verdict {
                Verdict::Passed => log::debug!("healthy"; key = public_key, link_name = link_name),
                Verdict::Failed if contract_id.is_empty() => {
                    log::warn!("unhealthy: {complaint}"; actor_id = public_key);
                }
                Verdict::Failed => log::warn!(
                    "unhealthy: {complaint}";
                    provider_id = public_key, contract_id = contract_id, link_name = link_name
                ),
                Verdict::Unchanged => {}
            },
            Event::LinkSet(link) => log::info!(
                "link set";
                actor_id = link.actor_id, provider_id = link.provider_id,
                contract_id = link.contract_id, link_name = link.link_name
            ),
            Event::LinkFailed(link, error) => log::error!(
                "link is not in force: {error}";
                actor_id = link.actor_id, provider_id = link.provider_id,
                contract_id = link.contract_id, link_name = link.link_name
            ),
            Event::LinkDeleted(link) => log::info!(
                "link deleted";
                actor_id = link.actor_id, provider_id = link.provider_id,
                contract_id = link.contract_id, link_name = link.link_name
            ),
        }
    }
}
