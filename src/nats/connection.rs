//! One connection to NATS that never gives up and never makes anybody wait without a deadline.
//!
//! The client library queues what is said while the line is down, blocks when the queue is full, and sends it all later.
//! None of that is wanted here: whoever speaks while there is no connection is told so at once, and whoever must be heard
//! later keeps what it has to say itself (`event_queue`). So every way to the library passes this file, and each looks
//! at the state first and carries a deadline of ours.
//!
//! A [`Connection`] is opened inside the tokio runtime of the main thread and may then be used from any thread.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub use async_nats::Message;
use async_nats::{
    AuthError, Client, ConnectOptions, Event, HeaderMap, RequestErrorKind, ServerAddr, ServerError, connection::State,
};
use bytes::Bytes;
use event_listener::{Event as Signal, EventListener};
use futures_util::StreamExt;
use tokio::runtime::Handle;

use super::{
    backoff::Backoff,
    credentials,
    endpoint::{Endpoint, Login, Timing, Tls},
    guard::{self, Guard, Target},
};
pub use crate::nats::guard::Reader as Subscriber;
use crate::{
    error::{Error, Kind, Result},
    lock::{Mutex, MutexGuard},
    log, task,
    wire::text,
};

/// Commands the library may hold for a connection. What is said while it is down never gets there, so this only bridges a
/// busy moment.
const CLIENT_QUEUE: usize = 512;

/// Longest body that the library may keep beside as many others as its queue holds, bytes. Longer ones go out one by one: else
/// answers that a flood asks for would fill a small board while they wait for the line.
const LARGE_BYTES: usize = 4096;

/// Messages of one subscription that may wait to be taken. Our readers take them at once, but on one thread with the library,
/// which hands out all it has read first: a storm of small requests must find room. A flood beyond this is dropped by the
/// library and logged as a slow consumer.
const SUBSCRIPTION_QUEUE: usize = 8192;

/// First size of the buffer that is read into, bytes; it grows with the messages.
const READ_BUFFER_BYTES: u16 = 16 * 1024;

/// Probes after which the library calls a silent connection dead, and the one that is on its way when it went silent.
pub const PROBES_PER_SILENCE: u32 = 4;

/// How long the server may take to give back what it was sent, beyond the silence after which a line is called dead. A
/// satellite link needs a second or two.
const ROUND_TRIP_PATIENCE: Duration = Duration::from_secs(5);

/// How a server begins to say that a login may not do something, in lower case.
const PERMISSIONS: &str = "permissions violation";

/// Different things forbidden to one login that are kept and said at most; further ones change nothing for the operator.
const MAX_DENIALS: usize = 16;

/// Longest text of one, bytes: a subject with a few words.
const MAX_DENIAL_BYTES: usize = 512;

/// How a connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It works, as far as is known.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// It does not, and is being tried.
    Trying {
        /// Since when there is none.
        since: Instant,
        /// Attempts so far.
        attempts: usize,
        /// Why the last attempt failed.
        last_error: Option<String>,
        /// When the next attempt is made, at the latest known.
        next_try: Option<Instant>,
    },
}

impl Standing {
    /// Whether it works.
    pub fn is_connected(&self) -> bool {
        matches!(self, Standing::Connected { .. })
    }
}

/// What the library's callbacks and everybody else share.
struct Shared {
    name: &'static str,
    /// Somebody named the servers, so they are expected to be there.
    expected: bool,
    /// Longest wait between two attempts, to tell.
    cap: Duration,
    /// Where it leads, for people.
    server: String,
    standing: Mutex<Standing>,
    changed: Signal,
    ever_connected: Mutex<bool>,
    /// No attempt to connect is made while this holds.
    resting: AtomicBool,
    /// The server gives no answer where nobody listens.
    mute: AtomicBool,
    /// Whose the server is that nobody named, since it was last found.
    unnamed_owner: Mutex<Option<&'static str>>,
    /// Whoever reaches the server can command this host, unless the server asks for a login or for TLS.
    open_line: bool,
    /// What the server forbade this login since the line is up, in its words.
    denials: Mutex<BTreeSet<String>>,
    /// Where we hear ourselves: the subject, what comes on it, and what was said last.
    echo: smol::lock::Mutex<Option<(String, Subscriber, u64)>>,
    /// Held by whoever publishes a long body, until that is out.
    large: smol::lock::Mutex<()>,
}

