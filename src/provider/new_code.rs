//! Forbidding a process to write code and execute it (W^X), by the kernel's own switch (`PR_SET_MDWE`, Linux 6.3).
//!
//! What is executable then stays as it was loaded: memory cannot be mapped writable and executable, nor become executable
//! later. It holds for whatever the process starts too. A provider with a just-in-time compiler needs `jit=on` in its rules.
//!
//! # Why this file has `unsafe`
//! `prctl` has no safe wrapper for this option elsewhere.
//!
//! # Proof
//! Both blocks pass `prctl` integers only: an option and its flags, no pointer. The first reads the flags of this process. The
//! second sets a flag that makes later calls of `mmap` and `mprotect` fail; no memory that exists is changed by it.

#![allow(unsafe_code)]

use std::io;

/// What the argument behind the flags is, where the kernel has no meaning for it yet.
const NOTHING: libc::c_ulong = 0;

/// Whether this kernel has the switch.
pub(super) fn is_there() -> bool {
    // SAFETY: see the header.
    unsafe { libc::prctl(libc::PR_GET_MDWE, NOTHING, NOTHING, NOTHING, NOTHING) >= 0 }
}

/// Turns it, for this process and what it starts, for ever.
///
/// # Errors
/// The kernel refuses.
pub(super) fn forbid() -> io::Result<()> {
    let flags = libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN);
    // SAFETY: see the header.
    match unsafe { libc::prctl(libc::PR_SET_MDWE, flags, NOTHING, NOTHING, NOTHING) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
