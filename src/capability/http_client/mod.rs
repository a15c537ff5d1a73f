//! `wasmcloud:httpclient` inside the process (`protocol/interfaces.md §3`): actors ask the web, within limits.
//!
//! The host starts it by [`start`] and speaks to it as to any [`Capability`]. Requests run on blocking threads, a bounded
//! number at once; a call is answered at its deadline at the latest, whatever its thread still waits for. It never reaches
//! a host that the link does not allow ([`crate::allowed_hosts`]), never uses a proxy of the environment, never decodes a body.
//!
//! # Layout
//!
//! * [`settings`]: limits the host sets.
//! * `exchange`: a request to its last answer; `hop`: one request of it.
//!
//! # Link values
//!
//! The contract has none, so manifests work without; these are this host's own, their case ignored.
//!
//! * `allowed_hosts`: see [`crate::allowed_hosts`]. Without it every host with a public address.
//! * `tls_ca_file`: a PEM file with more roots than the platform's.
//! * `proxy`: `http://[user:password@]host:port`. A proxy resolves names by itself, so addresses cannot be checked here:
//!   it works only with hosts listed one by one.

mod exchange;
mod hop;
pub mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use smol::lock::Semaphore;
use ureq::Proxy;

use self::exchange::{Exchange, LinkRules};
pub use self::settings::Settings;
use crate::{
    allowed_hosts::AllowedHosts,
    capability::preview::{LinkPlan, unknown},
    error::{Error, Result},
    host::{BoxFuture, Call, Capability, ProviderContext, remote},
    lock::{Mutex, MutexGuard},
    log, task,
    trust::Trust,
    wire::{LinkDefinition, codec, interface, interface::HttpClientRequest},
};

/// The operation of the contract.
const OPERATION: &str = "HttpClient.Request";

/// Link values that mean something here, in lower case.
const KEYS: [&str; 3] = ["allowed_hosts", "tls_ca_file", "proxy"];

/// How errors name the link value of that name.
const CA_FILE: &str = "the link value `tls_ca_file`";

/// Starts an HTTP client with the default limits.
pub fn start(context: ProviderContext) -> Arc<dyn Capability> {
    start_with(context, Settings::default())
}

/// Starts an HTTP client with limits of the caller's.
pub fn start_with(context: ProviderContext, settings: Settings) -> Arc<dyn Capability> {
    Arc::new(HttpClient {
        context,
        places: Arc::new(Semaphore::new(settings.concurrent_max)),
        waiting: AtomicUsize::new(0),
        settings: Arc::new(settings),
        trust: Arc::new(Trust::platform(CA_FILE)),
        links: Mutex::default(),
    })
}

/// Actor and link name: what tells the links of one contract apart.
type LinkKey = (String, String);

struct HttpClient {
    context: ProviderContext,
    settings: Arc<Settings>,
    /// Places for requests at once. A request keeps its own until its thread is done, even when nobody waits any more.
    places: Arc<Semaphore>,
    /// Requests that wait for a place.
    waiting: AtomicUsize,
    /// The platform's roots, shared by all links without a file of their own.
    trust: Arc<Trust>,
    links: Mutex<BTreeMap<LinkKey, Linked>>,
}

struct Linked {
    values: BTreeMap<String, String>,
    confined: bool,
    exchange: Arc<Exchange>,
}

impl HttpClient {
    fn links(&self) -> MutexGuard<'_, BTreeMap<LinkKey, Linked>> {
        self.links.lock()
    }

    /// Opens `link`; a `confined` one came over the lattice to a board that confines those.
    async fn open(&self, link: Arc<LinkDefinition>, confined: bool) -> Result<()> {
        let key = key(&link);
        let is_open = |linked: &Linked| linked.values == link.values && linked.confined == confined;
        if self.links().get(&key).is_some_and(is_open) {
            return Ok(());
        }
        for warning in unknown_values(&link)? {
            log::warn!(
                "{warning}";
                actor_id = link.actor_id, link_name = link.link_name, provider_id = self.context.public_key
            );
        }
        let (settings, trust) = (Arc::clone(&self.settings), Arc::clone(&self.trust));
        let read = Arc::clone(&link);
        let exchange = smol::unblock(move || prepare(settings, trust, &read, confined))
            .await
            .map_err(|error| error.context(format_args!("the HTTP client link of actor {}", link.actor_id)))?;
        self.links().insert(key, Linked { values: link.values.clone(), confined, exchange: Arc::new(exchange) });
        Ok(())
    }

    async fn request(&self, link: &LinkDefinition, call: Call) -> Result<Vec<u8>> {
        if call.operation != OPERATION {
            return Err(Error::usage(format!(
                "{} is no operation of the HTTP client: it has only {OPERATION}",
                call.operation
            )));
        }
        let exchange = self.links().get(&key(link)).map(|linked| Arc::clone(&linked.exchange));
        let Some(exchange) = exchange else {
            return Err(Error::not_found(format!(
                "the HTTP client has no link of actor {} named {}",
                link.actor_id, link.link_name
            )));
        };
        let request: HttpClientRequest = codec::decode("HttpClient.Request", &call.payload)?;
        drop(call.payload);
        let deadline = call.deadline.min(Instant::now() + self.settings.total_timeout);
        let work = async {
            let place = {
                let _waits = Waits::enter(&self.waiting, self.settings.waiting_max)?;
                self.places.acquire_arc().await
            };
            let answer = smol::unblock(move || {
                let _place = place;
                exchange.run(request, deadline)
            });
            codec::encode(&answer.await?)
        };
        task::before(deadline, work)
            .await
            .unwrap_or_else(|| Err(Error::timeout("the HTTP request took longer than its deadline allows")))
    }
}

