//! What a setting may hold: its kind, and how the text of a source becomes a value of that kind.

use std::{path::Path, time::Duration};

use super::friendly::is_host_name;
use crate::{
    claims::{KeyPair, PublicKey, Role},
    log::Level,
    wire::subject::{MAX_LATTICE_NAME_BYTES, check_control_prefix, check_lattice_name},
};

/// Longest value of a setting, bytes. Tokens are the longest; a larger value is a file put in the wrong place.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;

/// The kind of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path, absolute or from the current directory.
    Path,
    /// `1 TRUE YES Y ENABLED ENABLE` in any case are true, everything else is false (`protocol/config.md §2`).
    Flag,
    /// A whole number within bounds.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A number of bytes within bounds: `4096`, `64K`, `16M`, `1G`, also with `iB` or `B`; K is 1024.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Milliseconds within bounds.
    Millis {
        /// Shortest.
        min: u64,
        /// Longest.
        max: u64,
    },
    /// `trace debug info warn error`.
    Level,
    /// One of these words; the first is what an unset setting means.
    Choice(&'static [&'static str]),
    /// Texts separated by commas.
    List,
    /// Public keys of this role, separated by commas.
    Keys(Role),
    /// A name that is one part of a NATS subject and of the name of a bucket.
    Token,
    /// The beginning of NATS subjects: parts with dots between them.
    Subject,
    /// A name for people, as host names are.
    HostName,
    /// The seed of a key of this role: secret.
    Seed(Role),
    /// Any text that must not be seen.
    Secret,
}

impl Kind {
    /// Whether values must never be shown.
    pub fn is_secret(self) -> bool {
        matches!(self, Kind::Seed(_) | Kind::Secret)
    }

    /// Checks `text` and brings it into one form.
    ///
    /// # Errors
    /// What is expected instead, to be read after "expected". Never repeats the value.
    pub fn normalise(self, text: &str) -> Result<String, String> {
        if text.len() > MAX_VALUE_BYTES {
            return Err(format!("at most {MAX_VALUE_BYTES} bytes"));
        }
        if text.contains('\0') {
            return Err("text without zero bytes".into());
        }
        match self {
            Kind::Text | Kind::Path => Ok(text.to_owned()),
            Kind::Secret => Ok(text.trim().to_owned()),
            Kind::Flag => Ok(if flag(text) { "true" } else { "false" }.into()),
            Kind::Count { min, max } => {
                let expected = || format!("a whole number from {min} to {max}");
                bounded(text.trim().parse().ok(), min, max).map(|count| count.to_string()).ok_or_else(expected)
            }
            Kind::Bytes { min, max } => {
                let expected =
                    || format!("a number of bytes such as 64K or 16M, from {} to {}", show_bytes(min), show_bytes(max));
                bounded(bytes(text), min, max).map(|count| count.to_string()).ok_or_else(expected)
            }
            Kind::Millis { min, max } => {
                let expected = || format!("a whole number of milliseconds from {min} to {max}");
                bounded(text.trim().parse().ok(), min, max).map(|count| count.to_string()).ok_or_else(expected)
            }
            Kind::Level => Level::parse(text)
                .map(|level| level.name().to_owned())
                .ok_or_else(|| "one of trace, debug, info, warn, error".into()),
            Kind::Choice(words) => words
                .iter()
                .find(|word| word.eq_ignore_ascii_case(text.trim()))
                .map(|word| (*word).to_owned())
                .ok_or_else(|| format!("one of {}", words.join(", "))),
            Kind::List => {
                let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                match items.is_empty() && !text.is_empty() {
                    // A list that closes something must not be open because of a mistake.
                    true => Err("one item at least; leave it away to set nothing".to_owned()),
                    false => Ok(items.join(",")),
                }
            }
            Kind::Keys(role) => {
                let keys: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                match !keys.is_empty()
                    && keys.iter().all(|key| key.parse::<PublicKey>().is_ok_and(|key| key.role() == role))
                {
                    true => Ok(keys.join(",")),
                    false => Err(format!("public keys of role {}, {}… each", role.name(), role.letter())),
                }
            }
            Kind::Token => match check_lattice_name(text.trim()) {
                Ok(()) => Ok(text.trim().to_owned()),
                Err(_) => Err(format!("at most {MAX_LATTICE_NAME_BYTES} letters, digits, '-' and '_'")),
            },
            Kind::Subject => match check_control_prefix(text.trim()) {
                Ok(()) => Ok(text.trim().to_owned()),
                Err(_) => Err("words with single dots between them, without blanks and wildcards".to_owned()),
            },
            Kind::HostName => match is_host_name(text.trim()) {
                true => Ok(text.trim().to_owned()),
                false => Err("at most 63 letters, digits, '-', '_' and '.'".to_owned()),
            },
            Kind::Seed(role) => {
                let expected = || format!("the seed of {} key, S{}…", role_name(role), role.letter());
                let key = KeyPair::from_seed(text.trim()).map_err(|_| expected())?;
                if key.role() == role { Ok(text.trim().to_owned()) } else { Err(expected()) }
            }
        }
    }

