//! Requests to every host or to any: links, registries, labels, auctions, configuration.

use std::{collections::BTreeMap, time::Duration};

use async_nats::Message;
use serde::Serialize;

use super::{Shared, query::send};
use crate::{
    error::Result,
    host::{desired::Desired, remote::Rights},
    lattice::sync,
    log,
    wire::{
        cache::Key,
        control::{
            auction::{ActorAuction, Constraints, ProviderAuction},
            config::ConfigReply,
            label::{DeleteLabel, PutLabel},
            link::{DeleteLink, parse_put},
            registry,
        },
    },
};

pub async fn put_link(shared: &Shared, body: &[u8]) -> Result<()> {
    let (link, confined) = (parse_put(body)?, shared.remote() == Rights::Own);
    let put = |desired: &Desired| desired.put_link_from_afar(link, confined);
    sync::change_links(shared, "the lattice (put link)", put).await
}

/// A link nobody knows is deleted too: the bucket may hold it.
pub async fn delete_link(shared: &Shared, body: &[u8]) -> Result<()> {
    let id = DeleteLink::parse(body)?.id();
    let known = shared.host.desired().links.contains_key(&id);
    sync::change_links(shared, "the lattice (delete link)", |desired| Ok(desired.delete_link(&id))).await?;
    if known { Ok(()) } else { shared.cache.write(&Key::Link(id), None).await }
}

pub async fn put_registries(shared: &Shared, body: &[u8]) -> Result<()> {
    let (credentials, new) = (shared.host.artifacts().credentials(), registry::parse(body)?);
    for registry in new.keys().filter(|registry| credentials.is_configured(registry)) {
        let what = format!("the login for {registry} comes from this host's settings");
        shared.remote().check_operators(&what)?;
    }
    credentials.put(new).await
}

pub async fn put_label(shared: &Shared, body: &[u8]) -> Result<()> {
    let put = PutLabel::parse(body)?;
    if shared.host.is_configured_label(&put.key) {
        shared.remote().check_operators(&format!("the label {} comes from this host's settings", put.key))?;
    }
    shared.host.put_label(put.key, put.value).await
}

pub async fn delete_label(shared: &Shared, body: &[u8]) -> Result<()> {
    let delete = DeleteLabel::parse(body)?;
    shared.host.delete_label(&delete.key).await
}

/// Every host keeps values of its own, so the answer of one that has them comes before that of one that was away when they
/// were put.
pub async fn get_config(shared: &Shared, message: &Message, entity: &str, key: Option<&str>) {
    let config = &shared.entity_config;
    let outcome = match key {
        Some(key) => config.get(entity, key).await.map(|reply| (reply.found, Answer::One(reply))),
        None => config.all(entity).await.map(|all| (!all.is_empty(), Answer::All(all))),
    };
    match outcome {
        Ok((found, answer)) => {
            if !found {
                smol::Timer::after(NOT_FOUND_PAUSE).await;
            }
            send(shared, message, &answer).await;
        }
        Err(error) => log::warn!("{} was not answered: {error}", message.subject),
    }
}

/// What `get.config` is answered with.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    One(ConfigReply),
    All(BTreeMap<String, Vec<u8>>),
}

/// How long a host waits before it says that it has no such value: another one may have it. A quarter of what the most
/// hurried client waits.
const NOT_FOUND_PAUSE: Duration = Duration::from_millis(500);

fn satisfied(shared: &Shared, constraints: &Constraints) -> bool {
    let labels = shared.host.labels();
    constraints.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether `auction` can be understood; silence is the answer if not.
fn understood<T>(auction: Result<T>) -> Option<T> {
    auction.inspect_err(|error| log::warn!("an auction was not understood: {error}")).ok()
}

pub async fn auction_actor(shared: &Shared, message: &Message) {
    let Some(mut auction) = understood(ActorAuction::parse(&message.payload)) else { return };
    if satisfied(shared, &auction.constraints) {
        auction.host_id.clone_from(&shared.host_id);
        send(shared, message, &auction).await;
    }
}

pub async fn auction_provider(shared: &Shared, message: &Message) {
    let Some(mut auction) = understood(ProviderAuction::parse(&message.payload)) else { return };
    let key = if auction.provider_ref.starts_with('V') && auction.provider_ref.len() == 56 {
        Some(auction.provider_ref.clone())
    } else {
        let known = shared.host.known_provider(&auction.provider_ref);
        known.or_else(|| shared.cache.resolve_reference(&auction.provider_ref))
    };
    let desired = shared.host.desired();
    let runs = key.is_some_and(|key| desired.providers.contains_key(&(key, auction.link_name.clone())));
    if !runs && satisfied(shared, &auction.constraints) {
        auction.host_id.clone_from(&shared.host_id);
        send(shared, message, &auction).await;
    }
}
