//! What end-to-end tests and benchmarks share: the guests of `tests/actors`, and a real host to run them in.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod asker;
pub mod calls;
pub mod certificates;
pub mod counter;
pub mod dark;
pub mod door;
pub mod guests;
pub mod held;
pub mod host;
pub mod http;
pub mod in_process;
pub mod load;
pub mod manifest;
pub mod mischief;
pub mod namespace;
pub mod nats;
pub mod played_host;
pub mod process;
pub mod provider;
pub mod published;
pub mod redis;
pub mod registry;
pub mod stage;
