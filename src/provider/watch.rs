//! The supervisor's looks at what its provider uses.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::getuid;
use serde::{Deserialize, Serialize};

use super::{
    confine::Confinement,
    process_tree,
    usage::{self, Usage},
};

/// Wait between two looks at memory and tasks. What a provider can take meanwhile is bounded by the kernel's limits for
/// single processes; a look takes well under a millisecond.
const INTERVAL: Duration = Duration::from_secs(2);

/// The same for root's providers: the kernel does not limit how many processes those start.
const ROOTS_INTERVAL: Duration = Duration::from_millis(250);

/// Least wait between two looks at the disk.
const DISK_INTERVAL: Duration = Duration::from_secs(10);

/// After a look at the disk it waits at least this long for each file that it saw, so that a big directory does not keep a
/// board busy: to look at a file takes some 20 µs.
const REST_FOR_A_FILE: Duration = Duration::from_millis(2);

/// Longest wait between two looks at the disk, however big the directory is.
const DISK_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Room on a disk of one provider unless set otherwise, bytes. Its directory is for what it needs while it works; a quarter
/// of a gigabyte is a part of every card that boards have.
pub const DISK_BYTES: u64 = 256 << 20;

/// Files and directories of one provider unless set otherwise: small cards have a hundred thousand places for all.
pub const DISK_FILES: u64 = 10_000;

/// What is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of all its processes, bytes; 0 where there is no limit, or a control group keeps it.
    pub memory_bytes: u64,
    /// Its processes and threads; 0 likewise.
    pub processes: u64,
    /// What its directory may hold, bytes; 0 is no limit.
    pub disk_bytes: u64,
    /// How many files; 0 is no limit.
    pub disk_files: u64,
}

impl Limits {
    /// Those of `confinement` that its control group does not keep.
    pub fn of(confinement: &Confinement, group_keeps_memory: bool, group_keeps_tasks: bool) -> Self {
        Self {
            memory_bytes: if group_keeps_memory { 0 } else { confinement.memory_bytes },
            processes: if group_keeps_tasks { 0 } else { confinement.processes },
            disk_bytes: confinement.disk_bytes,
            disk_files: confinement.disk_files,
        }
    }
}

/// Looks at regular times.
pub struct Watch {
    limits: Limits,
    directory: PathBuf,
    device: u64,
    next: Instant,
    next_disk: Instant,
    /// Files that the last look at the disk saw.
    files_seen: u64,
}

impl Watch {
    /// Over a provider that works in `directory`.
    pub fn new(limits: Limits, directory: &Path) -> Self {
        let device = std::fs::metadata(directory).map_or(0, |found| found.dev());
        let now = Instant::now();
        Self { limits, directory: directory.to_owned(), device, next: now, next_disk: now, files_seen: 0 }
    }

    /// How long until the next look; nothing where nothing is looked at.
    pub fn wait(&self) -> Option<Duration> {
        let next = match (self.looks_at_processes(), self.looks_at_disk()) {
            (true, true) => self.next.min(self.next_disk),
            (true, false) => self.next,
            (false, true) => self.next_disk,
            (false, false) => return None,
        };
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn looks_at_processes(&self) -> bool {
        self.limits.memory_bytes > 0 || self.limits.processes > 0
    }

    fn looks_at_disk(&self) -> bool {
        self.limits.disk_bytes > 0 || self.limits.disk_files > 0
    }

    /// Looks, if it is time; why the provider has to end, if it has.
    pub fn look(&mut self) -> Option<String> {
        let now = Instant::now();
        if self.looks_at_processes() && now >= self.next {
            self.next = now + if getuid().is_root() { ROOTS_INTERVAL } else { INTERVAL };
            if let Some(reason) = self.over_in_processes() {
                return Some(ended(&reason));
            }
        }
        if self.looks_at_disk() && now >= self.next_disk {
            let reason = self.over_on_disk();
            let rest = REST_FOR_A_FILE.saturating_mul(u32::try_from(self.files_seen).unwrap_or(u32::MAX));
            self.next_disk = Instant::now() + rest.clamp(DISK_INTERVAL, DISK_INTERVAL_MAX);
            return reason.map(|reason| ended(&reason));
        }
        None
    }

    fn usage(&self) -> Usage {
        usage::of(&process_tree::below(), self.device, self.limits.memory_bytes)
    }

    fn over_in_processes(&self) -> Option<String> {
        let used = self.usage();
        let Limits { memory_bytes, processes, .. } = self.limits;
        if memory_bytes > 0 && used.memory_bytes > memory_bytes {
            return Some(format!(
                "it and what it started used {} MiB of memory and may use {} MiB (WASMCLOUD_PROVIDER_MEMORY_BYTES, \
                 or memory= in its rules)",
                used.memory_bytes >> 20,
                memory_bytes >> 20
            ));
        }
        if processes > 0 && used.tasks > processes {
            return Some(format!(
                "it had {} processes and threads and may have {processes} (WASMCLOUD_PROVIDER_PROCESSES, or \
                 processes= in its rules)",
                used.tasks
            ));
        }
        None
    }

    /// Why the provider may not run, for what its directory holds.
    pub fn over_on_disk(&mut self) -> Option<String> {
        let Limits { disk_bytes, disk_files, .. } = self.limits;
        let directory = self.directory.display().to_string();
        let held = match usage::held(&self.directory, disk_files) {
            Ok(held) => held,
            Err(cause) => return Some(format!("what it keeps in {directory} cannot be counted: {cause}")),
        };
        self.files_seen = held.files;
        let bytes = held.bytes + self.usage().unnamed_bytes;
        if disk_bytes > 0 && bytes > disk_bytes {
            return Some(format!(
                "it keeps {} MiB in {directory} and may keep {} MiB: remove some of it, or raise \
                 WASMCLOUD_PROVIDER_DISK_BYTES or disk= in its rules",
                bytes >> 20,
                disk_bytes >> 20
            ));
        }
        if disk_files > 0 && held.files > disk_files {
            return Some(format!(
                "it keeps more than {disk_files} files in {directory}: remove some of them, or raise \
                 WASMCLOUD_PROVIDER_DISK_FILES or inodes= in its rules"
            ));
        }
        None
    }
}

fn ended(reason: &str) -> String {
    format!("was ended: {reason}")
}
