//! Opens a state directory, whatever is in it.
//!
//! Reads every segment once, oldest first, builds the index, and says what is wrong. On a healthy directory it writes
//! nothing. It refuses only what would be harmed by going on: a directory another host uses, one that a newer version
//! wrote, and one that cannot even be listed.

use std::{
    collections::HashSet,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Damage, DamageKind, Settings, Store, blobs,
    damage::{self, Finding, Opened},
    disk::{Disk, Lock, failed},
    format::{self, FRAME_HEADER_BYTES, HEADER_BYTES, Header, Operations, Salt},
    partial,
    scan::{self, Scan},
    state::{Location, Segment, State},
    writer::{Writer, read_all},
};
use crate::error::{Error, Result};

/// How long opening waits for a directory that is held: 1 s. The thread that answered the last change of a store lets go
/// of it a moment after the answer, and the files of a process that was killed are closed a moment after its death. Less
/// refuses a host that takes over; more makes the user wait who starts a second host by mistake.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Time between two looks at a directory that is held.
const LOCK_PAUSE: Duration = Duration::from_millis(1);

impl Store {
    /// Opens the state directory of `disk` and takes the exclusive lock on it. Blocks while it reads the whole log.
    ///
    /// Answers the store and everything that was found wrong, for the caller to log and show: the store works all the
    /// same, with all that could be read.
    ///
    /// # Errors
    /// `Conflict` when another host holds the directory and keeps it for a second. `Storage` when it cannot be made or
    /// listed, or was written by a newer version (nothing is changed then).
    pub fn open(settings: Settings, disk: Arc<dyn Disk>) -> Opened<Self> {
        let place = disk.place();
        let lock_held = lock_in_time(disk.as_ref()).map_err(|cause| match cause.kind() {
            io::ErrorKind::WouldBlock => Error::conflict(format!(
                "another host uses the state directory {place}: stop it, or give this one a directory of its own"
            )),
            _ => failed("cannot open or make it: looking", disk.as_ref(), &cause),
        })?;
        let names = disk.list("").map_err(|cause| failed("cannot list the files", disk.as_ref(), &cause))?;
        let mut found: Vec<(u32, Salt, String)> = names
            .into_iter()
            .filter_map(|name| format::parse_segment_name(&name).map(|(number, salt)| (number, salt, name)))
            .collect();
        found.sort_unstable_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        refuse_newer(disk.as_ref(), &found)?;

        let read_only = damage::read_only(disk.as_ref());
        let mut opening = Opening { disk: Arc::clone(&disk), writable: read_only.is_none(), ..Opening::new(&disk) };
        opening.damage.extend(read_only);
        let newest = found.last().map(|(number, ..)| *number);
        for (number, salt, name) in found {
            opening.segment(number, salt, name, &settings, Some(number) == newest);
        }
        if opening.writable {
            blobs::remove_unfinished(disk.as_ref());
        }
        let writer = Writer {
            next_sequence: opening.last_sequence.map_or(0, |last| last + 1),
            next_segment: newest.map_or(1, |newest| newest.saturating_add(1)),
            active: opening.active,
            dirty_end: false,
            unsynced_removal: true,
            damaged_up_to: opening.rewrite_up_to,
            cleaning_fails: false,
        };
        let store = Store::new(disk, settings, lock_held, opening.state, writer);
        store.shared.damage.lock().clone_from(&opening.damage);
        store.shared.writer.lock().clean_damaged(&store.shared);
        if opening.writable {
            partial::load(&store);
        }
        let damage = store.damage();
        Ok((store, damage))
    }
}