impl Shared {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock()
    }

    fn connected(&self) {
        self.mute.store(false, Relaxed);
        self.denials().clear();
        *self.standing() = Standing::Connected { since: Instant::now() };
        *self.ever_connected.lock() = true;
        match self.unnamed_owner.lock().take() {
            Some(owner) => log::info!(
                "connected to NATS for {}: to the server on this machine at {}, which nobody named and which belongs to {owner}",
                self.name,
                self.server
            ),
            None => log::info!("connected to NATS for {}", self.name),
        }
        self.changed.notify(usize::MAX);
    }

    fn denials(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.denials.lock()
    }

    /// The server says that something is wrong. What it forbids stays wrong until the next connection, so it is kept.
    fn server_error(&self, cause: &ServerError) {
        if let ServerError::Other(words) = cause
            && words.to_ascii_lowercase().starts_with(PERMISSIONS)
        {
            let mut denials = self.denials();
            let news = denials.len() < MAX_DENIALS && denials.insert(text::prefix(words, MAX_DENIAL_BYTES).to_owned());
            drop(denials);
            if !news {
                return;
            }
        }
        log::warn!("the NATS server for {} says: {cause}", self.name);
    }

    fn lost(&self) {
        *self.standing() = Standing::Trying { since: Instant::now(), attempts: 0, last_error: None, next_try: None };
        log::warn!("lost the NATS connection for {}; trying again until it is back", self.name);
        self.changed.notify(usize::MAX);
    }

    fn was_connected(&self) -> bool {
        *self.ever_connected.lock()
    }

    /// An attempt is about to be made after `wait`.
    fn trying(&self, attempt: usize, wait: Duration) {
        if let Standing::Trying { attempts, next_try, .. } = &mut *self.standing() {
            (*attempts, *next_try) = (attempt, Some(Instant::now() + wait));
        }
    }

    fn failed(&self, why: String) {
        let news = match &mut *self.standing() {
            Standing::Trying { last_error, .. } if last_error.as_ref() != Some(&why) => {
                *last_error = Some(why.clone());
                true
            }
            _ => false,
        };
        // Said when the reason changes, not at each attempt.
        if news && (self.expected || self.was_connected()) {
            log::warn!("cannot connect to NATS for {}: {why}", self.name);
        } else if news {
            log::info!(
                "no NATS server answers for {} ({why}): this host works alone and looks again at least every {} s",
                self.name,
                self.cap.as_secs()
            );
        }
    }
}

/// A connection.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    guard: Arc<Guard>,
    handle: Handle,
    shared: Arc<Shared>,
    patience: Duration,
    silence: Duration,
}

/// What was heard in answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// A reply.
    Message(Message),
    /// Nobody listens on that subject.
    Nobody,
    /// Nobody answered in time.
    Silence,
}

impl Connection {
    /// Begins to connect to `endpoint` and returns at once. `purpose` names the connection in logs, `host_key` scatters its
    /// attempts. The servers are expected to be there; see [`Connection::look_for`].
    ///
    /// # Errors
    /// [`Kind::Config`]: a server's name cannot be used. [`Kind::Internal`]: not inside the runtime of the main thread.
    pub async fn open(purpose: &'static str, endpoint: &Endpoint, timing: &Timing, host_key: &str) -> Result<Self> {
        Self::begin(purpose, endpoint, timing, host_key, true).await
    }

