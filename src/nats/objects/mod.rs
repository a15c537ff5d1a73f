//! JetStream object stores (`protocol/lattice.md` and NATS ADR-20): [`words`] are what is written about objects,
//! [`bucket`] asks for them, [`reader`] and [`writer`] move an object chunk by chunk.

pub mod bucket;
pub mod reader;
pub mod words;
pub mod writer;

use std::time::Duration;

pub use bucket::Bucket;

use super::Connection;
use crate::{
    error::{Error, Result},
    task,
};

/// How long a connection that was lost on the way may take to come back: longer than a server's restart, shorter than
/// an operator's patience. What has arrived stays for the next attempt.
pub const RECONNECT: Duration = Duration::from_secs(60);

/// Waits until there is a connection, at most `patience`.
///
/// # Errors
/// `Unavailable`.
pub async fn wait_for(connection: &Connection, patience: Duration) -> Result<()> {
    task::within(patience, connection.connected()).await.ok_or_else(|| {
        Error::unavailable(format!(
            "there was no connection to NATS for {} s; `latticed status` tells why",
            patience.as_secs()
        ))
    })
}
