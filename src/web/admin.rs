//! The server of the admin API: accepts connections on the admin socket and bounds each in time, memory and number.
//!
//! Started by the command that runs a host. Each connection carries one request, so that a client's share of the host
//! ends with its answer. It never waits for a client while holding anything of the host, and never serves a process that the
//! host runs itself.

use std::{
    convert::Infallible,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::Either;
use hyper::{server::conn::http1, service::service_fn};
use smol::{
    Async, Task, Timer,
    channel::{Receiver, Sender},
    future,
};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::{accept, answer::status_of, artifacts, peer, routes, socket::SocketFile};
use crate::{
    error::{Context, Error, Kind, Result},
    host::Control,
    log, task,
};

/// Connections served at once. A person and a few scripts need two or three; each one more may hold a body of the full
/// size. Above it a client is told so and hung up on.
pub const MAX_CONNECTIONS: usize = 16;

/// Connections beyond [`MAX_CONNECTIONS`] that are still told why they are refused. Above them they are just closed.
const MAX_REFUSALS: usize = 16;

/// Longest time for a request's head to arrive, from the moment the connection is accepted, unless set. Local clients
/// need a millisecond; who needs longer is hung up on.
pub const DEFAULT_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a request's body to arrive once its head has, unless set. The largest body passes a local socket in
/// milliseconds; a client that is slower than this hangs, and is told so.
pub const DEFAULT_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for a client to take its answer, unless set. A client that stops reading is hung up on.
pub const DEFAULT_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest request head, bytes: path and a handful of headers. Also the smallest buffer hyper allows.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// Most headers in a request; curl sends three.
pub const MAX_HEADERS: usize = 32;

/// How long [`Admin::stop`] waits for answers on their way, the one to `stop` itself among them.
const DRAIN: Duration = Duration::from_secs(1);

/// Largest payload of a call, unless set: what the lattice sends unchunked.
pub const DEFAULT_BODY_LIMIT_BYTES: usize = 1024 * 1024;

/// Time a call may take if the client names none: the lattice's own default (`protocol/config.md §2`).
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// What the admin API needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the socket is; see [`super::socket::default_path`].
    pub socket: PathBuf,
    /// Largest payload of a call, bytes.
    pub body_limit_bytes: usize,
    /// Time a call may take if the client names none.
    pub call_timeout: Duration,
    /// Longest time for a request's head to arrive.
    pub head_timeout: Duration,
    /// Longest time for a request's body to arrive after its head.
    pub body_timeout: Duration,
    /// Longest time for a client to take its answer.
    pub answer_timeout: Duration,
}

impl Settings {
    /// The defaults, with the socket at `socket`.
    pub fn at(socket: PathBuf) -> Self {
        Self {
            socket,
            body_limit_bytes: DEFAULT_BODY_LIMIT_BYTES,
            call_timeout: DEFAULT_CALL_TIMEOUT,
            head_timeout: DEFAULT_HEAD_TIMEOUT,
            body_timeout: DEFAULT_BODY_TIMEOUT,
            answer_timeout: DEFAULT_ANSWER_TIMEOUT,
        }
    }
}

/// The running admin API. Dropping it removes the socket; answers on their way still go out.
#[derive(Debug)]
pub struct Admin {
    accepting: Task<()>,
    /// Ends when the last connection did.
    ended: Receiver<Infallible>,
    socket: SocketFile,
}

/// What every connection shares.
struct Shared {
    control: Arc<dyn Control>,
    settings: Settings,
    own_user: u32,
}

impl Admin {
    /// Takes the socket and serves `control` on it.
    ///
    /// # Errors
    /// As [`SocketFile::bind`].
    pub async fn start(settings: Settings, control: Arc<dyn Control>) -> Result<Self> {
        let path = settings.socket.clone();
        let (listener, socket) = smol::unblock(move || SocketFile::bind(&path)).await?;
        let listener = Async::new(listener).context(Kind::Unavailable, "cannot watch the admin socket")?;
        let own_user = rustix::process::geteuid().as_raw();
        let shared = Arc::new(Shared { control, settings, own_user });
        let (alive, ended) = smol::channel::bounded(1);
        Ok(Self { accepting: task::spawn(accept(listener, shared, alive)), ended, socket })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.socket.path()
    }

    /// Accepts nobody any more, lets answers on their way out (for a second at most) and removes the socket.
    pub async fn stop(self) {
        let Self { accepting, ended, socket } = self;
        accepting.cancel().await;
        // The channel carries nothing: receiving ends when every sender, one per connection, is gone.
        let _ = task::within(DRAIN, ended.recv()).await;
        smol::unblock(move || drop(socket)).await;
    }
}

async fn accept(listener: Async<UnixListener>, shared: Arc<Shared>, alive: Sender<Infallible>) {
    let next = || async { listener.accept().await.map(|(stream, _)| stream) };
    accept::for_ever("the admin socket", MAX_CONNECTIONS + MAX_REFUSALS, next, |stream: Async<UnixStream>, place| {
        let (shared, alive) = (shared.clone(), alive.clone());
        async move {
            let refusal = match refusal(&stream, shared.own_user, place.number()) {
                None => refusal_of_process(&stream, &shared).await,
                refused => refused,
            };
            connection(stream, &shared, refusal).await;
            drop((place, alive));
        }
    })
    .await;
}

