//! A line under construction: of bounded length, on the stack, with everything that could break it escaped.

use std::fmt::{self, Write};

/// Longest line, bytes with its newline. A pipe takes this many at once or not at all (PIPE_BUF), so lines of several
/// writers never mix and a line is never torn. What does not fit is cut, marked with `…`.
pub(super) const LINE_BYTES: usize = 4096;
/// Longest text within a line, bytes after escaping; leaves room for the fields.
pub(super) const TEXT_BYTES: usize = 2816;
/// Longest value of one field, bytes after escaping.
pub(super) const VALUE_BYTES: usize = 512;
/// Room kept for what ends a line: a closing quote, brace, colour reset, newline.
const TAIL_BYTES: usize = 16;
const CUT: &str = "…";

/// How characters that could break a line are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// For people: `\n`, `\u{1b}`; the quote only within a quoted value.
    Text { quoted: bool },
    /// As JSON wants it.
    Json,
}

/// The bytes of one line so far.
pub(super) struct Line(heapless::String<LINE_BYTES>);

impl Line {
    pub(super) fn new() -> Self {
        Self(heapless::String::new())
    }

    /// Appends `text` as it is, if the line has room for it and for its own end.
    pub(super) fn raw(&mut self, text: impl fmt::Display) -> bool {
        let before = self.0.len();
        let fits = write!(self.0, "{text}").is_ok() && self.0.len() <= LINE_BYTES - TAIL_BYTES;
        if !fits {
            self.0.truncate(before);
        }
        fits
    }

    /// Appends `value` escaped, at most `limit` bytes of it, and marks a cut.
    pub(super) fn escaped(&mut self, value: impl fmt::Display, limit: usize, escape: Escape) {
        let room = (LINE_BYTES - TAIL_BYTES).saturating_sub(self.0.len());
        let limit = limit.min(room);
        let safe = self.0.len();
        let mut writer = Escaper { line: self, left: limit, safe, escape };
        let cut = write!(writer, "{value}").is_err();
        let safe = writer.safe;
        if cut && limit >= CUT.len() {
            self.0.truncate(safe);
            // It fits: `safe` leaves room for it within the limit.
            let _ = self.0.push_str(CUT);
        }
    }

    /// Appends the quote that ends a value, for which there is always room.
    pub(super) fn quote(&mut self) {
        let _ = self.0.push('"');
    }

    /// Appends what ends the line. [`TAIL_BYTES`] of room are kept for it.
    pub(super) fn end(mut self, tail: &str) -> heapless::String<LINE_BYTES> {
        debug_assert!(tail.len() < TAIL_BYTES);
        let _ = self.0.push_str(tail);
        let _ = self.0.push('\n');
        self.0
    }
}

struct Escaper<'a> {
    line: &'a mut Line,
    left: usize,
    /// Length of the line up to the last whole character that leaves room for the mark of a cut.
    safe: usize,
    escape: Escape,
}

impl Escaper<'_> {
    /// Appends one character in its escaped form, whole or not at all.
    fn push(&mut self, text: &str) -> fmt::Result {
        self.left = self.left.checked_sub(text.len()).ok_or(fmt::Error)?;
        self.line.0.push_str(text).map_err(|_| fmt::Error)?;
        if self.left >= CUT.len() {
            self.safe = self.line.0.len();
        }
        Ok(())
    }
}

impl Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let mut buffer = [0; 4];
            match (character, self.escape) {
                ('\n', _) => self.push("\\n")?,
                ('\r', _) => self.push("\\r")?,
                ('\t', _) => self.push("\\t")?,
                ('"', Escape::Json | Escape::Text { quoted: true }) => self.push("\\\"")?,
                ('\\', Escape::Json | Escape::Text { quoted: true }) => self.push("\\\\")?,
                (character, escape) if breaks_a_line(character) => {
                    let code = u32::from(character);
                    let mut text = heapless::String::<10>::new();
                    match escape {
                        // Nothing that breaks a line lies beyond the basic plane, so four digits do.
                        Escape::Json => write!(text, "\\u{code:04x}")?,
                        Escape::Text { .. } => write!(text, "\\u{{{code:x}}}")?,
                    }
                    self.push(&text)?;
                }
                (character, _) => self.push(character.encode_utf8(&mut buffer))?,
            }
        }
        Ok(())
    }
}

/// Control characters, line separators, and the marks that make a terminal show text in another order.
fn breaks_a_line(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(value: &str, limit: usize, escape: Escape) -> String {
        let mut line = Line::new();
        line.escaped(value, limit, escape);
        line.end("").to_string()
    }

    #[test]
    fn what_breaks_a_line_is_escaped() {
        let text = Escape::Text { quoted: false };
        assert_eq!(rendered("a\r\n\u{1b}[0m\u{202e}\u{85}\"", 100, text), "a\\r\\n\\u{1b}[0m\\u{202e}\\u{85}\"\n");
        assert_eq!(rendered("a\"\\", 100, Escape::Text { quoted: true }), "a\\\"\\\\\n");
        assert_eq!(rendered("\u{7f}\u{1}", 100, Escape::Json), "\\u007f\\u0001\n");
    }

    #[test]
    fn a_long_value_is_cut_at_a_character_and_marked() {
        let text = Escape::Text { quoted: false };
        assert_eq!(rendered("ääää", 7, text), "ää…\n");
        assert_eq!(rendered("ääää", 8, text), "ääää\n");
        assert_eq!(rendered(&"x".repeat(9000), 9000, text).len(), LINE_BYTES - TAIL_BYTES + 1);
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_of_bounded_length(text in any::<String>(), limit in 0usize..6000, json in any::<bool>()) {
            let escape = if json { Escape::Json } else { Escape::Text { quoted: false } };
            let line = rendered(&text, limit, escape);
            prop_assert!(line.len() <= LINE_BYTES && line.ends_with('\n'));
            prop_assert!(!line[..line.len() - 1].chars().any(breaks_a_line));
        }
    }
}
