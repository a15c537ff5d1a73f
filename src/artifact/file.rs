//! Bytes of a file, bounded.
//!
//! Called by the host for `file://` references and by commands that read a module. Only regular files are read: a
//! named pipe or a device would block or never end. It follows symbolic links, as operators use them to switch
//! versions, and never writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use crate::error::{Error, Result};

/// The most a file may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes.
    pub bytes: u64,
    /// The setting that raises the limit, named in the error; `""` where nothing does.
    pub setting: &'static str,
}

impl Limit {
    /// A limit that no setting raises.
    pub const fn fixed(bytes: u64) -> Self {
        Self { bytes, setting: "" }
    }

    /// What to do about something that is too large.
    pub fn remedy(&self) -> String {
        match self.setting {
            "" => "that limit is fixed".to_owned(),
            setting => format!("raise {setting} if it is meant to be so large"),
        }
    }
}

/// Reads the file at `path`, a relative one from `base`, without blocking the executor.
///
/// # Errors
/// `NotFound`; `Denied` without permission; `Limit` when it holds more than `limit`, before or while it is read;
/// `Invalid` when it is no regular file; `Storage` when the disk fails.
pub async fn read_file(path: &Path, base: &Path, limit: Limit) -> Result<Vec<u8>> {
    let path = base.join(path);
    smol::unblock(move || read_blocking(&path, limit)).await
}

/// As [`read_file`], on this thread: for commands that have nothing else to do.
///
/// # Errors
/// As [`read_file`].
pub fn read_blocking(path: &Path, limit: Limit) -> Result<Vec<u8>> {
    // Without NONBLOCK the opening of a named pipe waits for a writer.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC).bits();
    // The kernel takes the flags as a C int; they are far below its sign bit.
    let flags = i32::try_from(flags).map_err(|_| Error::internal("open flags do not fit their type"))?;
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|cause| failed("open", path, &cause))?;
    let metadata = file.metadata().map_err(|cause| failed("look at", path, &cause))?;
    if metadata.is_dir() {
        return Err(Error::invalid(format!("{} is a directory; name the file in it", path.display())));
    }
    if !metadata.is_file() {
        return Err(Error::invalid(format!(
            "{} is a pipe, socket or device; only regular files are read",
            path.display()
        )));
    }
    if metadata.len() > limit.bytes {
        return Err(too_large(path, metadata.len(), limit));
    }
    read_open(file, metadata.len(), path, limit)
}

/// Reads to the end of `file`, which had `expected_bytes` when it was opened and may have grown since.
fn read_open(file: File, expected_bytes: u64, path: &Path, limit: Limit) -> Result<Vec<u8>> {
    // One byte more than expected lets the first read find the end, so that a full buffer is not doubled for it.
    let capacity = usize::try_from(expected_bytes.saturating_add(1)).unwrap_or(0);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(capacity).map_err(|_| {
        Error::limit(format!("there is no memory for the {expected_bytes} bytes of {}", path.display()))
    })?;
    file.take(limit.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|cause| failed("read", path, &cause))?;
    if bytes.len() as u64 > limit.bytes {
        return Err(too_large(path, bytes.len() as u64, limit));
    }
    Ok(bytes)
}

fn too_large(path: &Path, bytes: u64, limit: Limit) -> Error {
    Error::limit(format!(
        "{} holds at least {bytes} bytes, more than the limit of {}; {}",
        path.display(),
        limit.bytes,
        limit.remedy()
    ))
}

fn failed(what: &str, path: &Path, cause: &io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::NotFound => Error::not_found(not_found(path)),
        io::ErrorKind::NotADirectory => {
            Error::not_found(format!("there is no {}: part of the path is a file", path.display()))
        }
        io::ErrorKind::PermissionDenied => Error::denied(format!(
            "cannot {what} {}: permission denied for user id {}; check its mode and its directories",
            path.display(),
            rustix::process::geteuid().as_raw()
        )),
        _ if is_loop(cause) => Error::invalid(format!(
            "cannot {what} {}: its symbolic links lead in a circle; point them to the file",
            path.display()
        )),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            Error::invalid(format!("cannot {what} {:?}: {cause}", path.display().to_string()))
        }
        _ => Error::storage(format!("cannot {what} {}: {cause}", path.display())),
    }
}

