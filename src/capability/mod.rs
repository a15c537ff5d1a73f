//! Providers inside the process, each started by a reference `builtin:NAME`.

mod builtins;
pub mod http_client;
pub mod http_server;
pub mod key_value;
pub mod logging;
pub mod messaging;
pub mod numbers;
pub mod preview;

pub use builtins::{INTRINSICS, Settings, builtins};
