//! Guests: a signed module in the interpreter, one invocation as a future.
//!
//! What a guest asks of the outside world leaves through [`Outcalls`], which the router implements.

pub mod outcall;

pub use outcall::{HostCall, Outcalls};
