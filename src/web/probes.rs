//! `/livez` and `/readyz`, for whoever watches this host from outside: HTTP/1.1 over TCP or a Unix socket, off by default.
//!
//! ```text
//! GET /livez     200 {"live":true}     503 {"live":false,"stuck":[{"name":"disk","why":"…","since_seconds":70}]}
//! GET /readyz    200 {"ready":true}    500 {"ready":false,"lacks":[{"what":"lattice","why":"…","since_seconds":9}]}
//! ```
//!
//! Paths under `/api` mean the same, as in hosts of this protocol (`protocol/config.md §2`). Each connection carries one
//! request and is bounded in number and time; a probe asks the loops of the host and changes nothing. It holds no secret
//! and takes no command.

use std::{
    convert::Infallible,
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use serde_json::json;
use smol::{
    Async, Task, future,
    io::{AsyncRead, AsyncWrite},
};
use smol_hyper::rt::{FuturesIo, SmolTimer};

use crate::{
    client_source::Source,
    error::{Error, Result},
    host::{BoxFuture, Host, Liveness, Policy, Readiness},
    log, task,
    web::{accept, listen::Listening, probe_places::Places},
};

/// The setting of the place.
const SETTING: &str = "WASMCLOUD_PROBES";

/// How long the loops get to come round before `/livez` says that they do not. Longer than any of them is busy in one
/// piece, shorter than the patience of common probers (ten seconds).
const LIVE_BOUND: Duration = Duration::from_secs(5);

/// Probes at once; a prober sends one at a time. One source gets a share of them, and some are kept for this machine
/// (`client_source`). Where there is no place for one more, the oldest connection that has asked nothing yet is hung up on.
const MAX_CONNECTIONS: usize = 16;

/// Connections that may be there at once with those that were hung up on and end in a moment. A burst of silent ones comes in
/// faster than they end, and a probe behind it must not be closed for it.
const MAX_ACCEPTED: usize = 16 * MAX_CONNECTIONS;

/// Longest time for a whole probe, its client's slowness included.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(15);

/// Longest time until a probe's whole request has come; a prober sends it at once. Whoever is silent longer is hung up on, so
/// that it does not hold the place of one that asks.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest request head, bytes; also the smallest buffer hyper allows.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Where probes are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Place {
    /// Reads `127.0.0.1:8090`, `[::1]:8081` or the path of a Unix socket.
    ///
    /// # Errors
    /// `Config`: it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) if text.starts_with('/') => Ok(Self::Unix(PathBuf::from(text))),
            Err(_) => Err(Error::config(format!(
                "{SETTING} is {text:?}: expected an address with a port such as 127.0.0.1:8090, or the full path \
                 of a Unix socket"
            ))),
        }
    }
}

/// An open listening socket.
pub enum Socket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix.
    Unix(UnixListener),
}

/// What probes ask.
pub struct Probed {
    /// The host.
    pub host: Arc<Host>,
    /// Its loops.
    pub liveness: Arc<Liveness>,
    /// What it lacks.
    pub readiness: Arc<Readiness>,
    /// When it counts as ready.
    pub policy: Policy,
}

/// Answers probes while it lives; the file of a Unix socket it made goes with it.
pub struct Probes {
    _accepting: Task<()>,
    file: Option<PathBuf>,
}

impl Probes {
    /// Listens at `place`, as soon as a TCP address can be had. Blocks shortly.
    ///
    /// # Errors
    /// The place can never be used; the text names it.
    pub fn bind(place: &Place, probed: Arc<Probed>) -> Result<Self> {
        match place {
            Place::Tcp(address) => {
                let listening = Listening::at(SETTING, *address)?;
                let accepting = task::spawn(async move { take_in(listening.open().await, probed).await });
                Ok(Self { _accepting: accepting, file: None })
            }
            Place::Unix(path) => {
                let socket = bind_unix(path).map_err(|cause| cannot(&path.display().to_string(), &cause))?;
                let mut probes = Self::serve(Socket::Unix(socket), probed)?;
                probes.file = Some(path.clone());
                Ok(probes)
            }
        }
    }

