//! How to log in to registries: what the lattice sent is kept, what the settings say stands behind it.
//!
//! Filled by `lattice` (`registries.put`, the configuration service) and by `cli` from the settings; asked by the source
//! of images before each pull. What is kept is a secret: it lies in the store's own files (mode 0600, in a folder of mode
//! 0700), and this file never logs, shows or returns it except through [`Credentials::find`].

use std::{collections::BTreeMap, fmt};

use smol::lock;

use crate::{
    error::{Error, Result},
    lock::{Mutex, MutexGuard},
    log,
    store::{Batch, Store, Table},
    wire::control::registry::{MAX_REGISTRIES, RegistryCredential, normalise},
};

/// The only type of registry that this host fetches from (`protocol/lattice.md §3.6`).
const OCI: &str = "oci";

/// Beginning of the name of a kept credential's record, in the table of the host.
const RECORD: &str = "registry/";

/// Longest name of a registry, bytes: that of a host with its port. A longer one is a mistake and is refused.
const MAX_REGISTRY_BYTES: usize = 253 + ":65535".len();

/// Longest user name, password or token, bytes. The longest tokens in use, those of cloud registries, stay below 4 KiB;
/// 64 registries with three such texts each stay below 3 MB on disk. A longer one is refused.
const MAX_SECRET_BYTES: usize = 16 * 1024;

/// How to log in to a registry. No `Debug` output shows a secret.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryLogin {
    /// HTTP Basic, or an account to ask the registry's token service with.
    Basic {
        /// User name.
        user: String,
        /// Password, or a token that stands for it.
        password: String,
    },
    /// A token that is sent as it is.
    Bearer(String),
}

impl RegistryLogin {
    /// A user with a password, or with a token that stands for one.
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    /// A user name with a password or token is Basic, a token alone is a bearer's (`protocol/cache.md §7`). Nothing for
    /// a user name or a password alone.
    fn from(credential: &RegistryCredential) -> Option<Self> {
        let secret = credential.password.as_ref().or(credential.token.as_ref());
        match (&credential.username, secret, &credential.token) {
            (Some(user), Some(password), _) => Some(Self::basic(user, password)),
            (None, _, Some(token)) => Some(Self::Bearer(token.clone())),
            _ => None,
        }
    }
}

impl fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RegistryLogin::Basic { .. } => "user and password",
            RegistryLogin::Bearer(_) => "token",
        })
    }
}

/// All credentials, by registry.
pub struct Credentials {
    store: Store,
    kept: Mutex<BTreeMap<String, RegistryCredential>>,
    configured: Mutex<BTreeMap<String, RegistryLogin>>,
    /// Changes one at a time, so that the limit holds.
    changing: lock::Mutex<()>,
}

impl Credentials {
    /// Those that `store` has kept. One that cannot be read is reported and left out.
    pub fn new(store: Store) -> Self {
        let mut kept = BTreeMap::new();
        for name in store.look(|view| view.keys(Table::Host, RECORD.as_bytes())) {
            let registry = String::from_utf8_lossy(&name[RECORD.len()..]).into_owned();
            let read = match store.get(Table::Host, &name) {
                Ok(Some(record)) => serde_json::from_slice(&record)
                    .map_err(|_| "its record is of no form that this version knows".to_owned()),
                Ok(None) => continue,
                Err(error) => Err(error.text().to_owned()),
            };
            match read {
                Ok(credential) => drop(kept.insert(registry, credential)),
                Err(why) => log::warn!(
                    "the credentials kept for a registry cannot be used: {why}; send them again"; registry = registry
                ),
            }
        }
        Self { store, kept: Mutex::new(kept), configured: Mutex::default(), changing: lock::Mutex::new(()) }
    }

