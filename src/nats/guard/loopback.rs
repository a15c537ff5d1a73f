//! A port on the loopback address that this process can connect to.
//!
//! Any free one, but in a confined provider: its kernel lets it connect to a few ports only ([`RELAY_PORTS`]). There one of those
//! is taken, on an address of 127.0.0.0/8 drawn at random, so that providers do not meet on it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use tokio::net::{TcpListener, TcpStream};

/// Ports that every provider may connect to, whatever its rules say. Eight, so that somebody else who listens on one of them on
/// all addresses does not keep it from working. They are registered for nothing, and below the range from which Linux gives out
/// ports by itself.
pub const RELAY_PORTS: RangeInclusive<u16> = 24_222..=24_229;

/// Listens.
///
/// # Errors
/// Nothing can listen where this process may connect to.
pub(super) async fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    match TcpStream::connect(listener.local_addr()?).await {
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => listen_where_allowed().await,
        Err(cause) => Err(cause),
        Ok(trial) => {
            drop(trial);
            // Whoever it was: nobody has a right to this port yet.
            drop(listener.accept().await?);
            Ok(listener)
        }
    }
}

async fn listen_where_allowed() -> io::Result<TcpListener> {
    let mut drawn = [0; 3];
    getrandom::fill(&mut drawn).map_err(|cause| io::Error::other(cause.to_string()))?;
    // Neither the network's own address nor that of all.
    let address = Ipv4Addr::new(127, drawn[0], drawn[1], drawn[2].clamp(1, 254));
    let mut outcome = Err(io::ErrorKind::AddrInUse.into());
    for port in RELAY_PORTS {
        outcome = TcpListener::bind(SocketAddr::from((address, port))).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
