//! A blob that arrives piece by piece: written to the disk and hashed on the way, in constant memory.
//!
//! Used by the sources in `artifact`. It gets its name only when all of it is durable and its digest is the expected one.
//! One that may be resumed ([`Blobs::resume`]) leaves what has arrived for the next attempt, of this process or the next;
//! any other leaves nothing. It never hands out what it has received.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use sha2::Digest as _;

use super::{
    Store,
    blobs::{BLOBS_DIR, Blobs, Digest, MAX_BLOB_BYTES, UNFINISHED, name_of},
    disk::{DiskFile, failed},
    partial::{self, Content},
};
use crate::error::{Error, Result};

/// Tells unfinished files of this process apart; those of the one before are removed when the store is opened.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// After so many bytes what has arrived is synced and noted, for the process after a power cut: 256 KiB. That is the most
/// that is fetched twice then; a note costs a page of the medium (4 KiB, 1.6 %).
const CHECKPOINT_BYTES: u64 = 256 << 10;

/// How far a blob has come, for whoever watches from another thread; and the way to stop it.
#[derive(Debug, Default)]
pub struct Progress {
    received: AtomicU64,
    total: AtomicU64,
    stopped: AtomicBool,
}

impl Progress {
    /// What has arrived, bytes; those of earlier attempts included.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Length of all of it, once the source has said so.
    pub fn total(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|total| *total > 0)
    }

    /// Makes the next [`Incoming::write`] fail: nobody waits for it any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// A blob on its way. All methods block.
pub struct Incoming {
    blobs: Blobs,
    /// The unfinished file; `None` until the first byte, so that an answer without a body writes nothing.
    file: Option<Arc<dyn DiskFile>>,
    name: String,
    hash: sha2::Sha256,
    received: u64,
    limit: u64,
    kept: bool,
    /// What makes it possible to go on later; `None` for one that arrives in one go.
    rest: Option<Rest>,
    progress: Arc<Progress>,
}

struct Rest {
    /// What whoever fetches calls it.
    name: String,
    /// Whether only one content can have this name.
    addressed: bool,
    content: Content,
    /// How much is noted on disk.
    noted: u64,
    /// How much was there when this attempt began.
    resumed: u64,
    /// Nobody shall go on with it.
    refused: bool,
}

