//! Where bytes come from: references, the sources behind them, and what is kept of what they brought.
//!
//! # Layout
//!
//! * [`reference`]: what a reference means; no I/O.
//! * [`artifacts`]: from a reference to verified bytes in the store; [`origin`]: what a source must do for that; [`pace`]:
//!   how fast, and when to try again; [`running`]: what is on its way.
//! * [`file`], [`download`], [`image`], [`mirror`]: sources; others are registered by floors above. [`web`]: HTTP as
//!   they use it, [`fetch_rules`]: where it may go, [`requester`]: on whose word. [`credentials`], [`auth_file`]: how to log in to registries.
//! * [`records`]: what is remembered of references; [`retention`]: what stays in the store and what goes;
//!   [`published`]: the names under which others get it here; [`inventory`]: all of it as operators see it;
//!   [`maintenance`]: what they do about it;
//!   [`bundle`], [`layout`]: a set of them as one file.
//!
//! The host asks here for the bytes of actors and provider archives, the manifest for its own; nothing here judges what
//! the bytes are worth, that is `claims`.

pub mod artifacts;
pub mod auth_file;
pub mod bundle;
pub mod credentials;
pub mod download;
pub mod fetch_rules;
pub mod file;
pub mod image;
pub mod inventory;
pub mod layout;
pub mod maintenance;
pub mod mirror;
pub mod origin;
pub mod pace;
pub mod published;
pub mod records;
pub mod reference;
pub mod requester;
pub mod retention;
pub mod running;
pub mod settings;
pub mod web;

pub use artifacts::{Artifacts, Fetched};
pub use credentials::{Credentials, RegistryLogin};
pub use download::Download;
pub use fetch_rules::FetchRules;
pub use file::{Limit, read_file};
pub use image::Images;
pub use mirror::Mirrors;
pub use origin::{Content, Origin, Received, Resolved, Wanted};
pub use pace::Pace;
pub use records::{Record, Records};
pub use reference::{Reference, Remote, Source};
pub use requester::Requester;
pub use retention::{Retention, Swept};
pub use running::{Running, Transfer};
pub use settings::{Live, Settings};
