//! The crates that read bytes from outside in the released program, where a panic ends the process: damaged inputs, many of them.
//!
//! Our own readers have tests like these beside them (`no_bytes_panic` and its kin), and so has what a NATS server says
//! (`src/nats`). A few thousand inputs of each crate run with the other tests. More:
//! `LATTICED_FUZZ_INPUTS=1000000 cargo test --release --test outside_bytes`.

use std::{
    io::{self, Cursor, Read},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};

/// Inputs of each kind unless set otherwise.
const INPUTS: u64 = 3000;

/// Nesting that exhausts the stack of whatever reads it by calling itself without a limit.
const DEEP: usize = 200_000;

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let draw = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let draw = (draw ^ draw >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        draw ^ draw >> 31
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }
}

/// `seed` with a few places changed, cut, doubled or filled with what parsers trip over.
fn damage(draw: &mut Draw, seed: &[u8]) -> Vec<u8> {
    const BITS: [&[u8]; 12] = [
        b"\r",
        b"\n",
        b"\0",
        b"\xff",
        b"-1",
        b"18446744073709551615",
        b"4294967296",
        b"[",
        b"{",
        b"\"",
        b":",
        b"\xed\xa0\x80",
    ];
    let mut bytes = seed.to_vec();
    for _ in 0..=draw.below(4) {
        let (at, to) = (draw.below(bytes.len() + 1), draw.below(bytes.len() + 1));
        let (from, to) = (at.min(to), at.max(to).min(at.min(to) + 64));
        match draw.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(from..to)),
            2 => {
                let part = bytes[from..to].to_vec();
                drop(bytes.splice(at..at, part));
            }
            3 => drop(bytes.splice(at..at, BITS[draw.below(BITS.len())].iter().copied())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = draw.next() as u8;
                }
            }
        }
    }
    bytes
}

/// Gives `read` each of `seeds` as it is, then damaged ones.
fn try_all(share: u64, seeds: &[&[u8]], mut read: impl FnMut(&[u8])) {
    let inputs = std::env::var("LATTICED_FUZZ_INPUTS").ok().and_then(|inputs| inputs.parse().ok()).unwrap_or(INPUTS);
    for seed in seeds {
        read(seed);
    }
    let mut draw = Draw(inputs);
    for _ in 0..inputs / share {
        let seed = seeds[draw.below(seeds.len())];
        read(&damage(&mut draw, seed));
    }
}

#[test]
fn redis_answers() {
    let seeds: [&[u8]; 7] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":1000\r\n",
        b"$5\r\nhello\r\n",
        b"*3\r\n$1\r\na\r\n:1\r\n*-1\r\n",
        b"%1\r\n+a\r\n:1\r\n",
        b"~2\r\n,1.5\r\n#t\r\n",
    ];
    try_all(1, &seeds, |bytes| drop(redis::parse_redis_value(bytes)));
    assert!(redis::parse_redis_value("*1\r\n".repeat(DEEP).as_bytes()).is_err());
    for large in ["*2147483647\r\n", "$9223372036854775807\r\n", "%9223372036854775807\r\n", "*-2\r\n"] {
        drop(redis::parse_redis_value(large.as_bytes()));
    }
}

#[test]
fn json_and_message_pack() {
    let json: &[u8] = br#"{"a":[1,-2.5e3,"x\u00e9\n",null,true],"b":{"c":{}}}"#;
    try_all(1, &[json], |bytes| drop(serde_json::from_slice::<serde_json::Value>(bytes)));
    assert!(serde_json::from_str::<serde_json::Value>(&"[".repeat(DEEP)).is_err());
    let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
    let packed = rmp_serde::to_vec_named(&value).expect("it can be packed");
    let seeds: [&[u8]; 3] = [&packed, b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"];
    try_all(1, &seeds, |bytes| drop(rmp_serde::from_slice::<serde_json::Value>(bytes)));
    // By itself that library goes 1024 deep, which is more than a thread's stack holds; every message is read by this.
    for nested in [b"\x91".repeat(DEEP), b"\x81\xa1a".repeat(DEEP)] {
        assert!(latticed::wire::codec::read::<serde_json::Value>(&nested).is_err());
    }
}

#[test]
fn manifests() {
    let seeds = [include_bytes!("quickstart/counter.yaml").as_slice(), include_bytes!("quickstart/mailbox.yaml")];
    let (here, labels) = (std::path::Path::new("/"), std::collections::BTreeMap::new());
    let read = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        drop(latticed::config::manifest::parse("m", &text, here, &labels));
    };
    try_all(4, &seeds, read);
    for deep in ["[", "{a: ", "- ", "? ", "&a [", "!!x "] {
        read(deep.repeat(100_000 / deep.len()).as_bytes());
    }
}

#[test]
fn toml() {
    let seed: &[u8] = b"a = 1\n[b.c]\nd = [1, 2, {e = \"x\"}]\n[[f]]\ng = 1979-05-27T07:32:00Z\nh = '''x'''\n";
    try_all(1, &[seed], |bytes| {
        if let Ok(text) = std::str::from_utf8(bytes) {
            drop(basic_toml::from_str::<serde_json::Value>(text));
        }
    });
}

