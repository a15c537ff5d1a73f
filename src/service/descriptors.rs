//! Descriptors that the service manager handed over, as owned ones.
//!
//! Called once, first thing in a host's life; whoever calls it again gets none.
//!
//! # Safety
//! `OwnedFd::from_raw_fd` wants a descriptor that is open and that nobody else owns. The descriptors here are numbers 3 and
//! up, as many as `LISTEN_FDS` says, and only where `LISTEN_PID` is this very process: the protocol of the service manager
//! (sd_listen_fds(3)) says that they are open and meant for us, and `sd_notify` has just set `FD_CLOEXEC` on each, which
//! fails for one that is not open. Nobody else owns them: they were open before `main`, nothing in this program guesses
//! numbers, and `TAKEN` lets this happen once. A process whose parent lies in these variables could hand itself trouble;
//! it could do worse by other means.

#![allow(unsafe_code)]

use std::{
    os::fd::{FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::log;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Every descriptor with its name; none where there is no service manager, or when they were taken before.
pub fn take() -> Vec<(String, OwnedFd)> {
    if TAKEN.swap(true, SeqCst) {
        return Vec::new();
    }
    match sd_notify::listen_fds_with_names() {
        Ok(found) => found
            // SAFETY: see the file's header.
            .map(|(number, name)| (name, unsafe { OwnedFd::from_raw_fd(number) }))
            .collect(),
        Err(cause) => {
            log::warn!("the sockets that the service manager hands over cannot be taken: {cause}");
            Vec::new()
        }
    }
}
