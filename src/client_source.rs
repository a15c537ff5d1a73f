//! Where a connection comes from, as far as limits go, and how many one source may have.
//!
//! Pure. Used by the probes, the mirror and the HTTP server of actors. A source is this machine, one IPv4 address, or one IPv6
//! network of 64 bits: whoever has one IPv6 address there has them all.

use std::net::{IpAddr, Ipv4Addr};

/// A single remote source gets one place in this many: the other sources still get theirs.
const SHARE_OF_ONE: usize = 4;

/// One place in this many is kept for this machine: its probes and its tools get in whatever comes from outside.
const KEPT_FOR_THIS_MACHINE: usize = 8;

/// One place in this many is kept for other machines: a program of this machine that opens connections without end does not
/// shut them out.
const KEPT_FOR_OTHERS: usize = 8;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// This machine.
    ThisMachine,
    /// One IPv4 address.
    Address(Ipv4Addr),
    /// One IPv6 network: the first 64 bits of an address.
    Network([u8; 8]),
}

impl Source {
    /// The source of a connection from `ip`.
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_loopback() { Self::ThisMachine } else { Self::by_address(ip) }
    }

    /// As [`Source::of`], where each address of this machine counts for itself: for a server that keeps it no places.
    pub fn by_address(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::Address(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::Network([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// What stands against one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// This source has its share already.
    Source,
    /// All places that this source may use are taken.
    Places,
}

/// Whether one more connection from `source` has a place among `places`, where those from `open` are.
///
/// # Errors
/// What stands against it.
pub fn admit(places: usize, source: Source, open: impl Iterator<Item = Source>) -> Result<(), Full> {
    let (mut own, mut remote, mut all) = (0, 0, 0);
    for other in open {
        all += 1;
        own += usize::from(other == source);
        remote += usize::from(other != Source::ThisMachine);
    }
    let (share, enough) = match source {
        Source::ThisMachine => (places - places / KEPT_FOR_OTHERS, all >= places),
        _ => {
            let most = places - places / KEPT_FOR_THIS_MACHINE;
            (places.div_ceil(SHARE_OF_ONE), all >= places || remote >= most)
        }
    };
    match (own >= share, enough) {
        (true, _) => Err(Full::Source),
        (false, true) => Err(Full::Places),
        (false, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    /// How many connections of each of `sources`, in turns, are let in.
    fn fill(places: usize, sources: &[&str]) -> Vec<Source> {
        let mut open = Vec::new();
        for _ in 0..places {
            for text in sources {
                if admit(places, source(text), open.iter().copied()).is_ok() {
                    open.push(source(text));
                }
            }
        }
        open
    }

    #[test]
    fn a_source_is_an_address_a_network_or_this_machine() {
        assert_eq!(source("127.0.0.1"), source("::1"));
        assert_eq!(source("::ffff:127.0.0.9"), Source::ThisMachine);
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::2"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    }

    #[test]
    fn one_source_leaves_room_for_others_and_many_leave_room_for_this_machine() {
        let one = fill(256, &["10.0.0.1"]);
        assert_eq!(one.len(), 64);
        assert_eq!(admit(256, source("10.0.0.1"), one.iter().copied()), Err(Full::Source));
        assert_eq!(admit(256, source("10.0.0.2"), one.iter().copied()), Ok(()));
        let names: Vec<String> = (0..300).map(|number| format!("10.0.{}.{}", number / 256, number % 256)).collect();
        let many = fill(256, &names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(many.len(), 224);
        assert_eq!(admit(256, source("10.9.9.9"), many.iter().copied()), Err(Full::Places));
        assert_eq!(admit(256, source("127.0.0.1"), many.iter().copied()), Ok(()));
        let local = fill(256, &["127.0.0.1"]);
        assert_eq!(local.len(), 224);
        assert_eq!(admit(256, source("10.0.0.1"), local.iter().copied()), Ok(()));
    }

    #[test]
    fn few_places_serve_too() {
        for places in 1..32 {
            assert!(!fill(places, &["10.0.0.1"]).is_empty(), "{places}");
            assert!(fill(places, &["10.0.0.1", "127.0.0.1"]).len() <= places);
        }
        assert_eq!(fill(4, &["127.0.0.1"]).len(), 4);
    }
}
