//! Which process comes from which, as `/proc` tells it. Everything here blocks shortly.
//!
//! A process may keep others of its user out of `/proc/PID` (`PR_SET_DUMPABLE`), and where `/proc` is mounted with
//! `hidepid` (`ProtectProc=invisible` of the packaged unit) it is then not even listed: nothing here takes *not there*
//! for *gone*.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rustix::{
    io::Errno,
    process::{Pid, getpid, test_kill_process},
};

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Its parent (0: outside of this PID namespace) and its session (0 likewise).
    Seen { parent: i32, session: i32 },
    /// It lives, and its user is ours or one we may signal, but `/proc` does not show it.
    Hidden,
    /// It is another user's, and `/proc` does not show it.
    Foreign,
    /// There is no such process.
    Gone,
}

/// Looks at the process `id`.
pub fn look(id: i32) -> Sight {
    if let Some((parent, session)) = fs::read_to_string(format!("/proc/{id}/stat")).ok().as_deref().and_then(read) {
        return Sight::Seen { parent, session };
    }
    match Pid::from_raw(id).map(test_kill_process) {
        Some(Ok(())) => Sight::Hidden,
        Some(Err(Errno::PERM)) => Sight::Foreign,
        Some(Err(Errno::SRCH)) | None => Sight::Gone,
        // Something forbids even to ask: that is no proof of anything.
        Some(Err(_)) => Sight::Hidden,
    }
}

/// Parent and session out of a `stat`.
fn read(stat: &str) -> Option<(i32, i32)> {
    // After the name, which is in brackets and may hold anything: state, parent, process group, session.
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(1);
    let parent = words.next()?.parse().ok()?;
    let session = words.nth(1)?.parse().ok()?;
    Some((parent, session))
}

/// The processes whose parent is this one.
pub fn children() -> Vec<Pid> {
    let own = getpid().as_raw_pid();
    let mut found = BTreeSet::new();
    // Each thread has its own, and the kernel lists hidden ones too; but not all kernels are built with it, and while
    // processes come and go it may miss some.
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let listed = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        found.extend(listed.split_ascii_whitespace().filter_map(|id| id.parse::<i32>().ok()));
    }
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if matches!(look(id), Sight::Seen { parent, .. } if parent == own) {
            found.insert(id);
        }
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// Every process below this one, however deep; not this one itself. While processes come and go it may miss some.
pub fn below() -> Vec<i32> {
    let own = getpid().as_raw_pid();
    with_all_below(&[own]).into_iter().filter(|id| *id != own).collect()
}

/// `roots`, and every process below them, likewise.
pub fn with_all_below(roots: &[i32]) -> Vec<i32> {
    let (mut found, mut ahead): (BTreeSet<i32>, Vec<i32>) = (roots.iter().copied().collect(), roots.to_vec());
    let mut listed = false;
    while let Some(at) = ahead.pop() {
        for thread in fs::read_dir(format!("/proc/{at}/task")).into_iter().flatten().flatten() {
            let Ok(children) = fs::read_to_string(thread.path().join("children")) else { continue };
            listed = true;
            let children = children.split_ascii_whitespace().filter_map(|id| id.parse::<i32>().ok());
            ahead.extend(children.filter(|child| found.insert(*child)));
        }
    }
    // Not all kernels are built with those lists.
    if listed { found.into_iter().collect() } else { by_parents(roots) }
}

fn by_parents(roots: &[i32]) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Sight::Seen { parent, .. } = look(id) {
            children.entry(parent).or_default().push(id);
        }
    }
    let (mut found, mut ahead) = (roots.to_vec(), roots.to_vec());
    while let Some(at) = ahead.pop() {
        let below = children.remove(&at).unwrap_or_default();
        found.extend(&below);
        ahead.extend(below);
    }
    found
}

/// The session of this process; 0 where it began outside of this PID namespace.
pub fn own_session() -> i32 {
    // By way of a thread, which is in the same one: emulators of other processors make up what a process reads of
    // itself.
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    read(&stat).map_or(0, |(_, session)| session)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn parent_and_session_are_read_whatever_the_name_is() {
        assert_eq!(read("12 (a) R 1 2) S 7 8 9 0 -1 4194304"), Some((7, 9)));
        assert_eq!(read("12 (sh) S 7"), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn what_is_below_is_found_by_either_way() {
        let mut shell = Command::new("sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        let id = i32::try_from(shell.id()).unwrap();
        let own = getpid().as_raw_pid();
        let grandchild = || {
            let listed = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
            listed.split_ascii_whitespace().next().and_then(|id| id.parse::<i32>().ok())
        };
        let sleeper = loop {
            match grandchild() {
                Some(found) => break found,
                None => std::thread::sleep(std::time::Duration::from_millis(5)),
            }
        };
        assert!(!below().contains(&own));
        for found in [below(), by_parents(&[own])] {
            assert!(found.contains(&id) && found.contains(&sleeper), "{found:?}");
        }
        let _ = rustix::process::kill_process(Pid::from_raw(sleeper).unwrap(), rustix::process::Signal::KILL);
        shell.wait().unwrap();
    }

    #[test]
    fn a_child_is_found_and_one_that_was_collected_is_gone() {
        let own = getpid().as_raw_pid();
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = Pid::from_child(&child);
        assert!(children().contains(&id));
        assert_eq!(look(id.as_raw_pid()), Sight::Seen { parent: own, session: own_session() });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(look(id.as_raw_pid()), Sight::Gone);
    }
}
