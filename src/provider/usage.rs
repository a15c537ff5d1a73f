//! What a provider and everything below it use together: memory, tasks, disk. Counted by the supervisor, where no control group
//! does, and of disks everywhere. Everything here blocks shortly.
//!
//! The kernel's limits for single processes (`RLIMIT_DATA`) know neither shared memory nor files that live in memory, nor how
//! many processes there are. So the supervisor looks at regular times and ends what is over its limit. Between two looks a
//! provider may go over it; the kernel, short of memory meanwhile, ends providers first (`confine.rs`).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The kernel counts what a file takes in blocks of this many bytes.
const BLOCK_BYTES: u64 = 512;

/// Bytes of a KiB, which `/proc` counts in.
const KIB: u64 = 1024;

/// What some processes use together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory that no file on a disk stands behind, bytes: private, shared, swapped out, and files in memory.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub tasks: u64,
    /// What files take that have no name any more and are held open, bytes.
    pub unnamed_bytes: u64,
}

/// What `processes` use, whose directory is on the file system `device`. `enough` bytes of memory are not counted exactly.
pub fn of(processes: &[i32], device: u64, enough: u64) -> Usage {
    let mut usage = Usage::default();
    let (mut private, mut shared) = (0, 0);
    let mut unnamed = BTreeMap::new();
    for process in processes {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| number_after(&status, name).unwrap_or(0);
        usage.tasks += field("\nThreads:");
        private += (field("\nRssAnon:") + field("\nVmSwap:")) * KIB;
        shared += field("\nRssShmem:") * KIB;
        for entry in fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten() {
            // Follows the link to what is open; a memory file and one that was removed have no name left.
            let Ok(file) = fs::metadata(entry.path()) else { continue };
            if file.nlink() == 0 && file.is_file() {
                unnamed.insert((file.dev(), file.ino()), file.blocks() * BLOCK_BYTES);
            }
        }
    }
    if private + shared > enough {
        // Pages that several of them share were counted once for each.
        (private, shared) = (0, 0);
        for process in processes {
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            let field = |name: &str| number_after(&rollup, name).unwrap_or(0) * KIB;
            private += field("\nPss_Anon:") + field("\nSwapPss:");
            shared += field("\nPss_Shmem:");
        }
    }
    let (on_disk, in_memory): (Vec<_>, Vec<_>) = unnamed.into_iter().partition(|((on, _), _)| *on == device);
    let sum = |files: Vec<(_, u64)>| files.into_iter().map(|(_, bytes)| bytes).sum::<u64>();
    usage.unnamed_bytes = sum(on_disk);
    // Files in memory are shared memory as far as they are mapped.
    usage.memory_bytes = private + shared.max(sum(in_memory));
    usage
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = &text[text.find(name)? + name.len()..];
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// What a directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// What its files take, bytes.
    pub bytes: u64,
    /// Files and directories in it.
    pub files: u64,
}

/// What `directory` holds; no more is counted once there are more than `most_files` (0: all are).
///
/// # Errors
/// Not all of it can be counted: whoever hides files there is over any limit.
pub fn held(directory: &Path, most_files: u64) -> io::Result<Held> {
    let mut held = Held::default();
    let mut seen = BTreeSet::new();
    let mut ahead = VecDeque::from([directory.to_owned()]);
    while let Some(at) = ahead.pop_front() {
        let entries = match fs::read_dir(&at) {
            // It went while we were looking.
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && at != directory => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(found) = entry.metadata() else { continue };
            held.files += 1;
            if found.nlink() < 2 || found.is_dir() || seen.insert(found.ino()) {
                held.bytes += found.blocks() * BLOCK_BYTES;
            }
            if most_files > 0 && held.files > most_files {
                return Ok(held);
            }
            if found.is_dir() {
                ahead.push_back(entry.path());
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    #[test]
    fn a_file_in_memory_counts_though_nobody_maps_it() {
        let own = [i32::try_from(std::process::id()).unwrap()];
        let before = of(&own, 0, 0);
        assert!(before.tasks > 0 && before.memory_bytes > 0, "{before:?}");
        let mut file = fs::File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(&vec![1; 32 << 20]).unwrap();
        let after = of(&own, 0, 0);
        // Other tests run in this process, which also give memory back.
        assert!(after.memory_bytes > 32 << 20, "{before:?} {after:?}");
    }

    #[test]
    fn a_directory_is_counted_with_all_below_it_links_once_and_only_up_to_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::write(below.join("file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(below.join("file"), folder.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", folder.path().join("elsewhere")).unwrap();
        let found = held(folder.path(), 0).unwrap();
        assert_eq!(found.files, 5);
        assert!(found.bytes >= 1 << 20 && found.bytes < 2 << 20, "{found:?}");
        assert_eq!(held(folder.path(), 2).unwrap().files, 3);
    }
}
