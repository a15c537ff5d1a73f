//! A test tool: a state directory in memory with a power switch, a size and a write protection.
//!
//! It keeps apart what was written and what was synced. Each operation that changes something is a *step*; power can be
//! cut during any of them. What was not synced by then is, by the seed given to [`FaultDisk::restart`], kept, lost, torn
//! at any byte or applied out of order, each write and each directory entry for itself: harsher than the file systems
//! of Linux are. One mercy is assumed, as by other databases: a write does not damage bytes it does not touch.
//!
//! Public so that integration tests reach it; the daemon never makes one.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Weak},
};

use super::disk::{Disk, DiskFile, Lock};

use crate::lock::Mutex;

type Name = String;

/// The model. Clones share it.
#[derive(Clone)]
pub struct FaultDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    files: Vec<Inode>,
    /// Names as programs see them.
    entries: BTreeMap<Name, usize>,
    /// Names as they are durable.
    durable_entries: BTreeMap<Name, usize>,
    /// Changes of names that are not durable yet, by folder.
    pending_entries: Vec<(String, EntryChange)>,
    steps: u64,
    cut_at: Option<u64>,
    fail_at: Option<(u64, io::ErrorKind)>,
    off: bool,
    read_only: bool,
    capacity: Option<u64>,
    locked: Weak<()>,
    written_bytes: u64,
    syncs: u64,
}

#[derive(Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<ContentChange>,
}

#[derive(Clone)]
enum ContentChange {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone)]
enum EntryChange {
    Add(Name, usize),
    Remove(Name),
    Rename(Name, Name, usize),
}

impl Default for FaultDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl FaultDisk {
    /// An empty directory on a disk without limits.
    pub fn new() -> Self {
        Self { inner: Arc::default() }
    }

    /// Cuts power during step `step`, counted from the disk's beginning (see [`steps`](Self::steps)).
    pub fn cut_at(&self, step: u64) {
        self.with(|inner| inner.cut_at = Some(step));
    }

    /// Makes step `step` fail with `kind` once; nothing of it happens.
    pub fn fail_at(&self, step: u64, kind: io::ErrorKind) {
        self.with(|inner| inner.fail_at = Some((step, kind)));
    }

    /// Limits the room for all files together, bytes; `None` lifts the limit. A write beyond it is cut short.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.with(|inner| inner.capacity = bytes);
    }

    /// Bytes that all files take now.
    pub fn used_bytes(&self) -> u64 {
        self.with(|inner| inner.used())
    }

    /// Makes every change fail with `ReadOnlyFilesystem`, or not.
    pub fn set_read_only(&self, read_only: bool) {
        self.with(|inner| inner.read_only = read_only);
    }

    /// Steps so far: operations that change something, syncs included.
    pub fn steps(&self) -> u64 {
        self.with(|inner| inner.steps)
    }

    /// Bytes given to writes so far, and syncs of files so far.
    pub fn traffic(&self) -> (u64, u64) {
        self.with(|inner| (inner.written_bytes, inner.syncs))
    }

    /// Whether power was cut.
    pub fn is_off(&self) -> bool {
        self.with(|inner| inner.off)
    }

    /// Flips the bits of `mask` in the byte at `offset` of `name`, as failing media do. No step.
    pub fn corrupt(&self, name: &str, offset: usize, mask: u8) {
        self.with(|inner| {
            let file = inner.entries[name];
            let inode = &mut inner.files[file];
            inode.content[offset] ^= mask;
            if let Some(byte) = inode.durable.get_mut(offset) {
                *byte ^= mask;
            }
        });
    }

    /// Replaces the content of `name`, or makes it. No step.
    pub fn plant(&self, name: &str, content: &[u8]) {
        self.with(|inner| {
            let inode = Inode { content: content.to_vec(), durable: content.to_vec(), pending: Vec::new() };
            inner.files.push(inode);
            let number = inner.files.len() - 1;
            inner.entries.insert(name.into(), number);
            inner.durable_entries.insert(name.into(), number);
        });
    }

    /// The content of `name` as programs see it.
    pub fn content(&self, name: &str) -> Vec<u8> {
        self.with(|inner| inner.files[inner.entries[name]].content.clone())
    }

    /// All names, as programs see them.
    pub fn names(&self) -> Vec<String> {
        self.with(|inner| inner.entries.keys().cloned().collect())
    }

    /// The disk after power came back: what was durable, and by `seed` some of what was not.
    pub fn restart(&self, seed: u64) -> Self {
        self.with(|inner| {
            let mut random = Random(seed);
            let mut entries = inner.durable_entries.clone();
            for (_, change) in &inner.pending_entries {
                if random.below(2) == 0 {
                    change.apply(&mut entries);
                }
            }
            let mut after = Inner::default();
            for (name, number) in entries {
                let content = inner.files[number].after_power_cut(&mut random);
                after.files.push(Inode { durable: content.clone(), content, pending: Vec::new() });
                after.entries.insert(name, after.files.len() - 1);
            }
            after.durable_entries = after.entries.clone();
            Self { inner: Arc::new(Mutex::new(after)) }
        })
    }

    /// The disk as the next process finds it when only this one was killed: everything written is there.
    pub fn after_kill(&self) -> Self {
        self.with(|inner| {
            let mut after = Inner::default();
            for (name, number) in &inner.entries {
                let content = inner.files[*number].content.clone();
                after.files.push(Inode { durable: content.clone(), content, pending: Vec::new() });
                after.entries.insert(name.clone(), after.files.len() - 1);
            }
            after.durable_entries = after.entries.clone();
            Self { inner: Arc::new(Mutex::new(after)) }
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock())
    }
}

