//! What stands in for `joining` in a build without the feature `lattice`: a host by itself, who says so when asked for more.

use std::sync::Arc;

use crate::{
    config::Config,
    error::Result,
    host::{Host, event::Events},
    log,
};

/// No place in any lattice.
pub struct Joining;

impl Joining {
    /// Warns when a server was named.
    pub fn prepare(config: &Config, _id: &str, _listeners: &mut Vec<Arc<dyn Events>>) -> Result<Self> {
        if config.names_a_server() {
            log::warn!(
                "a NATS server is named, but this build cannot join a lattice: build it with --features lattice"
            );
        }
        Ok(Self)
    }

    /// Joins nothing.
    pub async fn join(self, _host: &Arc<Host>) -> Result<Self> {
        Ok(self)
    }

    /// Leaves nothing.
    pub async fn leave(self) {}
}
