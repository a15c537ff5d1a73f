//! `wasmcloud:messaging` inside the process (`protocol/interfaces.md §5`): actors publish, ask and listen on NATS, over the
//! host's own connection or one of the link's own, as with the first-party NATS provider.
//!
//! * [`settings`]: limits the host sets; [`options`]: what a link may choose; `subject`: what it may use.
//! * `line`: one link at work; `inbox`: what waits for the actor; `outbox`: what waits for the broker, on disk.
//!
//! Started by the reference `builtin:messaging`. It never speaks NATS itself (a [`Broker`](crate::host::Broker) does),
//! never waits for a connection when it is linked, and keeps nothing in memory without a limit.

mod answers;
mod inbox;
mod line;
pub mod options;
mod outbox;
pub mod settings;
mod subject;

use std::{collections::BTreeMap, sync::Arc};

pub use self::settings::Settings;
use self::{
    line::{Line, Parts},
    options::{Options, OutboxOptions},
    outbox::{Outbox, Total},
};
use crate::{
    capability::preview::LinkPlan,
    error::{Error, Result},
    host::{BoxFuture, BrokerConnection, BrokerServer, Call, Capability, ProviderContext, remote},
    lock::{Mutex, MutexGuard},
    log,
    store::Store,
    wire::{
        Entity, LinkDefinition, codec,
        interface::{BrokerMessage, BrokerRequest, MESSAGING},
    },
};

/// Starts messaging; outboxes are kept in `store`. Nothing is connected before a link is made.
pub fn start(context: ProviderContext, store: Store, settings: Settings) -> Arc<dyn Capability> {
    let origin = Entity::provider(&context.public_key, MESSAGING, &context.link_name);
    let total = Total::of(&store);
    Arc::new(Messaging { context, origin, store, total, settings, lines: Mutex::default() })
}

/// Which ways to brokers there will be, for whoever asks before there are any.
pub struct Ways {
    /// The subjects that are the lattice's own on the host's connection; nothing for a host by itself, which has none.
    pub reserved: Option<Vec<String>>,
    /// Whether a connection to this server can be opened at all.
    pub check: fn(&BrokerServer) -> Result<()>,
}

/// What `link` would do over `configuration`, the provider's start configuration.
///
/// # Errors
/// A value that cannot be used, or a host without a way to NATS.
pub fn preview(
    settings: &Settings,
    ways: &Ways,
    configuration: Option<&str>,
    link: &LinkDefinition,
) -> Result<LinkPlan> {
    let (options, warnings) = Options::from_link(settings, configuration, link)?;
    let reserved = match &options.server {
        Some(server) => {
            (ways.check)(server)?;
            None
        }
        None => Some(ways.reserved.as_deref().ok_or_else(no_way)?),
    };
    line::check_subscriptions(&options, reserved)?;
    Ok(LinkPlan { warnings, listens: None })
}

fn no_way() -> Error {
    Error::config(
        "this host has no connection to NATS that messaging could use: let it join a lattice (NATS_HOST, WASMCLOUD_JOIN), \
         or give the link a `URI`",
    )
}

struct Messaging {
    context: ProviderContext,
    origin: Entity,
    store: Store,
    total: Total,
    settings: Settings,
    /// By actor and link name.
    lines: Mutex<BTreeMap<(String, String), Arc<Line>>>,
}

impl Messaging {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<(String, String), Arc<Line>>> {
        self.lines.lock()
    }

    async fn open_named(&self, link: Arc<LinkDefinition>, confined: bool) -> Result<()> {
        let named = format!("the messaging link of actor {}", link.actor_id);
        self.open(link, confined).await.map_err(|error| error.context(named))
    }

