//! The heart: what should run, what does run, and the one road that every invocation takes.
//!
//! This floor knows no NATS, no HTTP and no systemd: whatever serves a contract implements [`Capability`], whatever
//! starts an invocation holds an [`Invoke`].

pub mod capability;
pub mod control;

pub use capability::{BoxFuture, Call, Capability, Invoke, ProviderContext};
pub use control::{ActorStatus, Control, HostStatus, MemoryStatus, ProviderStatus};
