//! Names to addresses, with those left out that may not be reached.
//!
//! For HTTP that goes out on somebody else's word: requests of actors, and artifacts. ureq asks the resolver for every new
//! connection, so what it lets through is checked after every redirect and whatever a name server says. It blocks; the C
//! library bounds how long.

use std::{
    fmt,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use ureq::{
    config::Config,
    http::{
        Uri,
        uri::{Authority, Scheme},
    },
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::NextTimeout,
    },
};

use crate::error::Error;

/// Addresses of one host that are tried. ureq takes no more than 16.
const ADDRESSES_MAX: usize = 16;

/// Which addresses a host may lead to.
pub trait AddressRules: fmt::Debug + Send + Sync + 'static {
    /// Whether `host` (without brackets), having resolved to `address`, may be reached there.
    fn allows(&self, host: &str, port: u16, address: IpAddr) -> bool;

    /// The error for a `host` of whose addresses none may be reached.
    fn refusal(&self, host: &str) -> Error;
}

/// Keeps only the addresses that the rules allow.
#[derive(Debug)]
pub struct GuardedResolver {
    /// What may be reached.
    pub rules: Arc<dyn AddressRules>,
    /// The proxy of the operator's choice may be anywhere.
    pub proxy: Option<(String, u16)>,
}

impl Resolver for GuardedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _config: &Config,
        _timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.authority().map(Authority::host).unwrap_or_default();
        let (bare, port) = (bare(host), port_of(uri));
        let to_proxy = self.proxy.as_ref().is_some_and(|(name, at)| name == host && *at == port);
        let mut found = false;
        let mut addresses = self.empty();
        for address in (bare, port).to_socket_addrs()? {
            found = true;
            let allowed = to_proxy || self.rules.allows(bare, port, address.ip());
            if allowed && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        if !addresses.is_empty() {
            return Ok(addresses);
        }
        if !found {
            return Err(ureq::Error::HostNotFound);
        }
        Err(ureq::Error::Other(Box::new(self.rules.refusal(bare))))
    }
}

/// `host` without the brackets of an IPv6 address.
pub fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The port of `uri`; the scheme's where it names none.
pub fn port_of(uri: &Uri) -> u16 {
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}
