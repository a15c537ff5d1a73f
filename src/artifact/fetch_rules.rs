//! Which addresses a fetch may reach.
//!
//! One object lives as long as one attempt and is asked before each request and for each address a name resolves to, so a
//! redirect and a name server are judged like the reference itself.
//!
//! * For a command of the lattice: public addresses, what `WASMCLOUD_REMOTE_FETCH_ALLOW` lists, and the registries that the
//!   settings name. Behind a proxy, which resolves names by itself, only what is listed by name.
//! * For the operator: the host that the reference names may be anywhere. A redirect to another host may not lead nearer to
//!   this board than the first address was: not from the internet into the site, not from the site to this machine.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    allowed_hosts::{AllowedHosts, Reach, reach},
    artifact::{Requester, Settings},
    error::{Error, Result},
    guarded_resolver::AddressRules,
    lock::{Mutex, MutexGuard},
};

/// The setting that opens what is closed here.
pub const ALLOW_SETTING: &str = "WASMCLOUD_REMOTE_FETCH_ALLOW";

/// The port of a registry whose name has none, with and without TLS.
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// See the file.
#[derive(Debug)]
pub struct FetchRules {
    requester: Requester,
    allowed: AllowedHosts,
    /// Host in lower case and port of the registries that the settings name.
    named: BTreeSet<(String, u16)>,
    begun: Mutex<Option<Begun>>,
}

/// Where the attempt began.
#[derive(Debug)]
struct Begun {
    host: String,
    /// The settings name it as a registry.
    is_named: bool,
    /// Of its addresses the one that is farthest from this board, once it was resolved.
    reach: Option<Reach>,
}

impl FetchRules {
    /// For one attempt on the word of `requester`.
    pub fn new(requester: Requester, settings: &Settings) -> Self {
        Self { requester, allowed: settings.fetch_allow.clone(), named: BTreeSet::new(), begun: Mutex::default() }
    }

    /// For one attempt at an image: the registries of the insecure list and of the logins that the settings hold,
    /// `logins`, may be anywhere.
    pub fn for_images(requester: Requester, settings: &Settings, logins: impl IntoIterator<Item = String>) -> Self {
        let insecure = settings.insecure.iter().map(|registry| named(registry, HTTP_PORT));
        let named = insecure.chain(logins.into_iter().map(|registry| named(&registry, HTTPS_PORT))).collect();
        Self { named, ..Self::new(requester, settings) }
    }

    /// Refuses a request to `host` that can be refused before its name is resolved. With `by_proxy` a proxy resolves the
    /// name, and no address of it is ever seen here.
    ///
    /// # Errors
    /// `Denied`.
    pub fn check(&self, host: &str, port: u16, by_proxy: bool) -> Result<()> {
        let host = host.to_ascii_lowercase();
        {
            let is_named = self.named.contains(&(host.clone(), port));
            self.begun().get_or_insert_with(|| Begun { host: host.clone(), is_named, reach: None });
        }
        match host.parse::<IpAddr>() {
            Ok(address) if self.allows(&host, port, address) => Ok(()),
            Ok(_) => Err(self.refusal(&host)),
            Err(_) if by_proxy && self.requester == Requester::Lattice && !self.is_listed(&host, port) => {
                Err(Error::denied(format!(
                    "a proxy resolves the name {host}, so its address cannot be checked here, and a command of the lattice \
                     asks for it: name {host} in {ALLOW_SETTING} if commands may have it fetched"
                )))
            }
            Err(_) => Ok(()),
        }
    }

    /// Whether a name is listed as such.
    fn is_listed(&self, host: &str, port: u16) -> bool {
        let at_begin = self.begun().as_ref().is_some_and(|begun| begun.is_named && begun.host == host);
        at_begin || self.named.contains(&(host.to_owned(), port)) || self.allowed.names(host, port)
    }

    fn begun(&self) -> MutexGuard<'_, Option<Begun>> {
        self.begun.lock()
    }
}

impl AddressRules for FetchRules {
    fn allows(&self, host: &str, port: u16, address: IpAddr) -> bool {
        let host = host.to_ascii_lowercase();
        let listed = self.named.contains(&(host.clone(), port)) || self.allowed.allows_address(&host, port, address);
        let mut begun = self.begun();
        let Some(begun) = begun.as_mut() else { return listed };
        if begun.host != host {
            let no_nearer = begun.reach.is_some_and(|first| reach(address) <= first);
            return listed || (self.requester == Requester::Operator && no_nearer);
        }
        let allowed = listed || begun.is_named || self.requester == Requester::Operator;
        if allowed {
            begun.reach = Some(begun.reach.map_or(reach(address), |before| before.min(reach(address))));
        }
        allowed
    }

    fn refusal(&self, host: &str) -> Error {
        match (self.requester, self.begun().as_ref().filter(|begun| begun.host != host)) {
            (Requester::Operator, Some(begun)) => Error::denied(format!(
                "{} sends on to {host}, which is nearer to this board than {} is, and that is not followed: name {host} in \
                 {ALLOW_SETTING} if it should be",
                begun.host, begun.host
            )),
            _ => Error::denied(format!(
                "{host} is an address of this machine or of a private network, and a command of the lattice asks for it: \
                 name {host} in {ALLOW_SETTING} if commands may have it fetched, or write the reference into a manifest of \
                 this board"
            )),
        }
    }
}

