//! Who is at the other end of a Unix socket, as the kernel noted it when the connection was made.
//!
//! Used by the server to refuse strangers and by the client to know which process it stops.
//!
//! # Why this file has `unsafe`
//! `rustix::net::sockopt::socket_peercred` declares the process id non-zero, but the kernel reports 0 for a peer in a
//! PID namespace that this process cannot see (a container), which makes that call undefined behaviour exactly there.
//! So the C structure, where every bit pattern is valid, is filled here.
//!
//! # Proof
//! The one `unsafe` block passes `getsockopt` a descriptor that is open (it is borrowed), a pointer to a `ucred` that
//! this function owns and that is aligned and writable for `size_of::<ucred>()` bytes, and a pointer to that very
//! length, so the kernel writes at most the structure. The structure was initialised before and holds three integers,
//! so it is valid whatever the kernel wrote.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

/// Credentials of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process, or `None` when this process cannot see it.
    pub process_id: Option<i32>,
    /// Its effective user.
    pub user_id: u32,
}

/// Asks the kernel for the credentials of the peer of `socket`, a connected Unix stream.
///
/// # Errors
/// `socket` is no Unix stream.
pub fn of(socket: impl AsFd) -> io::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: see the header.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut credentials).cast(),
            &mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<libc::ucred>() {
        return Err(io::Error::other("the kernel gave incomplete credentials"));
    }
    let process_id = (credentials.pid > 0).then_some(credentials.pid);
    Ok(Peer { process_id, user_id: credentials.uid })
}

/// Whether a process of `peer` may manage a process of `own`: the same user, or root.
pub fn may_manage(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_pair_in_one_process_sees_itself() {
        let (one, _other) = UnixStream::pair().expect("socket pair");
        let peer = of(&one).expect("credentials");
        assert_eq!(peer.user_id, rustix::process::geteuid().as_raw());
        assert_eq!(peer.process_id, i32::try_from(std::process::id()).ok());
    }

    #[test]
    fn another_kind_of_socket_belongs_to_nobody_who_may_manage() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let peer = of(&listener).expect("Linux answers for any socket");
        assert_eq!(peer.process_id, None);
        assert!(!may_manage(peer.user_id, 0));
    }

    #[test]
    fn only_the_same_user_and_root_may_manage() {
        assert!(may_manage(1000, 1000) && may_manage(0, 1000) && may_manage(0, 0));
        assert!(!may_manage(1001, 1000) && !may_manage(1000, 0));
    }
}
