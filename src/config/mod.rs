//! Where a setting can come from, in which order it wins, and what comes out: one [`Config`].
//!
//! Called by the commands that start or check a host. The rooms below get settings structs of their own from it and
//! never learn where a value came from. Reading is [`Sources::gather`]; everything else here is pure but for
//! [`host_config::write`].

pub mod credentials;
pub mod dotenv;
mod friendly;
pub mod host_config;
pub mod labels;
pub mod manifest;
mod providers;
mod secret;
pub mod settings;
mod sources;
mod surroundings;
pub mod value;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

pub use friendly::{friendly_name, is_host_name, machine_name};
pub use providers::Providers;
pub use secret::Secret;
pub use sources::{Effective, Given, Origin, Sources};
pub use surroundings::Surroundings;

use crate::{
    actor,
    allowed_hosts::AllowedHosts,
    artifact::{self, fetch_rules::ALLOW_SETTING},
    capability::key_value,
    claims::{AllowedIssuers, KeyPair, issuer, keys::wipe_stack},
    error::{Error, Result},
    host::{Policy, health, remote},
    log, nats, store,
};

/// Every setting in effect, typed, and where each value came from.
#[derive(Clone)]
pub struct Config {
    /// Name of the lattice.
    pub lattice: String,
    /// Name of this host for people, where one is set.
    pub host_name: Option<String>,
    /// Seed of this host's key, already checked; without one the host keeps a key of its own.
    host_key: Option<KeyPair>,
    /// Seed of the cluster key, already checked.
    cluster_key: Option<KeyPair>,
    /// `C…` keys whose invocations are accepted, beside our own.
    pub cluster_issuers: Vec<String>,
    /// How far the moment an invocation was signed at may be from our clock; zero allows any.
    pub invocation_max_age: Duration,
    /// Connection for invocations.
    pub rpc: Nats,
    /// How long an invocation over the lattice may take.
    pub rpc_timeout: Duration,
    /// Connection for the control interface.
    pub ctl: Nats,
    /// Beginning of its subjects.
    pub ctl_topic_prefix: String,
    /// JetStream domain of the lattice's bucket.
    pub js_domain: Option<String>,
    /// Connection that providers are told.
    pub provider_rpc: Nats,
    /// Widest first wait before connecting again.
    pub reconnect_base: Duration,
    /// Widest wait before connecting again.
    pub reconnect_cap: Duration,
    /// How long a silent connection may look alive.
    pub silence: Duration,
    /// Events kept while there is no connection.
    pub outbox_events: usize,
    /// Their bytes.
    pub outbox_bytes: usize,
    /// Whether they are on disk too.
    pub outbox_on_disk: bool,
    /// How long a provider may take to stop.
    pub provider_delay: Duration,
    /// What providers as processes are held to.
    pub providers: Providers,
    /// Whether remote commands may name files; the manifest on the command line always may.
    pub allow_file_load: bool,
    /// File with logins for registries.
    pub registry_logins: Option<PathBuf>,
    /// How to log in to one registry, where the lattice sends nothing for it.
    pub registry: Option<RegistryAccount>,
    /// This board's part among the mirrors of its site.
    pub mirror: MirrorSettings,
    /// Limits of what is fetched and kept, and how registries are reached.
    pub artifacts: artifact::Settings,
    /// Whether live updates may not claim more than what runs.
    pub strict_update: bool,
    /// What commands over the lattice may do.
    pub remote: remote::Rule,
    /// Where links that came over the lattice may listen beside loopback.
    pub remote_listen: Vec<IpAddr>,
    /// Whether the lattice's configuration service is asked at the start.
    pub config_service: bool,
    /// Whose actors and providers may run.
    pub allowed_issuers: AllowedIssuers,
    /// Accounts whose actors and providers may take the place of another account's.
    pub update_issuers: AllowedIssuers,
    /// Where everything is kept.
    pub state_directory: PathBuf,
    /// Where commands reach the host.
    pub admin_socket: PathBuf,
    /// Where to write `host_config.json` at start, if at all.
    pub host_config: Option<PathBuf>,
    /// How long work in flight may take when the host stops.
    pub drain: Duration,
    /// Where probes are answered, if anywhere.
    pub probes: Option<String>,
    /// How health is judged.
    pub health: health::Settings,
    /// Limits of guests.
    pub actor: actor::Settings,
    /// Threads that run guests beside the main one.
    pub workers: usize,
    /// Whether other processes of the user may look into this one.
    pub dumpable: bool,
    /// Limits of what is kept.
    pub store: store::Settings,
    /// Limits of one keyspace, where its link sets none.
    pub key_value: key_value::Quotas,
    /// The log.
    pub log: log::Settings,
    /// `HOST_*`, given and built-in labels.
    pub labels: BTreeMap<String, String>,
    /// What the operator should know; log them once the log is set up.
    pub warnings: Vec<String>,
    /// Whether a service manager started this process as a service.
    pub service: bool,
    values: Vec<Effective>,
}

