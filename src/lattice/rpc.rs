//! Calls over the network: those that reach what runs here, and those that leave for other hosts (`protocol/invocation.md`).
//!
//! In: one subscription per actor and per built-in provider, each shared with the other hosts that run the same. Checked in
//! the order and answered with the texts of §4, then handed to the router like any other call. Out: signed, sent, waited for
//! until the caller's deadline.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Message};
use futures_util::StreamExt;

use super::{Shared, cache::Cache, control::pending::PendingCommands, events::LatticeEvents, remote::Remotes};
use crate::{
    claims::{AntiForgery, Checked},
    error::{Error, Kind, Result},
    host::{BoxFuture, Call, ProviderStatus, Uplink, UplinkStatus, uplink::PendingCommand},
    log,
    nats::{
        admission::Admission,
        bodies::Bodies,
        calls::{read_answer, seal},
        connection::{Answer, Background, Connection, Standing},
    },
    wire::{
        Entity, Invocation, InvocationResponse, Trace, chunk, codec,
        event::{
            self, Data,
            invocation::{InvocationFailed, InvocationSucceeded, Passed},
        },
        id,
        subject::{PROVIDER_QUEUE_GROUP, ProviderTopic, Subjects},
        text, trace,
    },
};

/// Calls from the network that may be under way at once, waiting ones included. The router's own limits are tighter; this one
/// bounds what they are told about. One more is answered with a refusal at once.
const MAX_IN_FLIGHT: usize = 1024;

/// Their messages together, bytes. Anybody may send them; what does not fit is refused and may be tried again.
const MAX_IN_FLIGHT_BYTES: usize = 4 << 20;

/// Bodies fetched from the object store together, bytes. Only callers whose token is good have them fetched. A board of 512 MB
/// has no more to spare; what does not fit is refused and may be tried again.
const MAX_STORED_BYTES: usize = 32 << 20;

/// What a caller reads when nobody answered, whatever the reason (`protocol/invocation.md §5.1`).
const NO_ANSWER: &str = "Failed to perform RPC call: request timeout";

/// How long a long body may take beside the call itself.
const BODY_PATIENCE: Duration = chunk::EXTRA_TIME;

/// What an answer's envelope takes beside its id and its body or error, bytes; a little over what is measured. An answer that
/// would not fit into what the server takes goes through the object store, an error is cut.
const ENVELOPE_ROOM_BYTES: usize = 256;

/// Who a subscription is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Served {
    Actor(String),
    Provider {
        key: String,
        link_name: String,
    },
    /// Is the provider well? Built-in ones are as long as they are here.
    Health,
}

/// What calls must pass.
#[derive(Clone)]
struct Admissions {
    messages: Admission,
    /// Bodies fetched from the object store.
    stored: Admission,
}

/// Keeps the subscriptions equal to what runs, for ever.
pub async fn serve_for_ever(shared: Arc<Shared>) {
    let admission = Admissions {
        messages: Admission::new(MAX_IN_FLIGHT, MAX_IN_FLIGHT_BYTES),
        stored: Admission::new(MAX_IN_FLIGHT, MAX_STORED_BYTES),
    };
    let mut serving: HashMap<String, Background> = HashMap::new();
    loop {
        shared.rpc.connected().await;
        let changed = shared.events.routes_changed.listen();
        let lost = shared.rpc.changed();
        let wanted = wanted(&shared);
        serving.retain(|subject, task| wanted.contains_key(subject) && !task.is_finished());
        let mut complete = true;
        for (subject, (queue_group, served)) in wanted {
            if serving.contains_key(&subject) {
                continue;
            }
            match shared.rpc.subscribe(subject.clone(), queue_group).await {
                Ok(mut messages) => {
                    let (shared, admission) = (shared.clone(), admission.clone());
                    let task = shared.rpc.clone().spawn(async move {
                        while let Some(message) = messages.next().await {
                            take_in(&shared, &admission, &served, message).await;
                        }
                    });
                    serving.insert(subject, task);
                }
                Err(error) => {
                    log::debug!("{subject} is not served yet: {error}");
                    complete = false;
                }
            }
        }
        shared.events.set_listening(&shared.events.listening.calls, complete);
        let again = async {
            if complete {
                smol::future::pending::<()>().await;
            }
            smol::Timer::after(Duration::from_millis(200)).await;
        };
        smol::future::or(smol::future::or(changed, lost), again).await;
    }
}

