//! From settings to the host's place in its lattice.
//!
//! A host joins the lattice of the server somebody named. A host that is no service also joins that of a server on this
//! machine which belongs to root or to the same user (`WASMCLOUD_JOIN` says otherwise). Told to stay alone, nothing of this is started.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    claims::{AntiForgery, KeyPair, Role},
    config::{Config, Nats},
    error::{Error, Result},
    host::{Host, Liveness, event::Events},
    lattice::{Lattice, LatticeEvents, Mailbox, NatsBroker, Settings},
    nats::{Endpoint, LocalServer, Login, Owners, Timing},
    private,
    store::Store,
};

/// The key that signs this host's invocations.
pub struct Cluster {
    /// The key.
    pub key: KeyPair,
    /// Whether it was made up for this run, because no seed is set.
    ad_hoc: bool,
}

/// The cluster's key; nothing for a host by itself with no seed set.
pub fn cluster(config: &Config) -> Result<Option<Cluster>> {
    let cluster = match config.cluster_key() {
        Some(key) => Cluster { key, ad_hoc: false },
        None if config.joins() => Cluster { key: KeyPair::generate(Role::Cluster)?, ad_hoc: true },
        None => return Ok(None),
    };
    cluster.key.keep_in_memory();
    Ok(Some(cluster))
}

/// A place in the lattice that is not taken yet; nothing for a host by itself.
pub struct Joining(Option<(Settings, AntiForgery, Arc<LatticeEvents>)>);

impl Joining {
    /// Reads where the lattice is, and listens to the events of the host `id` from its first one on; `store` may hold events
    /// of an earlier run.
    pub fn prepare(
        config: &Config,
        cluster: Option<Cluster>,
        id: &str,
        store: &Store,
        listeners: &mut Vec<Arc<dyn Events>>,
    ) -> Result<Self> {
        let Some(cluster) = cluster.filter(|_| config.joins()) else { return Ok(Self(None)) };
        let mut settings =
            Settings { named: config.names_a_server(), ad_hoc_cluster: cluster.ad_hoc, ..endpoints(config)? };
        if config.providers.account_seed.is_some() {
            let inbox = Some(crate::provider::credentials::inbox_prefix(id));
            (settings.control.inbox, settings.rpc.inbox) = (inbox.clone(), inbox);
        }
        let anti_forgery = AntiForgery::new(cluster.key, config.cluster_issuers.iter().cloned())?
            .with_max_age(config.invocation_max_age);
        let limits = (settings.outbox_events, settings.outbox_bytes);
        let mailbox = Mailbox::open(id, limits, Some(store.clone()), config.outbox_on_disk)?;
        let events = LatticeEvents::new(id, mailbox);
        listeners.push(events.clone());
        Ok(Self(Some((settings, anti_forgery, events))))
    }

    /// Lets the host run providers as processes; they are reached over NATS, so a host by itself cannot.
    pub fn allow_processes(&self, config: &Config, host: &Arc<Host>) -> Result<()> {
        let Some((_, anti_forgery, _)) = &self.0 else { return Ok(()) };
        let issuers = anti_forgery.issuers().map(str::to_owned).collect();
        let settings = super::providers::settings(config, host, anti_forgery.key().clone(), issuers)?;
        host.set_processes(crate::provider::Providers::new(settings));
        Ok(())
    }

    /// Begins to connect; returns without waiting for a server. `broker` may use the connection for invocations.
    pub async fn join(self, host: &Arc<Host>, broker: &NatsBroker) -> Result<Joined> {
        Ok(Joined(match self.0 {
            Some((settings, anti_forgery, events)) => {
                let lattice = Lattice::start(settings, host.clone(), anti_forgery, events).await?;
                lattice.lend(broker);
                Some(lattice)
            }
            None => None,
        }))
    }
}

/// A place in the lattice; nothing for a host by itself.
pub struct Joined(Option<Lattice>);

impl Joined {
    /// Has `liveness` watch its loops too.
    pub fn watch(&self, liveness: &mut Liveness) {
        if let Some(lattice) = &self.0 {
            liveness.add("nats", lattice.ask());
        }
    }

    /// Says good-bye.
    pub async fn leave(self) {
        if let Some(lattice) = self.0 {
            lattice.stop().await;
        }
    }
}

/// What signs calls from the command line.
///
/// # Errors
/// `Config` when no cluster seed is set: no host would believe a key made up here.
pub fn signer(config: &Config) -> Result<AntiForgery> {
    let key = config.cluster_key().ok_or_else(|| {
        Error::config("calls over the lattice must be signed: set WASMCLOUD_CLUSTER_SEED to the seed its hosts have")
    })?;
    AntiForgery::new(key, config.cluster_issuers.iter().cloned())
}

/// Where the lattice is, whether or not somebody named it: for commands that are of no use without it.
pub fn endpoints(config: &Config) -> Result<Settings> {
    Ok(Settings {
        rpc: endpoint(config, &config.rpc, config.names_rpc_server())?,
        control_prefix: config.ctl_topic_prefix.clone(),
        js_domain: config.js_domain.clone(),
        rpc_timeout: config.rpc_timeout,
        probe_interval: config.providers.probe_interval,
        config_service: config.config_service,
        timing: timing(config),
        outbox_events: config.outbox_events,
        outbox_bytes: config.outbox_bytes,
        ..Settings::new(config.lattice.clone(), endpoint(config, &config.ctl, config.names_ctl_server())?)
    })
}

/// Patience with the network.
pub fn timing(config: &Config) -> Timing {
    Timing {
        reconnect_base: config.reconnect_base,
        reconnect_cap: config.reconnect_cap,
        silence: config.silence,
        ..Timing::default()
    }
}

fn endpoint(config: &Config, nats: &Nats, named: bool) -> Result<Endpoint> {
    let key = nats.tls.certificate.as_ref().map(|(_, key)| key);
    // One that is not there yet is looked for again with each attempt to connect.
    for secret in [key, nats.credentials_file.as_ref()].into_iter().flatten().filter(|path| path.exists()) {
        private::check(secret)?;
    }
    let text = |secret: &Option<crate::config::Secret>| secret.as_ref().map_or("", |secret| secret.expose()).to_owned();
    let login = match (&nats.credentials_file, &nats.user, &nats.password) {
        (Some(file), ..) => Login::CredentialsFile(file.clone()),
        (None, Some(user), _) => Login::UserPassword { user: user.clone(), password: text(&nats.password) },
        (None, None, Some(token)) => Login::Token(token.expose().to_owned()),
        (None, None, None) => Login::from_jwt_and_seed(&text(&nats.jwt), &text(&nats.seed))?,
    };
    let mut endpoint = Endpoint::parse(&nats.host, nats.port, login, nats.tls.clone())?;
    if !named {
        // The default, which is an address of this machine.
        let ip = nats.host.parse().map_err(|_| Error::internal(format!("{} is no address", nats.host)))?;
        let owners = if config.service { Owners::Root } else { Owners::RootOrSelf };
        endpoint.unnamed = Some(LocalServer { address: SocketAddr::new(ip, nats.port), owners });
    }
    Ok(endpoint)
}