    /// Opens `link`; a `confined` one came over the lattice to a board that confines those.
    async fn open(&self, link: Arc<LinkDefinition>, confined: bool) -> Result<()> {
        let key = key(&link);
        if self.lines().get(&key).is_some_and(|line| line.link.values == link.values) {
            return Ok(());
        }
        let configuration = self.context.configuration.as_deref();
        let (options, warnings) = Options::from_link(&self.settings, configuration, &link)?;
        if confined && options.server.is_some() {
            return Err(remote::refuse_link("URI", "name a server that this board connects to"));
        }
        for warning in warnings {
            log::warn!("{warning}"; actor_id = link.actor_id, link_name = link.link_name);
        }
        let connection = self.connection(&options).await?;
        // A link with other values that was not removed before: the newer one counts.
        let replaced = self.lines().remove(&key);
        if let Some(line) = replaced {
            line.close().await;
        }
        let outbox = self.outbox(&link, options.outbox.clone());
        let line = Line::open(Parts {
            link,
            options,
            connection,
            invoke: self.context.invoke.clone(),
            origin: self.origin.clone(),
            payload_bytes: self.settings.payload_bytes,
            outbox,
        })?;
        self.lines().insert(key, line);
        Ok(())
    }

    async fn connection(&self, options: &Options) -> Result<Arc<dyn BrokerConnection>> {
        let broker = self.settings.broker.as_ref();
        match &options.server {
            Some(server) => match broker {
                Some(broker) => broker.open(server.clone()).await,
                None => Err(Error::config("this program was started without a way to NATS")),
            },
            None => broker.and_then(|broker| broker.own()).ok_or_else(no_way),
        }
    }

    /// The outbox of `link`. One that is no longer asked for is emptied before it is no more.
    fn outbox(&self, link: &LinkDefinition, options: Option<OutboxOptions>) -> Option<Arc<Outbox>> {
        let options = options.or_else(|| {
            let kept = outbox::kept(&self.store, &link.id);
            (kept > 0).then(|| {
                log::warn!(
                    "{kept} messages wait in an outbox that the link does not ask for any more: it stays until they are sent";
                    actor_id = link.actor_id, link_name = link.link_name
                );
                OutboxOptions {
                    stream: None,
                    messages: self.settings.outbox_messages,
                    bytes: self.settings.outbox_bytes,
                    when_full: options::WhenFull::Refuse,
                }
            })
        })?;
        let outbox = Outbox::open(self.store.clone(), self.total.clone(), &link.id, options);
        if !outbox.is_empty() {
            log::info!(
                "{} messages wait in the outbox", outbox.len(); actor_id = link.actor_id, link_name = link.link_name
            );
        }
        Some(Arc::new(outbox))
    }
}

impl Capability for Messaging {
    fn contract_id(&self) -> &str {
        MESSAGING
    }

    fn link(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open_named(link, false))
    }

    fn link_confined(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open_named(link, true))
    }

    fn unlink(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let line = self.lines().remove(&key(&link));
            if let Some(line) = line {
                line.close().await;
            }
        })
    }

    fn call(&self, link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let line = self.lines().get(&key(&link)).cloned().ok_or_else(|| {
                Error::unavailable(format!(
                    "the link of {} to {MESSAGING} as {} is not open: see `latticed status` for the reason",
                    link.actor_id, link.link_name
                ))
            })?;
            match call.operation.as_str() {
                "Messaging.Publish" => {
                    let message: BrokerMessage = codec::decode("Messaging.Publish request", &call.payload)?;
                    line.publish(message).await?;
                    Ok(Vec::new())
                }
                "Messaging.Request" => {
                    let request: BrokerRequest = codec::decode("Messaging.Request request", &call.payload)?;
                    codec::encode(&line.request(request, call.deadline).await?)
                }
                other => Err(Error::invalid(format!("{MESSAGING} has no operation {other:?}"))),
            }
        })
    }

    /// How each link stands.
    fn detail(&self) -> String {
        self.lines().values().map(|line| line.detail()).collect::<Vec<_>>().join("; ")
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let lines: Vec<Arc<Line>> = self.lines().values().cloned().collect();
            for line in lines {
                line.quiet().await;
            }
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let lines = std::mem::take(&mut *self.lines());
            // All at once, so that their patience does not add up.
            let closing: Vec<_> =
                lines.into_values().map(|line| crate::task::spawn(async move { line.close().await })).collect();
            for line in closing {
                line.await;
            }
        })
    }
}

fn key(link: &LinkDefinition) -> (String, String) {
    (link.actor_id.clone(), link.link_name.clone())
}
