//! "Did you mean": the known word closest to an unknown one.

/// Longest word compared, characters. Longer ones are no typing mistakes of a name, and the table grows with the square.
const LONGEST: usize = 64;

/// The word of `known` that `word` was probably meant to be: at most a third of its letters differ, case ignored.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > LONGEST {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= (length / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean X?)`, or nothing.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |meant| format!(" (did you mean {meant}?)"))
}

/// Letters to change, insert, remove or swap with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().map(|letter| letter.to_ascii_lowercase()).collect();
    let other: Vec<char> = other.chars().map(|letter| letter.to_ascii_lowercase()).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, candidate) in other.iter().enumerate() {
            let swapped = row > 0 && column > 0 && *letter == other[column - 1] && one[row - 1] == *candidate;
            let replaced = last[column] + usize::from(letter != candidate);
            let mut best = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            if swapped {
                best = best.min(before[column - 1] + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word() {
        let known = ["WASMCLOUD_RPC_HOST", "WASMCLOUD_CTL_HOST", "WASMCLOUD_LOG_LEVEL"];
        assert_eq!(nearest("WASMCLOUD_LOGLEVEL", known), Some("WASMCLOUD_LOG_LEVEL"));
        assert_eq!(nearest("wasmcloud_rcp_host", known), Some("WASMCLOUD_RPC_HOST"));
        assert_eq!(nearest("WASMCLOUD_SOMETHING_ELSE", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }

    #[test]
    fn distances() {
        assert_eq!((distance("ab", "ba"), distance("", "abc"), distance("kitten", "sitting")), (1, 3, 3));
    }
}
