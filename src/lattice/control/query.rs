//! What clients ask to know: what runs, what is known.

use async_nats::Message;
use serde::Serialize;

use super::{Shared, reply};
use crate::{
    host::desired::MAX_GROUPS,
    lattice::sync,
    log,
    wire::{
        control::{
            claims::ClaimsList,
            host::uptime_human,
            inventory::{self, Inventory},
            link::Links,
        },
        id,
    },
};

/// Answers with what runs here; where that does not fit one message, with as many groups of instances of each actor as do.
pub async fn inventory(shared: &Shared, message: &Message) {
    let mut most = MAX_GROUPS;
    loop {
        match serde_json::to_vec(&written(shared, most)) {
            Ok(body) if body.len() > shared.control.max_payload() && most > 1 => most /= 2,
            Ok(body) => {
                if most < MAX_GROUPS {
                    log::warn!(
                        "the inventory lists {most} groups of instances of each actor: more do not fit one message"
                    );
                }
                return reply(shared, message, &body).await;
            }
            Err(cause) => return log::warn!("{} was not answered: {cause}", message.subject),
        }
    }
}

/// The inventory with at most `most` groups of instances of each actor.
fn written(shared: &Shared, most: usize) -> Inventory {
    let host = &shared.host;
    let uptime = host.uptime().as_secs();
    let mut answer = Inventory {
        host_id: shared.host_id.clone(),
        issuer: shared.anti_forgery.public_key().to_owned(),
        labels: host.labels(),
        friendly_name: host.friendly_name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_human: uptime_human(uptime).as_str().to_owned(),
        uptime_seconds: uptime,
        ..Inventory::default()
    };
    {
        let routes = host.router().routes();
        for running in routes.actors() {
            let key = &running.desired.public_key;
            let instances =
                running.desired.counts().into_iter().take(most).map(|(count, annotations)| inventory::Instance {
                    annotations: annotations.clone(),
                    instance_id: id::actor_instance_id(&shared.host_id, key, annotations, 0).as_str().to_owned(),
                    revision: running.claims.revision,
                    image_ref: running.desired.reference.clone(),
                    max_concurrent: count,
                    max_instances: u32::from(count),
                });
            answer.actors.push(inventory::Actor {
                id: key.clone(),
                image_ref: running.desired.reference.clone(),
                name: running.claims.name.clone(),
                instances: instances.collect(),
            });
        }
        for running in routes.providers() {
            let desired = &running.desired;
            answer.providers.push(inventory::Provider {
                id: desired.public_key.clone(),
                image_ref: desired.reference.clone(),
                contract_id: desired.contract_id.clone(),
                link_name: desired.link_name.clone(),
                name: running.name().to_owned(),
                instance_id: shared.events.instance_of(running),
                annotations: desired.annotations.clone(),
                revision: running.claims.as_ref().map_or(0, |claims| claims.revision),
            });
        }
    }
    answer
}

pub async fn claims(shared: &Shared, message: &Message) {
    send_list(shared, message, &sync::told_claims(shared), |claims| serde_json::to_vec(&ClaimsList { claims })).await;
}

pub async fn links(shared: &Shared, message: &Message) {
    let links: Vec<_> = shared.host.desired().links.values().map(|wanted| (*wanted.link).clone()).collect();
    send_list(shared, message, &links, |links| serde_json::to_vec(&Links { links })).await;
}

/// Answers with as many of `items` as fit one message.
async fn send_list<T>(
    shared: &Shared,
    message: &Message,
    mut items: &[T],
    write: impl Fn(&[T]) -> serde_json::Result<Vec<u8>>,
) {
    let (all, most) = (items.len(), shared.control.max_payload());
    loop {
        match write(items) {
            Ok(body) if body.len() > most && !items.is_empty() => {
                // Items differ in length: a little fewer than their mean says.
                items = &items[..(items.len() as u64 * most as u64 / body.len() as u64 * 9 / 10) as usize];
            }
            Ok(body) => {
                if items.len() < all {
                    log::warn!("{} of {all} fit the answer to {}", items.len(), message.subject);
                }
                return reply(shared, message, &body).await;
            }
            Err(cause) => return log::warn!("{} was not answered: {cause}", message.subject),
        }
    }
}

pub(super) async fn send(shared: &Shared, message: &Message, answer: &impl Serialize) {
    match serde_json::to_vec(answer) {
        Ok(body) => reply(shared, message, &body).await,
        Err(cause) => log::warn!("{} was not answered: {cause}", message.subject),
    }
}
