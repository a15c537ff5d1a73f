//! The parts of smol that this program uses.

#![forbid(unsafe_code)]

pub use async_channel as channel;
pub use async_executor::{Executor, LocalExecutor, Task};
pub use async_io::{Async, Timer, block_on};
pub use async_lock as lock;
pub use async_net as net;
pub use blocking::unblock;
pub use futures_lite::{future, io, pin, prelude, ready, stream};
