//! TLS with a certificate made for the test, spoken by rustls as a client.

use std::{net::TcpStream, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};

use super::harness::{ACTOR, Client, PATIENCE, Server, echo, link};
use crate::capability::http_server::Settings;

const GET: &str = "GET /tls HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A certificate for `localhost`, in files and as a client trusts it.
struct Certificate {
    _directory: tempfile::TempDir,
    cert_file: PathBuf,
    key_file: PathBuf,
    der: CertificateDer<'static>,
}

impl Certificate {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        std::fs::write(&cert_file, cert.pem()).unwrap();
        std::fs::write(&key_file, signing_key.serialize_pem()).unwrap();
        // One of these tests gives the certificate for a key.
        for file in [&cert_file, &key_file] {
            std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { _directory: directory, cert_file, key_file, der: cert.der().clone() }
    }

    fn settings(&self) -> String {
        let (cert, key) = (self.cert_file.display(), self.key_file.display());
        format!(r#"{{"tls":{{"cert_file":"{cert}","priv_key_file":"{key}"}}}}"#)
    }

    fn connect(&self, address: std::net::SocketAddr) -> Client<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Client::over(StreamOwned::new(connection, socket))
    }
}

fn link_tls(server: &Server, certificate: &Certificate) -> std::net::SocketAddr {
    server.link(&[("config_json", &certificate.settings())])
}

#[test]
fn requests_over_tls_are_served_and_kept_alive() {
    let certificate = Certificate::new();
    let server = echo();
    let address = link_tls(&server, &certificate);
    assert_eq!(server.provider.detail(), format!("https://{address}"));
    let mut client = certificate.connect(address);
    for _ in 0..3 {
        assert_eq!(client.ask(GET).text(), "GET /tls  ");
    }
    let large = "x".repeat(300_000);
    let reply = client.ask(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{large}", large.len()));
    assert_eq!(reply.body.len(), "POST /  ".len() + large.len());
}

#[test]
fn plain_words_on_a_tls_port_are_not_served_and_a_slow_handshake_is_cut() {
    let certificate = Certificate::new();
    let settings = Settings { head_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = Server::start(settings, |_, _| async { unreachable!("nothing gets through") });
    let address = link_tls(&server, &certificate);
    let mut plain = Client::connect(address);
    plain.send(GET);
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut plain.socket, &mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    let mut silent = Client::connect(address);
    silent.send([0x16, 0x03]);
    assert!(silent.closed());
}

#[test]
fn a_body_that_stalls_under_tls_is_answered_with_408() {
    let certificate = Certificate::new();
    let settings = Settings { stall_timeout: Duration::from_millis(200), ..Settings::default() };
    let server = Server::start(settings, |_, _| async { unreachable!("the body never came") });
    let mut client = certificate.connect(link_tls(&server, &certificate));
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf");
    assert_eq!(client.reply().unwrap().status, 408);
}

#[test]
fn unlink_closes_tls_connections_too() {
    let certificate = Certificate::new();
    let server = echo();
    let mut client = certificate.connect(link_tls(&server, &certificate));
    assert_eq!(client.ask(GET).status, 200);
    let before = std::time::Instant::now();
    smol::block_on(server.provider.stop());
    assert!(before.elapsed() < Duration::from_secs(2));
}

#[test]
fn certificates_are_read_again_and_a_bad_one_changes_nothing() {
    let (certificate, newer) = (Certificate::new(), Certificate::new());
    let server = echo();
    let address = link_tls(&server, &certificate);
    let mut before = certificate.connect(address);
    assert_eq!(before.ask(GET).status, 200);
    let put = |from: &PathBuf, to: &PathBuf| std::fs::copy(from, to).unwrap();
    put(&newer.cert_file, &certificate.cert_file);
    let error = smol::block_on(server.provider.reload()).expect_err("key and certificate are not of one pair");
    assert!(error.text().contains("cannot serve TLS together"), "{error}");
    assert_eq!(certificate.connect(address).ask(GET).status, 200, "the old pair serves on");
    put(&newer.key_file, &certificate.key_file);
    smol::block_on(server.provider.reload()).expect("a good pair");
    assert_eq!(newer.connect(address).ask(GET).status, 200);
    assert_eq!(before.ask(GET).status, 200, "a connection goes on as it was");
}

#[test]
fn files_that_give_no_tls_are_named() {
    let good = Certificate::new();
    let other = Certificate::new();
    let server = echo();
    let missing = PathBuf::from("/nonexistent/cert.pem");
    for (cert, key, part) in [
        (&missing, &good.key_file, "/nonexistent/cert.pem"),
        (&good.cert_file, &missing, "/nonexistent/cert.pem"),
        (&good.key_file, &good.key_file, "gives no certificate"),
        (&good.cert_file, &good.cert_file, "gives no private key"),
        (&good.cert_file, &other.key_file, "cannot serve TLS together"),
    ] {
        let json = format!(r#"{{"tls":{{"cert_file":{:?},"priv_key_file":{:?}}}}}"#, cert, key);
        let error = smol::block_on(server.provider.link(Arc::new(link(&[("config_json", &json)])))).unwrap_err();
        assert!(error.text().contains(part) && error.text().contains(ACTOR), "{error}");
    }
    assert_eq!(server.provider.detail(), "");
}
