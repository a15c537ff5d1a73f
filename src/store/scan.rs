//! Reads one segment, whatever is in it: which frames are whole, what lies between them, and where the next one goes.
//! Pure; no I/O.
//!
//! It never gives up on a segment: behind a damaged frame it goes on with the next whole one.

use super::format::{self, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, Header, Salt};

/// What a segment holds.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Whole frames: offset of the body, header.
    pub(super) frames: Vec<(usize, FrameHeader)>,
    /// Bytes that should be frames and are not.
    pub(super) damage: Vec<Region>,
    /// Where the next frame belongs: behind the last whole one.
    pub(super) end: usize,
    /// The segment was being made when power went and holds nothing.
    pub(super) unfinished: bool,
    /// The format version, if it is newer than this program reads. Nothing else was looked at then.
    pub(super) newer: Option<u16>,
}

/// A stretch of bytes that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) offset: usize,
    pub(super) bytes: usize,
    pub(super) reason: &'static str,
    /// Nothing whole comes after it in this segment.
    pub(super) tail: bool,
}

/// Reads the segment `bytes`.
pub(super) fn scan(bytes: &[u8], salt: Salt) -> Scan {
    let mut scan = Scan { end: HEADER_BYTES, ..Scan::default() };
    match format::read_header(bytes) {
        Header::Good => {}
        Header::Newer(version) => {
            scan.newer = Some(version);
            return scan;
        }
        Header::Unfinished if !has_frame(bytes, salt) => {
            scan.unfinished = true;
            return scan;
        }
        Header::Unfinished | Header::Damaged => scan.damage.push(Region {
            offset: 0,
            bytes: HEADER_BYTES.min(bytes.len()),
            reason: "the header of this segment is damaged",
            tail: false,
        }),
    }
    let mut at = HEADER_BYTES;
    while at < bytes.len() {
        match frame_at(bytes, at, salt) {
            Ok(header) => {
                let body = at + FRAME_HEADER_BYTES;
                scan.frames.push((body, header));
                at = body + header.body_bytes as usize;
                scan.end = at;
            }
            // Unused space up to the end of the file.
            Err(_) if format::is_zero(&bytes[at..]) => break,
            Err((reason, skip)) => {
                let next = format::find_frame(salt, bytes, at + skip);
                let until = next.unwrap_or_else(|| at + used(&bytes[at..]));
                scan.damage.push(Region { offset: at, bytes: until - at, reason, tail: false });
                at = next.unwrap_or(bytes.len());
            }
        }
    }
    if let Some(last) = scan.damage.last_mut() {
        last.tail = last.offset >= scan.end;
    }
    scan
}

fn has_frame(bytes: &[u8], salt: Salt) -> bool {
    format::find_frame(salt, bytes, HEADER_BYTES).is_some()
}

/// The whole frame at `at`; else why there is none, and how far to skip before looking for the next one.
fn frame_at(bytes: &[u8], at: usize, salt: Salt) -> Result<FrameHeader, (&'static str, usize)> {
    let Some(header) = format::read_frame_header(salt, &bytes[at..]) else {
        return Err(("the header of this record is damaged or incomplete", 1));
    };
    let body = at + FRAME_HEADER_BYTES;
    let Some(content) = body.checked_add(header.body_bytes as usize).and_then(|end| bytes.get(body..end)) else {
        return Err(("this record ends beyond the end of the file", FRAME_HEADER_BYTES));
    };
    if !header.fits(salt, content) {
        return Err(("the checksum of this record does not match", FRAME_HEADER_BYTES));
    }
    Ok(header)
}

/// Length of `bytes` without the zeros at its end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(salt: Salt, bodies: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format::header().to_vec();
        for (number, body) in bodies.iter().enumerate() {
            bytes.extend(format::frame(salt, number as u64, body));
        }
        bytes.extend([0; 100]);
        bytes
    }

    #[test]
    fn whole_frames_are_found_around_each_flipped_bit() {
        let salt = Salt::new(0x1122_3344_5566_7788);
        let good = segment(salt, &[b"one", b"two two", b"three"]);
        let used = good.len() - 100;
        assert_eq!(scan(&good, salt).frames.len(), 3);
        assert_eq!(scan(&good, salt).end, used);
        for at in 0..used {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[at] ^= 1 << bit;
                let scan = scan(&bytes, salt);
                assert_eq!(scan.damage.len(), 1, "byte {at} bit {bit}");
                assert_eq!(scan.frames.len(), if at < HEADER_BYTES { 3 } else { 2 }, "byte {at} bit {bit}");
                assert!(scan.damage[0].offset <= at && at < scan.damage[0].offset + scan.damage[0].bytes.max(1));
            }
        }
    }

    #[test]
    fn a_stored_frame_of_another_salt_is_not_taken_for_one() {
        let forged = format::frame(Salt::new(7), 9, b"forged");
        let salt = Salt::new(0x99);
        let mut bytes = segment(salt, &[&forged, b"after"]);
        bytes[HEADER_BYTES] ^= 1;
        let scan = scan(&bytes, salt);
        assert_eq!(scan.frames.len(), 1);
        assert_eq!(scan.frames[0].1.body_bytes, 5);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), good: bool) {
            if good && bytes.len() > HEADER_BYTES {
                bytes[..HEADER_BYTES].copy_from_slice(&format::header());
            }
            let scan = scan(&bytes, Salt::new(3));
            prop_assert!(scan.end <= bytes.len().max(HEADER_BYTES));
        }

        #[test]
        fn a_torn_segment_keeps_its_whole_frames(cut in 0_usize..200) {
            let salt = Salt::new(5);
            let good = segment(salt, &[b"first", b"second", b"third"]);
            let mut bytes = good.clone();
            bytes.truncate(cut.min(good.len()));
            let scan = scan(&bytes, salt);
            let whole = scan_ends(&good, salt).into_iter().filter(|end| *end <= bytes.len()).count();
            prop_assert_eq!(scan.frames.len(), whole);
        }
    }

    fn scan_ends(bytes: &[u8], salt: Salt) -> Vec<usize> {
        scan(bytes, salt).frames.iter().map(|(body, header)| body + header.body_bytes as usize).collect()
    }
}
