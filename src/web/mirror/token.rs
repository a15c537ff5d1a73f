//! The bearer token of the mirror: kept as a hash, compared in constant time.

use sha2::{Digest as _, Sha256};

/// What a client must show. Holds no secret: only what it hashes to.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// The one that is `secret`.
    pub fn new(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }

    /// Whether the value of an `Authorization` header shows it. Takes as long for a wrong one as for the right one.
    pub(super) fn is_shown_by(&self, header: Option<&[u8]>) -> bool {
        let scheme = |header: &&[u8]| header.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
        let Some(header) = header.filter(scheme) else { return false };
        let shown: [u8; 32] = Sha256::digest(header[7..].trim_ascii()).into();
        // No early end, and hashes of equal length: what differs, and where, cannot be told from the time.
        self.0.iter().zip(shown).fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_taken() {
        let token = Token::new("open sesame");
        assert!(token.is_shown_by(Some(b"Bearer open sesame")));
        assert!(token.is_shown_by(Some(b"bearer  open sesame ")));
        for wrong in [&b"open sesame"[..], b"Basic open sesame", b"Bearer open sesam", b"Bearer ", b"Bearer", b"\xff"] {
            assert!(!token.is_shown_by(Some(wrong)));
        }
        assert!(!token.is_shown_by(None));
    }
}
