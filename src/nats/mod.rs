//! Connections to NATS servers: who they are, how to log in, when to try again, what is said over one connection.
//!
//! * [`endpoint`]: servers, logins, TLS, patience. [`local_server`]: a server that nobody named, and whose it is.
//!   [`credentials`]: how a login is shown.
//! * [`connection`]: one connection, with [`backoff`] between attempts; [`admission`]: how much of what comes in is
//!   worked on.
//! * [`guard`]: what a server says is judged before the client library reads it.
//! * [`jetstream`]: requests to JetStream; [`objects`]: its object stores; [`bodies`]: long bodies of calls, kept
//!   there.
//! * [`calls`]: one call, signed, and its answer.
//!
//! It knows no lattice and no host. `lattice` and `sdk` stand on it, so that a provider needs nothing of the host.

pub mod admission;
pub mod backoff;
pub mod bodies;
pub mod calls;
pub mod connection;
pub mod credentials;
pub mod endpoint;
pub mod guard;
pub mod jetstream;
pub mod local_server;
pub mod objects;

#[cfg(test)]
mod connection_tests;
#[cfg(test)]
pub(crate) mod testing;

pub use connection::{Connection, Standing};
pub use endpoint::{Endpoint, Login, Timing, Tls};
pub use local_server::{LocalServer, Owners};
