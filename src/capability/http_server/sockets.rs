//! Where listening sockets may come from and go to, so that they outlive the process. Implemented above this room.

use std::{
    fmt::Debug,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
};

/// Keeper of listening sockets.
pub trait Sockets: Debug + Send + Sync + 'static {
    /// The open socket for a link with this address, if one was handed over.
    fn take(&self, address: SocketAddr) -> Option<TcpListener>;

    /// A link listens on `socket` from now on: it should outlive this process.
    fn keep(&self, address: SocketAddr, socket: &dyn AsFd);

    /// The link is gone, and what came of [`Sockets::take`] or went to [`Sockets::keep`] is free again. The caller has
    /// stopped to accept on `socket` or is about to.
    fn forget(&self, address: SocketAddr, socket: &dyn AsFd);
}