    /// As [`Connection::open`], for servers that may be there or not: until the first is found, failures are no warnings.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn look_for(purpose: &'static str, endpoint: &Endpoint, timing: &Timing, host_key: &str) -> Result<Self> {
        Self::begin(purpose, endpoint, timing, host_key, false).await
    }

    async fn begin(
        purpose: &'static str,
        endpoint: &Endpoint,
        timing: &Timing,
        host_key: &str,
        expected: bool,
    ) -> Result<Self> {
        let handle = Handle::try_current()
            .map_err(|_| Error::internal("a NATS connection must be opened on the main thread's runtime"))?;
        let mut urls = endpoint.servers.iter().map(|server| server.url(endpoint.tls.required));
        let server = urls.next().unwrap_or_default() + if urls.next().is_some() { " or another" } else { "" };
        let shared = Arc::new(Shared {
            name: purpose,
            expected,
            cap: timing.reconnect_cap,
            server,
            standing: Mutex::new(Standing::Trying {
                since: Instant::now(),
                attempts: 0,
                last_error: None,
                next_try: None,
            }),
            changed: Signal::new(),
            ever_connected: Mutex::new(false),
            resting: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            unnamed_owner: Mutex::new(None),
            open_line: endpoint.leaves_this_machine() && !endpoint.is_encrypted(),
            denials: Mutex::default(),
            echo: smol::lock::Mutex::new(None),
            large: smol::lock::Mutex::new(()),
        });
        let guard = Arc::new(Guard::open(guarded(purpose, endpoint, timing)?).await?);
        let options = options(endpoint, timing, host_key, &shared, &guard);
        let client = options
            .connect(guard.url())
            .await
            .map_err(|cause| Error::config(format!("cannot begin to connect to NATS for {purpose}: {cause}")))?;
        Ok(Self { client, guard, handle, shared, patience: timing.patience, silence: timing.silence })
    }

    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.shared.standing().clone()
    }

    /// Where it leads, for people: `nats://127.0.0.1:4222`.
    pub fn server(&self) -> &str {
        &self.shared.server
    }

    /// What is wrong with a server that works: it is on another machine, asks for no login, and the line to it has no TLS.
    pub fn exposure(&self) -> Option<String> {
        let info = self.client.try_server_info().filter(|_| self.shared.open_line && self.is_connected())?;
        (!info.auth_required && !self.guard.is_encrypted()).then(|| {
            format!(
                "the NATS server {} asks for no login and the line to it has no TLS, so whoever reaches that server or that \
                 line can command this host: give the server users and TLS, and set NATS credentials and TLS here \
                 (WASMCLOUD_RPC_CREDSFILE and WASMCLOUD_CTL_CREDSFILE, WASMCLOUD_RPC_TLS and WASMCLOUD_CTL_TLS)",
                self.shared.server
            )
        })
    }

    /// What the server forbade this login, a sentence each, until the next connection.
    pub fn denials(&self) -> Vec<String> {
        let sentence = |denial: &String| {
            format!(
                "the NATS server {} does not let this login do what it needs ({denial}): give it the permission",
                self.shared.server
            )
        };
        self.shared.denials().iter().map(sentence).collect()
    }

    /// Whether the runtime that moves it still does: ends when that came round.
    pub async fn came_round(&self) {
        // An error means that the runtime is ending, which is no standstill.
        let _ = self.run(async {}).await;
    }

    /// Whether it works now.
    pub fn is_connected(&self) -> bool {
        self.shared.standing().is_connected() && self.client.connection_state() == State::Connected
    }

    /// Wakes when the standing changes; ask for it before looking at the standing.
    pub fn changed(&self) -> EventListener {
        self.shared.changed.listen()
    }

    /// Waits until it works.
    pub async fn connected(&self) {
        loop {
            let changed = self.changed();
            if self.shared.standing().is_connected() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until it does not work.
    pub async fn disconnected(&self) {
        loop {
            let changed = self.changed();
            if !self.shared.standing().is_connected() {
                return;
            }
            changed.await;
        }
    }

    /// Holds further attempts to connect back, or lets them go on: the library cannot be told to give up. Does nothing to a
    /// connection that works.
    pub fn rest(&self, rest: bool) {
        self.shared.resting.store(rest, Relaxed);
        self.shared.changed.notify(usize::MAX);
    }

    /// Whether the server lets nobody in without a login; no while there was no connection yet.
    pub fn requires_login(&self) -> bool {
        self.client.server_info().auth_required
    }

    /// Largest message the server takes, bytes.
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Says `payload` on `subject`.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] while there is no connection; [`Kind::Limit`] for more than the server takes.
    pub async fn publish(&self, subject: impl Into<String>, payload: impl Into<Bytes>) -> Result<()> {
        self.publish_all(subject.into(), None, None, payload.into()).await
    }

    /// As [`Connection::publish`], with headers and a place for answers.
    ///
    /// # Errors
    /// As [`Connection::publish`].
    pub async fn publish_all(
        &self,
        subject: String,
        reply: Option<String>,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<()> {
        self.must_work()?;
        let client = &self.client;
        let is_large = payload.len() > LARGE_BYTES;
        let said = async {
            let _turn = if is_large { Some(self.shared.large.lock().await) } else { None };
            let headers = headers.unwrap_or_default();
            let taken = match (reply, headers.is_empty()) {
                (None, true) => client.publish(subject, payload).await,
                (None, false) => client.publish_with_headers(subject, headers, payload).await,
                (Some(reply), true) => client.publish_with_reply(subject, reply, payload).await,
                (Some(reply), false) => client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
            };
            // Until it has left the library. A connection that breaks meanwhile says so elsewhere.
            if is_large && taken.is_ok() {
                let _ = client.flush().await;
            }
            taken
        };
        self.soon("publish", said).await?.map_err(|cause| {
            let kind = match cause.kind() {
                async_nats::PublishErrorKind::MaxPayloadExceeded => Kind::Limit,
                async_nats::PublishErrorKind::InvalidSubject => Kind::Invalid,
                _ => Kind::Unavailable,
            };
            Error::new(kind, format!("cannot publish to NATS: {cause}"))
        })
    }

    /// Asks on `subject` and waits for one answer, at most `timeout`.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] while there is no connection; [`Kind::Limit`] for more than the server takes; [`Kind::Invalid`]
    /// for what is no subject.
    pub async fn request(
        &self,
        subject: impl Into<String>,
        headers: Option<HeaderMap>,
        payload: impl Into<Bytes>,
        timeout: Duration,
    ) -> Result<Answer> {
        self.must_work()?;
        let request = async_nats::Request::new()
            .payload(payload.into())
            .headers(headers.unwrap_or_default())
            .timeout(Some(timeout));
        let (client, subject) = (self.client.clone(), subject.into());
        let asked = self.run(async move { client.send_request(subject, request).await });
        // The library's own time-out does not hold while its queue is full.
        match task::within(timeout + self.patience, asked).await {
            None => Ok(Answer::Silence),
            Some(Ok(Ok(message))) => Ok(Answer::Message(message)),
            Some(Ok(Err(cause))) => match cause.kind() {
                RequestErrorKind::NoResponders => Ok(Answer::Nobody),
                RequestErrorKind::TimedOut => Ok(Answer::Silence),
                RequestErrorKind::InvalidSubject => Err(Error::invalid(format!("cannot ask over NATS: {cause}"))),
                RequestErrorKind::MaxPayloadExceeded => Err(Error::limit(format!("cannot ask over NATS: {cause}"))),
                _ => Err(Error::unavailable(format!("cannot ask over NATS: {cause}"))),
            },
            Some(Err(cause)) => Err(cause),
        }
    }

    /// Waits until the server has given back something that was said after all that was said before: until then that may
    /// be lost, whatever the library has taken. Whoever else listens to everything hears it too and does not matter.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: there is no connection, or it was lost meanwhile.
    pub async fn round_trip(&self) -> Result<()> {
        let before = self.standing();
        if !self.shared.mute.load(Relaxed) {
            // A line that is dead is noticed within the time its probes take. If it outlives that, it carried what was said
            // before them, and this server lets nobody ask there: then that is how it is while the connection lasts.
            let heard = smol::future::or(async { Some(self.echo().await) }, async {
                self.disconnected().await;
                None
            });
            match task::within(ROUND_TRIP_PATIENCE + self.silence + self.silence / 2, heard).await.flatten() {
                Some(outcome) => outcome?,
                None => self.shared.mute.store(self.standing() == before, Relaxed),
            }
        } else {
            self.flush().await;
        }
        if before.is_connected() && self.standing() == before {
            return Ok(());
        }
        Err(Error::unavailable("the connection to NATS was lost before the server had all that was said"))
    }

    /// Says something to ourselves and waits until it comes back. One subscription serves all such questions of a
    /// connection's life: it is in force again whenever the line is.
    async fn echo(&self) -> Result<()> {
        let mut echo = self.shared.echo.lock().await;
        let (subject, heard, said) = match &mut *echo {
            Some(echo) => echo,
            none => {
                let subject = self.inbox();
                let heard = self.subscribe(subject.clone(), None).await?;
                none.insert((subject, heard, 0))
            }
        };
        *said += 1;
        let word = said.to_be_bytes();
        self.publish(subject.clone(), Bytes::copy_from_slice(&word)).await?;
        // What an earlier question said may come late.
        while let Some(message) = heard.next().await {
            if *message.payload == word {
                return Ok(());
            }
        }
        Err(Error::unavailable("the NATS connection is ending"))
    }

    /// Listens on `subject`, sharing its messages with `queue_group`. Subscriptions outlive the connection: they are in
    /// force again as soon as it is back.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] while there is no connection, so that nothing piles up in the library.
    pub async fn subscribe(&self, subject: String, queue_group: Option<String>) -> Result<Subscriber> {
        self.must_work()?;
        let client = &self.client;
        let subscribed = async {
            match queue_group {
                Some(group) => client.queue_subscribe(subject, group).await,
                None => client.subscribe(subject).await,
            }
        };
        let subscriber = self.soon("subscribe", subscribed).await?;
        let subscriber =
            subscriber.map_err(|cause| Error::unavailable(format!("cannot subscribe on NATS: {cause}")))?;
        Ok(Subscriber::new(subscriber, self.guard.flow()))
    }

    /// A subject nobody else uses, for answers; it may be given further parts.
    pub fn inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// The library's own JetStream, for tests to look from the other side. To be made and used inside
    /// [`Connection::run`]: it starts a task, and panics where its runtime is not.
    #[cfg(test)]
    pub fn jetstream(&self, domain: Option<&str>, timeout: Duration) -> async_nats::jetstream::Context {
        let mut context = match domain {
            Some(domain) => async_nats::jetstream::with_domain(self.client.clone(), domain),
            None => async_nats::jetstream::new(self.client.clone()),
        };
        context.set_timeout(timeout);
        context
    }

    /// Runs `future` on the runtime the library needs, from wherever this is called. Dropped, it stops.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: the runtime is ending.
    pub async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T> {
        let mut task = AbortOnDrop(self.handle.spawn(future));
        (&mut task.0).await.map_err(|_| Error::unavailable("the NATS connection is ending"))
    }

    /// Starts `future` on the runtime the library needs and lets it run.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Background {
        Background(AbortOnDrop(self.handle.spawn(future)))
    }

    /// Hands everything said so far to the operating system, waiting no longer than our patience.
    pub async fn flush(&self) {
        if self.must_work().is_ok() {
            let (client, guard) = (self.client.clone(), self.guard.clone());
            let flushed = self.run(async move {
                if client.flush().await.is_ok() {
                    guard.flush().await;
                }
            });
            let _ = task::within(self.patience, flushed).await;
        }
    }

    fn must_work(&self) -> Result<()> {
        if self.is_connected() { Ok(()) } else { Err(Error::unavailable("there is no connection to NATS now")) }
    }

    /// Waits for the library no longer than our patience.
    async fn soon<T>(&self, what: &str, future: impl Future<Output = T>) -> Result<T> {
        task::within(self.patience, future).await.ok_or_else(|| {
            Error::unavailable(format!(
                "cannot {what}: NATS did not take it within {} ms; the connection is stuck",
                self.patience.as_millis()
            ))
        })
    }
}

