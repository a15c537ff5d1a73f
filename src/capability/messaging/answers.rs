//! Which subjects are places for answers: those of messages that the actor got lately, and those of NATS clients.
//!
//! Pure but for its lock. An answer goes straight to the broker and never into an outbox.

use std::collections::VecDeque;

use crate::lock::{Mutex, MutexGuard};

/// Places for answers that are remembered. An actor answers the last few messages it got; each place takes about 60 bytes.
/// The answer to one that was forgotten is known by its beginning, unless its client chose another.
const PLACES: usize = 1024;

/// Longest place that is remembered, bytes; subjects are shorter.
const MAX_PLACE_BYTES: usize = 512;

/// What NATS clients' places for answers begin with, and those of a host that makes logins.
const BEGINNINGS: [&str; 2] = ["_INBOX.", "_LATTICED."];

/// The places of one link.
#[derive(Default)]
pub struct Answers(Mutex<VecDeque<String>>);

impl Answers {
    /// The actor gets a message whose answer is awaited at `place`.
    pub fn expect(&self, place: &str) {
        if is_usual(place) || place.len() > MAX_PLACE_BYTES {
            return;
        }
        let mut places = self.places();
        if places.iter().any(|known| known == place) {
            return;
        }
        if places.len() == PLACES {
            places.pop_front();
        }
        places.push_back(place.to_owned());
    }

    /// Whether what is said on `subject` is an answer.
    pub fn is_one(&self, subject: &str) -> bool {
        is_usual(subject) || self.places().iter().any(|known| known == subject)
    }

    fn places(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock()
    }
}

fn is_usual(subject: &str) -> bool {
    BEGINNINGS.iter().any(|beginning| subject.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_known_by_their_beginning_or_by_who_waits() {
        let answers = Answers::default();
        assert!(answers.is_one("_INBOX.x.y") && answers.is_one("_LATTICED.N.1"));
        assert!(!answers.is_one("replies.to.me") && !answers.is_one("readings._INBOX.x"));
        answers.expect("replies.to.me");
        assert!(answers.is_one("replies.to.me"));
        for number in 0..PLACES {
            answers.expect(&format!("replies.{number}"));
        }
        assert!(!answers.is_one("replies.to.me") && answers.is_one("replies.0"));
        assert_eq!(answers.places().len(), PLACES);
    }
}
