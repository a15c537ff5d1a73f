//! `.env` files: assignments as a shell would read them, without running anything.
//!
//! Pure. Understood: `NAME=value`, `export NAME=value`, blank lines, `#` comments, `'…'` taken literally over several
//! lines, `"…"` with `\n \r \t \" \\ \$`. Not understood, on purpose: `$NAME` and `` `command` `` stay as they are.

use crate::{
    error::{Error, Result},
    text_file::{is_blank, without_mark},
};

/// Longest `.env` file read, bytes. Settings fit a hundred times; a larger file is not one.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;

/// One assignment.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Line it begins on, from 1.
    pub line: usize,
    /// Name.
    pub name: String,
    /// Value, quotes removed. May be a secret: this type has no `Debug`.
    pub value: String,
}

/// Reads the text of the file called `file` in errors.
///
/// # Errors
/// `Config`, naming file and line and never a value: a line that is no assignment, a name that cannot be one, a quote
/// that is not closed or followed by more than a comment.
pub fn parse(file: &str, text: &str) -> Result<Vec<Assignment>> {
    let mut assignments = Vec::new();
    let mut rest = if is_blank(text) { "" } else { without_mark(text) };
    let mut line = 1;
    while !rest.is_empty() {
        let start = line;
        let wrong = |reason: &str| Error::config(format!("{file}:{start}: {reason}"));
        let end = rest.find('\n').unwrap_or(rest.len());
        let current = rest[..end].trim();
        if current.is_empty() || current.starts_with('#') {
            rest = rest.get(end + 1..).unwrap_or_default();
            line += 1;
            continue;
        }
        let trimmed = rest.trim_start();
        let statement = match trimmed.strip_prefix("export") {
            Some(after) if after.starts_with([' ', '\t']) => after.trim_start_matches([' ', '\t']),
            _ => trimmed,
        };
        let Some((name, after)) = statement.split_once('=').filter(|(name, _)| !name.contains('\n')) else {
            return Err(wrong("expected NAME=value, a comment or an empty line"));
        };
        let name = name.trim_end();
        if !is_name(name) {
            return Err(wrong("expected a name of letters, digits and _ before the ="));
        }
        let (value, remaining) = value(after.trim_start_matches([' ', '\t'])).map_err(wrong)?;
        line += rest[..rest.len() - remaining.len()].matches('\n').count();
        rest = remaining;
        assignments.push(Assignment { line: start, name: name.to_owned(), value });
    }
    Ok(assignments)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|letter: char| letter.is_ascii_digit())
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// The value at the beginning of `text`, and what follows its line.
fn value(text: &str) -> Result<(String, &str), &'static str> {
    let (value, after) = match text.chars().next() {
        Some('\'') => {
            let (value, after) = text[1..].split_once('\'').ok_or("the ' is not closed")?;
            (value.to_owned(), after)
        }
        Some('"') => double_quoted(&text[1..])?,
        _ => {
            let end = text.find('\n').unwrap_or(text.len());
            // A comment needs a space before it: `#` within a word belongs to the word.
            let comment = text[..end].match_indices('#').map(|(at, _)| at);
            let cut = comment.into_iter().find(|&at| at == 0 || text[..at].ends_with([' ', '\t'])).unwrap_or(end);
            return Ok((text[..cut].trim_end().to_owned(), text.get(end + 1..).unwrap_or_default()));
        }
    };
    let end = after.find('\n').unwrap_or(after.len());
    let tail = after[..end].trim();
    if !tail.is_empty() && !tail.starts_with('#') {
        return Err("only a comment may follow the closing quote");
    }
    Ok((value, after.get(end + 1..).unwrap_or_default()))
}

fn double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match letters.next().map(|(_, letter)| letter) {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(letter @ ('"' | '\\' | '$' | '`')) => value.push(letter),
                Some(letter) => value.extend(['\\', letter]),
                None => break,
            },
            letter => value.push(letter),
        }
    }
    Err("the \" is not closed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        let assignments = parse(".env", text).expect("a good file");
        assignments.into_iter().map(|found| (found.line, found.name, found.value)).collect()
    }

    fn one(text: &str) -> String {
        pairs(text).remove(0).2
    }

    #[test]
    fn assignments_comments_and_lines() {
        let text = "# head\n\nA=1\r\n  export B = two words  # note\nC=\nD='x\ny' # z\nE=\"a\\n\\\"b\\\" \\q\"\nF=a#b";
        let seen: Vec<_> = pairs(text);
        let expected = [
            (3, "A", "1"),
            (4, "B", "two words"),
            (5, "C", ""),
            (6, "D", "x\ny"),
            (8, "E", "a\n\"b\" \\q"),
            (9, "F", "a#b"),
        ];
        let expected: Vec<_> = expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned())).into();
        assert_eq!(seen, expected);
    }

    #[test]
    fn nothing_is_expanded() {
        assert_eq!(
            (one("A=$HOME"), one("A=\"$(id)\""), one("A=`id`")),
            ("$HOME".into(), "$(id)".into(), "`id`".into())
        );
        assert_eq!((one("A=# only a comment"), one("exported=1")), (String::new(), "1".into()));
    }

    #[test]
    fn mistakes_name_file_and_line_and_no_value() {
        let cases = [
            ("A=1\nSECRETVALUE", ".env:2: expected NAME=value"),
            ("1A=SECRETVALUE", ".env:1: expected a name"),
            ("\n\nA='SECRETVALUE", ".env:3: the ' is not closed"),
            ("A=\"SECRETVALUE", ".env:1: the \" is not closed"),
            ("A='SECRETVALUE' SECRETVALUE", ".env:1: only a comment"),
        ];
        for (text, expected) in cases {
            let error = parse(".env", text).err().expect("a bad file").to_string();
            assert!(error.starts_with(expected) && !error.contains("SECRETVALUE"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends(text in any::<String>()) {
            if let Ok(found) = parse(".env", &text) {
                prop_assert!(found.windows(2).all(|pair| pair[0].line < pair[1].line));
            }
        }

        #[test]
        fn quoted_values_come_back(value in any::<String>()) {
            let quoted: String = value.chars().flat_map(|letter| {
                let escape = matches!(letter, '"' | '\\' | '$' | '`').then_some('\\');
                escape.into_iter().chain([letter])
            }).collect();
            prop_assert_eq!(one(&format!("A=\"{}\"\n", quoted)), value);
        }
    }
}
