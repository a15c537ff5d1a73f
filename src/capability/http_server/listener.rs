//! One listening socket, its connections, and their orderly end.
//!
//! Made by the provider for each link. One task accepts; each connection is a task; one watch looks after all of them
//! and sleeps for ever while there are none.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Shutdown, SocketAddr, TcpListener as StdTcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_rustls::TlsAcceptor;
use hyper::{server::conn::http1, service::service_fn};
use smol::{
    Async, Task, Timer, future,
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use smol_hyper::rt::FuturesIo;

use super::{
    budget::Budget,
    link_values::Options,
    overload::Overload,
    pace::{self, Pace, Phase, Verdict},
    service,
    settings::{BUFFER_BYTES_MAX, HEADER_BYTES_MAX, Settings},
    stream::{Stream, Transport},
};
use crate::{
    client_source::{self, Full, Source},
    error::{Error, Kind, Result},
    host::Invoke,
    lock::{Mutex, MutexGuard},
    log, task,
    wire::{Entity, LinkDefinition},
};

/// Pause after an accept failed for want of descriptors or memory, so that the failure is not repeated at full speed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// How often a closing listener looks whether its last requests are answered.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes thrown away at most while lingering, so that a flood does not keep us reading.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What a newcomer reads when every place is taken and none can be freed.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 21\r\n\r\ntoo many connections\n";

/// What the tasks of one listener share.
pub struct Shared {
    /// The link it was opened for.
    pub link: Arc<LinkDefinition>,
    /// What the link values say.
    pub options: Options,
    /// The limits of every listener.
    pub settings: Arc<Settings>,
    /// Memory for request bodies.
    pub budget: Arc<Budget>,
    /// The road to the actor.
    pub invoke: Arc<dyn Invoke>,
    /// This provider, as the actor sees it.
    pub origin: Entity,
    /// The linked actor.
    pub target: Entity,
    /// Connections end with the answer they are at.
    pub closing: AtomicBool,
    /// No new work: the link is gone.
    pub unlinked: AtomicBool,
    /// Failures that were not said one by one.
    pub overload: Overload,
    /// Certificate and key for new connections, if the link has them.
    acceptor: Mutex<Option<TlsAcceptor>>,
    connections: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, Connection>,
    next: u64,
    /// Whether the watch runs.
    watched: bool,
}

struct Connection {
    source: Source,
    socket: TcpStream,
    pace: Arc<Pace>,
    task: Option<Task<()>>,
}

impl Connection {
    fn shut(&self, how: Shutdown) {
        // It may be gone already, which is as well.
        let _ = self.socket.shutdown(how);
    }
}

/// A listener; dropping it closes the socket and cancels every connection.
pub struct Listener {
    shared: Arc<Shared>,
    accept: Option<Task<()>>,
    /// The socket, until closing begins.
    socket: Option<TcpListener>,
    /// The real address, after the kernel chose a port.
    pub bound: SocketAddr,
    /// Whether clients must speak TLS.
    pub tls: bool,
}

/// What a listener is made of, besides its socket.
pub struct Parts {
    /// The link it is opened for.
    pub link: Arc<LinkDefinition>,
    /// What the link values say.
    pub options: Options,
    /// The limits of every listener.
    pub settings: Arc<Settings>,
    /// Memory for request bodies.
    pub budget: Arc<Budget>,
    /// The road to the actor.
    pub invoke: Arc<dyn Invoke>,
    /// This provider, as the actor sees it.
    pub origin: Entity,
    /// Certificate and key, if the link has them.
    pub acceptor: Option<TlsAcceptor>,
    /// The socket, where it is open already.
    pub socket: Option<StdTcpListener>,
}

/// Why a listener closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Its link is gone: what was asked may finish, nothing new begins.
    Unlinked,
    /// The host stops: who is connected already is served once more, so that nobody who got through is turned away.
    Stopped,
}

impl Listener {
    /// Binds the address of the link and starts to accept.
    ///
    /// # Errors
    /// The address cannot be bound; the text names it, the actor, the reason and the remedy.
    pub fn open(parts: Parts) -> Result<Self> {
        let Parts { link, options, settings, budget, invoke, origin, acceptor, socket } = parts;
        // The standard library sets SO_REUSEADDR, so a restart does not wait for old connections to time out.
        let bind = || {
            let socket = match socket {
                Some(open) => Async::new(open)?,
                None => Async::<StdTcpListener>::bind(options.address)?,
            };
            let bound = socket.get_ref().local_addr()?;
            Ok((TcpListener::from(socket), bound))
        };
        let (socket, bound) = bind().map_err(|cause| cannot_bind(options.address, &link, &cause))?;
        let tls = acceptor.is_some();
        let target = Entity::actor(link.actor_id.clone());
        let shared = Arc::new(Shared {
            link,
            options,
            settings,
            budget,
            invoke,
            origin,
            target,
            closing: AtomicBool::new(false),
            unlinked: AtomicBool::new(false),
            overload: Overload::default(),
            acceptor: Mutex::new(acceptor),
            connections: Mutex::default(),
        });
        let accept = task::spawn(accept(Arc::clone(&shared), socket.clone()));
        Ok(Self { shared, accept: Some(accept), socket: Some(socket), bound, tls })
    }

