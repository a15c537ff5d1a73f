//! The kernel's own limits of what a provider's directory may hold: a project quota, where the file system has them.
//!
//! A host that is root lets the directory and everything in it be a project (ext4 mounted with `prjquota`, XFS with
//! `pquota`) with hard limits: a write over them fails (`EDQUOT`; XFS says `ENOSPC`), and the provider goes on.
//! Elsewhere its supervisor looks, and ends it (`watch.rs`). It looks here too: the kernel counts a file where its
//! project is, the supervisor counts it where it lies.
//!
//! Projects have numbers and no names, and whoever owns a file may change its project: the filter of system calls
//! refuses that to providers (`seccomp.rs`). Without the filter a provider can leave its project, so then its limits
//! are called watched.
//!
//! A project's number is [`FIRST_PROJECT`] and the number of the directory's inode, up to `FIRST_PROJECT + PROJECTS`;
//! where another provider's directory has that number, which takes a file system of more than [`PROJECTS`] inodes, the
//! next one. It is found again from the directory at every start and kept nowhere. A directory that an administrator
//! has put into a project of another number stays there.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    fd::AsFd,
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2, statat},
    io::Errno,
    thread::{CapabilitySet, capabilities},
};

use super::quota_calls::{self, INHERITED};
use crate::{lock::Mutex, log};

/// The lowest number of a project that is ours. Administrators count theirs from 1 (`/etc/projid`), and container
/// engines from there on.
pub const FIRST_PROJECT: u32 = 1 << 30;

/// How many numbers are ours. Inodes of ext4 are numbered without gaps, so that a card would need as many files; half
/// of what is left below the kernel's highest stays free.
pub const PROJECTS: u32 = 1 << 30;

/// The number of the name space that users have at first; the kernel's own, since 3.8. In others projects cannot be
/// changed.
const FIRST_USERS: u64 = 0xEFFF_FFFD;

/// How files are opened that a provider has made: no link is followed, no device or pipe waited for.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// How directories are.
const DIRECTORY: OFlags = FILE.union(OFlags::DIRECTORY);

/// Nothing is reached through a link, a mount, or outside of where it is looked for.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Between the choice of a number and its use nobody else may choose.
static CHOICE: Mutex<()> = Mutex::new(());

/// Lets the kernel keep `directory` to so many bytes and files (0 is no limit), where it can; whether it does now.
/// Nobody may work in `directory` yet. Blocks.
pub(super) fn keep(directory: &Path, bytes: u64, files: u64) -> bool {
    match keep_or_leave(directory, bytes, files) {
        Ok(None) => true,
        Ok(Some(reason)) => {
            log::debug!("the disk limits of {} are watched only: {reason}", directory.display());
            false
        }
        Err(cause) => {
            log::warn!(
                "the kernel cannot keep {} to its disk limits, which are watched instead: {cause}",
                directory.display()
            );
            false
        }
    }
}

/// The same; why it is left alone, where it is.
fn keep_or_leave(directory: &Path, bytes: u64, files: u64) -> io::Result<Option<&'static str>> {
    if !may() {
        return Ok(Some("this host may not set quotas"));
    }
    let root = File::from(open(directory, DIRECTORY, Mode::empty())?);
    if !quota_calls::in_force(&root).unwrap_or(false) {
        return Ok(Some("its file system has no project quotas that are switched on"));
    }
    let now = quota_calls::attributes(&root)?.project;
    if now != 0 && !is_ours(now) {
        return Ok(Some("an administrator has put it into a project"));
    }
    if now == 0 && bytes == 0 && files == 0 {
        return Ok(Some("there are none"));
    }
    let project = {
        let _choosing = CHOICE.lock();
        let project = choose(root.metadata()?.ino(), &neighbours(directory));
        put(&root, project)?;
        project
    };
    let outcome = put_content(&root, project);
    // The directory itself is counted too.
    let files = if files == 0 { 0 } else { files.saturating_add(1) };
    quota_calls::set_limits(&root, project, bytes, files)?;
    outcome.map(|()| None)
}

