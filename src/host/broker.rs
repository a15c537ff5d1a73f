//! Message brokers, as capabilities see them. The lattice implements this over NATS; a host without one is complete as it
//! is.
//!
//! Nothing here waits without a deadline of the caller's, and nothing that is said while there is no connection is kept:
//! whoever must be heard later keeps what it has to say itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::BoxFuture;
use crate::{
    error::{Error, Result},
    wire::interface::BrokerMessage,
};

/// A way to brokers: the host's own connection, and further ones.
pub trait Broker: Send + Sync + 'static {
    /// The connection over which this host calls and is called; nothing for a host by itself.
    fn own(&self) -> Option<Arc<dyn BrokerConnection>>;

    /// A connection to `server`, shared by all who ask for the same. It begins to connect and is given at once; dropped by
    /// all, it ends.
    ///
    /// # Errors
    /// `Config`: the server's name or the login cannot be used; `Limit`: there are too many connections.
    fn open(&self, server: BrokerServer) -> BoxFuture<'static, Result<Arc<dyn BrokerConnection>>>;
}

/// Where a broker is and how to get in. No `Debug`: it holds secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BrokerServer {
    /// Hosts or URLs, separated by commas.
    pub servers: String,
    /// Token of the user, together with its seed.
    pub jwt: String,
    /// Seed of the user; alone it is a key the server knows.
    pub seed: String,
    /// Who signs the server's certificate, PEM text. With this or the file the line must be private.
    pub tls_ca: Option<String>,
    /// The same as a file.
    pub tls_ca_file: Option<PathBuf>,
    /// Time between two probes of a silent connection, where not the usual one.
    pub ping: Option<Duration>,
}

/// One connection to a broker.
pub trait BrokerConnection: Send + Sync + 'static {
    /// The first server, for people: `nats://127.0.0.1:4222`.
    fn name(&self) -> String;

    /// Beginnings of subjects on which the lattice lives, where this is the host's own connection; nobody else may use
    /// them there.
    fn reserved(&self) -> Option<Vec<String>>;

    /// Whether it works now, as far as is known.
    fn is_connected(&self) -> bool;

    /// Waits until it works.
    fn connected(&self) -> BoxFuture<'static, ()>;

    /// Says `message` to whoever listens.
    ///
    /// # Errors
    /// `Unavailable` without a connection, `Limit` for more than the broker takes.
    fn publish(&self, message: BrokerMessage) -> BoxFuture<'static, Result<()>>;

    /// Asks and waits for one answer, at most `timeout`.
    ///
    /// # Errors
    /// `Unavailable` without a connection or a listener, `Timeout`, `Limit`.
    fn request(&self, subject: String, body: Vec<u8>, timeout: Duration) -> BoxFuture<'static, Result<BrokerMessage>>;

    /// Gives every message on `subject`, a share of them with a queue group, to `sink`, which must not block. It lasts
    /// until the answer is dropped, over any number of lost connections.
    ///
    /// # Errors
    /// `Unavailable` without a connection now.
    fn subscribe(
        &self,
        subject: String,
        queue_group: Option<String>,
        sink: Sink,
    ) -> BoxFuture<'static, Result<Listening>>;

    /// Has a stream of the broker store `parcels`, in order, each waited for as long as is usual.
    fn forward(&self, parcels: Vec<Parcel>) -> BoxFuture<'static, Forwarded>;
}

/// Takes messages as they come.
pub type Sink = Box<dyn FnMut(BrokerMessage) + Send>;

/// A subscription; dropped, it ends.
pub struct Listening(#[allow(dead_code, reason = "held to be dropped")] Box<dyn Send + Sync>);

impl Listening {
    /// Ends with `guard`.
    pub fn new(guard: impl Send + Sync + 'static) -> Self {
        Self(Box::new(guard))
    }
}

/// A message for a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// By which the stream knows it again when it comes twice.
    pub id: String,
    /// Where it is said.
    pub subject: String,
    /// What is said.
    pub body: Vec<u8>,
    /// The stream that must take it; any where not named.
    pub stream: Option<String>,
}

/// What became of parcels.
#[derive(Debug, Default)]
pub struct Forwarded {
    /// How many, from the first, a stream has acknowledged.
    pub stored: usize,
    /// Why it is not all of them. `Limit`: the next one is more than the broker ever takes.
    pub failure: Option<Error>,
    /// The next one failed because no stream, or not the one it must have, takes its subject now: others may fare better.
    pub no_taker: bool,
    /// Which of those after the first failure a stream has acknowledged, by their place.
    pub stored_later: Vec<usize>,
}