/// Has the host look again at what could not be started while there was no connection, each time there is one.
pub async fn reconsider_for_ever(shared: Arc<Shared>) {
    loop {
        shared.rpc.connected().await;
        shared.host.reconsider();
        shared.rpc.disconnected().await;
    }
}

/// What should be listened to now: subject to queue group and purpose.
fn wanted(shared: &Shared) -> HashMap<String, (Option<String>, Served)> {
    let routes = shared.host.router().routes();
    let mut wanted = HashMap::new();
    for actor in routes.actors() {
        let key = &actor.desired.public_key;
        let subject = shared.subjects.actor(key);
        wanted.insert(subject.clone(), (Some(subject), Served::Actor(key.clone())));
    }
    for provider in routes.providers().filter(|provider| !provider.capability.is_on_lattice()) {
        let (key, link_name) = (provider.desired.public_key.clone(), provider.desired.link_name.clone());
        let subject = shared.subjects.provider(&key, &link_name);
        let health = shared.subjects.provider_topic(&key, &link_name, ProviderTopic::Health);
        wanted.insert(subject, (Some(PROVIDER_QUEUE_GROUP.to_owned()), Served::Provider { key, link_name }));
        wanted.insert(health, (None, Served::Health));
    }
    wanted
}

/// Starts the answer to `message`, or refuses it from here: then whoever floods this host waits in line.
async fn take_in(shared: &Arc<Shared>, admission: &Admissions, served: &Served, message: Message) {
    if *served == Served::Health {
        reply(shared, &message, codec::encode(&BTreeMap::from([("healthy", true)]))).await;
        return;
    }
    let Some(pass) = admission.messages.enter_for(message.reply.as_deref(), message.payload.len()) else {
        let invocation = Invocation::decode(&message.payload).unwrap_or_default();
        let refusal = InvocationResponse::failure(invocation.id.clone(), busy()).encode();
        reply(shared, &message, refusal).await;
        if invocation.is_stored() && shared.anti_forgery.check(&invocation, shared.host.now()).is_ok() {
            shared.bodies.discard(chunk::request_object(&invocation.id)).await;
        }
        return;
    };
    let (shared, admission, served) = (shared.clone(), admission.clone(), served.clone());
    crate::task::spawn(async move {
        let _pass = pass;
        let (response, stored) = answer(&shared, &admission, &served, &message).await;
        let sent = Box::pin(reply(&shared, &message, response)).await;
        if let Some(name) = stored.filter(|_| !sent) {
            Box::pin(shared.bodies.discard(name)).await;
        }
    })
    .detach();
}

fn busy() -> String {
    format!("this host has {MAX_IN_FLIGHT} calls or {} MiB of them under way; try again", MAX_IN_FLIGHT_BYTES >> 20)
}

fn busy_fetching() -> String {
    format!("this host has {} MiB of stored bodies under way; try again", MAX_STORED_BYTES >> 20)
}

/// Sends `response`, and says whether it is on its way.
async fn reply(shared: &Shared, message: &Message, response: Result<Vec<u8>>) -> bool {
    let Some(reply) = &message.reply else { return false };
    let sent = match response {
        Ok(body) => shared.rpc.publish(reply.to_string(), body).await,
        Err(error) => Err(error),
    };
    sent.inspect_err(|error| log::debug!("an answer was not sent: {error}")).is_ok()
}

