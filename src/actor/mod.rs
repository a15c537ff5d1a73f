//! Guests: a signed module in the interpreter, one invocation as a future.
//!
//! An [`Engine`] loads a module and answers an [`Actor`]; [`Actor::invoke`] runs one operation in a fresh instance
//! within the limits of [`Settings`]. What a guest asks of the outside world leaves through [`Outcalls`], which the
//! router implements.
//!
//! * [`settings`]: the limits. `limits`: what is said when one is reached.
//! * `outline`, `weight`, `module`: from bytes to a compiled module. `slot`, `cache`: how long it stays in memory.
//! * `abi`, `wasi`, `guest`, `console`: what a guest sees of its host.
//! * `handle`, `engine`, `permits`, `signal`, `invocation`: who runs when, and for how long. `trace`: what for.
//!
//! It never blocks a thread while a guest waits, never lets state of one invocation reach another, and never trusts a
//! number that a guest hands over.

mod abi;
mod assembly_script;
mod cache;
mod console;
mod engine;
mod guest;
mod handle;
mod invocation;
mod limits;
mod module;
pub mod outcall;
mod outline;
mod permits;
pub mod settings;
mod signal;
mod slot;
#[cfg(test)]
mod tests;
mod trace;
mod wasi;
mod weight;

pub use engine::Engine;
pub use handle::{Actor, Context, Counts};
pub use invocation::is_trap;
pub use outcall::{HostCall, Outcalls};
pub use settings::Settings;
pub use slot::ModuleSource;
