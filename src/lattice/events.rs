//! What happens on this host, told to the lattice: host events become CloudEvents the moment they happen and wait in the
//! outbox until there is a connection.
//!
//! The host calls [`LatticeEvents::happened`] in the middle of its work, so nothing here waits. Instances are counted in
//! groups of like annotations, as they were asked for; each change of a group is told the old way (one event an instance),
//! the newer way (one a command) and the newest (one with the new total), so that all clients are served.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use event_listener::Event as Signal;
use sha2::{Digest, Sha256};

use super::{connection::Connection, mailbox::Mailbox, outbox::Entry};
use crate::{
    claims::{Now, SignedModule},
    host::{
        Host,
        desired::DesiredProvider,
        event::{Event, Events},
        health::Verdict,
        routes::RunningProvider,
    },
    log,
    wire::{
        control::Annotations,
        event::{
            self, Data, EventId,
            actor::{
                ActorClaims, ActorScaleFailed, ActorScaled, ActorStartFailed, ActorStarted, ActorStopped,
                ActorUpdateFailed, ActorUpdated, ActorsStartFailed, ActorsStarted, ActorsStopped,
            },
            event_id,
            host::{HostStarted, HostStopped},
            provider::{
                HealthCheckFailed, HealthCheckPassed, HealthCheckStatus, ProviderClaims, ProviderStartFailed,
                ProviderStarted, ProviderStopped,
            },
        },
    },
};

/// Instances that are told one by one when a group grows or shrinks. Clients wait for the first; the count is in the event
/// for the command, and a scale to ten thousand must not send ten thousand messages.
const MAX_SINGLE_EVENTS: u16 = 16;

/// An actor as it was last told about.
#[derive(Clone)]
struct Told {
    reference: String,
    claims: SignedModule,
    groups: Vec<(u16, Annotations)>,
}

