//! The heart: what should run, what does run, and the one road that every invocation takes.
//!
//! This floor knows no NATS, no HTTP and no systemd: whatever serves a contract implements [`Capability`], whatever
//! starts an invocation holds an [`Invoke`], whoever manages the host speaks to [`Control`].

pub mod application;
pub mod applications;
pub mod applied;
pub mod broker;
pub mod builtin;
pub mod capability;
pub mod change;
mod checkup;
pub mod control;
pub mod core;
pub mod desired;
pub mod event;
mod expiry;
pub mod health;
pub mod issuer;
pub mod label;
pub mod links;
pub mod liveness;
pub mod mirror_follow;
pub mod plan;
pub mod process;
pub mod readiness;
mod reconcile;
mod refetch;
mod reload;
pub mod remote;
mod restart;
pub mod retained;
mod retry;
pub mod router;
pub mod routes;
mod status;
mod update;
pub mod uplink;

pub use application::Application;
pub use broker::{Broker, BrokerConnection, BrokerServer};
pub use builtin::{Builtin, Builtins};
pub use capability::{BoxFuture, Call, Capability, Invoke, ProviderContext};
pub use control::{ActorStatus, Control, HostStatus, MemoryStatus, ProviderStatus};
pub use core::{Clock, Host, Parts, Rules, Settings};
pub use liveness::{Liveness, Stuck};
pub use process::{Probed, ProcessStart, Processes, ProviderName, Watcher, check_link_name, no_processes};
pub use readiness::{Lack, Policy, Readiness};
pub use router::Router;
pub use uplink::{Uplink, UplinkStatus};
