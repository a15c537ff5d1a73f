//! The local admin API: HTTP/1.1 over a Unix socket that only the host's own user and root may use.
//!
//! ```text
//! GET  /v1/status                                       HostStatus as JSON
//! POST /v1/call/{actor}/{operation}?timeout_ms=2000     body: payload bytes; answer: response bytes
//! POST /v1/stop                                         drain and stop
//! ```
//!
//! so that `curl --unix-socket /run/latticed/admin.sock http://localhost/v1/status` works. Errors are JSON,
//! `{"error":{"kind":"not-found","text":"…"}}`, with the names of [`crate::error::Kind`].
//!
//! [`mirror`] is a server of its own, for the other boards of a site. `accept` is what both have in common.
//!
//! [`socket`] owns the file and keeps a second host off it, [`peer`] says who is at the other end, [`admin`] accepts
//! and bounds connections, [`routes`] turns a request into a call of [`crate::host::Control`], [`client`] is the other
//! side, for the command line. [`probes`] answers watchers from outside, on a socket of its own. Nothing here decides anything about actors: that is the host's.

mod accept;
pub mod admin;
pub mod answer;
mod artifact_client;
pub mod artifacts;
pub mod client;
mod listen;
pub mod mirror;
pub mod peer;
mod probe_places;
pub mod probes;
pub mod routes;
pub mod socket;

pub use admin::{Admin, Settings};
pub use client::Client;
pub use probes::Probes;