/// Whether this process may change projects and their limits.
fn may() -> bool {
    let capable = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    capable && fs::metadata("/proc/self/ns/user").is_ok_and(|users| users.ino() == FIRST_USERS)
}

fn is_ours(project: u32) -> bool {
    (FIRST_PROJECT..FIRST_PROJECT + PROJECTS).contains(&project)
}

/// The project of the directory `inode`, where those of others are `taken`.
fn choose(inode: u64, taken: &BTreeSet<u32>) -> u32 {
    let mut place = u32::try_from(inode % u64::from(PROJECTS)).unwrap_or_default();
    while taken.contains(&(FIRST_PROJECT + place)) {
        place = (place + 1) % PROJECTS;
    }
    FIRST_PROJECT + place
}

/// The projects of the directories beside `directory`.
fn neighbours(directory: &Path) -> BTreeSet<u32> {
    let beside = directory.parent().and_then(|above| fs::read_dir(above).ok()).into_iter().flatten().flatten();
    let others = beside.map(|entry| entry.path()).filter(|path| path.file_name() != directory.file_name());
    let opened = others.filter_map(|path| open(&path, DIRECTORY, Mode::empty()).ok());
    opened.filter_map(|other| quota_calls::attributes(&other).ok()).map(|found| found.project).collect()
}

/// Puts what is open as `file` into `project`; also what is made in it later, where it is a directory. Leaves alone
/// what is neither file nor directory, and a file with a second name, which may be somewhere else and somebody else's.
fn put(file: impl AsFd, project: u32) -> io::Result<()> {
    let status = fstat(&file)?;
    let inherited = match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory => INHERITED,
        FileType::RegularFile if status.st_nlink == 1 => 0,
        _ => return Ok(()),
    };
    let now = quota_calls::attributes(&file)?;
    let mut wanted = now;
    wanted.project = project;
    wanted.flags |= inherited;
    if wanted == now { Ok(()) } else { quota_calls::set_attributes(&file, wanted) }
}

/// The same for everything in the directory `root`.
fn put_content(root: &File, project: u32) -> io::Result<()> {
    let mut ahead = vec![PathBuf::from(".")];
    while let Some(at) = ahead.pop() {
        let directory = openat2(root, &at, DIRECTORY, Mode::empty(), WITHIN)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => FileType::from_raw_mode(status.st_mode),
                Err(Errno::NOENT) => continue,
                Err(cause) => return Err(cause.into()),
            };
            // Of the others none holds more than its name, and to open one could do something.
            if !matches!(kind, FileType::Directory | FileType::RegularFile) {
                continue;
            }
            match openat2(&directory, name, FILE, Mode::empty(), WITHIN) {
                Ok(file) => put(&file, project)?,
                Err(Errno::NOENT) => continue,
                Err(cause) => return Err(cause.into()),
            }
            if kind == FileType::Directory {
                ahead.push(at.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_a_project_of_its_own_in_our_range_and_always_the_same() {
        let none = BTreeSet::new();
        assert_eq!(choose(12, &none), FIRST_PROJECT + 12);
        let highest = FIRST_PROJECT + PROJECTS - 1;
        for inode in [0, 1, u64::from(PROJECTS) - 1, u64::from(PROJECTS), u64::from(u32::MAX), u64::MAX] {
            let project = choose(inode, &none);
            assert!(is_ours(project), "{inode} {project}");
            assert_eq!(project, choose(inode, &none));
        }
        assert_eq!(choose(12, &BTreeSet::from([FIRST_PROJECT + 12])), FIRST_PROJECT + 13);
        assert_eq!(choose(u64::from(PROJECTS) - 1, &BTreeSet::from([highest])), FIRST_PROJECT);
        for other in [0, 1, FIRST_PROJECT - 1, highest + 1, u32::MAX] {
            assert!(!is_ours(other), "{other}");
        }
    }

    #[test]
    fn where_there_are_no_project_quotas_nothing_changes_and_nothing_fails() {
        // In memory, where no kernel has them for projects.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        assert!(keep_or_leave(folder.path(), 1 << 20, 10).unwrap().is_some());
        assert!(!keep(folder.path(), 1 << 20, 10));
    }
}
