//! The file of the admin socket: where it is, who may have it, how a dead host's is told from a live one's.
//!
//! A lock file beside the socket (`admin.sock.lock`) belongs to the host that has it locked; the kernel gives the lock
//! back however that host ends. Only the owner of the lock removes a socket file, and only after nothing answered
//! there, so a live host never loses its socket, not even when two start at the same moment.
//!
//! The lock file stays: removing it would let two hosts lock two different files of that name.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

use crate::error::{Error, Kind, Result};

/// The setting that says where the socket is, for hosts and clients alike.
pub const SETTING: &str = "WASMCLOUD_ADMIN_SOCKET";

/// Name of the socket in its directory.
const SOCKET_NAME: &str = "admin.sock";

/// Name of our directory under a runtime directory that others share.
const DIRECTORY_NAME: &str = "latticed";

/// Connections the kernel keeps waiting for us. More get "try again" at once, which is right for a socket that serves a
/// person and a few scripts.
const BACKLOG: i32 = 16;

/// Longest path of a Unix socket, bytes: `sun_path` of Linux without its final zero.
pub const MAX_PATH_BYTES: usize = 107;

/// Where a host puts its socket when no setting says so, given a look-up of environment variables.
///
/// systemd's `RuntimeDirectory=`, the user's runtime directory, `/run/latticed` for root, else a directory in `/tmp`
/// that only this user can use.
pub fn default_path(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // systemd separates several directories by colons; the first is the service's own.
    let systemd = variable("RUNTIME_DIRECTORY").and_then(|list| list.split(':').next().map(PathBuf::from));
    if let Some(directory) = systemd.filter(|path| path.is_absolute()) {
        return directory.join(SOCKET_NAME);
    }
    candidates(absolute("XDG_RUNTIME_DIR"), rustix::process::geteuid().as_raw()).swap_remove(0)
}

/// Where a client looks for a host of this user, in this order, when no setting says so.
pub fn search_paths(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let user = rustix::process::geteuid().as_raw();
    let mut paths = candidates(runtime, user);
    paths.push(Path::new("/run").join(DIRECTORY_NAME).join(SOCKET_NAME));
    paths.dedup();
    paths
}

fn candidates(runtime: Option<PathBuf>, user: u32) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = runtime.into_iter().map(|path| path.join(DIRECTORY_NAME)).collect();
    match user {
        0 => paths.push(Path::new("/run").join(DIRECTORY_NAME)),
        _ => paths.push(PathBuf::from(format!("/tmp/{DIRECTORY_NAME}-{user}"))),
    }
    paths.into_iter().map(|path| path.join(SOCKET_NAME)).collect()
}

/// Refuses a path that no socket can have.
///
/// # Errors
/// `Config`.
pub fn check_path(path: &Path) -> Result<()> {
    let length = path.as_os_str().as_bytes().len();
    if length <= MAX_PATH_BYTES {
        return Ok(());
    }
    Err(Error::config(format!(
        "the admin socket path {} has {length} bytes, Linux allows {MAX_PATH_BYTES}; choose a shorter one",
        path.display(),
    )))
}

/// The socket file and the right to it. Dropping it removes the file, if it is still ours, and gives the lock back.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode of the file we made.
    identity: (u64, u64),
    _lock: File,
}

impl SocketFile {
    /// Makes the socket at `path` with mode 0600, and its directory with mode 0700 if there is none. Blocks shortly.
    ///
    /// # Errors
    /// `Conflict` when another host has it, or something that is no socket lies there; `Denied` when the directory lets
    /// others replace the socket or we may not write there; `Config` when the path cannot be one.
    pub fn bind(path: &Path) -> Result<(UnixListener, Self)> {
        check_path(path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        prepare_directory(directory)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = listen(path)?;
        let metadata = fs::symlink_metadata(path).map_err(|cause| failed("look at", path, &cause))?;
        Ok((listener, Self { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()), _lock: lock }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // If it cannot be removed, the next host takes it for what it is: stale.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn prepare_directory(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|cause| failed("create the directory of", directory, &cause))?;
    let metadata = fs::metadata(directory).map_err(|cause| failed("look at", directory, &cause))?;
    let mode = metadata.mode();
    let sticky = mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return Err(Error::denied(format!(
            "others may write to {} (mode {:o}) and could replace the admin socket; run chmod 0755 on it or choose \
             another place",
            directory.display(),
            mode & 0o7777
        )));
    }
    let own = rustix::process::geteuid().as_raw();
    if !sticky && metadata.uid() != own && metadata.uid() != 0 {
        return Err(Error::denied(format!(
            "{} belongs to user id {}, who could replace the admin socket; choose another place",
            directory.display(),
            metadata.uid()
        )));
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    // NOFOLLOW: in a shared directory the name could be somebody's link to a file of ours.
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK).bits())
        .map_err(|_| Error::internal("open flags do not fit their type"))?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(flags)
        .open(&name)
        .map_err(|cause| failed("open the lock", &name, &cause))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(in_use(path)),
        Err(cause) => Err(failed("lock", &name, &cause.into())),
    }
}

