//! Identifiers of tokens: 22 characters of base62, as the NATS world writes them.
//!
//! Classic NUIDs count up from a random start to save random numbers; here every character is drawn afresh, so a token
//! tells nothing about how many were made before it.

use crate::error::{Error, Result};

/// Characters of an identifier: 131 bits, so that two never meet.
const CHARS: usize = 22;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Bytes at or above this would favour the first letters; they are drawn again.
const FAIR_BELOW: u8 = 62 * 4;

/// A new identifier.
pub(super) fn next() -> Result<String> {
    let mut nuid = String::with_capacity(CHARS);
    let mut random = [0; 2 * CHARS];
    while nuid.len() < CHARS {
        getrandom::fill(&mut random).map_err(|cause| {
            Error::unavailable(format!("cannot make a token: the system gives no random numbers: {cause}"))
        })?;
        let letters = random.iter().filter(|byte| **byte < FAIR_BELOW).map(|byte| ALPHABET[usize::from(byte % 62)]);
        nuid.extend(letters.take(CHARS - nuid.len()).map(char::from));
    }
    Ok(nuid)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn identifiers_have_the_known_shape_and_differ() {
        let made: HashSet<String> = (0..200).map(|_| super::next().unwrap()).collect();
        assert_eq!(made.len(), 200);
        assert!(made.iter().all(|nuid| nuid.len() == 22 && nuid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }
}
