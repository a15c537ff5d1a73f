//! The process among others: what the service manager is told, signals, its memory, and the board's clock.

pub mod clock;
pub mod descriptors;
pub mod heap;
pub mod manager;
pub mod notify;
pub mod progress;
pub mod signals;
pub mod sockets;
pub mod status_line;
