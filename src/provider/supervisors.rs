//! The supervisors of one host, and with them the processes that its providers are.
//!
//! [`super::process`] enlists each supervisor before that starts anything, and strikes it off when it was collected, so a number
//! here is never another process'. What descends from one of them is a provider's, whatever session, group or parent it has
//! chosen: a supervisor adopts the orphans below it, and should it be killed itself, the host adopts them and ends them. It
//! never takes a process for harmless because it cannot be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};

use super::{
    cgroup, kill_tree,
    process_tree::{self, Sight},
};
use crate::{
    error::{Error, Result},
    lock::{Mutex, MutexGuard},
    log,
};

/// Most generations between a process and whoever started its session that are followed. People's shells are a dozen deep;
/// whoever nests deeper is refused.
const MAX_GENERATIONS: usize = 256;

/// How often a line of ancestors is followed anew because one of them ended meanwhile.
const ATTEMPTS: usize = 4;

/// How long processes that were killed may take to disappear. One in an uninterruptible wait stays for the next round.
const SWEEP: Duration = Duration::from_secs(5);

/// Rounds in which nothing was found, one behind the other, after which nothing is left.
const CALM_ROUNDS: u32 = 3;

/// Wait between two rounds of killing.
const SWEEP_ROUND: Duration = Duration::from_millis(5);

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// No provider's of this host.
    Nobody,
    /// This provider's.
    Provider(String),
    /// That of a provider whose supervisor was killed.
    Lost,
    /// It cannot be found out, and why.
    Unknown(&'static str),
}

/// Running supervisors by process, each with the key of its provider.
#[derive(Default)]
pub struct Supervisors {
    running: Mutex<BTreeMap<i32, Enrolment>>,
    enlisted: AtomicU64,
    /// Whether what a killed supervisor leaves becomes this process' child.
    adopts: bool,
    /// Children that this process has had from before it was this program: nobody's business here.
    inherited: BTreeSet<i32>,
}

struct Enrolment {
    provider: String,
    /// Which of all this is: the kernel gives a number again once its process was collected.
    serial: u64,
}

impl Supervisors {
    /// For a process that adopts what killed supervisors leave, and ends it. Only for the program itself: whatever else
    /// becomes an orphan below this process is its child from now on.
    pub fn adopting() -> Arc<Self> {
        let inherited = process_tree::children().into_iter().map(Pid::as_raw_pid).collect();
        let adopts = match set_child_subreaper(Some(getpid())) {
            // The first process of a container is given the orphans of others too.
            Ok(()) => getpid() != Pid::INIT,
            Err(cause) => {
                log::warn!("what a killed supervisor of a provider leaves cannot be adopted and ended: {cause}");
                false
            }
        };
        Arc::new(Self { adopts, inherited, ..Self::default() })
    }

    /// Starts `command`, which supervises `provider`.
    ///
    /// # Errors
    /// The system starts no process.
    pub fn start(self: &Arc<Self>, command: &mut Command, provider: &str) -> io::Result<(Child, Enlisted)> {
        // Held all the while: a sweep must not find a child that is not enlisted yet.
        let mut running = self.running();
        let child = command.spawn()?;
        let process = Pid::from_child(&child).as_raw_pid();
        let serial = self.enlisted.fetch_add(1, Relaxed);
        running.insert(process, Enrolment { provider: provider.to_owned(), serial });
        Ok((child, Enlisted { supervisors: self.clone(), process, serial }))
    }

    /// Whether the process `id` may manage this host.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied): it is a provider's, or that cannot be ruled out.
    pub fn check_manager(&self, id: i32) -> Result<()> {
        match self.owner(id) {
            Owner::Nobody => Ok(()),
            Owner::Provider(provider) => Err(Error::denied(format!(
                "process {id} belongs to the provider {provider}, and a provider may not manage the host that runs it"
            ))),
            Owner::Lost => Err(Error::denied(format!(
                "process {id} belongs to a provider that is being ended, and a provider may not manage the host that runs it"
            ))),
            Owner::Unknown(why) => Err(Error::denied(format!(
                "a provider may not manage the host that runs it, and whether process {id} is one cannot be told: {why}; ask \
                 again as root"
            ))),
        }
    }

    fn owner(&self, id: i32) -> Owner {
        if self.running().is_empty() {
            return Owner::Nobody;
        }
        (0..ATTEMPTS).find_map(|_| self.follow(id)).unwrap_or(Owner::Unknown("it or what started it is gone"))
    }

    /// Follows the ancestors of `id`; nothing when one of them ended meanwhile.
    fn follow(&self, id: i32) -> Option<Owner> {
        let (own, own_session) = (getpid().as_raw_pid(), process_tree::own_session());
        let mut at = id;
        for _ in 0..MAX_GENERATIONS {
            if let Some(provider) = self.provider(at) {
                return Some(Owner::Provider(provider));
            }
            if at == own || at <= 1 || self.inherited.contains(&at) {
                return Some(Owner::Nobody);
            }
            at = match process_tree::look(at) {
                // Providers begin sessions, and what else this process starts does not.
                Sight::Seen { parent, session } if self.adopts && parent == own && session != own_session => {
                    // It may be a supervisor that was enlisted just now.
                    return Some(self.provider(at).map_or(Owner::Lost, Owner::Provider));
                }
                Sight::Seen { parent, .. } => parent,
                // A provider cannot become another user.
                Sight::Foreign if at != id => return Some(Owner::Nobody),
                Sight::Foreign | Sight::Hidden => return Some(by_group(id)),
                Sight::Gone => return None,
            };
        }
        Some(Owner::Unknown("too many processes are between it and its session"))
    }

