//! What providers are told and held to. `config` builds these.

use std::{path::PathBuf, time::Duration};

use super::{confine::Confinement, credentials::Minting, environment::Filter, layers::Kernel, rules::Rules};
use crate::claims::{KeyPair, Now};

/// Time from the start to the first probe (`protocol/providers.md §7`).
pub const FIRST_PROBE: Duration = Duration::from_secs(5);

/// Time between two probes (`protocol/providers.md §7`).
pub const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// How often in a row a process that ended by itself is started again.
pub const RESTARTS: u32 = 10;

/// Longest [`Settings::shutdown_delay`]. Half a minute: it may pass twice in one stop, which must end before the host's
/// watchdog takes it for stuck.
pub const MAX_SHUTDOWN_DELAY: Duration = Duration::from_secs(30);

/// Settings of all providers of this host.
pub struct Settings {
    /// Where binaries are unpacked and providers have their working directories.
    pub directory: PathBuf,
    /// The program that supervises: this one.
    pub helper: PathBuf,
    /// `N…`.
    pub host_id: String,
    /// Name of the lattice.
    pub lattice: String,
    /// What they reach NATS by.
    pub nats: Nats,
    /// Makes each of them a login of its own, which then takes the place of that of [`Settings::nats`].
    pub minting: Option<Minting>,
    /// What the time is, for dating those.
    pub clock: fn() -> Now,
    /// Control prefix of the lattice's subjects.
    pub control_prefix: String,
    /// Signs their invocations.
    pub cluster: KeyPair,
    /// Whose invocations they accept, `C…`.
    pub cluster_issuers: Vec<String>,
    /// How long an invocation may take.
    pub rpc_timeout: Duration,
    /// JetStream domain, passed on.
    pub js_domain: Option<String>,
    /// Whether they log JSON.
    pub structured_logging: bool,
    /// Their log level, where the operator set one.
    pub log_level: Option<String>,
    /// `OTEL_TRACES_EXPORTER` and `OTEL_EXPORTER_OTLP_ENDPOINT` of this host.
    pub telemetry: (Option<String>, Option<String>),
    /// What of this host's environment they see.
    pub environment: Filter,
    /// What they may use and reach.
    pub confinement: Confinement,
    /// What single ones may.
    pub rules: Rules,
    /// What this kernel can confine them by; found out when the room is opened.
    pub kernel: Kernel,
    /// Where control groups for them may be made; found out when the room is opened.
    pub cgroup: Option<PathBuf>,
    /// Whether archives run whose token is expired or badly signed, as hosts before this one did.
    pub legacy_archives: bool,
    /// How often in a row one that ended by itself is started again.
    pub restarts: u32,
    /// Time from the start to the first probe.
    pub first_probe: Duration,
    /// Time between two probes.
    pub probe_interval: Duration,
    /// How long it may take to end after it was asked to, and again after SIGTERM; at most [`MAX_SHUTDOWN_DELAY`].
    pub shutdown_delay: Duration,
}

/// What providers reach NATS by.
#[derive(Clone)]
pub struct Nats {
    /// `nats://host:port` or `tls://host:port`.
    pub url: String,
    /// Whether the line is TLS.
    pub tls: bool,
    /// Token they log in with, `""` for none.
    pub jwt: String,
    /// Its seed, `""` for none.
    pub seed: String,
}
