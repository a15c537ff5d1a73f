//! Which actor a person means by a word: its key, its call alias, its name, or the beginning of its key. Pure.

use crate::error::{Error, Result};

/// Shortest beginning of a key that is taken for one, characters. `M` alone would match every actor.
const SHORTEST_PREFIX: usize = 4;

/// Candidates that an error about an ambiguous word lists at most; a longer list would not be read.
const LISTED: usize = 8;

/// An actor that a word may mean.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `M…`.
    pub key: &'a str,
    /// Name in its claims.
    pub name: &'a str,
    /// Call alias in its claims, `""` without one.
    pub alias: &'a str,
}

/// The key of the one of `candidates` that `word` means; nothing where it means none of them.
///
/// The whole key wins, then a call alias, then a name, then the beginning of a key.
///
/// # Errors
/// [`Kind::Conflict`](crate::error::Kind::Conflict): several match equally well; the text lists them.
pub fn pick<'a>(word: &str, candidates: &[Candidate<'a>]) -> Result<Option<&'a str>> {
    let prefix = word.len() >= SHORTEST_PREFIX;
    let ways: [&dyn Fn(&Candidate<'a>) -> bool; 4] = [
        &|one| one.key == word,
        &|one| !one.alias.is_empty() && one.alias == word,
        &|one| !one.name.is_empty() && one.name == word,
        &|one| prefix && one.key.starts_with(word),
    ];
    for matches in ways {
        let mut found: Vec<&Candidate<'a>> = candidates.iter().filter(|one| matches(one)).collect();
        found.sort_by_key(|one| one.key);
        found.dedup_by_key(|one| one.key);
        match found.as_slice() {
            [] => {}
            [one] => return Ok(Some(one.key)),
            several => {
                let list: Vec<String> =
                    several.iter().take(LISTED).map(|one| format!("{} ({})", one.key, one.name)).collect();
                let more = if several.len() > LISTED { ", …" } else { "" };
                return Err(Error::conflict(format!(
                    "{word} may mean {}{more}: name the one you mean by its key",
                    list.join(" or ")
                )));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const ONE: Candidate<'_> = Candidate { key: "MAAAB1", name: "counter", alias: "demo/counter" };
    const TWO: Candidate<'_> = Candidate { key: "MAAAC2", name: "echo", alias: "" };
    const THREE: Candidate<'_> = Candidate { key: "MBBBB3", name: "echo", alias: "counter" };

    #[test]
    fn an_actor_is_found_by_whatever_the_status_shows() {
        let pick = |word: &str| pick(word, &[ONE, TWO, THREE]).map(|key| key.map(str::to_owned));
        for (word, key) in [
            ("MAAAB1", Some("MAAAB1")),
            ("demo/counter", Some("MAAAB1")),
            // An alias is unique by agreement, a name is not.
            ("counter", Some("MBBBB3")),
            ("MAAAC", Some("MAAAC2")),
            ("MBBB", Some("MBBBB3")),
            ("M", None),
            ("", None),
            ("nobody", None),
        ] {
            assert_eq!(pick(word), Ok(key.map(str::to_owned)), "{word}");
        }
    }

    #[test]
    fn an_ambiguous_word_lists_the_candidates() {
        for word in ["echo", "MAAA"] {
            let error = pick(word, &[ONE, TWO, THREE]).expect_err("ambiguous");
            assert_eq!(error.kind(), Kind::Conflict);
            assert!(error.text().contains("MAAAC2 (echo)"), "{error}");
        }
        assert_eq!(pick("echo", &[TWO, TWO]), Ok(Some("MAAAC2")), "the same actor told twice");
    }
}
