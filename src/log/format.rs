//! The forms of a line (`protocol/config.md §7`): for people, for the journal, for programs.
//!
//! Pure: the time and the names come in, one bounded line comes out.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use time::OffsetDateTime;

use super::{
    event::{Event, Level, key_of},
    line::{Escape, LINE_BYTES, Line, TEXT_BYTES, VALUE_BYTES},
    names::Name,
};

/// How lines on stderr look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12:34:56.789 [info] text name=value`, times in UTC; in colour if asked.
    Plain {
        /// Whether the reader is a terminal that wants colour.
        colour: bool,
    },
    /// `<6>text name=value`: the journal has its own time, and takes the level from the prefix.
    Journal,
    /// One JSON object: `msg`, `level`, `time`, `module`, and the fields.
    Structured,
}

impl Format {
    /// Writes `event` in this form. `name_of` looks up the name of a key.
    pub(super) fn render(
        self,
        event: &Event<'_>,
        time: SystemTime,
        mut name_of: impl FnMut(&str, &mut Name) -> bool,
    ) -> heapless::String<LINE_BYTES> {
        match self {
            Format::Structured => structured(event, time, &mut name_of),
            Format::Journal => {
                let mut line = Line::new();
                line.raw(format_args!("<{}>", event.level.priority()));
                body(&mut line, event, false, &mut name_of);
                line.end("")
            }
            Format::Plain { colour } => {
                let mut line = Line::new();
                let [time_of_day, level, end] = if colour { colours(event.level) } else { [""; 3] };
                line.raw(format_args!("{time_of_day}{}{end} [{level}{}{end}] ", Clock(time), event.level));
                body(&mut line, event, colour, &mut name_of);
                line.end("")
            }
        }
    }
}

/// Escape sequences for the time, the level, and back to normal.
fn colours(level: Level) -> [&'static str; 3] {
    let level = match level {
        Level::Error => "\x1b[1;31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[36m",
        Level::Trace => "\x1b[2m",
    };
    [DIM, level, NORMAL]
}
const DIM: &str = "\x1b[2m";
const NORMAL: &str = "\x1b[0m";

/// A lookup of a key's name.
type NameOf<'a> = &'a mut dyn FnMut(&str, &mut Name) -> bool;

/// Text and fields; a guest's fields come first, as its text could end in something that looks like one.
fn body(line: &mut Line, event: &Event<'_>, colour: bool, name_of: NameOf<'_>) {
    let text = Escape::Text { quoted: false };
    if event.guest {
        fields(line, event, colour, name_of);
        line.raw(": ");
        line.escaped(event.text, TEXT_BYTES, text);
    } else {
        line.escaped(event.text, TEXT_BYTES, text);
        line.raw(if event.fields.is_empty() { "" } else { " " });
        fields(line, event, colour, name_of);
    }
}

/// `name=value` for each field, with the name of a key in parentheses behind it.
fn fields(line: &mut Line, event: &Event<'_>, colour: bool, name_of: NameOf<'_>) {
    let [dim, normal] = if colour { [DIM, NORMAL] } else { [""; 2] };
    for (index, (field, value)) in event.fields.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        if !line.raw(format_args!("{space}{dim}{field}={normal}")) {
            return;
        }
        let quoted = needs_quotes(value);
        if quoted && !line.raw('"') {
            return;
        }
        line.escaped(value, VALUE_BYTES, Escape::Text { quoted });
        if quoted {
            line.quote();
        }
        if let Some(name) = name_for(field, value, name_of) {
            line.raw("(");
            line.escaped(name.as_str(), VALUE_BYTES, Escape::Text { quoted: false });
            line.raw(")");
        }
    }
}

/// `{"msg":…,"level":…,"time":…,"module":…,…}`; the name of `actor_id` is `actor_name`.
fn structured(event: &Event<'_>, time: SystemTime, name_of: NameOf<'_>) -> heapless::String<LINE_BYTES> {
    let mut line = Line::new();
    line.raw("{\"msg\":\"");
    line.escaped(event.text, TEXT_BYTES, Escape::Json);
    line.raw(format_args!(
        "\",\"level\":\"{}\",\"time\":\"{}\",\"module\":\"{}\"",
        event.level,
        Timestamp(time),
        event.target
    ));
    for (field, value) in event.fields {
        member(&mut line, format_args!("{field}"), value);
        if let Some(name) = name_for(field, value, name_of) {
            let stem = field.strip_suffix("_id").unwrap_or(field);
            member(&mut line, format_args!("{stem}_name"), &name);
        }
    }
    line.end("}")
}