    /// The socket; nothing once closing began.
    pub fn socket(&self) -> Option<&TcpListener> {
        self.socket.as_ref()
    }

    /// The link it serves.
    pub fn link(&self) -> &Arc<LinkDefinition> {
        &self.shared.link
    }

    /// What its link values say.
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// New connections are served with this certificate; those there are go on as they are.
    pub fn replace_acceptor(&self, acceptor: Option<TlsAcceptor>) {
        *self.shared.acceptor() = acceptor;
    }

    /// Frees the port and closes idle connections at once; waits for requests in flight up to the drain time, then
    /// cancels them.
    pub async fn close(mut self, why: Closing) {
        self.shared.unlinked.store(why == Closing::Unlinked, Relaxed);
        self.shared.closing.store(true, Relaxed);
        if let Some(accept) = self.accept.take() {
            accept.cancel().await;
        }
        drop(self.socket.take());
        let end = Instant::now() + self.shared.settings.drain;
        // An answer may still be on its way from a request that began before: such a connection turns idle later.
        let began = Instant::now();
        while self.shared.close_idle(why == Closing::Stopped && began.elapsed() < self.shared.settings.late_request) > 0
            && Instant::now() < end
        {
            Timer::after(DRAIN_INTERVAL).await;
        }
        let left = self.shared.connections().open.len();
        if left > 0 {
            log::warn!(
                "{left} requests on {} were cut off: they took longer than the drain time", self.bound;
                actor_id = self.shared.link.actor_id
            );
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.closing.store(true, Relaxed);
        drop(self.accept.take());
        let open = std::mem::take(&mut self.shared.connections().open);
        for connection in open.into_values() {
            connection.shut(Shutdown::Both);
            // Dropping the task cancels the request it is in.
        }
    }
}

fn cannot_bind(address: SocketAddr, link: &LinkDefinition, cause: &std::io::Error) -> Error {
    let actor = &link.actor_id;
    let (kind, remedy) = match cause.kind() {
        std::io::ErrorKind::AddrInUse => (
            Kind::Conflict,
            format!(
                "another program or link listens there: give this link another `address` or stop the other one \
                 (`ss -ltnp 'sport = :{}'` names it)",
                address.port()
            ),
        ),
        std::io::ErrorKind::PermissionDenied => (
            Kind::Config,
            "ports below 1024 need a privilege: choose a higher one or grant CAP_NET_BIND_SERVICE".into(),
        ),
        // At boot the network may come up later, so this is worth another try.
        std::io::ErrorKind::AddrNotAvailable => (
            Kind::Unavailable,
            "no interface of this machine has that address now: use one it has, or 0.0.0.0 for all of them".into(),
        ),
        _ => (Kind::Unavailable, "check the link value `address`".into()),
    };
    Error::new(kind, format!("cannot listen on {address} for actor {actor}: {cause}; {remedy}"))
}

async fn accept(shared: Arc<Shared>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((stream, from)) => shared.admit(stream, Source::of(from.ip())),
            Err(cause) => {
                log::warn!("a connection could not be accepted: {cause}"; actor_id = shared.link.actor_id);
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock()
    }

    fn acceptor(&self) -> MutexGuard<'_, Option<TlsAcceptor>> {
        self.acceptor.lock()
    }

    /// Takes a new connection in, if there is a place or one can be made.
    fn admit(self: &Arc<Self>, socket: TcpStream, source: Source) {
        let acceptor = self.acceptor().clone();
        let mut connections = self.connections();
        let open = connections.open.values().map(|connection| connection.source);
        let admitted = client_source::admit(self.settings.connections_max, source, open);
        if admitted.is_err_and(|full| !make_room(&mut connections, source, full)) {
            if acceptor.is_none() {
                // A fresh socket's buffer takes this much at once. A client that has sent its request already may see
                // a reset instead: waiting for it to read would give it the place it cannot have.
                let _ = rustix::io::write(&socket, FULL);
            }
            return;
        }
        let _ = socket.set_nodelay(true);
        let id = connections.next;
        connections.next += 1;
        let pace = Arc::new(Pace::default());
        let connection = Connection { source, socket: socket.clone(), pace: Arc::clone(&pace), task: None };
        connections.open.insert(id, connection);
        let shared = Arc::clone(self);
        let task = task::spawn(async move {
            let _leave = Leave { shared: &shared, id };
            serve(&shared, socket, acceptor, pace).await;
        });
        if let Some(connection) = connections.open.get_mut(&id) {
            connection.task = Some(task);
        }
        if !connections.watched {
            connections.watched = true;
            task::spawn(watch(Arc::clone(self))).detach();
        }
    }

    /// Closes connections between two requests, new ones too unless they are `welcome`; answers how many are left.
    fn close_idle(&self, welcome: bool) -> usize {
        let connections = self.connections();
        for connection in connections.open.values() {
            let ends = match connection.pace.phase() {
                Phase::Idle => true,
                Phase::Opening | Phase::Head => !welcome,
                _ => false,
            };
            if ends {
                connection.shut(Shutdown::Both);
            }
        }
        connections.open.len()
    }
}