/// A mirror of its own, and the mirrors it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Where to serve, if at all.
    pub listen: Option<SocketAddr>,
    /// Certificate and key for that.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What is to be shown there and elsewhere.
    pub token: Option<Secret>,
    /// Whom to ask, in this order.
    pub sources: Vec<String>,
    /// How often names are looked up again; zero for never.
    pub poll: Duration,
}

/// An account at a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAccount {
    /// Host of the registry, with its port.
    pub registry: String,
    /// User name.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// One connection to NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nats {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Seed of the user.
    pub seed: Option<Secret>,
    /// Token of the user.
    pub jwt: Option<Secret>,
    /// File with both, which wins over them.
    pub credentials_file: Option<PathBuf>,
    /// User name.
    pub user: Option<String>,
    /// Password of the user, or a token where there is none.
    pub password: Option<Secret>,
    /// How the line is kept private.
    pub tls: nats::Tls,
}

impl Config {
    /// Reads all sources from the current directory. `given` and `labels` come from the command line.
    ///
    /// # Errors
    /// `Config`: a file or value cannot be used; `NotFound`: a `host_config` that was asked for does not exist.
    pub fn load(host_config: Option<&Path>, given: Vec<Given>, labels: &[(String, String)]) -> Result<Self> {
        let mut sources = Sources::gather(Path::new("."), host_config, given)?;
        let config = Self::from_sources(&sources, labels);
        sources.wipe();
        wipe_stack();
        config
    }

    /// As [`Config::load`], with the settings in `env_file` just weaker than the environment.
    ///
    /// # Errors
    /// As [`Config::load`]; `NotFound`: there is no such file.
    pub fn load_with(host_config: Option<&Path>, env_file: Option<&Path>) -> Result<Self> {
        let mut sources = Sources::gather(Path::new("."), host_config, Vec::new())?;
        if let Some(path) = env_file {
            sources.add_env_file(path)?;
        }
        let config = Self::from_sources(&sources, &[]);
        sources.wipe();
        wipe_stack();
        config
    }

