//! `regex` for the NATS client, by `regex-lite`: see this package's `Cargo.toml` for why.
//!
//! Nothing else in the tree may use it: classes such as `\w` know ASCII alone here.

pub use regex_lite::*;