/// Why this connection's request is answered with an error whatever it asks, if so.
/// `own` is the user this host runs as, `number` how many connections were open when it came.
fn refusal(stream: &Async<UnixStream>, own: u32, number: usize) -> Option<Error> {
    match peer::of(stream.get_ref()) {
        Err(cause) => return Some(Error::denied(format!("cannot tell who you are: {cause}"))),
        Ok(peer) if !peer::may_manage(peer.user_id, own) => {
            log::warn!("refused user id {} on the admin socket: only user id {own} and root may use it", peer.user_id);
            return Some(Error::denied(format!(
                "user id {} may not manage this host; only user id {own}, which it runs as, and root may",
                peer.user_id
            )));
        }
        Ok(_) => {}
    }
    (number >= MAX_CONNECTIONS).then(|| {
        Error::unavailable(format!("all {MAX_CONNECTIONS} connections of the admin API are in use; try again shortly"))
    })
}

/// Why the process at the other end may not manage this host although its user may, if so: providers run as the host's user.
async fn refusal_of_process(stream: &Async<UnixStream>, shared: &Shared) -> Option<Error> {
    let peer = peer::of(stream.get_ref()).ok()?;
    // A provider never becomes another user. And it is in the host's PID namespace or one below, where the kernel tells its
    // number: whoever has none is outside.
    let process_id = peer.process_id.filter(|_| peer.user_id == shared.own_user)?;
    let error = shared.control.check_manager(process_id).await.err()?;
    log::warn!("refused on the admin socket: {error}");
    Some(error)
}

/// Serves one request, to its end or until the client has used up its time.
async fn connection(stream: Async<UnixStream>, shared: &Shared, refusal: Option<Error>) {
    let (answered, answer_made) = smol::channel::bounded(1);
    let progress = Arc::new(AtomicU64::new(0));
    let service = service_fn(|request| {
        let (refusal, answered, progress) = (&refusal, &answered, &progress);
        async move {
            let (control, settings) = (&*shared.control, &shared.settings);
            let response = match refusal {
                Some(error) => routes::error(status_of(error.kind()), error).map(Either::Left),
                None if artifacts::is_ours(request.uri().path()) => {
                    artifacts::answer(request, control, settings, progress).await
                }
                None => routes::answer(request, control, settings).await.map(Either::Left),
            };
            // Full only if it was sent before, which one request a connection rules out.
            let _ = answered.try_send(());
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(shared.settings.head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(FuturesIo::new(stream), service);
    let finished = async {
        // A client that breaks off or speaks no HTTP has had its answer from hyper; nobody here can do more.
        let _ = served.await;
    };
    let too_slow = async {
        let _ = answer_made.recv().await;
        // A long answer counts as taken as long as it goes on.
        let mut seen = u64::MAX;
        while seen != progress.load(Relaxed) {
            seen = progress.load(Relaxed);
            Timer::after(shared.settings.answer_timeout).await;
        }
    };
    future::or(finished, too_slow).await;
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    /// The decision for a real peer that is neither root nor the host's user. Root cannot be refused, so a test that
    /// runs as root becomes another user for the connection.
    #[test]
    fn a_stranger_is_refused_even_where_the_file_lets_him_in() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("open.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        let own = rustix::process::geteuid().as_raw();
        let (stranger, host_user) = if own == 0 { (65534, 0) } else { (own, own + 1) };
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).expect("chmod");
        let mut client = match own {
            0 => Command::new("setpriv")
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent", "--max-time", "5"])
                .arg("--unix-socket")
                .arg(&path)
                .arg("http://localhost/v1/status")
                .spawn()
                .expect("setpriv and curl are installed"),
            _ => Command::new("curl")
                .args(["--silent", "--max-time", "5", "--unix-socket"])
                .arg(&path)
                .arg("http://localhost/v1/status")
                .spawn()
                .expect("curl is installed"),
        };
        let (mut stream, _) = listener.accept().expect("the client connects");
        assert_ne!(stream.read(&mut [0; 1]).expect("it asks"), 0);
        let stream = Async::new(stream).expect("watched");
        let error = refusal(&stream, host_user, 0).expect("refused");
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.text().contains(&format!("user id {stranger} may not")), "{error}");
        client.kill().expect("killed");
        client.wait().expect("reaped");
    }

    #[test]
    fn the_same_user_is_served_until_the_places_are_taken() {
        let (stream, _other) = UnixStream::pair().expect("pair");
        let stream = Async::new(stream).expect("watched");
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(refusal(&stream, own, MAX_CONNECTIONS - 1), None);
        let error = refusal(&stream, own, MAX_CONNECTIONS).expect("one too many");
        assert_eq!(error.kind(), Kind::Unavailable);
    }
}
