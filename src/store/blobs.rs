//! Larger things, each in a file named by its SHA-256: actor modules, provider archives.
//!
//! A blob appears under its name only when all of it is durable, and is checked each time it is read, so a wrong byte is
//! never handed out. It never removes one on its own: what is still needed is for `artifact` to know.

use std::{fmt, future::Future, io, str::FromStr, sync::Arc};

use data_encoding::HEXLOWER;
use sha2::Digest as _;

use super::{
    Damage, DamageKind, Incoming, Unfinished,
    damage::move_aside,
    disk::{Disk, DiskFile, failed},
    log::Shared,
    partial,
    writer::{Writer, read_all},
};
use crate::{
    error::{Error, Result},
    lock::Mutex,
    log,
};

/// The folder in the state directory.
pub const BLOBS_DIR: &str = "blobs";

/// Largest blob: 64 MiB, several times the largest provider archive seen. A blob is in memory as a whole when it is read.
pub const MAX_BLOB_BYTES: usize = 64 << 20;

/// Read at once to check a blob, bytes.
const VERIFY_BYTES: usize = 16 << 10;

/// Ends the name of a blob that is being written.
pub(super) const UNFINISHED: &str = ".new";

/// The SHA-256 of a blob's bytes; its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Reads 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is no SHA-256 digest: 64 lower-case hexadecimal digits are"));
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

/// The blobs of a store. Clones are cheap.
#[derive(Clone)]
pub struct Blobs {
    shared: Arc<Shared>,
}

impl Blobs {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Keeps `bytes`; they are durable when the future resolves. A blob that is there already is not written again.
    ///
    /// # Errors
    /// `Limit` above [`MAX_BLOB_BYTES`]; `Storage` when the disk is full, read-only or failing.
    pub fn put(&self, bytes: Vec<u8>) -> impl Future<Output = Result<Digest>> + Send + 'static {
        let blobs = self.clone();
        smol::unblock(move || blobs.put_blocking(&bytes))
    }

    /// The bytes of `digest`, checked.
    ///
    /// # Errors
    /// `NotFound`; `Storage` when they cannot be read or were damaged: the file is set aside then, so that the blob can
    /// be put again.
    pub fn read(&self, digest: Digest) -> impl Future<Output = Result<Vec<u8>>> + Send + 'static {
        let blobs = self.clone();
        smol::unblock(move || blobs.read_blocking(digest))
    }

    /// The digests of all blobs, in no order. Blocks.
    ///
    /// # Errors
    /// `Storage` when the folder cannot be listed.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let names = self.disk().list(BLOBS_DIR).map_err(|cause| self.failed("cannot list the blobs", &cause))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Removes `digest`, if it is there. Blocks.
    ///
    /// # Errors
    /// `Storage`.
    pub fn remove(&self, digest: Digest) -> Result<()> {
        self.remove_under(digest, ())
    }

    /// As [`Blobs::remove`], with `guard` let go as soon as nobody finds the blob any more: what is left then is for the
    /// medium, which may take seconds.
    ///
    /// # Errors
    /// `Storage`.
    pub fn remove_under<G>(&self, digest: Digest, guard: G) -> Result<()> {
        let removed = self.disk().remove(&name_of(digest));
        drop(guard);
        match removed {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.and_then(|()| self.disk().sync_dir(BLOBS_DIR)),
        }
        .map_err(|cause| self.failed(&format!("cannot remove blob {digest}"), &cause))
    }

    /// [`put`](Self::put) on this thread.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub fn put_blocking(&self, bytes: &[u8]) -> Result<Digest> {
        if bytes.len() > MAX_BLOB_BYTES {
            return Err(Error::limit(format!("a blob of {} bytes is more than {MAX_BLOB_BYTES}", bytes.len())));
        }
        let digest = Digest::of(bytes);
        // One at a time: two writers of the same blob would share an unfinished file.
        let _writing = self.shared.writer.lock();
        if self.disk().open(&name_of(digest)).is_ok() && self.read_blocking(digest).is_ok() {
            return Ok(digest);
        }
        self.write(digest, bytes).map_err(|cause| self.failed(&format!("cannot keep blob {digest}"), &cause))?;
        Ok(digest)
    }

    fn write(&self, digest: Digest, bytes: &[u8]) -> io::Result<()> {
        let disk = self.disk();
        disk.make_dir(BLOBS_DIR)?;
        disk.sync_dir("")?;
        let name = name_of(digest);
        let unfinished = format!("{name}{UNFINISHED}");
        // One that was left when power went, or when the disk was full.
        let _ = disk.remove(&unfinished);
        let written = disk
            .create(&unfinished)
            .and_then(|file| file.write_at(0, bytes).and_then(|()| file.sync()))
            .and_then(|()| disk.rename(&unfinished, &name))
            .and_then(|()| disk.sync_dir(BLOBS_DIR));
        if written.is_err() {
            let _ = disk.remove(&unfinished);
        }
        written
    }

    /// [`read`](Self::read) on this thread.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn read_blocking(&self, digest: Digest) -> Result<Vec<u8>> {
        let name = name_of(digest);
        let file = self.open(digest, &name)?;
        let (bytes, unreadable) =
            read_all(file.as_ref()).map_err(|cause| self.failed(&format!("cannot read blob {digest}"), &cause))?;
        if unreadable.is_none() && Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        Err(self.damaged(digest, name, bytes.len() as u64))
    }

    fn open(&self, digest: Digest, name: &str) -> Result<Arc<dyn DiskFile>> {
        match self.disk().open(name) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                Err(Error::not_found(format!("blob {digest} is not in the state directory")))
            }
            other => other.map_err(|cause| self.failed(&format!("cannot open blob {digest}"), &cause)),
        }
    }

    fn damaged(&self, digest: Digest, file: String, length: u64) -> Error {
        let damage = Damage {
            kind: DamageKind::Record,
            set_aside: move_aside(&self.shared.disk, &file).ok(),
            file,
            offset: 0,
            bytes: length,
            reason: "the content does not match the digest: it must be fetched again".into(),
        };
        log::error!("state damaged: {damage}");
        let error = Error::storage(format!("blob {digest} is damaged: {damage}"));
        self.shared.damage.lock().push(damage);
        error
    }

    /// A blob of at most `limit` bytes that arrives piece by piece, in one go: dropped before its end, nothing stays.
    pub fn incoming(&self, limit: u64) -> Incoming {
        Incoming::new(self.clone(), limit)
    }

    /// A blob of at most `limit` bytes that may arrive in several goes, also of several processes: goes on with what is
    /// left of `name`, or begins it. With `content` the bytes can only be those of this digest, so any source may go on;
    /// without, a source must say by [`Incoming::begin`] which content it gives. While another one works on `name`, this
    /// one begins anew and leaves nothing. Blocks: reads what is there once for its hash.
    pub fn resume(&self, name: &str, content: Option<Digest>, limit: u64) -> Incoming {
        Incoming::resume(self.clone(), name, content, limit)
    }

    /// What waits for the rest of its bytes, the one begun first in front. Blocks.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        partial::list(&self.shared)
    }

    /// Gives up what has arrived of `name`, unless somebody works on it now; answers whether it did. Blocks.
    pub fn give_up(&self, name: &str) -> bool {
        partial::give_up(&self.shared, name)
    }

    /// Length of `digest` in bytes, if it is there; its content is not looked at. Blocks.
    pub fn length(&self, digest: Digest) -> Option<u64> {
        self.disk().open(&name_of(digest)).and_then(|file| file.len()).ok()
    }

    /// Whether `digest` is there and whole, read in constant memory; a damaged one is set aside as [`read`](Self::read)
    /// does. Blocks.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub fn verify_blocking(&self, digest: Digest) -> Result<u64> {
        let name = name_of(digest);
        let file = self.open(digest, &name)?;
        let mut hash = sha2::Sha256::new();
        let mut piece = vec![0; VERIFY_BYTES];
        let mut length = 0;
        loop {
            match file.read_at(length, &mut piece) {
                Ok(0) => break,
                Ok(count) => {
                    hash.update(&piece[..count]);
                    length += count as u64;
                }
                // A bad block: what cannot be read is damaged.
                Err(_) => return Err(self.damaged(digest, name, length)),
            }
        }
        if Digest(hash.finalize().into()) == digest { Ok(length) } else { Err(self.damaged(digest, name, length)) }
    }

    /// `digest`, to be read piece by piece. The pieces are not checked: whoever puts them together does.
    ///
    /// # Errors
    /// `NotFound`; `Storage` when it cannot be opened.
    pub fn reader(&self, digest: Digest) -> Result<BlobReader> {
        Ok(BlobReader(self.open(digest, &name_of(digest))?))
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.shared.disk.as_ref()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn writer(&self) -> &Mutex<Writer> {
        &self.shared.writer
    }

    fn failed(&self, what: &str, cause: &io::Error) -> Error {
        failed(what, self.disk(), cause)
    }
}

