//! Where a command puts its result: stdout, as text or as one JSON document.
//!
//! Used by every subcommand. A reader that goes away (`latticed status | head -1`) is no error: what follows is thrown
//! away and [`Output::is_closed`] tells a command that repeats itself to end. Any other failure to write is one,
//! because a script must not take half a result for a whole one.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Write},
};

use serde::Serialize;

use crate::error::{Error, Result};

/// The standard output of one command.
pub struct Output {
    json: bool,
    terminal: bool,
    closed: bool,
    sink: Box<dyn Write>,
}

impl Output {
    /// The output of this process; `json` is the flag `--json`.
    pub fn stdout(json: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self { json, terminal, closed: false, sink: Box::new(BufWriter::new(stdout)) }
    }

    /// An output into `sink`, for tests.
    pub fn to(sink: Box<dyn Write>, json: bool) -> Self {
        Self { json, terminal: false, closed: false, sink }
    }

    /// Whether the result is wanted as JSON.
    pub fn json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at a terminal: progress and screen control make sense.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Characters in a line of the terminal, or `None` where nothing limits them. `COLUMNS` overrides what the terminal
    /// says.
    pub fn width(&self) -> Option<usize> {
        let named = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|&columns| columns > 0);
        let told = || {
            let size = self.terminal.then(|| rustix::termios::tcgetwinsize(io::stdout()).ok()).flatten();
            size.map(|size| usize::from(size.ws_col)).filter(|&columns| columns > 0)
        };
        named.or_else(told)
    }

    /// Whether the reader went away, so that printing more is pointless.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints one line.
    ///
    /// # Errors
    /// `Storage` when stdout cannot be written, a full disk for instance.
    pub fn line(&mut self, text: impl fmt::Display) -> Result<()> {
        let line = format!("{text}\n");
        self.bytes(line.as_bytes())
    }

    /// Prints `text` as it is.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn text(&mut self, text: &str) -> Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Prints `value` as one indented JSON document and a line end.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn document(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|cause| Error::internal(format!("cannot show the result as JSON: {cause}")))?;
        self.line(text)
    }

    /// Prints `bytes` as they are.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = self.sink.write_all(bytes);
        self.check(written)
    }

    /// Hands everything printed so far to the reader.
    ///
    /// # Errors
    /// As [`Output::line`].
    pub fn flush(&mut self) -> Result<()> {
        if self.closed {
            return Ok(());
        }
        let flushed = self.sink.flush();
        self.check(flushed)
    }

    fn check(&mut self, result: io::Result<()>) -> Result<()> {
        match result {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(cause) => Err(Error::storage(format!("cannot write to standard output: {cause}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let mut output = Output::to(Box::new(Failing(io::ErrorKind::BrokenPipe)), false);
        assert_eq!(output.line("one"), Ok(()));
        assert!(output.is_closed());
        assert_eq!(output.line("two").and_then(|()| output.flush()), Ok(()));
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut output = Output::to(Box::new(Failing(io::ErrorKind::StorageFull)), false);
        assert_eq!(output.line("one").map_err(|error| error.kind()), Err(Kind::Storage));
        assert!(!output.is_closed());
    }
}
