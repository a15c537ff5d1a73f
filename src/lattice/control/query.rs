//! What clients ask to know: what runs, what is known.

use async_nats::Message;
use serde::Serialize;

use super::{Shared, reply};
use crate::{
    lattice::events::instance_id,
    log,
    wire::control::{
        claims::ClaimsList,
        host::uptime_human,
        inventory::{self, Inventory},
        link::Links,
    },
};

pub async fn inventory(shared: &Shared, message: &Message) {
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
            let total = running.desired.max_concurrent();
            let mut instances = Vec::new();
            for group in &running.desired.groups {
                for _ in 0..group.count {
                    if instances.len() == usize::from(inventory::MAX_LISTED_INSTANCES) {
                        break;
                    }
                    instances.push(inventory::Instance {
                        annotations: group.annotations.clone(),
                        instance_id: instance_id(&shared.host_id, key, instances.len() as u16).as_str().to_owned(),
                        revision: running.claims.revision,
                        image_ref: running.desired.reference.clone(),
                        max_concurrent: 1,
                        max_instances: u32::from(total),
                    });
                }
            }
            answer.actors.push(inventory::Actor {
                id: key.clone(),
                image_ref: running.desired.reference.clone(),
                name: running.claims.name.clone(),
                instances,
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
    send(shared, message, &answer).await;
}

pub async fn claims(shared: &Shared, message: &Message) {
    send(shared, message, &ClaimsList { claims: &shared.cache.claims() }).await;
}

pub async fn links(shared: &Shared, message: &Message) {
    let links: Vec<_> = shared.host.desired().links.values().map(|wanted| wanted.link.clone()).collect();
    send(shared, message, &Links { links: &links }).await;
}

pub(super) async fn send(shared: &Shared, message: &Message, answer: &impl Serialize) {
    match serde_json::to_vec(answer) {
        Ok(body) => reply(shared, message, &body).await,
        Err(cause) => log::warn!("{} was not answered: {cause}", message.subject),
    }
}
