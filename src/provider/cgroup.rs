//! A control group of its own for each provider, where a service manager has handed this host a part of the tree.
//!
//! `Delegate=yes` in a unit means that the groups below the service's own are the service's to make; systemd marks the group
//! then, and without that mark nothing is touched. Everything a provider ever starts is in its group, so it is ended by one
//! write, whatever session or parent its processes have chosen. Where the controllers are switched on for groups below,
//! limits hold for all of it together. Everything here blocks shortly.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::confine::Confinement;
use crate::log;

/// The mark of a group that was handed over: from unprivileged managers the first, from the system's the second.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// How often an emptied group is tried to be removed: the kernel needs a moment to let go of the dead.
const REMOVALS: u32 = 50;

/// Wait between two of these tries.
const REMOVAL_WAIT: Duration = Duration::from_millis(10);

/// Most groups below one that are looked into.
const MAX_GROUPS: usize = 1024;

/// The group of this process.
pub fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    own_of(&mounts, &groups)
}

/// The group of this process, if groups may be made below it.
pub fn delegated() -> Option<PathBuf> {
    let own = own()?;
    let is_marked = |mark: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(&own, mark, &mut value).is_ok_and(|length| value[..length] == *b"1")
    };
    MARKS.into_iter().any(is_marked).then_some(own)
}

/// The folder of this process' group in the unified tree, out of the kernel's tables.
fn own_of(mounts: &str, groups: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(place)
    })?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(path))
}

/// Makes a group called `name` below `base`, with the limits of `confinement` as far as its controllers are there.
///
/// # Errors
/// The kernel refuses.
pub fn make(base: &Path, name: &str, confinement: &Confinement) -> io::Result<PathBuf> {
    let group = base.join(name);
    match fs::create_dir(&group) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => return Err(cause),
        _ => {}
    }
    for (file, limit) in [("memory.max", confinement.memory_bytes), ("pids.max", confinement.processes)] {
        if limit > 0
            && let Err(cause) = tell(&group.join(file), &limit.to_string())
            && cause.kind() != ErrorKind::NotFound
        {
            log::debug!("the limit {file} of {} is not in force: {cause}", group.display());
        }
    }
    Ok(group)
}

/// Puts this process into `group`, with all it will start.
///
/// # Errors
/// The kernel refuses.
pub fn enter(group: &Path) -> io::Result<()> {
    tell(&group.join("cgroup.procs"), "0")
}

/// Kills everything in `group` and removes it. Kernels before 5.14 cannot kill a group; what is in it was killed otherwise.
pub fn end(group: &Path) {
    let _ = tell(&group.join("cgroup.kill"), "1");
    for _ in 0..REMOVALS {
        match fs::remove_dir(group) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => thread::sleep(REMOVAL_WAIT),
            _ => return,
        }
    }
}

/// Writes `word` to a file of the kernel's; never makes one.
fn tell(file: &Path, word: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(word.as_bytes())
}

/// Whether the process `id` is in `group` or one below it.
///
/// # Errors
/// Not all of them could be read.
pub fn holds(group: &Path, id: i32) -> io::Result<bool> {
    let id = id.to_string();
    let mut ahead = vec![group.to_owned()];
    let mut seen = 0;
    while let Some(at) = ahead.pop() {
        seen += 1;
        if seen > MAX_GROUPS {
            return Err(io::Error::other("there are too many groups"));
        }
        if fs::read_to_string(at.join("cgroup.procs"))?.lines().any(|line| line == id) {
            return Ok(true);
        }
        for entry in fs::read_dir(&at)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                ahead.push(entry.path());
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_a_unified_and_in_a_mixed_tree() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n";
        assert_eq!(
            own_of(unified, "0::/system.slice/latticed.service\n"),
            Some("/sys/fs/cgroup/system.slice/latticed.service".into())
        );
        let mixed = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(own_of(mixed, "4:memory:/x\n0::/a\n"), Some("/sys/fs/cgroup/unified/a".into()));
        assert_eq!(own_of("proc /proc proc rw 0 0\n", "0::/a\n"), None);
        assert_eq!(own_of(unified, "4:memory:/x\n"), None);
    }

    #[test]
    fn a_process_is_found_in_groups_below_and_what_cannot_be_read_is_no_answer() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("provider-1");
        fs::create_dir(&below).unwrap();
        fs::write(folder.path().join("cgroup.procs"), "7\n12\n").unwrap();
        assert!(holds(folder.path(), 5).is_err());
        fs::write(below.join("cgroup.procs"), "5\n").unwrap();
        for (id, found) in [(7, true), (12, true), (5, true), (1, false), (2, false)] {
            assert_eq!(holds(folder.path(), id).unwrap(), found, "{id}");
        }
    }
}
