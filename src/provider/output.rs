//! What a provider prints, as log lines with its key and name: bounded in length, in rate, and in what reading it costs.

use std::time::{Duration, Instant};

use smol::io::{AsyncRead, AsyncReadExt};

use crate::log;

/// Longest line that is logged, bytes; the rest of it is left out.
const LINE_BYTES: usize = 1024;

/// Read at once, bytes: what a pipe holds.
const READ_BYTES: usize = 4096;

/// Read per second, bytes. What prints more waits at its pipe, so that a flood costs the flooder and not the board; the log's
/// own limit of lines is far below.
const BYTES_PER_SECOND: usize = 256 * 1024;

/// Logs every line of `stream` as the provider's, to its end.
pub(super) async fn log_lines(provider: String, mut stream: impl AsyncRead + Unpin) {
    let mut lines = Lines::default();
    let mut buffer = vec![0; READ_BYTES];
    let (mut second, mut taken) = (Instant::now(), 0);
    loop {
        let count = match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        lines.take(&buffer[..count], |line| say(&provider, line));
        taken += count;
        if taken >= BYTES_PER_SECOND {
            let rest = Duration::from_secs(1).saturating_sub(second.elapsed());
            smol::Timer::after(rest).await;
            (second, taken) = (Instant::now(), 0);
        }
    }
    lines.end(|line| say(&provider, line));
}

fn say(provider: &str, line: &[u8]) {
    let text = plain(line);
    let text = text.trim();
    if !text.is_empty() {
        log::provider(provider, level(text), text);
    }
}

/// Bytes cut into lines.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    /// The line is longer than it may be, and its rest is passed over.
    cut: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_end) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_BYTES - self.begun.len();
            self.cut |= text.len() > room;
            self.begun.extend_from_slice(&text[..text.len().min(room)]);
            if is_end {
                self.end(&mut each);
            }
        }
    }

    fn end(&mut self, mut each: impl FnMut(&[u8])) {
        if self.cut {
            self.begun.extend_from_slice(" …".as_bytes());
        }
        if !self.begun.is_empty() {
            each(&self.begun);
        }
        self.begun.clear();
        self.cut = false;
    }
}

/// The text without the colours that loggers paint for terminals.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            plain.push(letter);
            continue;
        }
        // `ESC [ … letter`
        if letters.next() == Some('[') {
            letters.by_ref().find(char::is_ascii_alphabetic);
        }
    }
    plain
}

/// The level a line gives itself among its first words, as the loggers of provider SDKs write it; info without one.
fn level(text: &str) -> log::Level {
    let words = text.split(|letter: char| !letter.is_ascii_alphabetic()).filter(|word| word.len() > 3);
    let known = |word: &str| match word {
        "ERROR" => Some(log::Level::Error),
        "WARN" | "WARNING" => Some(log::Level::Warn),
        "INFO" => Some(log::Level::Info),
        "DEBUG" => Some(log::Level::Debug),
        "TRACE" => Some(log::Level::Trace),
        _ => None,
    };
    words.take(3).find_map(known).unwrap_or(log::Level::Info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_cut_and_counted_whatever_the_pieces() {
        let mut lines = Lines::default();
        let mut said = Vec::new();
        let text = format!("one\n\n{}\nthree", "x".repeat(3 * LINE_BYTES));
        for piece in text.as_bytes().chunks(7) {
            lines.take(piece, |line| said.push(line.to_vec()));
        }
        lines.end(|line| said.push(line.to_vec()));
        let lengths: Vec<usize> = said.iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, LINE_BYTES + " …".len(), 5]);
    }

    #[test]
    fn colours_go_and_levels_are_read() {
        let line = plain(b"\x1b[2m2026-01-01T00:00:00Z\x1b[0m \x1b[31mERROR\x1b[0m redis: gone\xff");
        assert_eq!(line, "2026-01-01T00:00:00Z ERROR redis: gone\u{fffd}");
        assert_eq!(level(&line), log::Level::Error);
        assert_eq!(level("connection WARNING"), log::Level::Warn);
        assert_eq!(level("no error here at all"), log::Level::Info);
        assert_eq!(plain(b"\x1b"), "");
    }
}
