//! The lattice as a provider sees it: what it was told, its links, and the way to its actors.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::links::Links;
use crate::{
    claims::{AntiForgery, KeyPair},
    error::{Error, Result},
    nats::{
        Connection, Endpoint, Login, Timing, Tls,
        bodies::Bodies,
        calls::{read_answer, seal},
        connection::Answer,
        endpoint::DEFAULT_PORT,
    },
    wire::{
        Entity, Invocation, LinkDefinition, chunk,
        host_data::HostData,
        subject::{DEFAULT_CONTROL_PREFIX, Subjects},
    },
};

/// Where the lattice is when the host does not say.
const DEFAULT_SERVER: &str = "127.0.0.1";

/// How long calls may take when the host does not say; the SDKs' figure.
const DEFAULT_RPC_TIMEOUT: Duration = Duration::from_millis(2000);

/// Widest first wait before connecting again. Half a second: the server a provider speaks to is near, often on the board.
const RECONNECT_BASE: Duration = Duration::from_millis(500);

/// Widest wait ever. Ten seconds: hosts probe every thirty and take a provider that misses a few probes for dead.
const RECONNECT_CAP: Duration = Duration::from_secs(10);

/// A provider's place in its lattice. Cheap to clone.
#[derive(Clone)]
pub struct Lattice(Arc<Inner>);

pub(super) struct Inner {
    pub host_data: HostData,
    pub anti_forgery: AntiForgery,
    pub connection: Connection,
    pub subjects: Subjects,
    pub bodies: Bodies,
    pub links: Links,
    pub rpc_timeout: Duration,
}

impl Lattice {
    /// Begins to connect and returns at once.
    ///
    /// # Errors
    /// The host data cannot be used.
    pub(super) async fn open(host_data: HostData) -> Result<Self> {
        let told = |error: Error| error.context("host data");
        if host_data.provider_key.is_empty() || host_data.link_name.is_empty() {
            return Err(told(Error::invalid("provider_key and link_name are needed")));
        }
        let seed =
            KeyPair::from_seed(&host_data.invocation_seed).map_err(|error| told(error.context("invocation_seed")))?;
        let anti_forgery = AntiForgery::new(seed, host_data.cluster_issuers.iter().cloned()).map_err(told)?;
        let subjects = Subjects::new(DEFAULT_CONTROL_PREFIX, &host_data.lattice_rpc_prefix).map_err(told)?;
        let login = Login::from_jwt_and_seed(&host_data.lattice_rpc_user_jwt, &host_data.lattice_rpc_user_seed);
        let server = Some(host_data.lattice_rpc_url.as_str()).filter(|url| !url.is_empty()).unwrap_or(DEFAULT_SERVER);
        let tls = Tls { required: host_data.lattice_rpc_tls, ..Tls::default() };
        let endpoint = Endpoint::parse(server, DEFAULT_PORT, login.map_err(told)?, tls).map_err(told)?;
        let timing = Timing { reconnect_base: RECONNECT_BASE, reconnect_cap: RECONNECT_CAP, ..Timing::default() };
        let connection = Connection::open("calls", &endpoint, &timing, &host_data.provider_key).await?;
        let bodies = Bodies::new(connection.clone(), subjects.lattice(), host_data.js_domain.as_deref());
        let rpc_timeout = host_data.default_rpc_timeout_ms.map_or(DEFAULT_RPC_TIMEOUT, Duration::from_millis);
        let links = Links::default();
        Ok(Self(Arc::new(Inner { host_data, anti_forgery, connection, subjects, bodies, links, rpc_timeout })))
    }

    pub(super) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Configuration given with the start command, usually JSON; `None` when there is none.
    pub fn configuration(&self) -> Option<&str> {
        self.0.host_data.config_json.as_deref().filter(|text| !text.trim().is_empty())
    }

    /// The provider's key, `V…`.
    pub fn provider_key(&self) -> &str {
        &self.0.host_data.provider_key
    }

    /// The link name served.
    pub fn link_name(&self) -> &str {
        &self.0.host_data.link_name
    }

    /// How long calls may take, either way.
    pub fn rpc_timeout(&self) -> Duration {
        self.0.rpc_timeout
    }

    /// The link of `actor`, if it has one.
    pub fn find_link(&self, actor: &str) -> Option<Arc<LinkDefinition>> {
        self.0.links.find(actor)
    }

    /// Calls `operation` of the actor of `link` and answers the body of its answer.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind::Unavailable): no connection now;
    /// [`Kind::Timeout`](crate::error::Kind::Timeout): no answer in time;
    /// [`Kind::Guest`](crate::error::Kind::Guest): the actor's own error.
    pub async fn call_actor(&self, link: &LinkDefinition, operation: &str, payload: Vec<u8>) -> Result<Vec<u8>> {
        let inner = &self.0;
        let extra = if chunk::must_store(payload.len()) { chunk::EXTRA_TIME } else { Duration::ZERO };
        let deadline = Instant::now() + inner.rpc_timeout + extra;
        let left = || deadline.saturating_duration_since(Instant::now());
        let invocation = Invocation {
            origin: Entity::provider(&link.provider_id, &link.contract_id, &link.link_name),
            target: Entity::actor(&link.actor_id),
            operation: operation.to_owned(),
            host_id: inner.host_data.host_id.clone(),
            ..Invocation::default()
        };
        let invocation = seal(invocation, payload, &inner.anti_forgery, &inner.bodies, left()).await?;
        let subject = inner.subjects.actor(&link.actor_id);
        match inner.connection.request(subject, None, invocation.encode()?, left()).await? {
            Answer::Message(message) => {
                read_answer(&inner.bodies, &invocation.id, &message, left().max(chunk::EXTRA_TIME)).await
            }
            Answer::Nobody => Err(Error::unavailable(format!("no host runs actor {} now", link.actor_id))),
            Answer::Silence => Err(Error::timeout(format!(
                "actor {} gave no answer to {operation} within {} ms",
                link.actor_id,
                (inner.rpc_timeout + extra).as_millis()
            ))),
        }
    }
}
