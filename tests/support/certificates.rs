//! Certificates for servers and clients that speak TLS: an authority, and what it signs.

use std::{fs::Permissions, os::unix::fs::PermissionsExt, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A private authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one called `name`.
    pub fn new(name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).expect("no names are good names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("random numbers");
        Self(CertifiedIssuer::self_signed(authority, key).expect("the authority can sign itself"))
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes a new certificate for this machine, and its key: `NAME.pem` and `NAME.key` in `folder`.
    pub fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().expect("random numbers");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .expect("good names")
            .signed_by(&key, &self.0)
            .expect("the authority can sign");
        let write = |end: &str, text: String| {
            let path = folder.join(format!("{name}.{end}"));
            std::fs::write(&path, text).expect("the temporary folder is writable");
            // A key that others may read is refused.
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }
}
