//! Keeping a value out of swap space (`mlock`), where whoever holds the disk could read it later.
//!
//! # Why this file has `unsafe`
//! `mlock` has no safe wrapper among the libraries that are linked.
//!
//! # Proof
//! The kernel is given the address and the size of a value that is borrowed for the whole call, so the range is mapped. It
//! reads and changes no byte of it: it makes the pages of the range stay in memory. Pages that stay locked after the value is
//! gone change nothing but where the kernel keeps them.

#![allow(unsafe_code)]

use std::{io, ptr};

/// Keeps the pages that hold `value` in memory until this process ends.
///
/// # Errors
/// The kernel refuses: more than `RLIMIT_MEMLOCK` would be locked.
pub(super) fn keep<T>(value: &T) -> io::Result<()> {
    // SAFETY: see the header.
    match unsafe { libc::mlock(ptr::from_ref(value).cast(), size_of::<T>()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_kernel_counts_what_is_kept() {
        let locked = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let value = Box::new([7u8; 3 * 4096]);
        keep(&*value).unwrap();
        // QEMU's user mode keeps no such count of its guest.
        if cfg!(target_arch = "x86_64") {
            assert!(locked() >= 12, "{}", locked());
        }
        assert_eq!(*value, [7; 3 * 4096]);
    }
}
