//! What a running host tells and takes from whoever manages it: the admin socket now, the lattice and the dashboard later.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    artifact::{Artifacts, Transfer},
    error::Result,
    host::{BoxFuture, UplinkStatus, uplink::PendingCommand},
    wire::LinkDefinition,
};

/// A host at one moment. `latticed status --json` prints it as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatus {
    /// `N…`.
    pub host_id: String,
    /// Name for people, the same at each start.
    pub friendly_name: String,
    /// The lattice this host belongs to, or will when it finds a server.
    pub lattice: String,
    /// Version of this program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// `HOST_*` and built-in labels.
    pub labels: BTreeMap<String, String>,
    /// Memory of this process.
    pub memory: MemoryStatus,
    /// Tasks that live in this process. It goes up and down with the work; one that only grows is a leak.
    #[serde(default)]
    pub tasks: u64,
    /// Running actors, by key.
    pub actors: Vec<ActorStatus>,
    /// Running providers, by key and link name.
    pub providers: Vec<ProviderStatus>,
    /// Known links, by identity.
    pub links: Vec<LinkDefinition>,
    /// How the way to other hosts stands; nothing for a host by itself.
    #[serde(default)]
    pub uplink: Option<UplinkStatus>,
    /// Artifacts on their way here.
    #[serde(default)]
    pub downloads: Vec<Transfer>,
    /// Why the last reload changed nothing; nothing after one that went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_reloaded: Option<String>,
    /// Names of what should run, by key: for people, in the place of keys.
    #[serde(default)]
    pub names: BTreeMap<String, String>,
    /// What is not as desired, one sentence each; empty on a healthy host.
    pub problems: Vec<String>,
    /// What is not as the manifests of this board say, because of a command, and what the lattice wants otherwise than they
    /// say. No problem by itself.
    #[serde(default)]
    pub differences: Vec<String>,
    /// Commands from the lattice that were accepted and are not carried out yet.
    #[serde(default)]
    pub pending: Vec<PendingCommand>,
}

/// Memory of this process in bytes, from `/proc/self/smaps_rollup` (0 where the kernel does not tell).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Proportional set size.
    pub pss_bytes: u64,
    /// Resident set size.
    pub rss_bytes: u64,
    /// Compiled modules kept for reuse.
    pub module_cache_bytes: u64,
}

/// One running actor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActorStatus {
    /// `M…`.
    pub public_key: String,
    /// Name in its claims.
    pub name: String,
    /// Where it was loaded from, as the operator wrote it.
    pub image_ref: String,
    /// Revision in its claims.
    pub revision: i32,
    /// Version text in its claims.
    pub version: String,
    /// How many invocations may run at once.
    pub max_concurrent: u16,
    /// Invocations running now.
    pub instances: u32,
    /// Invocations waiting for a place now.
    pub queued: u32,
    /// Invocations since the start.
    pub calls: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Fuel burnt since the start; about one unit per Wasm instruction.
    pub fuel: u64,
    /// Whether the compiled module is in memory now.
    pub compiled: bool,
    /// `running`, `failed: …`.
    pub state: String,
}

/// One running provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProviderStatus {
    /// `V…`.
    pub public_key: String,
    /// Name for people.
    pub name: String,
    /// `builtin:…` or where its archive came from.
    pub image_ref: String,
    /// Contract served.
    pub contract_id: String,
    /// Link name it runs under.
    pub link_name: String,
    /// Calls from actors since the start.
    pub calls: u64,
    /// Of these, failed.
    pub errors: u64,
    /// `running`, `failed: …`.
    pub state: String,
    /// What people look for first, where there is such a thing: `http://127.0.0.1:8080`.
    pub detail: String,
}

/// A running host as its managers see it.
pub trait Control: Send + Sync + 'static {
    /// The host at this moment.
    fn status(&self) -> HostStatus;

    /// Calls `operation` of the actor with this key or call alias, from outside (no origin), and answers its body.
    fn call(
        &self,
        actor: String,
        operation: String,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>>>;

    /// The artifacts it keeps, if it keeps any.
    fn artifacts(&self) -> Option<&Artifacts> {
        None
    }

    /// Whether the process `process_id`, of the user this host runs as, may manage it: one that the host itself runs may not.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied).
    fn check_manager(&self, process_id: i32) -> BoxFuture<'static, Result<()>> {
        let _ = process_id;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Removes the accepted command `id` of the status; whether it was there.
    ///
    /// # Errors
    /// The disk failed.
    fn remove_pending(&self, id: String) -> BoxFuture<'static, Result<bool>> {
        let _ = id;
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Asks the host to drain and stop. Returns at once.
    fn request_stop(&self);
}
