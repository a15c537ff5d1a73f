//! What the lattice's configuration service wants of a starting host (`protocol/cache.md §7`): asked for once a boot, after
//! the first connection; nothing that runs here waits for it.
//!
//! Credentials are kept as if a client had sent them. Actors and providers are started by the same commands that clients
//! give, unless they are wanted here already: what the service said at an earlier boot is desired state by now. It never
//! stops anything: what the service no longer names goes on until somebody stops it.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::{Shared, control::intention};
use crate::{
    error::Result,
    log,
    nats::connection::Answer,
    wire::{
        control::config::{AutoStartProvider, ConfigAnswer, ConfigRequest},
        subject::Verb,
    },
};

/// How long the service may take over its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// How long one start is waited for before the next one begins. It goes on by itself then, and survives a power cut.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Waits before a start that failed for now is tried again: the first, and the longest; they double between.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

/// Attempts at one start: with the waits above, two hours. The next boot asks again.
const MAX_ATTEMPTS: u32 = 30;

/// One thing to start.
enum Start {
    Actor(String),
    Provider(AutoStartProvider),
}

/// Asks the service, and does what it wants.
pub async fn ask_once(shared: Arc<Shared>) {
    let Some(answer) = ask(&shared).await else { return };
    let ConfigAnswer { providers, actors, credentials, unusable_providers } = answer;
    log::info!(
        "the configuration service answered";
        providers = providers.len(), actors = actors.len(), registries = credentials.len()
    );
    if unusable_providers > 0 {
        log::error!("{unusable_providers} providers of the configuration service lack a reference or link name");
    }
    if let Err(error) = shared.host.artifacts().credentials().put(credentials).await {
        log::warn!("the registry credentials of the configuration service were not taken: {error}");
    }
    // Providers first, as whoever calls them comes up after them.
    let providers = providers.into_iter().map(Start::Provider);
    let mut left: Vec<Start> = providers.chain(actors.into_iter().map(Start::Actor)).collect();
    let mut pause = RETRY_PAUSES.0;
    for attempt in 1..=MAX_ATTEMPTS {
        let mut again = Vec::new();
        for start in left {
            match begin(&shared, &start).await {
                Ok(()) => {}
                Err(error) if attempt < MAX_ATTEMPTS && error.kind().is_curable() => again.push(start),
                Err(error) => {
                    log::warn!("the configuration service's {} was not started: {error}", start.reference());
                }
            }
        }
        if again.is_empty() {
            return;
        }
        log::warn!(
            "{} of the configuration service's actors and providers could not be started yet; trying again within {} s",
            again.len(),
            pause.as_secs()
        );
        left = again;
        smol::Timer::after(pause).await;
        pause = (pause * 2).min(RETRY_PAUSES.1);
    }
}

/// What the service says; nothing if there is none. Asked again only where the line broke before there could be an answer.
async fn ask(shared: &Shared) -> Option<ConfigAnswer> {
    let request = serde_json::to_vec(&ConfigRequest { labels: &shared.host.labels() })
        .inspect_err(|cause| log::warn!("the configuration service was not asked: {cause}"))
        .ok()?;
    loop {
        shared.control.connected().await;
        let subject = shared.subjects.config_service();
        match shared.control.request(subject, None, request.clone(), ANSWER_PATIENCE).await {
            Ok(Answer::Message(message)) => {
                return ConfigAnswer::parse(&message.payload).inspect_err(|error| log::warn!("{error}")).ok();
            }
            Ok(Answer::Nobody) => {
                log::warn!("no configuration service is there; going on without it");
                return None;
            }
            Ok(Answer::Silence) if shared.control.is_connected() => {
                log::warn!("the configuration service did not answer in time; going on without it");
                return None;
            }
            Ok(Answer::Silence) | Err(_) => smol::Timer::after(RETRY_PAUSES.0).await,
        };
    }
}

/// Starts it, unless that is wanted here already.
async fn begin(shared: &Arc<Shared>, start: &Start) -> Result<()> {
    let desired = shared.host.desired();
    let (there, verb, body) = match start {
        Start::Actor(reference) => (
            desired.actors.values().any(|actor| actor.reference == *reference),
            Verb::LaunchActor,
            json!({"actor_ref": reference, "count": 1}),
        ),
        Start::Provider(AutoStartProvider { image_reference, link_name }) => (
            desired
                .providers
                .values()
                .any(|provider| provider.reference == *image_reference && provider.link_name == *link_name),
            Verb::LaunchProvider,
            json!({"provider_ref": image_reference, "link_name": link_name}),
        ),
    };
    if there || intention::is_pursued(shared, start.reference()) {
        return Ok(());
    }
    intention::carry_out(shared, verb, body.to_string().as_bytes(), START_PATIENCE).await
}

impl Start {
    fn reference(&self) -> &str {
        match self {
            Start::Actor(reference) => reference,
            Start::Provider(provider) => &provider.image_reference,
        }
    }
}
