//! Lists of hosts that may be reached on somebody else's word, and what a name may not resolve to: the link value
//! `allowed_hosts` of actors, and what commands of the lattice may have fetched.
//!
//! Both the name and each address it resolves to are judged, for each redirect anew, so that neither a redirect nor a
//! name server can lead a request into the network the board stands in. Pure.
//!
//! | Entry | Lets through | Addresses it may lead to |
//! |---|---|---|
//! | `*` (also when there is no value) | every host | public ones |
//! | `*.example.com` | every name below | public and private ones |
//! | `example.com` | this name | public and private ones |
//! | `localhost` | this name | all |
//! | `192.168.1.20`, `[fd00::1]`, `10.0.0.0/8` | these addresses | these |
//!
//! Each may end in `:port`; without one every port is meant. Loopback and link-local addresses (where a cloud's metadata
//! and the board's own services answer) are reached only when listed as addresses, or as `localhost`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::error::{Error, Result};

/// How far from the outside an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Routed in the internet.
    Public,
    /// Someone's own network.
    Private,
    /// This machine, its link, and addresses that are none.
    Local,
}

/// Where `address` is.
pub fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [0 | 127, ..] | [169, 254, ..] | [224..=255, ..] => Reach::Local,
        // Private use, carrier NAT, protocol assignments, documentation, benchmarks.
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [192, 0, 0 | 2, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Private,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // Unspecified, loopback and the old compatible form; then the mapped and translated ones.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Reach::Local,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Reach::Private,
        // 6to4 carries an IPv4 address; Teredo tunnels to anywhere.
        [0x2002, high, low, ..] => embedded(high, low),
        [0x2001, 0, ..] => Reach::Private,
        [0x2001, 0xdb8, ..] => Reach::Private,
        [first, ..] if first & 0xfe00 == 0xfc00 => Reach::Private,
        [first, ..] if first & 0xffc0 == 0xfec0 => Reach::Private,
        [first, ..] if first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00 => Reach::Local,
        _ => Reach::Public,
    }
}

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    /// With its leading dot.
    Below(String),
    Name(String),
    Network(IpAddr, u8),
}

/// A parsed `allowed_hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Entry>);

impl Default for AllowedHosts {
    /// Every host with a public address: what manifests without the value get.
    fn default() -> Self {
        Self(vec![Entry { hosts: Hosts::Any, port: None }])
    }
}

impl AllowedHosts {
    /// Parses a comma list, which errors call `name`.
    ///
    /// # Errors
    /// An entry is none of the forms above; the text names it.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| Entry::parse(entry, name))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// This list, with every host that has a public address.
    pub fn and_public(mut self) -> Self {
        self.0.push(Entry { hosts: Hosts::Any, port: None });
        self
    }

    /// Whether `host` (a name or an address, brackets or not) may be asked at all.
    pub fn allows_host(&self, host: &str, port: u16) -> bool {
        let host = normal(host);
        self.entries(port).any(|entry| match (&entry.hosts, literal(&host)) {
            (Hosts::Network(..), Some(address)) => entry.contains(address),
            _ => entry.grants(&host).is_some(),
        }) && literal(&host).is_none_or(|address| self.allows_address(&host, port, address))
    }

    /// Whether `host`, having resolved to `address`, may be reached there.
    pub fn allows_address(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let host = normal(host);
        let granted = self.entries(port).filter_map(|entry| entry.grants(&host)).max();
        let by_name = granted.is_some_and(|granted| reach(address) <= granted);
        let may_be_asked = granted.is_some() || literal(&host).is_some();
        by_name || (may_be_asked && self.entries(port).any(|entry| entry.contains(address)))
    }

    /// Whether hosts are listed one by one, rather than all of them.
    pub fn names_hosts(&self) -> bool {
        self.0.iter().all(|entry| entry.hosts != Hosts::Any)
    }

    /// Whether an entry for hosts by name, and not for all of them, lets `host` through.
    pub fn names(&self, host: &str, port: u16) -> bool {
        let host = normal(host);
        self.entries(port).any(|entry| entry.hosts != Hosts::Any && entry.grants(&host).is_some())
    }

    fn entries(&self, port: u16) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |entry| entry.port.is_none_or(|wanted| wanted == port))
    }
}

