//! The kernel's calls for project quotas: a file's project, and a project's limits.
//!
//! Limits are set by `quotactl_fd` (Linux 5.14), which names a file system by anything that is open on it; the older
//! call wants the block device. Both ext4 and XFS take the general form of limits (`Q_SETQUOTA`), and tell what is in
//! force in XFS' form (`Q_XGETQSTAT`).
//!
//! # Why this file has `unsafe`
//! Neither these requests of `ioctl` nor `quotactl_fd` have a safe wrapper elsewhere.
//!
//! # Proof
//! Every block passes the kernel a descriptor that is borrowed, so open, and one pointer, to a value that outlives the
//! call. The types are those of the kernel's headers, `repr(C)`, of integers without gaps between them, for which
//! every pattern of bits is a value; tests below hold their sizes against the kernel's. The number of a request holds
//! the size of its type, and is made from it. `FSGETXATTR` and `Q_XGETQSTAT` write to that value at most its size,
//! through a pointer that may be written to, and keep nothing of it; `FSSETXATTR` and `Q_SETQUOTA` only read it. The
//! two that change something change what is on a disk, and nothing in this process.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::ioctl::{Getter, Setter, ioctl, opcode};

/// `FS_XFLAG_PROJINHERIT`: what is made in the directory gets its project, and this flag where it is a directory.
pub(super) const INHERITED: u32 = 0x200;

/// `FS_IOC_FSGETXATTR`.
const GET_ATTRIBUTES: rustix::ioctl::Opcode = opcode::read::<Attributes>(b'X', 31);

/// `FS_IOC_FSSETXATTR`.
const SET_ATTRIBUTES: rustix::ioctl::Opcode = opcode::write::<Attributes>(b'X', 32);

/// `QCMD(Q_XGETQSTAT, PRJQUOTA)` and `QCMD(Q_SETQUOTA, PRJQUOTA)`.
const GET_STATE: u32 = 0x5805 << 8 | 2;
const SET_LIMITS: u32 = 0x0080_0008 << 8 | 2;

/// `FS_QUOTA_PDQ_ENFD`: limits of projects are in force, not only counted.
const IN_FORCE: u16 = 1 << 5;

/// `QIF_BLIMITS | QIF_ILIMITS`: these fields are meant.
const BOTH_LIMITS: u32 = 1 | 4;

/// The kernel takes limits in blocks of this many bytes.
const BLOCK_BYTES: u64 = 1024;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    /// [`INHERITED`], and flags that are none of our business.
    pub flags: u32,
    extent_bytes: u32,
    extents: u32,
    /// The project; 0 for none.
    pub project: u32,
    copied_extent_bytes: u32,
    nothing: [u8; 8],
}

/// `struct fs_quota_stat`, of which one field is read; what lies around it goes by other names.
#[repr(C)]
#[derive(Default)]
struct State {
    version: [u8; 2],
    flags: u16,
    nothing: u32,
    rest: [u64; 9],
}

/// `struct if_dqblk`.
#[repr(C)]
#[derive(Default)]
struct Block {
    hard_blocks: u64,
    soft_blocks: u64,
    bytes: u64,
    hard_files: u64,
    soft_files: u64,
    files: u64,
    times: [u64; 2],
    valid: u32,
    nothing: u32,
}

/// The attributes of what is open as `file`.
///
/// # Errors
/// Its file system has none.
pub(super) fn attributes(file: impl AsFd) -> io::Result<Attributes> {
    // SAFETY: see the header.
    Ok(unsafe { ioctl(file, Getter::<GET_ATTRIBUTES, Attributes>::new()) }?)
}

/// Changes them.
///
/// # Errors
/// The kernel refuses.
pub(super) fn set_attributes(file: impl AsFd, attributes: Attributes) -> io::Result<()> {
    // SAFETY: see the header.
    Ok(unsafe { ioctl(file, Setter::<SET_ATTRIBUTES, Attributes>::new(attributes)) }?)
}

/// Whether limits of projects are in force on the file system of `file`.
///
/// # Errors
/// It has no quotas, or the kernel is too old to be asked.
pub(super) fn in_force(file: impl AsFd) -> io::Result<bool> {
    let mut state = State::default();
    let file = file.as_fd().as_raw_fd();
    // SAFETY: see the header.
    match unsafe { libc::syscall(libc::SYS_quotactl_fd, file, GET_STATE, 0, &raw mut state) } {
        0 => Ok(state.flags & IN_FORCE != 0),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Limits `project` on the file system of `file`; 0 is no limit.
///
/// # Errors
/// The kernel refuses.
pub(super) fn set_limits(file: impl AsFd, project: u32, bytes: u64, files: u64) -> io::Result<()> {
    let block =
        Block { hard_blocks: bytes.div_ceil(BLOCK_BYTES), hard_files: files, valid: BOTH_LIMITS, ..Block::default() };
    let file = file.as_fd().as_raw_fd();
    // SAFETY: see the header.
    match unsafe { libc::syscall(libc::SYS_quotactl_fd, file, SET_LIMITS, project, &raw const block) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    use super::*;

    #[test]
    fn what_is_passed_is_as_large_as_the_kernel_thinks() {
        assert_eq!((size_of::<Attributes>(), offset_of!(Attributes, project)), (28, 12));
        assert_eq!((size_of::<State>(), offset_of!(State, flags)), (80, 2));
        assert_eq!((size_of::<Block>(), offset_of!(Block, valid)), (72, 64));
        assert_eq!((GET_ATTRIBUTES, SET_ATTRIBUTES), (0x801C_581F, 0x401C_5820));
    }

    #[test]
    fn a_file_system_without_quotas_says_so() {
        let nowhere = std::fs::File::open("/proc").unwrap();
        assert!(in_force(&nowhere).is_err());
        assert!(set_limits(&nowhere, 1 << 30, 1, 1).is_err());
    }
}
