//! What this host needs to know to take its place in a lattice. `config` builds it.

use std::time::Duration;

use super::event_queue;
use crate::nats::{Endpoint, Timing};

/// Everything about this host's place in its lattice.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where commands come in and events go out.
    pub control: Endpoint,
    /// Where actors and providers are called. Equal to `control`: one connection serves both.
    pub rpc: Endpoint,
    /// Whether somebody named these servers. If not, one may be there or not, and its absence is no reason to warn.
    pub named: bool,
    /// Whether the cluster's key was made up for this run.
    pub ad_hoc_cluster: bool,
    /// What control subjects start with.
    pub control_prefix: String,
    /// The lattice's name.
    pub lattice: String,
    /// JetStream domain of the lattice's bucket.
    pub js_domain: Option<String>,
    /// How long calls over the network may take.
    pub rpc_timeout: Duration,
    /// Time between two questions how a provider elsewhere is.
    pub probe_interval: Duration,
    /// Whether the lattice's configuration service is asked at the start.
    pub config_service: bool,
    /// Patience with the network.
    pub timing: Timing,
    /// Events kept while offline.
    pub outbox_events: usize,
    /// Their bytes.
    pub outbox_bytes: usize,
}

impl Settings {
    /// The lattice `lattice` on one endpoint for everything, all else as usual.
    pub fn new(lattice: impl Into<String>, endpoint: Endpoint) -> Self {
        Self {
            control: endpoint.clone(),
            rpc: endpoint,
            named: true,
            ad_hoc_cluster: false,
            control_prefix: crate::wire::subject::DEFAULT_CONTROL_PREFIX.to_owned(),
            lattice: lattice.into(),
            js_domain: None,
            rpc_timeout: Duration::from_millis(2000),
            probe_interval: Duration::from_secs(30),
            config_service: false,
            timing: Timing::default(),
            outbox_events: event_queue::DEFAULT_MAX_EVENTS,
            outbox_bytes: event_queue::DEFAULT_MAX_BYTES,
        }
    }
}