/// Runs the call in `message` and writes its answer; with the name of its body, if that was put into the object store.
///
/// What only an accepted call needs is in boxes of its own: a task takes as much memory as the largest it may come to, ten
/// kilobytes, and a flood of calls that are refused must not take that for each.
async fn answer(
    shared: &Shared,
    admission: &Admissions,
    served: &Served,
    message: &Message,
) -> (Result<Vec<u8>>, Option<String>) {
    let began = Instant::now();
    let invocation = match Invocation::decode(&message.payload) {
        Ok(invocation) => invocation,
        Err(error) => return (InvocationResponse::failure("", error.text()).encode(), None),
    };
    let id = invocation.id.clone();
    let trace = trace_of(&invocation, message);
    let outcome = match check(shared, served, &invocation) {
        Ok(checked) => Box::pin(run(shared, admission, served, &invocation, checked, (trace, began))).await,
        Err(error) => Err(error),
    };
    let Invocation { origin, target, operation, .. } = &invocation;
    Box::pin(shared.invocations.tell(origin, target, operation, length_of(&invocation), outcome.is_ok())).await;
    let most = shared.rpc.max_payload();
    match outcome {
        Ok(body) if chunk::must_store(body.len()) || body.len() + id.len() + ENVELOPE_ROOM_BYTES > most => {
            let (length, name) = (body.len() as u64, chunk::response_object(&id));
            match Box::pin(shared.bodies.store(name.clone(), body, BODY_PATIENCE)).await {
                Ok(()) => {
                    let empty = InvocationResponse::success(id, &b""[..]);
                    (InvocationResponse { content_length: Some(length), ..empty }.encode(), Some(name))
                }
                Err(error) => (InvocationResponse::failure(id, error.text()).encode(), None),
            }
        }
        Ok(body) => (InvocationResponse::success(id, body).encode(), None),
        Err(error) => {
            let room = most.saturating_sub(id.len() + ENVELOPE_ROOM_BYTES);
            (InvocationResponse::failure(id, text::prefix(error.text(), room)).encode(), None)
        }
    }
}

fn length_of(invocation: &Invocation<'_>) -> u64 {
    invocation.content_length.unwrap_or(invocation.msg.len() as u64)
}

/// What ties the call to a request: from the envelope, else from the message's headers (`protocol/invocation.md §7`).
fn trace_of(invocation: &Invocation<'_>, message: &Message) -> Option<Trace> {
    if !invocation.trace_context.is_empty() {
        return Trace::find(|name| invocation.trace_context.get(name).map(String::as_str));
    }
    let headers = message.headers.as_ref()?;
    Trace::find(|name| {
        let (_, values) = headers.iter().find(|(known, _)| AsRef::<str>::as_ref(known).eq_ignore_ascii_case(name))?;
        values.first().map(|value| value.as_str())
    })
}

fn check(shared: &Shared, served: &Served, invocation: &Invocation<'_>) -> Result<Checked> {
    shared.anti_forgery.find_forgery(invocation, shared.host.now()).map_err(|forgery| match served {
        Served::Provider { .. } => forgery.as_provider_says(),
        _ => forgery.into(),
    })
}

async fn run(
    shared: &Shared,
    admission: &Admissions,
    served: &Served,
    invocation: &Invocation<'_>,
    checked: Checked,
    (trace, began): (Option<Trace>, Instant),
) -> Result<Vec<u8>> {
    // From here on the caller is known, so the body it names is its own: refused, it is removed instead of fetched.
    let mut left_behind = LeftBehind(invocation.is_stored().then(|| (&shared.bodies, invocation.id.as_ref())));
    let mut deadline = began + shared.settings.rpc_timeout;
    match served {
        Served::Actor(key) if invocation.target.public_key != *key => {
            return Err(Error::denied(format!("target key mismatch: {} != {key}", invocation.target.public_key)));
        }
        Served::Provider { key, link_name } => {
            if invocation.target.public_key != *key || invocation.target.link_name != *link_name {
                return Err(Error::denied(format!("target key mismatch: {} != {key}", invocation.target.public_key)));
            }
            let actor = &invocation.origin.public_key;
            let routes = shared.host.router().routes();
            let link = routes.links.find(actor, &invocation.target.contract_id, link_name);
            if link.is_none_or(|link| link.provider_id != *key) {
                return Err(Error::denied(format!("unlinked actor: '{actor}'")));
            }
        }
        _ => {}
    }
    let mut _room = None;
    let payload = if invocation.is_stored() {
        deadline += BODY_PATIENCE;
        let length = usize::try_from(length_of(invocation)).unwrap_or(usize::MAX);
        _room = Some(admission.stored.reserve(length).ok_or_else(|| Error::new(Kind::Busy, busy_fetching()))?);
        let name = chunk::request_object(&invocation.id);
        let body = shared.bodies.take(name, length_of(invocation), BODY_PATIENCE).await?;
        left_behind.0 = None;
        checked.check_stored_body(invocation, &body)?;
        body
    } else {
        invocation.msg.to_vec()
    };
    let call = Call {
        origin: invocation.origin.clone(),
        target: invocation.target.clone(),
        operation: invocation.operation.clone(),
        payload,
        deadline,
        depth: 0,
        trace,
    };
    shared.host.router().serve(call).await
}

