//! A control group of its own for each provider, where a service manager has handed this host a part of the tree.
//!
//! `Delegate=yes` in a unit means that the groups below the service's own are the service's to make; systemd marks the group
//! then, and without that mark nothing is touched. The host and its supervisors move into a group called `host`, because the
//! kernel gives controllers only to groups below one that holds no process itself; each provider has one beside it.
//! Everything a provider ever starts is in its group, so it is ended by one write, whatever session or parent its processes
//! have chosen. Where the controllers are there, limits hold for all of it together, and the tasks that the host needs
//! ([`HOST_TASKS`]) stay out of the groups of providers. Everything here blocks shortly.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{
    confine::Confinement,
    failed,
    tasks::{self, HOST_TASKS},
};
use crate::{
    error::{Error, Result},
    log,
};

/// The mark of a group that was handed over: from unprivileged managers the first, from the system's the second.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];

/// How often an emptied group is tried to be removed: the kernel needs a moment to let go of the dead.
const REMOVALS: u32 = 50;

/// Wait between two of these tries.
const REMOVAL_WAIT: Duration = Duration::from_millis(10);

/// Most groups below one that are looked into.
const MAX_GROUPS: usize = 1024;

/// The group of the host and its supervisors.
const HOST: &str = "host";

/// Begins the names of providers' groups.
const PROVIDER: &str = "provider-";

/// Controllers that limits need.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// The group of this process.
fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    own_of(&mounts, &groups)
}

/// The group of the service that this process is, which holds whatever providers start.
pub fn service() -> Option<PathBuf> {
    let own = own()?;
    match own.parent().filter(|_| own.file_name().is_some_and(|name| name == HOST)) {
        Some(above) if is_delegated(above) => Some(above.to_owned()),
        _ => Some(own),
    }
}

fn is_delegated(group: &Path) -> bool {
    let is_marked = |mark: &str| {
        let mut value = [0; 8];
        rustix::fs::getxattr(group, mark, &mut value).is_ok_and(|length| value[..length] == *b"1")
    };
    MARKS.into_iter().any(is_marked)
}

/// The group below which those of providers may be made, where there is one. This process leaves it for one below.
pub fn prepare() -> Option<PathBuf> {
    let base = service().filter(|group| is_delegated(group))?;
    let host = base.join(HOST);
    let moved = match fs::create_dir(&host) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => Err(cause),
        _ => enter(&host),
    };
    if let Err(cause) = moved {
        log::warn!("provider processes get no control groups: cannot move into {}: {cause}", host.display());
        return None;
    }
    let there = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    for controller in CONTROLLERS {
        if there.split_ascii_whitespace().any(|one| one == controller)
            && let Err(cause) = tell(&base.join("cgroup.subtree_control"), &format!("+{controller}"))
        {
            log::warn!("control groups of provider processes have no limit of {controller}: {cause}");
        }
    }
    Some(base)
}

/// A provider's group.
#[derive(Debug)]
pub struct Group {
    /// Its folder.
    pub path: PathBuf,
    /// It keeps the limit of memory.
    pub keeps_memory: bool,
    /// It keeps the limit of processes and threads.
    pub keeps_tasks: bool,
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

/// Makes a group for the instance `id` of a provider below `base`, with the limits of `confinement` as far as its controllers
/// are there.
///
/// # Errors
/// The kernel refuses, or the service may not have as many tasks.
pub fn make(base: &Path, id: &str, confinement: &Confinement) -> Result<Group> {
    let path = base.join(format!("{PROVIDER}{id}"));
    match fs::create_dir(&path) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => {
            return Err(failed(format_args!("cannot make the control group {}", path.display()), &cause));
        }
        _ => {}
    }
    let has = |file: &str| path.join(file).exists();
    let group = Group { keeps_memory: has("memory.max"), keeps_tasks: has("pids.max"), path: path.clone() };
    let limited = limit(base, &group, confinement);
    if limited.is_err() {
        end(&path);
    }
    limited.map(|()| group)
}

fn limit(base: &Path, group: &Group, confinement: &Confinement) -> Result<()> {
    let set = |file: &str, value: &str| {
        tell(&group.path.join(file), value)
            .map_err(|cause| failed(format_args!("cannot set {file} of {}", group.path.display()), &cause))
    };
    if group.keeps_memory && confinement.memory_bytes > 0 {
        set("memory.max", &confinement.memory_bytes.to_string())?;
        // All of a provider ends when some of it has to. Kernels before 4.19 end one process.
        let _ = set("memory.oom.group", "1");
    }
    if group.keeps_tasks {
        let taken = taken(base, &group.path);
        if let Some(tasks) = share(tasks::service_limit(), taken, confinement.processes)? {
            set("pids.max", &tasks.to_string())?;
        }
    }
    Ok(())
}

/// What the groups of other providers below `base` may have together.
fn taken(base: &Path, but: &Path) -> u64 {
    let others = fs::read_dir(base).into_iter().flatten().flatten();
    let others =
        others.filter(|entry| entry.file_name().to_string_lossy().starts_with(PROVIDER) && entry.path() != but);
    let limits =
        others.filter_map(|entry| fs::read_to_string(entry.path().join("pids.max")).ok()?.trim().parse::<u64>().ok());
    limits.sum()
}

/// How many tasks one more provider may have, where it wants `processes` (0: all it can get), the service may have `most`, and
/// other providers may have `taken` of these.
fn share(most: Option<u64>, taken: u64, processes: u64) -> Result<Option<u64>> {
    let Some(most) = most else { return Ok((processes > 0).then_some(processes)) };
    let room = most.saturating_sub(HOST_TASKS);
    if processes == 0 {
        return Ok(Some(room.max(1)));
    }
    if processes > room.saturating_sub(taken) {
        return Err(Error::unavailable(format!(
            "this service may have {most} processes and threads (TasksMax of its unit), of which the host keeps {HOST_TASKS} and \
             other providers {taken}: there is no room for the {processes} of this provider; raise TasksMax, or lower \
             WASMCLOUD_PROVIDER_PROCESSES or processes= in its rules"
        )));
    }
    Ok(Some(processes))
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
    fn providers_get_no_tasks_that_the_host_needs() {
        assert_eq!(share(None, 0, 64).unwrap(), Some(64));
        assert_eq!(share(None, 0, 0).unwrap(), None);
        assert_eq!(share(Some(512), 384, 64).unwrap(), Some(64));
        let refused = share(Some(512), 448, 64).unwrap_err();
        assert!(
            refused.text().contains("TasksMax") && refused.text().contains("WASMCLOUD_PROVIDER_PROCESSES"),
            "{refused}"
        );
        assert_eq!(share(Some(512), 0, 0).unwrap(), Some(512 - HOST_TASKS));
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
