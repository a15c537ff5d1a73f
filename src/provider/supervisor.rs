//! The process between a host and one provider, so that nothing the provider started outlives either of them.
//!
//! `latticed __supervise` reads its [`Orders`] from the socket that is its standard input, starts the provider, and waits for
//! two things: the provider's end, which it reports, and the socket's end, which means that the host is gone, however that
//! came about. After either it kills what is left: the provider's process group, and then, as everything orphaned below it
//! becomes its own child, whatever has left that group. When it is killed itself, the kernel kills the provider. Meanwhile it
//! looks at what all of that uses ([`Watch`]), and ends it when that is too much.
//!
//! It is one thread that sleeps, holds no secret once the provider has read its host data, and never restarts anything.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, kill_process_group,
        pidfd_open, set_child_subreaper, wait, waitid, waitpid,
    },
};
use zeroize::Zeroizing;

use super::{
    cgroup, confine, kill_tree, process_tree,
    supervisor_protocol::{Command, MAX_LINE_BYTES, Orders, Report},
    watch::Watch,
};
use crate::{
    dumpable,
    error::{Context, Error, Kind, Result},
};

/// First argument of this helper.
pub const ARGUMENT: &str = "__supervise";

/// Room for orders as they usually are, bytes: links of a dozen actors fit. More is read all the same.
const USUAL_LINE_BYTES: usize = 64 * 1024;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 4096;

/// How often orphans of a provider that lives are collected. They take no memory but an entry in the process table each.
const COLLECT: Duration = Duration::from_secs(60);

/// Where the kernel cannot wake us for the provider's end (before Linux 5.3), it is looked for this often.
const LOOK: Duration = Duration::from_millis(250);

/// How long processes that were killed may take to disappear. One in an uninterruptible wait stays, and is init's then.
const SWEEP: Duration = Duration::from_secs(5);

/// Wait between two rounds of killing.
const SWEEP_ROUND: Duration = Duration::from_millis(5);

