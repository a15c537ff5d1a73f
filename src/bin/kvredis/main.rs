//! `kvredis`: the contract `wasmcloud:keyvalue` on a Redis server, as a provider any host of the 0.6x line can start.
//!
//! It stands on `latticed::sdk`. Each linked actor has a connection of its own, to the server its link names (`URL`), or the
//! one in the start configuration (`{"url": …}`), or the one on this machine. It keeps nothing itself: what is answered is
//! what Redis answered, and what Redis did not answer is an error.

mod operation;
mod redis_link;

use std::{collections::HashMap, process::ExitCode, sync::Arc, time::Duration};

use futures_util::future::join_all;
use latticed::{
    error::{Error, Result},
    lock::{Mutex, MutexGuard},
    sdk::{self, Call, Lattice, Provider},
    wire::LinkDefinition,
};
use serde::Deserialize;

use redis_link::RedisLink;

const HELP: &str = "\
kvredis: the wasmCloud capability provider `wasmcloud:keyvalue` on Redis

A host starts it from its archive (kvredis.par.gz) and tells it on stdin what it needs to know; there is nothing to run by
hand. Link an actor to it with the value URL:

  wash ctl link put M… V… wasmcloud:keyvalue URL=redis://127.0.0.1:6379

Without that value it uses the `url` of its start configuration ({\"url\": \"redis://…\"}), else redis://127.0.0.1:6379/.
redis://user:password@host:port/number names a login and a database, rediss:// is TLS with the system's certificates
(SSL_CERT_FILE names others).";

/// Where Redis is when nobody says.
const DEFAULT_URL: &str = "redis://127.0.0.1:6379/";

/// The part of a call's time that Redis may take, so that its failure still reaches the caller: three of four parts.
const REDIS_SHARE: (u32, u32) = (3, 4);

/// Configuration given with the start command.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    #[serde(alias = "URL", alias = "Url")]
    url: Option<String>,
}

struct KvRedis {
    default_url: String,
    timeout: Duration,
    links: Mutex<HashMap<String, Arc<RedisLink>>>,
}

impl KvRedis {
    fn new(lattice: &Lattice) -> Result<Self> {
        let configuration: Configuration = match lattice.configuration() {
            None => Configuration::default(),
            // Serde would quote the value, which may hold a password.
            Some(text) => serde_json::from_str(text).map_err(|cause| {
                Error::config(format!(
                    "the start configuration is not JSON like {{\"url\": \"redis://host:port\"}} (line {}, column {})",
                    cause.line(),
                    cause.column()
                ))
            })?,
        };
        let default_url = configuration.url.unwrap_or_else(|| DEFAULT_URL.to_owned());
        let timeout = lattice.rpc_timeout() * REDIS_SHARE.0 / REDIS_SHARE.1;
        // A default that cannot be used is told now and not at the first link that relies on it.
        RedisLink::new(&default_url, timeout).map_err(|error| error.context("start configuration"))?;
        Ok(Self { default_url, timeout, links: Mutex::default() })
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Arc<RedisLink>>> {
        self.links.lock()
    }
}

impl Provider for KvRedis {
    async fn call(&self, call: Call) -> Result<Vec<u8>> {
        let redis = self.held().get(&call.link.actor_id).cloned();
        let redis = redis.ok_or_else(|| Error::denied(format!("unlinked actor: '{}'", call.link.actor_id)))?;
        operation::answer(&redis, &call).await
    }

    async fn link(&self, link: &LinkDefinition) -> Result<()> {
        let redis = RedisLink::new(link.value("URL").unwrap_or(&self.default_url), self.timeout)?;
        self.held().insert(link.actor_id.clone(), Arc::new(redis));
        Ok(())
    }

    async fn unlink(&self, link: &LinkDefinition) {
        self.held().remove(&link.actor_id);
    }

    /// Well when every linked Redis answers.
    async fn health(&self) -> Result<()> {
        let links: Vec<_> = self.held().values().cloned().collect();
        join_all(links.iter().map(|redis| redis.ping())).await.into_iter().collect()
    }
}

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    sdk::run("kvredis", KvRedis::new)
}
