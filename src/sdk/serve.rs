//! The life of a provider between host data and shutdown (`protocol/providers.md §4–8`).
//!
//! Order matters and is the protocol's: links first, then the subscriptions, health last, so that a healthy answer means
//! that all the others are heard. A lost connection restores them by itself.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_signal::{Signal, Signals};
use event_listener::Event;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use smol::channel::{Receiver, Sender};

use super::{Lattice, Provider, links::Change};
use crate::{
    error::{Context, Error, Kind, Result},
    log,
    nats::connection::{Background, Message},
    task,
    wire::{
        LinkDefinition, codec,
        subject::{PROVIDER_QUEUE_GROUP, ProviderTopic},
        text,
    },
};

/// How long a provider may think about its health. Hosts wait two seconds for the answer.
pub const HEALTH_PATIENCE: Duration = Duration::from_millis(1500);

/// How long a provider may take over a link. Later links and the end of this one wait for it; a link that takes longer is
/// refused.
pub const LINK_PATIENCE: Duration = Duration::from_secs(5);

/// How long a provider may take for its own shutdown before the host is answered. Hosts wait two seconds.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(1500);

/// How long calls under way may go on after that. Hosts kill a provider 300 to 400 ms after its answer.
const DRAIN: Duration = Duration::from_millis(250);

/// Pause before a subscription is tried again that the connection did not take.
const RETRY: Duration = Duration::from_millis(200);

/// Longest health message that is sent, bytes.
const HEALTH_TEXT_BYTES: usize = 1024;

/// The answer to a health probe.
#[derive(Serialize)]
struct Health<'a> {
    healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// What a host says to end its provider.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Shutdown {
    host_id: String,
}

/// What a subscription is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Call,
    Link,
    Shutdown,
    Health,
}

/// What the parts of a running provider share.
pub(super) struct Running<P> {
    pub provider: P,
    pub lattice: Lattice,
    pub busy: Arc<Busy>,
    /// Closed when it is time to end, whoever said so.
    stop: Sender<Infallible>,
    stopped: Receiver<Infallible>,
}

/// Counts what must be finished before the process may end.
#[derive(Default)]
pub(super) struct Busy {
    count: AtomicUsize,
    ended: Event,
}

/// One thing to be finished.
pub(super) struct Place(Arc<Busy>);

impl Busy {
    /// One thing more, and how many there were before.
    pub fn enter(self: &Arc<Self>) -> (Place, usize) {
        let before = self.count.fetch_add(1, SeqCst);
        (Place(self.clone()), before)
    }

    /// Waits until nothing is left.
    async fn finished(&self) {
        loop {
            let ended = self.ended.listen();
            if self.count.load(SeqCst) == 0 {
                return;
            }
            ended.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
        self.0.ended.notify(usize::MAX);
    }
}

/// Serves until the host or a signal ends it.
///
/// # Errors
/// Signals cannot be caught.
pub async fn serve<P: Provider>(lattice: Lattice, provider: P) -> Result<()> {
    let (stop, stopped) = smol::channel::bounded(1);
    let running = Arc::new(Running { provider, lattice, busy: Arc::default(), stop, stopped });
    let mut signals = Signals::new([Signal::Term, Signal::Int]).context(Kind::Internal, "cannot catch signals")?;
    let mut listening = Vec::new();
    let serving = async {
        running.listen_to_all(&mut listening).await;
        let _ = running.stopped.recv().await;
    };
    let signalled = async {
        // The stream never ends.
        let _ = signals.next().await;
        log::info!("signalled to end");
        running.shut_down().await;
    };
    smol::future::or(serving, signalled).await;
    running.stop.close();
    let _ = task::within(DRAIN, running.busy.finished()).await;
    running.lattice.inner().connection.flush().await;
    log::info!("ended");
    Ok(())
}

impl<P: Provider> Running<P> {
    /// Links what the host data names and listens to everything, in the protocol's order.
    async fn listen_to_all(self: &Arc<Self>, listening: &mut Vec<Background>) {
        let inner = self.lattice.inner();
        inner.connection.connected().await;
        for link in &inner.host_data.link_definitions {
            self.put_link(link.clone()).await;
        }
        let (key, name) = (self.lattice.provider_key(), self.lattice.link_name());
        let topic = |topic| inner.subjects.provider_topic(key, name, topic);
        let calls = inner.subjects.provider(key, name);
        listening.push(self.listen(calls, Some(PROVIDER_QUEUE_GROUP.to_owned()), Heard::Call).await);
        // One subscription for both, so that a `put` cannot overtake the `del` before it.
        listening.push(self.listen(topic(ProviderTopic::Links), None, Heard::Link).await);
        listening.push(self.listen(topic(ProviderTopic::Shutdown), None, Heard::Shutdown).await);
        listening.push(self.listen(topic(ProviderTopic::Health), None, Heard::Health).await);
        log::info!("serving under link name {name} with {} links", inner.links.len());
    }

