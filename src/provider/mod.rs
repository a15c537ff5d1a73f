//! Providers as processes, seen from the host (`protocol/providers.md`): from an archive to a child that serves a contract.
//!
//! ```text
//! host ── socket ── supervisor (`latticed`, one per provider) ── provider ── its children
//! ```
//!
//! * [`binaries`]: what was unpacked from archives, by content; checked again before each start.
//! * `work_dirs`: the directories they work in.
//! * [`environment`]: what of this host's environment a provider sees; what it is told is [`crate::wire::host_data`].
//! * [`process`]: one process from start to end: readiness, links, health, shutdown. The host's side of [`supervisor`],
//!   which runs in a process of its own and sees to it that nothing outlives the host; the words between them are
//!   [`supervisor_protocol`].
//! * [`watch`] and `usage`: what the supervisor looks at while the provider runs: memory, tasks, disk; [`quota`]: where
//!   the kernel keeps the limits of the disk.
//! * `supervisors`: which processes are providers', told by whom they descend from.
//! * [`confine`]: what a process takes from itself right before it becomes the provider; [`layers`] says which of that the
//!   kernel has, `landlock`, `seccomp` and `new_code` are the layers.
//!
//! It implements what `host` asks of it ([`crate::host::Processes`]), and reaches the lattice only through
//! [`crate::host::Uplink`]. It never runs anything but the binary that a checked token vouches for, never a shell, and never
//! puts a secret where `ps` or `/proc` shows it.

pub mod binaries;
mod cgroup;
pub mod confine;
pub mod credentials;
mod descriptors;
pub mod environment;
pub mod health;
mod kill_tree;
mod landlock;
pub mod layers;
mod new_code;
mod output;
pub mod process;
mod process_tree;
pub mod quota;
mod quota_calls;
pub mod rules;
mod seccomp;
pub mod settings;
pub mod supervisor;
pub mod supervisor_protocol;
mod supervisors;
pub mod tasks;
mod usage;
pub mod user;
pub mod watch;
mod work_dirs;

use std::{collections::BTreeSet, ffi::OsString, process::ExitCode, sync::Arc};

pub use settings::Settings;

use crate::{
    claims::{Policy, SignedProvider},
    error::{Error, Result},
    host::{BoxFuture, Capability, ProcessStart, Processes, ProviderName},
    log,
};
use binaries::Binaries;
use layers::{Kernel, Layers};
use supervisors::Supervisors;
use work_dirs::WorkDirs;

/// Runs this process as a helper of a host, if that is what `arguments` (without the program's name) ask for.
pub fn helper(arguments: &[OsString]) -> Option<ExitCode> {
    match arguments.first()?.to_str()? {
        supervisor::ARGUMENT => Some(supervisor::main()),
        confine::ARGUMENT => Some(confine::main(&arguments[1..])),
        _ => None,
    }
}

/// Providers of one host.
pub struct Providers {
    settings: Arc<Settings>,
    binaries: Binaries,
    work_dirs: WorkDirs,
    supervisors: Arc<Supervisors>,
}

impl Providers {
    /// Nothing runs yet. Only for the program itself: orphans below this process become its children.
    pub fn new(mut settings: Settings) -> Arc<Self> {
        settings.kernel = Kernel::probe();
        let (_, missing) = Layers::choose(&settings.confinement, settings.kernel);
        if !missing.is_empty() {
            log::warn!("this kernel cannot confine these of provider processes: {}", missing.join(", "));
        }
        settings.cgroup = cgroup::prepare();
        let binaries = Binaries::new(settings.directory.join("bin"));
        let work_dirs = WorkDirs::new(settings.directory.join("run"));
        Arc::new(Self { settings: Arc::new(settings), binaries, work_dirs, supervisors: Supervisors::adopting() })
    }

    fn policy(&self, policy: Policy) -> Policy {
        Policy { legacy_archives: self.settings.legacy_archives, ..policy }
    }
}

impl Processes for Providers {
    fn keep(&self, archive: Vec<u8>, policy: Policy) -> BoxFuture<'static, Result<SignedProvider>> {
        let (binaries, policy) = (self.binaries.clone(), self.policy(policy));
        Box::pin(smol::unblock(move || binaries.keep(archive.as_slice(), &policy)))
    }

    fn check(&self, token: String, policy: Policy) -> BoxFuture<'static, Result<SignedProvider>> {
        let (binaries, policy) = (self.binaries.clone(), self.policy(policy));
        Box::pin(smol::unblock(move || binaries.check(&token, &policy)))
    }

    fn start(&self, start: ProcessStart) -> BoxFuture<'static, Result<Arc<dyn Capability>>> {
        let (settings, binary) = (self.settings.clone(), self.binaries.path(&start.claims.binary_hash));
        let (supervisors, work_dirs) = (self.supervisors.clone(), self.work_dirs.clone());
        Box::pin(async move {
            let name = (start.desired.public_key.clone(), start.desired.link_name.clone());
            let directory = smol::unblock(move || work_dirs.make(&name)).await;
            let below = settings.directory.display();
            let directory =
                directory.map_err(|cause| failed(format!("cannot make a directory below {below}"), &cause))?;
            let process = process::Process::start(settings, supervisors, (binary, directory), start).await?;
            Ok(process as Arc<dyn Capability>)
        })
    }

    fn leave(&self, name: ProviderName) -> BoxFuture<'static, ()> {
        let work_dirs = self.work_dirs.clone();
        Box::pin(smol::unblock(move || work_dirs.leave(&name)))
    }

    fn tidy(&self, needed: BTreeSet<String>, wanted: BTreeSet<ProviderName>) -> BoxFuture<'static, ()> {
        let (binaries, work_dirs) = (self.binaries.clone(), self.work_dirs.clone());
        Box::pin(smol::unblock(move || {
            binaries.tidy(&needed);
            work_dirs.tidy(&wanted);
        }))
    }

    fn check_manager(&self, process_id: i32) -> BoxFuture<'static, Result<()>> {
        let supervisors = self.supervisors.clone();
        Box::pin(smol::unblock(move || supervisors.check_manager(process_id)))
    }

    fn restarts(&self) -> u32 {
        self.settings.restarts
    }
}

/// What failed at the operating system, as an error of this room.
fn failed(what: impl std::fmt::Display, cause: &std::io::Error) -> Error {
    Error::storage(format!("{what}: {cause}"))
}
