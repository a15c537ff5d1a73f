//! Where bytes come from: references, and the sources behind them.
//!
//! [`reference`] says what a reference means and does no I/O; [`file`] is the one source of this version. The host asks
//! here for the bytes of actors, the manifest for its own; nothing here judges what the bytes are worth, that is
//! `claims`.

pub mod file;
pub mod reference;

pub use file::{Limit, read_file};
pub use reference::{Reference, Remote, Source};
