//! The control interface: what clients ask of this host, and of all hosts (`protocol/lattice.md §3–4`).
//!
//! Each request is read, answered within [`ACK_PATIENCE`] whatever the work behind it, and carried out through the host's
//! desired state like any other change. Pings are in `pings`, reads in `query`, commands in `command`, what of them takes
//! its time in `intention`, the rest in `lattice_wide`.

mod command;
pub mod intention;
mod lattice_wide;
pub mod pending;
pub mod pings;
mod query;

use std::{sync::Arc, time::Duration};

use async_nats::Message;
use futures_util::StreamExt;

use super::Shared;
use crate::{
    error::{Error, Result},
    log,
    nats::{admission::Admission, connection::Background},
    wire::{
        control::{Ack, ack::UNSUPPORTED},
        subject::{Topic, Verb},
    },
};

/// When an ack is given at the latest, but for one write to disk: clients wait two seconds, and the way there and back takes
/// its part.
const ACK_PATIENCE: Duration = Duration::from_millis(1000);

/// Requests that may be under way at once. Commands wait for each other at the disk anyway; one more is refused.
const MAX_IN_FLIGHT: usize = 256;

/// Their bodies together, bytes. Manifests and links with certificates have a few hundred kilobytes, and take several times
/// that while they are read; what does not fit is refused.
const MAX_IN_FLIGHT_BYTES: usize = 1 << 20;

/// Listens for ever. The subscriptions outlive the connection, so they are made once.
pub async fn serve_for_ever(shared: Arc<Shared>) {
    let admission = Admission::new(MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES);
    let mut listening: Vec<Background> = Vec::new();
    for subscription in shared.subjects.control_subscriptions(&shared.host_id) {
        let mut messages = loop {
            shared.control.connected().await;
            match shared.control.subscribe(subscription.subject.clone(), subscription.queue_group.clone()).await {
                Ok(messages) => break messages,
                Err(error) => {
                    log::debug!("{} is not listened to yet: {error}", subscription.subject);
                    smol::Timer::after(Duration::from_millis(100)).await;
                }
            }
        };
        let (shared, admission) = (shared.clone(), admission.clone());
        listening.push(shared.control.clone().spawn(async move {
            while let Some(message) = messages.next().await {
                take_in(&shared, &admission, message).await;
            }
        }));
    }
    // Whoever reads the next line may ask at once.
    shared.control.flush().await;
    log::info!("listening for commands from the lattice {}", shared.subjects.lattice());
    shared.events.set_listening(&shared.events.listening.commands, true);
    smol::future::pending::<()>().await;
}

/// Starts the answer to `message`, or refuses it from here: then whoever floods this host waits in line.
async fn take_in(shared: &Arc<Shared>, admission: &Admission, message: Message) {
    let Some(topic) = shared.subjects.parse_control(&message.subject) else { return };
    if topic == Topic::PingHosts {
        return pings::take_in(shared, message);
    }
    let Some(pass) = admission.enter_for(message.reply.as_deref(), message.payload.len()) else {
        let text = "this host has too many requests under way, from this client or in all; try again".to_owned();
        return reply(shared, &message, &Ack::refused(&text).encode()).await;
    };
    let shared = shared.clone();
    crate::task::spawn(async move {
        let _pass = pass;
        let subject = message.subject.as_str();
        let Some(topic) = shared.subjects.parse_control(subject) else { return };
        log::debug!("control request"; subject = subject);
        handle(&shared, topic, &message).await;
    })
    .detach();
}

async fn reply(shared: &Shared, message: &Message, body: &[u8]) {
    let Some(subject) = &message.reply else { return };
    let most = shared.control.max_payload();
    if body.len() > most {
        log::warn!("{} was not answered: {} bytes, the server takes {most}", message.subject, body.len());
        return;
    }
    if let Err(error) = shared.control.publish(subject.to_string(), body.to_vec()).await {
        log::debug!("an answer to {} was not sent: {error}", message.subject);
    }
}

async fn handle(shared: &Arc<Shared>, topic: Topic<'_>, message: &Message) {
    let body = &message.payload;
    let remote = shared.remote();
    let allowed = match topic {
        Topic::PingHosts => true,
        // There is no way to refuse a question but silence.
        Topic::GetClaims | Topic::GetLinks | Topic::GetInventory { .. } | Topic::GetConfig { .. } => remote.may_ask(),
        // A bid is a promise to start.
        Topic::AuctionActor | Topic::AuctionProvider => remote.may_change(),
        _ => {
            if let Err(error) = remote.check_change() {
                return acknowledge(shared, message, &Err(error)).await;
            }
            true
        }
    };
    if !allowed {
        return;
    }
    match topic {
        // Those never come this far.
        Topic::PingHosts => {}
        Topic::GetClaims => query::claims(shared, message).await,
        Topic::GetLinks => query::links(shared, message).await,
        Topic::GetInventory { .. } => query::inventory(shared, message).await,
        Topic::AuctionActor => lattice_wide::auction_actor(shared, message).await,
        Topic::AuctionProvider => lattice_wide::auction_provider(shared, message).await,
        Topic::GetConfig { entity, key } => lattice_wide::get_config(shared, message, entity, key).await,
        Topic::Command { verb, .. } => {
            let outcome = intention::carry_out(shared, verb, body, ACK_PATIENCE).await;
            acknowledge(shared, message, &outcome).await;
            if verb == Verb::StopHost && outcome.is_ok() {
                shared.control.flush().await;
                shared.host.request_stop();
            }
        }
        _ => {
            let outcome = match topic {
                Topic::PutLink => lattice_wide::put_link(shared, body).await,
                Topic::DeleteLink => lattice_wide::delete_link(shared, body).await,
                Topic::PutRegistries => lattice_wide::put_registries(shared, body).await,
                Topic::PutLabel { .. } => lattice_wide::put_label(shared, body).await,
                Topic::DeleteLabel { .. } => lattice_wide::delete_label(shared, body).await,
                Topic::PutConfig { entity, key } => shared.entity_config.put(entity, key, body).await,
                Topic::DeleteConfig { entity, key } => shared.entity_config.delete(entity, key).await,
                _ => Err(Error::usage(UNSUPPORTED)),
            };
            acknowledge(shared, message, &outcome).await;
        }
    }
}

async fn acknowledge(shared: &Shared, message: &Message, outcome: &Result<()>) {
    if let Err(error) = outcome {
        log::warn!("a control request was refused: {error}"; subject = message.subject);
    }
    reply(shared, message, &Ack::of(outcome).encode()).await;
}
