//! The text form of keys: prefix byte, 32 bytes, checksum, in base32 (`protocol/claims.md §1`).
//!
//! Called by [`super::keys`] only. It knows bytes and letters, nothing about signatures, and never repeats its input in
//! an error: the input may be a seed.

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroize;

/// Bytes of a public or raw secret key.
pub(super) const KEY_BYTES: usize = 32;
/// Characters of a public key's text.
pub(super) const PUBLIC_CHARS: usize = 56;
/// Characters of a seed's text.
pub(super) const SEED_CHARS: usize = 58;

/// Bytes behind the text of a public key: prefix, key, checksum.
const PUBLIC_BYTES: usize = 1 + KEY_BYTES + CRC_BYTES;
/// Bytes behind the text of a seed: two prefix bytes, key, checksum.
const SEED_BYTES: usize = 2 + KEY_BYTES + CRC_BYTES;
const CRC_BYTES: usize = 2;

/// High five bits of a seed's first byte: the letter `S`.
const SEED_MARKER: u8 = 0x90;

/// What is wrong with the text of a key. The words fit after "it".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw(pub String);

fn flaw<T>(text: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw(text.into()))
}

/// CRC-16/XMODEM. A key is 34 bytes at most, so a table would cost more cache than it saves.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

/// Text of the public key `key` of the role with `prefix`.
pub(super) fn encode_public(prefix: u8, key: &[u8; KEY_BYTES]) -> String {
    let mut bytes = [0; PUBLIC_BYTES];
    bytes[0] = prefix;
    bytes[1..=KEY_BYTES].copy_from_slice(key);
    seal(&mut bytes);
    BASE32_NOPAD.encode(&bytes)
}

/// Text of the seed `seed` of the role with `prefix`. The caller wipes it.
pub(super) fn encode_seed(prefix: u8, seed: &[u8; KEY_BYTES]) -> String {
    let mut bytes = [0; SEED_BYTES];
    bytes[0] = SEED_MARKER | (prefix >> 5);
    bytes[1] = (prefix & 0x1f) << 3;
    bytes[2..2 + KEY_BYTES].copy_from_slice(seed);
    seal(&mut bytes);
    let text = BASE32_NOPAD.encode(&bytes);
    bytes.zeroize();
    text
}

/// Prefix and key behind the text of a public key, and whether its checksum holds: peers do not check it, so neither
/// may we where their keys are read.
pub(super) fn decode_public(text: &str) -> Result<(u8, [u8; KEY_BYTES], bool), Flaw> {
    let mut bytes = [0; PUBLIC_BYTES];
    decode(text, PUBLIC_CHARS, &mut bytes)?;
    let mut key = [0; KEY_BYTES];
    key.copy_from_slice(&bytes[1..=KEY_BYTES]);
    Ok((bytes[0], key, sealed(&bytes)))
}

/// Prefix and seed behind the text of a seed, checksum checked: a person typed it.
pub(super) fn decode_seed(text: &str) -> Result<(u8, [u8; KEY_BYTES]), Flaw> {
    if text.len() == PUBLIC_CHARS && !text.starts_with('S') {
        return flaw("has 56 characters and no leading S: that is a public key, not a seed");
    }
    let mut bytes = [0; SEED_BYTES];
    decode(text, SEED_CHARS, &mut bytes)?;
    if bytes[0] & 0xf8 != SEED_MARKER || bytes[1] & 7 != 0 {
        return flaw("does not start with S and the letter of a role");
    }
    if !sealed(&bytes) {
        return flaw("has a checksum that does not match: a character was changed, lost or swapped");
    }
    let mut seed = [0; KEY_BYTES];
    seed.copy_from_slice(&bytes[2..2 + KEY_BYTES]);
    let prefix = (bytes[0] & 7) << 5 | bytes[1] >> 3;
    bytes.zeroize();
    Ok((prefix, seed))
}

fn decode(text: &str, chars: usize, bytes: &mut [u8]) -> Result<(), Flaw> {
    if text.len() != chars {
        return flaw(format!("has {} characters instead of {chars}", text.chars().count()));
    }
    match BASE32_NOPAD.decode_mut(text.as_bytes(), bytes) {
        Ok(_) => Ok(()),
        Err(partial) => flaw(format!(
            "has a character at position {} that is not one of A-Z and 2-7, or cannot end a key",
            partial.error.position + 1
        )),
    }
}

/// Writes the checksum of all before it into the last two bytes, little-endian.
fn seal(bytes: &mut [u8]) {
    let (body, crc) = bytes.split_at_mut(bytes.len() - CRC_BYTES);
    crc.copy_from_slice(&crc16(body).to_le_bytes());
}

fn sealed(bytes: &[u8]) -> bool {
    let (body, crc) = bytes.split_at(bytes.len() - CRC_BYTES);
    crc == crc16(body).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_checksum_is_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    proptest! {
        #[test]
        fn any_text_decodes_or_says_what_is_wrong(text in "\\PC{0,80}") {
            let _ = decode_public(&text);
            let _ = decode_seed(&text);
        }

        #[test]
        fn texts_of_the_right_alphabet_too(public in "[A-Z2-7]{56}", seed in "S[A-Z2-7]{57}") {
            let (prefix, key, sealed) = decode_public(&public).unwrap();
            prop_assert_eq!(encode_public(prefix, &key) == public, sealed);
            if let Ok((prefix, raw)) = decode_seed(&seed) {
                prop_assert_eq!(encode_seed(prefix, &raw), seed);
            }
        }
    }
}