/// Takes a connection out of the table when its task ends, however it ends.
struct Leave<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let connection = self.shared.connections().open.remove(&self.id);
        if let Some(task) = connection.and_then(|connection| connection.task) {
            task.detach();
        }
    }
}

/// Shuts the connection that has been idle longest: one of `source` where that has its share already, and otherwise one whose
/// place `source` may use. Its place is free at once; its task ends on its own.
fn make_room(connections: &mut Connections, source: Source, full: Full) -> bool {
    let idle = |connection: &Connection| connection.pace.phase() == Phase::Idle;
    let gives = |connection: &Connection| match full {
        Full::Source => connection.source == source,
        // A place kept for this machine is of no use to others.
        Full::Places => source == Source::ThisMachine || connection.source != Source::ThisMachine,
    };
    let oldest = connections
        .open
        .iter()
        .filter(|(_, connection)| idle(connection) && gives(connection))
        .min_by_key(|(_, connection)| connection.pace.since())
        .map(|(id, _)| *id);
    let Some(connection) = oldest.and_then(|id| connections.open.remove(&id)) else { return false };
    connection.shut(Shutdown::Both);
    if let Some(task) = connection.task {
        task.detach();
    }
    true
}

/// Looks after the connections of a listener while there are any.
async fn watch(shared: Arc<Shared>) {
    let interval = pace::watch_interval(&shared.settings);
    loop {
        Timer::after(interval).await;
        let mut connections = shared.connections();
        if connections.open.is_empty() {
            connections.watched = false;
            return;
        }
        let now = pace::now();
        for connection in connections.open.values() {
            match connection.pace.verdict(now, &shared.settings) {
                Verdict::Keep => {}
                Verdict::StopReading => {
                    connection.pace.stop_reading();
                    connection.shut(Shutdown::Read);
                }
                Verdict::Close => connection.shut(Shutdown::Both),
            }
        }
    }
}

/// Serves the requests of one connection until it ends.
async fn serve(shared: &Arc<Shared>, socket: TcpStream, acceptor: Option<TlsAcceptor>, pace: Arc<Pace>) {
    let mut raw = socket.clone();
    let plain = acceptor.is_none();
    let transport = match acceptor {
        None => Transport::Plain(socket),
        Some(acceptor) => match acceptor.accept(socket).await {
            Ok(stream) => Transport::Tls(Box::new(stream)),
            Err(cause) => {
                log::debug!("a TLS handshake failed: {cause}"; actor_id = shared.link.actor_id);
                return;
            }
        },
    };
    let stream = Stream::new(transport, Arc::clone(&pace));
    let answer = service_fn(|request| {
        if service::is_last(&request) {
            pace.note_last();
        }
        let response = service::answer(Arc::clone(shared), Arc::clone(&pace), request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let result = http1::Builder::new()
        .max_header_size(HEADER_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        // Bodies go out from where they are; TLS copies them anyway.
        .writev(plain)
        .serve_connection(FuturesIo::new(stream), answer)
        .await;
    let malformed = match &result {
        Ok(()) => false,
        Err(cause) => {
            log::debug!("a connection ended early: {cause}"; actor_id = shared.link.actor_id);
            cause.is_parse()
        }
    };
    if malformed || pace.lingers() {
        linger(&mut raw, &pace).await;
    }
}

/// Reads on for a moment after the last answer: closing with bytes unread would reset the connection, and the client
/// might lose the answer that told it to stop. The watch ends it.
async fn linger(socket: &mut TcpStream, pace: &Pace) {
    pace.enter(Phase::Lingering);
    let _ = socket.shutdown(Shutdown::Write);
    let mut waste = [0; 2048];
    let mut bytes = 0;
    while let Ok(read) = socket.read(&mut waste).await {
        bytes += read;
        if read == 0 || bytes > LINGER_BYTES_MAX {
            break;
        }
        future::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpStream, thread, time::Duration};

    use super::*;
    use crate::{
        capability::http_server::tests::harness::{Nobody, link, run_executor},
        log::Level,
    };

    #[test]
    fn a_listener_without_connections_has_no_watch_and_no_timer() {
        run_executor();
        let settings = Arc::new(Settings { keep_alive: Duration::from_millis(100), ..Settings::default() });
        let (options, _) = Options::from_link(&settings, &link(&[]), None).expect("the defaults");
        assert_eq!(options.log, Some(Level::Debug));
        let listener = Listener::open(Parts {
            link: Arc::new(link(&[])),
            options,
            budget: Arc::new(Budget::new(0)),
            invoke: Arc::new(Nobody),
            origin: Entity::default(),
            acceptor: None,
            socket: None,
            settings,
        })
        .expect("a free port");
        let watched = || listener.shared.connections().watched;
        assert!(!watched());
        let end = Instant::now() + Duration::from_secs(20);
        let client = TcpStream::connect(listener.bound).expect("it listens");
        while !watched() {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(1));
        }
        drop(client);
        while watched() {
            assert!(Instant::now() < end, "the watch ended with the last connection");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
