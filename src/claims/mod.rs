//! Who may do what: keys, tokens, signed modules, provider archives, trusted time (`protocol/claims.md`).
//!
//! The host calls [`verify_actor`] and [`verify_provider`] before anything is started; the command line makes keys,
//! signs modules and writes archives; the invocation road checks its tokens with [`Token`].
//!
//! Nothing here reads a file, a setting or (but for [`Now::from_system`]) the clock, and no error, log line or `Debug`
//! output ever holds a seed.

pub mod archive;
pub mod archive_writer;
pub mod body;
pub mod invocation;
pub mod issuer;
pub mod keys;
pub mod module;
mod nkey;
mod nuid;
mod resident;
mod section;
mod seen;
pub mod time;
pub mod token;
pub mod verify;

pub use body::{Account, Actor, Body, Cluster, Invocation, Operator, Provider};
pub use invocation::{AntiForgery, Checked, Forgery};
pub use issuer::AllowedIssuers;
pub use keys::{KeyPair, PublicKey, Role, SeedText, builtin_provider_key};
pub use time::Now;
pub use token::{Claims, Token};
pub use verify::{
    Policy, SignedModule, SignedProvider, judge_provider, verify_actor, verify_kept_provider, verify_provider,
};