    /// What the settings say now, in the place of what they said before: logins for registries for which nothing was
    /// sent. The last one for a registry counts. Answers whether it is something else than before.
    pub fn configure(&self, logins: impl IntoIterator<Item = (String, RegistryLogin)>) -> bool {
        let logins = logins.into_iter().map(|(registry, login)| (key(&registry), login)).collect();
        let mut configured = self.configured.lock();
        let changed = *configured != logins;
        *configured = logins;
        changed
    }

    /// The registries for which the settings hold a login, as `HOST[:PORT]`. Those that the lattice sent are not among them.
    pub fn configured_registries(&self) -> Vec<String> {
        let configured = self.configured.lock();
        configured.keys().cloned().collect()
    }

    /// Whether the settings have a login for `registry`.
    pub fn is_configured(&self, registry: &str) -> bool {
        let configured = self.configured.lock();
        configured.contains_key(&key(registry))
    }

    /// Keeps `new`, over what was kept for the same registries; on disk when this returns.
    ///
    /// # Errors
    /// `Limit` for too many or too long ones, `Storage`; nothing was changed then.
    pub async fn put(&self, new: BTreeMap<String, RegistryCredential>) -> Result<()> {
        let _one_at_a_time = self.changing.lock().await;
        let mut after = self.lock_kept().clone();
        let (mut batch, mut changed) = (Batch::new(), Vec::new());
        for (registry, credential) in new {
            let registry = key(&registry);
            check(&registry, &credential)?;
            if after.get(&registry) == Some(&credential) {
                continue;
            }
            let record = serde_json::to_vec(&credential)
                .map_err(|_| Error::internal(format!("cannot write the credentials for {registry}")))?;
            batch = batch.put(Table::Host, format!("{RECORD}{registry}"), record);
            after.insert(registry.clone(), credential);
            changed.push(registry);
        }
        if after.len() > MAX_REGISTRIES {
            return Err(Error::limit(format!("at most {MAX_REGISTRIES} registries are kept")));
        }
        if !changed.is_empty() {
            self.store.commit(batch).await?;
            *self.lock_kept() = after;
            log::info!("credentials of registries were sent and are kept"; registries = changed.join(","));
        }
        Ok(())
    }

    /// The login for `registry`, a host with its port if it has one: what was sent, else what is set, else nothing
    /// (`protocol/config.md §6`).
    pub fn find(&self, registry: &str) -> Option<RegistryLogin> {
        let registry = key(registry);
        let kept = self.lock_kept().get(&registry).filter(|kept| kept.registry_type == OCI).cloned();
        kept.as_ref().and_then(RegistryLogin::from).or_else(|| {
            let configured = self.configured.lock();
            configured.get(&registry).cloned()
        })
    }

    fn lock_kept(&self) -> MutexGuard<'_, BTreeMap<String, RegistryCredential>> {
        self.kept.lock()
    }
}

/// What a registry is found by: its host and port, in lower case as names of hosts are.
fn key(registry: &str) -> String {
    normalise(registry.trim(), OCI).to_ascii_lowercase()
}