    async fn listen(self: &Arc<Self>, subject: String, group: Option<String>, heard: Heard) -> Background {
        let connection = &self.lattice.inner().connection;
        let mut messages = loop {
            connection.connected().await;
            match connection.subscribe(subject.clone(), group.clone()).await {
                Ok(messages) => break messages,
                Err(error) => log::debug!("{subject} is not heard yet: {error}"),
            }
            smol::Timer::after(RETRY).await;
        };
        let running = self.clone();
        connection.spawn(async move {
            let _busy = (heard == Heard::Call).then(|| running.busy.enter());
            let mut ending = false;
            loop {
                let next = async { Some(messages.next().await) };
                let stopped = async {
                    if ending {
                        smol::future::pending::<()>().await;
                    }
                    let _ = running.stopped.recv().await;
                    None
                };
                match smol::future::or(next, stopped).await {
                    Some(Some(message)) => running.hear(heard, message).await,
                    Some(None) => break,
                    // What the server sent before it knew is still heard.
                    None => {
                        ending = true;
                        if messages.drain().await.is_err() {
                            break;
                        }
                    }
                }
            }
        })
    }

    async fn hear(self: &Arc<Self>, heard: Heard, message: Message) {
        match heard {
            Heard::Call => self.take_call(message),
            Heard::Link => self.change_link(&message).await,
            Heard::Shutdown => self.end_for(message).await,
            Heard::Health => {
                let Some(reply) = message.reply else { return };
                let running = self.clone();
                task::spawn(async move { running.tell_health(reply.to_string()).await }).detach();
            }
        }
    }

    async fn change_link(&self, message: &Message) {
        let link = match codec::decode::<LinkDefinition>("link definition", &message.payload) {
            Ok(link) => link,
            Err(error) => return log::warn!("a link message is ignored: {error}"),
        };
        if message.subject.ends_with(".put") {
            self.put_link(link).await;
        } else if message.subject.ends_with(".del") {
            self.delete_link(&link.actor_id).await;
        }
    }

    async fn put_link(&self, link: LinkDefinition) {
        let links = &self.lattice.inner().links;
        match links.change(&link) {
            Ok(Change::None) => return log::debug!("linked already"; actor_id = link.actor_id),
            Ok(Change::Add) => {}
            Ok(Change::Replace(_)) => self.delete_link(&link.actor_id).await,
            Err(error) => return log::warn!("cannot be linked: {error}"; actor_id = link.actor_id),
        }
        let linked = task::within(LINK_PATIENCE, self.provider.link(&link)).await;
        match linked.unwrap_or_else(|| Err(Error::timeout(format!("it took over {} s", LINK_PATIENCE.as_secs())))) {
            Ok(()) => {
                log::info!("linked"; actor_id = link.actor_id);
                links.put(link);
            }
            Err(error) => log::warn!("cannot be linked: {error}"; actor_id = link.actor_id),
        }
    }

    async fn delete_link(&self, actor: &str) {
        let Some(link) = self.lattice.inner().links.delete(actor) else { return };
        if task::within(LINK_PATIENCE, self.provider.unlink(&link)).await.is_none() {
            log::warn!("unlinking took over {} s and was cut off", LINK_PATIENCE.as_secs(); actor_id = actor);
        }
        log::info!("unlinked"; actor_id = actor);
    }

    async fn tell_health(&self, reply: String) {
        let health = task::within(HEALTH_PATIENCE, self.provider.health()).await;
        let health = health
            .unwrap_or_else(|| Err(Error::timeout(format!("no answer within {} ms", HEALTH_PATIENCE.as_millis()))));
        // A login that lacks a permission works in part, and the rest would fail without a word.
        let health = match self.lattice.inner().connection.denials().into_iter().next() {
            Some(denial) if health.is_ok() => Err(Error::denied(denial)),
            _ => health,
        };
        if let Err(error) = &health {
            log::warn!("not healthy: {error}");
        }
        let message = health.as_ref().err().map(|error| text::prefix(error.text(), HEALTH_TEXT_BYTES));
        let sent = match codec::encode(&Health { healthy: health.is_ok(), message }) {
            Ok(body) => self.lattice.inner().connection.publish(reply, body).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            log::debug!("a health answer was not sent: {error}");
        }
    }

    /// Ends the provider if `message` is from its own host, who waits for an answer.
    async fn end_for(&self, message: Message) {
        let Some(reply) = message.reply else { return };
        // Like the SDK, an unreadable message counts as one that names no host.
        let Shutdown { host_id } = serde_json::from_slice(&message.payload).unwrap_or_default();
        let inner = self.lattice.inner();
        if !host_id.is_empty() && host_id != inner.host_data.host_id {
            return log::debug!("shutdown for host {host_id} is not for this process");
        }
        log::info!("told to end by host {}", inner.host_data.host_id);
        self.shut_down().await;
        if let Err(error) = inner.connection.publish(reply.to_string(), &b"shutting down"[..]).await {
            log::debug!("the host is not answered: {error}");
        }
        inner.connection.flush().await;
        self.stop.close();
    }

    async fn shut_down(&self) {
        if task::within(SHUTDOWN_PATIENCE, self.provider.shutdown()).await.is_none() {
            log::warn!("the shutdown took over {} ms and was cut off", SHUTDOWN_PATIENCE.as_millis());
        }
    }
}