/// Appends `,"name":"value"`, or nothing if the line is full.
fn member(line: &mut Line, name: fmt::Arguments<'_>, value: &dyn fmt::Display) {
    if line.raw(format_args!(",\"{name}\":\"")) {
        line.escaped(value, VALUE_BYTES, Escape::Json);
        line.quote();
    }
}

fn name_for(field: &str, value: &dyn fmt::Display, name_of: NameOf<'_>) -> Option<Name> {
    let mut name = Name::new();
    let known = field.ends_with("_id") && name_of(&key_of(value)?, &mut name);
    known.then_some(name)
}

/// Whether a value could be mistaken for more than one: empty, or with a space, a quote, or an equals sign.
fn needs_quotes(value: &dyn fmt::Display) -> bool {
    struct Probe {
        empty: bool,
    }
    impl fmt::Write for Probe {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.empty &= text.is_empty();
            if text.contains([' ', '"', '=', '\\', '\n']) { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut probe = Probe { empty: true };
    fmt::write(&mut probe, format_args!("{value}")).is_err() || probe.empty
}

/// `12:34:56.789`, UTC.
struct Clock(SystemTime);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hour, minute, second, milli) = moment(self.0).to_hms_milli();
        write!(f, "{hour:02}:{minute:02}:{second:02}.{milli:03}")
    }
}

/// `2026-01-31T12:34:56.789Z`.
struct Timestamp(SystemTime);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = moment(self.0).date();
        write!(f, "{:04}-{:02}-{:02}T{}Z", date.year(), u8::from(date.month()), date.day(), Clock(self.0))
    }
}

/// A board without a battery may start in 1970; one with a broken clock may not be representable at all.
fn moment(time: SystemTime) -> OffsetDateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    time::Duration::try_from(since)
        .ok()
        .and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOON: Duration = Duration::from_millis(1_769_862_896_789);

    fn render(format: Format, text: &str, fields: &[(&str, &dyn fmt::Display)]) -> String {
        let event =
            Event { level: Level::Warn, target: "latticed::log", text: format_args!("{text}"), fields, guest: false };
        format.render(&event, UNIX_EPOCH + NOON, |key, name| key == "MKEY" && name.push_str("echo").is_ok()).to_string()
    }

    #[test]
    fn plain_lines_have_time_level_text_fields_and_names() {
        assert_eq!(
            render(
                Format::Plain { colour: false },
                "slow",
                &[("actor_id", &"MKEY"), ("error", &"a \"b\""), ("x", &"")]
            ),
            "12:34:56.789 [warn] slow actor_id=MKEY(echo) error=\"a \\\"b\\\"\" x=\"\"\n"
        );
        assert_eq!(
            render(Format::Plain { colour: true }, "slow", &[("n", &1)]),
            "\x1b[2m12:34:56.789\x1b[0m [\x1b[33mwarn\x1b[0m] slow \x1b[2mn=\x1b[0m1\n"
        );
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_time() {
        assert_eq!(render(Format::Journal, "slow", &[("n", &1)]), "<4>slow n=1\n");
    }

    #[test]
    fn structured_lines_are_json_with_the_members_of_the_protocol() {
        let line = render(Format::Structured, "a \"b\"\n", &[("actor_id", &"MKEY"), ("n", &1)]);
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "msg": "a \"b\"\n", "level": "warn", "time": "2026-01-31T12:34:56.789Z", "module": "latticed::log",
                "actor_id": "MKEY", "actor_name": "echo", "n": "1",
            })
        );
    }

    proptest! {
        #[test]
        fn structured_lines_are_json_however_much_is_cut(text in "\\PC{0,4000}", value in any::<String>(), n in 0usize..40) {
            let fields: Vec<(&str, &dyn fmt::Display)> = (0..n).map(|_| ("f", &value as &dyn fmt::Display)).collect();
            let line = render(Format::Structured, &text, &fields);
            prop_assert!(line.len() <= LINE_BYTES);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&line).is_ok(), "{}", line);
        }
    }
}
