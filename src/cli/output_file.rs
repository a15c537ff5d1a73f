//! A file that a command makes: a seed, a signed module, an archive. It is there whole or not at all.
//!
//! Used by `keys`, `claims` and `archive`. The state of a host is not written here; that is the store's.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process,
};

use crate::error::{Error, Result};

/// Mode of a file that holds a secret: its owner reads and writes it, nobody else.
pub const SECRET: u32 = 0o600;
/// Mode of any other file, before the umask.
pub const PUBLIC: u32 = 0o666;

/// Makes the file `path` with what `write` puts into it. An existing one is replaced in one step, or, without
/// `overwrite`, left alone.
///
/// # Errors
/// `Conflict` when it exists and may not be overwritten (`remedy` is appended to the text); `NotFound`, `Denied`,
/// `Storage` when it cannot be made; and whatever `write` answers. In all these cases nothing is left behind.
pub fn write<T>(
    path: &Path,
    mode: u32,
    overwrite: bool,
    remedy: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    let failed = |cause: io::Error| {
        let text = format!("cannot write {}: {cause}", path.display());
        match cause.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::conflict(format!("{} exists already and is left as it is; {remedy}", path.display()))
            }
            io::ErrorKind::NotFound => Error::not_found(text),
            io::ErrorKind::PermissionDenied => Error::denied(text),
            _ => Error::storage(text),
        }
    };
    // A new file is made under its own name, so that two commands cannot both believe they made it.
    let made = if overwrite { temporary(path)? } else { path.to_path_buf() };
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&made).map_err(failed)?;
    let result = fill(file, write, failed).and_then(|value| {
        if overwrite {
            fs::rename(&made, path).map_err(failed)?;
        }
        Ok(value)
    });
    if result.is_err() {
        // The first error is the one to tell; a leftover that cannot be removed is seen by its name.
        let _ = fs::remove_file(&made);
    }
    result
}

fn fill<T>(
    file: File,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
    failed: impl Fn(io::Error) -> Error,
) -> Result<T> {
    let mut buffered = BufWriter::new(file);
    let value = write(&mut buffered)?;
    let file = buffered.into_inner().map_err(|cause| failed(cause.into_error()))?;
    file.sync_all().map_err(failed)?;
    Ok(value)
}

/// A name beside `path` that no other process uses.
fn temporary(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::usage(format!("{} does not name a file", path.display())))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.new", process::id()));
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::Kind;

    fn put(path: &Path, overwrite: bool, content: &str) -> Result<()> {
        write(path, SECRET, overwrite, "use --force", |out| {
            out.write_all(content.as_bytes()).map_err(|cause| Error::storage(cause.to_string()))
        })
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_asked_and_stays_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seed");
        put(&path, false, "one").unwrap();
        let refusal = put(&path, false, "two").unwrap_err();
        assert_eq!(refusal.kind(), Kind::Conflict);
        assert!(refusal.text().contains("--force"), "{refusal}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        put(&path, true, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_nothing_new_and_nothing_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let fail = |overwrite| write(&path, PUBLIC, overwrite, "", |_| Err::<(), _>(Error::invalid("no"))).unwrap_err();
        assert_eq!(fail(false).kind(), Kind::Invalid);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        put(&path, false, "one").unwrap();
        assert_eq!(fail(true).kind(), Kind::Invalid);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(put(&directory.path().join("no/such"), true, "x").unwrap_err().kind(), Kind::NotFound);
    }
}
