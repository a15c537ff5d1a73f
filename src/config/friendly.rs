//! The name of a host for people: `adjective-noun-1234`, new at each start (`protocol/config.md §5`).

use crate::error::{Error, Result};

/// Highest number behind the words.
const MAX_NUMBER: u32 = 9999;

const ADJECTIVES: [&str; 64] = [
    "able", "amber", "autumn", "bold", "brave", "bright", "brisk", "calm", "careful", "cheerful", "clear", "clever",
    "cool", "copper", "curious", "damp", "dawn", "deep", "dry", "eager", "early", "fair", "fast", "fine", "fresh",
    "frosty", "gentle", "golden", "grand", "green", "happy", "hidden", "honest", "icy", "jolly", "keen", "kind",
    "late", "light", "lively", "lucky", "mellow", "mild", "misty", "modest", "neat", "noble", "patient", "plain",
    "proud", "quick", "quiet", "rapid", "silent", "silver", "small", "snowy", "steady", "still", "sturdy", "sunny",
    "swift", "warm", "wise",
];

const NOUNS: [&str; 64] = [
    "acorn", "alder", "anchor", "aspen", "badger", "beacon", "birch", "bridge", "brook", "cedar", "cliff", "cloud",
    "comet", "coral", "creek", "crow", "dale", "delta", "dune", "elm", "falcon", "fern", "field", "finch", "forest",
    "fox", "glade", "grove", "harbour", "hare", "hawk", "heron", "hill", "island", "ivy", "lake", "lark", "leaf",
    "maple", "marsh", "meadow", "moon", "moss", "mountain", "oak", "otter", "owl", "pebble", "pine", "pond", "quartz",
    "reef", "ridge", "river", "robin", "shore", "sparrow", "star", "stone", "stream", "thistle", "tide", "valley",
    "willow",
];

/// A name from the system's random numbers.
///
/// # Errors
/// `Unavailable`: the system gives no random numbers.
pub fn friendly_name() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|cause| Error::unavailable(format!("cannot name this host: no random numbers: {cause}")))?;
    Ok(name_from(random))
}

/// The name that belongs to `random`. Both lists have 64 words, so no word is likelier than another.
fn name_from(random: [u8; 8]) -> String {
    let [adjective, noun, _, _, number @ ..] = random;
    let number = u32::from_le_bytes(number) % MAX_NUMBER + 1;
    let adjective = ADJECTIVES[usize::from(adjective) % ADJECTIVES.len()];
    format!("{adjective}-{}-{number}", NOUNS[usize::from(noun) % NOUNS.len()])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_have_two_words_and_a_number() {
        assert_eq!(name_from([0; 8]), "able-acorn-1");
        assert_eq!(name_from([255, 255, 0, 0, 0x0e, 0x27, 0, 0]), "wise-willow-9999");
        let name = friendly_name().expect("random numbers");
        let parts: Vec<&str> = name.split('-').collect();
        assert!(parts.len() == 3 && parts[2].parse::<u32>().is_ok_and(|number| (1..=9999).contains(&number)), "{name}");
    }

    #[test]
    fn words_are_distinct_and_plain() {
        let words: BTreeSet<&str> = ADJECTIVES.iter().chain(&NOUNS).copied().collect();
        assert_eq!(words.len(), 128);
        assert!(words.iter().all(|word| word.chars().all(|letter| letter.is_ascii_lowercase())));
    }
}
