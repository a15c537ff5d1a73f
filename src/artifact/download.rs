//! Downloads: `https://…#sha256=…`, and `http://` likewise, since the digest says what arrives and not the line.
//!
//! Registered by the host. Blocks on smol's pool, streams into the store in pieces of [`PIECE_BYTES`]. It never follows
//! HTTPS down to HTTP, never sends credentials, and never sends the fragment with the digest.

use std::{future::Future, io::Read, pin::Pin, sync::Arc, time::Duration};

use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{
    artifact::{Origin, Received, Remote, Source, Wanted},
    error::{Error, Result},
};

/// How much is read at once, bytes: enough that system calls do not count, little beside the guest's memory.
const PIECE_BYTES: usize = 16 << 10;

/// How long a connection may take to come about, address look-up included.
const CONNECT: Duration = Duration::from_secs(20);

/// How long the server may think before its answer begins.
const ANSWER: Duration = Duration::from_secs(30);

/// How long all of it may take. 64 MiB at 64 KB/s are 17 minutes.
const TOTAL: Duration = Duration::from_secs(30 * 60);

/// Redirects that are followed. Servers send one or two on to their storage; more are a loop.
const MAX_REDIRECTS: u32 = 5;

/// The source of downloads.
pub struct Download;

impl Origin for Download {
    fn fetch(&self, wanted: Wanted) -> Pin<Box<dyn Future<Output = Result<Received>> + Send>> {
        Box::pin(smol::unblock(move || download(wanted)))
    }
}

fn download(mut wanted: Wanted) -> Result<Received> {
    let text = wanted.reference.text();
    let secure = matches!(wanted.reference.source(), Source::Remote(Remote::Https));
    let address = text.split_once('#').map_or(text, |(address, _)| address);
    let place = address.split_once("://").map_or(address, |(_, rest)| rest).split(['/', '?']).next();
    if place.is_some_and(|place| place.contains('@')) {
        return Err(Error::invalid("its address contains a login, which downloads do not send; use a registry"));
    }
    let answer = agent(secure).get(address).call().map_err(|cause| translate(&cause))?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(refused(status));
    }
    let mut body = answer.into_body();
    let announced = body.content_length();
    if let Some(bytes) = announced.filter(|bytes| *bytes > wanted.into.limit()) {
        return Err(Error::limit(format!("it has {bytes} bytes, more than the {} allowed", wanted.into.limit())));
    }
    let mut reader = body.as_reader();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = reader.read(&mut piece).map_err(|cause| {
            Error::unavailable(format!("the download broke off after {} bytes: {cause}", wanted.into.received()))
        })?;
        if length == 0 {
            break;
        }
        wanted.into.write(&piece[..length])?;
    }
    if let Some(bytes) = announced.filter(|bytes| *bytes != wanted.into.received()) {
        return Err(Error::unavailable(format!(
            "the download ended after {} of {bytes} bytes",
            wanted.into.received()
        )));
    }
    Ok(Received::Content(wanted.into, None))
}

/// One for each download: they are rare, and certificates may have been replaced since the one before.
fn agent(secure: bool) -> Agent {
    let mut config = Agent::config_builder()
        .https_only(secure)
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(ANSWER))
        .timeout_global(Some(TOTAL))
        .user_agent(concat!("latticed/", env!("CARGO_PKG_VERSION")));
    // A plain download may be sent on to HTTPS, so the certificates are needed in both cases.
    let roots = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    config = config.tls_config(
        TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::from(roots.into_iter()))
            .build(),
    );
    config.build().into()
}

fn refused(status: u16) -> Error {
    match status {
        404 | 410 => Error::not_found(format!("the server answered {status}: it is not there; check the address")),
        401 | 403 => Error::denied(format!(
            "the server answered {status}: it wants a login, which downloads do not send; use a registry"
        )),
        408 | 425 | 429 | 500..=599 => {
            Error::unavailable(format!("the server answered {status}: it cannot serve now; try again later"))
        }
        _ => Error::invalid(format!("the server answered {status} instead of 200; check the address")),
    }
}

fn translate(cause: &ureq::Error) -> Error {
    match cause {
        ureq::Error::Timeout(what) => Error::timeout(format!("no answer in time ({what}); is the network there?")),
        ureq::Error::TooManyRedirects => {
            Error::invalid(format!("more than {MAX_REDIRECTS} redirects; check the address"))
        }
        ureq::Error::RequireHttpsOnly(to) => Error::denied(format!("it is sent on to {to}, away from HTTPS")),
        ureq::Error::BadUri(cause) => Error::invalid(format!("the address is malformed: {cause}")),
        cause => Error::unavailable(format!("cannot reach the server: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::{
        artifact::{Artifacts, Limit, Reference},
        error::Kind,
        store::{Digest, RealDisk, Settings, Store},
    };

    const LIMIT: Limit = Limit { bytes: 1 << 20, setting: "WASMCLOUD_TEST_LIMIT" };

    /// Fetches from a server that gives one answer, `head` and `body` as they are.
    fn fetch(head: &str, body: &[u8], digest: Digest) -> Result<Vec<u8>> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let answer = [format!("HTTP/1.1 {head}\r\nconnection: close\r\n\r\n").as_bytes(), body].concat();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            // The client hangs up early when it refuses the answer.
            let _ = stream.write_all(&answer);
            first
        });
        let directory = tempfile::tempdir().unwrap();
        let (store, _) =
            Store::open(Settings::default(), Arc::new(RealDisk::new(directory.path().to_owned()))).unwrap();
        let artifacts = Artifacts::new(store);
        artifacts.register(Remote::Http, Arc::new(Download));
        let reference = Reference::parse(&format!("http://{place}/a.wasm#sha256={digest}")).unwrap();
        let fetched = smol::block_on(artifacts.fetch(&reference, "an actor", LIMIT));
        assert_eq!(server.join().unwrap(), "GET /a.wasm HTTP/1.1", "the digest stays here");
        fetched.map(|fetched| fetched.bytes)
    }

    #[test]
    fn a_download_is_streamed_and_checked() {
        let body = vec![7; 100_000];
        let digest = Digest::of(&body);
        assert_eq!(fetch("200 OK\r\ncontent-length: 100000", &body, digest).unwrap(), body);
        assert_eq!(fetch("200 OK", &body, digest).unwrap(), body);
        let kind = |head: &str, body: &[u8]| fetch(head, body, digest).unwrap_err().kind();
        assert_eq!(kind("200 OK\r\ncontent-length: 100000", &body[1..]), Kind::Unavailable, "cut");
        assert_eq!(kind("200 OK", &body[1..]), Kind::Invalid, "wrong digest");
        assert_eq!(kind("200 OK\r\ncontent-length: 9999999", b""), Kind::Limit, "announced too large");
        assert_eq!(kind("200 OK", &vec![0; (1 << 20) + 1]), Kind::Limit, "endless");
        assert_eq!(kind("404 Not Found\r\ncontent-length: 0", b""), Kind::NotFound);
        assert_eq!(kind("403 Forbidden\r\ncontent-length: 0", b""), Kind::Denied);
        assert_eq!(kind("503 Service Unavailable\r\ncontent-length: 0", b""), Kind::Unavailable);
    }
}
