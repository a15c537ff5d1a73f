//! Listening sockets that outlive this process: handed over by socket units, or kept for us across a restart.
//!
//! Names say what a socket is for: `http` (or any name that begins with it) serves the HTTP capability, matched to links
//! by its address; `probes` the probes. Sockets that we opened ourselves are given to the service manager under
//! `http-kept-ADDRESS` while their link lasts, so that connections made while a host restarts wait instead of being refused.

use std::{
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::notify;
use crate::{
    capability::http_server::Sockets,
    lock::{Mutex, MutexGuard},
    log,
    web::probes,
};

/// Beginning of the name of what we gave the service manager to keep. No socket unit should choose it: its socket would be
/// taken for one of ours, and closed when no link wants it.
const KEPT: &str = "http-kept-";

/// One listening TCP socket that was handed over for the HTTP capability.
#[derive(Debug)]
struct Open {
    name: String,
    address: SocketAddr,
    socket: TcpListener,
}

/// What was handed over and nobody has taken yet.
#[derive(Debug, Default)]
pub struct HandedOver {
    http: Mutex<Vec<Open>>,
    /// Names of sockets that belong to a socket unit: in use, and not ours to keep or forget.
    activated: Mutex<Vec<SocketAddr>>,
}

impl HandedOver {
    /// Sorts what the service manager handed over: sockets for the HTTP capability, and those for probes.
    pub fn sort(descriptors: Vec<(String, OwnedFd)>) -> (Self, Vec<probes::Socket>) {
        let (mut http, mut for_probes) = (Vec::new(), Vec::new());
        for (name, descriptor) in descriptors {
            match sorted(&name, descriptor) {
                Ok(Sorted::Http(address, socket)) => http.push(Open { name, address, socket }),
                Ok(Sorted::Probes(socket)) => for_probes.push(socket),
                Err(why) => log::warn!("the socket {name} that the service manager handed over is not used: {why}"),
            }
        }
        (Self { http: Mutex::new(http), activated: Mutex::default() }, for_probes)
    }

    /// Lets go of what was kept for us and no link wants any more, and tells of socket units without a link.
    pub fn release_unclaimed(&self) {
        self.http().retain(|open| {
            if open.name.starts_with(KEPT) {
                log::info!("no link listens on {} any more: its socket is closed", open.address);
                notify::forget(&open.name);
                return false;
            }
            log::warn!(
                "a socket unit listens on {}, and no link of an actor does: connections wait there until one has that \
                 `address`",
                open.address
            );
            true
        });
    }

    fn http(&self) -> MutexGuard<'_, Vec<Open>> {
        self.http.lock()
    }

    fn activated(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.activated.lock()
    }
}

impl Sockets for HandedOver {
    fn take(&self, address: SocketAddr) -> Option<TcpListener> {
        let mut http = self.http();
        let found = http.iter().position(|open| open.address == address).or_else(|| {
            // A socket unit with a bare port listens on every address of both families.
            http.iter().position(|open| {
                open.address.port() == address.port()
                    && open.address.ip().is_unspecified()
                    && address.ip().is_unspecified()
            })
        })?;
        let open = http.remove(found);
        if !open.name.starts_with(KEPT) {
            self.activated().push(address);
        }
        Some(open.socket)
    }

    fn keep(&self, address: SocketAddr, socket: &dyn AsFd) {
        if !self.activated().contains(&address) && notify::is_managed() {
            notify::keep(&name(address), socket.as_fd());
        }
    }

    fn forget(&self, address: SocketAddr, socket: &dyn AsFd) {
        let mut activated = self.activated();
        if let Some(found) = activated.iter().position(|other| *other == address) {
            activated.swap_remove(found);
            // The socket unit's: it stays open, and the next link with this address gets it.
            if let Ok(socket) = socket.as_fd().try_clone_to_owned().map(TcpListener::from)
                && let Ok(address) = socket.local_addr()
            {
                self.http().push(Open { name: "http".to_owned(), address, socket });
            }
            return;
        }
        if notify::is_managed() {
            notify::forget(&name(address));
            // The service manager lets go of its copy a moment later; until then nobody could listen here again, were
            // the socket not put out of use.
            if let Err(cause) = rustix::net::shutdown(socket, rustix::net::Shutdown::Both) {
                log::debug!("the socket on {address} was not put out of use: {cause}");
            }
        }
    }
}