fn check(registry: &str, credential: &RegistryCredential) -> Result<()> {
    if registry.is_empty() || registry.len() > MAX_REGISTRY_BYTES || registry.chars().any(char::is_control) {
        return Err(Error::invalid(format!(
            "a registry is named by its host and port, at most {MAX_REGISTRY_BYTES} bytes of them"
        )));
    }
    let texts = [&credential.username, &credential.password, &credential.token];
    if texts.into_iter().flatten().any(|text| text.len() > MAX_SECRET_BYTES) {
        return Err(Error::limit(format!(
            "the credentials for {registry} are longer than the {MAX_SECRET_BYTES} bytes that each of them may have"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        store::{self, FaultDisk},
        wire::control::registry,
    };

    fn open(disk: &FaultDisk) -> Credentials {
        Credentials::new(Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap().0)
    }

    fn put(credentials: &Credentials, body: &str) -> Result<()> {
        smol::block_on(credentials.put(registry::parse(body.as_bytes()).unwrap()))
    }

    fn basic(user: &str, password: &str) -> Option<RegistryLogin> {
        Some(RegistryLogin::basic(user, password))
    }

    #[test]
    fn what_was_sent_is_known_again_and_wins_over_the_settings() {
        let disk = FaultDisk::new();
        let credentials = open(&disk);
        let set = || [("https://Registry.Example:5000/v2".to_owned(), RegistryLogin::basic("set", "set-password"))];
        assert!(credentials.configure(set()) && !credentials.configure(set()));
        assert_eq!(credentials.find("registry.example:5000"), basic("set", "set-password"));
        assert!(credentials.configure([("other.example".to_owned(), RegistryLogin::basic("u", "p"))]));
        assert_eq!(credentials.find("registry.example:5000"), None, "a login that was taken away is gone");
        put(
            &credentials,
            r#"{"registry.example:5000":{"registryType":"oci","username":"sent","password":"swordfish"},
                "a.example":{"registryType":"oci","username":"u","token":"t"},
                "b.example":{"registryType":"oci","token":"t"},
                "c.example":{"registryType":"bindle","token":"t"},
                "d.example":{"registryType":"oci","password":"alone"}}"#,
        )
        .unwrap();
        assert!(credentials.configure([]));
        assert_eq!(credentials.find("registry.example:5000"), basic("sent", "swordfish"), "what was sent stays");
        drop(credentials);

        let credentials = open(&disk);
        assert_eq!(credentials.find("REGISTRY.example:5000"), basic("sent", "swordfish"));
        assert_eq!(credentials.find("registry.example"), None, "another port is another registry");
        assert_eq!(credentials.find("a.example"), basic("u", "t"));
        assert_eq!(credentials.find("b.example"), Some(RegistryLogin::Bearer("t".into())));
        assert_eq!((credentials.find("c.example"), credentials.find("d.example")), (None, None));
        assert!(!format!("{:?}", credentials.find("registry.example:5000")).contains("swordfish"));
        put(&credentials, r#"{"a.example":{"registryType":"oci","username":"v","password":"w"}}"#).unwrap();
        assert_eq!(credentials.find("a.example"), basic("v", "w"));
        assert_eq!(credentials.find("b.example"), Some(RegistryLogin::Bearer("t".into())), "the others stay");
    }

    #[test]
    fn too_much_is_refused_as_a_whole() {
        let credentials = open(&FaultDisk::new());
        let many = |prefix: &str| {
            let one = |n| (format!("{prefix}{n}.example"), serde_json::json!({"registryType": "oci", "token": "t"}));
            serde_json::Value::Object((0..40).map(one).collect()).to_string()
        };
        put(&credentials, &many("a")).unwrap();
        assert!(put(&credentials, &many("b")).unwrap_err().text().contains("at most 64"));
        assert_eq!(credentials.find("b0.example"), None);
        put(&credentials, &many("a")).unwrap();
        let long = "x".repeat(MAX_SECRET_BYTES + 1);
        let refused = put(&credentials, &format!(r#"{{"l.example":{{"registryType":"oci","token":"{long}"}}}}"#));
        assert!(refused.unwrap_err().text().contains("l.example"));
    }

    #[test]
    fn a_damaged_record_costs_only_itself() {
        let disk = FaultDisk::new();
        let (store, _) = Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap();
        let credentials = Credentials::new(store.clone());
        put(&credentials, r#"{"a.example":{"registryType":"oci","token":"one-token"}}"#).unwrap();
        put(&credentials, r#"{"b.example":{"registryType":"oci","token":"two-token"}}"#).unwrap();
        let segment = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
        let content = disk.content(&segment);
        disk.corrupt(&segment, content.windows(9).position(|found| found == b"one-token").unwrap(), 1);

        let credentials = Credentials::new(store);
        assert_eq!(credentials.find("a.example"), None);
        assert_eq!(credentials.find("b.example"), Some(RegistryLogin::Bearer("two-token".into())));
    }
}
