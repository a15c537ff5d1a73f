//! TLS for a listener: PEM files to a rustls acceptor.
//!
//! One crypto provider (ring) for the whole process, given explicitly so that nothing depends on who installed a default
//! first. Called once per listener, on a blocking thread, because it reads files: by the HTTP server for its links, by the
//! mirror.

use std::{path::Path, sync::Arc};

use futures_rustls::TlsAcceptor;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    error::{Context, Error, Kind, Result},
    private,
};

/// Reads certificate and key, each a path and what errors call the setting it comes from, and makes an acceptor that speaks
/// HTTP/1.1 over TLS 1.2 and 1.3.
///
/// # Errors
/// `Config`: a file cannot be read, holds nothing usable, or key and certificate do not belong together; the text names
/// the file.
pub fn acceptor(certificate: (&Path, &str), key: (&Path, &str)) -> Result<TlsAcceptor> {
    let chain = certificates(certificate)?;
    let ((certificate, _), (key_file, key_name)) = (certificate, key);
    private::check(key_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|cause| {
        let path = key_file.display();
        Error::config(format!(
            "{key_name} {path} gives no private key ({cause}): it must be a PEM file readable by this process"
        ))
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context(Kind::Internal, "TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|cause| {
            let (certificate, key) = (certificate.display(), key_file.display());
            Error::config(format!("the certificate {certificate} and the key {key} cannot serve TLS together: {cause}"))
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates((path, name): (&Path, &str)) -> Result<Vec<CertificateDer<'static>>> {
    let refuse = |why: &str| {
        Error::config(format!(
            "{name} {} gives no certificate ({why}): it must be a PEM file readable by this process, leaf first",
            path.display()
        ))
    };
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|cause| refuse(&cause.to_string()))?;
    if chain.is_empty() {
        return Err(refuse("it holds none"));
    }
    Ok(chain)
}
