//! TLS for outgoing HTTP: the platform's roots, loaded once and only when the first HTTPS request comes.
//!
//! Used by the HTTP client of actors and by the sources of artifacts.
//!
//! ureq's own connector would build its configuration, roots and all, anew for each connection whose request sets a
//! time-out of its own; this one keeps one configuration for every link (and one more for each link with a CA file).
//! Runs on blocking threads only.

use std::{
    fmt,
    io::{Read, Write},
    path::Path,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

use crate::error::{Error, Result};

use crate::lock::Mutex;

/// The roots a link trusts, made into a configuration when first needed.
pub struct Trust {
    extra: Vec<CertificateDer<'static>>,
    /// What the operator can set to add roots, named in the error where there are none.
    remedy: &'static str,
    config: Mutex<Option<Arc<ClientConfig>>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({} extra)", self.extra.len())
    }
}

impl Trust {
    /// The platform's roots; `setting` is named in the error of a machine without any: what adds some.
    pub fn platform(setting: &'static str) -> Self {
        Self { extra: Vec::new(), remedy: setting, config: Mutex::default() }
    }

    /// The platform's roots and those in the PEM file at `path`, which `setting` names.
    ///
    /// # Errors
    /// The file cannot be read or holds no certificate.
    pub fn with_file(path: &Path, setting: &'static str) -> Result<Self> {
        let refuse = |why: &dyn fmt::Display| {
            let path = path.display();
            Error::config(format!(
                "{setting} {path} gives no certificate ({why}): it must be a PEM file readable by this process"
            ))
        };
        let extra: Vec<_> =
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|cause| refuse(&cause))?;
        if extra.is_empty() {
            return Err(refuse(&"it holds none"));
        }
        Ok(Self { extra, remedy: setting, config: Mutex::default() })
    }

    /// The platform's roots and those in the PEM text `pem`, which `setting` names.
    ///
    /// # Errors
    /// It holds no certificate.
    pub fn with_text(pem: &[u8], setting: &'static str) -> Result<Self> {
        let extra: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|cause| Error::config(format!("{setting} gives no certificate ({cause}): it must be PEM text")))?;
        if extra.is_empty() {
            return Err(Error::config(format!("{setting} holds no certificate: it must be PEM text")));
        }
        Ok(Self { extra, remedy: setting, config: Mutex::default() })
    }

    /// The configuration, made on the first call. Others wait meanwhile rather than make it twice.
    fn config(&self) -> Result<Arc<ClientConfig>> {
        let mut config = self.config.lock();
        if let Some(config) = &*config {
            return Ok(Arc::clone(config));
        }
        let platform = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(platform.certs);
        roots.add_parsable_certificates(self.extra.iter().cloned());
        if roots.is_empty() {
            let why = platform.errors.first().map(|cause| format!(" ({cause})")).unwrap_or_default();
            return Err(Error::unavailable(format!(
                "this machine has no root certificates{why}: install the package ca-certificates, or name a PEM file in {}",
                self.remedy
            )));
        }
        let made = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|cause| Error::internal(format!("TLS versions: {cause}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::clone(config.insert(Arc::new(made))))
    }
}

/// Wraps a connection in TLS when the URL wants it.
#[derive(Debug)]
pub struct TlsConnector {
    /// Whom it trusts.
    pub trust: Arc<Trust>,
    /// Read and write buffer of a connection, bytes. The read buffer must hold a whole response head.
    pub buffer_bytes: usize,
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, TlsTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> std::result::Result<Option<Self::Out>, ureq::Error> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() || transport.is_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let config = self.trust.config().map_err(|error| ureq::Error::Other(Box::new(error)))?;
        let host = details.uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name =
            ServerName::try_from(bare.to_owned()).map_err(|_| ureq::Error::Tls("the host is no name for TLS"))?;
        let mut connection = ClientConnection::new(config, name)?;
        let mut socket = TransportAdapter::new(transport.boxed(), Arc::clone(&details.current_time));
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(self.buffer_bytes, self.buffer_bytes);
        Ok(Some(Either::B(TlsTransport { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A TLS connection as ureq reads and writes it.
pub struct TlsTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl fmt::Debug for TlsTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsTransport")
    }
}

impl Transport for TlsTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> std::result::Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        self.stream.write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> std::result::Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}
