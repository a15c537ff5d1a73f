//! A plain table that fits the terminal.
//!
//! Pure text in, text out; used by `latticed status`. Cells may come from strangers (names in claims), so control
//! characters never reach the terminal.

use std::fmt::Write as _;

/// Narrowest a column is cut to, characters: what still tells one key or name from another.
const MIN_WIDTH: usize = 9;

/// Widest a cell is shown, characters, whatever the width of the page: keys have 56, references and addresses are shorter
/// than this. A stranger's name of a million characters would push everything else out of sight.
const MAX_WIDTH: usize = 200;

/// Space between columns.
const GAP: usize = 2;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Text: left, its end cut when space is short.
    Text,
    /// A public key: left, its middle cut when space is short.
    Key,
    /// A number: right, never cut.
    Number,
}

/// A table with a head.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Column)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(columns: &[(&'static str, Column)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, extra ones are not shown.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table, each line at most `width` characters if cutting to [`MIN_WIDTH`] can bring that about.
    pub fn render(&self, width: Option<usize>) -> String {
        let widths = self.widths(width);
        let mut text = String::new();
        let head: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (index, &(_, column)) in self.columns.iter().enumerate() {
                let cell = cut(row.get(index).map_or("", String::as_str), column, widths[index]);
                let room = widths[index];
                // Writing to a String cannot fail. No cell is wider than MAX_WIDTH, and `write!` panics beyond 65535.
                let _ = match column {
                    Column::Number => write!(line, "{cell:>room$}{:GAP$}", ""),
                    Column::Text | Column::Key => write!(line, "{cell:<room$}{:GAP$}", ""),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The width of each column: as wide as its widest cell, then the widest that may be cut gives way one by one.
    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|index| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0).min(MAX_WIDTH);
                widest.max(self.columns[index].0.len())
            })
            .collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP * self.columns.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > limit {
            let floor = |index: usize| self.columns[index].0.len().max(MIN_WIDTH);
            let widest = (0..widths.len())
                .filter(|&index| self.columns[index].1 != Column::Number && widths[index] > floor(index))
                .max_by_key(|&index| (self.columns[index].1 == Column::Key, widths[index]));
            match widest {
                Some(index) => widths[index] -= 1,
                None => break,
            }
        }
        widths
    }
}

/// `text` without anything that moves the cursor, hides what follows, or turns the order of what is read.
pub fn printable(text: &str) -> String {
    text.chars().map(|character| if hides(character) { '\u{fffd}' } else { character }).collect()
}

/// Control characters, line separators, and marks that change the direction of the text around them.
fn hides(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

fn cut(text: &str, column: Column, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    let tail = if column == Column::Key { kept / 2 } else { 0 };
    let head: String = text.chars().take(kept - tail).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{head}…{end}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: [(&str, Column); 3] = [("NAME", Column::Text), ("KEY", Column::Key), ("CALLS", Column::Number)];

    fn table(rows: &[[&str; 3]]) -> Table {
        let mut table = Table::new(&COLUMNS);
        for row in rows {
            table.row(row.map(str::to_owned));
        }
        table
    }

    #[test]
    fn columns_line_up() {
        let text = table(&[["echo", "MABC", "7"], ["a counter", "MD", "1234567"]]).render(None);
        assert_eq!(
            text,
            "NAME       KEY     CALLS\n\
             echo       MABC        7\n\
             a counter  MD    1234567\n"
        );
    }

    #[test]
    fn keys_give_way_before_names_and_numbers_never_do() {
        let key = format!("MA{}YZ", "B".repeat(52));
        let text = table(&[["a long-winded name", &key, "12345678901"]]).render(Some(42));
        assert_eq!(text.lines().nth(1), Some("a long-winded name  MABB…BBYZ  12345678901"));
        let text = table(&[["a long-winded name", &key, "12345678901"]]).render(Some(20));
        assert_eq!(text.lines().nth(1), Some("a long-w…  MABB…BBYZ  12345678901"));
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let text = table(&[["\x1b[31mred\n\u{9b}x", "M", "1"]]).render(None);
        assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_name_without_end_is_cut_and_hides_nothing() {
        let endless = "x".repeat(70_000);
        for width in [None, Some(0), Some(80), Some(usize::MAX)] {
            let text = table(&[[&endless, &endless, &endless], ["echo", "MABC", "7"]]).render(width);
            assert_eq!(text.lines().count(), 3);
            assert!(text.lines().all(|line| line.chars().count() <= 3 * (MAX_WIDTH + GAP)), "{width:?}");
            assert!(text.contains("echo") && text.contains('…'));
        }
    }

    proptest! {
        #[test]
        fn no_cells_and_no_width_panic(
            rows in proptest::collection::vec(proptest::collection::vec(".{0,300}", 0..6), 0..6),
            width in proptest::option::of(proptest::num::usize::ANY),
            narrow in 0usize..300,
        ) {
            for width in [width, Some(narrow)] {
                let mut table = Table::new(&COLUMNS);
                for row in &rows {
                    table.row(row.clone());
                }
                let text = table.render(width);
                prop_assert_eq!(text.lines().count(), rows.len() + 1);
                prop_assert!(!text.chars().any(|character| character.is_control() && character != '\n'));
            }
        }

        #[test]
        fn every_line_fits_when_it_can(name in "\\PC{0,80}", key in "[A-Z]{0,56}", width in 34usize..200) {
            let text = table(&[[&name, &key, "1"]]).render(Some(width));
            prop_assert!(text.lines().all(|line| line.chars().count() <= width), "{}", text);
        }
    }
}
