//! `latticed`: a wasmCloud lattice host for small Linux boards.
//!
//! # Layout
//!
//! Floors, lowest first; a room imports only from floors below its own (`tests/floors.rs` checks it).
//!
//! 0. [`error`]: the one error type, with a kind and a text for the operator; [`task`]: the executor; [`lock`]: locks
//!    that go on after a panic; [`log`]: one line per event; [`private`]: secret files; [`dumpable`]: who may look into
//!    this process; [`text_file`]: what editors and power cuts leave; [`users`]: the users of this machine by name;
//!    [`suggest`]: "did you mean". These may import each other.
//! 1. [`wire`]: the words of the lattice, no I/O; [`store`]: what survives a power cut; [`trust`], [`certificate`]: TLS
//!    for outgoing and incoming HTTP; [`allowed_hosts`], [`guarded_resolver`], [`redirect`]: where outgoing HTTP may
//!    lead.
//! 2. [`claims`]: who may do what: keys, tokens, signed modules, provider archives.
//! 3. [`nats`]: connections to NATS servers, guarded; [`actor`]: guests in the interpreter, one invocation as a future;
//!    [`artifact`]: where bytes come from.
//! 4. [`host`]: the heart: what should run, what does run, and the router every invocation passes; [`sdk`]: the
//!    provider's end of the protocol, which needs nothing of the host.
//! 5. [`lattice`]: the lattice's edge; [`capability`]: providers inside the process; [`provider`]: providers as
//!    processes; [`web`]: the local admin API, the mirror of a site.
//! 6. [`config`]: where a setting can come from; [`service`]: the service manager,
//!    its sockets, signals.
//! 7. [`cli`]: one file per subcommand; wires everything together.
//!
//! # What the daemon never does
//!
//! It never makes memory executable, never runs a guest on a thread that waits for it, never acknowledges a change
//! before it is on disk, never deletes what could not be fetched or made again, and never needs a network to start.

#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod actor;
pub mod allowed_hosts;
pub mod artifact;
pub mod capability;
pub mod certificate;
pub mod claims;
pub mod cli;
mod client_source;
pub mod config;
pub mod dumpable;
pub mod error;
pub mod guarded_resolver;
pub mod host;
pub mod lattice;
pub mod lock;
pub mod log;
pub mod nats;
pub mod private;
pub mod provider;
pub mod redirect;
pub mod sdk;
pub mod service;
pub mod store;
pub mod suggest;
pub mod task;
pub mod text_file;
pub mod trust;
pub mod users;
pub mod web;
pub mod wire;