    /// What to write, for people: `bytes`, `true or false`.
    pub fn describe(self) -> String {
        match self {
            Kind::Text | Kind::Secret => "text".into(),
            Kind::Path => "path".into(),
            Kind::Flag => "true or false".into(),
            Kind::Count { .. } => "number".into(),
            Kind::Bytes { .. } => "bytes".into(),
            Kind::Millis { .. } => "milliseconds".into(),
            Kind::Level => "level".into(),
            Kind::Choice(words) => words.join(" or "),
            Kind::List => "comma list".into(),
            Kind::Keys(role) => format!("keys {}…", role.letter()),
            Kind::Token | Kind::HostName => "name".into(),
            Kind::Subject => "subject".into(),
            Kind::Seed(role) => format!("seed S{}…", role.letter()),
        }
    }

    /// A normalised value in the form people like best: `16M` for bytes.
    pub fn show(self, value: &str) -> String {
        match (self, value.parse()) {
            (Kind::Bytes { .. }, Ok(count)) => show_bytes(count),
            _ => value.to_owned(),
        }
    }
}

/// A host's keys are called a server's in the words of nkeys.
fn role_name(role: Role) -> &'static str {
    if role == Role::Server { "a host" } else { role.with_article() }
}

fn bounded(count: Option<u64>, min: u64, max: u64) -> Option<u64> {
    count.filter(|count| (min..=max).contains(count))
}

/// Whether `text` means yes, as hosts of this protocol read it.
pub fn flag(text: &str) -> bool {
    ["1", "true", "yes", "y", "enabled", "enable"].iter().any(|word| word.eq_ignore_ascii_case(text.trim()))
}

/// Whether `text` is a usual word for no. Others mean no too, but hardly on purpose.
pub fn plain_no(text: &str) -> bool {
    ["", "0", "false", "no", "n", "disabled", "disable", "off"]
        .iter()
        .any(|word| word.eq_ignore_ascii_case(text.trim()))
}

/// Reads a number of bytes with an optional unit.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A number of bytes with the largest unit that keeps it whole.
pub fn show_bytes(count: u64) -> String {
    [(30, "G"), (20, "M"), (10, "K")]
        .iter()
        .find(|(shift, _)| count > 0 && count.trailing_zeros() >= *shift)
        .map_or_else(|| count.to_string(), |(shift, unit)| format!("{}{unit}", count >> shift))
}

/// A normalised number of milliseconds.
pub fn millis(value: &str) -> Option<Duration> {
    value.parse().ok().map(Duration::from_millis)
}

/// The first path of a list as systemd gives it in `STATE_DIRECTORY`, if it is absolute.
pub fn first_path(list: &str) -> Option<&str> {
    list.split(':').next().filter(|path| Path::new(path).is_absolute())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_take_units() {
        for (text, count) in [
            ("0", 0),
            ("4096", 4096),
            ("16M", 16 << 20),
            ("64KiB", 65536),
            ("64 kb", 65536),
            ("1g", 1 << 30),
            ("7B", 7),
        ] {
            assert_eq!(bytes(text), Some(count), "{text}");
        }
        for text in ["", "M", "1.5M", "-1", "16T", "16M2", "99999999999G", "٣"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(
            (show_bytes(16 << 20), show_bytes(1536), show_bytes(1000), show_bytes(0)),
            ("16M".into(), "1536".into(), "1000".into(), "0".into())
        );
    }

    #[test]
    fn flags_are_as_the_protocol_says() {
        for text in ["1", "TRUE", "true", "Yes", "y", "ENABLED", "enable"] {
            assert!(flag(text), "{text}");
        }
        for text in ["", "0", "on", "truly", "2", "t"] {
            assert!(!flag(text), "{text}");
        }
    }

    #[test]
    fn bad_values_say_what_is_expected_and_never_repeat_the_value() {
        let cases = [
            (Kind::Count { min: 1, max: 9 }, "0"),
            (Kind::Bytes { min: 1, max: 1 << 20 }, "2M"),
            (Kind::Millis { min: 1, max: 9 }, "soon"),
            (Kind::Level, "loud"),
            (Kind::Choice(&["off", "deny-all"]), "allow"),
            (Kind::Seed(Role::Cluster), "SCNOTASEED"),
        ];
        for (kind, text) in cases {
            let expected = kind.normalise(text).expect_err(text);
            assert!(!expected.contains(&format!(" {text}")) && expected.len() < 90, "{expected}");
        }
        let host = KeyPair::generate(Role::Server).expect("random numbers");
        assert!(Kind::Seed(Role::Cluster).normalise(host.seed().expose()).is_err());
        assert!(Kind::Seed(Role::Server).normalise(&format!("{}\n", host.seed().expose())).is_ok());
    }

    proptest! {
        #[test]
        fn shown_bytes_are_read_back(count: u64) {
            prop_assert_eq!(bytes(&show_bytes(count)), Some(count));
        }

        #[test]
        fn any_text_is_read_without_panic(text in any::<String>()) {
            for kind in [Kind::Flag, Kind::List, Kind::Level, Kind::Seed(Role::Server), Kind::Bytes { min: 0, max: 5 }] {
                let _ = kind.normalise(&text);
            }
        }
    }
}
