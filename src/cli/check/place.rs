//! Whether this machine lets this user listen somewhere: the socket is bound and closed at once, and never listens.

use std::{io, net::SocketAddr};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt::set_socket_reuseaddr},
};

use crate::error::{Error, Result};

/// A warning where somebody listens at `address` now: that may be the host that is to be told.
///
/// # Errors
/// `Config`: this user may never listen there, or no interface of this machine has the address.
pub(super) fn try_out(address: SocketAddr) -> Result<Option<String>> {
    let refused = |cause: Errno, remedy: &str| {
        Err(Error::config(format!("cannot listen on {address}: {}; {remedy}", io::Error::from(cause))))
    };
    match attempt(address) {
        Ok(()) => Ok(None),
        Err(Errno::ADDRINUSE) => Ok(Some(format!(
            "a program listens on {address} now: end it before this host starts, unless it is this host itself"
        ))),
        Err(cause @ Errno::ADDRNOTAVAIL) => {
            refused(cause, "no interface of this machine has that address: use one it has, or 0.0.0.0 for all")
        }
        Err(cause @ (Errno::ACCESS | Errno::PERM)) => {
            refused(cause, "ports below 1024 need a privilege: choose a higher one")
        }
        Err(cause) => refused(cause, "check the address"),
    }
}

fn attempt(address: SocketAddr) -> Result<(), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_taken_or_impossible() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        assert!(try_out(address).is_ok_and(|warning| warning.is_some_and(|text| text.contains("listens"))));
        drop(taken);
        assert_eq!(try_out(address), Ok(None));
        let error = try_out("192.0.2.1:9".parse().expect("an address")).expect_err("an address of a documentation");
        assert!(error.text().contains("no interface"), "{error}");
    }
}
