//! The bytes of the log: segment names, segment headers, frames and the operations in them. Pure; no I/O.
//!
//! ```text
//! segment   = header frame* zero*                     file NUMBER-SALT.log, both hexadecimal
//! header    = "latticed" version:u16 0:u16 crc:u32    crc of the 12 bytes before it
//! frame     = marker:u32 length:u32 sequence:u64 body_crc:u32 header_crc:u32 body
//! body      = operation*
//! operation = kind:u8 key_length value_length? key value?      kind 1 put, 2 delete; lengths are LEB128
//! ```
//! Integers are little-endian. A frame is the unit of atomicity: all of its operations count, or none.
//!
//! The salt is random for each segment and in its *name*, so no damage to the content can take it away. The marker is
//! one half of it and every CRC is seeded with the other: a guest that stores bytes which look like a frame cannot know
//! either, so looking for the next frame behind a damaged one never finds a forged one.

use std::ops::Range;

/// Version of the format that this program writes, and the newest that it reads.
pub(super) const VERSION: u16 = 1;
/// Length of a segment's header, bytes.
pub(super) const HEADER_BYTES: usize = 16;
/// Length of a frame without its body, bytes.
pub(super) const FRAME_HEADER_BYTES: usize = 24;

const MAGIC: &[u8; 8] = b"latticed";
const SUFFIX: &str = ".log";
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// The random number in a segment's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(u64);

impl Salt {
    pub(super) fn new(random: u64) -> Self {
        Self(random)
    }

    /// First four bytes of each frame. Its first byte is never zero, so unused space never looks like a frame.
    fn marker(self) -> [u8; 4] {
        let mut marker = ((self.0 >> 32) as u32).to_le_bytes();
        marker[0] |= 1;
        marker
    }

    fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0 as u32);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// File name of segment `number`.
pub(super) fn segment_name(number: u32, salt: Salt) -> String {
    format!("{number:08x}-{:016x}{SUFFIX}", salt.0)
}

/// Number and salt in a segment's file name; `None` for any other file.
pub(super) fn parse_segment_name(name: &str) -> Option<(u32, Salt)> {
    let (number, salt) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    if number.len() != 8 || salt.len() != 16 {
        return None;
    }
    Some((u32::from_str_radix(number, 16).ok()?, Salt(u64::from_str_radix(salt, 16).ok()?)))
}

/// The header of a new segment.
pub(super) fn header() -> [u8; HEADER_BYTES] {
    header_of(VERSION)
}

pub(super) fn header_of(version: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// What the first bytes of a segment say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Readable by this program.
    Good,
    /// Written by a newer program.
    Newer(u16),
    /// The segment was being made when power went: a beginning of the header, then nothing.
    Unfinished,
    /// Something else.
    Damaged,
}

pub(super) fn read_header(bytes: &[u8]) -> Header {
    let expected = header();
    let Some(found) = bytes.first_chunk::<HEADER_BYTES>() else {
        return if expected.starts_with(bytes) || is_zero(bytes) { Header::Unfinished } else { Header::Damaged };
    };
    if *found == expected {
        return Header::Good;
    }
    let version = u16::from_le_bytes([found[8], found[9]]);
    if version > VERSION && *found == header_of(version) {
        return Header::Newer(version);
    }
    let written = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
    if is_zero(&bytes[written..]) { Header::Unfinished } else { Header::Damaged }
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) body_bytes: u32,
    pub(super) sequence: u64,
    body_crc: u32,
}

impl FrameHeader {
    /// Whether `body` is the one the frame was written with.
    pub(super) fn fits(&self, salt: Salt, body: &[u8]) -> bool {
        salt.crc(body) == self.body_crc
    }
}

/// The frame that holds `body`.
pub(super) fn frame(salt: Salt, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    out.extend_from_slice(&salt.marker());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&salt.crc(body).to_le_bytes());
    let crc = salt.crc(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(body);
    out
}

/// The frame header at the start of `bytes`, if there is an undamaged one.
pub(super) fn read_frame_header(salt: Salt, bytes: &[u8]) -> Option<FrameHeader> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let (checked, crc) = header.split_at(FRAME_HEADER_BYTES - 4);
    if header[..4] != salt.marker() || salt.crc(checked).to_le_bytes() != crc {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    Some(FrameHeader {
        body_bytes: word(4),
        sequence: u64::from(word(8)) | u64::from(word(12)) << 32,
        body_crc: word(16),
    })
}

/// The offset of the first place from `from` on that starts like a frame.
pub(super) fn find_frame(salt: Salt, bytes: &[u8], from: usize) -> Option<usize> {
    let marker = salt.marker();
    (from..bytes.len().saturating_sub(FRAME_HEADER_BYTES - 1))
        .find(|&at| bytes[at..at + 4] == marker && read_frame_header(salt, &bytes[at..]).is_some())
}

