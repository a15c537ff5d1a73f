//! JetStream object stores as a place for actors and provider archives: `nats://BUCKET/NAME`, so that a fleet needs no
//! registry. The layout is that of every NATS client ([`crate::nats::objects`]), so `nats object put` and `get` work on
//! the same buckets.
//!
//! [`origin`] is the source the host fetches from; [`client`] is what the command line uses.

pub mod client;
pub mod origin;

pub use origin::ObjectStore;
