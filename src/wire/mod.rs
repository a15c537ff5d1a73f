//! The words of the lattice: messages, names, codecs. Pure data; nothing here does I/O or keeps state. What asks the
//! system for random bytes and the time is in [`id`].
//!
//! Comments everywhere in this crate cite the protocol as `protocol/lattice.md §4.2`: that is a section of a file in
//! `src/wire/protocol/`, beside this one.

pub mod cache;
pub mod chunk;
pub mod codec;
pub mod control;
pub mod entity;
pub mod event;
pub mod host_data;
pub mod id;
pub mod interface;
pub mod invocation;
pub mod json;
pub mod link;
pub mod name_limits;
pub mod names;
pub mod subject;
pub mod text;
pub mod trace;

pub use entity::Entity;
pub use invocation::{Invocation, InvocationResponse};
pub use link::LinkDefinition;
pub use trace::Trace;
