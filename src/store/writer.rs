//! The only code that writes to the log: appends frames, begins segments, and leaves the end of the log clean when a
//! write fails.
//!
//! A segment grows in steps of zeros that are written ahead, so that most commits overwrite bytes that exist already:
//! neither length nor allocation changes, and the `fdatasync` of a commit does not drag the file system's journal along.

use std::{io, sync::Arc};

use super::{
    disk::{DiskFile, failed},
    format::{self, FRAME_HEADER_BYTES, HEADER_BYTES, Salt},
    log::Shared,
    state::{Location, Overlay, Segment},
};
use crate::error::{Error, Result};

/// How far ahead a segment is filled with zeros: 64 KiB, about a thousand small commits. They are written once more
/// than without, which is a hundredth of what those commits write anyway, a page each.
const STEP_BYTES: u64 = 64 << 10;

/// What the writing thread knows beyond the shared state.
pub(super) struct Writer {
    /// Number of the next frame. Without gaps over the whole log, so that missing frames are noticed.
    pub(super) next_sequence: u64,
    /// Number of the next segment; never used twice.
    pub(super) next_segment: u32,
    /// The segment that frames go to; `None` makes the next commit begin one.
    pub(super) active: Option<u32>,
    /// A write failed and what it left could not be cut off yet.
    pub(super) dirty_end: bool,
    /// A removal may not be durable yet: nothing newer may be removed before it is.
    pub(super) unsynced_removal: bool,
    /// Segments that hold damage which was set aside, and should be rewritten.
    pub(super) damaged_up_to: Option<u32>,
    /// Cleaning failed and was logged; it is tried again, and logged when it works.
    pub(super) cleaning_fails: bool,
}

/// A change as it was written: the key, and where its value lies.
pub(super) type Written = Vec<(Box<[u8]>, Option<Location>)>;

impl Writer {
    /// Writes all changes of `overlay` as one frame, makes it durable, and lets readers see it.
    ///
    /// # Errors
    /// `Storage`; then nothing of it is in the log.
    pub(super) fn write(&mut self, shared: &Shared, overlay: &Overlay) -> Result<()> {
        let changes: Vec<(&[u8], Option<&[u8]>)> = {
            let state = shared.state();
            overlay
                .changes
                .iter()
                // A key made and removed within the group was never there.
                .filter(|(key, value)| value.is_some() || state.index.contains_key(&**key))
                .map(|(key, value)| (&**key, value.as_deref()))
                .collect()
        };
        if changes.is_empty() {
            return Ok(());
        }
        let written = match self.append(shared, &changes) {
            Err((_, cause)) if cause.kind() == io::ErrorKind::StorageFull && self.remove_dead_segments(shared) => {
                self.append(shared, &changes)
            }
            other => other,
        };
        let written =
            written.map_err(|(what, cause)| failed(&format!("cannot {what}"), shared.disk.as_ref(), &cause))?;
        self.apply(shared, written);
        Ok(())
    }

    /// Lets readers see what was written.
    pub(super) fn apply(&mut self, shared: &Shared, written: Written) {
        let mut state = shared.state_mut();
        for (key, location) in written {
            match location {
                Some(location) => state.put(&key, location),
                None => state.delete(&key),
            }
        }
    }

    /// Writes one frame and makes it durable. On an error the log is as before, or `dirty_end` is set.
    pub(super) fn append(
        &mut self,
        shared: &Shared,
        changes: &[(&[u8], Option<&[u8]>)],
    ) -> Result<Written, (&'static str, io::Error)> {
        let mut body = Vec::new();
        let mut places = Vec::with_capacity(changes.len());
        for (key, value) in changes {
            match value {
                Some(value) => places.push(Some((format::push_put(&mut body, key, value), *value))),
                None => {
                    format::push_delete(&mut body, key);
                    places.push(None);
                }
            }
        }
        let needed = (FRAME_HEADER_BYTES + body.len()) as u64;
        let number = self.segment_for(shared, needed).map_err(|cause| ("begin a new file", cause))?;
        let (file, salt, end, allocated) = {
            let state = shared.state();
            let Some(segment) = state.segments.get(&number) else {
                return Err(("find the current file", io::Error::other("it is gone")));
            };
            (Arc::clone(&segment.file), segment.salt, segment.end, segment.allocated)
        };
        if self.dirty_end {
            file.set_len(end).and_then(|()| file.sync()).map_err(|cause| ("cut off a failed write", cause))?;
            self.dirty_end = false;
        }

        let mut bytes = format::frame(salt, self.next_sequence, &body);
        let new_end = end + needed;
        let new_allocated = if new_end > allocated { new_end.next_multiple_of(STEP_BYTES) } else { allocated };
        if new_end > allocated {
            bytes.resize((new_allocated - end) as usize, 0);
        }
        if let Err(cause) = file.write_at(end, &bytes).and_then(|()| file.sync()) {
            self.dirty_end = file.set_len(end).and_then(|()| file.sync()).is_err();
            if let Some(segment) = shared.state_mut().segments.get_mut(&number) {
                segment.allocated = end;
            }
            return Err(("write a change", cause));
        }
        self.next_sequence += 1;
        if let Some(segment) = shared.state_mut().segments.get_mut(&number) {
            segment.end = new_end;
            segment.allocated = new_allocated;
        }
        let body_at = end + FRAME_HEADER_BYTES as u64;
        Ok(changes
            .iter()
            .zip(places)
            .map(|((key, _), place)| {
                let location = place.map(|(at, value)| Location {
                    segment: number,
                    offset: (body_at + at as u64) as u32,
                    bytes: value.len() as u32,
                    crc: crc32fast::hash(value),
                });
                (Box::from(*key), location)
            })
            .collect())
    }

