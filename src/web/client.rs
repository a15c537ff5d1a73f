//! The other end of the admin API: what the commands `call`, `status` and `stop` speak to a running host with.
//!
//! One request a connection, each with a deadline. It checks that the socket belongs to a user who could manage this
//! one anyway, so that nobody can pose as the host in a shared directory.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HOST,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use smol::{Async, Timer, future, net::unix::UnixStream};
use smol_hyper::rt::FuturesIo;

use super::{answer::ErrorBody, peer};
use crate::{
    error::{Context, Error, Kind, Result},
    host::HostStatus,
    task,
};

/// Longest answer taken, bytes. Far above a payload; a full status of a hundred actors and links has 100 KiB.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Time for an answer that the host gives from memory: `status` and `stop`. A healthy host takes milliseconds; a board
/// deep in swap may take seconds.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer than the call's own deadline its answer is waited for, so that the host's error comes first.
const GRACE: Duration = Duration::from_secs(2);

/// How often a host whose process cannot be watched is looked at while it stops.
const GONE_INTERVAL: Duration = Duration::from_millis(100);

/// What stays as it is in a path segment.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// A way to the host behind one admin socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

/// A host that was asked to stop.
#[derive(Debug)]
pub struct Stopping {
    path: PathBuf,
    /// The process, held so that another one with its number is not taken for it.
    process: Option<Async<rustix::fd::OwnedFd>>,
}

impl Client {
    /// A client of the host that listens at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// A client of the first host that lives at one of `paths`; sockets of dead hosts are passed over.
    ///
    /// # Errors
    /// `Unavailable` when there is none.
    pub fn find(paths: &[PathBuf]) -> Result<Self> {
        // Any other error means that somebody is there, and is told when the request is made.
        let absent =
            |cause: &io::Error| matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
        let live = |path: &&PathBuf| !std::os::unix::net::UnixStream::connect(path).is_err_and(|cause| absent(&cause));
        match paths.iter().find(live) {
            Some(path) => Ok(Self::new(path)),
            None => {
                let places: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                Err(nobody(&places.join(" or ")))
            }
        }
    }

    /// Where the host listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for the host's status.
    ///
    /// # Errors
    /// `Unavailable` when no host answers, `Timeout`, or what the host says.
    pub async fn status(&self) -> Result<HostStatus> {
        let connection = self.connect()?;
        let request = self.request(Method::GET, "/v1/status", Bytes::new())?;
        let body = exchange(connection, request, ANSWER_TIMEOUT).await?;
        serde_json::from_slice(&body).map_err(|cause| {
            Error::invalid(format!("the host's status cannot be read, perhaps it has another version: {cause}"))
        })
    }

    /// Calls `operation` of `actor`, a key or call alias, and answers with the response payload.
    ///
    /// # Errors
    /// As [`Client::status`], and whatever the call ended with.
    pub async fn call(&self, actor: &str, operation: &str, payload: Vec<u8>, timeout: Duration) -> Result<Vec<u8>> {
        let path = format!(
            "/v1/call/{}/{}?timeout_ms={}",
            utf8_percent_encode(actor, SEGMENT),
            utf8_percent_encode(operation, SEGMENT),
            timeout.as_millis()
        );
        let connection = self.connect()?;
        let request = self.request(Method::POST, &path, Bytes::from(payload))?;
        exchange(connection, request, timeout + GRACE).await.map(Vec::from)
    }

    /// Asks the host to drain and stop.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn stop(&self) -> Result<Stopping> {
        let connection = self.connect()?;
        // Taken while the host is sure to live: it answers on this very connection afterwards.
        let process = peer::of(&connection)
            .ok()
            .and_then(|peer| peer.process_id)
            .and_then(Pid::from_raw)
            .and_then(|process| pidfd_open(process, PidfdFlags::empty()).ok())
            .and_then(|process| Async::new_nonblocking(process).ok());
        let request = self.request(Method::POST, "/v1/stop", Bytes::new())?;
        exchange(connection, request, ANSWER_TIMEOUT).await?;
        Ok(Stopping { path: self.path.clone(), process })
    }

    /// Removes the accepted command `id` of the status.
    ///
    /// # Errors
    /// As [`Client::status`]; `NotFound` where there is none of that name.
    pub async fn remove_pending(&self, id: &str) -> Result<()> {
        let path = format!("/v1/pending/{}", utf8_percent_encode(id, SEGMENT));
        self.ask(Method::DELETE, &path, Vec::new(), ANSWER_TIMEOUT).await.map(drop)
    }

    /// One request and the body of its answer, within `timeout`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub(super) async fn ask(&self, method: Method, path: &str, body: Vec<u8>, timeout: Duration) -> Result<Bytes> {
        let connection = self.connect()?;
        let request = self.request(method, path, Bytes::from(body))?;
        exchange(connection, request, timeout).await
    }

    fn connect(&self) -> Result<UnixStream> {
        // A local connect does not wait: the queue has a place or it has not.
        let stream = std::os::unix::net::UnixStream::connect(&self.path)
            .and_then(|stream| {
                stream.set_nonblocking(true)?;
                Ok(stream)
            })
            .map_err(|cause| self.cannot_connect(&cause))?;
        let own = rustix::process::geteuid().as_raw();
        let peer = peer::of(&stream).context(Kind::Unavailable, "cannot tell who answers at the admin socket")?;
        if !may_trust(peer.user_id, own) {
            return Err(Error::denied(format!(
                "{} belongs to user id {}, which is neither you nor root; name the right socket with --socket",
                self.path.display(),
                peer.user_id
            )));
        }
        UnixStream::try_from(stream).context(Kind::Unavailable, "cannot watch the admin socket")
    }

    fn cannot_connect(&self, cause: &io::Error) -> Error {
        let path = self.path.display();
        match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => nobody(&path.to_string()),
            io::ErrorKind::PermissionDenied => Error::denied(format!(
                "the host at {path} runs as another user; run this command as that user or as root"
            )),
            io::ErrorKind::WouldBlock => {
                Error::unavailable(format!("the host at {path} is too busy to answer; try again shortly"))
            }
            _ => Error::unavailable(format!("cannot reach the host at {path}: {cause}")),
        }
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .body(Full::new(body))
            .map_err(|cause| Error::usage(format!("the host cannot be asked for {path}: {cause}")))
    }
}

