//! Closing what a new program must not inherit.
//!
//! Everything this program opens is closed by the kernel when another program takes its place; what the one that started it
//! (a service manager, a shell) left open for it is not. A provider gets its three standard streams and nothing else.
//!
//! # Why this file has `unsafe`
//! A descriptor that nobody in this process opened has a number and no owner, and the safe wrappers want an owner.
//!
//! # Proof
//! The one `unsafe` block passes `fcntl` an integer, the command `F_SETFD` and the integer `FD_CLOEXEC`: no pointer, and a
//! wrong number is answered with `EBADF`. The flag closes nothing now, so that no owner in this process loses a descriptor;
//! it acts only when `execve` succeeds, where this process' image and every owner in it are gone.

#![allow(unsafe_code)]

use std::{fs, io};

/// Has every descriptor but the three standard streams closed when another program takes the place of this one.
///
/// # Errors
/// `/proc` is not there, or the kernel refused.
pub(super) fn close_on_exec() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if number > libc::STDERR_FILENO {
            // SAFETY: see the header.
            let outcome = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
            let cause = io::Error::last_os_error();
            if outcome == -1 && cause.raw_os_error() != Some(libc::EBADF) {
                return Err(cause);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;

    #[test]
    fn what_somebody_left_open_is_closed_with_the_next_program() {
        let file = File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        close_on_exec().unwrap();
        assert_eq!(fcntl_getfd(&file).unwrap(), FdFlags::CLOEXEC);
        assert!(!fcntl_getfd(io::stderr()).unwrap().contains(FdFlags::CLOEXEC));
    }
}
