//! The words of the lattice: messages, names, codecs. Pure data; nothing here does I/O or keeps state.

pub mod codec;
pub mod entity;
pub mod interface;
pub mod link;

pub use entity::Entity;
pub use link::LinkDefinition;
