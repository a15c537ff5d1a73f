//! What a process takes from itself right before it becomes a provider.
//!
//! `latticed __confine JSON BINARY` is started by the supervisor, sets everything on itself with plain system calls and then
//! executes the binary in its place. So no code runs between a fork and an exec, and what could not be set stops the start:
//! a provider never runs with less than the [`Layers`] that were chosen for it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{
        Pid, Resource, Rlimit, Signal, getpid, getppid, getuid, set_parent_process_death_signal, setrlimit, setsid,
    },
    thread::set_no_new_privs,
};
use serde::{Deserialize, Serialize};

use super::{
    cgroup, descriptors,
    landlock::{self, Reach},
    layers::{Layers, Mode},
    new_code,
    seccomp::{self, Wanted},
    supervisor_protocol::Orders,
    tasks,
    user::{self, User},
    watch,
};
use crate::error::{Error, Result};

/// First argument of this helper.
pub const ARGUMENT: &str = "__confine";

/// Exit status when something could not be set. High, and away from what shells and programs use.
pub const CANNOT_CONFINE: i32 = 120;

/// Exit status when the binary could not be executed.
pub const CANNOT_EXECUTE: i32 = 121;

/// Attempts to execute a binary that another process still has open for writing: a fork of the host in the wrong moment.
const BUSY_ATTEMPTS: u32 = 20;

/// Wait between two of these attempts.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// Memory of one provider unless set otherwise, bytes: writable private memory, stacks included. First-party providers use 10
/// to 40 MiB; half a gigabyte stops a leak before it takes a board down.
pub const MEMORY_BYTES: u64 = 512 << 20;

/// Open files of one provider unless set otherwise; the usual soft limit of a session is a quarter of it.
pub const FILES: u64 = 4096;

/// Processes and threads of one provider unless set otherwise. A provider in Rust or Go has a dozen; seven such limits and the
/// host's own fit the `TasksMax` of the unit.
pub const PROCESSES: u64 = 64;

/// What the kernel adds when it looks for a process to end because memory is short, in thousandths of the memory there is:
/// providers go before the host and its supervisors, and before what else the machine runs. A process cannot lower it again.
const OOM_SCORE: i32 = 800;

/// What a provider may use and reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Writable memory, bytes; 0 is no limit.
    pub memory_bytes: u64,
    /// Open files; 0 is no limit.
    pub files: u64,
    /// Processes and threads; 0 is no limit.
    pub processes: u64,
    /// What its directory may hold, bytes; 0 is no limit.
    pub disk_bytes: u64,
    /// How many files its directory may hold; 0 is no limit.
    pub disk_files: u64,
    /// What happens where the kernel cannot do the rest.
    pub mode: Mode,
    /// Whether it sees only its part of the file system, and of what is outside of it neither processes nor sockets.
    pub landlock: bool,
    /// Whether its system calls are filtered.
    pub seccomp: bool,
    /// Whether it may write code and execute it, as just-in-time compilers do.
    pub jit: bool,
    /// Where it may connect to over TCP; with `landlock` only.
    pub connect: Connect,
    /// What it may read besides.
    pub read: Vec<PathBuf>,
    /// What it may read and write besides.
    pub write: Vec<PathBuf>,
    /// The user it runs as; the host's where there is none.
    #[serde(default)]
    pub user: Option<User>,
}

/// Where a provider may connect to over TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// To these ports.
    Ports(Vec<u16>),
    /// To any.
    Anywhere,
}

impl Connect {
    /// Adds a port.
    pub fn allow(&mut self, port: u16) {
        if let Connect::Ports(ports) = self
            && !ports.contains(&port)
        {
            ports.push(port);
        }
    }
}

impl Default for Confinement {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES,
            files: FILES,
            processes: PROCESSES,
            disk_bytes: watch::DISK_BYTES,
            disk_files: watch::DISK_FILES,
            mode: Mode::Best,
            landlock: true,
            seccomp: true,
            jit: false,
            connect: Connect::Ports(Vec::new()),
            read: Vec::new(),
            write: Vec::new(),
            user: None,
        }
    }
}

impl Confinement {
    /// In words, for the status; `disk_kept`: the kernel keeps the limits of the disk.
    pub fn words(&self, disk_kept: bool) -> String {
        let limit = |what: &str, limit: u64| if limit == 0 { String::new() } else { format!(", {limit} {what}") };
        let memory = if self.memory_bytes == 0 { String::new() } else { format!(", {} MiB", self.memory_bytes >> 20) };
        format!(
            "own session, no new privileges{memory}{}{}",
            limit("open files", self.files),
            limit("processes", self.processes)
        ) + &if self.disk_bytes == 0 { String::new() } else { format!(", {} MiB on disk", self.disk_bytes >> 20) }
            + &limit("files on disk", self.disk_files)
            + match (self.disk_bytes == 0 && self.disk_files == 0, disk_kept) {
                (true, _) => "",
                (false, true) => " (kept by the kernel)",
                (false, false) => " (watched)",
            }
            + &self.user.map_or_else(String::new, |user| format!(", user {}", user.id))
    }
}

/// What the helper is told in its argument; nothing in it is secret.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    confinement: Confinement,
    supervisor: i32,
    /// Where the provider may write.
    directory: PathBuf,
    /// Its control group.
    cgroup: Option<PathBuf>,
    /// What is in force for it.
    layers: Layers,
    /// Processes and threads of the host, which it may not signal.
    protected: Vec<i32>,
}

