//! Signals that end the host, SIGTERM from systemd and SIGINT from a terminal, and SIGHUP, which has it read its settings
//! again.
//!
//! The first one of those that end it asks for a drained stop. The second one means it: the process ends at once, which is safe, because
//! nothing is acknowledged before it is on disk. One that follows at once is the same wish twice (`timeout` signals the
//! process and its group) and does not count.

use std::{
    io, process,
    time::{Duration, Instant},
};

use async_signal::{Signal, Signals};
use smol::{Task, stream::StreamExt};

use crate::log;

/// What a shell reports for a process that SIGINT ended.
const EXIT_BY_SIGNAL: i32 = 130;

/// How soon after the first a second signal is still the same wish: half a second is quicker than a person presses twice
/// on purpose.
const SAME_WISH: Duration = Duration::from_millis(500);

/// Calls `stop` at the first SIGTERM or SIGINT and ends the process at the second.
///
/// # Errors
/// The signals cannot be caught.
pub fn on_stop(stop: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    crate::task::spawn(async move {
        let Some(signal) = signals.next().await else { return };
        log::info!("{}: finishing what is in flight; once more ends it at once", name(signal));
        let first = Instant::now();
        stop();
        while let Some(signal) = signals.next().await {
            if first.elapsed() >= SAME_WISH {
                log::warn!("{} again: ending at once", name(signal));
                process::exit(EXIT_BY_SIGNAL);
            }
        }
    })
    .detach();
    Ok(())
}

/// Runs `reload` at each SIGHUP, one after the other, until the task is dropped.
///
/// # Errors
/// The signal cannot be caught.
pub fn on_reload<F: Future<Output = ()> + Send>(reload: impl Fn() -> F + Send + 'static) -> io::Result<Task<()>> {
    let mut signals = Signals::new([Signal::Hup])?;
    Ok(crate::task::spawn(async move {
        while signals.next().await.is_some() {
            reload().await;
        }
    }))
}

fn name(signal: io::Result<Signal>) -> &'static str {
    match signal {
        Ok(Signal::Term) => "SIGTERM",
        Ok(Signal::Int) => "SIGINT",
        _ => "a signal",
    }
}