impl Entry {
    fn parse(text: &str, name: &str) -> Result<Self> {
        let refuse = || {
            Error::config(format!(
                "`{name}` holds `{text}`: it must be a comma list of `host`, `host:port`, `*.suffix`, an address, a \
                 network such as 192.168.1.0/24, or `*` for every public host"
            ))
        };
        // Two colons outside brackets are an IPv6 address, not a port.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse::<u16>().map_err(|_| refuse())?))
            }
            _ => (text, None),
        };
        let any = host == "*";
        let host = normal(host);
        let hosts = if any {
            Hosts::Any
        } else if let Some(suffix) = host.strip_prefix('*') {
            let rest = suffix.strip_prefix('.').filter(|rest| is_name(rest)).ok_or_else(refuse)?;
            Hosts::Below(format!(".{rest}"))
        } else if let Some((address, prefix)) = host.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| refuse())?;
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(refuse)?;
            Hosts::Network(address, prefix)
        } else if let Some(address) = literal(&host) {
            Hosts::Network(address, if address.is_ipv4() { 32 } else { 128 })
        } else if is_name(&host) {
            Hosts::Name(host)
        } else {
            return Err(refuse());
        };
        Ok(Self { hosts, port })
    }

    /// How far a request to `host` may lead because of this entry, by name.
    fn grants(&self, host: &str) -> Option<Reach> {
        match &self.hosts {
            Hosts::Any => Some(Reach::Public),
            Hosts::Below(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(Reach::Private),
            Hosts::Name(name) if name == host => Some(if name == "localhost" { Reach::Local } else { Reach::Private }),
            Hosts::Name(_) | Hosts::Network(..) => None,
        }
    }

    /// Whether this entry lists `address`.
    fn contains(&self, address: IpAddr) -> bool {
        let Hosts::Network(network, prefix) = self.hosts else { return false };
        let (network, address, bits) = match (network, unmapped(address)) {
            (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits().into(), address.to_bits().into(), 32),
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let ignored = u32::from(bits - prefix);
        // Shifting by the whole width is what `checked_shr` refuses: such a network holds every address.
        u128::checked_shr(network ^ address, ignored).is_none_or(|difference| difference == 0)
    }
}

/// `::ffff:a.b.c.d` is a.b.c.d.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Lower case, without brackets and the root's dot.
fn normal(host: &str) -> String {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase()
}

fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.split('.').all(|label| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{AllowedHosts, IpAddr, Reach, reach};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_special_network_is_seen_through_every_disguise() {
        for (text, expected) in [
            ("1.1.1.1", Reach::Public),
            ("172.15.0.1", Reach::Public),
            ("172.32.0.1", Reach::Public),
            ("100.63.0.1", Reach::Public),
            ("192.0.1.1", Reach::Public),
            ("2606:4700::1111", Reach::Public),
            ("::ffff:1.1.1.1", Reach::Public),
            ("64:ff9b::101:101", Reach::Public),
            ("2002:101:101::1", Reach::Public),
            ("10.1.2.3", Reach::Private),
            ("172.16.0.1", Reach::Private),
            ("172.31.255.255", Reach::Private),
            ("192.168.0.1", Reach::Private),
            ("100.64.0.1", Reach::Private),
            ("198.18.0.1", Reach::Private),
            ("::ffff:10.0.0.1", Reach::Private),
            ("64:ff9b::a00:1", Reach::Private),
            ("64:ff9b:1::1", Reach::Private),
            ("2002:a00:1::1", Reach::Private),
            ("2001:0:1::1", Reach::Private),
            ("fd00::1", Reach::Private),
            ("fec0::1", Reach::Private),
            ("127.0.0.1", Reach::Local),
            ("127.9.9.9", Reach::Local),
            ("0.0.0.0", Reach::Local),
            ("0.1.2.3", Reach::Local),
            ("169.254.169.254", Reach::Local),
            ("224.0.0.1", Reach::Local),
            ("255.255.255.255", Reach::Local),
            ("::", Reach::Local),
            ("::1", Reach::Local),
            ("::127.0.0.1", Reach::Local),
            ("::ffff:127.0.0.1", Reach::Local),
            ("::ffff:0:127.0.0.1", Reach::Local),
            ("64:ff9b::7f00:1", Reach::Local),
            ("2002:7f00:1::1", Reach::Local),
            ("fe80::1", Reach::Local),
            ("ff02::1", Reach::Local),
        ] {
            assert_eq!(reach(address(text)), expected, "{text}");
        }
    }

    #[test]
    fn the_default_is_every_public_host_and_nothing_else() {
        let allowed = AllowedHosts::default();
        assert!(allowed.allows_host("example.com", 443) && allowed.allows_host("1.1.1.1", 8080));
        assert!(allowed.allows_address("example.com", 443, address("1.1.1.1")));
        for inside in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
            assert!(!allowed.allows_address("example.com", 443, address(inside)), "{inside}");
            assert!(!allowed.allows_host(inside, 80), "{inside}");
        }
        assert!(!allowed.allows_host("[::1]", 80));
    }

    #[test]
    fn names_and_suffixes_and_ports_are_matched_exactly() {
        let allowed = AllowedHosts::parse("api.example.com, *.lan:8080 ,Other.Example:443", "allowed_hosts").unwrap();
        assert!(allowed.allows_host("API.example.com.", 1) && allowed.allows_host("other.example", 443));
        assert!(allowed.allows_host("printer.lan", 8080));
        for (host, port) in [
            ("example.com", 443),
            ("x.api.example.com", 443),
            ("api.example.com.evil.org", 443),
            ("evil-api.example.com", 443),
            ("other.example", 80),
            ("printer.lan", 80),
            ("lan", 8080),
            ("notlan", 8080),
            ("1.1.1.1", 443),
        ] {
            assert!(!allowed.allows_host(host, port), "{host}:{port}");
        }
        assert!(allowed.allows_address("printer.lan", 8080, address("192.168.1.7")), "a listed name may be at home");
        assert!(!allowed.allows_address("printer.lan", 8080, address("127.0.0.1")), "but not this board");
        assert!(!allowed.allows_address("api.example.com", 80, address("169.254.169.254")));
    }

    #[test]
    fn addresses_and_networks_are_reached_when_listed() {
        let allowed = AllowedHosts::parse(
            "127.0.0.1:9000, 192.168.1.0/24, [fd00::1]:80, fe80::/10, localhost:7000",
            "allowed_hosts",
        )
        .unwrap();
        for (host, port) in
            [("127.0.0.1", 9000), ("192.168.1.77", 1), ("[fd00::1]", 80), ("fe80::5", 1), ("localhost", 7000)]
        {
            assert!(allowed.allows_host(host, port), "{host}:{port}");
        }
        for (host, port) in
            [("127.0.0.1", 9001), ("127.0.0.2", 9000), ("192.168.2.1", 1), ("fd00::1", 81), ("localhost", 7001)]
        {
            assert!(!allowed.allows_host(host, port), "{host}:{port}");
        }
        assert!(allowed.allows_address("localhost", 7000, address("::1")));
        assert!(allowed.allows_address("192.168.1.2", 1, address("192.168.1.2")));
        assert!(
            !allowed.allows_address("unlisted.example", 1, address("192.168.1.2")),
            "a listed network does not list the names that lead there"
        );
        let both = AllowedHosts::parse("*,192.168.1.0/24", "allowed_hosts").unwrap();
        assert!(both.allows_address("nas.example", 1, address("192.168.1.2")));
        assert!(!both.allows_address("nas.example", 1, address("192.168.2.2")));
        assert!(AllowedHosts::parse("0.0.0.0/0", "allowed_hosts").unwrap().allows_host("127.0.0.1", 1));
        assert!(AllowedHosts::parse("::/0", "allowed_hosts").unwrap().allows_host("[::1]", 1));
    }

    #[test]
    fn an_empty_list_allows_nothing() {
        let allowed = AllowedHosts::parse(" , ", "allowed_hosts").unwrap();
        assert!(!allowed.allows_host("example.com", 443));
    }

    #[test]
    fn what_is_no_entry_is_named() {
        for entry in ["http://x", "a b", "x:", "x:99999", "*x", "*.", "1.2.3.0/33", "x/8", "ex!ample", "..", "[::1"] {
            let error = AllowedHosts::parse(entry, "allowed_hosts").unwrap_err();
            assert!(error.text().contains(entry), "{entry}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", host in "\\PC{0,20}", port: u16) {
            if let Ok(allowed) = AllowedHosts::parse(&text, "allowed_hosts") {
                let _ = allowed.allows_host(&host, port);
            }
        }

        #[test]
        fn without_a_listed_address_nothing_leads_to_this_board(bits: u32, host in "[a-z]{1,9}\\.[a-z]{2,3}") {
            let inside = IpAddr::from([127, (bits >> 16) as u8, (bits >> 8) as u8, bits as u8]);
            let allowed = AllowedHosts::parse(&format!("*,{host},*.{host}"), "allowed_hosts").unwrap();
            prop_assert!(!allowed.allows_address(&host, 80, inside));
            prop_assert!(!allowed.allows_host(&inside.to_string(), 80));
        }
    }
}