/// The command that becomes the binary of `orders`, confined as they say and ended by the kernel when the process `supervisor` ends.
pub(super) fn command(orders: &Orders, supervisor: Pid) -> Result<Command> {
    let task = Task {
        confinement: orders.confinement.clone(),
        supervisor: supervisor.as_raw_nonzero().get(),
        directory: orders.directory.clone(),
        cgroup: orders.cgroup.clone(),
        layers: orders.layers,
        protected: orders.protected.clone(),
    };
    let task = serde_json::to_string(&task).map_err(|cause| Error::internal(format!("a confinement: {cause}")))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg(ARGUMENT).arg(task).arg(&orders.binary);
    Ok(command)
}

/// Runs this process as the helper. Returns only when it failed.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let (task, binary) = match arguments {
        [task, binary] => (task, binary),
        _ => return complain(CANNOT_CONFINE, "this command is for the host's own use"),
    };
    let task: Task = match serde_json::from_str(&task.to_string_lossy()) {
        Ok(task) => task,
        Err(cause) => {
            return complain(CANNOT_CONFINE, &format!("this command is for the host's own use: its task: {cause}"));
        }
    };
    if let Err(error) = confine(&task, Path::new(binary)) {
        return complain(CANNOT_CONFINE, error.text());
    }
    complain(CANNOT_EXECUTE, &format!("cannot execute {}: {}", Path::new(binary).display(), execute(binary)))
}

/// Standard error is the provider's, which the host logs.
fn complain(status: i32, text: &str) -> ExitCode {
    eprintln!("latticed: {text}");
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

fn confine(task: &Task, binary: &Path) -> Result<()> {
    let failed = |what: &'static str| move |cause: Errno| Error::internal(format!("cannot {what}: {cause}"));
    setsid().map_err(failed("begin a session of its own"))?;
    go_first_when_memory_is_short()
        .map_err(|cause| Error::internal(format!("cannot be marked to go first: {cause}")))?;
    let Confinement { memory_bytes, files, processes, user, ref connect, ref read, ref write, .. } = task.confinement;
    let user_id = user.map_or_else(|| getuid().as_raw(), |user| user.id);
    for (resource, limit, what) in [
        (Resource::Data, memory_bytes, "limit its memory"),
        (Resource::Nofile, files, "limit its open files"),
        // The kernel counts all of the user's, the host's own included.
        (Resource::Nproc, tasks::user_limit(user_id, processes), "limit its processes"),
    ] {
        if limit > 0 {
            limit_to(resource, limit).map_err(failed(what))?;
        }
    }
    if let Some(group) = &task.cgroup {
        cgroup::enter(group)
            .map_err(|cause| Error::internal(format!("cannot enter its control group {}: {cause}", group.display())))?;
    }
    // A dump of a provider's memory would hold seeds.
    limit_to(Resource::Core, 0).map_err(failed("forbid core dumps"))?;
    set_no_new_privs(true).map_err(failed("give up new privileges"))?;
    descriptors::close_on_exec().map_err(|cause| Error::internal(format!("cannot close open files: {cause}")))?;
    let layers = &task.layers;
    let ports = match connect {
        Connect::Ports(ports) => &ports[..],
        Connect::Anywhere => &[],
    };
    landlock::confine(layers, &Reach { binary, own: &task.directory, read, write, ports })
        .map_err(|cause| Error::internal(format!("cannot confine it with Landlock: {cause}")))?;
    if layers.code_by_switch {
        new_code::forbid().map_err(|cause| Error::internal(format!("cannot forbid it to write code: {cause}")))?;
    }
    // What needs root is done.
    user::drop_capabilities().map_err(failed("give up capabilities"))?;
    if let Some(user) = user {
        user.become_it().map_err(failed("become the user of its rule"))?;
    }
    // Behind the change of the user, which would undo it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("ask to be ended with the host"))?;
    // It may have ended before the line above; then nobody would ever tell.
    if getppid() != Pid::from_raw(task.supervisor) {
        return Err(Error::unavailable("the supervisor is gone"));
    }
    if layers.syscalls {
        // Last: what is refused from here on includes what was done above.
        let mut protected = task.protected.clone();
        protected.push(task.supervisor);
        seccomp::apply(&Wanted {
            own: getpid().as_raw_pid(),
            protected: if layers.scopes { &[] } else { &protected },
            no_new_code: layers.code_by_filter,
            tcp: layers.tcp,
            visible: layers.files,
        })?;
    }
    Ok(())
}

/// Raises what the kernel adds for this process, unless it is higher already.
fn go_first_when_memory_is_short() -> std::io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let now = fs::read_to_string(FILE)?.trim().parse::<i32>().unwrap_or(0);
    if now < OOM_SCORE { fs::write(FILE, OOM_SCORE.to_string()) } else { Ok(()) }
}

/// Sets both limits, as far as those in force allow: nobody may raise a hard limit.
fn limit_to(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Some(limit.min(allowed));
    setrlimit(resource, Rlimit { current: limit, maximum: limit })
}

fn execute(binary: &OsStr) -> std::io::Error {
    let mut attempts = 0;
    loop {
        let cause = Command::new(binary).exec();
        attempts += 1;
        if cause.raw_os_error() != Some(libc::ETXTBSY) || attempts == BUSY_ATTEMPTS {
            return cause;
        }
        thread::sleep(BUSY_WAIT);
    }
}