impl Inner {
    fn used(&self) -> u64 {
        let mut numbers: Vec<usize> = self.entries.values().copied().collect();
        numbers.dedup();
        numbers.into_iter().map(|number| self.files[number].content.len() as u64).sum()
    }

    fn powered(&self) -> io::Result<()> {
        if self.off { Err(io::Error::other("power is off")) } else { Ok(()) }
    }

    /// Counts a step. `Ok(true)` when power is cut during it.
    fn step(&mut self) -> io::Result<bool> {
        self.powered()?;
        if self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let step = self.steps;
        self.steps += 1;
        if let Some((at, kind)) = self.fail_at
            && at == step
        {
            return Err(kind.into());
        }
        self.off = self.cut_at == Some(step);
        Ok(self.off)
    }

    /// Makes a change of names; when power is cut during it, it is among those that may be lost.
    fn change_entry(&mut self, folder: &str, change: EntryChange) -> io::Result<()> {
        let cut = self.step()?;
        change.apply(&mut self.entries);
        self.pending_entries.push((folder.into(), change));
        if cut { self.powered() } else { Ok(()) }
    }
}

impl EntryChange {
    fn apply(&self, entries: &mut BTreeMap<Name, usize>) {
        match self {
            Self::Add(name, number) => {
                entries.insert(name.clone(), *number);
            }
            Self::Remove(name) => {
                entries.remove(name);
            }
            Self::Rename(from, to, number) => {
                entries.remove(from);
                entries.insert(to.clone(), *number);
            }
        }
    }
}

impl ContentChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let offset = *offset as usize;
                if content.len() < offset + bytes.len() {
                    content.resize(offset + bytes.len(), 0);
                }
                content[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::Length(length) => content.resize(*length as usize, 0),
        }
    }
}

impl Inode {
    fn change(&mut self, change: ContentChange) {
        change.apply(&mut self.content);
        self.pending.push(change);
    }

    fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.pending {
            match (random.below(4), change) {
                (0, _) => {}
                (1, _) | (_, ContentChange::Length(_)) => change.apply(&mut content),
                // Torn: only a beginning.
                (2, ContentChange::Write(offset, bytes)) => {
                    let kept = random.below(bytes.len() as u64 + 1) as usize;
                    ContentChange::Write(*offset, bytes[..kept].to_vec()).apply(&mut content);
                }
                // Out of order: some sectors and not others, zeros between them where the file grew.
                (_, ContentChange::Write(offset, bytes)) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = 512 - (*offset as usize + at) % 512;
                        let end = bytes.len().min(at + sector_end);
                        if random.below(2) == 0 {
                            ContentChange::Write(offset + at as u64, bytes[at..end].to_vec()).apply(&mut content);
                        }
                        at = end;
                    }
                }
            }
        }
        content
    }
}

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Disk for FaultDisk {
    fn place(&self) -> String {
        "memory".into()
    }

    fn lock(&self) -> io::Result<Lock> {
        self.with(|inner| {
            inner.powered()?;
            if inner.locked.strong_count() > 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let lock = Arc::new(());
            inner.locked = Arc::downgrade(&lock);
            Ok(Box::new(lock) as Lock)
        })
    }

    fn writable(&self) -> io::Result<()> {
        self.with(|inner| if inner.read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) })
    }

    fn make_dir(&self, _dir: &str) -> io::Result<()> {
        self.writable()
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.with(|inner| {
            inner.powered()?;
            let own = inner.entries.keys().filter(|name| folder_of(name) == dir);
            Ok(own.map(|name| name.rsplit('/').next().unwrap_or(name).to_string()).collect())
        })
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with(|inner| {
            inner.powered()?;
            if inner.entries.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            inner.files.push(Inode::default());
            let number = inner.files.len() - 1;
            inner.change_entry(folder_of(name), EntryChange::Add(name.into(), number))?;
            Ok(Arc::new(FaultFile { disk: self.clone(), number }) as Arc<dyn DiskFile>)
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.with(|inner| {
            inner.powered()?;
            let number = *inner.entries.get(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(Arc::new(FaultFile { disk: self.clone(), number }) as Arc<dyn DiskFile>)
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.with(|inner| {
            let number = *inner.entries.get(from).ok_or(io::ErrorKind::NotFound)?;
            inner.change_entry(folder_of(to), EntryChange::Rename(from.into(), to.into(), number))
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|inner| {
            if !inner.entries.contains_key(name) {
                return Err(io::ErrorKind::NotFound.into());
            }
            inner.change_entry(folder_of(name), EntryChange::Remove(name.into()))
        })
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.with(|inner| {
            if inner.step()? {
                return inner.powered();
            }
            let (synced, pending) =
                std::mem::take(&mut inner.pending_entries).into_iter().partition(|(folder, _)| folder == dir);
            inner.pending_entries = pending;
            let synced: Vec<(String, EntryChange)> = synced;
            for (_, change) in synced {
                change.apply(&mut inner.durable_entries);
            }
            Ok(())
        })
    }
}

struct FaultFile {
    disk: FaultDisk,
    number: usize,
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.with(|inner| {
            inner.powered()?;
            Ok(inner.files[self.number].content.len() as u64)
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.with(|inner| {
            inner.powered()?;
            let content = &inner.files[self.number].content;
            let from = content.len().min(offset as usize);
            let count = buffer.len().min(content.len() - from);
            buffer[..count].copy_from_slice(&content[from..from + count]);
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.with(|inner| {
            let cut = inner.step()?;
            inner.written_bytes += bytes.len() as u64;
            let length = inner.files[self.number].content.len() as u64;
            let grows = (offset + bytes.len() as u64).saturating_sub(length);
            let room = inner.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(inner.used()));
            let fits = bytes.len() - grows.saturating_sub(room) as usize;
            inner.files[self.number].change(ContentChange::Write(offset, bytes[..fits].to_vec()));
            if cut {
                return inner.powered();
            }
            if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.with(|inner| {
            let cut = inner.step()?;
            inner.files[self.number].change(ContentChange::Length(len));
            if cut { inner.powered() } else { Ok(()) }
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.with(|inner| {
            if inner.step()? {
                return inner.powered();
            }
            inner.syncs += 1;
            let inode = &mut inner.files[self.number];
            inode.durable = inode.content.clone();
            inode.pending.clear();
            Ok(())
        })
    }
}
