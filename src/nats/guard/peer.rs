//! Whose connection came in on a port of this machine.
//!
//! Any program here may connect to a port of the loopback address. The other end of a connection is ours when the socket that
//! the kernel lists for it is among this process's own descriptors: an address and port pair names one socket, and a socket's
//! number belongs to it alone while it is open.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    net::SocketAddrV4,
};

/// What the kernel knows of TCP over IPv4 in our network namespace.
const SOCKETS: &str = "/proc/self/net/tcp";

/// Our descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Whether the socket bound to `peer` and connected to `local` is this process's own. Blocks shortly.
///
/// # Errors
/// `/proc` cannot be read.
pub fn is_ours(peer: SocketAddrV4, local: SocketAddrV4) -> io::Result<bool> {
    let Some(inode) = inode_of(BufReader::new(File::open(SOCKETS)?), peer, local)? else { return Ok(false) };
    let wanted = format!("socket:[{inode}]");
    for entry in fs::read_dir(DESCRIPTORS)? {
        // A descriptor may be closed meanwhile.
        if fs::read_link(entry?.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The number of the socket in the kernel's list whose own address is `from` and whose other end is `to`.
fn inode_of(list: impl BufRead, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<Option<u64>> {
    let (from, to) = (written(from), written(to));
    for line in list.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        // number, own address, other address, ..., the tenth is the socket's number
        if words.nth(1) == Some(&from) && words.next() == Some(&to) {
            return Ok(words.nth(6).and_then(|word| word.parse().ok()).filter(|inode| *inode != 0));
        }
    }
    Ok(None)
}

/// An address as the kernel writes it: its bytes as one number of this machine.
fn written(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, TcpListener, TcpStream},
        process::{Command, Stdio},
    };

    use super::*;

    fn v4(address: SocketAddr) -> SocketAddrV4 {
        match address {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => panic!("IPv4 was asked for"),
        }
    }

    #[test]
    fn our_own_connection_is_ours_and_that_of_another_program_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = v4(listener.local_addr().unwrap());
        let ours = TcpStream::connect(local).unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        assert!(is_ours(v4(peer), local).unwrap());

        let program = format!("exec 3<>/dev/tcp/127.0.0.1/{}; read line <&3", local.port());
        let mut stranger = Command::new("bash").args(["-c", &program]).stderr(Stdio::null()).spawn().unwrap();
        let (_accepted, peer) = listener.accept().unwrap();
        assert!(!is_ours(v4(peer), local).unwrap());
        stranger.kill().unwrap();
        stranger.wait().unwrap();

        let gone = v4(ours.local_addr().unwrap());
        drop(ours);
        assert!(!is_ours(gone, local).unwrap(), "it is closed");
    }
}
