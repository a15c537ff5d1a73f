//! Where the client library connects to: one listener on the loopback address, for the library of this process alone.
//!
//! For each connection of the library one server is dialled, the next of the pool; the library's own back-off decides when. If
//! that fails, the library's connection is closed at once and the reason kept for whoever tells it.

use std::{
    net::{SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{
    Target, Tls,
    dial::{self, Manner, Reached},
    flow::Flow,
    info::Info,
    loopback, peer,
    pool::Pool,
    relay::{Down, End, LeftOut, Relay, Up},
};
use crate::{
    error::{Context, Error, Kind, Result},
    lock::Mutex,
    log,
};

/// How long a connection must have lasted for the server's earlier faults to be forgotten.
const STEADY: Duration = Duration::from_secs(60);

/// How long the two sides may take to part.
const PARTING: Duration = Duration::from_secs(1);

/// Wait after a connection that could not be taken: descriptors are short then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two log lines about messages that were left out, for each kind. Whoever sends them could fill the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Longest part of a subject in a log line, bytes.
const SHOWN_SUBJECT_BYTES: usize = 80;

/// Whom to speak to, and how.
pub struct Settings {
    /// Names the connection in the log.
    pub purpose: &'static str,
    /// At least one.
    pub servers: Vec<Target>,
    /// Whether other servers that one of them tells of are tried too.
    pub discover: bool,
    /// How the line is kept private.
    pub tls: Tls,
    /// How long one address may take, TLS included, and then the login.
    pub connect: Duration,
    /// How long a silent line may look alive.
    pub silence: Duration,
}

/// A guard; it ends when this is dropped, its connections with the library's.
pub struct Guard {
    address: SocketAddrV4,
    watched: Arc<Watched>,
    accepting: tokio::task::JoinHandle<()>,
}

/// What all connections of a guard share.
pub(super) struct Watched {
    purpose: &'static str,
    pool: Pool,
    discover: bool,
    manner: Manner,
    /// Whether the newest connection to a server has TLS.
    encrypted: AtomicBool,
    flow: Arc<Flow>,
    pub left_out: LeftOut,
    told: Mutex<Vec<(&'static str, Instant)>>,
    /// The server of the last attempt, and why that failed.
    last: Mutex<(Option<Target>, Option<String>)>,
    /// Connections in a row that ended because the server broke the protocol.
    violations: AtomicUsize,
    /// Who waits until all that the library wrote is with the system.
    flushes: Mutex<Vec<smol::channel::Sender<()>>>,
    waiting_flushes: AtomicUsize,
    waker: AtomicWaker,
}

impl Guard {
    /// Begins to listen. To be called inside the runtime of the main thread.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: nothing can listen on the loopback address.
    pub async fn open(settings: Settings) -> Result<Self> {
        let refused = "cannot listen on 127.0.0.1, where the NATS client of this process connects to: the loopback \
                       interface must be up and this process may open sockets";
        let listener = loopback::listen().await.context(Kind::Unavailable, refused)?;
        let SocketAddr::V4(address) = listener.local_addr().context(Kind::Unavailable, refused)? else {
            return Err(Error::internal("a socket bound to an IPv4 address has another"));
        };
        let Settings { purpose, servers, discover, tls, connect, silence } = settings;
        let watched = Arc::new(Watched {
            purpose,
            pool: Pool::new(servers),
            discover,
            manner: Manner { tls, patience: connect, silence },
            encrypted: AtomicBool::new(false),
            flow: Arc::default(),
            left_out: LeftOut::default(),
            told: Mutex::default(),
            last: Mutex::default(),
            violations: AtomicUsize::new(0),
            flushes: Mutex::default(),
            waiting_flushes: AtomicUsize::new(0),
            waker: AtomicWaker::new(),
        });
        let accepting = tokio::spawn(accept_for_ever(listener, address, watched.clone()));
        Ok(Self { address, watched, accepting })
    }

    /// Where the library connects to.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// How long an attempt may take before the library hears how it went.
    pub fn longest_attempt(&self) -> Duration {
        let patience = self.watched.manner.patience;
        dial::longest(patience) + patience * 2
    }

    /// The counts of what waits for its readers.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.watched.flow
    }

    /// Why the last attempt or connection failed, if the guard knows, and with which server. Each reason is told once.
    pub fn take_failure(&self) -> (Option<Target>, Option<String>) {
        let mut last = self.watched.last.lock();
        (last.0.clone(), last.1.take())
    }

    /// Whether the newest connection to a server has TLS.
    pub fn is_encrypted(&self) -> bool {
        self.watched.encrypted.load(Relaxed)
    }

    /// Connections in a row that ended because the server broke the protocol.
    pub fn violations(&self) -> usize {
        self.watched.violations.load(Relaxed)
    }

    /// Waits until all that the library wrote so far is with the system; ends early when a connection ends.
    pub async fn flush(&self) {
        let (done, flushed) = smol::channel::bounded(1);
        self.watched.flushes.lock().push(done);
        self.watched.waiting_flushes.fetch_add(1, Relaxed);
        self.watched.waker.wake();
        let _ = flushed.recv().await;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Watched {
    /// Wakes `waker` when something is to be looked at beside the sockets.
    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Says that nothing of `library` is on its way to the server, unless its socket holds something.
    pub fn flushed(&self, library: &TcpStream) {
        if self.waiting_flushes.load(Relaxed) > 0 && matches!(rustix::io::ioctl_fionread(library), Ok(0)) {
            self.end_flushes();
        }
    }

    fn end_flushes(&self) {
        let mut flushes = self.flushes.lock();
        self.waiting_flushes.store(0, Relaxed);
        // Each waits for an end of this channel and not for a word.
        flushes.clear();
    }

    /// Notes what the server tells of others.
    pub fn learn(&self, info: &Info) {
        if let Some(teller) = &self.last.lock().0.as_ref().filter(|_| self.discover) {
            self.pool.learn(&info.connect_urls, teller);
        }
    }

    /// Logs that a message on `subject` was left out as `what` says, but not for each.
    pub fn tell(&self, what: &'static str, subject: &[u8], why: &'static str) {
        let now = Instant::now();
        {
            let mut told = self.told.lock();
            match told.iter_mut().find(|(kind, _)| *kind == why) {
                Some((_, last)) if now - *last < TELL_EVERY => return,
                Some((_, last)) => *last = now,
                None => told.push((why, now)),
            }
        }
        let subject = String::from_utf8_lossy(&subject[..subject.len().min(SHOWN_SUBJECT_BYTES)]).into_owned();
        let LeftOut { headers, unfit, no_room } = &self.left_out;
        log::warn!(
            "a message from NATS for {} {what}: {why} ({} so far without headers, {} not fit to be passed on, {} without \
             room)",
            self.purpose,
            headers.load(Relaxed),
            unfit.load(Relaxed),
            no_room.load(Relaxed);
            subject = subject
        );
    }

    fn failed(&self, target: Option<&Target>, why: String) {
        let mut last = self.last.lock();
        if let Some(target) = target {
            self.pool.tried(target, false);
            last.0 = Some(target.clone());
        }
        last.1 = Some(why);
    }
}

async fn accept_for_ever(listener: TcpListener, address: SocketAddrV4, watched: Arc<Watched>) {
    loop {
        let (library, peer) = match listener.accept().await {
            Ok((library, SocketAddr::V4(peer))) => (library, peer),
            Ok((_, SocketAddr::V6(_))) => continue,
            Err(cause) => {
                watched.failed(None, format!("this process cannot take its own NATS client's connection: {cause}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Not on the runtime's one blocking thread, where a host name may be waited for.
        match smol::unblock(move || peer::is_ours(peer, address)).await {
            Ok(true) => drop(tokio::spawn(serve(library, watched.clone()))),
            Ok(false) => log::debug!("a connection of another program to the NATS client's port was closed"),
            Err(cause) => watched.failed(
                None,
                format!("cannot tell whether a connection is this process's own: /proc must be readable ({cause})"),
            ),
        }
    }
}

/// Serves one connection of the library, from the choice of a server to its end.
async fn serve(mut library: TcpStream, watched: Arc<Watched>) {
    let draw = getrandom::u32().unwrap_or_default() as usize;
    let Some(target) = watched.pool.next(draw) else { return };
    *watched.last.lock() = (Some(target.clone()), None);
    let Reached { line, info, rest } = match dial::reach(&target, &watched.manner).await {
        Ok(reached) => reached,
        Err(why) => return watched.failed(Some(&target), why),
    };
    let Tls { required, first, .. } = watched.manner.tls;
    watched.encrypted.store(required || first || target.tls || info.tls_required, Relaxed);
    watched.learn(&info);
    let told = library.set_nodelay(true).is_ok() && library.write_all(&info.line()).await.is_ok();
    if !told {
        return;
    }
    let began = Instant::now();
    let relay = Relay {
        library,
        server: line,
        flow: watched.flow.clone(),
        watched: &watched,
        login: Some(Box::pin(sleep(watched.manner.patience))),
        up: Up::new(),
        down: Down::new(&rest),
    };
    let (end, mut relay) = relay.run().await;
    let (logged_in, refused) = (relay.down.logged_in, relay.down.refused);
    if began.elapsed() > STEADY {
        watched.violations.store(0, Relaxed);
    }
    let orderly = match end {
        End::Library => {
            let _ = timeout(PARTING, relay.server.shutdown()).await;
            false
        }
        // The library reads to the end, so that what was counted is handed over.
        _ => part(&mut relay).await,
    };
    if !orderly {
        watched.flow.forget();
    }
    let why = match end {
        End::Violation(violation) => {
            watched.violations.fetch_add(1, Relaxed);
            Some(violation.to_string())
        }
        End::Login => Some(format!("it did not take the login within {} ms", watched.manner.patience.as_millis())),
        End::Server(cause) if !logged_in && !refused => {
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Some(format!("it closed the connection before it took the login{cause}"))
        }
        End::Server(_) | End::Library => None,
    };
    match why {
        Some(why) => watched.failed(Some(&target), why),
        None => watched.pool.tried(&target, logged_in),
    }
    watched.end_flushes();
}

/// Hands the library what is left and waits until it has closed its side. Answers whether it took everything.
async fn part(relay: &mut Relay<'_>) -> bool {
    let parting = async {
        if relay.write_rest().await.is_err() || relay.library.shutdown().await.is_err() {
            return false;
        }
        // What it still says goes nowhere.
        let mut lost = [0; 1024];
        loop {
            let mut room = tokio::io::ReadBuf::new(&mut lost);
            let read =
                std::future::poll_fn(|context| std::pin::Pin::new(&mut relay.library).poll_read(context, &mut room));
            if read.await.is_err() || room.filled().is_empty() {
                return true;
            }
        }
    };
    timeout(PARTING, parting).await.unwrap_or(false)
}
