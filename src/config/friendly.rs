//! The name of a host for people (`protocol/config.md §5`): the one of the settings, else the machine's host name, else
//! `adjective-noun-1234`, made up once and kept.

use crate::{error::Result, wire::id};

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

/// Longest name, bytes: as for a label of a domain name. It travels in every ping reply and heartbeat.
const MAX_NAME_BYTES: usize = 63;

/// Host names that every second machine has and that tell no board from another.
const ANONYMOUS: [&str; 4] = ["localhost", "localhost.localdomain", "(none)", "raspberrypi"];

/// Whether `name` can stand in logs, tables and labels as it is.
pub fn is_host_name(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(plain)
}

/// The name this machine has, where it is one of its own.
pub fn machine_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    usable(&name).then_some(name)
}

fn usable(name: &str) -> bool {
    is_host_name(name) && !ANONYMOUS.contains(&name)
}

/// A name from the system's random numbers.
///
/// # Errors
/// `Unavailable`: the system gives no random numbers.
pub fn friendly_name() -> Result<String> {
    id::random_bytes().map(name_from).map_err(|error| error.context("cannot name this host"))
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
    fn names_of_machines_are_used_where_they_tell_boards_apart() {
        for (name, good) in [
            ("pump-3", true),
            ("pump_3.shed", true),
            ("localhost", false),
            ("raspberrypi", false),
            ("", false),
            ("two words", false),
            (&*"x".repeat(64), false),
        ] {
            assert_eq!(usable(name), good, "{name}");
        }
    }

    #[test]
    fn words_are_distinct_and_plain() {
        let words: BTreeSet<&str> = ADJECTIVES.iter().chain(&NOUNS).copied().collect();
        assert_eq!(words.len(), 128);
        assert!(words.iter().all(|word| word.chars().all(|letter| letter.is_ascii_lowercase())));
    }
}
