//! The way to a server: its address, TCP, TLS by either handshake, and its first line.

use std::{
    fs::File,
    io::{self, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Target, Tls,
    info::Info,
    scanner::{MAX_INFO_BYTES, Operation, Piece, Scanner},
};

/// Addresses of one host name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Bytes that are read at once while the first line is waited for. It has some 400.
const FIRST_READ_BYTES: usize = 2048;

/// A line to a server, private or not.
pub(super) trait Line: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// A server that was reached.
pub(super) struct Reached {
    pub line: Box<dyn Line>,
    pub info: Info,
    /// What it said after its first line.
    pub rest: Vec<u8>,
}

/// How a server is reached.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub tls: Tls,
    /// How long one address may take.
    pub patience: Duration,
    /// How long what we sent may stay unacknowledged before the system ends the connection.
    pub silence: Duration,
}

/// How long reaching one server may take at most, given the patience with one address.
pub(super) fn longest(patience: Duration) -> Duration {
    // The name, and each address.
    patience * (1 + MAX_ADDRESSES as u32)
}

/// Reaches `target`: the first of its addresses that works.
///
/// # Errors
/// Why the last address did not, for people.
pub(super) async fn reach(target: &Target, manner: &Manner) -> Result<Reached, String> {
    let name = format!("the name {} cannot be resolved", target.host);
    let found = match timeout(manner.patience, lookup_host((target.host.as_str(), target.port))).await {
        Ok(Ok(found)) => found.take(MAX_ADDRESSES).collect::<Vec<_>>(),
        Ok(Err(cause)) => return Err(format!("{name}: {cause}")),
        Err(_) => return Err(format!("{name}: timed out")),
    };
    let mut why = format!("{name}: it has no address");
    for address in found {
        match timeout(manner.patience, reach_address(address, target, manner)).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(cause)) => why = cause,
            Err(_) => why = format!("timed out after {} ms", manner.patience.as_millis()),
        }
    }
    Err(why)
}

async fn reach_address(address: SocketAddr, target: &Target, manner: &Manner) -> Result<Reached, String> {
    let tls = &manner.tls;
    let stream = TcpStream::connect(address).await.map_err(|cause| cause.to_string())?;
    let tuned = stream.set_nodelay(true).and_then(|()| {
        let silence = u32::try_from(manner.silence.as_millis()).unwrap_or(u32::MAX);
        Ok(rustix::net::sockopt::set_tcp_user_timeout(&stream, silence)?)
    });
    tuned.map_err(|cause| cause.to_string())?;
    if tls.first {
        let mut line = handshake(stream, target, tls).await?;
        let (info, rest) = first_line(&mut line).await?;
        return Ok(Reached { line: Box::new(line), info, rest });
    }
    let mut stream = stream;
    let (info, rest) = first_line(&mut stream).await?;
    if !(tls.required || target.tls || info.tls_required) {
        return Ok(Reached { line: Box::new(stream), info, rest });
    }
    // Whoever is between us and the server could put words into the mouth of the server.
    if !rest.is_empty() {
        return Err("it went on speaking where TLS should begin".to_owned());
    }
    let line = handshake(stream, target, tls).await?;
    Ok(Reached { line: Box::new(line), info, rest })
}

/// Reads what the server tells of itself, and what came with it.
async fn first_line(line: &mut (impl AsyncRead + Unpin)) -> Result<(Info, Vec<u8>), String> {
    let mut said = Vec::with_capacity(FIRST_READ_BYTES);
    loop {
        if said.len() < MAX_INFO_BYTES {
            said.reserve(FIRST_READ_BYTES);
        }
        match line.read_buf(&mut said).await {
            Ok(0) if said.is_empty() => return Err("it closed the connection without a word".to_owned()),
            Ok(0) => return Err("it closed the connection within its first line".to_owned()),
            Ok(_) => {}
            Err(cause) => return Err(cause.to_string()),
        }
        match Scanner::default().next(&said).map_err(|violation| violation.to_string())? {
            Piece::Incomplete => {}
            Piece::Plain { operation: Operation::Info, length } => {
                return Ok((Info::read(&said[..length])?, said.split_off(length)));
            }
            Piece::Plain { operation: Operation::Error, length } => {
                return Err(String::from_utf8_lossy(&said[5..length]).trim().to_owned());
            }
            _ => return Err("it does not begin as a NATS server does".to_owned()),
        }
    }
}

async fn handshake(
    stream: TcpStream,
    target: &Target,
    tls: &Tls,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(target.host.clone()).map_err(|cause| format!("TLS: {cause}"))?;
    let (ca, certificate) = (tls.ca.clone(), tls.certificate.clone());
    // Files, and on most machines a hundred roots.
    let config = tokio::task::spawn_blocking(move || configuration(ca.as_deref(), certificate.as_ref()));
    let config = config.await.map_err(|cause| cause.to_string())??;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|cause| format!("TLS: {cause}"))
}

/// Whom we trust and who we are, read from the files as they are now.
fn configuration(ca: Option<&Path>, certificate: Option<&(PathBuf, PathBuf)>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for authority in certificates(path)? {
                roots.add(authority).map_err(|cause| format!("{} cannot be used: {cause}", path.display()))?;
            }
        }
        None => {
            let platform = rustls_native_certs::load_native_certs();
            if let Some(cause) = platform.errors.first() {
                return Err(format!("the certificates of this machine cannot be read: {cause}"));
            }
            roots.add_parsable_certificates(platform.certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|cause| format!("TLS: {cause}"))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = certificate else { return Ok(builder.with_no_client_auth()) };
    let read = open(key)?;
    let secret = PrivateKeyDer::from_pem_reader(read).map_err(|cause| format!("{}: {cause}", key.display()))?;
    builder
        .with_client_auth_cert(certificates(certificate)?, secret)
        .map_err(|cause| format!("{} and {} do not go together: {cause}", certificate.display(), key.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(path)?).collect();
    read.map_err(|cause| format!("{}: {cause}", path.display()))
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    File::open(path).map(BufReader::new).map_err(|cause: io::Error| format!("cannot read {}: {cause}", path.display()))
}