/// The stored body of a call that was not fetched yet: removed when this is dropped with it.
struct LeftBehind<'a>(Option<(&'a Bodies, &'a str)>);

impl Drop for LeftBehind<'_> {
    fn drop(&mut self) {
        if let Some((bodies, id)) = self.0.take() {
            bodies.discard_later(vec![chunk::request_object(id)], Duration::ZERO);
        }
    }
}

/// Tells of single invocations on their own subject, while there is a connection: these events are not kept.
#[derive(Clone)]
pub struct InvocationEvents {
    connection: Connection,
    subject: String,
    host_id: String,
}

impl InvocationEvents {
    /// A teller on `connection`.
    pub fn new(connection: Connection, subjects: &Subjects, host_id: &str) -> Self {
        Self { connection, subject: subjects.invocation_events(), host_id: host_id.to_owned() }
    }

    async fn tell(&self, source: &Entity, dest: &Entity, operation: &str, bytes: u64, succeeded: bool) {
        if !self.connection.is_connected() {
            return;
        }
        let passed = Passed { source, dest, operation, bytes };
        let written =
            if succeeded { self.write(&InvocationSucceeded(passed)) } else { self.write(&InvocationFailed(passed)) };
        if let Ok(body) = written {
            let _ = self.connection.publish(self.subject.clone(), body).await;
        }
    }

    fn write<D: Data>(&self, data: &D) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        event::write(&mut body, &self.host_id, id::random_id(), id::unix_micros(), data)?;
        Ok(body)
    }
}

/// The way to other hosts.
pub struct RpcUplink {
    pub(super) connection: Connection,
    /// The other connection, or the same: the status tells of the one that stands worse.
    pub(super) control: Connection,
    pub(super) events: Arc<LatticeEvents>,
    pub(super) subjects: Subjects,
    pub(super) host_id: String,
    pub(super) anti_forgery: Arc<AntiForgery>,
    pub(super) bodies: Bodies,
    pub(super) cache: Arc<Cache>,
    pub(super) invocations: InvocationEvents,
    pub(super) remotes: Arc<Remotes>,
    pub(super) pending: Arc<PendingCommands>,
    pub(super) timeout: Duration,
}

/// A call to another host whose end is not told yet. Dropped before that, its caller gave it up, which is a failure too.
struct Untold {
    events: InvocationEvents,
    /// Who called whom for what.
    called: Option<(Entity, Entity, String)>,
    bytes: u64,
}

impl Untold {
    async fn tell(mut self, succeeded: bool) {
        if let Some((origin, target, operation)) = self.called.take() {
            self.events.tell(&origin, &target, &operation, self.bytes, succeeded).await;
        }
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        let (Some((origin, target, operation)), events, bytes) = (self.called.take(), self.events.clone(), self.bytes)
        else {
            return;
        };
        crate::task::spawn(async move { events.tell(&origin, &target, &operation, bytes, false).await }).detach();
    }
}

