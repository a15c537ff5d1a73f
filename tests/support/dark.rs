//! A network that swallows packets: whoever connects waits for an answer that never comes.

use std::{
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket_with, sockopt};

/// Connections that are made so that the listener's queue is full; the kernel takes one more than it is told to.
const FILL: usize = 4;

/// An address whose packets are lost, as long as this lives.
pub struct Dark {
    _listener: OwnedFd,
    _waiting: Vec<OwnedFd>,
}

impl Dark {
    /// At `address`, which nobody has now: a listener that takes nobody in, with others before the door. Linux drops the
    /// first packet of whoever comes then.
    pub fn at(address: SocketAddr) -> Self {
        let listener = stream(SocketFlags::CLOEXEC);
        sockopt::set_socket_reuseaddr(&listener, true).expect("a socket");
        bind(&listener, &address).expect("nobody listens there any more");
        listen(&listener, 0).expect("it is bound");
        let waiting = (0..FILL).map(|_| {
            let one = stream(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            // Under way is all it ever gets to.
            let _ = connect(&one, &address);
            one
        });
        let dark = Self { _waiting: waiting.collect(), _listener: listener };
        let outcome = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert!(
            outcome.as_ref().is_err_and(|cause| cause.kind() == std::io::ErrorKind::TimedOut),
            "packets to {address} are not lost: {outcome:?}"
        );
        dark
    }
}

/// Programs that are started meanwhile do not get it.
fn stream(flags: SocketFlags) -> OwnedFd {
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a socket")
}