/// Appends a put to `body`; answers where in `body` the value lies.
pub(super) fn push_put(body: &mut Vec<u8>, key: &[u8], value: &[u8]) -> usize {
    body.push(PUT);
    push_length(body, key.len());
    push_length(body, value.len());
    body.extend_from_slice(key);
    body.extend_from_slice(value);
    body.len() - value.len()
}

/// Appends a delete to `body`.
pub(super) fn push_delete(body: &mut Vec<u8>, key: &[u8]) {
    body.push(DELETE);
    push_length(body, key.len());
    body.extend_from_slice(key);
}

/// What a put costs in a body, bytes.
pub(super) fn put_bytes(key_len: usize, value_len: usize) -> u64 {
    1 + length_bytes(key_len) + length_bytes(value_len) + key_len as u64 + value_len as u64
}

fn length_bytes(length: usize) -> u64 {
    u64::from((usize::BITS - length.leading_zeros()).div_ceil(7).max(1))
}

fn push_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// One operation of a body; `value` is `None` for a delete, else where in the body the value lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Operation<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Option<Range<usize>>,
}

/// Reads the operations of a body; stops with `Err` at the first that makes no sense.
pub(super) struct Operations<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Operations<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    fn length(&mut self) -> Option<usize> {
        let mut length = 0_usize;
        // Five groups of seven bits hold any u32, which is more than a frame can be long.
        for shift in (0..35).step_by(7) {
            let byte = *self.body.get(self.at)?;
            self.at += 1;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(length);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.body.len())?;
        let range = self.at..end;
        self.at = end;
        Some(range)
    }

    fn operation(&mut self) -> Option<Operation<'a>> {
        let kind = *self.body.get(self.at)?;
        self.at += 1;
        let key_length = self.length()?;
        let value_length = match kind {
            PUT => Some(self.length()?),
            DELETE => None,
            _ => return None,
        };
        let key = self.take(key_length)?;
        let value = match value_length {
            Some(length) => Some(self.take(length)?),
            None => None,
        };
        Some(Operation { key: &self.body[key], value })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>, usize>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.body.len() {
            return None;
        }
        let start = self.at;
        let operation = self.operation();
        if operation.is_none() {
            self.at = self.body.len();
        }
        Some(operation.ok_or(start))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_segment_name_is_read_back() {
        let name = segment_name(0x2a, Salt(0x0123_4567_89ab_cdef));
        assert_eq!(name, "0000002a-0123456789abcdef.log");
        assert_eq!(parse_segment_name(&name), Some((0x2a, Salt(0x0123_4567_89ab_cdef))));
        for other in ["", ".log", "1-2.log", "0000002a-0123456789abcdef.tmp", "zzzzzzzz-0123456789abcdef.log"] {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }

    #[test]
    fn headers_are_told_apart() {
        assert_eq!(read_header(&header()), Header::Good);
        assert_eq!(read_header(&header_of(7)), Header::Newer(7));
        assert_eq!(read_header(&[]), Header::Unfinished);
        assert_eq!(read_header(&header()[..5]), Header::Unfinished);
        assert_eq!(read_header(&[0; 64]), Header::Unfinished);
        let mut flipped = header();
        flipped[8] ^= 2;
        assert_eq!(read_header(&flipped), Header::Damaged, "a flipped version is no newer version");
    }

    proptest! {
        #[test]
        fn operations_are_read_back(list in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..300), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300))), 0..20)) {
            let mut body = Vec::new();
            for (key, value) in &list {
                let before = body.len() as u64;
                match value {
                    Some(value) => {
                        push_put(&mut body, key, value);
                        prop_assert_eq!(body.len() as u64 - before, put_bytes(key.len(), value.len()));
                    }
                    None => push_delete(&mut body, key),
                }
            }
            let read: Vec<_> = Operations::new(&body)
                .map(|operation| operation.expect("just written"))
                .map(|operation| (operation.key.to_vec(), operation.value.map(|range| body[range].to_vec())))
                .collect();
            prop_assert_eq!(read, list);
        }

        #[test]
        fn arbitrary_bodies_do_no_harm(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            for operation in Operations::new(&body).flatten() {
                prop_assert!(operation.key.len() <= body.len());
            }
        }

        #[test]
        fn a_frame_does_not_fit_another_salt(a: u64, b: u64, body in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assume!(a as u32 != b as u32);
            let bytes = frame(Salt(a), 9, &body);
            let header = read_frame_header(Salt(a), &bytes).expect("just written");
            prop_assert!(header.fits(Salt(a), &bytes[FRAME_HEADER_BYTES..]));
            prop_assert_eq!(read_frame_header(Salt(b), &bytes), None);
        }
    }
}
