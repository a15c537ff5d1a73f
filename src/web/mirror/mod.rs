//! The mirror: this board's artifacts for the other boards of its site, over HTTP on the LAN.
//!
//! ```text
//! GET /                  what is published: a page for browsers, `sha256sum` lines for scripts, JSON on request
//! GET /NAME              what a published name points to now
//! GET /sha256:DIGEST     any artifact of this board's store by its digest, or a manifest that led to one
//! ```
//!
//! so that `curl http://board:8099/echo` and `curl http://board:8099/ | sha256sum -c` work. Answers carry the digest
//! (`ETag`, `Repr-Digest`) and honour `Range`, `If-Range` and `If-None-Match`. It only reads, and needs no account; TLS and
//! a bearer token are settings.
//!
//! [`server`] accepts and bounds connections, [`request`] judges a request and does no I/O, [`answer`] fetches what it
//! asks for, [`body`] sends a file in constant memory, [`page`] draws the list, [`token`] compares secrets.

mod answer;
mod body;
mod page;
mod request;
mod server;
mod token;

pub(super) use body::BlobBody;
pub use server::{Mirror, Renewal, Settings};
pub use token::Token;
