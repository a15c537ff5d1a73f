//! Commands that were accepted and are not carried out yet: how many there may be, for how long, and how one is removed.
//!
//! Whoever sends commands that never come to an end blocks nobody else: commands that wait for one registry or server give
//! way to newer ones for the same, and the oldest of all to the newest.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use smol::Task;

use super::intention::{Artifact, RECORD, State, Subject, Ticket};
use crate::{
    claims::Now,
    error::Result,
    host::uplink::PendingCommand,
    lock::{Mutex, MutexGuard},
    log,
    store::{Batch, Store, Table},
};

/// Accepted commands kept at most. A board has a handful of actors to fetch; beyond this the oldest is given up.
pub const MAX_PENDING: usize = 256;

/// Of these, those that wait for one registry or server; beyond this the oldest of them is given up.
pub const MAX_PENDING_PER_SOURCE: usize = 32;

/// How long a command is tried. A week: longer than a board is away for a weekend, and nobody remembers it after that. Then
/// it is given up, and events tell so.
pub const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest reason that is shown, characters.
const MAX_REASON: usize = 200;

/// Whether a command that was `accepted` then is given up by now. Where a clock is not to be trusted, it is not.
pub(super) fn is_too_old(now: Now, accepted: u64) -> bool {
    now.is_trusted() && accepted > 0 && now.unix_seconds().saturating_sub(accepted) > MAX_AGE.as_secs()
}

/// Commands that were accepted and are still being carried out, by record name.
pub struct PendingCommands {
    tasks: Mutex<BTreeMap<String, Pursued>>,
    /// Held from [`PendingCommands::make_room`] to [`PendingCommands::insert`]: commands that come at once must not all
    /// find the same room.
    entering: smol::lock::Mutex<()>,
    store: Store,
}

/// One of them.
pub(super) struct Pursued {
    pub subject: Subject,
    pub ticket: Arc<Ticket>,
    task: Task<()>,
    /// Its place in the order in which they came.
    order: u64,
}

static ORDER: AtomicU64 = AtomicU64::new(0);

impl Pursued {
    pub fn new(subject: Subject, ticket: Arc<Ticket>, task: Task<()>) -> Self {
        Self { subject, ticket, task, order: ORDER.fetch_add(1, Relaxed) }
    }

    /// Where its artifact comes from; nothing for a command that names a key alone.
    pub fn reference(&self) -> Option<&str> {
        self.subject.reference()
    }

    /// Older ones are smaller. What was left from before the boot has its time alone.
    fn age(&self) -> (u64, u64) {
        (self.ticket.accepted, self.order)
    }
}

impl PendingCommands {
    /// None yet; their records are in `store`.
    pub fn new(store: Store) -> Self {
        Self { tasks: Mutex::default(), entering: smol::lock::Mutex::new(()), store }
    }

    pub(super) fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Pursued>> {
        self.tasks.lock()
    }

    /// Whether a command about the artifact `reference` is still being carried out.
    pub(super) fn has(&self, reference: &str) -> bool {
        self.tasks().values().any(|pursued| pursued.reference() == Some(reference))
    }

    pub(super) fn insert(&self, name: String, pursued: Pursued) {
        self.tasks().insert(name, pursued);
    }

    /// The command has come to its end by itself.
    pub(super) fn ended(&self, name: &str) {
        let own = self.tasks().remove(name);
        if let Some(pursued) = own {
            pursued.task.detach();
        }
    }

