//! The way to other hosts, as the router sees it. The lattice implements it; a host without one is complete as it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{BoxFuture, Call, ProviderStatus};
use crate::{error::Result, wire::subject::ProviderTopic};

/// How the way to other hosts stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Whether commands and calls get through now, as far as is known.
    pub connected: bool,
    /// Whether commands and calls are listened to, too.
    #[serde(default)]
    pub listening: bool,
    /// Where it leads: `nats://127.0.0.1:4222`.
    #[serde(default)]
    pub server: String,
    /// Attempts to connect since there is no connection.
    #[serde(default)]
    pub attempts: u64,
    /// For how long it has been so, seconds.
    pub since_seconds: u64,
    /// Why the last attempt to connect failed; empty when connected or before the first one ended.
    pub reason: String,
    /// Seconds until the next attempt, where there will be one.
    pub next_try_seconds: Option<u64>,
    /// Events that wait for a connection.
    pub waiting_events: u64,
    /// What is wrong with it while it works, for people; also among the problems of the host.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// A command from the lattice that was accepted and is not carried out yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCommand {
    /// Names it when it is to be removed.
    pub id: String,
    /// What it asks for, as its subject says: `la`, `scale`, `upd`, `lp`.
    pub command: String,
    /// The reference or key it is about.
    pub about: String,
    /// When it was accepted; 0 where the clock was not to be trusted.
    pub accepted_unix_seconds: u64,
    /// Attempts that failed.
    pub attempts: u32,
    /// Seconds until the next one, where one is planned.
    pub next_try_seconds: Option<u64>,
    /// Why the last one failed.
    pub reason: String,
}

/// Reaches actors and providers that do not run on this host.
pub trait Uplink: Send + Sync + 'static {
    /// Runs `call` wherever its target runs, until its deadline.
    ///
    /// # Errors
    /// What the other side answered, as [`Kind::Guest`](crate::error::Kind::Guest); that nobody did, as
    /// [`Kind::Timeout`](crate::error::Kind::Timeout) or [`Kind::Unavailable`](crate::error::Kind::Unavailable).
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Vec<u8>>>;

    /// The key of the actor that answers to `alias` somewhere in the lattice, as far as this host knows.
    fn resolve_alias(&self, alias: &str) -> Option<String>;

    /// Whether calls get through now, as far as is known.
    fn is_connected(&self) -> bool;

    /// Says `body` to every process of the provider `public_key` under `link_name`.
    ///
    /// # Errors
    /// There is no connection now.
    fn tell_provider(
        &self,
        public_key: &str,
        link_name: &str,
        topic: ProviderTopic,
        body: Vec<u8>,
    ) -> BoxFuture<'static, Result<()>>;

    /// Asks the processes of a provider and answers what the first one says within `patience`; nothing when none does.
    ///
    /// # Errors
    /// There is no connection now.
    fn ask_provider(
        &self,
        public_key: &str,
        link_name: &str,
        topic: ProviderTopic,
        body: Vec<u8>,
        patience: Duration,
    ) -> BoxFuture<'static, Result<Option<Vec<u8>>>>;

    /// Providers elsewhere that actors of this host call, as far as they answer.
    fn remote_providers(&self) -> Vec<ProviderStatus> {
        Vec::new()
    }

    /// Commands that were accepted and are not carried out yet.
    fn pending_commands(&self) -> Vec<PendingCommand> {
        Vec::new()
    }

    /// Removes the accepted command `id`; whether it was there.
    ///
    /// # Errors
    /// The disk failed.
    fn remove_command(&self, id: String) -> BoxFuture<'static, Result<bool>> {
        let _ = id;
        Box::pin(std::future::ready(Ok(false)))
    }

    /// How it stands at this moment.
    fn status(&self) -> UplinkStatus;
}
