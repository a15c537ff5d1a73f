//! The listening socket of the mirror, and what bounds each connection in time, memory and number.
//!
//! One request a connection: boards come once a minute at most, and a client's share ends with its answer. It never waits
//! for a client while holding anything but that client's place.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_rustls::TlsAcceptor;
use hyper::{server::conn::http1, service::service_fn};
use smol::{
    Async, Task, Timer, future,
    io::{AsyncRead, AsyncWrite},
};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::{Token, answer::Shelf};
use crate::{
    artifact::Artifacts,
    certificate,
    client_source::Source,
    error::Result,
    lock::{Mutex, RwLock},
    log, task,
    web::{accept, listen::Listening},
};

/// How errors name where to listen.
const LISTEN: &str = "WASMCLOUD_MIRROR_LISTEN";

/// Connections served at once. A fleet comes in waves of a few dozen; each takes a file descriptor, about 64 KiB here and
/// [`SEND_BUFFER_BYTES`] in the kernel. One more is told to come again.
const MAX_CONNECTIONS: usize = 64;

/// Of these, for one source, see [`Source`]: a client that opens many gets no more than a quarter, and the others still get theirs.
const MAX_CONNECTIONS_OF_ONE: usize = 16;

/// Connections beyond that are still told so. Above them they are just closed.
const MAX_REFUSALS: usize = 64;

/// Longest time for a TLS handshake, and again for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request head, bytes: a path, a token, a few headers. Also the smallest buffer hyper allows.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most headers in a request; curl sends three, a board six.
const MAX_HEADERS: usize = 32;

/// How long an answer may make no progress. A piece of 32 KiB in that time is 270 bytes a second; who is slower, or stopped
/// reading, is hung up on and may go on with a range.
const STALL: Duration = Duration::from_secs(120);

/// What the kernel holds for one connection, bytes: enough for a LAN, and little enough that a stalled reader is noticed.
const SEND_BUFFER_BYTES: usize = 128 << 10;

/// What a newcomer reads when every place is taken.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 5\r\n\
connection: close\r\ncontent-length: 21\r\n\r\ntoo many connections\n";

/// Where and how the mirror serves.
#[derive(Clone)]
pub struct Settings {
    /// Address and port.
    pub listen: SocketAddr,
    /// Certificate and key, PEM files; plain HTTP without.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What a client must show, if anything.
    pub token: Option<Token>,
}

/// A running mirror; dropping it closes the socket.
pub struct Mirror {
    task: Task<()>,
    shelf: Arc<Shelf>,
    acceptor: Arc<Acceptor>,
}

/// Speaks TLS, or not, as the settings last said.
type Acceptor = RwLock<Option<TlsAcceptor>>;

/// What of the settings can follow while the socket stays open, found usable.
pub struct Renewal {
    token: Option<Token>,
    acceptor: Option<TlsAcceptor>,
}

impl Renewal {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// `Config` or `Denied` for a certificate that cannot be used.
    pub async fn read(tls: Option<(PathBuf, PathBuf)>, token: Option<Token>) -> Result<Self> {
        let acceptor = match tls {
            Some((certificate, key)) => Some(
                smol::unblock(move || {
                    certificate::acceptor(
                        (&certificate, "WASMCLOUD_MIRROR_TLS_CERT_FILE"),
                        (&key, "WASMCLOUD_MIRROR_TLS_KEY_FILE"),
                    )
                })
                .await?,
            ),
            None => None,
        };
        Ok(Self { token, acceptor })
    }
}

