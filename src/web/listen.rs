//! Opening a listening socket of this host's own: at once, or as soon as that can be.
//!
//! Used by the mirror and the probes. A board starts before its network, and beside programs that have not let go of a port
//! yet; neither may keep its host from running, so it is tried again until it works. What another try does not mend is an
//! error at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use smol::{Async, Timer};

use crate::{
    error::{Error, Result},
    log,
};

/// How often an address is tried that cannot be had yet. Five seconds: soon after the network is there, and unnoticeable on
/// an idle board.
const BIND_INTERVAL: Duration = Duration::from_secs(5);

/// A socket that is open or will be.
#[derive(Debug)]
pub(super) struct Listening {
    setting: &'static str,
    address: SocketAddr,
    socket: Option<Async<TcpListener>>,
}

impl Listening {
    /// Opens the socket at `address`, which `setting` names.
    ///
    /// # Errors
    /// `Config` when it can never be had.
    pub(super) fn at(setting: &'static str, address: SocketAddr) -> Result<Self> {
        let socket = match Async::<TcpListener>::bind(address) {
            Ok(socket) => Some(socket),
            Err(cause) => {
                let why = why(&cause);
                let text = format!("{setting}: cannot listen on {address}: {cause}; {}", why.remedy);
                if !why.passes {
                    return Err(Error::config(text));
                }
                log::warn!("{text}; trying again until it can be had");
                None
            }
        };
        Ok(Self { setting, address, socket })
    }

    /// Waits until it is open.
    pub(super) async fn open(self) -> Async<TcpListener> {
        if let Some(socket) = self.socket {
            return socket;
        }
        loop {
            Timer::after(BIND_INTERVAL).await;
            match Async::<TcpListener>::bind(self.address) {
                Ok(socket) => return socket,
                Err(cause) => log::debug!("{}: still cannot listen on {}: {cause}", self.setting, self.address),
            }
        }
    }
}

struct Why {
    /// Whether it may be otherwise later, with nobody changing a setting.
    passes: bool,
    remedy: &'static str,
}

fn why(cause: &io::Error) -> Why {
    let (passes, remedy) = match cause.kind() {
        io::ErrorKind::AddrInUse => (true, "another program listens there: end it, or choose another port"),
        io::ErrorKind::AddrNotAvailable => {
            (true, "no interface of this machine has that address now: use one it has, or 0.0.0.0 for all")
        }
        io::ErrorKind::PermissionDenied => (false, "ports below 1024 need a privilege: choose a higher one"),
        _ => (false, "check the address"),
    };
    Why { passes, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task;

    #[test]
    fn a_port_that_is_taken_is_had_once_it_is_free() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("a bound socket");
        let listening = Listening::at("WASMCLOUD_TEST", address).expect("no error: it may pass");
        assert!(listening.socket.is_none());
        drop(taken);
        let socket = task::block_on(listening.open());
        assert_eq!(socket.get_ref().local_addr().ok(), Some(address));
    }

    #[test]
    fn what_another_try_does_not_mend_is_an_error() {
        // An IPv6 address of a link needs to say which.
        let error = Listening::at("WASMCLOUD_TEST", "[fe80::1]:9".parse().expect("an address")).expect_err("no scope");
        assert!(error.text().starts_with("WASMCLOUD_TEST: cannot listen on [fe80::1]:9"), "{error}");
    }
}
