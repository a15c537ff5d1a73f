//! What happens on this host, told to the lattice: host events become CloudEvents the moment they happen and wait in the
//! outbox until there is a connection.
//!
//! The host calls [`LatticeEvents::happened`] in the middle of its work, so nothing here waits. An event takes its time and
//! its place in the outbox together, so the order of events is the order of their times. The first event of a host is
//! `host_started`, whatever happens first. What is told of actors is in `actor_events`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Once, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use event_listener::Event as Signal;

use super::{actor_events::Told, event_queue::Entry, mailbox::Mailbox};
use crate::{
    host::{
        Host,
        desired::DesiredProvider,
        event::{Event, Events},
        health::Verdict,
        routes::RunningProvider,
    },
    lock::Mutex,
    log,
    nats::connection::Connection,
    wire::{
        control::Annotations,
        event::{
            self, Data,
            host::{HostStarted, HostStopped},
            provider::{
                HealthCheckFailed, HealthCheckPassed, HealthCheckStatus, ProviderClaims, ProviderStartFailed,
                ProviderStarted, ProviderStopped,
            },
        },
        id,
    },
};

/// Whether what should be listened to is.
#[derive(Default)]
pub(super) struct Listening {
    /// Commands and questions.
    pub commands: AtomicBool,
    /// Calls of everything that runs.
    pub calls: AtomicBool,
}

/// The listener and its outbox.
pub struct LatticeEvents {
    pub(super) host_id: String,
    version: &'static str,
    pub(super) mailbox: Mailbox,
    /// Held while an event takes its time and its place in the mailbox.
    order: Mutex<()>,
    /// Runs when `host_started` goes into the mailbox.
    begun: Once,
    /// What runs has changed.
    pub(super) routes_changed: Signal,
    /// What is listened to.
    pub(super) listening: Listening,
    host: OnceLock<Weak<Host>>,
    /// The way out, once there is one.
    way: OnceLock<Connection>,
    /// Actors as they were last told about. Held while a change is told, so that two changes are told one after the other.
    pub(super) actors: Mutex<HashMap<String, Told>>,
    /// With the name of its process.
    providers: Mutex<HashMap<(String, String), (DesiredProvider, String)>>,
}

impl LatticeEvents {
    /// A listener for the host `host_id` that puts its events into `mailbox`.
    pub fn new(host_id: &str, mailbox: Mailbox) -> Arc<Self> {
        Arc::new(Self {
            host_id: host_id.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            mailbox,
            order: Mutex::default(),
            begun: Once::new(),
            routes_changed: Signal::new(),
            listening: Listening::default(),
            host: OnceLock::new(),
            way: OnceLock::new(),
            actors: Mutex::default(),
            providers: Mutex::default(),
        })
    }

    /// Tells the listener whose events these are, and by which way they leave. Before, it knows no more than they say
    /// themselves.
    pub fn attach(&self, host: &Arc<Host>, way: &Connection) {
        let _ = self.way.set(way.clone());
        // A second host in one process would be a bug of the wiring; the first stays.
        let _ = self.host.set(Arc::downgrade(host));
    }

    /// Whether commands and calls are listened to.
    pub(super) fn is_listening(&self) -> bool {
        self.listening.commands.load(Relaxed) && self.listening.calls.load(Relaxed)
    }

    /// Notes what is listened to, and tells the host if that is news.
    pub(super) fn set_listening(&self, what: &AtomicBool, now: bool) {
        if what.swap(now, Relaxed) != now
            && let Some(host) = self.host()
        {
            host.announce();
        }
    }

    pub(super) fn host(&self) -> Option<Arc<Host>> {
        self.host.get()?.upgrade()
    }

