//! Names to addresses, with those left out that an actor may not reach.
//!
//! ureq asks it for every connection, also one to a pooled host, so what it lets through is the last word after every
//! redirect and whatever a name server says. It blocks; the C library bounds how long.

use std::{net::ToSocketAddrs, sync::Arc};

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

use super::allowed::AllowedHosts;
use crate::error::Error;

/// Addresses of one host that are tried. ureq takes no more than 16.
const ADDRESSES_MAX: usize = 16;

/// Keeps only the addresses that the list allows.
#[derive(Debug)]
pub struct GuardedResolver {
    /// What the link allows.
    pub allowed: Arc<AllowedHosts>,
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
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let to_proxy = self.proxy.as_ref().is_some_and(|(name, at)| name == host && *at == port);
        let mut found = false;
        let mut addresses = self.empty();
        for address in (bare, port).to_socket_addrs()? {
            found = true;
            let allowed = to_proxy || self.allowed.allows_address(bare, port, address.ip());
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
        Err(ureq::Error::Other(Box::new(Error::denied(format!(
            "every address of {bare} lies in a network that actors may not reach: list the address itself in the link \
             value `allowed_hosts` if they should"
        )))))
    }
}
