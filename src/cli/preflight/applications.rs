//! Manifests as a host would run them: built-in providers, link values, ports.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::{
    artifact::Source,
    capability::{self, messaging, preview},
    cli::run::capabilities,
    config::{
        Config,
        manifest::{Actor, Application, Capability, Link},
    },
    error::{Error, Result},
    host::check_link_name,
    lattice,
    web::probes::Place,
    wire::{LinkDefinition, subject::check_part},
};

/// Judges manifests of one host, one after another; remembers who listens where.
pub struct Judge {
    settings: capability::Settings,
    ways: messaging::Ways,
    joins: bool,
    ports: Vec<Taken>,
}

/// A place where somebody listens.
struct Taken {
    address: SocketAddr,
    /// The manifest that asks for it; `""` for the host itself.
    file: PathBuf,
    /// Who, for people.
    who: String,
}

impl Judge {
    /// For a host with the settings `config`.
    pub fn new(config: &Config) -> Self {
        let mut ports = Vec::new();
        let mut take = |address: SocketAddr, who: &str| {
            ports.push(Taken { address, file: PathBuf::new(), who: who.to_owned() });
        };
        if let Some(Ok(Place::Tcp(address))) = config.probes.as_deref().map(Place::parse) {
            take(address, "WASMCLOUD_PROBES");
        }
        if let Some(address) = config.mirror.listen {
            take(address, "WASMCLOUD_MIRROR_LISTEN");
        }
        let reserved = config.joins().then(|| lattice::reserved(&config.ctl_topic_prefix));
        Self {
            settings: capabilities(config, None, None),
            ways: messaging::Ways { reserved, check: lattice::check_bus },
            joins: config.joins(),
            ports,
        }
    }

    /// What of the manifest `application`, read from `file`, has no effect. In the place of an earlier one of that file.
    ///
    /// # Errors
    /// What keeps it or one of its links from coming into force, at its line and column.
    pub fn judge(&mut self, file: &Path, application: &Application) -> Result<Vec<String>> {
        self.ports.retain(|taken| taken.file != file);
        let mut warnings = Vec::new();
        for capability in application.capabilities.iter().filter(|capability| capability.runs_here) {
            let at = format!("{}:{}: {}", file.display(), capability.position, capability.name);
            let found = self.capability(capability).map_err(|error| error.context(&at))?;
            warnings.extend(found.map(|text| format!("{at}: {text}")));
        }
        let mut ports = Vec::new();
        for actor in application.actors.iter().filter(|actor| actor.runs_here) {
            for link in &actor.links {
                let at = format!("{}:{}: {}", file.display(), link.position, actor.name);
                let plan = self.link(application, actor, link).map_err(|error| error.context(&at))?;
                warnings.extend(plan.warnings.into_iter().map(|text| format!("{at}: {text}")));
                let Some(address) = plan.listens else { continue };
                if let Some(taken) = self.ports.iter().chain(&ports).find(|taken| overlap(taken.address, address)) {
                    return Err(Error::conflict(format!(
                        "{at}: cannot listen on {address}: {} is to listen on {}; give one of them another port",
                        taken.who, taken.address
                    )));
                }
                let who = format!("the actor {} ({}:{})", actor.name, file.display(), link.position);
                ports.push(Taken { address, file: file.to_owned(), who });
            }
        }
        self.ports.extend(ports);
        Ok(warnings)
    }

    /// Where `file` listens.
    pub fn listens(&self, file: &Path) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().filter(move |taken| taken.file == file).map(|taken| taken.address)
    }

    fn capability(&self, capability: &Capability) -> Result<Option<String>> {
        let Source::Builtin(name) = capability.reference.source() else {
            check_link_name(&capability.link_name)?;
            if !self.joins {
                return Err(crate::host::no_processes());
            }
            return Ok(None);
        };
        let known = preview::known(name)?;
        if known.contract_id != capability.contract_id {
            return Err(Error::config(format!(
                "{} serves {}, the manifest says {}",
                capability.reference, known.contract_id, capability.contract_id
            )));
        }
        check_part("link name", &capability.link_name)?;
        let idle = capability.configuration.is_some() && !known.configured;
        Ok(idle.then(|| format!("config of {} has no effect: set the values of its links", capability.reference)))
    }

    fn link(&self, application: &Application, actor: &Actor, link: &Link) -> Result<preview::LinkPlan> {
        let target = application.capabilities.iter().find(|capability| capability.name == link.target);
        // The reader of manifests has refused a link without its target.
        let Some(target) = target else { return Ok(preview::LinkPlan::default()) };
        let Source::Builtin(name) = target.reference.source() else { return Ok(preview::LinkPlan::default()) };
        let definition = LinkDefinition {
            actor_id: actor.name.clone(),
            link_name: target.link_name.clone(),
            contract_id: target.contract_id.clone(),
            values: link.values.clone(),
            ..LinkDefinition::default()
        };
        preview::link(name, &self.settings, &self.ways, target.configuration.as_deref(), &definition)
    }
}

/// Whether two sockets cannot listen on `one` and `other` at once. An unspecified IPv6 address takes IPv4 too.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    if one.port() != other.port() || one.port() == 0 {
        return false;
    }
    let covers = |wide: IpAddr, ip: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4());
    one.ip() == other.ip() || covers(one.ip(), other.ip()) || covers(other.ip(), one.ip())
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn addresses_overlap_as_the_kernel_sees_it() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::1]:80", "127.0.0.1:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (one, other) = (one.parse().expect("an address"), other.parse().expect("an address"));
            assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
            if expected {
                let first = std::net::TcpListener::bind(std::net::SocketAddr::new(one.ip(), 0)).expect("a free port");
                let port = first.local_addr().expect("bound").port();
                assert!(
                    std::net::TcpListener::bind((other.ip(), port)).is_err(),
                    "the kernel lets {one} and {other} be"
                );
            }
        }
    }
}