/// `HOST[:PORT]` of a registry, taken apart.
fn named(registry: &str, default_port: u16) -> (String, u16) {
    let registry = registry.to_ascii_lowercase();
    match registry.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?))) {
        Some(found) => found,
        None => (registry, default_port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(allow: &str) -> Settings {
        let fetch_allow = AllowedHosts::parse(allow, ALLOW_SETTING).unwrap().and_public();
        Settings { fetch_allow, insecure: vec!["registry.lan:5000".into()], ..Settings::default() }
    }

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    /// Whether a request to `host`, which resolves to `address`, is made.
    fn reaches(rules: &FetchRules, host: &str, port: u16, address: &str) -> bool {
        rules.check(host, port, false).is_ok() && rules.allows(host, port, at(address))
    }

    const INSIDE: [&str; 6] = ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fe80::1"];

    #[test]
    fn commands_reach_public_addresses_and_what_is_listed() {
        let rules = |allow: &str| FetchRules::new(Requester::Lattice, &settings(allow));
        assert!(reaches(&rules(""), "example.org", 443, "1.1.1.1"));
        for inside in INSIDE {
            assert!(!reaches(&rules(""), "example.org", 443, inside), "{inside} by a name");
            assert!(rules("").check(inside, 80, false).is_err(), "{inside} by itself");
        }
        assert!(!reaches(&rules(""), "registry.lan", 5000, "192.168.1.1"), "a registry is named for images alone");
        assert!(reaches(&rules("files.lan:8080"), "files.lan", 8080, "192.168.1.1"));
        assert!(!reaches(&rules("files.lan:8080"), "files.lan", 22, "192.168.1.1"));
        assert!(!reaches(&rules("files.lan:8080"), "files.lan", 8080, "127.0.0.1"));
        assert!(reaches(&rules("127.0.0.1"), "127.0.0.1", 80, "127.0.0.1"));
    }

    #[test]
    fn commands_are_not_led_inside_by_a_redirect() {
        let rules = FetchRules::new(Requester::Lattice, &settings(""));
        assert!(reaches(&rules, "example.org", 443, "1.1.1.1"));
        for inside in INSIDE {
            assert!(!reaches(&rules, "other.example.org", 443, inside), "{inside}");
            assert!(!reaches(&rules, "example.org", 443, inside), "{inside}: the name has changed its address");
        }
    }

    #[test]
    fn registries_of_the_settings_may_be_anywhere_and_lead_nowhere_else() {
        let rules =
            || FetchRules::for_images(Requester::Lattice, &settings(""), ["login.lan".into(), "l.lan:5443".into()]);
        for (host, port) in [("registry.lan", 5000), ("Login.lan", 443), ("l.lan", 5443)] {
            let rules = rules();
            assert!(reaches(&rules, host, port, "192.168.1.1"), "{host}");
            assert!(reaches(&rules, host, 8443, "192.168.1.1"), "its token service on the same host");
            assert!(!reaches(&rules, "storage.lan", 80, "192.168.1.2"), "{host} leads elsewhere");
        }
        for (host, port) in [("registry.lan", 22), ("login.lan", 80), ("other.lan", 5000)] {
            assert!(!reaches(&rules(), host, port, "192.168.1.1"), "{host}:{port}");
        }
    }

    #[test]
    fn a_proxy_hides_addresses_so_commands_need_a_name() {
        let rules = |requester| FetchRules::new(requester, &settings("ghcr.io"));
        assert!(rules(Requester::Lattice).check("ghcr.io", 443, true).is_ok());
        assert!(rules(Requester::Lattice).check("1.1.1.1", 443, true).is_ok());
        assert!(rules(Requester::Lattice).check("10.0.0.1", 443, true).is_err());
        let refused = rules(Requester::Lattice).check("printer.lan", 443, true).unwrap_err();
        assert!(refused.text().contains(ALLOW_SETTING), "{refused}");
        assert!(rules(Requester::Operator).check("printer.lan", 443, true).is_ok());
    }

    #[test]
    fn what_the_operator_names_may_be_anywhere_and_is_not_sent_nearer() {
        for (first, nearer) in [("1.1.1.1", "192.168.1.1"), ("1.1.1.1", "127.0.0.1"), ("192.168.1.1", "127.0.0.1")] {
            let rules = FetchRules::new(Requester::Operator, &settings(""));
            assert!(reaches(&rules, "files.example", 80, first));
            assert!(reaches(&rules, "files.example", 443, first), "another port");
            assert!(reaches(&rules, "storage.example", 80, first), "as far");
            assert!(reaches(&rules, "storage.example", 80, "1.1.1.1"), "farther");
            assert!(!reaches(&rules, "storage.example", 80, nearer), "{first} to {nearer}");
            assert!(rules.check(nearer, 80, false).unwrap_err().text().contains("files.example sends on"));
        }
    }
}
