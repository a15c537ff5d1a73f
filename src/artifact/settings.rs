//! What the host decides for artifacts of all sources together.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{allowed_hosts::AllowedHosts, artifact::retention, lock::RwLock};

/// Default of the longest time one download may take, waits and attempts included: 30 minutes; 64 MiB at 64 KB/s are 17.
pub const DEFAULT_TOTAL: Duration = Duration::from_secs(30 * 60);

/// Default of the longest silence of a source while it answers: 30 seconds. A mobile link that changes cells is silent for
/// ten; past this the connection is given up and the rest is asked for again.
pub const DEFAULT_IDLE: Duration = Duration::from_secs(30);

/// Default of the attempts in a row that may bring nothing new before a download is given up: five, with the waits between
/// them about ten seconds for a name that does not resolve. An attempt that brings bytes starts the count again.
pub const DEFAULT_ATTEMPTS: u32 = 5;

/// See each member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes that all artifacts may take; see [`retention`].
    pub budget_bytes: u64,
    /// Whether references that do not say which content they mean are refused.
    pub require_digest: bool,
    /// Longest time for one download.
    pub total: Duration,
    /// Longest silence of a source.
    pub idle: Duration,
    /// Attempts in a row that may bring nothing; see [`DEFAULT_ATTEMPTS`].
    pub attempts: u32,
    /// Bytes a second that all downloads together may bring in; 0 for no limit.
    pub bytes_per_second: u64,
    /// Whether the tag `latest` may be fetched.
    pub allow_latest: bool,
    /// Registries reached without TLS, with their ports.
    pub insecure: Vec<String>,
    /// PEM file with roots to trust beside the platform's, for registries and downloads.
    pub ca_file: Option<PathBuf>,
    /// What commands of the lattice may have fetched: every host with a public address, and what the operator lists.
    pub fetch_allow: AllowedHosts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            budget_bytes: retention::DEFAULT_BUDGET_BYTES,
            require_digest: false,
            total: DEFAULT_TOTAL,
            idle: DEFAULT_IDLE,
            attempts: DEFAULT_ATTEMPTS,
            bytes_per_second: 0,
            allow_latest: false,
            insecure: Vec::new(),
            ca_file: None,
            fetch_allow: AllowedHosts::default(),
        }
    }
}

/// Settings as they stand, shared by everything that fetches: a reload changes them for all of it at once.
#[derive(Clone, Debug)]
pub struct Live(Arc<RwLock<Arc<Settings>>>);

impl Live {
    /// What holds now. Whoever does one thing asks once, so that the whole of it follows the same rules.
    pub fn now(&self) -> Arc<Settings> {
        self.0.read().clone()
    }

    /// What holds from now on.
    pub fn set(&self, settings: Settings) {
        *self.0.write() = Arc::new(settings);
    }
}

impl From<Settings> for Live {
    fn from(settings: Settings) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(settings))))
    }
}