/// Takes the lock, in spite of a holder who is about to let go.
fn lock_in_time(disk: &dyn Disk) -> io::Result<Lock> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match disk.lock() {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

/// Looks at every segment's header before anything is changed.
fn refuse_newer(disk: &dyn Disk, found: &[(u32, Salt, String)]) -> Result<()> {
    for (_, _, name) in found {
        let mut start = [0; HEADER_BYTES];
        let read = disk.open(name).and_then(|file| file.read_at(0, &mut start));
        if let (Ok(HEADER_BYTES), Header::Newer(version)) = (read, format::read_header(&start)) {
            return Err(Error::storage(format!(
                "the state directory {} was written by a newer version of this program (format {version}, this one \
                 reads up to {}): nothing was changed; run the newer version, or give this one another directory",
                disk.place(),
                format::VERSION
            )));
        }
    }
    Ok(())
}

struct Opening {
    disk: Arc<dyn Disk>,
    writable: bool,
    state: State,
    damage: Vec<Damage>,
    last_sequence: Option<u64>,
    /// Damage was reported since the last whole frame, which explains a gap in the sequence.
    gap_explained: bool,
    active: Option<u32>,
    rewrite_up_to: Option<u32>,
    numbers: HashSet<u32>,
}

impl Opening {
    fn new(disk: &Arc<dyn Disk>) -> Self {
        Self {
            disk: Arc::clone(disk),
            writable: false,
            state: State::default(),
            damage: Vec::new(),
            last_sequence: None,
            gap_explained: false,
            active: None,
            rewrite_up_to: None,
            numbers: HashSet::new(),
        }
    }

    /// Takes in one segment.
    fn segment(&mut self, number: u32, salt: Salt, name: String, settings: &Settings, newest: bool) {
        if !self.numbers.insert(number) {
            self.unreadable(&name, "another file has the same number: this one is not used".into());
            return;
        }
        let file = match self.disk.open(&name) {
            Ok(file) => file,
            Err(cause) => return self.unreadable(&name, format!("it cannot be opened: {cause}")),
        };
        let (bytes, unreadable) = match read_all(file.as_ref()) {
            Ok(read) => read,
            Err(cause) => return self.unreadable(&name, format!("it cannot be read: {cause}")),
        };
        let scan = scan::scan(&bytes, salt);
        if scan.unfinished && unreadable.is_none() {
            // Made just before power went; holds nothing.
            if self.writable {
                let _ = self.disk.remove(&name);
            }
            return;
        }
        let mut findings = Vec::new();
        if let Some((offset, cause)) = &unreadable {
            findings.push(finding(&name, *offset, &bytes[*offset..], format!("it cannot be read: {cause}"), false));
        }
        let tail_damaged = scan.damage.last().is_some_and(|region| region.tail);
        self.collect_findings(&name, &bytes, &scan, newest, &mut findings);
        let segment =
            Segment { file, name: name.clone(), salt, end: scan.end as u64, allocated: bytes.len() as u64, live: 0 };
        self.state.segments.insert(number, segment);
        self.apply_frames(number, &name, &bytes, &scan, &mut findings);

        let healthy = findings.is_empty();
        let only_tail = tail_damaged && findings.len() == 1;
        let kept = self.set_aside(number, findings);
        if healthy || (only_tail && kept && self.cut(number, scan.end as u64)) {
            self.active = (newest && (scan.end as u64) < settings.segment_bytes).then_some(number);
        } else if kept {
            self.rewrite_up_to = Some(number);
        }
    }

    fn collect_findings(&mut self, name: &str, bytes: &[u8], scan: &Scan, newest: bool, findings: &mut Vec<Finding>) {
        for region in &scan.damage {
            let content = bytes.get(region.offset..region.offset + region.bytes).unwrap_or_default();
            let tail = region.tail && newest;
            let mut reason = region.reason.to_string();
            if tail {
                reason.push_str(": power went while it was written and it was never acknowledged, or it was damaged");
            }
            findings.push(finding(name, region.offset, content, reason, tail));
        }
    }

    /// Puts the operations of all whole frames into the index.
    fn apply_frames(&mut self, number: u32, name: &str, bytes: &[u8], scan: &Scan, findings: &mut Vec<Finding>) {
        for (body_at, header) in &scan.frames {
            let damaged_before = scan.damage.iter().any(|region| region.offset < *body_at);
            if let Some(last) = self.last_sequence
                && header.sequence != last + 1
                && !self.gap_explained
                && !damaged_before
            {
                let at = body_at - FRAME_HEADER_BYTES;
                let reason = if header.sequence > last {
                    format!("{} records before this one are missing", header.sequence - last - 1)
                } else {
                    format!("record {} comes after record {last}: files were mixed up", header.sequence)
                };
                findings.push(finding(name, at, &[], reason, false));
            }
            self.gap_explained = false;
            self.last_sequence = self.last_sequence.max(Some(header.sequence));
            let body = &bytes[*body_at..body_at + header.body_bytes as usize];
            for operation in Operations::new(body) {
                match operation {
                    Ok(operation) => match operation.value {
                        Some(value) => {
                            let location = Location {
                                segment: number,
                                offset: (body_at + value.start) as u32,
                                bytes: value.len() as u32,
                                crc: crc32fast::hash(&body[value]),
                            };
                            self.state.put(operation.key, location);
                        }
                        None => self.state.delete(operation.key),
                    },
                    Err(at) => {
                        let reason = "this change makes no sense although its checksum matches".into();
                        findings.push(finding(name, body_at + at, &body[at..], reason, false));
                    }
                }
            }
        }
        if !scan.damage.is_empty() {
            self.gap_explained = true;
        }
    }

    /// Copies what was found to the damaged files and reports it. Answers whether all of it was kept.
    fn set_aside(&mut self, number: u32, findings: Vec<Finding>) -> bool {
        let mut kept = true;
        for (mut damage, bytes) in findings {
            if self.writable {
                // The same place can be damaged again later, by other bytes.
                let name = format!("{number:08x}-{:08x}-{:08x}", damage.offset, crc32fast::hash(&bytes));
                match damage::set_aside(&self.disk, &name, &damage, &bytes) {
                    Ok(place) => damage.set_aside = Some(place),
                    Err(cause) => damage.reason.push_str(&format!(" (copying it failed: {cause})")),
                }
            }
            kept &= damage.set_aside.is_some();
            self.damage.push(damage);
        }
        kept
    }

    /// Cuts off what follows the last whole frame. Answers whether that is durable.
    fn cut(&mut self, number: u32, end: u64) -> bool {
        let Some(segment) = self.state.segments.get_mut(&number) else { return false };
        if segment.file.set_len(end).and_then(|()| segment.file.sync()).is_err() {
            return false;
        }
        segment.allocated = end;
        true
    }

    fn unreadable(&mut self, name: &str, reason: String) {
        self.gap_explained = true;
        self.active = None;
        self.damage.push(finding(name, 0, &[], reason, false).0);
    }
}

fn finding(file: &str, offset: usize, bytes: &[u8], reason: String, tail: bool) -> Finding {
    let damage = Damage {
        kind: if tail { DamageKind::Tail } else { DamageKind::Record },
        file: file.into(),
        offset: offset as u64,
        bytes: bytes.len() as u64,
        reason,
        set_aside: None,
    };
    (damage, bytes.to_vec())
}
