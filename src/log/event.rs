//! What happened, before any sink gives it a form.

use std::fmt::{self, Write as _};

/// Characters of an nkey, the longest key a source is told apart by.
const KEY_LENGTH: usize = 56;

/// How much an event matters; ordered, so that a level lets through itself and everything graver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// The host or an entity cannot do its work.
    Error,
    /// Something is wrong or will be; work goes on.
    Warn,
    /// What an operator wants to see on a normal day.
    Info,
    /// What a developer of actors or providers wants to see.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The level's name in settings and in structured lines.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// Reads a level as settings write it, its case and the space around it ignored. `None` for any other word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::named(text.trim())
    }

    /// Reads a level as guests write it: its case ignored, and nothing around it. `critical` is an error here: the
    /// journal's own criticals are for the host.
    pub fn named(name: &str) -> Option<Self> {
        let names = [
            ("critical", Level::Error),
            ("error", Level::Error),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("info", Level::Info),
            ("debug", Level::Debug),
            ("trace", Level::Trace),
        ];
        names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, level)| *level)
    }

    /// The priority of syslog and the journal.
    pub(super) fn priority(self) -> u8 {
        match self {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One event on its way to the sinks.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// How much it matters.
    pub level: Level,
    /// The module it comes from.
    pub target: &'static str,
    /// The text for people.
    pub text: fmt::Arguments<'a>,
    /// Names and values.
    pub fields: &'a [(&'a str, &'a dyn fmt::Display)],
    /// Whether the text is a guest's, so that fields must stand before it.
    pub guest: bool,
}

/// A key that fits on the stack; longer ones are no keys.
pub(super) type Key = heapless::String<KEY_LENGTH>;

impl Event<'_> {
    /// The actor or provider that the event is about, as the rate limit tells sources apart.
    pub(super) fn source(&self) -> Option<Key> {
        let (_, value) = self.fields.iter().find(|(name, _)| matches!(*name, "actor_id" | "provider_id"))?;
        key_of(value)
    }
}

/// `value` as text if it is short enough to be a key.
pub(super) fn key_of(value: &dyn fmt::Display) -> Option<Key> {
    let mut key = Key::new();
    write!(key, "{value}").ok().map(|()| key)
}

#[cfg(test)]
mod tests {
    use super::Level;

    #[test]
    fn levels_are_read_in_any_case_and_ordered_by_gravity() {
        assert_eq!(Level::parse(" Warning"), Some(Level::Warn));
        assert_eq!(Level::parse("TRACE"), Some(Level::Trace));
        assert_eq!(Level::parse("loud"), None);
        assert!(Level::Error < Level::Warn && Level::Debug < Level::Trace);
    }
}