    /// Events that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.mailbox.waiting()
    }

    /// Writes `data` as an event of this moment and puts it into the outbox.
    pub fn emit<D: Data>(&self, data: &D) {
        if let Some(host) = self.host() {
            self.begin(&host);
        }
        self.put(data);
    }

    /// Tells that the host has started, unless that was told already.
    fn begin(&self, host: &Host) {
        self.begun.call_once(|| {
            let (labels, friendly_name) = (host.labels(), host.friendly_name());
            self.put(&HostStarted { labels: &labels, friendly_name, uptime_seconds: 0, version: self.version });
        });
    }

    /// Whether `host_started` was told.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_completed()
    }

    fn put<D: Data>(&self, data: &D) {
        let _one_at_a_time = self.order.lock();
        let mut body = Vec::new();
        let unix_micros = id::unix_micros();
        if let Err(error) = event::write(&mut body, &self.host_id, id::random_id(), unix_micros, data) {
            log::warn!("the event {} was not sent: {error}", D::NAME);
            return;
        }
        body.shrink_to_fit();
        self.mailbox.push(Entry { name: D::NAME.into(), body: body.into(), unix_micros });
    }

    fn provider_started(&self, key: &str, link_name: &str) {
        let Some(host) = self.host() else { return };
        let Some(running) = host.router().routes().provider(key, link_name) else { return };
        let desired = running.desired.clone();
        let claims = running.claims.as_ref();
        let now = host.now();
        let (not_before, expires) = claims.map_or_else(
            || ("immediately".to_owned(), "never".to_owned()),
            |claims| (now.not_before_human(claims.not_before), now.expires_human(claims.expires)),
        );
        let instance_id = self.instance_of(&running);
        self.emit(&ProviderStarted {
            public_key: key,
            image_ref: &desired.reference,
            link_name,
            contract_id: &desired.contract_id,
            instance_id: &instance_id,
            annotations: &desired.annotations,
            claims: ProviderClaims {
                issuer: claims.map_or("", |claims| &claims.issuer),
                name: running.name(),
                version: claims.map_or(self.version, |claims| &claims.version),
                not_before_human: &not_before,
                expires_human: &expires,
                ..ProviderClaims::default()
            },
            host_id: &self.host_id,
        });
        let mut providers = self.providers.lock();
        providers.insert((key.to_owned(), link_name.to_owned()), (desired, instance_id));
    }

    /// The name of a provider's process, or of what stands for one.
    pub(super) fn instance_of(&self, running: &RunningProvider) -> String {
        running.instance_id.clone().unwrap_or_else(|| {
            let place = format!("{}/{}", running.desired.public_key, running.desired.link_name);
            id::instance_id(&self.host_id, &place, 0).as_str().to_owned()
        })
    }

    fn provider_stopped(&self, key: &str, link_name: &str, contract_id: &str, reason: &str) {
        let gone = {
            let mut providers = self.providers.lock();
            providers.remove(&(key.to_owned(), link_name.to_owned()))
        };
        let (annotations, instance) = match gone {
            Some((desired, instance)) => (desired.annotations, instance),
            None => (
                Annotations::new(),
                id::instance_id(&self.host_id, &format!("{key}/{link_name}"), 0).as_str().to_owned(),
            ),
        };
        self.emit(&ProviderStopped {
            public_key: key,
            link_name,
            contract_id,
            instance_id: &instance,
            annotations: &annotations,
            host_id: &self.host_id,
            reason,
        });
    }
}

impl Events for LatticeEvents {
    fn happened(&self, event: &Event) {
        match event {
            Event::HostStarted { friendly_name, .. } => match self.host() {
                Some(host) => self.begin(&host),
                // Nobody knows the labels before the host is attached.
                None => self.begun.call_once(|| {
                    let labels = BTreeMap::new();
                    self.put(&HostStarted { labels: &labels, friendly_name, uptime_seconds: 0, version: self.version });
                }),
            },
            Event::HostStopped => {
                let labels = self.host().map(|host| host.labels()).unwrap_or_default();
                self.emit(&HostStopped { labels: &labels });
            }
            Event::ActorStarted { public_key, .. }
            | Event::ActorScaled { public_key, .. }
            | Event::ActorStopped { public_key } => self.actor_changed(public_key),
            Event::ActorStartFailed { public_key, image_ref, error } => {
                self.tell_start_failed(Some(public_key), image_ref, &Annotations::new(), 0, error);
            }
            Event::ActorUpdated { public_key, revision } => {
                self.tell_updated(public_key, *revision);
                self.actor_changed(public_key);
            }
            Event::ProviderStarted { public_key, link_name, .. } => self.provider_started(public_key, link_name),
            Event::ProviderStartFailed { provider_ref, link_name, error } => {
                self.emit(&ProviderStartFailed { provider_ref, link_name, host_id: &self.host_id, error });
            }
            Event::ProviderStopped { public_key, contract_id, link_name, reason } => {
                self.provider_stopped(public_key, link_name, contract_id, reason);
            }
            Event::HealthChecked { public_key, contract_id, link_name, verdict, .. } => {
                match verdict {
                    Verdict::Passed => self.emit(&HealthCheckPassed { public_key, contract_id, link_name }),
                    Verdict::Failed => self.emit(&HealthCheckFailed { public_key, contract_id, link_name }),
                    // As with heartbeats: the next one says more, and a day of them would push out what happened once.
                    Verdict::Unchanged if self.way.get().is_some_and(Connection::is_connected) => {
                        self.emit(&HealthCheckStatus { public_key, contract_id, link_name });
                    }
                    Verdict::Unchanged => {}
                }
                return;
            }
            // Told by whoever took the request or saw the bucket change: every host of the lattice has every link.
            Event::LinkSet(_) | Event::LinkFailed(..) | Event::LinkDeleted(_) => {}
            // Its subscription ends now and not after the drain: other hosts that run the same get what comes.
            Event::Leaving { .. } => {}
        }
        self.listening.calls.store(false, Relaxed);
        self.routes_changed.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::lattice::event_queue::{DEFAULT_MAX_BYTES, DEFAULT_MAX_EVENTS};

    #[test]
    fn events_of_many_threads_lie_in_the_outbox_in_the_order_of_their_times() {
        const THREADS: usize = 8;
        const EACH: usize = 200;
        let mailbox = Mailbox::open("N1", (DEFAULT_MAX_EVENTS, DEFAULT_MAX_BYTES), None, false).unwrap();
        let events = LatticeEvents::new("N1", mailbox);
        let labels = BTreeMap::new();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..EACH).for_each(|_| events.emit(&HostStopped { labels: &labels })));
            }
        });
        let kept = events.mailbox.kept();
        assert_eq!(kept.len(), THREADS * EACH);
        let times: Vec<u64> = kept.iter().map(|event| event.unix_micros).collect();
        assert!(times.is_sorted(), "the clock of this machine may not be set back during the test");
    }
}