impl Uplink for RpcUplink {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
        let (connection, bodies, invocations) =
            (self.connection.clone(), self.bodies.clone(), self.invocations.clone());
        let (anti_forgery, host_id, timeout) = (self.anti_forgery.clone(), self.host_id.clone(), self.timeout);
        let subject = if call.target.is_actor() {
            self.subjects.actor(&call.target.public_key)
        } else {
            self.subjects.provider(&call.target.public_key, &call.target.link_name)
        };
        Box::pin(async move {
            let Call { origin, target, operation, payload, deadline, trace, .. } = call;
            let length = payload.len() as u64;
            let longest = if chunk::must_store(payload.len()) { timeout + BODY_PATIENCE } else { timeout };
            let patience = deadline.saturating_duration_since(Instant::now()).min(longest);
            // Receivers of one generation look into the envelope, those of another at the headers.
            let headers = trace.as_ref().map(|trace| {
                let mut headers = HeaderMap::new();
                headers.insert(trace::PARENT, trace.parent());
                if let Some(state) = trace.state() {
                    headers.insert(trace::STATE, state);
                }
                headers
            });
            let trace_context = trace.as_ref().map(Trace::members).unwrap_or_default();
            let invocation = Invocation { origin, target, operation, host_id, trace_context, ..Invocation::default() };
            let invocation = seal(invocation, payload, &anti_forgery, &bodies, patience).await?;
            let untold = Untold {
                events: invocations,
                called: Some((invocation.origin.clone(), invocation.target.clone(), invocation.operation.clone())),
                bytes: length,
            };
            let stored = invocation.is_stored().then(|| chunk::request_object(&invocation.id));
            let asked = connection.request(subject, headers, invocation.encode()?, patience).await;
            let unread = |stored: Option<String>| {
                if let Some(name) = stored {
                    bodies.discard_later(vec![name], Duration::ZERO);
                }
            };
            let outcome = match asked {
                Ok(Answer::Message(message)) => read_answer(&bodies, &invocation.id, &message, patience).await,
                Ok(Answer::Silence) => {
                    // Somebody may be at it still, and put an answer there that nobody reads.
                    let names = stored.into_iter().chain([chunk::response_object(&invocation.id)]).collect();
                    bodies.discard_later(names, BODY_PATIENCE);
                    Err(Error::timeout(NO_ANSWER))
                }
                Ok(Answer::Nobody) => {
                    unread(stored);
                    Err(Error::timeout(NO_ANSWER))
                }
                Err(error) => {
                    unread(stored);
                    log::debug!("a call to another host was not made: {error}");
                    Err(Error::unavailable(NO_ANSWER))
                }
            };
            untold.tell(outcome.is_ok()).await;
            outcome
        })
    }

    fn resolve_alias(&self, alias: &str) -> Option<String> {
        self.cache.resolve_alias(alias)
    }

    fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    fn pending_commands(&self) -> Vec<PendingCommand> {
        self.pending.list()
    }

    fn remove_command(&self, id: String) -> BoxFuture<'static, Result<bool>> {
        let pending = self.pending.clone();
        Box::pin(async move { pending.remove(&id).await })
    }

    fn remote_providers(&self) -> Vec<ProviderStatus> {
        self.remotes.statuses()
    }

    fn tell_provider(
        &self,
        public_key: &str,
        link_name: &str,
        topic: ProviderTopic,
        body: Vec<u8>,
    ) -> BoxFuture<'static, Result<()>> {
        let subject = self.subjects.provider_topic(public_key, link_name, topic);
        let connection = self.connection.clone();
        Box::pin(async move { connection.publish(subject, body).await })
    }

    fn ask_provider(
        &self,
        public_key: &str,
        link_name: &str,
        topic: ProviderTopic,
        body: Vec<u8>,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Option<Vec<u8>>>> {
        let subject = self.subjects.provider_topic(public_key, link_name, topic);
        let connection = self.connection.clone();
        Box::pin(async move {
            Ok(match connection.request(subject, None, body, patience).await? {
                Answer::Message(message) => Some(message.payload.to_vec()),
                Answer::Nobody | Answer::Silence => None,
            })
        })
    }

    fn status(&self) -> UplinkStatus {
        let (control, rpc) = (self.control.standing(), self.connection.standing());
        let worse = if control.is_connected() { rpc } else { control };
        let now = Instant::now();
        let waiting_events = self.events.waiting() as u64;
        let server = self.control.server().to_owned();
        let mut problems: Vec<String> = Vec::new();
        for connection in [&self.control, &self.connection] {
            for problem in connection.exposure().into_iter().chain(connection.denials()) {
                // One connection may serve both.
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        match worse {
            Standing::Connected { since } => UplinkStatus {
                connected: true,
                listening: self.events.is_listening(),
                server,
                since_seconds: now.saturating_duration_since(since).as_secs(),
                waiting_events,
                problems,
                ..UplinkStatus::default()
            },
            Standing::Trying { since, last_error, next_try, attempts } => UplinkStatus {
                connected: false,
                listening: false,
                server,
                attempts: attempts as u64,
                since_seconds: now.saturating_duration_since(since).as_secs(),
                reason: last_error.unwrap_or_default(),
                next_try_seconds: next_try.map(|at| at.saturating_duration_since(now).as_secs()),
                waiting_events,
                problems,
            },
        }
    }
}
