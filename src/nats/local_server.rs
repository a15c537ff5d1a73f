//! Whose program serves NATS on this machine: asked before this host joins a server that nobody named.
//!
//! Any user of a machine may listen on a port above 1023 that is free. A host that joined whatever listens there would
//! obey that user: commands start programs as the host's user, and a provider is handed the cluster seed. The kernel knows
//! the owner of each socket (`/proc/self/net/tcp` and `tcp6`), so that is looked up twice for each attempt to connect:
//!
//! * before it, the owner of every socket that listens there, so that a stranger's server is not even spoken to;
//! * once the server has sent its greeting and before this host says anything, the owner of the other end of each of our
//!   own connections to it. The listener alone is not enough: a stranger may accept a connection while the right server
//!   restarts, and give the port back to it.
//!
//! What cannot be read or found is refused. A server that somebody named is never looked up here.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

/// Where the kernel lists the TCP sockets of this process's network, IPv4 and IPv6. Not `/proc/net`, which a service with
/// `ProcSubset=pid` does not see.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// Where the kernel lists what this process has open.
const DESCRIPTORS: &str = "/proc/self/fd";

/// The states of a TCP socket that matter here, as the kernel numbers them.
const ESTABLISHED: u8 = 0x01;
const LISTEN: u8 = 0x0a;

/// Who may own a server that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Root and the user of this process: for a host that a person started.
    RootOrSelf,
    /// Root alone: for a service, whose providers run as the same user and could serve NATS too.
    Root,
}

/// A server on this machine that nobody named, and who may own it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who may own it.
    pub owners: Owners,
}

impl LocalServer {
    /// Looks at whatever listens there now. Nothing listening is no reason to refuse: connecting then fails by itself.
    ///
    /// # Errors
    /// Why it must not be joined, and what to set.
    pub fn check_listener(&self) -> Result<(), String> {
        let sockets = self.sockets()?;
        let listening = sockets.iter().filter(|socket| socket.state == LISTEN && takes(socket.local, self.address));
        self.judge(listening.map(|socket| socket.uid)).map(drop)
    }

    /// Looks at the other end of each connection this process has to it, and says whose it is.
    ///
    /// # Errors
    /// Why it must not be joined, and what to set.
    pub fn check_connections(&self) -> Result<&'static str, String> {
        let own = own_sockets().map_err(|cause| self.unreadable(DESCRIPTORS, &cause))?;
        let sockets = self.sockets()?;
        let ours = sockets
            .iter()
            .filter(|socket| socket.state == ESTABLISHED && socket.remote == self.address)
            .filter(|socket| own.contains(&socket.inode));
        let mut uids = Vec::new();
        for socket in ours {
            // An end that was closed has no owner any more, so only an open one counts.
            let other = sockets.iter().find(|other| {
                other.state == ESTABLISHED && other.local == self.address && other.remote == socket.local
            });
            match other {
                Some(other) => uids.push(other.uid),
                None => return Err(self.refused("the kernel does not show whose program is at its other end")),
            }
        }
        let owner = self.judge(uids.into_iter())?;
        owner.ok_or_else(|| self.refused("the connection to it is not in the kernel's list of sockets"))
    }

    fn sockets(&self) -> Result<Vec<Socket>, String> {
        let mut all = Vec::new();
        for (index, table) in TABLES.iter().enumerate() {
            match read(Path::new(table), self.address.port()) {
                Ok(sockets) => all.extend(sockets),
                // A kernel without IPv6 has no such table, and then nothing listens there.
                Err(cause) if index > 0 && cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(self.unreadable(table, &cause)),
            }
        }
        Ok(all)
    }

    /// Whose these are: nothing where there are none, an error where one of them is a stranger's.
    fn judge(&self, uids: impl Iterator<Item = u32>) -> Result<Option<&'static str>, String> {
        let own = rustix::process::geteuid().as_raw();
        let mut owner = None;
        for uid in uids {
            match (uid, self.owners) {
                (0, _) => owner = owner.or(Some("root")),
                (uid, Owners::RootOrSelf) if uid == own => owner = Some("the user of this host"),
                (uid, _) => return Err(self.refused(format_args!("it belongs to the user with id {uid}"))),
            }
        }
        Ok(owner)
    }

    fn unreadable(&self, what: &str, cause: &io::Error) -> String {
        self.refused(format_args!("whose it is cannot be found out, because {what} cannot be read: {cause}"))
    }

    fn refused(&self, why: impl fmt::Display) -> String {
        let allowed = match self.owners {
            Owners::RootOrSelf => "root or of the user of this host",
            Owners::Root => "root",
        };
        format!(
            "nobody named the NATS server at {}, and {why}; only a server of {allowed} is joined without being named. To \
             join this one, set NATS_HOST={}",
            self.address,
            self.address.ip()
        )
    }
}

