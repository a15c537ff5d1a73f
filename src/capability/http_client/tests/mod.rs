//! The client against small servers on real sockets.

mod harness;
mod limits;
mod requests;