/// A request that waits for a place.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn enter(waiting: &'a AtomicUsize, limit: usize) -> Result<Self> {
        if waiting.fetch_add(1, Relaxed) >= limit {
            waiting.fetch_sub(1, Relaxed);
            return Err(Error::busy(format!("{limit} HTTP requests wait for a place already: try again later")));
        }
        Ok(Self(waiting))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Capability for HttpClient {
    fn contract_id(&self) -> &str {
        interface::HTTP_CLIENT
    }

    fn link(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open(link, false))
    }

    fn link_confined(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open(link, true))
    }

    fn unlink(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        self.links().remove(&key(&link));
        Box::pin(std::future::ready(()))
    }

    fn call(&self, link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move { self.request(&link, call).await })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        // Requests in flight belong to their calls, which end at their deadlines; threads do not keep the process.
        self.links().clear();
        Box::pin(std::future::ready(()))
    }
}

fn key(link: &LinkDefinition) -> LinkKey {
    (link.actor_id.clone(), link.link_name.clone())
}

/// What `link` would do. Reads the file it names. Blocks.
///
/// # Errors
/// A value or a file that cannot be used.
pub fn preview(settings: &Settings, link: &LinkDefinition) -> Result<LinkPlan> {
    let warnings = unknown_values(link)?;
    prepare(Arc::new(settings.clone()), Arc::new(Trust::platform(CA_FILE)), link, false)?;
    Ok(LinkPlan { warnings, listens: None })
}

/// What of the link values means nothing here.
fn unknown_values(link: &LinkDefinition) -> Result<Vec<String>> {
    let strange = link.values.keys().filter(|name| !KEYS.iter().any(|known| name.eq_ignore_ascii_case(known)));
    strange.map(|name| unknown("link value", name, "the HTTP client", KEYS)).collect()
}

/// Everything about a link that needs files. Runs on a blocking thread. A `confined` one came over the lattice: it
/// names neither a file of this board nor a proxy, and leads only where commands of the lattice may have something
/// fetched.
fn prepare(settings: Arc<Settings>, platform: Arc<Trust>, link: &LinkDefinition, confined: bool) -> Result<Exchange> {
    let closed = ["tls_ca_file", "proxy"].into_iter().find(|name| confined && link.value(name).is_some());
    if let Some(name) = closed {
        return Err(remote::refuse_link(name, "name files or proxies of this board"));
    }
    let allowed = link
        .value("allowed_hosts")
        .map(|text| AllowedHosts::parse(text, "allowed_hosts"))
        .transpose()?
        .unwrap_or_default();
    let trust = match link.value("tls_ca_file") {
        Some(path) => Arc::new(Trust::with_file(path.as_ref(), CA_FILE)?),
        None => platform,
    };
    let proxy = link.value("proxy").map(parse_proxy).transpose()?;
    if proxy.is_some() && !allowed.names_hosts() {
        return Err(Error::config(
            "a `proxy` resolves names by itself, so their addresses cannot be checked here: list the hosts one by one in \
             `allowed_hosts`, without `*`",
        ));
    }
    let board = confined.then(|| settings.remote_allow.clone());
    Ok(Exchange::new(settings, LinkRules { link: allowed, board }, trust, proxy))
}

/// Never shows the value: it may hold a password.
fn parse_proxy(text: &str) -> Result<Proxy> {
    let refuse =
        || Error::config("the link value `proxy` must look like http://host:port or http://user:password@host:port");
    if !text.starts_with("http://") {
        return Err(refuse());
    }
    Proxy::new(text).map_err(|_| refuse())
}