#[test]
fn archives() {
    let mut writer = tar::Builder::new(Vec::new());
    for (name, content) in [("claims.jwt", &b"a.b.c"[..]), ("x86_64-linux.bin", &[7; 2000])] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_cksum();
        writer.append_data(&mut header, name, content).expect("it is in memory");
    }
    let plain = writer.into_inner().expect("it is in memory");
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(&plain[..], flate2::Compression::fast()).read_to_end(&mut packed).expect("in memory");
    try_all(1, &[&plain], |bytes| {
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries().into_iter().flatten().take(50) {
            let Ok(mut entry) = entry else { break };
            let _ = (entry.path().map(drop), io::copy(&mut entry, &mut io::sink()));
        }
    });
    try_all(1, &[&packed], |bytes| {
        let reader = flate2::read::GzDecoder::new(bytes);
        drop(io::copy(&mut reader.take(1 << 20), &mut io::sink()));
    });
}

#[test]
fn modules() {
    let modules = ["echo_small", "counter", "callee"].map(|name| {
        let path = format!("{}/tests/actors/built/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).expect("the guests are built")
    });
    let engine = wasmi::Engine::default();
    let seeds: Vec<&[u8]> = modules.iter().map(Vec::as_slice).collect();
    // Each takes a thousand times as long as the others' inputs.
    try_all(100, &seeds, |bytes| drop(wasmi::Module::new(&engine, bytes)));
}

/// A connection whose other end says `bytes` and ends.
struct Said(Cursor<Vec<u8>>);

impl futures_util::io::AsyncRead for Said {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.read(room))
    }
}

impl futures_util::io::AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn http_requests() {
    use http_body_util::{BodyExt, Full};
    let seeds: [&[u8]; 4] = [
        b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\nConnection: keep-alive, Upgrade\r\nExpect: 100-continue\r\n\r\n",
    ];
    try_all(1, &seeds, |bytes| {
        let stream = smol_hyper::rt::FuturesIo::new(Said(Cursor::new(bytes.to_vec())));
        let answer = hyper::service::service_fn(async |request: hyper::Request<hyper::body::Incoming>| {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::new(body)))
        });
        drop(smol::block_on(hyper::server::conn::http1::Builder::new().serve_connection(stream, answer)));
    });
}

#[test]
fn http_answers() {
    use std::io::Write;
    let seeds: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=b\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ];
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it has an address"));
    let answer = Arc::new(Mutex::new(Vec::new()));
    let said = answer.clone();
    // It ends with the process.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let bytes: Vec<u8> = said.lock().expect("nobody panics").clone();
            let mut request = [0; 1024];
            let _ = client.read(&mut request);
            let _ = client.write_all(&bytes);
        }
    });
    let config = ureq::Agent::config_builder()
        .max_redirects(0)
        .max_idle_connections(0)
        .timeout_global(Some(std::time::Duration::from_secs(1)))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    // Each takes a connection.
    try_all(30, &seeds, |bytes| {
        *answer.lock().expect("nobody panics") = bytes.to_vec();
        if let Ok(answer) = agent.get(&url).call() {
            drop(answer.into_body().into_with_config().limit(1 << 20).read_to_vec());
        }
    });
}

#[test]
fn tls_records_and_certificates() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    let (der, pem) = (certificate.der().to_vec(), certificate.pem());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a root");
    let provider = Arc::new(ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let secret = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)
        .expect("a server");
    let (client, server) = (Arc::new(client), Arc::new(server));
    let name = ServerName::try_from("localhost").expect("a name");
    // The seed is which flight of the handshake is damaged; each handshake takes a millisecond.
    let mut draw = Draw(1);
    let mut finished = 0;
    try_all(20, &[b""], |_| {
        let mut client = ClientConnection::new(client.clone(), name.clone()).expect("a client");
        let mut server = ServerConnection::new(server.clone()).expect("a server");
        let damaged = draw.below(6);
        for flight in 0..6 {
            let mut bytes = Vec::new();
            let from_client = flight % 2 == 0;
            while if from_client { client.wants_write() } else { server.wants_write() } {
                let written = if from_client { client.write_tls(&mut bytes) } else { server.write_tls(&mut bytes) };
                written.expect("memory takes it");
            }
            if flight == damaged {
                bytes = damage(&mut draw, &bytes);
            }
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                let read = if from_client { server.read_tls(&mut bytes) } else { client.read_tls(&mut bytes) };
                let judged = if from_client { server.process_new_packets() } else { client.process_new_packets() };
                if read.is_err() || judged.is_err() {
                    return;
                }
            }
        }
        finished += usize::from(!client.is_handshaking());
    });
    assert!(finished > 0, "undamaged ones come through");
    try_all(1, &[pem.as_bytes()], |bytes| {
        drop(CertificateDer::pem_slice_iter(bytes).take(100).collect::<Vec<_>>());
        drop(PrivateKeyDer::from_pem_slice(bytes));
    });
    try_all(1, &[&der], |bytes| drop(RootCertStore::empty().add(CertificateDer::from(bytes.to_vec()))));
}