impl Stopping {
    /// Waits until the host's process has ended, `timeout` at most.
    ///
    /// # Errors
    /// `Timeout` when it still runs then.
    pub async fn wait(self, timeout: Duration) -> Result<()> {
        let gone = async {
            match self.process {
                // A process descriptor becomes readable when its process ends.
                Some(process) => process.readable().await.context(Kind::Unavailable, "cannot watch the host's process"),
                None => {
                    while std::os::unix::net::UnixStream::connect(&self.path).is_ok() {
                        Timer::after(GONE_INTERVAL).await;
                    }
                    Ok(())
                }
            }
        };
        task::within(timeout, gone).await.unwrap_or_else(|| {
            Err(Error::timeout(format!(
                "the host at {} was asked to stop and still runs after {} s; its log says what it waits for",
                self.path.display(),
                timeout.as_secs()
            )))
        })
    }
}

/// Whether a process of user `own` may take answers from a host of `owner`. Root may ask anybody: it is root who names
/// the socket.
fn may_trust(owner: u32, own: u32) -> bool {
    owner == own || owner == 0 || own == 0
}

fn nobody(place: &str) -> Error {
    Error::unavailable(format!("no host answers at {place}: is it running? start one with `latticed run`"))
}

/// Sends one request and reads its answer, all within `timeout`.
async fn exchange(stream: UnixStream, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Bytes> {
    let broke_off = |cause: hyper::Error| {
        if cause.is_incomplete_message() || cause.is_closed() || cause.is_canceled() {
            return Error::unavailable("the host hung up without an answer; it is stopping or has ended");
        }
        Error::unavailable(format!("the conversation with the host failed: {cause}"))
    };
    let exchange = async {
        let (mut sender, connection) = http1::handshake(FuturesIo::new(stream)).await.map_err(broke_off)?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(broke_off)?;
            let status = response.status();
            read(status, response.into_body()).await
        };
        let driven = async {
            // Its error reaches the request too, with more to say; until the answer is read nothing else ends here.
            let _ = connection.await;
            future::pending().await
        };
        future::or(answer, driven).await
    };
    task::within(timeout, exchange)
        .await
        .unwrap_or_else(|| Err(Error::timeout(format!("the host did not answer within {} ms", timeout.as_millis()))))
}

async fn read(status: StatusCode, body: Incoming) -> Result<Bytes> {
    let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(cause) if cause.is::<LengthLimitError>() => {
            return Err(Error::limit(format!("the answer is larger than {MAX_ANSWER_BYTES} bytes")));
        }
        Err(cause) => return Err(Error::unavailable(format!("the host's answer broke off: {cause}"))),
    };
    if status.is_success() {
        return Ok(body);
    }
    Err(match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => body.into(),
        Err(_) => Error::invalid(format!("something that is no host answered with status {status}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_host_is_named_with_the_remedy() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join("admin.sock");
        let error = crate::task::block_on(Client::new(&path).status()).expect_err("nobody there");
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.text().contains("latticed run") && error.text().contains("admin.sock"), "{error}");

        drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
        let error = crate::task::block_on(Client::new(&path).status()).expect_err("nobody there any more");
        assert_eq!(error.kind(), Kind::Unavailable);
    }

    #[test]
    fn the_first_host_that_lives_is_used() {
        let root = tempfile::tempdir().expect("temporary directory");
        let paths = ["none", "dead", "live"].map(|name| root.path().join(name));
        drop(std::os::unix::net::UnixListener::bind(&paths[1]).expect("bind"));
        let error = Client::find(&paths).expect_err("none lives");
        assert!(error.text().contains("none or ") && error.text().contains("live"), "{error}");
        let _listener = std::os::unix::net::UnixListener::bind(&paths[2]).expect("bind");
        assert_eq!(Client::find(&paths).expect("the live one").path(), paths[2]);
    }

    #[test]
    fn a_stranger_is_not_taken_for_the_host() {
        assert!(may_trust(1000, 1000) && may_trust(0, 1000) && may_trust(1000, 0));
        assert!(!may_trust(1001, 1000));
    }

    #[test]
    fn names_travel_whole() {
        assert_eq!(utf8_percent_encode("jabba/the hut?", SEGMENT).to_string(), "jabba%2Fthe%20hut%3F");
        assert_eq!(utf8_percent_encode("Echo.Say_it-1~", SEGMENT).to_string(), "Echo.Say_it-1~");
    }
}
