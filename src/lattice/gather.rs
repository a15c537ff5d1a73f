//! Asking all hosts at once, for the command line: one request, the answers of a while.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::{
    error::{Error, Result},
    nats::connection::{Connection, Standing},
    task,
    wire::{id, json, name_limits, subject::Subjects},
};

/// Answers kept at most; more hosts than this are counted by other means.
const MAX_ANSWERS: usize = 4096;

/// A host that answered, as far as we understand it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundHost {
    /// `N…`.
    #[serde(default)]
    pub id: String,
    /// Name for people.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub friendly_name: String,
    /// Version of its program.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub version: String,
    /// Seconds since its start.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub uptime_seconds: u64,
    /// Its labels.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub labels: BTreeMap<String, String>,
}

impl FoundHost {
    /// With names that fit a page: whoever may publish here may answer as a host.
    fn bounded(self) -> Self {
        let labels = self.labels.iter().take(name_limits::MAX_SHOWN_LABELS);
        Self {
            id: name_limits::shown(&self.id),
            friendly_name: name_limits::shown(&self.friendly_name),
            version: name_limits::shown(&self.version),
            uptime_seconds: self.uptime_seconds,
            labels: labels.map(|(name, value)| (name_limits::shown(name), name_limits::shown(value))).collect(),
        }
    }
}

/// A connection to the control servers that works, for a command with the purpose `purpose`.
///
/// # Errors
/// No server could be reached within the time one attempt may take.
pub(super) async fn reach(settings: &Settings, purpose: &'static str) -> Result<Connection> {
    let name = id::random_uuid();
    let connection = Connection::open(purpose, &settings.control, &settings.timing, &name).await?;
    match task::within(settings.timing.connect, connection.connected()).await {
        Some(()) => Ok(connection),
        None => {
            let why = match connection.standing() {
                Standing::Trying { last_error: Some(why), .. } => format!("{why}; "),
                _ => String::new(),
            };
            Err(Error::unavailable(format!(
                "cannot reach NATS at {}: {why}start it, or name another with WASMCLOUD_CTL_HOST and WASMCLOUD_RPC_HOST",
                settings.control.url()
            )))
        }
    }
}

/// Every host of the lattice that answers a ping within `window`, by key.
///
/// # Errors
/// No server could be reached within the time one attempt may take.
pub async fn hosts(settings: &Settings, window: Duration) -> Result<Vec<FoundHost>> {
    let subjects = Subjects::new(&settings.control_prefix, &settings.lattice)?;
    let name = id::random_uuid();
    let connection = reach(settings, "hosts").await?;
    let inbox = format!("_INBOX.{}", id::instance_id(&name, "hosts", 0));
    let mut answers = connection.subscribe(inbox.clone(), None).await?;
    connection.publish_all(subjects.ping_hosts(), Some(inbox), None, bytes::Bytes::new()).await?;
    let mut found = BTreeMap::new();
    let gathering = async {
        while let Some(message) = answers.next().await {
            // Nobody there at all: the server says so with an empty message.
            if message.payload.is_empty() || found.len() == MAX_ANSWERS {
                break;
            }
            let host: Result<FoundHost> = json::read("a ping reply", &message.payload, json::MAX_REQUEST_BYTES);
            if let Ok(host) = host {
                let host = host.bounded();
                found.insert(host.id.clone(), host);
            }
        }
    };
    let _ = task::within(window, gathering).await;
    Ok(found.into_values().collect())
}
