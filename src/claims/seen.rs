//! Which invocations were accepted lately, so that each is accepted once.
//!
//! Pure: time comes in, as time since any moment, so that a wall clock that jumps forgets nothing. Two sets of 64-bit marks take turns: new marks go into the younger; when it is full, or older than the
//! longest age of a token, the older one is dropped and the younger takes its place. So a mark is kept for at least one turn
//! and the memory has a limit whatever is sent. Only tokens whose signature was checked get here.

use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::BuildHasher,
    time::Duration,
};

/// Marks in one of the two sets. Between 65 536 and twice as many calls are remembered; at 218 calls per second and more, that
/// is less than [`super::invocation::MAX_AGE`], and a call that is sent again later than that many others is not noticed. Full,
/// the two sets take about 2 MB.
const MARKS: usize = 65_536;

/// The marks of both sets.
pub(super) struct Seen {
    /// Keyed anew for each process, so that nobody outside can choose what collides.
    hasher: RandomState,
    younger: HashSet<u64>,
    older: HashSet<u64>,
    /// When the younger set was begun.
    begun: Duration,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), younger: HashSet::new(), older: HashSet::new(), begun: Duration::ZERO }
    }

    /// Notes `token` and says whether it is new. `turn` is how long a token may be valid; zero is for ever.
    pub(super) fn note(&mut self, token: &[u8], now: Duration, turn: Duration) -> bool {
        let over = !turn.is_zero() && now.saturating_sub(self.begun) > turn;
        if self.younger.len() >= MARKS || over {
            self.older = std::mem::take(&mut self.younger);
            self.begun = now;
        }
        let mark = self.hasher.hash_one(token);
        !self.older.contains(&mark) && self.younger.insert(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn each_token_is_new_once() {
        let mut seen = Seen::new();
        assert!(seen.note(b"a", at(10), TURN) && seen.note(b"b", at(10), TURN));
        assert!(!seen.note(b"a", at(10), TURN) && !seen.note(b"a", at(309), TURN));
    }

    #[test]
    fn a_token_is_remembered_for_as_long_as_it_is_valid() {
        let mut seen = Seen::new();
        for second in 0..2000 {
            assert!(seen.note(format!("{second}").as_bytes(), at(second), TURN));
            if let Some(valid) = second.checked_sub(300) {
                assert!(!seen.note(format!("{valid}").as_bytes(), at(second), TURN), "{second}");
            }
        }
        assert!(seen.younger.len() + seen.older.len() <= 2 * 302, "what is too old is forgotten");
    }

    #[test]
    fn the_memory_has_a_limit_and_the_last_calls_are_remembered() {
        let mut seen = Seen::new();
        for number in 0..3 * MARKS {
            assert!(seen.note(&number.to_be_bytes(), at(1), Duration::ZERO));
        }
        assert!(seen.younger.len() <= MARKS && seen.older.len() <= MARKS);
        for number in 2 * MARKS..3 * MARKS {
            assert!(!seen.note(&number.to_be_bytes(), at(1), Duration::ZERO));
        }
    }
}
