//! A blob that arrives piece by piece: written to the disk and hashed on the way, in constant memory.
//!
//! Used by the sources in `artifact`. It gets its name only when all of it is durable and its digest is the expected
//! one; dropped before that, nothing of it stays. It never hands out what it has received.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use sha2::Digest as _;

use super::{
    blobs::{BLOBS_DIR, Blobs, Digest, MAX_BLOB_BYTES, UNFINISHED, name_of},
    disk::{DiskFile, failed},
    log::lock,
};
use crate::error::{Error, Result};

/// Tells unfinished files of this process apart; those of the one before are removed when the store is opened.
static NEXT: AtomicU64 = AtomicU64::new(0);

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
        }
    }

    /// The most it takes, bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What has arrived, bytes.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// `Limit` when it would be more than [`limit`](Self::limit); `Storage` when the disk is full, read-only or failing.
    pub fn write(&mut self, piece: &[u8]) -> Result<()> {
        let after = self.received.saturating_add(piece.len() as u64);
        if after > self.limit {
            return Err(Error::limit(format!("it has more than the {} bytes allowed", self.limit)));
        }
        self.append(piece).map_err(|cause| self.failed("cannot write a download", &cause))?;
        self.hash.update(piece);
        self.received = after;
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

    /// Makes it a blob, durable when this returns.
    ///
    /// # Errors
    /// `Invalid` when nothing arrived or its digest is not `expected`: nothing is kept then; `Storage` when the disk
    /// fails.
    pub fn finish(mut self, expected: Option<Digest>) -> Result<Digest> {
        let digest = Digest(self.hash.clone().finalize().into());
        let Some(file) = self.file.take() else {
            return Err(Error::invalid("it is empty"));
        };
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::invalid(format!(
                "its {} bytes have the digest sha256:{digest}, expected is sha256:{expected}; nothing of it was kept",
                self.received
            )));
        }
        let kept = {
            let _writing = lock(self.blobs.writer());
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
        if !self.kept {
            // Not there when nothing was written; what stays behind is removed when the store is opened again.
            let _ = self.blobs.disk().remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        store::{Disk, FaultDisk, Settings, Store},
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
}
