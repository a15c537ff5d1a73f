//! What the host asks of whatever serves a contract, and what it offers in return.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::Result,
    wire::{Entity, LinkDefinition, Trace},
};

/// A boxed future that may move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One invocation on its way through the router.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who calls.
    pub origin: Entity,
    /// Who is called: an actor, or a provider under a contract and link name.
    pub target: Entity,
    /// `Trait.Method`.
    pub operation: String,
    /// The body, opaque to the host.
    pub payload: Vec<u8>,
    /// When the caller stops waiting. Nothing the call starts may outlive it.
    pub deadline: Instant,
    /// How many invocations led to this one; 0 for one from outside.
    pub depth: u8,
    /// What ties it to the request it serves; `None` where none came.
    pub trace: Option<Trace>,
}

/// The router as the edges see it: a way to call an actor or provider.
pub trait Invoke: Send + Sync + 'static {
    /// Runs `call` and answers with the response body. Every check and limit of the router applies.
    fn invoke(&self, call: Call) -> BoxFuture<'static, Result<Vec<u8>>>;
}

/// What a capability in this process is given when it starts.
#[derive(Clone)]
pub struct ProviderContext {
    /// Its stable public key, `V…`.
    pub public_key: String,
    /// The link name it was started under.
    pub link_name: String,
    /// `config_json` of the start command, if any.
    pub configuration: Option<String>,
    /// The road to actors.
    pub invoke: Arc<dyn Invoke>,
}

/// A provider inside this process.
///
/// Each method answers within the time its caller allows: the host puts its own deadline around every one of them.
pub trait Capability: Send + Sync + 'static {
    /// The contract served, `wasmcloud:keyvalue`.
    fn contract_id(&self) -> &str;

    /// A link to this provider was made or replayed. A changed link arrives as `unlink`, then `link`.
    fn link(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>>;

    /// As [`Capability::link`], for a link that came over the lattice to a board that confines those: a server listens for it
    /// on loopback, or where the settings allow more. The same for one that is no server.
    fn link_confined(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        self.link(link)
    }

    /// A link to this provider was removed. Work in flight for it may finish; no new work starts.
    fn unlink(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, ()>;

    /// An actor calls through `link`.
    fn call(&self, link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>>;

    /// What people look for first, for the status: `http://127.0.0.1:8080`. Empty when there is no such thing.
    fn detail(&self) -> String {
        String::new()
    }

    /// How it is, in a word or a sentence.
    fn state(&self) -> String {
        "running".to_owned()
    }

    /// Whether it calls actors of its own accord (a listener, a subscription). Such providers stop first.
    fn originates(&self) -> bool {
        false
    }

    /// The host stops: no more calls of its own accord from now on, while actors that still work may go on calling it.
    /// Nothing to do for most.
    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Reads again what it read from files when links were made: certificates, keys. Connections go on as they are.
    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether it listens to the lattice by itself, as a process does: this host then takes in no calls for it.
    fn is_on_lattice(&self) -> bool {
        false
    }

    /// How long [`Capability::stop`] may take, where that is not the drain time and a little more.
    fn longest_stop(&self) -> Option<Duration> {
        None
    }

    /// The provider is stopped: every link is gone when this returns.
    fn stop(&self) -> BoxFuture<'_, ()>;
}