    /// Answers on a socket that was handed over.
    ///
    /// # Errors
    /// It cannot be watched.
    pub fn serve(socket: Socket, probed: Arc<Probed>) -> Result<Self> {
        let failed = |cause| cannot("a socket that was handed over", &cause);
        let accepting = match socket {
            Socket::Tcp(socket) => task::spawn(take_in(Async::new(socket).map_err(failed)?, probed)),
            Socket::Unix(socket) => {
                log::info!("probes are answered on a Unix socket, /livez and /readyz");
                let socket = Async::new(socket).map_err(failed)?;
                task::spawn(async move {
                    let next = || async { socket.accept().await.map(|(stream, _)| (stream, Source::ThisMachine)) };
                    accept::for_ever("the probes", MAX_ACCEPTED, next, serve(&probed)).await;
                })
            }
        };
        Ok(Self { _accepting: accepting, file: None })
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            // Left behind, it is stale, which the next start sees.
            let _ = fs::remove_file(path);
        }
    }
}

fn cannot(place: &str, cause: &std::io::Error) -> Error {
    Error::config(format!("{SETTING}: cannot answer probes on {place}: {cause}"))
}

/// Binds the socket file, in the place of one that nobody answers on. Everybody may connect: there is nothing to take.
fn bind_unix(path: &Path) -> std::io::Result<UnixListener> {
    let stale = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused);
    if stale {
        fs::remove_file(path)?;
    }
    let socket = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

/// Answers whoever connects to `socket`.
async fn take_in(socket: Async<TcpListener>, probed: Arc<Probed>) {
    let address = socket.get_ref().local_addr().map(|address| address.to_string()).unwrap_or_default();
    log::info!("probes are answered on http://{address}/livez and /readyz");
    let next = || async { socket.accept().await.map(|(stream, from)| (stream, Source::of(from.ip()))) };
    accept::for_ever("the probes", MAX_ACCEPTED, next, serve(&probed)).await;
}

/// How a connection is served.
///
/// One that is hung up on to make room ends in a moment; until then it counts in `accept`, which lets [`MAX_ACCEPTED`] in.
fn serve<S>(probed: &Arc<Probed>) -> impl Fn((S, Source), accept::Place) -> BoxFuture<'static, ()> + use<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (probed, places) = (probed.clone(), Places::new(MAX_CONNECTIONS));
    move |(stream, source), accepted| {
        let (probed, place) = (probed.clone(), places.take(source));
        Box::pin(async move {
            let (_accepted, Some(place)) = (accepted, place) else { return };
            let service = service_fn(|request| {
                place.asked();
                let probed = probed.clone();
                async move { Ok::<_, Infallible>(answer(&request, &probed).await) }
            });
            let connection = http1::Builder::new()
                .timer(SmolTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .keep_alive(false)
                .half_close(true)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(FuturesIo::new(stream), service);
            let served = async {
                if let Err(cause) = connection.await {
                    log::debug!("a probe ended early: {cause}");
                }
            };
            task::within(CONNECTION_PATIENCE, future::or(served, place.hung_up())).await;
        })
    }
}

async fn answer(request: &Request<Incoming>, probed: &Probed) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return respond(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "probes are asked with GET" }));
    }
    let path = request.uri().path();
    match path.strip_prefix("/api").unwrap_or(path) {
        "/livez" => {
            let stuck = probed.liveness.check(LIVE_BOUND).await;
            match stuck.is_empty() {
                true => respond(StatusCode::OK, &json!({ "live": true })),
                false => respond(StatusCode::SERVICE_UNAVAILABLE, &json!({ "live": false, "stuck": stuck })),
            }
        }
        "/readyz" => {
            let lacks = probed.readiness.lacks(&probed.host, probed.policy);
            match lacks.is_empty() {
                true => respond(StatusCode::OK, &json!({ "ready": true })),
                // The status that hosts of this protocol answer with; proxies and probers treat it as not ready.
                false => respond(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "ready": false, "lacks": lacks })),
            }
        }
        _ => respond(StatusCode::NOT_FOUND, &json!({ "error": "there are /livez and /readyz here" })),
    }
}

fn respond(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_place_is_an_address_or_a_path() {
        assert_eq!(Place::parse("127.0.0.1:8090"), Ok(Place::Tcp(([127, 0, 0, 1], 8090).into())));
        assert_eq!(Place::parse("/run/x.sock"), Ok(Place::Unix("/run/x.sock".into())));
        for wrong in ["8081", "localhost:8081", "run/x.sock", ""] {
            assert_eq!(Place::parse(wrong).expect_err(wrong).kind(), Kind::Config);
        }
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("probes.sock");
        drop(bind_unix(&path).expect("a free place"));
        let live = bind_unix(&path).expect("nobody answers there");
        assert!(bind_unix(&path).is_err(), "somebody answers there");
        drop(live);
        fs::remove_file(&path).expect("it is there");
        fs::write(&path, "precious").expect("written");
        assert!(bind_unix(&path).is_err());
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
    }
}