/// The name a socket is kept under; names must not hold colons.
fn name(address: SocketAddr) -> String {
    format!("{KEPT}{address}").replace(':', "_")
}

enum Sorted {
    Http(SocketAddr, TcpListener),
    Probes(probes::Socket),
}

fn sorted(name: &str, descriptor: OwnedFd) -> Result<Sorted, String> {
    let is_listening = sockopt::socket_acceptconn(&descriptor).map_err(|cause| cause.to_string())?;
    let stream = sockopt::socket_type(&descriptor).map_err(|cause| cause.to_string())? == SocketType::STREAM;
    if !is_listening || !stream {
        return Err("it is no listening stream socket".to_owned());
    }
    let family = sockopt::socket_domain(&descriptor).map_err(|cause| cause.to_string())?;
    let tcp = family == AddressFamily::INET || family == AddressFamily::INET6;
    match name {
        "probes" if family == AddressFamily::UNIX => {
            Ok(Sorted::Probes(probes::Socket::Unix(UnixListener::from(descriptor))))
        }
        "probes" if tcp => Ok(Sorted::Probes(probes::Socket::Tcp(TcpListener::from(descriptor)))),
        _ if name.starts_with("http") && tcp => {
            let socket = TcpListener::from(descriptor);
            let address = socket.local_addr().map_err(|cause| cause.to_string())?;
            Ok(Sorted::Http(address, socket))
        }
        _ => {
            Err("its name is neither `http` nor `probes` (FileDescriptorName=), or it is of another family".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str) -> (SocketAddr, OwnedFd) {
        let socket = TcpListener::bind(address).expect("a free port");
        (socket.local_addr().expect("bound"), OwnedFd::from(socket))
    }

    #[test]
    fn sockets_are_sorted_by_name_and_found_by_address() {
        let (local, one) = listener("127.0.0.1:0");
        let (every, two) = listener("[::]:0");
        let (_, probes) = listener("127.0.0.1:0");
        let (_, other) = listener("127.0.0.1:0");
        let datagram = OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port"));
        let descriptors = [
            (name(local), one),
            ("http".into(), two),
            ("probes".into(), probes),
            ("ftp".into(), other),
            ("http".into(), datagram),
        ];
        let (sockets, probes) = HandedOver::sort(descriptors.into());
        assert_eq!(probes.len(), 1);
        assert!(sockets.take(([127, 0, 0, 1], every.port()).into()).is_none(), "one address is not every address");
        let taken = sockets.take(([0, 0, 0, 0], every.port()).into()).expect("a bare port is every address");
        assert_eq!(taken.local_addr().expect("bound"), every);
        assert_eq!(sockets.take(local).expect("kept").local_addr().expect("bound"), local);
        assert!(sockets.take(local).is_none(), "it was taken");
    }

    #[test]
    fn what_nobody_wants_is_let_go_unless_a_socket_unit_has_it() {
        let ((kept, one), (unit, two)) = (listener("127.0.0.1:0"), listener("127.0.0.1:0"));
        let (sockets, _) = HandedOver::sort(vec![(name(kept), one), ("http".into(), two)]);
        sockets.release_unclaimed();
        assert!(sockets.take(kept).is_none());
        assert!(sockets.take(unit).is_some());
    }

    #[test]
    fn names_hold_no_colons() {
        assert_eq!(name(([127, 0, 0, 1], 80).into()), "http-kept-127.0.0.1_80");
        assert!(!name("[::1]:80".parse().expect("an address")).contains(':'));
    }
}
