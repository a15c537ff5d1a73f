//! Signals that end the host: SIGTERM from systemd, SIGINT from a terminal.
//!
//! The first one asks for a drained stop. The second one means it: the process ends at once, which is safe, because
//! nothing is acknowledged before it is on disk.

use std::{io, process};

use async_signal::{Signal, Signals};
use smol::stream::StreamExt;

use crate::log;

/// What a shell reports for a process that SIGINT ended.
const EXIT_BY_SIGNAL: i32 = 130;

/// Calls `stop` at the first SIGTERM or SIGINT and ends the process at the second.
///
/// # Errors
/// The signals cannot be caught.
pub fn on_stop(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    crate::task::spawn(async move {
        if let Some(signal) = signals.next().await {
            log::info!("{}: finishing what is in flight; once more ends it at once", name(signal));
            stop();
        }
        if let Some(signal) = signals.next().await {
            log::warn!("{} again: ending at once", name(signal));
            process::exit(EXIT_BY_SIGNAL);
        }
    })
    .detach();
    Ok(())
}

fn name(signal: io::Result<Signal>) -> &'static str {
    match signal {
        Ok(Signal::Term) => "SIGTERM",
        Ok(Signal::Int) => "SIGINT",
        _ => "a signal",
    }
}