/// A task of the library's runtime that stops when this is dropped.
pub struct Background(AbortOnDrop<()>);

impl Background {
    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.0.is_finished()
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the guard needs to know.
fn guarded(purpose: &'static str, endpoint: &Endpoint, timing: &Timing) -> Result<guard::Settings> {
    let mut servers = Vec::new();
    for server in &endpoint.servers {
        let url = server.url(endpoint.tls.required);
        // The library's own opinion of the name.
        url.parse::<ServerAddr>()
            .map_err(|cause| Error::config(format!("the NATS server {url} cannot be used: {cause}")))?;
        servers.push(Target { host: server.host.clone(), port: server.port, tls: server.tls });
    }
    let Tls { required, first, ca, certificate } = endpoint.tls.clone();
    let tls = guard::Tls { required, first, ca, certificate };
    // A server that nobody named must not lead to servers that nobody named and nobody can look up.
    let discover = endpoint.unnamed.is_none();
    Ok(guard::Settings { purpose, servers, discover, tls, connect: timing.connect, silence: timing.silence })
}

fn options(
    endpoint: &Endpoint,
    timing: &Timing,
    host_key: &str,
    shared: &Arc<Shared>,
    guard: &Arc<Guard>,
) -> ConnectOptions {
    let (login, unnamed, greeted) = (endpoint.login.clone(), endpoint.unnamed, shared.clone());
    let mut options = match (login, unnamed) {
        (Login::None, None) => ConnectOptions::new(),
        (login, unnamed) => ConnectOptions::with_auth_callback(move |nonce| {
            // The server has sent its greeting and has not heard a word yet: the guard opened the connection to it.
            let owner = unnamed.map(|server| server.check_connections()).transpose();
            let (login, greeted) = (login.clone(), greeted.clone());
            async move {
                *greeted.unnamed_owner.lock() = owner.map_err(AuthError::new)?;
                credentials::answer(login, nonce).await
            }
        }),
    };
    if let Some(inbox) = &endpoint.inbox {
        options = options.custom_inbox_prefix(inbox);
    }
    let backoff = Backoff::new(timing.reconnect_base, timing.reconnect_cap, host_key);
    let refusals = Arc::new(Backoff::new(timing.reconnect_base, timing.reconnect_cap, host_key));
    let (delays, events, failures) = (shared.clone(), shared.clone(), shared.clone());
    // The library holds these and with them the guard: its port is never free for others while the library may connect to it.
    let (guarding, watched) = (guard.clone(), guard.clone());
    options
        .name(format!("latticed {host_key}"))
        .connection_timeout(guard.longest_attempt())
        .ping_interval(timing.silence / PROBES_PER_SILENCE)
        .client_capacity(CLIENT_QUEUE)
        .subscription_capacity(SUBSCRIPTION_QUEUE)
        .read_buffer_capacity(READ_BUFFER_BYTES)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(move |attempt| {
            // The first attempt of a host's life is made at once: boards do not boot in the same millisecond.
            // A server that breaks the protocol each time it is reached has taken the login each time.
            let attempt = attempt.max(guarding.violations());
            let wait = if attempt <= 1 && !delays.was_connected() { Duration::ZERO } else { backoff.delay(attempt) };
            delays.trying(attempt, wait);
            wait
        })
        .reconnect_to_server_callback(move |servers, _| {
            // Chooses nothing: this is the one place where the library tells why an attempt failed. It knows one server, the
            // guard, which has the reason unless it is the login's.
            let (target, why) = watched.take_failure();
            let why = why.or_else(|| servers.into_iter().find_map(|server| server.last_error));
            match (target, why) {
                (Some(Target { host, port, .. }), Some(why)) => failures.failed(format!("{host}:{port}: {why}")),
                (None, Some(why)) => failures.failed(why),
                (_, None) => {}
            }
            let (shared, waits) = (failures.clone(), refusals.clone());
            async move {
                let mut attempt = 0;
                loop {
                    let changed = shared.changed.listen();
                    if shared.resting.load(Relaxed) {
                        changed.await;
                        continue;
                    }
                    let Err(why) = unnamed.map_or(Ok(()), |server| server.check_listener()) else { return None };
                    attempt += 1;
                    let wait = waits.delay(attempt);
                    shared.failed(why);
                    shared.trying(attempt, wait);
                    tokio::time::sleep(wait).await;
                }
            }
        })
        .event_callback(move |event| {
            match event {
                Event::Connected => events.connected(),
                Event::Disconnected => events.lost(),
                Event::ClientError(cause) => log::debug!("NATS for {}: {cause}", events.name),
                Event::SlowConsumer(_) => {
                    log::warn!("messages from NATS for {} were dropped: too many at once", events.name)
                }
                Event::ServerError(cause) => events.server_error(&cause),
                other => log::debug!("NATS for {}: {other}", events.name),
            }
            std::future::ready(())
        })
}