/// A blob being read. It stays readable when it is removed meanwhile.
pub struct BlobReader(Arc<dyn DiskFile>);

impl BlobReader {
    /// Fills `buffer` from `offset` on; answers how many bytes there were, fewer only at the end. Blocks.
    ///
    /// # Errors
    /// The medium cannot be read there.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
}

pub(super) fn name_of(digest: Digest) -> String {
    format!("{BLOBS_DIR}/{digest}")
}

/// Removes what was being written when power went.
pub(super) fn remove_unfinished(disk: &dyn Disk) {
    for name in disk.list(BLOBS_DIR).unwrap_or_default() {
        if name.ends_with(UNFINISHED) {
            let _ = disk.remove(&format!("{BLOBS_DIR}/{name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        store::{FaultDisk, Settings, Store},
    };

    #[test]
    fn a_blob_is_read_back_and_a_damaged_one_is_set_aside() {
        let disk = FaultDisk::new();
        let (store, _) = Store::open(Settings::default(), Arc::new(disk.clone())).unwrap();
        let blobs = store.blobs();
        let digest = smol::block_on(blobs.put(b"module".to_vec())).unwrap();
        assert_eq!(smol::block_on(blobs.put(b"module".to_vec())).unwrap(), digest);
        assert_eq!(smol::block_on(blobs.read(digest)).unwrap(), b"module");
        assert_eq!(blobs.list().unwrap(), [digest]);
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);

        disk.corrupt(&name_of(digest), 2, 0x40);
        let error = smol::block_on(blobs.read(digest)).unwrap_err();
        assert_eq!(error.kind(), Kind::Storage);
        assert!(error.text().contains("damaged/"), "{error}");
        assert_eq!(blobs.read_blocking(digest).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(store.damage().len(), 1);
        assert_eq!(disk.list("damaged").unwrap(), [digest.to_string()]);

        blobs.put_blocking(b"module").unwrap();
        blobs.remove(digest).unwrap();
        blobs.remove(digest).unwrap();
        assert_eq!(blobs.list().unwrap(), []);
    }
}
