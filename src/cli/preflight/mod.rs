//! What must hold before a host starts or an application becomes desired state: judged once, here, for `latticed check` and
//! for `latticed run`, so that what `check` accepts starts and all its links come into force.
//!
//! * [`settings()`]: the settings, beyond what the table knows of each by itself, and the files they name.
//! * [`applications`]: manifests, the values of their links, and the ports of all of them together.
//!
//! Blocks for the length of small files. Starts nothing, writes nothing, asks nobody on a network.

pub mod applications;
mod settings;

pub use settings::{settings, writable};