impl Told {
    fn total(&self) -> u16 {
        self.groups.iter().fold(0, |sum, (count, _)| sum.saturating_add(*count))
    }
}

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
    host_id: String,
    version: &'static str,
    pub(super) mailbox: Mailbox,
    /// What runs has changed.
    pub(super) routes_changed: Signal,
    /// What is listened to.
    pub(super) listening: Listening,
    host: OnceLock<Weak<Host>>,
    /// The way out, once there is one.
    way: OnceLock<Connection>,
    actors: Mutex<HashMap<String, Told>>,
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

    fn host(&self) -> Option<Arc<Host>> {
        self.host.get()?.upgrade()
    }

    /// Events that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.mailbox.waiting()
    }

    /// Writes `data` as an event of this moment and puts it into the outbox.
    pub fn emit<D: Data>(&self, data: &D) {
        let mut body = Vec::new();
        let unix_micros = unix_micros();
        if let Err(error) = event::write(&mut body, &self.host_id, random_id(), unix_micros, data) {
            log::warn!("the event {} was not sent: {error}", D::NAME);
            return;
        }
        body.shrink_to_fit();
        self.mailbox.push(Entry { name: D::NAME.into(), body: body.into(), unix_micros });
    }

    /// Tells every client waiting for it that `key` runs as asked, though nothing had to change.
    pub fn tell_unchanged(&self, key: &str, reference: &str, annotations: &Annotations) {
        let Some((now, told)) = self.running(key) else { return };
        self.tell_started(now, key, reference, &told.claims, annotations, 1);
        self.tell_scaled(now, key, reference, &told, annotations);
    }

    /// Tells whoever waits for a start that `key` runs, with fewer instances than before: by the event of one instance alone,
    /// since those that count instances were told what stopped.
    pub fn tell_fewer(&self, key: &str, reference: &str, annotations: &Annotations) {
        let Some((now, told)) = self.running(key) else { return };
        let (not_before, expires) = dates(now, &told.claims);
        let claims = actor_claims(&told.claims, &not_before, &expires);
        self.tell_instances(key, reference, claims, annotations, 1);
    }

    /// Tells that `reference` could not be started.
    pub fn tell_start_failed(
        &self,
        key: Option<&str>,
        reference: &str,
        annotations: &Annotations,
        count: u16,
        error: &str,
    ) {
        let key = key.unwrap_or("N/A");
        let host_id = &self.host_id;
        self.emit(&ActorsStartFailed { public_key: key, image_ref: reference, annotations, host_id, error });
        self.emit(&ActorStartFailed { actor_ref: reference, error });
        self.emit(&ActorScaleFailed {
            public_key: key,
            actor_ref: reference,
            claims: ActorClaims::default(),
            annotations,
            host_id,
            image_ref: reference,
            max_instances: count,
            error,
        });
    }

    /// Tells that the actor `key` keeps its old module.
    pub fn tell_update_failed(&self, key: &str, revision: i32, reason: &str) {
        let instance_id = &instance_id(&self.host_id, key, 0);
        self.emit(&ActorUpdateFailed { public_key: key, revision, instance_id, reason });
    }

    /// The actor `key` as it runs now.
    fn running(&self, key: &str) -> Option<(Now, Told)> {
        let host = self.host()?;
        let running = host.router().routes().actor(key)?;
        let groups = running.desired.groups.iter().map(|group| (group.count, group.annotations.clone())).collect();
        let told = Told { reference: running.desired.reference.clone(), claims: running.claims.clone(), groups };
        Some((host.now(), told))
    }

    fn tell_started(
        &self,
        now: Now,
        key: &str,
        reference: &str,
        claims: &SignedModule,
        annotations: &Annotations,
        count: u16,
    ) {
        let (not_before, expires) = dates(now, claims);
        let claims = actor_claims(claims, &not_before, &expires);
        self.tell_instances(key, reference, claims, annotations, count);
        let host_id = &self.host_id;
        self.emit(&ActorsStarted { public_key: key, image_ref: reference, annotations, host_id, claims, count });
    }

    /// The start of each of `count` instances.
    fn tell_instances(
        &self,
        key: &str,
        reference: &str,
        claims: ActorClaims<'_>,
        annotations: &Annotations,
        count: u16,
    ) {
        for number in 0..count.min(MAX_SINGLE_EVENTS) {
            self.emit(&ActorStarted {
                public_key: key,
                image_ref: reference,
                api_version: "n/a",
                instance_id: &instance_id(&self.host_id, key, number),
                annotations,
                claims,
            });
        }
    }

    fn tell_stopped(&self, key: &str, reference: &str, annotations: &Annotations, count: u16, remaining: u16) {
        for number in 0..count.min(MAX_SINGLE_EVENTS) {
            let instance_id = &instance_id(&self.host_id, key, number);
            self.emit(&ActorStopped { public_key: key, instance_id, annotations });
        }
        let host_id = &self.host_id;
        self.emit(&ActorsStopped { host_id, public_key: key, image_ref: reference, count, remaining, annotations });
    }

    fn tell_scaled(&self, now: Now, key: &str, reference: &str, told: &Told, annotations: &Annotations) {
        let (not_before, expires) = dates(now, &told.claims);
        self.emit(&ActorScaled {
            public_key: key,
            claims: actor_claims(&told.claims, &not_before, &expires),
            annotations,
            host_id: &self.host_id,
            image_ref: reference,
            max_instances: told.total(),
        });
    }

    /// What runs under `key` may have changed: tells the difference to what was told last.
    fn actor_changed(&self, key: &str) {
        let after = self.running(key);
        let before = {
            let mut actors = self.actors.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match &after {
                Some((_, told)) => actors.insert(key.to_owned(), told.clone()),
                None => actors.remove(key),
            }
        };
        let now = after.as_ref().map_or(Now::from_system(0), |(now, _)| *now);
        let count_in = |told: Option<&Told>, annotations: &Annotations| {
            let group = told.and_then(|told| told.groups.iter().find(|(_, there)| there == annotations));
            group.map_or(0, |(count, _)| *count)
        };
        let new = after.map(|(_, told)| told);
        let remaining = new.as_ref().map_or(0, Told::total);
        let mut groups: Vec<&Annotations> = Vec::new();
        for (_, annotations) in before.iter().chain(&new).flat_map(|told| &told.groups) {
            if !groups.contains(&annotations) {
                groups.push(annotations);
            }
        }
        for annotations in groups {
            let (was, is) = (count_in(before.as_ref(), annotations), count_in(new.as_ref(), annotations));
            match (&before, &new) {
                (_, Some(told)) if is > was => {
                    self.tell_started(now, key, &told.reference, &told.claims, annotations, is - was);
                }
                (Some(told), _) if is < was => {
                    self.tell_stopped(key, &told.reference, annotations, was - is, remaining);
                }
                _ => continue,
            }
            let scaled = match (&new, &before) {
                (Some(told), _) => told.clone(),
                (None, Some(told)) => Told { groups: Vec::new(), ..told.clone() },
                (None, None) => continue,
            };
            self.tell_scaled(now, key, &scaled.reference, &scaled, annotations);
        }
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
        let mut providers = self.providers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        providers.insert((key.to_owned(), link_name.to_owned()), (desired, instance_id));
    }

    /// The name of a provider's process, or of what stands for one.
    pub(super) fn instance_of(&self, running: &RunningProvider) -> String {
        running.instance_id.clone().unwrap_or_else(|| {
            let place = format!("{}/{}", running.desired.public_key, running.desired.link_name);
            instance_id(&self.host_id, &place, 0).as_str().to_owned()
        })
    }

    fn provider_stopped(&self, key: &str, link_name: &str, contract_id: &str, reason: &str) {
        let gone = {
            let mut providers = self.providers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            providers.remove(&(key.to_owned(), link_name.to_owned()))
        };
        let (annotations, instance) = match gone {
            Some((desired, instance)) => (desired.annotations, instance),
            None => {
                (Annotations::new(), instance_id(&self.host_id, &format!("{key}/{link_name}"), 0).as_str().to_owned())
            }
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
            Event::HostStarted { friendly_name, .. } => {
                let labels = self.host().map(|host| host.labels()).unwrap_or_default();
                self.emit(&HostStarted { labels: &labels, friendly_name, uptime_seconds: 0, version: self.version });
            }
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
                let count = self.running(public_key).map_or(1, |(_, told)| told.total());
                for number in 0..count.clamp(1, MAX_SINGLE_EVENTS) {
                    let instance_id = &instance_id(&self.host_id, public_key, number);
                    self.emit(&ActorUpdated { public_key, revision: *revision, instance_id });
                }
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

/// A name for instance `number` of `key` on `host_id`: instances have no life of their own here, clients want a UUID.
pub fn instance_id(host_id: &str, key: &str, number: u16) -> EventId {
    let digest = Sha256::new().chain_update(host_id).chain_update(key).chain_update(number.to_be_bytes()).finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    event_id(id)
}

/// Sixteen random bytes; without a source of randomness, the clock, since an event is better than none.
pub fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    if getrandom::fill(&mut id).is_err() {
        id[..8].copy_from_slice(&unix_micros().to_be_bytes());
    }
    id
}

/// Now, in microseconds since 1970, as the clock says.
pub fn unix_micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn dates(now: Now, claims: &SignedModule) -> (String, String) {
    (now.not_before_human(claims.not_before), now.expires_human(claims.expires))
}

fn actor_claims<'a>(claims: &'a SignedModule, not_before: &'a str, expires: &'a str) -> ActorClaims<'a> {
    ActorClaims {
        call_alias: claims.call_alias.as_deref().unwrap_or_default(),
        caps: &claims.caps,
        issuer: &claims.issuer,
        tags: &claims.tags,
        name: &claims.name,
        version: &claims.version,
        revision: claims.revision,
        not_before_human: not_before,
        expires_human: expires,
    }
}
