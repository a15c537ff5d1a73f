//! The way to other hosts, as the router sees it. The lattice implements it; a host without one is complete as it is.

use super::{BoxFuture, Call};
use crate::error::Result;

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
}
