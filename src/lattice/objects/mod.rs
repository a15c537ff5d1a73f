//! JetStream object stores as a place for actors and provider archives: `nats://BUCKET/NAME`, so that a fleet needs no
//! registry.
//!
//! [`words`] knows the layout, [`bucket`] asks the server, one message at a time and each with a deadline, [`reader`] and
//! [`writer`] move an object chunk by chunk, [`origin`] is the source the host fetches from; [`client`] is what the command
//! line uses. The layout is that of every NATS client, so `nats object put` and `get` work on the same buckets.

pub mod bucket;
pub mod client;
pub mod origin;
pub mod reader;
pub mod words;
pub mod writer;

pub use bucket::Bucket;
pub use origin::ObjectStore;