    /// The configuration that `sources` and `labels` of the command line come to.
    ///
    /// # Errors
    /// `Config`: a value cannot be used.
    pub fn from_sources(sources: &Sources, labels: &[(String, String)]) -> Result<Self> {
        let (values, mut warnings) = sources.resolve()?;
        let read = Values(&values);
        read.refuse_policy()?;
        let (labels, more) = labels::labels(sources.with_prefix(labels::PREFIX), labels);
        warnings.extend(more);
        let (registry, incomplete) = read.registry();
        warnings.extend(incomplete);
        let mut config = Self {
            lattice: read.text("WASMCLOUD_LATTICE_PREFIX").to_owned(),
            host_name: Some(read.text("WASMCLOUD_HOST_NAME").to_owned()).filter(|name| !name.is_empty()),
            host_key: read.key("WASMCLOUD_HOST_SEED")?,
            cluster_key: read.key("WASMCLOUD_CLUSTER_SEED")?,
            cluster_issuers: read.list("WASMCLOUD_CLUSTER_ISSUERS"),
            invocation_max_age: read.millis("WASMCLOUD_INVOCATION_MAX_AGE_MS"),
            rpc: read.own_nats("WASMCLOUD_RPC")?,
            rpc_timeout: read.millis("WASMCLOUD_RPC_TIMEOUT_MS"),
            ctl: read.own_nats("WASMCLOUD_CTL")?,
            ctl_topic_prefix: read.text("WASMCLOUD_CTL_TOPIC_PREFIX").to_owned(),
            js_domain: Some(read.text("WASMCLOUD_JS_DOMAIN").to_owned()).filter(|domain| !domain.is_empty()),
            provider_rpc: read.provider_nats(),
            reconnect_base: read.millis("WASMCLOUD_NATS_RECONNECT_BASE_MS"),
            reconnect_cap: read.millis("WASMCLOUD_NATS_RECONNECT_CAP_MS"),
            silence: read.millis("WASMCLOUD_NATS_SILENCE_MS"),
            outbox_events: read.number("WASMCLOUD_OUTBOX_EVENTS"),
            outbox_bytes: read.number("WASMCLOUD_OUTBOX_BYTES"),
            outbox_on_disk: read.flag("WASMCLOUD_OUTBOX_ON_DISK"),
            provider_delay: read.millis("WASMCLOUD_PROV_SHUTDOWN_DELAY_MS"),
            providers: Providers::read(&read),
            allow_file_load: read.flag("WASMCLOUD_ALLOW_FILE_LOAD"),
            strict_update: read.flag("WASMCLOUD_STRICT_UPDATE_CHECK"),
            remote: remote::Rule::of(read.text(remote::SETTING)),
            remote_listen: addresses("WASMCLOUD_REMOTE_LISTEN", &read.list("WASMCLOUD_REMOTE_LISTEN"))?,
            config_service: read.flag("WASMCLOUD_CONFIG_SERVICE"),
            registry,
            registry_logins: read.path("WASMCLOUD_OCI_AUTH_FILE"),
            artifacts: read.artifacts()?,
            mirror: read.mirror()?,
            allowed_issuers: AllowedIssuers::parse(read.text(issuer::SETTING), issuer::SETTING)?,
            update_issuers: match read.text(issuer::UPDATE_SETTING) {
                "" => AllowedIssuers::none(),
                list => AllowedIssuers::parse(list, issuer::UPDATE_SETTING)?,
            },
            state_directory: read.path("WASMCLOUD_STATE_DIR").ok_or_else(|| {
                Error::config("WASMCLOUD_STATE_DIR is not set, and without HOME there is no default for it")
            })?,
            admin_socket: read
                .path("WASMCLOUD_ADMIN_SOCKET")
                .ok_or_else(|| Error::config("WASMCLOUD_ADMIN_SOCKET is not set"))?,
            host_config: read.path("HOST_CONFIG"),
            drain: read.millis("WASMCLOUD_DRAIN_MS"),
            probes: Some(read.text("WASMCLOUD_PROBES").to_owned()).filter(|place| !place.is_empty()),
            health: health::Settings {
                period: read.millis("WASMCLOUD_HEALTH_PERIOD_MS"),
                failures: read.number("WASMCLOUD_HEALTH_FAILURES"),
                restarts: read.number("WASMCLOUD_HEALTH_RESTARTS"),
            },
            actor: read.actor(),
            workers: read.number("WASMCLOUD_WORKERS"),
            dumpable: read.flag("WASMCLOUD_DUMPABLE"),
            store: store::Settings {
                max_bytes: read.number("WASMCLOUD_STORE_BYTES"),
                max_keys: read.number("WASMCLOUD_STORE_KEYS"),
                ..store::Settings::default()
            },
            key_value: key_value::Quotas {
                max_bytes: read.number("WASMCLOUD_KV_BYTES"),
                max_keys: read.number("WASMCLOUD_KV_KEYS"),
                max_value_bytes: read.number("WASMCLOUD_KV_VALUE_BYTES"),
                max_elements: read.number("WASMCLOUD_KV_ELEMENTS"),
            },
            log: log::Settings {
                level: log::Level::parse(read.text("WASMCLOUD_LOG_LEVEL")).unwrap_or(log::Level::Info),
                structured: read.flag("WASMCLOUD_STRUCTURED_LOGGING_ENABLED"),
            },
            labels,
            warnings,
            service: sources.surroundings.service,
            values,
        };
        // The keys are read; whose they are is all that is asked of these later.
        for value in &mut config.values {
            value.forget_seed();
        }
        Ok(config)
    }

    /// Every setting with its value and origin, in the order of the table.
    pub fn values(&self) -> &[Effective] {
        &self.values
    }

    /// Whether somebody named a NATS server; else the one of the defaults is meant.
    pub fn names_a_server(&self) -> bool {
        self.names_rpc_server() || self.names_ctl_server()
    }

    /// Whether somebody named the server for invocations.
    pub fn names_rpc_server(&self) -> bool {
        self.names("WASMCLOUD_RPC_HOST") || self.names("WASMCLOUD_RPC_PORT")
    }

    /// Whether somebody named the server for the control interface.
    pub fn names_ctl_server(&self) -> bool {
        self.names("WASMCLOUD_CTL_HOST") || self.names("WASMCLOUD_CTL_PORT")
    }

    fn names(&self, setting: &str) -> bool {
        Values(&self.values).is_chosen(setting)
    }

    /// Whether this host looks for a lattice at all.
    pub fn joins(&self) -> bool {
        match Values(&self.values).text("WASMCLOUD_JOIN") {
            "never" => false,
            "named" => self.names_a_server(),
            _ => true,
        }
    }