    /// The right to make room and to take it.
    pub(super) async fn enter(&self) -> smol::lock::MutexGuard<'_, ()> {
        self.entering.lock().await
    }

    /// Gives up the oldest where one more of `source` would be too many; answers what those were about.
    pub(super) async fn make_room(&self, source: &str) -> Vec<Subject> {
        let surplus = self.surplus(source);
        let mut given_up = Vec::new();
        for name in surplus {
            given_up.extend(self.give_up(&name, "too many others came after it").await);
        }
        given_up
    }

    fn surplus(&self, source: &str) -> Vec<String> {
        let tasks = self.tasks();
        let oldest = |of_source: bool, most: usize| {
            let mut found: Vec<(&String, &Pursued)> =
                tasks.iter().filter(|(_, one)| !of_source || one.subject.source() == source).collect();
            found.sort_by_key(|(_, one)| one.age());
            let surplus = (found.len() + 1).saturating_sub(most);
            found.into_iter().take(surplus).map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        match oldest(true, MAX_PENDING_PER_SOURCE) {
            // One that goes makes room among all, too.
            surplus if !surplus.is_empty() => surplus,
            _ => oldest(false, MAX_PENDING),
        }
    }

    /// Ends the command `name`, on disk too; answers what it was about, or nothing where it had ended.
    pub(super) async fn give_up(&self, name: &str, why: &str) -> Option<Subject> {
        let Pursued { ticket, task, subject, .. } = self.tasks().remove(name)?;
        // A change that is on its way to the disk comes to its end first.
        let mut state = ticket.state.lock().await;
        task.cancel().await;
        let about = subject.reference().unwrap_or_default();
        log::info!("an accepted command is given up: {why}"; image_ref = about, command = ticket.verb().token());
        if std::mem::replace(&mut *state, State::Done) == State::Kept
            && let Err(error) = self.store.commit(Batch::new().delete(Table::Host, name)).await
        {
            log::warn!("{error}");
        }
        Some(subject)
    }

    /// All of them, for the status.
    pub fn list(&self) -> Vec<PendingCommand> {
        let (tasks, now) = (self.tasks(), Instant::now());
        let mut all: Vec<(&String, &Pursued)> = tasks.iter().collect();
        all.sort_by_key(|(_, one)| one.age());
        let shown = all.into_iter().map(|(name, one)| {
            let progress = one.ticket.progress().clone();
            PendingCommand {
                id: name.trim_start_matches(RECORD).to_owned(),
                command: one.ticket.verb().token().to_owned(),
                about: match &one.subject.artifact {
                    Artifact::Reference(text) | Artifact::Key(text) => text.clone(),
                },
                accepted_unix_seconds: one.ticket.accepted,
                attempts: progress.attempts,
                next_try_seconds: progress.next.map(|next| next.saturating_duration_since(now).as_secs()),
                reason: progress.reason.chars().take(MAX_REASON).collect(),
            }
        });
        shown.collect()
    }

    /// Removes the command `id` of [`PendingCommands::list`]; whether it was there.
    ///
    /// # Errors
    /// None today; the disk's are in the log, as the command has ended all the same.
    pub async fn remove(&self, id: &str) -> Result<bool> {
        Ok(self.give_up(&format!("{RECORD}{id}"), "the operator removed it").await.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store::{FaultDisk, Settings},
        wire::subject::Verb,
    };

    fn pending() -> PendingCommands {
        PendingCommands::new(Store::open(Settings::default(), Arc::new(FaultDisk::new())).unwrap().0)
    }

    fn command(pending: &PendingCommands, reference: &str, accepted: u64) -> Vec<Subject> {
        crate::task::block_on(async {
            let subject = Subject::of(reference.to_owned());
            let given_up = pending.make_room(&subject.source()).await;
            let ticket = Ticket::new(Verb::LaunchActor, Now::Trusted(accepted), false);
            let task = crate::task::spawn(std::future::pending());
            pending.insert(format!("{RECORD}{reference}"), Pursued::new(subject, ticket, task));
            given_up
        })
    }

    #[test]
    fn one_source_fills_its_own_share_and_the_oldest_goes_first() {
        let pending = pending();
        for number in 0..MAX_PENDING_PER_SOURCE {
            assert_eq!(command(&pending, &format!("dead.example/a{number}:1"), 1000), []);
        }
        assert_eq!(command(&pending, "other.example/b:1", 1000), []);
        let gone = command(&pending, "https://DEAD.example/one.wasm#sha256=00", 1001);
        assert_eq!(gone, [Subject::of("dead.example/a0:1".into())]);
        for number in 0..2 * MAX_PENDING {
            command(&pending, &format!("host{number}.example/c:1"), 2000);
        }
        assert_eq!(pending.list().len(), MAX_PENDING);
        assert!(!pending.has("other.example/b:1"), "the oldest of all went");
        assert!(pending.has(&format!("host{}.example/c:1", 2 * MAX_PENDING - 1)));
        let id = pending.list()[0].id.clone();
        assert!(crate::task::block_on(pending.remove(&id)).unwrap());
        assert!(!crate::task::block_on(pending.remove(&id)).unwrap());
        assert_eq!(pending.list().len(), MAX_PENDING - 1);
    }

    #[test]
    fn an_old_command_is_given_up_where_the_time_is_known() {
        let now = Now::Trusted(2_000_000_000);
        assert!(is_too_old(now, 2_000_000_000 - MAX_AGE.as_secs() - 1));
        assert!(!is_too_old(now, 2_000_000_000 - MAX_AGE.as_secs()));
        assert!(!is_too_old(now, 0), "nobody knows when it came");
        assert!(!is_too_old(Now::Unsure { at_least: 2_000_000_000 }, 1));
    }
}