impl Mirror {
    /// Opens the socket and serves what of `artifacts` is for others. An address that cannot be had yet is tried again
    /// until it can.
    ///
    /// # Errors
    /// `Config` when the address can never be had; `Config` or `Denied` for a certificate that cannot be used.
    pub async fn start(settings: Settings, artifacts: Arc<Artifacts>) -> Result<Self> {
        let Renewal { token, acceptor } = Renewal::read(settings.tls, settings.token).await?;
        let acceptor = Arc::new(RwLock::new(acceptor));
        let shelf = Arc::new(Shelf::new(artifacts, token));
        let listen = settings.listen;
        let listening = Listening::at(LISTEN, listen)?;
        let (serving, speaking) = (shelf.clone(), acceptor.clone());
        let task = task::spawn(async move {
            let listener = listening.open().await;
            let scheme = if current(&speaking).is_some() { "https" } else { "http" };
            // After the kernel chose a port, where it may.
            let place = listener.get_ref().local_addr().unwrap_or(listen);
            log::info!("the mirror serves this board's artifacts on {scheme}://{place}");
            accept(listener, serving, speaking).await;
        });
        Ok(Self { task, shelf, acceptor })
    }

    /// Whoever connects from now on meets this certificate, and must show this token.
    pub fn renew(&self, renewal: Renewal) {
        self.shelf.want(renewal.token);
        *self.acceptor.write() = renewal.acceptor;
    }

    /// Accepts nobody any more. Answers on their way still go out while the process lives.
    pub async fn stop(self) {
        self.task.cancel().await;
    }
}

fn current(acceptor: &Acceptor) -> Option<TlsAcceptor> {
    acceptor.read().clone()
}

/// How many connections each source has.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<HashMap<Source, usize>>>);

impl Clients {
    /// A place for one more connection of `address`, unless it has its share already.
    fn admit(&self, address: Source) -> Option<Admitted> {
        let mut clients = self.0.lock();
        let count = clients.entry(address).or_default();
        if *count >= MAX_CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Admitted { clients: self.clone(), address })
    }
}

struct Admitted {
    clients: Clients,
    address: Source,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut clients = self.clients.0.lock();
        if let Some(count) = clients.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.address);
            }
        }
    }
}

async fn accept(listener: Async<StdListener>, shelf: Arc<Shelf>, acceptor: Arc<Acceptor>) {
    let clients = Clients::default();
    let next = || listener.accept();
    accept::for_ever("the mirror", MAX_CONNECTIONS + MAX_REFUSALS, next, |(stream, address), place| {
        let (shelf, acceptor) = (shelf.clone(), current(&acceptor));
        let admitted =
            if place.number() < MAX_CONNECTIONS { clients.admit(Source::by_address(address.ip())) } else { None };
        async move {
            match admitted {
                Some(_admitted) => connection(stream, &shelf, acceptor).await,
                None => refuse(&stream, acceptor.is_some()).await,
            }
            drop(place);
        }
    })
    .await;
}

/// Tells a client that there is no room, where that can be said without a handshake.
async fn refuse(stream: &Async<StdStream>, tls: bool) {
    if !tls {
        // A fresh socket's buffer takes this much at once. Closing with the request unread would reset the connection
        // and take the answer back, so what has come is read first.
        let _ = rustix::io::read(stream, &mut [0; 2048]);
        let _ = rustix::io::write(stream, FULL);
    }
}

async fn connection(stream: Async<StdStream>, shelf: &Shelf, acceptor: Option<TlsAcceptor>) {
    // Without it a stalled reader is noticed later; nothing else changes.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES);
    let Some(acceptor) = acceptor else { return serve(stream, shelf).await };
    let greeted = task::within(HEAD_TIMEOUT, acceptor.accept(stream)).await;
    match greeted.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())) {
        Ok(stream) => serve(stream, shelf).await,
        Err(cause) => log::debug!("a TLS handshake with the mirror failed: {cause}"),
    }
}

/// Serves one request, to its end or until it makes no progress.
async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, shelf: &Shelf) {
    let progress = Arc::new(AtomicU64::new(0));
    let service = service_fn(|request| {
        let answer = shelf.answer(request, progress.clone());
        async { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(FuturesIo::new(stream), service);
    let finished = async {
        if let Err(cause) = served.await {
            log::debug!("a connection of the mirror ended early: {cause}");
        }
    };
    let stalled = async {
        let mut seen = progress.load(Relaxed);
        loop {
            Timer::after(STALL).await;
            let now = progress.load(Relaxed);
            if now == seen {
                break;
            }
            seen = now;
        }
    };
    future::or(finished, stalled).await;
}
