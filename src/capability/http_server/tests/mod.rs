//! The server over real sockets, spoken to by a client made by hand so that it can be as rude as it likes.

pub mod harness;
mod hostile;
mod lifecycle;
mod requests;
mod tls;