impl Incoming {
    /// Takes at most `limit` bytes, never more than [`MAX_BLOB_BYTES`].
    pub(super) fn new(blobs: Blobs, limit: u64) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            blobs,
            file: None,
            name: format!("{BLOBS_DIR}/incoming-{number}{UNFINISHED}"),
            hash: sha2::Sha256::new(),
            received: 0,
            limit: limit.min(MAX_BLOB_BYTES as u64),
            kept: false,
            rest: None,
            progress: Arc::default(),
        }
    }

    pub(super) fn resume(blobs: Blobs, name: &str, content: Option<Digest>, limit: u64) -> Self {
        let limit = limit.min(MAX_BLOB_BYTES as u64);
        let Some(taken) = partial::take(blobs.shared(), name, limit) else { return Self::new(blobs, limit) };
        let rest = Rest {
            name: name.to_owned(),
            addressed: content.is_some(),
            content: taken.content,
            noted: taken.bytes,
            resumed: taken.bytes,
            refused: false,
        };
        Self {
            blobs,
            file: taken.file,
            name: taken.file_name,
            hash: taken.hash,
            received: taken.bytes,
            limit,
            kept: false,
            rest: Some(rest),
            progress: Arc::default(),
        }
    }

    /// Tells `progress` how far this is from now on, and fails when it is stopped.
    #[must_use]
    pub fn report_to(mut self, progress: Arc<Progress>) -> Self {
        progress.received.store(self.received, Ordering::Relaxed);
        if let Some(total) = self.total() {
            progress.total.store(total, Ordering::Relaxed);
        }
        self.progress = progress;
        self
    }

    /// The most it takes, bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What has arrived, bytes: where the source goes on. More than 0 before the first [`write`](Self::write) when an
    /// earlier attempt left it.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// What an earlier attempt left of it, bytes.
    pub fn resumed(&self) -> u64 {
        self.rest.as_ref().map_or(0, |rest| rest.resumed)
    }

    /// What the source called the content of which [`received`](Self::received) bytes are there, to be asked for the
    /// rest of just that (`If-Range`).
    pub fn validator(&self) -> Option<&str> {
        self.rest.as_ref().and_then(|rest| rest.content.validator.as_deref())
    }

    /// Length of all of it, where the source has said so.
    pub fn total(&self) -> Option<u64> {
        self.rest.as_ref().and_then(|rest| rest.content.total)
    }

    /// Says which content the source is about to give: what it calls it (a strong ETag, the identity of an object) and
    /// how long it is. Answers how many bytes of just that are there already: the source goes on after them. What is
    /// there of another content is dropped, and the answer is 0.
    ///
    /// # Errors
    /// `Limit` when it is longer than allowed: nothing is kept, and nothing needs to be sent.
    pub fn begin(&mut self, validator: Option<&str>, total: Option<u64>) -> Result<u64> {
        if let Some(total) = total.filter(|total| *total > self.limit) {
            self.refuse();
            return Err(Error::too_large(format!("it has {total} bytes, more than the {} allowed", self.limit)));
        }
        let received = self.received;
        if let Some(rest) = &mut self.rest {
            let same_name = rest.addressed || (validator.is_some() && rest.content.validator.as_deref() == validator);
            let same_total = rest.content.total.is_none() || total.is_none() || rest.content.total == total;
            let fits = total.is_none_or(|total| received <= total);
            let goes_on = same_name && same_total && fits;
            rest.content.validator = validator.map(str::to_owned);
            rest.content.total = total.or(rest.content.total.filter(|_| goes_on));
            if !goes_on && received > 0 {
                self.restart();
            }
        }
        if let Some(total) = total {
            self.progress.total.store(total, Ordering::Relaxed);
        }
        Ok(self.received)
    }

    /// Drops what has arrived: the source can only begin anew.
    pub fn restart(&mut self) {
        self.hash = sha2::Sha256::new();
        self.received = 0;
        if let Some(rest) = &mut self.rest {
            // The note on disk would speak of other bytes.
            (rest.noted, rest.resumed) = (0, 0);
            partial::unrecord(self.blobs.shared(), &rest.name);
        }
        if self.file.take().is_some() {
            let _ = self.blobs.disk().remove(&self.name);
        }
        self.progress.received.store(0, Ordering::Relaxed);
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// `Limit` when it would be more than [`limit`](Self::limit); `Storage` when the disk is full, read-only or failing:
    /// nothing of it stays then. `Unavailable` when nobody waits for it any more.
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        if self.progress.stopped.load(Ordering::Relaxed) {
            return Err(Error::unavailable("nobody waits for it any more"));
        }
        let after = self.received.saturating_add(piece.len() as u64);
        if after > self.limit {
            self.refuse();
            return Err(Error::too_large(format!("it has more than the {} bytes allowed", self.limit)));
        }
        let written = self.append(piece);
        if written.is_err() {
            self.refuse();
        }
        written.map_err(|cause| self.failed("cannot write a download", &cause))?;
        self.hash.update(piece);
        self.received = after;
        self.progress.received.store(after, Ordering::Relaxed);
        if self.rest.as_ref().is_some_and(|rest| after - rest.noted >= CHECKPOINT_BYTES) {
            self.note()?;
        }
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let disk = self.blobs.disk();
                disk.make_dir(BLOBS_DIR)?;
                disk.sync_dir("")?;
                self.file.insert(disk.create(&self.name)?).clone()
            }
        };
        file.write_at(self.received, piece)
    }

    /// Makes what has arrived durable, and notes it.
    fn note(&mut self) -> Result<()> {
        let (Some(rest), Some(file)) = (&mut self.rest, &self.file) else { return Ok(()) };
        let shared = self.blobs.shared();
        let synced = file.sync().and_then(|()| match rest.noted {
            0 => shared.disk.sync_dir(BLOBS_DIR),
            _ => Ok(()),
        });
        rest.noted = self.received;
        let batch = partial::record(shared, &rest.name, self.received, &rest.content);
        synced.map_err(|cause| failed("cannot write a download", shared.disk.as_ref(), &cause))?;
        let store = Store { shared: shared.clone() };
        batch.map_or(Ok(()), |batch| smol::block_on(store.commit(batch)))
    }

    /// Nobody shall go on with it.
    fn refuse(&mut self) {
        if let Some(rest) = &mut self.rest {
            rest.refused = true;
        }
    }

    /// Makes it a blob, durable when this returns.
    ///
    /// # Errors
    /// `Invalid` when nothing arrived or its digest is not `expected`: nothing is kept then; `Storage` when the disk
    /// fails.
    pub fn finish(mut self, expected: Option<Digest>) -> Result<Digest> {
        let digest = Digest(self.hash.clone().finalize().into());
        self.refuse();
        let Some(file) = self.file.clone() else {
            return Err(Error::invalid("it is empty"));
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::invalid(format!(
                "its {} bytes have the digest sha256:{digest}, expected is sha256:{expected}; nothing of it was kept",
                self.received
            )));
        }
        let kept = {
            let _writing = self.blobs.writer().lock();
            let disk = self.blobs.disk();
            file.sync()
                .and_then(|()| disk.rename(&self.name, &name_of(digest)))
                .map(|()| self.kept = true)
                .and_then(|()| disk.sync_dir(BLOBS_DIR))
        };
        kept.map_err(|cause| self.failed(&format!("cannot keep blob {digest}"), &cause))?;
        Ok(digest)
    }

    fn failed(&self, what: &str, cause: &io::Error) -> Error {
        failed(what, self.blobs.disk(), cause)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let shared = self.blobs.shared().clone();
        let Some(rest) = self.rest.take() else {
            if !self.kept {
                // Not there when nothing was written; what stays behind is removed when the store is opened again.
                let _ = shared.disk.remove(&self.name);
            }
            return;
        };
        let can_go_on = rest.addressed || rest.content.validator.is_some();
        if self.kept || rest.refused || !can_go_on || self.received == 0 {
            partial::forget(&shared, &rest.name);
            if !self.kept {
                let _ = shared.disk.remove(&self.name);
            }
            return;
        }
        partial::put_back(&shared, &rest.name, self.received, self.hash.clone(), rest.content.clone());
        let unnoted = self.received > rest.noted;
        if let (true, Some(file)) = (unnoted, self.file.take()) {
            // Not here: whoever drops this may not wait for the disk.
            let received = self.received;
            smol::unblock(move || {
                let synced = file.sync().and_then(|()| shared.disk.sync_dir(BLOBS_DIR));
                let batch = partial::record(&shared, &rest.name, received, &rest.content);
                if let (Ok(()), Some(batch)) = (synced, batch) {
                    // A note that is not there costs the bytes since the one before.
                    drop(smol::block_on(Store { shared }.commit(batch)));
                }
            })
            .detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        store::{Disk, FaultDisk, Settings, Table},
    };

    #[test]
    fn pieces_become_a_blob_only_when_they_are_the_expected_ones() {
        let disk = FaultDisk::new();
        let (store, _) = Store::open(Settings::default(), Arc::new(disk.clone())).unwrap();
        let blobs = store.blobs();
        let receive = |pieces: &[&[u8]], limit, expected| {
            let mut incoming = blobs.incoming(limit);
            pieces.iter().try_for_each(|piece| incoming.write(piece))?;
            incoming.finish(expected)
        };
        let whole = Digest::of(b"one two");
        assert_eq!(receive(&[b"one ", b"two"], 7, Some(whole)).unwrap(), whole);
        assert_eq!(blobs.read_blocking(whole).unwrap(), b"one two");
        blobs.remove(whole).unwrap();

        assert_eq!(receive(&[b"one ", b"two"], 6, Some(whole)).unwrap_err().kind(), Kind::Limit);
        assert_eq!(receive(&[b"one ", b"tvo"], 7, Some(whole)).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(receive(&[], 7, None).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(disk.list(BLOBS_DIR).unwrap(), Vec::<String>::new(), "nothing of a refused download stays");
    }

    fn open(disk: &FaultDisk) -> Store {
        Store::open(Settings::default(), Arc::new(disk.clone())).unwrap().0
    }

    /// Waits until nothing but `store` holds the directory: the last note is on disk.
    fn settle(store: Store, disk: &FaultDisk) -> Store {
        drop(store);
        open(disk)
    }

    #[test]
    fn an_attempt_goes_on_where_the_one_before_was_cut_off_also_in_the_next_process() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        let whole: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
        let digest = Digest::of(&whole);
        let mut first = store.blobs().resume("echo", Some(digest), 1 << 20);
        assert_eq!(first.begin(None, Some(700_000)).unwrap(), 0);
        first.write(&whole[..300_000]).unwrap();
        drop(first);
        let mut second = store.blobs().resume("echo", Some(digest), 1 << 20);
        assert_eq!((second.received(), second.total()), (300_000, Some(700_000)));
        second.write(&whole[300_000..400_000]).unwrap();
        assert_eq!(store.blobs().resume("echo", Some(digest), 1 << 20).received(), 0, "one at a time");
        drop(second);

        let store = settle(store, &disk);
        let mut third = store.blobs().resume("echo", Some(digest), 1 << 20);
        assert_eq!((third.received(), third.resumed()), (400_000, 400_000));
        third.write(&whole[400_000..]).unwrap();
        assert_eq!(third.finish(Some(digest)).unwrap(), digest);
        assert_eq!(store.blobs().verify_blocking(digest).unwrap(), 700_000);
        let store = settle(store, &disk);
        assert_eq!(disk.list(BLOBS_DIR).unwrap(), [digest.to_string()]);
        assert_eq!(store.look(|view| view.count(Table::Partial, b"")), 0);
    }

    #[test]
    fn what_changed_at_its_source_begins_anew() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        let attempt = |tag: Option<&str>, total, bytes: &[u8]| {
            let mut incoming = store.blobs().resume("https://example.org/a", None, 100);
            let begun = incoming.begin(tag, total).unwrap();
            incoming.write(bytes).unwrap();
            begun
        };
        assert_eq!(attempt(Some("\"one\""), None, b"abc"), 0);
        assert_eq!(attempt(Some("\"one\""), None, b"def"), 3);
        assert_eq!(attempt(Some("\"two\""), None, b"x"), 0, "another content");
        assert_eq!(attempt(Some("\"two\""), Some(50), b"y"), 1);
        assert_eq!(attempt(Some("\"two\""), Some(51), b"z"), 0, "another length");
        assert_eq!(attempt(None, Some(51), b"z"), 0, "nobody knows which content");
        assert_eq!(attempt(None, Some(51), b"z"), 0);
        let mut long = store.blobs().resume("https://example.org/a", None, 100);
        assert_eq!(long.begin(None, Some(101)).unwrap_err().kind(), Kind::Limit);
    }

    #[test]
    fn those_cut_off_are_bounded_in_number_and_stray_files_go() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        for number in 0..12_u8 {
            let mut incoming = store.blobs().resume(&number.to_string(), Some(Digest::of(&[number])), 100);
            incoming.write(b"part").unwrap();
        }
        assert_eq!(disk.list(BLOBS_DIR).unwrap().len(), partial::MAX_PARTIALS);
        assert_eq!(partial::bytes_of(&store.shared, "3"), None);
        assert_eq!(partial::bytes_of(&store.shared, "11"), Some(4));
        disk.plant("blobs/incoming-0123.part", b"of nobody");
        let store = settle(store, &disk);
        assert!(disk.list(BLOBS_DIR).unwrap().len() <= partial::MAX_PARTIALS);
        assert!(!disk.names().contains(&"blobs/incoming-0123.part".to_owned()));
        drop(store);
    }

    #[test]
    fn power_may_be_cut_at_every_step_of_a_download() {
        let whole: Vec<u8> = (0..600_000_u32).map(|number| (number % 241) as u8).collect();
        let digest = Digest::of(&whole);
        let fetch = |disk: &FaultDisk| -> Result<()> {
            let store = Store::open(Settings::default(), Arc::new(disk.clone()))?.0;
            let mut incoming = store.blobs().resume("echo", Some(digest), 1 << 20);
            let begun = incoming.begin(None, Some(600_000))? as usize;
            whole[begun..].chunks(64 << 10).try_for_each(|piece| incoming.write(piece))?;
            match incoming.finish(Some(digest)) {
                // As a caller does when what was left of an earlier attempt is not what it should be.
                Err(error) if error.kind() == Kind::Invalid && begun > 0 => {
                    panic!("what was noted as durable is not there: {error}")
                }
                outcome => outcome.map(drop),
            }
        };
        let clean = FaultDisk::new();
        fetch(&clean).unwrap();
        let steps = settle_steps(&clean);
        assert!(steps > 15, "{steps}");
        for step in 0..steps {
            let disk = FaultDisk::new();
            disk.cut_at(step);
            let cut = fetch(&disk);
            assert!(cut.is_err() || disk.is_off() || step >= steps - 4, "step {step}");
            for seed in 0..3 {
                let disk = disk.restart(seed * 1000 + step);
                drop(open(&disk));
                fetch(&disk).unwrap();
                let store = open(&disk);
                assert_eq!(store.blobs().read_blocking(digest).unwrap(), whole, "step {step} seed {seed}");
                let left = disk.list(BLOBS_DIR).unwrap();
                assert_eq!(left, [digest.to_string()], "step {step} seed {seed}");
            }
        }
    }

    #[test]
    fn a_download_in_many_goes_writes_little_more_than_itself() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        let whole: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 239) as u8).collect();
        let digest = Digest::of(&whole);
        let (bytes_before, syncs_before) = disk.traffic();
        for start in (0..whole.len()).step_by(320_000) {
            let mut incoming = store.blobs().resume("echo", Some(digest), 4 << 20);
            assert_eq!(incoming.begin(None, Some(2_000_000)).unwrap(), start as u64);
            let end = whole.len().min(start + 320_000);
            whole[start..end].chunks(16 << 10).try_for_each(|piece| incoming.write(piece)).unwrap();
            if end == whole.len() {
                incoming.finish(Some(digest)).unwrap();
            }
        }
        let store = settle(store, &disk);
        drop(store);
        let (bytes, syncs) = disk.traffic();
        // Each sync may cost a page of the medium beside the bytes themselves.
        let written = bytes - bytes_before + (syncs - syncs_before) * 4096;
        assert!(written * 10 <= 11 * 2_000_000 + 327_680, "{written} bytes for 2000000");
    }

    /// Steps once the last commit is through.
    fn settle_steps(disk: &FaultDisk) -> u64 {
        drop(open(disk));
        disk.steps()
    }
}
