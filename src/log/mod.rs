//! One line per event, behind one macro that hides where lines go.
//!
//! ```ignore
//! log::info!("started {count} instances"; actor_id = key, name = claims.name);
//! ```
//! The text comes first, as in `format!`; fields after the `;` are displayed values under the names of
//! `protocol/config.md §7`. Never pass a secret to either.

#![allow(unused_macros, unused_imports)]

use std::fmt;

/// How much an event matters; ordered, so that a level lets through itself and everything graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The host or an entity cannot do its work.
    Error,
    /// Something is wrong or will be; work goes on.
    Warn,
    /// What an operator wants to see on a normal day.
    Info,
    /// What a developer of actors or providers wants to see.
    Debug,
    /// Everything.
    Trace,
}

/// Writes one event; use the macros instead.
pub fn write(level: Level, target: &str, text: fmt::Arguments<'_>, fields: &[(&str, &dyn fmt::Display)]) {
    let _ = target;
    eprint!("{level:?} {text}");
    for (name, value) in fields {
        eprint!(" {name}={value}");
    }
    eprintln!();
}

/// Whether an event of `level` would be written; lets callers skip costly arguments.
pub fn enabled(level: Level) -> bool {
    level <= Level::Info
}

macro_rules! emit {
    ($level:expr, $format:literal $(, $argument:expr)* $(,)? $(; $($name:ident = $value:expr),* $(,)?)?) => {
        if $crate::log::enabled($level) {
            $crate::log::write(
                $level,
                module_path!(),
                format_args!($format $(, $argument)*),
                &[$($((stringify!($name), &$value as &dyn ::std::fmt::Display)),*)?],
            )
        }
    };
}
macro_rules! error {
    ($($rest:tt)*) => { $crate::log::emit!($crate::log::Level::Error, $($rest)*) };
}
macro_rules! warning {
    ($($rest:tt)*) => { $crate::log::emit!($crate::log::Level::Warn, $($rest)*) };
}
macro_rules! info {
    ($($rest:tt)*) => { $crate::log::emit!($crate::log::Level::Info, $($rest)*) };
}
macro_rules! debug {
    ($($rest:tt)*) => { $crate::log::emit!($crate::log::Level::Debug, $($rest)*) };
}
macro_rules! trace {
    ($($rest:tt)*) => { $crate::log::emit!($crate::log::Level::Trace, $($rest)*) };
}
pub(crate) use {debug, emit, error, info, trace, warning as warn};