/// Whether symbolic links lead in a circle, for which the standard library has no stable name.
pub(crate) fn is_loop(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// Says which part of `path` is missing: a mistyped directory is found sooner that way.
fn not_found(path: &Path) -> String {
    let missing = path.ancestors().skip(1).take_while(|part| !part.as_os_str().is_empty() && !part.exists()).last();
    match missing {
        Some(part) => format!("there is no file {}: {} does not exist", path.display(), part.display()),
        None => format!("there is no file {}", absolute(path).display()),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::Kind;

    const LIMIT: Limit = Limit { bytes: 8, setting: "WASMCLOUD_TEST_LIMIT" };

    fn kind(result: Result<Vec<u8>>) -> (Kind, String) {
        let error = result.expect_err("must be refused");
        (error.kind(), error.text().to_owned())
    }

    #[test]
    fn a_file_is_read_from_its_base() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(directory.path().join("a"), b"12345678").expect("write");
        let read = |path: &str| crate::task::block_on(read_file(Path::new(path), directory.path(), LIMIT));
        assert_eq!(read("a"), Ok(b"12345678".to_vec()));
        assert_eq!(read("./a"), Ok(b"12345678".to_vec()));
        let absolute = directory.path().join("a");
        assert_eq!(read(absolute.to_str().expect("UTF-8")), Ok(b"12345678".to_vec()));
    }

    #[test]
    fn each_failure_says_what_it_is() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("large"), b"123456789").expect("write");
        let (found, text) = kind(read_blocking(&at("large"), LIMIT));
        assert_eq!(found, Kind::Limit);
        assert!(text.contains("WASMCLOUD_TEST_LIMIT") && text.contains('8') && text.contains("large"), "{text}");

        let (found, text) = kind(read_blocking(&at("missing"), LIMIT));
        assert_eq!(found, Kind::NotFound);
        assert!(text.contains("missing"), "{text}");

        let (found, text) = kind(read_blocking(&at("no/such/file"), LIMIT));
        assert_eq!(found, Kind::NotFound);
        assert!(text.ends_with(&format!("{} does not exist", at("no").display())), "{text}");

        assert_eq!(kind(read_blocking(&at("large/x"), LIMIT)).0, Kind::NotFound);

        let (found, text) = kind(read_blocking(directory.path(), LIMIT));
        assert_eq!(found, Kind::Invalid);
        assert!(text.contains("is a directory"), "{text}");

        std::os::unix::fs::symlink(at("two"), at("one")).expect("link");
        std::os::unix::fs::symlink(at("one"), at("two")).expect("link");
        let (found, text) = kind(read_blocking(&at("one"), LIMIT));
        assert_eq!(found, Kind::Invalid);
        assert!(text.contains("circle"), "{text}");

        assert_eq!(kind(read_blocking(Path::new("a\0b"), LIMIT)).0, Kind::Invalid);
        assert_eq!(kind(read_blocking(Path::new("/dev/zero"), LIMIT)).0, Kind::Invalid);
    }

    #[test]
    fn a_named_pipe_does_not_wait_for_a_writer() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .expect("mkfifo");
        assert_eq!(kind(read_blocking(&pipe, LIMIT)).0, Kind::Invalid);
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_bounded() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("growing");
        fs::write(&path, vec![7; 100]).expect("write");
        let file = File::open(&path).expect("open");
        assert_eq!(kind(read_open(file, 4, &path, LIMIT)).0, Kind::Limit);
    }

    /// The kernel reports such files as empty, so the size asked for before reading means nothing.
    #[test]
    fn a_file_without_a_size_is_bounded_too() {
        assert_eq!(kind(read_blocking(Path::new("/proc/self/status"), LIMIT)).0, Kind::Limit);
        let large = Limit { bytes: 1 << 20, ..LIMIT };
        assert!(!read_blocking(Path::new("/proc/self/status"), large).expect("readable").is_empty());
    }
}