/// Removes what a dead host left at `path`. Holding the lock we only meet a live listener if it does not use our lock.
fn remove_stale(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(failed("look at", path, &cause)),
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::conflict(format!(
            "{} is no socket, so it is not touched; remove it or choose another place for the admin socket",
            path.display()
        )));
    }
    match connect_at_once(path) {
        Err(rustix::io::Errno::CONNREFUSED) => {
            fs::remove_file(path).map_err(|cause| failed("remove the stale", path, &cause))
        }
        Err(rustix::io::Errno::NOENT) => Ok(()),
        // Connected, or a queue that is full: somebody lives there.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Err(in_use(path)),
        Err(cause) => Err(failed("try", path, &cause.into())),
    }
}

/// Connects without waiting for a place in the queue, so that a host that hangs cannot hang us.
fn connect_at_once(path: &Path) -> rustix::io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}

fn listen(path: &Path) -> Result<UnixListener> {
    let bound = || -> rustix::io::Result<UnixListener> {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        // Linux gives the file the mode that the socket has when it is bound, so there is no moment in which others
        // could connect.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(UnixListener::from(socket))
    };
    bound().map_err(|cause| failed("listen on", path, &cause.into()))
}

fn in_use(path: &Path) -> Error {
    Error::conflict(format!(
        "another host answers at {}; stop it with `latticed stop`, or give this one another admin socket",
        path.display()
    ))
}

fn failed(what: &str, path: &Path, cause: &io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Storage,
        _ => Kind::Config,
    };
    Error::new(kind, format!("cannot {what} {} for the admin API: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refusal(path: &Path) -> (Kind, String) {
        let error = SocketFile::bind(path).expect_err("must be refused");
        (error.kind(), error.text().to_owned())
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("exists").mode() & 0o7777
    }

    #[test]
    fn the_path_follows_the_environment() {
        let with = |pairs: &'static [(&str, &str)]| {
            default_path(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(
            with(&[("RUNTIME_DIRECTORY", "/run/latticed:/run/other"), ("XDG_RUNTIME_DIR", "/run/user/1000")]),
            Path::new("/run/latticed/admin.sock")
        );
        assert_eq!(with(&[("XDG_RUNTIME_DIR", "/run/user/1000")]), Path::new("/run/user/1000/latticed/admin.sock"));
        let nothing = with(&[("XDG_RUNTIME_DIR", "relative")]);
        assert!(nothing.is_absolute() && nothing.ends_with(SOCKET_NAME));
        assert_eq!(candidates(None, 1000), [Path::new("/tmp/latticed-1000/admin.sock")]);
        assert_eq!(candidates(None, 0), [Path::new("/run/latticed/admin.sock")]);
    }

    #[test]
    fn a_client_looks_where_each_kind_of_host_listens() {
        let paths = search_paths(|name| (name == "XDG_RUNTIME_DIR").then(|| "/run/user/7".to_owned()));
        assert_eq!(paths.first().map(PathBuf::as_path), Some(Path::new("/run/user/7/latticed/admin.sock")));
        assert_eq!(paths.iter().filter(|path| *path == Path::new("/run/latticed/admin.sock")).count(), 1);
    }

    #[test]
    fn socket_and_directory_are_private_and_the_socket_goes_with_its_owner() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join("new/deep").join(SOCKET_NAME);
        let (_listener, bound) = SocketFile::bind(&path).expect("bind");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().expect("parent")), 0o700);
        assert!(UnixStream::connect(bound.path()).is_ok());
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_host_is_refused_and_the_first_keeps_its_socket() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        let first = SocketFile::bind(&path).expect("bind");
        let (kind, text) = refusal(&path);
        assert_eq!(kind, Kind::Conflict);
        assert!(text.contains("latticed stop"), "{text}");
        assert!(UnixStream::connect(&path).is_ok());
        drop(first);
        SocketFile::bind(&path).expect("free again");
    }

    #[test]
    fn the_socket_of_a_dead_host_is_replaced() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        drop(UnixListener::bind(&path).expect("bind"));
        assert!(path.exists());
        SocketFile::bind(&path).expect("stale socket is replaced");
    }

    #[test]
    fn a_live_listener_without_our_lock_is_left_alone() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        let _other = UnixListener::bind(&path).expect("bind");
        assert_eq!(refusal(&path).0, Kind::Conflict);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        fs::write(&path, "precious").expect("write");
        assert_eq!(refusal(&path).0, Kind::Conflict);
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        let precious = root.path().join("precious");
        symlink(&precious, root.path().join("admin.sock.lock")).expect("link");
        assert_eq!(refusal(&path).0, Kind::Config);
        assert!(!precious.exists());
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused_unless_sticky() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
        assert_eq!(refusal(&path).0, Kind::Denied);
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o1777)).expect("chmod");
        SocketFile::bind(&path).expect("sticky");
    }

    #[test]
    fn a_path_too_long_for_linux_is_named() {
        let (kind, text) = refusal(&Path::new("/tmp").join("x".repeat(120)).join(SOCKET_NAME));
        assert_eq!(kind, Kind::Config);
        assert!(text.contains("107"), "{text}");
    }

    /// Many hosts start at one moment over a stale socket: one wins, and its socket answers.
    #[test]
    fn of_many_hosts_one_wins() {
        let root = tempfile::tempdir().expect("temporary directory");
        let path = root.path().join(SOCKET_NAME);
        drop(UnixListener::bind(&path).expect("bind"));
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| SocketFile::bind(&path))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
