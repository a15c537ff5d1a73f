//! What of the file system a provider reaches, where the kernel has Landlock (5.13 and later, and switched on).
//!
//! A provider reads and executes what the system installed, reads what name resolution and TLS need, and writes into its own
//! directory; everything else is as if it were not there, the host's state and configuration first of all. A process of such
//! a domain also cannot look into processes outside of it. On newer kernels it cannot signal them, nor reach their abstract
//! sockets, and connects over TCP only to the ports it was given: that of the NATS server, those of its rules, and
//! [`RELAY_PORTS`]. Listening is not restricted: serving is what many providers are for.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::layers::Layers;
use crate::nats::guard::RELAY_PORTS;

/// Rights that are handled: those of Linux 6.2. Older kernels handle fewer of them, and what they do not know they allow.
const RIGHTS: ABI = ABI::V3;

/// What every provider may read and execute: the system's programs and libraries.
const PROGRAMS: [&str; 10] =
    ["/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/nix/store", "/gnu/store", "/run/current-system"];

/// What every provider may read: how names, users and certificates are found, and what the kernel tells.
const READABLE: [&str; 29] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/passwd",
    "/etc/group",
    "/etc/os-release",
    "/etc/machine-id",
    "/etc/alternatives",
    "/etc/static/ssl",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/connman",
    "/var/lib/ca-certificates",
];

/// Devices that every program expects.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// A set that fails where the kernel does not have all that it handles.
fn strict() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

/// Whether this kernel has rules for files.
pub fn has_files() -> bool {
    strict().handle_access(AccessFs::from_all(ABI::V1)).and_then(Ruleset::create).is_ok()
}

/// Whether this kernel has rules for TCP.
pub fn has_tcp() -> bool {
    strict().handle_access(AccessNet::ConnectTcp).and_then(Ruleset::create).is_ok()
}

/// Whether this kernel has scopes for signals and abstract sockets.
pub fn has_scopes() -> bool {
    strict().scope(Scope::Signal | Scope::AbstractUnixSocket).and_then(Ruleset::create).is_ok()
}

/// What one process may reach.
pub struct Reach<'a> {
    /// Its program.
    pub binary: &'a Path,
    /// Its directory.
    pub own: &'a Path,
    /// What it may read besides.
    pub read: &'a [PathBuf],
    /// What it may read and write besides.
    pub write: &'a [PathBuf],
    /// The ports it may connect to.
    pub ports: &'a [u16],
}

/// Confines this process, for ever, to `reach`, with those of `layers` that are Landlock's. Paths that do not exist are passed
/// over.
///
/// # Errors
/// The kernel does not have one of them, or refuses.
pub fn confine(layers: &Layers, reach: &Reach<'_>) -> Result<(), RulesetError> {
    if layers.tcp || layers.scopes {
        let mut set = strict();
        if layers.tcp {
            set = set.handle_access(AccessNet::ConnectTcp)?;
        }
        if layers.scopes {
            set = set.scope(Scope::Signal | Scope::AbstractUnixSocket)?;
        }
        let mut set = set.create()?;
        if layers.tcp {
            let ports = reach.ports.iter().copied().chain(RELAY_PORTS);
            set = set.add_rules(ports.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))))?;
        }
        set.restrict_self()?;
    }
    if layers.files {
        confine_files(reach)?;
    }
    Ok(())
}

fn confine_files(reach: &Reach<'_>) -> Result<(), RulesetError> {
    let Reach { binary, own, read, write, .. } = *reach;
    let execute: BitFlags<AccessFs> = AccessFs::from_read(RIGHTS);
    let readable = execute & !BitFlags::from(AccessFs::Execute);
    let writable = AccessFs::from_all(RIGHTS) & !BitFlags::from(AccessFs::Execute);
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, execute))?
        .add_rules(path_beneath_rules([binary], execute))?
        .add_rules(path_beneath_rules(READABLE, readable))?
        .add_rules(path_beneath_rules(read, readable))?
        .add_rules(path_beneath_rules(DEVICES, writable))?
        .add_rules(path_beneath_rules([own], writable))?
        .add_rules(path_beneath_rules(write, writable))?
        .restrict_self()?;
    debug_assert_ne!(status.ruleset, RulesetStatus::NotEnforced, "the first right was a hard requirement");
    Ok(())
}
