//! Downloads: `https://…#sha256=…`, and `http://` likewise, since the digest says what arrives and not the line.
//!
//! Registered by the host. Blocks on smol's pool, streams into the store in small pieces and goes on where it was cut off.
//! It never follows HTTPS down to HTTP, never sends credentials, and never sends the fragment with the digest.

use std::sync::Arc;

use crate::{
    artifact::{
        FetchRules, Live, Origin, Received, Remote, Settings, Source, Wanted,
        origin::Work,
        web::{self, Asker, Web},
    },
    error::{Error, Result},
};

/// The source of downloads.
pub struct Download {
    settings: Live,
}

impl Download {
    /// With the time-outs and roots of `settings`.
    pub fn new(settings: impl Into<Live>) -> Self {
        Self { settings: settings.into() }
    }
}

impl Origin for Download {
    fn fetch(&self, wanted: Wanted) -> Work<Result<Received>> {
        let settings = self.settings.now();
        Box::pin(smol::unblock(move || download(&settings, wanted)))
    }
}

fn download(settings: &Settings, wanted: Wanted) -> Result<Received> {
    let text = wanted.reference.text().to_owned();
    let secure = matches!(wanted.reference.source(), Source::Remote(Remote::Https));
    let address = text.split_once('#').map_or(&*text, |(address, _)| address);
    let place =
        address.split_once("://").map_or(address, |(_, rest)| rest).split(['/', '?']).next().unwrap_or_default();
    if place.contains('@') {
        return Err(Error::invalid("its address contains a login, which downloads do not send; use a registry"));
    }
    let rules = Arc::new(FetchRules::new(wanted.requester, settings));
    let web = Web::new(settings, secure, wanted.deadline, rules)?;
    let asker = Asker { who: place, what: "it", login_remedy: "downloads send no login; use a registry" };
    web::fetch(|headers| web.get(address, headers), &asker, wanted)
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
        store::{self, Digest, RealDisk, Store},
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
            Store::open(store::Settings::default(), Arc::new(RealDisk::new(directory.path().to_owned()))).unwrap();
        let artifacts = Artifacts::new(store, Settings { attempts: 1, ..Settings::default() });
        artifacts.register(Remote::Http, Arc::new(Download::new(Settings::default())));
        let reference = Reference::parse(&format!("http://{place}/a.wasm#sha256={digest}")).unwrap();
        let fetched =
            smol::block_on(artifacts.fetch(&reference, crate::artifact::Requester::Operator, "an actor", LIMIT));
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
