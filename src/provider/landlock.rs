//! What of the file system a provider reaches, where the kernel has Landlock (5.13 and later, and switched on).
//!
//! A provider reads and executes what the system installed, reads what name resolution and TLS need, and writes into its own
//! directory; everything else is as if it were not there, the host's state and configuration first of all. A process of such
//! a domain also cannot look into processes outside of it, and on newer kernels not signal them.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};

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

/// Whether this kernel has it.
pub fn is_there() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create)
        .is_ok()
}

/// Confines this process, for ever, to `binary`, `own` and what else `read` and `write` name. Paths that do not exist are
/// passed over. Whether the kernel took it.
///
/// # Errors
/// The kernel has Landlock and refuses.
pub fn confine(binary: &Path, own: &Path, read: &[PathBuf], write: &[PathBuf]) -> Result<bool, RulesetError> {
    let execute: BitFlags<AccessFs> = AccessFs::from_read(RIGHTS);
    let readable = execute & !BitFlags::from(AccessFs::Execute);
    let writable = AccessFs::from_all(RIGHTS) & !BitFlags::from(AccessFs::Execute);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(PROGRAMS, execute))?
        .add_rules(path_beneath_rules([binary], execute))?
        .add_rules(path_beneath_rules(READABLE, readable))?
        .add_rules(path_beneath_rules(read, readable))?
        .add_rules(path_beneath_rules(DEVICES, writable))?
        .add_rules(path_beneath_rules([own], writable))?
        .add_rules(path_beneath_rules(write, writable))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
