//! The state directory as the rest of the store sees it: the only road to it, and therefore the one place where a test
//! can make any write fail, stop or tear.
//!
//! [`RealDisk`](crate::store::RealDisk) is the directory itself; [`FaultDisk`](crate::store::FaultDisk) is a model of
//! one in memory with a power switch. Names are relative to the state directory, at most one folder deep
//! (`blobs/…`, `damaged/…`).
//!
//! It never interprets what it stores, never caches, and never syncs on its own: what was written counts as durable only
//! after [`DiskFile::sync`], what was created, renamed or removed only after [`Disk::sync_dir`].

use std::{any::Any, io, sync::Arc};

use crate::error::{Error, Kind};

/// Keeps the exclusive lock on a state directory until it is dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A state directory.
pub trait Disk: Send + Sync + 'static {
    /// The directory as the operator knows it, for messages.
    fn place(&self) -> String;

    /// Makes the directory if it is missing (mode 0700) and takes the exclusive lock on it.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds the lock.
    fn lock(&self) -> io::Result<Lock>;

    /// Whether files can be made here now; the error says why not (`ReadOnlyFilesystem`, `PermissionDenied`).
    fn writable(&self) -> io::Result<()>;

    /// Makes the folder `dir` (mode 0700); not an error when it is there.
    fn make_dir(&self, dir: &str) -> io::Result<()>;

    /// Names of the files in `dir`, in no order; `""` is the state directory. A missing folder is an empty one.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes the file `name` (mode 0600).
    ///
    /// # Errors
    /// `AlreadyExists` when it is there.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens the file `name` for reading, and for writing where that is allowed.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives the file `from` the name `to`, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes the file `name`. Open files stay readable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, renaming and removal in `dir` durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buffer` from `offset` on; answers how many bytes there were, fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may be there.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes all bytes and the length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// Turns a failed disk operation into what the operator reads: what was being done, where, why, and the remedy.
pub(super) fn failed(what: &str, disk: &dyn Disk, cause: &io::Error) -> Error {
    let remedy = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there: nothing committed is lost, and changes are accepted again as soon as there is room"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; mount it read-write: until then state can be read but not changed",
        io::ErrorKind::PermissionDenied => "; give it to the user this host runs as",
        _ => "",
    };
    Error::new(Kind::Storage, format!("{what} in the state directory {}: {cause}{remedy}", disk.place()))
}