    /// The segment that a frame of `needed` bytes goes to; begins one when there is none or it is full.
    fn segment_for(&mut self, shared: &Shared, needed: u64) -> io::Result<u32> {
        if let Some(number) = self.active {
            let end = shared.state().segments.get(&number).map(|segment| segment.end);
            // A frame longer than a segment gets one of its own.
            if end.is_some_and(|end| end + needed <= shared.settings.segment_bytes || end == HEADER_BYTES as u64) {
                return Ok(number);
            }
            if self.dirty_end {
                // Cut it first: a sealed segment must end with its last whole frame.
                return Ok(number);
            }
        }
        let number = self.next_segment;
        // Used up even when this fails: what is left of the file must not meet another of its number.
        self.next_segment =
            number.checked_add(1).ok_or_else(|| io::Error::other("the segment numbers are used up after 4 billion"))?;
        let segment = begin_segment(shared, number)?;
        shared.state_mut().segments.insert(number, segment);
        self.active = Some(number);
        self.dirty_end = false;
        Ok(number)
    }
}

/// Makes a segment durable that holds nothing yet.
fn begin_segment(shared: &Shared, number: u32) -> io::Result<Segment> {
    let salt = Salt::new(getrandom::u64().map_err(|cause| io::Error::other(cause.to_string()))?);
    let name = format::segment_name(number, salt);
    let file = shared.disk.create(&name)?;
    let mut bytes = format::header().to_vec();
    bytes.resize(STEP_BYTES as usize, 0);
    let durable = file.write_at(0, &bytes).and_then(|()| file.sync()).and_then(|()| shared.disk.sync_dir(""));
    if let Err(cause) = durable {
        // Left behind, it is an empty segment, which the next start removes.
        let _ = shared.disk.remove(&name);
        return Err(cause);
    }
    Ok(Segment { file, name, salt, end: HEADER_BYTES as u64, allocated: STEP_BYTES, live: 0 })
}

/// Where a file stops being readable, and why.
pub(super) type Unreadable = Option<(usize, io::Error)>;

/// Reads all of `file`; pages that cannot be read become zeros, and the first of them is told.
pub(super) fn read_all(file: &dyn DiskFile) -> io::Result<(Vec<u8>, Unreadable)> {
    /// What a failing medium loses at once is at least a page.
    const PIECE: usize = 4096;
    let length = usize::try_from(file.len()?).map_err(io::Error::other)?;
    if length > u32::MAX as usize {
        return Err(io::Error::other("the file is longer than any segment"));
    }
    let mut bytes = vec![0; length];
    match file.read_at(0, &mut bytes) {
        Ok(count) => {
            bytes.truncate(count);
            return Ok((bytes, None));
        }
        Err(cause) if cause.raw_os_error().is_none() => return Err(cause),
        Err(_) => {}
    }
    let mut first = None;
    for at in (0..length).step_by(PIECE) {
        let piece = at..length.min(at + PIECE);
        if let Err(cause) = file.read_at(at as u64, &mut bytes[piece.clone()]) {
            bytes[piece].fill(0);
            first.get_or_insert((at, cause));
        }
    }
    Ok((bytes, first))
}

impl From<(&'static str, io::Error)> for Error {
    fn from((what, cause): (&'static str, io::Error)) -> Self {
        Error::storage(format!("cannot {what} in the state directory: {cause}"))
    }
}