    /// When this host counts as ready.
    pub fn readiness(&self) -> Policy {
        match Values(&self.values).text("WASMCLOUD_READINESS") {
            "lattice" if self.joins() => Policy::Lattice,
            "auto" if self.joins() && self.names_a_server() => Policy::Lattice,
            _ => Policy::Local,
        }
    }

    /// The host key that was set, if any.
    pub fn host_key(&self) -> Option<KeyPair> {
        self.host_key.clone()
    }

    /// The cluster key that was set, if any.
    pub fn cluster_key(&self) -> Option<KeyPair> {
        self.cluster_key.clone()
    }
}

/// Typed access to values that are already checked against the table.
struct Values<'a>(&'a [Effective]);

/// Settings of the policy service, which no part of this program asks yet.
const POLICY: [&str; 3] = ["WASMCLOUD_POLICY_TOPIC", "WASMCLOUD_POLICY_CHANGES_TOPIC", "WASMCLOUD_POLICY_TIMEOUT"];

impl Values<'_> {
    /// Refuses to start where somebody believes that a policy service decides what may run and call here.
    fn refuse_policy(&self) -> Result<()> {
        match POLICY.into_iter().find(|name| self.is_chosen(name)) {
            None => Ok(()),
            Some(name) => {
                let origin =
                    self.0.iter().find(|found| found.setting.name == name).map(|found| found.origin.to_string());
                Err(Error::config(format!(
                    "{name} is set ({}), but this version asks no policy service, so everything would be allowed that the \
                     service should decide: remove the setting; WASMCLOUD_ALLOWED_ISSUERS limits whose actors and \
                     providers run",
                    origin.unwrap_or_default()
                )))
            }
        }
    }

    /// Whether a person set `name`. A host writes every setting into `host_config.json` (`HOST_CONFIG`), the defaults too:
    /// a default that is found there was chosen by nobody.
    fn is_chosen(&self, name: &str) -> bool {
        #[cfg(test)]
        read_in_tests(name);
        self.0.iter().filter(|found| found.setting.name == name).any(|found| match found.origin {
            Origin::Default => false,
            Origin::HostConfig(_) => found.value != found.setting.default.value(&Surroundings::default()),
            _ => true,
        })
    }

    fn text(&self, name: &str) -> &str {
        #[cfg(test)]
        read_in_tests(name);
        let found = self.0.iter().find(|found| found.setting.name == name);
        debug_assert!(found.is_some(), "{name} is not in the table");
        found.map_or("", |found| found.value.as_str())
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(Secret::new)
    }

    fn key(&self, name: &str) -> Result<Option<KeyPair>> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(KeyPair::from_seed).transpose()
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.text(name).split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// A number that the table bounds to the range of its type.
    fn number<T: TryFrom<u64>>(&self, name: &str) -> T {
        let number: u64 = self.text(name).parse().expect("the table's kind and default are numbers");
        T::try_from(number).ok().expect("the table's bounds fit the type")
    }

    fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.number(name))
    }

    /// The account of `OCI_REGISTRY*`, or why what is set of it is none.
    fn registry(&self) -> (Option<RegistryAccount>, Option<String>) {
        let (registry, user) = (self.text("OCI_REGISTRY").to_owned(), self.text("OCI_REGISTRY_USER").to_owned());
        match (registry.is_empty(), user.is_empty(), self.secret("OCI_REGISTRY_PASSWORD")) {
            (false, false, Some(password)) => (Some(RegistryAccount { registry, user, password }), None),
            (true, true, None) => (None, None),
            _ => {
                let missing = "of OCI_REGISTRY, OCI_REGISTRY_USER and OCI_REGISTRY_PASSWORD some are not set, so nobody \
                               is logged in to a registry: set all three";
                (None, Some(missing.to_owned()))
            }
        }
    }

    fn mirror(&self) -> Result<MirrorSettings> {
        let listen = match self.text("WASMCLOUD_MIRROR_LISTEN") {
            "" => None,
            text => Some(text.parse().map_err(|_| {
                Error::config(format!(
                    "WASMCLOUD_MIRROR_LISTEN: {text:?} is no address with a port; write 0.0.0.0:8099 for all interfaces"
                ))
            })?),
        };
        Ok(MirrorSettings {
            listen,
            tls: self.certificate("WASMCLOUD_MIRROR_TLS_CERT_FILE", "WASMCLOUD_MIRROR_TLS_KEY_FILE")?,
            token: self.secret("WASMCLOUD_MIRROR_TOKEN"),
            sources: self.list("WASMCLOUD_MIRRORS"),
            poll: self.millis("WASMCLOUD_MIRROR_POLL_MS"),
        })
    }

    /// A certificate and its key: both or none.
    fn certificate(&self, certificate: &str, key: &str) -> Result<Option<(PathBuf, PathBuf)>> {
        match (self.path(certificate), self.path(key)) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            _ => Err(Error::config(format!("{certificate} and {key} belong together; set both or none"))),
        }
    }

    fn artifacts(&self) -> Result<artifact::Settings> {
        Ok(artifact::Settings {
            budget_bytes: self.number(artifact::retention::BUDGET_SETTING),
            require_digest: self.flag("WASMCLOUD_REQUIRE_DIGEST"),
            total: self.millis("WASMCLOUD_ARTIFACT_TIMEOUT_MS"),
            idle: self.millis("WASMCLOUD_ARTIFACT_IDLE_MS"),
            attempts: self.number("WASMCLOUD_ARTIFACT_ATTEMPTS"),
            bytes_per_second: self.number("WASMCLOUD_ARTIFACT_BYTES_PER_SECOND"),
            allow_latest: self.flag("WASMCLOUD_OCI_ALLOW_LATEST"),
            insecure: self.list("WASMCLOUD_OCI_ALLOWED_INSECURE"),
            ca_file: self.path("WASMCLOUD_ARTIFACT_CA_FILE"),
            fetch_allow: AllowedHosts::parse(self.text(ALLOW_SETTING), ALLOW_SETTING)?.and_public(),
        })
    }

    fn actor(&self) -> actor::Settings {
        actor::Settings {
            memory_bytes: self.number("WASMCLOUD_ACTOR_MEMORY_BYTES"),
            deadline: self.millis("WASMCLOUD_ACTOR_DEADLINE_MS"),
            fuel: self.number("WASMCLOUD_ACTOR_FUEL"),
            stack_depth: self.number("WASMCLOUD_ACTOR_STACK_DEPTH"),
            module_bytes: self.number("WASMCLOUD_ACTOR_MODULE_BYTES"),
            table_elements: self.number("WASMCLOUD_ACTOR_TABLE_ELEMENTS"),
            max_concurrent: self.number("WASMCLOUD_ACTOR_MAX_CONCURRENT"),
            queue: self.number("WASMCLOUD_ACTOR_QUEUE"),
            max_running: self.number("WASMCLOUD_MAX_RUNNING"),
            host_queue: self.number("WASMCLOUD_QUEUE"),
            payload_bytes: self.number("WASMCLOUD_ACTOR_PAYLOAD_BYTES"),
            nesting: self.number("WASMCLOUD_ACTOR_NESTING"),
            log_bytes: self.number("WASMCLOUD_ACTOR_LOG_BYTES"),
            log_per_second: self.number("WASMCLOUD_ACTOR_LOG_PER_SECOND"),
            module_cache_bytes: self.number("WASMCLOUD_MODULE_CACHE_BYTES"),
            slice_fuel: self.number("WASMCLOUD_SLICE_FUEL"),
            threads: self.number::<usize>("WASMCLOUD_WORKERS") + 1,
            // `deny-all` is the older name of `inert`.
            allow_wasi: self.text("WASMCLOUD_ALLOW_WASI") != "off",
            ..actor::Settings::default()
        }
    }

    /// What of a connection others may be told too.
    fn nats(&self, prefix: &str) -> Nats {
        let name = |part: &str| format!("{prefix}_{part}");
        Nats {
            host: self.text(&name("HOST")).to_owned(),
            port: self.number(&name("PORT")),
            seed: self.secret(&name("SEED")),
            jwt: self.secret(&name("JWT")),
            credentials_file: None,
            user: None,
            password: None,
            tls: nats::Tls { required: self.flag(&name("TLS")), ..nats::Tls::default() },
        }
    }

    /// What providers are told: where nobody named a server for them, the one we use ourselves.
    fn provider_nats(&self) -> Nats {
        let is_set =
            |name: &str| self.0.iter().any(|found| found.setting.name == name && found.origin != Origin::Default);
        let (own, theirs) = (self.nats("WASMCLOUD_RPC"), self.nats("WASMCLOUD_PROV_RPC"));
        if is_set("WASMCLOUD_PROV_RPC_HOST") || is_set("WASMCLOUD_PROV_RPC_PORT") {
            return theirs;
        }
        let required = own.tls.required || theirs.tls.required;
        Nats { host: own.host, port: own.port, tls: nats::Tls { required, ..theirs.tls }, ..theirs }
    }

    /// One of our own connections.
    fn own_nats(&self, prefix: &str) -> Result<Nats> {
        let name = |part: &str| format!("{prefix}_{part}");
        let certificate = self.certificate(&name("TLS_CERT_FILE"), &name("TLS_KEY_FILE"))?;
        let user = Some(self.text(&name("USER"))).filter(|user| !user.is_empty()).map(str::to_owned);
        let password = self.secret(&name("PASSWORD"));
        if user.is_some() && password.is_none() {
            return Err(Error::config(format!("{prefix}_USER is set without {prefix}_PASSWORD; set both")));
        }
        let plain = self.nats(prefix);
        Ok(Nats {
            credentials_file: self.path(&name("CREDSFILE")),
            user,
            password,
            tls: nats::Tls {
                first: self.flag(&name("TLS_FIRST")),
                ca: self.path(&name("TLS_CA_FILE")),
                certificate,
                ..plain.tls
            },
            ..plain
        })
    }
}

