//! Where bytes come from: references, and the sources behind them.
//!
//! [`reference`] says what a reference means and does no I/O; [`artifacts`] turns one into verified bytes in the store,
//! by way of a source: [`file`], [`download`], or one that a floor above registers; [`credentials`] says how to log in to
//! registries. The host asks here for the bytes of
//! actors, the manifest for its own; nothing here judges what the bytes are worth, that is
//! `claims`.

pub mod artifacts;
pub mod credentials;
pub mod download;
pub mod file;
pub mod reference;

pub use artifacts::{Artifacts, Fetched, Origin, Received, Wanted};
pub use credentials::{Credentials, RegistryLogin};
pub use download::Download;
pub use file::{Limit, read_file};
pub use reference::{Reference, Remote, Source};