/// One line of the kernel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    uid: u32,
    inode: u64,
}

/// Whether what listens on `listener` may get a connection to `target`.
fn takes(listener: SocketAddr, target: SocketAddr) -> bool {
    // A listener on all IPv6 addresses may take IPv4 connections too; whether it does is not in the list.
    listener.port() == target.port() && (listener.ip() == target.ip() || listener.ip().is_unspecified())
}

/// The sockets of one table that have `port` at either end. Others are left out, so that a busy machine costs no memory.
fn read(table: &Path, port: u16) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for line in BufReader::new(fs::File::open(table)?).lines() {
        if let Some(socket) = parse(&line?)
            && (socket.local.port() == port || socket.remote.port() == port)
        {
            sockets.push(socket);
        }
    }
    Ok(sockets)
}

/// One line of the table; nothing for its heading. Columns: number, local address, remote address, state, queues, timer,
/// retransmissions, uid, time-out, inode.
fn parse(line: &str) -> Option<Socket> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, remote) = (address(columns.next()?)?, address(columns.next()?)?);
    let state = u8::from_str_radix(columns.next()?, 16).ok()?;
    let uid = columns.nth(3)?.parse().ok()?;
    let inode = columns.nth(1)?.parse().ok()?;
    Some(Socket { local, remote, state, uid, inode })
}

/// `0100007F:1F90`: words of the address in the machine's byte order, each in hexadecimal, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |index: usize| {
        let digits = ip.get(index * 8..index * 8 + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The inodes of the sockets this process has open.
fn own_sockets() -> io::Result<BTreeSet<u64>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(DESCRIPTORS)? {
        // One that was closed meanwhile is none of ours.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode: Option<u64> =
            target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend(inode);
    }
    Ok(inodes)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;

    fn local(listener: &TcpListener, owners: Owners) -> LocalServer {
        LocalServer { address: listener.local_addr().unwrap(), owners }
    }

    #[test]
    fn our_own_listener_and_our_own_connection_are_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = local(&listener, Owners::RootOrSelf);
        assert_eq!(server.check_listener(), Ok(()));
        let none = server.check_connections().unwrap_err();
        assert!(none.contains("not in the kernel's list") && none.contains("NATS_HOST=127.0.0.1"), "{none}");
        let _client = TcpStream::connect(server.address).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let owner = if rustix::process::geteuid().is_root() { "root" } else { "the user of this host" };
        assert_eq!(server.check_connections(), Ok(owner));
        // An end that is closed has no owner; it must not pass as root's.
        accepted.shutdown(std::net::Shutdown::Write).unwrap();
        drop(accepted);
        assert!(server.check_connections().is_err());
    }

    #[test]
    fn every_address_that_gets_the_connection_is_looked_at() {
        let target: SocketAddr = "127.0.0.1:4222".parse().unwrap();
        for (listener, expected) in [
            ("127.0.0.1:4222", true),
            ("0.0.0.0:4222", true),
            ("[::]:4222", true),
            ("127.0.0.2:4222", false),
            ("[::1]:4222", false),
            ("127.0.0.1:4223", false),
        ] {
            assert_eq!(takes(listener.parse().unwrap(), target), expected, "{listener}");
        }
    }

    #[test]
    fn strangers_are_refused_and_services_trust_root_alone() {
        let own = rustix::process::geteuid().as_raw();
        let server = |owners| LocalServer { address: "127.0.0.1:4222".parse().unwrap(), owners };
        for (owners, uid, allowed) in [
            (Owners::RootOrSelf, 0, true),
            (Owners::RootOrSelf, own, true),
            (Owners::RootOrSelf, 4711, false),
            (Owners::Root, 0, true),
            (Owners::Root, own, own == 0),
            (Owners::Root, 4711, false),
        ] {
            assert_eq!(server(owners).judge([0, uid].into_iter()).is_ok(), allowed, "{owners:?} {uid}");
        }
        assert_eq!(server(Owners::Root).judge([].into_iter()), Ok(None));
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        // On a big-endian machine the kernel writes the words the other way round.
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let line = |ip: &str| {
            format!(
                "   0: {ip}:107E 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 21327 1 0 100 0 0 10 0"
            )
        };
        let socket = parse(&line(&word([127, 0, 0, 1]))).unwrap();
        assert_eq!((socket.local, socket.state), ("127.0.0.1:4222".parse().unwrap(), LISTEN));
        assert_eq!((socket.uid, socket.inode), (1000, 21327));
        let mapped = [[0; 4], [0; 4], [0, 0, 255, 255], [127, 0, 0, 1]].map(word).concat();
        assert_eq!(parse(&line(&mapped)).unwrap().local, "127.0.0.1:4222".parse().unwrap());
        let heading =
            "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(parse(heading), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "[ 0-9A-F:é]{0,120}") {
            let _ = parse(&line);
        }
    }
}
