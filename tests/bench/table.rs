//! The table of results.

use std::fmt;

/// Which side of its goal a figure should be on.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// Not above.
    AtMost(f64),
    /// Not below.
    AtLeast(f64),
    /// Told, not judged.
    None,
}

/// Figures in the order they were measured.
#[derive(Debug, Default)]
pub struct Table(Vec<Row>);

#[derive(Debug)]
struct Row {
    figure: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

impl Table {
    /// Adds a figure.
    pub fn add(&mut self, figure: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.0.push(Row { figure: figure.into(), value, unit, goal });
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | measured | goal | |\n|---|---:|---:|---|")?;
        for Row { figure, value, unit, goal } in &self.0 {
            let (goal, kept) = match *goal {
                Goal::AtMost(limit) => (format!("≤ {}", short(limit)), if *value <= limit { "kept" } else { "MISSED" }),
                Goal::AtLeast(limit) => {
                    (format!("≥ {}", short(limit)), if *value >= limit { "kept" } else { "MISSED" })
                }
                Goal::None => (String::new(), ""),
            };
            writeln!(f, "| {figure} | {} {unit} | {goal} | {kept} |", short(*value))?;
        }
        Ok(())
    }
}

/// Three significant digits, or all of a whole number.
fn short(value: f64) -> String {
    if value == value.trunc() || value >= 1000.0 {
        format!("{value:.0}")
    } else if value >= 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// The middle of `values`, which are sorted on the way.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Bytes as MB (10^6), the unit of all goals.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
