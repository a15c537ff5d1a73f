//! TLS for a listener: PEM files to a rustls acceptor.
//!
//! One crypto provider (ring) for the whole process, given explicitly so that nothing depends on who installed a default
//! first. Called once per link, on a blocking thread, because it reads files.

use std::{path::Path, sync::Arc};

use futures_rustls::TlsAcceptor;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::link_values::TlsFiles;
use crate::{
    error::{Context, Error, Kind, Result},
    private,
};

/// Reads the files of `tls` and makes an acceptor that speaks HTTP/1.1 over TLS 1.2 and 1.3.
///
/// # Errors
/// A file cannot be read, holds nothing usable, or key and certificate do not belong together; the text names the file.
pub fn acceptor(tls: &TlsFiles) -> Result<TlsAcceptor> {
    let chain = certificates(&tls.cert_file)?;
    private::check(&tls.priv_key_file)?;
    let key = PrivateKeyDer::from_pem_file(&tls.priv_key_file).map_err(|cause| {
        let path = tls.priv_key_file.display();
        Error::config(format!(
            "`tls.priv_key_file` {path} gives no private key ({cause}): it must be a PEM file readable by this process"
        ))
    })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context(Kind::Internal, "TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|cause| {
            let (cert, key) = (tls.cert_file.display(), tls.priv_key_file.display());
            Error::config(format!("the certificate {cert} and the key {key} cannot serve TLS together: {cause}"))
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|cause| refuse(path, &cause.to_string()))?;
    if chain.is_empty() {
        return Err(refuse(path, "it holds none"));
    }
    Ok(chain)
}

fn refuse(path: &Path, why: &str) -> Error {
    let path = path.display();
    Error::config(format!(
        "`tls.cert_file` {path} gives no certificate ({why}): it must be a PEM file readable by this process, leaf first"
    ))
}
