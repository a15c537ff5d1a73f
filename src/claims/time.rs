//! Trusted time: what may be concluded from the clock of a board that has none.
//!
//! Small boards have no battery clock. After a cold boot without a network the clock says 1970, or the date of the last
//! shutdown, and stays wrong until a time server is reached, perhaps for ever. A host that judged tokens by such a clock
//! would refuse every actor whose token carries a `nbf` ("not before") although nothing is wrong with it.
//!
//! The decision: a clock that reads earlier than this program was released cannot be right, so it is not believed. All
//! that is then known is that the moment of release has passed. Against that lower bound
//! * `nbf` and `iat` never refuse: the true time may well be later than they ask,
//! * `exp` refuses only what had expired at the lower bound, which is certain; anything else is let through.
//!
//! What this gives away: whoever can set the board's clock back can use a token after its `exp`. Whoever can do that owns
//! the board. Callers that know a later bound (the time of the last record on disk) pass it and narrow the gap.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The earliest moment this program can run: 2026-11-01T00:00:00Z, in seconds since 1970. Moved forward with releases;
/// a clock earlier than this is not believed, a value too late would distrust good clocks.
pub const RELEASED_UNIX_SECONDS: u64 = 1_793_491_200;

/// What is known about the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Now {
    /// The clock is believed: seconds since 1970.
    Trusted(u64),
    /// The clock is wrong; all that is known is that this moment has passed.
    Unsure {
        /// Seconds since 1970.
        at_least: u64,
    },
}

impl Now {
    /// Nothing at all is known, so that no date refuses: for what was admitted when its dates were looked at.
    pub const UNKNOWN: Self = Now::Unsure { at_least: 0 };

    /// Judges a clock that reads `clock` seconds since 1970, knowing that `known_past` has certainly passed (0 when
    /// nothing is known beyond the release of this program).
    pub fn judge(clock: u64, known_past: u64) -> Self {
        let at_least = known_past.max(RELEASED_UNIX_SECONDS);
        if clock >= at_least { Now::Trusted(clock) } else { Now::Unsure { at_least } }
    }

    /// Judges the clock of this machine.
    pub fn from_system(known_past: u64) -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::judge(clock.as_secs(), known_past)
    }

    /// The best guess in seconds since 1970: the clock, or the lower bound. For human texts, and for the `iat` of tokens.
    pub fn unix_seconds(self) -> u64 {
        match self {
            Now::Trusted(now) => now,
            Now::Unsure { at_least } => at_least,
        }
    }

    /// Whether the clock is believed.
    pub fn is_trusted(self) -> bool {
        matches!(self, Now::Trusted(_))
    }

    /// Whether something that expires at `exp` has certainly expired (`exp < now`).
    pub fn is_past(self, exp: Option<u64>) -> bool {
        exp.is_some_and(|exp| exp < self.unix_seconds())
    }

    /// Whether something valid from `nbf` on can certainly not be used yet (`now < nbf`). Never certain on a wrong clock.
    pub fn is_before(self, nbf: Option<u64>) -> bool {
        match self {
            Now::Trusted(now) => nbf.is_some_and(|nbf| now < nbf),
            Now::Unsure { .. } => false,
        }
    }

    /// `exp` as people read it: `never`, `in 30 days`, `2 h 5 min ago`.
    pub fn expires_human(self, exp: Option<u64>) -> String {
        exp.map_or_else(|| "never".into(), |exp| self.distance(exp))
    }

    /// `nbf` as people read it: `immediately`, `in 1 day`, `30 days ago`.
    pub fn not_before_human(self, nbf: Option<u64>) -> String {
        nbf.map_or_else(|| "immediately".into(), |nbf| self.distance(nbf))
    }

    fn distance(self, moment: u64) -> String {
        let now = self.unix_seconds();
        let words = duration_words(now.abs_diff(moment));
        if moment < now { format!("{words} ago") } else { format!("in {words}") }
    }
}

/// The units of a relative time in seconds, in the singular and the plural.
const UNITS: [(u64, &str, &str); 6] = [
    (31_557_600, "year", "years"),
    (2_630_016, "month", "months"),
    (86_400, "day", "days"),
    (3_600, "h", "h"),
    (60, "min", "min"),
    (1, "s", "s"),
];

/// The two largest units of a duration: `1 year 2 months`, `30 days`, `5 min 3 s`.
fn duration_words(seconds: u64) -> String {
    let mut rest = seconds;
    let mut words = Vec::new();
    for (length, one, many) in UNITS {
        let count = rest / length;
        rest %= length;
        if count > 0 {
            words.push(format!("{count} {}", if count == 1 { one } else { many }));
        }
        // The second unit is the one right below the first or none: `1 year 5 s` says no more than `1 year`.
        if words.len() == 2 || (words.len() == 1 && count == 0) {
            break;
        }
    }
    if words.is_empty() { "0 s".into() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn a_clock_before_the_release_is_not_believed() {
        assert_eq!(Now::judge(0, 0), Now::Unsure { at_least: RELEASED_UNIX_SECONDS });
        let now = RELEASED_UNIX_SECONDS + DAY;
        assert_eq!(Now::judge(now, 0), Now::Trusted(now));
        assert_eq!(Now::judge(now, now + 1), Now::Unsure { at_least: now + 1 });
    }

    #[test]
    fn a_wrong_clock_refuses_only_what_is_certain() {
        let unsure = Now::judge(3, 0);
        assert!(!unsure.is_before(Some(u64::MAX)));
        assert!(!unsure.is_past(Some(RELEASED_UNIX_SECONDS)));
        assert!(unsure.is_past(Some(RELEASED_UNIX_SECONDS - 1)));
        assert!(!unsure.is_past(None));
    }

    #[test]
    fn a_right_clock_refuses_to_the_second() {
        let now = Now::Trusted(1000);
        assert!(now.is_past(Some(999)) && !now.is_past(Some(1000)));
        assert!(now.is_before(Some(1001)) && !now.is_before(Some(1000)));
    }

    #[test]
    fn relative_times_have_units_with_a_space() {
        let now = Now::Trusted(10 * 365 * DAY);
        let base = now.unix_seconds();
        assert_eq!(now.expires_human(None), "never");
        assert_eq!(now.not_before_human(None), "immediately");
        assert_eq!(now.expires_human(Some(base + 30 * DAY)), "in 30 days");
        assert_eq!(now.expires_human(Some(base + DAY)), "in 1 day");
        assert_eq!(now.expires_human(Some(base)), "in 0 s");
        assert_eq!(now.expires_human(Some(base - 7500)), "2 h 5 min ago");
        assert_eq!(now.not_before_human(Some(base + 31_557_600 + 2 * 2_630_016 + 5)), "in 1 year 2 months");
        assert_eq!(now.not_before_human(Some(base + 31_557_600 + 5)), "in 1 year");
        assert!(now.expires_human(Some(u64::MAX)).starts_with("in 58"));
    }
}
