//! One connection to a NATS server, guarded: what the server says is judged before the client library reads it.
//!
//! The client library panics on some messages and keeps whatever the server announces; this process ends at a panic. So
//! the library never speaks to a server. It speaks to a [`Guard`], over a connection inside this machine that nobody
//! else can take, and the guard speaks to the server: it dials, does TLS, checks each operation, counts what waits, and
//! passes on.
//!
//! * `scanner`: what a server may say, a pure state machine. `info`: what it tells of itself.
//! * `flow`: how many bytes wait for their readers, and who is refused when they are too many.
//! * `dial`: TCP, TLS and the first line. `pool`: which server is tried next. `peer`: whose connection came in.
//! * `relay`: passes bytes both ways. `listener`: takes the library's connections and puts the rest together.
//!
//! It knows no lattice and no host, and it never opens a connection before the library asks for one.

mod dial;
mod flow;
mod info;
mod listener;
mod loopback;
mod peer;
mod pool;
mod relay;
pub mod scanner;

#[cfg(test)]
mod generated;
#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod scanner_tests;

pub use flow::{Flow, Reader};
pub use listener::{Guard, Settings};
pub use loopback::RELAY_PORTS;
pub use pool::Target;

/// How the line to a server is kept private; files are read anew for each connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Refuse to speak without it.
    pub required: bool,
    /// Shake hands before the server says a word.
    pub first: bool,
    /// Who signs the server's certificate, PEM; the platform's own roots when not given.
    pub ca: Option<std::path::PathBuf>,
    /// Our own certificate and its key, PEM.
    pub certificate: Option<(std::path::PathBuf, std::path::PathBuf)>,
}