/// Runs this process as the helper.
pub fn main() -> ExitCode {
    let outcome = host_socket().and_then(supervise);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("latticed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The socket that the host gave us as standard input.
fn host_socket() -> Result<UnixStream> {
    let input = io::stdin();
    let socket = input.as_fd().try_clone_to_owned().context(Kind::Internal, "cannot use standard input")?;
    Ok(UnixStream::from(socket))
}

fn supervise(mut host: UnixStream) -> Result<()> {
    // The orders hold seeds: no other process of this user may look into our memory.
    dumpable::forbid()?;
    let orders = read_orders(&host)?;
    set_child_subreaper(Some(getpid())).map_err(|cause| Error::internal(format!("cannot adopt orphans: {cause}")))?;
    let group = orders.cgroup.clone();
    let mut watch = Watch::new(orders.limits.clone(), &orders.directory);
    if let Some(reason) = watch.over_on_disk() {
        return report(&mut host, &Report::Failed { reason });
    }
    let child = match start(orders) {
        Ok(child) => child,
        Err(error) => return report(&mut host, &Report::Failed { reason: error.text().to_owned() }),
    };
    let provider = Pid::from_child(&child);
    drop(child);
    report(&mut host, &Report::Started { process_id: provider.as_raw_nonzero().get() })?;
    let ended = attend(&mut host, provider, &mut watch);
    if !matches!(ended, Some(Report::Ended { .. })) {
        // Not collected yet, so the number is still its own.
        let _ = kill_process(provider, Signal::KILL);
        let _ = kill_process_group(provider, Signal::KILL);
    }
    sweep();
    if let Some(group) = &group {
        cgroup::end(group);
    }
    match ended {
        Some(ended) => report(&mut host, &ended),
        None => Ok(()),
    }
}

fn read_orders(mut host: &UnixStream) -> Result<Orders> {
    // Both hold seeds for a moment. Nothing follows the orders before they are answered, so all there is may be taken.
    let mut line = Zeroizing::new(Vec::with_capacity(USUAL_LINE_BYTES));
    let mut piece = Zeroizing::new([0; PIECE_BYTES]);
    while !line.ends_with(b"\n") && line.len() <= MAX_LINE_BYTES {
        match host.read(&mut piece[..]).context(Kind::Unavailable, "cannot read orders")? {
            0 => break,
            count => line.extend_from_slice(&piece[..count]),
        }
    }
    serde_json::from_slice(&line).map_err(|_| Error::usage("this command is for the host's own use"))
}

fn report(host: &mut UnixStream, report: &Report) -> Result<()> {
    let mut line = serde_json::to_vec(report).context(Kind::Internal, "cannot write a report")?;
    line.push(b'\n');
    // A host that is gone needs no report.
    let _ = host.write_all(&line);
    Ok(())
}

fn start(orders: Orders) -> Result<Child> {
    let mut command = confine::command(&orders, getpid())?;
    let Orders { directory, environment, host_data, .. } = orders;
    command.env_clear().envs(environment).current_dir(directory).stdin(Stdio::piped());
    let mut child = command.spawn().context(Kind::Unavailable, "cannot start a process for the provider")?;
    if let Some(mut input) = child.stdin.take() {
        // A provider may never read; it must not be able to stop us. The pipe stays open for its life, as other hosts keep it.
        let writer = move || {
            let written = input.write_all(host_data.as_bytes()).and_then(|()| input.flush());
            drop(host_data);
            if written.is_ok() {
                loop {
                    thread::park();
                }
            }
        };
        thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(writer)
            .context(Kind::Unavailable, "cannot start a thread for the host data")?;
    }
    Ok(child)
}

/// Waits until the provider ends, and tells how, or uses more than it may, or until the host is gone.
fn attend(host: &mut UnixStream, provider: Pid, watch: &mut Watch) -> Option<Report> {
    let pidfd: Option<OwnedFd> = pidfd_open(provider, PidfdFlags::empty()).ok();
    let patience = if pidfd.is_some() { COLLECT } else { LOOK };
    loop {
        let patience = watch.wait().map_or(patience, |wait| wait.min(patience));
        let patience = Timespec::try_from(patience).ok();
        let mut awaited = vec![PollFd::new(&*host, PollFlags::IN)];
        awaited.extend(pidfd.as_ref().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)));
        if poll(&mut awaited, patience.as_ref()).is_err_and(|cause| cause != Errno::INTR) {
            return None;
        }
        let spoken = !awaited[0].revents().is_empty();
        if let Some(ended) = collect(provider) {
            return Some(ended);
        }
        if let Some(reason) = watch.look() {
            return Some(Report::Over { reason });
        }
        if spoken {
            let mut said = [0; 256];
            match host.read(&mut said) {
                Ok(0) | Err(_) => return None,
                Ok(count) => obey(&said[..count], provider),
            }
        }
    }
}

fn obey(said: &[u8], provider: Pid) {
    for line in said.split(|byte| *byte == b'\n') {
        if let Ok(Command::Terminate) = serde_json::from_slice(line) {
            let _ = kill_process(provider, Signal::TERM);
            let _ = kill_process_group(provider, Signal::TERM);
        }
    }
}

/// Takes every child off the process table that has ended; how the provider did, if it is among them.
fn collect(provider: Pid) -> Option<Report> {
    // Looked at before it is collected: its number stays its own until its process group is dealt with.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if let Ok(Some(status)) = waitid(WaitId::Pid(provider), look) {
        let _ = kill_process_group(provider, Signal::KILL);
        return Some(Report::Ended { status: status.exit_status(), signal: status.terminating_signal() });
    }
    for orphan in process_tree::children().into_iter().filter(|child| *child != provider) {
        let _ = waitpid(Some(orphan), WaitOptions::NOHANG);
    }
    None
}

/// Kills and collects everything below this process.
fn sweep() {
    let until = Instant::now() + SWEEP;
    loop {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // No child is left, and nobody who could have one.
                Err(_) => return,
            }
        }
        kill_tree::kill(|| process_tree::children().into_iter().map(Pid::as_raw_pid).collect());
        if Instant::now() >= until {
            return;
        }
        thread::sleep(SWEEP_ROUND);
    }
}
