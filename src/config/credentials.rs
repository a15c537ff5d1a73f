//! Secrets that the service manager hands over in files: `$CREDENTIALS_DIRECTORY`, one file for each (systemd.exec(5),
//! `LoadCredential=`).
//!
//! A credential is stronger than the environment: whoever took the trouble to hand one over means it. Names begin with
//! `latticed.`, so that `ImportCredential=latticed.*` finds them all.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use zeroize::Zeroize;

use super::{
    settings::Setting,
    value::{Kind, MAX_VALUE_BYTES},
};
use crate::{
    error::{Error, Result},
    private,
    text_file::{is_blank, without_mark},
};

/// Where the service manager says they are.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Each credential, and the settings it sets: those that hold a path get the path of the credential's file.
pub const CREDENTIALS: &[(&str, &[&str])] = &[
    ("latticed.host-seed", &["WASMCLOUD_HOST_SEED"]),
    ("latticed.cluster-seed", &["WASMCLOUD_CLUSTER_SEED"]),
    ("latticed.nats-creds", &["WASMCLOUD_RPC_CREDSFILE", "WASMCLOUD_CTL_CREDSFILE"]),
    ("latticed.nats-seed", &["WASMCLOUD_RPC_SEED", "WASMCLOUD_CTL_SEED"]),
    ("latticed.nats-jwt", &["WASMCLOUD_RPC_JWT", "WASMCLOUD_CTL_JWT"]),
    ("latticed.nats-user", &["WASMCLOUD_RPC_USER", "WASMCLOUD_CTL_USER"]),
    ("latticed.nats-password", &["WASMCLOUD_RPC_PASSWORD", "WASMCLOUD_CTL_PASSWORD"]),
    ("latticed.nats-tls-ca", &["WASMCLOUD_RPC_TLS_CA_FILE", "WASMCLOUD_CTL_TLS_CA_FILE"]),
    ("latticed.nats-tls-cert", &["WASMCLOUD_RPC_TLS_CERT_FILE", "WASMCLOUD_CTL_TLS_CERT_FILE"]),
    ("latticed.nats-tls-key", &["WASMCLOUD_RPC_TLS_KEY_FILE", "WASMCLOUD_CTL_TLS_KEY_FILE"]),
    ("latticed.registry-user", &["OCI_REGISTRY_USER"]),
    ("latticed.registry-password", &["OCI_REGISTRY_PASSWORD"]),
    ("latticed.registry-logins", &["WASMCLOUD_OCI_AUTH_FILE"]),
];

/// The credentials that were handed over. Holds secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Credentials(Vec<Credential>);

#[derive(Clone)]
struct Credential {
    name: &'static str,
    path: PathBuf,
    content: String,
}

impl Credentials {
    /// Reads those in `directory`; files of other names are somebody else's.
    ///
    /// # Errors
    /// `Denied`: others may read one. `Config`: one cannot be read, or is no text.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut found = Vec::new();
        for (name, _) in CREDENTIALS {
            let path = directory.join(name);
            if !path.exists() {
                continue;
            }
            private::check(&path).map_err(|error| error.context(format_args!("the credential {name}")))?;
            let refuse = |why: String| Error::config(format!("the credential {name} cannot be used: {why}"));
            let mut content = String::new();
            let limit = MAX_VALUE_BYTES as u64 + 1;
            let read = File::open(&path).and_then(|file| file.take(limit).read_to_string(&mut content));
            if read.map_err(|cause| refuse(cause.to_string()))? as u64 == limit {
                return Err(refuse(format!("it is longer than {MAX_VALUE_BYTES} bytes")));
            }
            found.push(Credential { name, path, content });
        }
        Ok(Self(found))
    }

    /// Overwrites them.
    pub(super) fn wipe(&mut self) {
        self.0.iter_mut().for_each(|found| found.content.zeroize());
    }

    /// What sets `setting`: the credential's name and the value.
    pub(super) fn find(&self, setting: &Setting) -> Option<(&'static str, String)> {
        let (name, _) = CREDENTIALS.iter().find(|(_, settings)| settings.contains(&setting.name))?;
        let found = self.0.iter().find(|found| found.name == *name)?;
        let value = match setting.kind {
            Kind::Path => found.path.display().to_string(),
            // Files end in a line end, secrets do not.
            _ => without_mark(&found.content).trim_end_matches(['\r', '\n']).to_owned(),
        };
        // One that holds nothing is like none, as with every other source.
        Some((*name, value)).filter(|_| !is_blank(&found.content))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::config::settings::find;

    #[test]
    fn every_credential_sets_settings_that_exist() {
        for (name, settings) in CREDENTIALS {
            assert!(name.starts_with("latticed."));
            for setting in *settings {
                assert!(find(setting).is_some_and(|found| found.name == *setting), "{setting}");
            }
        }
    }

    #[test]
    fn texts_are_read_and_paths_are_pointed_to() {
        let folder = tempfile::tempdir().expect("temporary folder");
        for (name, content) in [("latticed.nats-password", "pass word\n"), ("latticed.nats-creds", "x"), ("other", "y")]
        {
            fs::write(folder.path().join(name), content).expect("written");
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o400)).expect("chmod");
        }
        let credentials = Credentials::read(folder.path()).expect("good credentials");
        let value = |name: &str| credentials.find(find(name).expect("a setting")).map(|(_, value)| value);
        assert_eq!(value("WASMCLOUD_CTL_PASSWORD").as_deref(), Some("pass word"));
        assert_eq!(
            value("WASMCLOUD_RPC_CREDSFILE"),
            Some(folder.path().join("latticed.nats-creds").display().to_string())
        );
        assert_eq!(value("WASMCLOUD_HOST_SEED"), None);

        let open = folder.path().join("latticed.nats-password");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o444)).expect("chmod");
        let error = Credentials::read(folder.path()).err().expect("others may read it");
        assert!(error.text().contains("latticed.nats-password") && !error.text().contains("pass word"), "{error}");
    }
}
