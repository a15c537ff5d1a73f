//! The line on stderr that tells how far a transfer has come, where a person looks at it.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

/// Time between two lines: five a second read well and cost nothing.
const INTERVAL: Duration = Duration::from_millis(200);

const MEGABYTE: f64 = 1_000_000.0;

/// A line that is drawn over and over; it is wiped away when dropped.
pub struct Progress {
    what: String,
    shown: bool,
    last: Option<Instant>,
}

impl Progress {
    /// Progress of `what`; silent where `json` is wanted or nobody looks.
    pub fn new(what: impl Into<String>, json: bool) -> Self {
        Self { what: what.into(), shown: !json && io::stderr().is_terminal(), last: None }
    }

    /// `done` of `all` bytes are through.
    pub fn tell(&mut self, done: u64, all: u64) {
        if !self.shown || self.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        self.last = Some(Instant::now());
        let (done, all) = (done.min(all) as f64, all as f64);
        let percent = if all > 0.0 { 100.0 * done / all } else { 100.0 };
        // A terminal that is gone needs no progress.
        let _ = write!(
            io::stderr(),
            "\r{}: {:.1} of {:.1} MB, {percent:.0} %\x1b[K",
            self.what,
            done / MEGABYTE,
            all / MEGABYTE
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.last.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
