//! The NATS edge: connection, commands in, calls in and out, the lattice's bucket, events, heartbeat.
//!
//! The only room that names tokio and async-nats. What it is given and what it gives works on any thread; what the client
//! library needs its runtime for is handed to that runtime through the connection. The host runs without all this:
//! nothing here is on the way of a local call, and nothing here is waited for without a deadline.

pub mod backoff;
pub mod connection;
pub mod credentials;
pub mod outbox;
pub mod settings;

#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod testing;

pub use connection::{Connection, Standing};
pub use settings::{Endpoint, Login, Settings, Timing, Tls};
