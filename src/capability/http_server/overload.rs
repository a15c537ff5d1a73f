//! Warnings of an overload: the first at once, then one in a while with the number of those between.
//!
//! Pure: time comes in. An actor that is too slow for its clients fails hundreds of requests a second, all for one reason; a
//! line for each would hide everything else and wear out the flash.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{error::Kind, lock::Mutex};

/// Time between two warnings of one kind. Ten seconds: an operator sees that it goes on, at 8 640 lines a day in the worst case.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// What one listener held back, by the kind of failure.
#[derive(Default)]
pub struct Overload(Mutex<BTreeMap<&'static str, Held>>);

struct Held {
    said: Instant,
    count: u64,
}

impl Overload {
    /// Whether a failure of `kind` is to be said now: nothing when it is held back, else how many were held back since the
    /// last time. Failures that are no sign of an overload are all said; the log has its own limit.
    pub fn admit(&self, kind: Kind, now: Instant) -> Option<u64> {
        // `NotFound` does not pass by itself, but an actor that is gone fails every request.
        if !kind.is_passing() && kind != Kind::NotFound {
            return Some(0);
        }
        let mut all = self.0.lock();
        match all.get_mut(kind.name()) {
            Some(held) if now.saturating_duration_since(held.said) < INTERVAL => {
                held.count += 1;
                None
            }
            Some(held) => {
                let count = std::mem::take(&mut held.count);
                held.said = now;
                Some(count)
            }
            None => {
                all.insert(kind.name(), Held { said: now, count: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overload_is_said_at_once_then_once_in_a_while_with_its_count() {
        let (overload, start) = (Overload::default(), Instant::now());
        let mut said = Vec::new();
        // Eighty a second for half a minute.
        for number in 0..2400_u32 {
            let now = start + number * Duration::from_micros(12_500);
            said.extend(overload.admit(Kind::Busy, now));
        }
        assert_eq!(said, [0, 799, 799]);
        assert_eq!(overload.admit(Kind::Timeout, start), Some(0), "another kind is said at once");
        for _ in 0..3 {
            assert_eq!(overload.admit(Kind::Guest, start), Some(0), "what an actor does wrong is said each time");
        }
    }
}