    /// Kills and collects what killed supervisors left to this process. Blocks.
    pub fn sweep(&self) {
        if !self.adopts {
            return;
        }
        let (until, mut calm) = (Instant::now() + SWEEP, 0);
        while calm < CALM_ROUNDS && Instant::now() < until {
            let left = self.left();
            // While processes come and go a look may miss some.
            calm = if left.is_empty() { calm + 1 } else { 0 };
            if !left.is_empty() {
                kill_tree::kill(|| self.left().into_iter().map(Pid::as_raw_pid).collect());
            }
            for process in left {
                let _ = waitpid(Some(process), WaitOptions::NOHANG);
            }
            thread::sleep(SWEEP_ROUND);
        }
    }

    /// Children of this process that it did not start.
    fn left(&self) -> Vec<Pid> {
        let running = self.running();
        let own_session = process_tree::own_session();
        let is_left = |child: &Pid| {
            let id = child.as_raw_pid();
            let began_elsewhere = match process_tree::look(id) {
                Sight::Seen { session, .. } => session != own_session,
                Sight::Hidden | Sight::Foreign => true,
                Sight::Gone => false,
            };
            began_elsewhere && !running.contains_key(&id) && !self.inherited.contains(&id)
        };
        process_tree::children().into_iter().filter(is_left).collect()
    }

    /// The provider that the process `id` supervises.
    fn provider(&self, id: i32) -> Option<String> {
        self.running().get(&id).map(|there| there.provider.clone())
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<i32, Enrolment>> {
        self.running.lock()
    }
}

/// Whose a process is that cannot be looked at. The command line of this program keeps others out too, so that it is hidden
/// says nothing; but a provider never leaves the control group of its host.
fn by_group(id: i32) -> Owner {
    match cgroup::service().map(|group| cgroup::holds(&group, id)) {
        Some(Ok(false)) => Owner::Nobody,
        _ => Owner::Unknown("/proc hides it from the host"),
    }
}

/// A place among the running ones, given up when this is dropped: after its process was collected.
pub struct Enlisted {
    supervisors: Arc<Supervisors>,
    process: i32,
    serial: u64,
}

impl Enlisted {
    /// Among whom.
    pub fn supervisors(&self) -> &Arc<Supervisors> {
        &self.supervisors
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        let mut running = self.supervisors.running();
        // Another one may have the number by now.
        if running.get(&self.process).is_some_and(|there| there.serial == self.serial) {
            running.remove(&self.process);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        process::Stdio,
    };

    use super::*;
    use crate::error::Kind;

    /// A shell as supervisor, and the process its script names.
    fn start(supervisors: &Arc<Supervisors>, script: &str) -> (Child, Enlisted, i32) {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (mut child, place) = supervisors.start(&mut shell, "VTEST").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        (child, place, line.trim().parse().unwrap())
    }

    fn end(mut child: Child) {
        // What it started reads its standard input and ends with it.
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn what_descends_from_a_supervisor_is_refused_by_name_and_nobody_else_is() {
        let supervisors = Arc::new(Supervisors::default());
        let own = getpid().as_raw_pid();
        supervisors.check_manager(own).unwrap();
        let (child, place, below) = start(&supervisors, "setsid sh -c 'sh -c \"echo \\$\\$; cat\"'");
        let error = supervisors.check_manager(below).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.text().contains(&format!("process {below} belongs to the provider VTEST")), "{error}");
        // The one that asks on behalf of a test is this process' child like the supervisor itself.
        let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
        supervisors.check_manager(Pid::from_child(&other).as_raw_pid()).unwrap();
        supervisors.check_manager(own).unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
        let gone = supervisors.check_manager(Pid::from_child(&other).as_raw_pid()).unwrap_err();
        assert!(gone.text().contains("is gone") && gone.text().contains("as root"), "{gone}");
        end(child);
        drop(place);
        supervisors.check_manager(own).unwrap();
    }

    #[test]
    fn whoever_nests_too_deep_is_refused() {
        let supervisors = Arc::new(Supervisors::default());
        let (child, place, _) = start(&supervisors, "echo $$; cat");
        // Not below the supervisor: it is the depth alone that counts.
        let script = "n=$1; if [ $n -eq 0 ]; then echo $$; exec cat; fi; sh \"$0\" $((n-1)); true";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nest");
        std::fs::write(&path, script).unwrap();
        let mut deep = Command::new("sh");
        deep.arg(&path).arg((MAX_GENERATIONS + 1).to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut deep = deep.spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(deep.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let error = supervisors.check_manager(line.trim().parse().unwrap()).unwrap_err();
        assert!(error.text().contains("too many processes"), "{error}");
        drop(deep.stdin.take());
        output.read_to_end(&mut Vec::new()).unwrap();
        deep.wait().unwrap();
        end(child);
        drop(place);
    }
}
