//! Text files as editors and power cuts leave them.
//!
//! Each reader of a file that a person may write asks here first, so that all of them read the same: a byte order mark at the
//! front is no part of the text, a line may end in CR LF, and a file that holds nothing, as one has whose content was not on
//! the disk yet when power went, is like none and stops nothing. Pure.

/// `text` without a byte order mark at its front.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Whether `text` holds nothing: white space alone, or the zero bytes that some file systems leave after a power cut.
pub fn is_blank(text: &str) -> bool {
    without_mark(text).chars().all(|letter| letter.is_whitespace() || letter == '\0')
}

/// What is told of a file that [`is_blank`].
pub fn blank_warning(name: &str) -> String {
    format!(
        "{name} is empty, as a power cut can leave a file, and is read as if it were not there: write it again or remove it"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_nothing_are_told_from_text() {
        assert_eq!((without_mark("\u{feff}a"), without_mark("a\u{feff}")), ("a", "a\u{feff}"));
        for nothing in ["", "\u{feff}", " \r\n\t", "\0\0\0\0"] {
            assert!(is_blank(nothing), "{nothing:?}");
        }
        assert!(!is_blank("\u{feff}# comment"));
    }
}