/// IP addresses of the setting `name`.
fn addresses(name: &str, texts: &[String]) -> Result<Vec<IpAddr>> {
    let address = |text: &String| {
        text.parse::<IpAddr>().map_err(|_| {
            Error::config(format!(
                "{name} holds {text:?}, which is no IP address: write addresses such as 192.0.2.7 or ::1, without a port"
            ))
        })
    };
    texts.iter().map(address).collect()
}

#[cfg(test)]
thread_local! {
    /// Names of the settings that this thread looked up.
    static READ: std::cell::RefCell<std::collections::BTreeSet<String>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

#[cfg(test)]
fn read_in_tests(name: &str) {
    READ.with_borrow_mut(|read| read.insert(name.to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Role;

    /// A setting that is declared and looked up by nothing would be believed to hold.
    #[test]
    fn every_setting_is_looked_up() {
        READ.with_borrow_mut(|read| read.clear());
        let config = config(&[]).expect("defaults are good");
        let _ = (config.joins(), config.names_a_server(), config.readiness());
        let read = READ.with_borrow(|read| read.clone());
        let unread: Vec<_> =
            settings::SETTINGS.iter().map(|setting| setting.name).filter(|name| !read.contains(*name)).collect();
        assert_eq!(unread, Vec::<&str>::new(), "nothing reads these settings");
    }

    /// What is looked up must also be used: each member of [`Config`] is taken by some file outside this room.
    #[test]
    fn every_member_of_the_configuration_is_used_outside() {
        fn sources(folder: &Path, text: &mut String) {
            for entry in std::fs::read_dir(folder).expect("the sources are there") {
                let path = entry.expect("the sources are there").path();
                if path.is_dir() && !path.ends_with("src/config") {
                    sources(&path, text);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    text.push_str(&std::fs::read_to_string(path).expect("the sources are text"));
                }
            }
        }
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let own = include_str!("mod.rs");
        let members =
            own.split_once("pub struct Config {").and_then(|(_, rest)| rest.split_once("\n}")).expect("it is here");
        let names = members.0.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
        let unused: Vec<_> = names
            .map(|(name, _)| name)
            .filter(|name| {
                let access = format!("config.{name}");
                let uses = text.match_indices(&access);
                !{ uses }.any(|(at, found)| {
                    !text[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
                })
            })
            .collect();
        assert_eq!(unused, Vec::<&str>::new(), "nothing outside the configuration uses these members");
    }

    #[test]
    fn a_policy_that_nobody_asks_ends_the_start() {
        for (name, value) in [
            ("WASMCLOUD_POLICY_TOPIC", "policy"),
            ("WASMCLOUD_POLICY_CHANGES_TOPIC", "policy.changes"),
            ("WASMCLOUD_POLICY_TIMEOUT", "1000"),
        ] {
            let error = config(&[(name, value)]).err().expect("it is refused");
            assert_eq!(error.kind(), crate::error::Kind::Config);
            for part in [name, "environment", "asks no policy service", "WASMCLOUD_ALLOWED_ISSUERS"] {
                assert!(error.text().contains(part), "{part}: {error}");
            }
        }
        // What a host wrote itself was chosen by nobody.
        let file = |text: &str| {
            let host_config = Some(("host_config.json".to_owned(), serde_json::from_str(text).expect("an object")));
            let sources = Sources { host_config, surroundings: Surroundings::of_root(), ..Sources::default() };
            Config::from_sources(&sources, &[])
        };
        let written = host_config::content(&config(&[]).expect("defaults are good"), None).to_string();
        assert!(file(&written).is_ok());
        assert!(file(r#"{"policy_topic": "policy"}"#).is_err());
        assert!(file(r#"{"policy_timeout_ms": 2000}"#).is_err());
    }

    fn config(environment: &[(&str, &str)]) -> Result<Config> {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let sources = Sources { environment, surroundings: Surroundings::of_root(), ..Sources::default() };
        Config::from_sources(&sources, &[])
    }

    #[test]
    fn an_empty_environment_gives_the_documented_defaults() {
        let config = config(&[]).expect("defaults are good");
        assert_eq!(config.lattice, "default");
        assert_eq!(config.state_directory, Path::new("/var/lib/latticed"));
        let local = Nats {
            host: "127.0.0.1".into(),
            port: 4222,
            seed: None,
            jwt: None,
            credentials_file: None,
            user: None,
            password: None,
            tls: nats::Tls::default(),
        };
        assert!([&config.rpc, &config.ctl, &config.provider_rpc].iter().all(|nats| **nats == local));
        assert_eq!((config.rpc_timeout, config.provider_delay), (Duration::from_secs(2), Duration::from_millis(400)));
        assert_eq!(config.ctl_topic_prefix, "wasmbus.ctl");
        assert!(!config.allow_file_load && config.allowed_issuers.is_any() && config.host_config.is_none());
        assert_eq!(config.log, log::Settings::default());
        assert_eq!(config.actor, actor::Settings::default());
        assert_eq!((config.store, config.key_value), (store::Settings::default(), key_value::Quotas::default()));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn values_reach_their_fields() {
        let host = KeyPair::generate(Role::Server).expect("random numbers");
        let issuers =
            [(); 2].map(|()| KeyPair::generate(Role::Cluster).expect("random numbers").public_key().to_string());
        let config = config(&[
            ("WASMCLOUD_HOST_SEED", host.seed().expose()),
            ("WASMCLOUD_RPC_SEED", "SUABC"),
            ("WASMCLOUD_CLUSTER_ISSUERS", &issuers.join(", ")),
            ("WASMCLOUD_LOG_LEVEL", "WARN"),
            ("WASMCLOUD_STRUCTURED_LOGGING_ENABLED", "1"),
            ("HOST_REGION", "eu"),
            ("WASMCLOUD_ACTOR_MEMORY_BYTES", "4MiB"),
            ("WASMCLOUD_ALLOW_WASI", "off"),
            ("WASMCLOUD_WORKERS", "3"),
            ("WASMCLOUD_KV_KEYS", "7"),
        ])
        .expect("good settings");
        assert_eq!(config.host_key().map(|key| key.public_key()), Some(host.public_key()));
        assert_eq!(config.rpc.seed.as_ref().map(Secret::expose), Some("SUABC"));
        assert_eq!(config.cluster_issuers, issuers);
        assert_eq!(config.log, log::Settings { level: log::Level::Warn, structured: true });
        assert_eq!((config.actor.memory_bytes, config.actor.allow_wasi, config.actor.threads), (4 << 20, false, 4));
        for value in ["inert", "deny-all"] {
            let config = self::config(&[("WASMCLOUD_ALLOW_WASI", value)]).expect("good settings");
            assert!(config.actor.allow_wasi, "{value}");
        }
        assert_eq!((config.workers, config.key_value.max_keys), (3, 7));
        assert_eq!(config.labels.get("region").map(String::as_str), Some("eu"));
    }

    #[test]
    fn readiness_follows_from_a_named_server_unless_it_is_set() {
        let policy = |environment: &[(&str, &str)]| config(environment).expect("good settings").readiness();
        let (named, local) = (("NATS_HOST", "hub"), ("WASMCLOUD_READINESS", "local"));
        assert_eq!(
            (policy(&[]), policy(&[named]), policy(&[named, local])),
            (Policy::Local, Policy::Lattice, Policy::Local)
        );
        assert_eq!(policy(&[("WASMCLOUD_READINESS", "lattice")]), Policy::Lattice);
        assert_eq!(policy(&[("WASMCLOUD_READINESS", "lattice"), ("WASMCLOUD_JOIN", "never")]), Policy::Local);
    }

    #[test]
    fn a_host_joins_unless_it_is_told_to_stay_alone() {
        let joins = |environment: &[(&str, &str)]| config(environment).expect("good settings").joins();
        assert!(joins(&[]));
        assert!(!joins(&[("WASMCLOUD_JOIN", "named")]));
        for name in ["NATS_HOST", "WASMCLOUD_CTL_PORT"] {
            assert!(joins(&[("WASMCLOUD_JOIN", "named"), (name, "4223")]), "{name}");
            assert!(!joins(&[("WASMCLOUD_JOIN", "never"), (name, "4223")]), "{name}");
        }
    }

    #[test]
    fn a_service_joins_only_a_server_that_is_named() {
        let service = |environment: &[(&str, &str)]| {
            let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let surroundings = Surroundings { service: true, ..Surroundings::of_root() };
            let sources = Sources { environment, surroundings, ..Sources::default() };
            Config::from_sources(&sources, &[]).expect("good settings")
        };
        assert!(!service(&[]).joins());
        assert!(service(&[("NATS_HOST", "127.0.0.1")]).joins());
        assert!(service(&[("WASMCLOUD_JOIN", "any")]).joins());
    }

    #[test]
    fn what_a_host_wrote_itself_names_no_server() {
        let file = |text: &str| {
            let members = serde_json::from_str(text).expect("an object");
            let host_config = Some(("host_config.json".to_owned(), members));
            let sources = Sources { host_config, surroundings: Surroundings::of_root(), ..Sources::default() };
            Config::from_sources(&sources, &[]).expect("good settings")
        };
        let written = host_config::content(&config(&[]).expect("defaults are good"), None).to_string();
        assert!(!file(&written).names_a_server());
        let named = file(r#"{"rpc_host": "hub"}"#);
        assert!(named.names_rpc_server() && !named.names_ctl_server());
    }

    /// Every bound of the table fits the type its value becomes.
    #[test]
    fn the_largest_values_are_taken() {
        for setting in settings::SETTINGS.iter().filter(|setting| !POLICY.contains(&setting.name)) {
            let (value::Kind::Count { min, max } | value::Kind::Bytes { min, max } | value::Kind::Millis { min, max }) =
                setting.kind
            else {
                continue;
            };
            for bound in [min, max] {
                assert!(config(&[(setting.name, &bound.to_string())]).is_ok(), "{} = {bound}", setting.name);
            }
        }
    }

    #[test]
    fn half_a_login_and_half_a_certificate_are_refused() {
        for (name, other) in [
            ("WASMCLOUD_RPC_USER", "WASMCLOUD_RPC_PASSWORD"),
            ("WASMCLOUD_CTL_TLS_CERT_FILE", "WASMCLOUD_CTL_TLS_KEY_FILE"),
            ("WASMCLOUD_CTL_TLS_KEY_FILE", "WASMCLOUD_CTL_TLS_CERT_FILE"),
        ] {
            let error = config(&[(name, "x")]).err().expect("half of it");
            assert!(error.text().contains(other), "{error}");
            let both = config(&[(name, "x"), (other, "y")]).expect("both");
            assert!(!format!("{:?}", both.rpc).contains("\"y\"") || !name.ends_with("USER"), "a password is shown");
        }
        let both = config(&[("WASMCLOUD_NATS_CREDSFILE", "/c"), ("WASMCLOUD_NATS_TLS_CA_FILE", "/ca")]).expect("good");
        for nats in [&both.rpc, &both.ctl] {
            assert_eq!(nats.credentials_file.as_deref(), Some(Path::new("/c")));
            assert_eq!(nats.tls.ca.as_deref(), Some(Path::new("/ca")));
        }
    }

    #[test]
    fn an_account_at_a_registry_is_whole_or_none() {
        let all =
            [("OCI_REGISTRY", "r.example:5000"), ("WASMCLOUD_OCI_REGISTRY_USER", "u"), ("OCI_REGISTRY_PASSWORD", "p")];
        let whole = config(&all).expect("good");
        let account = whole.registry.expect("all three are set");
        assert_eq!((account.registry.as_str(), account.user.as_str()), ("r.example:5000", "u"));
        assert_eq!(account.password.expose(), "p");
        assert!(whole.warnings.is_empty() && !format!("{account:?}").contains("\"p\""));
        for one in 0..3 {
            let two: Vec<_> = all.iter().enumerate().filter(|(n, _)| *n != one).map(|(_, set)| *set).collect();
            let part = config(&two).expect("a warning is enough");
            assert!(part.registry.is_none() && part.warnings.len() == 1, "{:?}", part.warnings);
        }
    }

    #[test]
    fn bad_issuers_are_refused() {
        let error = config(&[("WASMCLOUD_ALLOWED_ISSUERS", "nobody")]).err().expect("not a key");
        assert!(error.text().starts_with("WASMCLOUD_ALLOWED_ISSUERS"), "{error}");
    }
}
