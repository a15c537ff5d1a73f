//! Commands that are accepted before they are carried out, because an artifact is still on its way: kept on disk, so that
//! a power cut in between costs time and not the command.
//!
//! What a command comes to is written in one step with the end of its intention, so it happens once. After a boot what
//! was left is taken up again, and tried until it works, cannot work, or another command takes its place.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use smol::lock;

use super::{
    Shared, command,
    pending::{MAX_AGE, Pursued, is_too_old},
};
use crate::{
    claims::Now,
    error::{Error, Result},
    host::{Host, desired::Desired, health::Patient},
    lock::{Mutex, MutexGuard},
    log,
    store::{Batch, Table},
    task,
    wire::{event::provider::ProviderStartFailed, id, subject::Verb},
};

/// Beginning of an intention's record name.
pub(super) const RECORD: &str = "intention/";

/// Keys that one command remembers as stopped while it is under way; a board runs fewer entities.
const MAX_STOPPED: usize = 256;

/// First and longest wait before what was left from before the boot is tried again, doubling between: a board whose
/// registry is out of reach for a week asks some forty times. Whoever wants it sooner sends the command again.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(6 * 3600);

/// One command being carried out, and the record of it, if there is one.
pub struct Ticket {
    /// Name of its record.
    name: String,
    /// What the command asks for, for whoever reads what it changed.
    verb: Verb,
    pub(super) state: lock::Mutex<State>,
    /// It was accepted before this host's start: a failure that time may cure is not its end.
    pub(super) resumed: bool,
    /// Other commands were on their way when this one came, and nobody knows yet what they start.
    others: bool,
    /// Keys of what was stopped while this command was under way and nobody knew yet what it starts.
    stopped: Mutex<BTreeSet<String>>,
    /// When it was accepted, seconds since 1970; 0 where the clock was not to be trusted.
    pub(super) accepted: u64,
    /// What came of it so far.
    pub(super) progress: Mutex<Progress>,
}

/// What came of a command so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    /// Attempts that failed.
    pub attempts: u32,
    /// When the next one is.
    pub next: Option<Instant>,
    /// Why the last one failed.
    pub reason: String,
}

/// How far a command is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Only this process knows of it.
    Open,
    /// It is on disk.
    Kept,
    /// What it comes to is on disk, or it has ended without.
    Done,
}

impl Ticket {
    /// A command that has just come in.
    pub(super) fn new(verb: Verb, now: Now, others: bool) -> Arc<Self> {
        let name = format!("{RECORD}{}", id::random_uuid());
        let accepted = if now.is_trusted() { now.unix_seconds() } else { 0 };
        Arc::new(Self { others, ..Self::made(name, verb, State::Open, accepted) })
    }

    fn resumed(name: String, verb: Verb, accepted: u64) -> Arc<Self> {
        Arc::new(Self { resumed: true, others: true, ..Self::made(name, verb, State::Kept, accepted) })
    }

    fn made(name: String, verb: Verb, state: State, accepted: u64) -> Self {
        let (stopped, progress) = (Mutex::default(), Mutex::default());
        let state = lock::Mutex::new(state);
        Self { name, verb, state, resumed: false, others: false, stopped, accepted, progress }
    }

    /// Whether this command may be about something that does not run yet: what a command before it starts.
    pub fn may_concern_a_start(&self) -> bool {
        self.others
    }

    /// What the command asks for.
    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock()
    }

    /// Changes what should run as the command wants it, and ends its intention with that.
    ///
    /// # Errors
    /// As [`Shared::change`].
    pub async fn change(&self, shared: &Shared, change: impl FnOnce(&Desired) -> Result<Desired>) -> Result<()> {
        let mut state = self.state.lock().await;
        let also = match *state {
            State::Kept => Batch::new().delete(Table::Host, self.name.as_bytes()),
            State::Open | State::Done => Batch::new(),
        };
        shared.change(&format!("the lattice ({})", self.verb.token()), also, change).await?;
        *state = State::Done;
        Ok(())
    }

    /// As [`Ticket::change`], for a command that starts the entity `key`, which was not known when it came.
    ///
    /// # Errors
    /// As [`Shared::change`]; `Conflict` when it was stopped meanwhile.
    pub async fn change_of(
        &self,
        key: &str,
        shared: &Shared,
        change: impl FnOnce(&Desired) -> Result<Desired>,
    ) -> Result<()> {
        let stopped = |desired: &Desired| match self.stopped().contains(key) {
            true => Err(Error::conflict(format!("{key} was stopped by a command that came later"))),
            false => change(desired),
        };
        self.change(shared, stopped).await?;
        // Also where that changed nothing: it is asked for by name.
        shared.host.release(&Patient::Actor(key.to_owned()));
        Ok(())
    }

    fn stopped(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.stopped.lock()
    }

    /// Whether the command will be tried again after this failure, so that nobody need be told of it yet.
    pub fn goes_on_after(&self, error: &Error) -> bool {
        self.resumed && error.kind().is_curable()
    }

    /// Puts the command on disk, if it has not ended meanwhile.
    async fn keep(&self, host: &Host, verb: Verb, body: &[u8]) -> Result<()> {
        let mut state = self.state.lock().await;
        if *state != State::Open {
            return Ok(());
        }
        let store = host.store();
        let record = [format!("{} {}\n", verb.token(), self.accepted).as_bytes(), body].concat();
        store.commit(Batch::new().put(Table::Host, self.name.as_bytes(), record)).await?;
        *state = State::Kept;
        Ok(())
    }

    /// The command has ended: its record goes, if there is one still.
    async fn forget(&self, host: &Host) {
        let mut state = self.state.lock().await;
        if std::mem::replace(&mut *state, State::Done) != State::Kept {
            return;
        }
        if let Err(error) = host.store().commit(Batch::new().delete(Table::Host, self.name.as_bytes())).await {
            log::warn!(
                "a command that has ended is still on disk and will be carried out after the next boot: {error}"
            );
        }
    }
}

/// What a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What is started or stopped.
    pub artifact: Artifact,
    /// Under which link name, for a provider.
    pub link_name: Option<String>,
    /// It ends all of it.
    pub ends: bool,
}

impl Subject {
    /// Where its artifact comes from; nothing for a command that names a key alone.
    pub fn reference(&self) -> Option<&str> {
        match &self.artifact {
            Artifact::Reference(reference) => Some(reference),
            Artifact::Key(_) => None,
        }
    }

    /// Whose commands it is counted among: all that wait for one registry or server.
    pub fn source(&self) -> String {
        let reference = self.reference().unwrap_or_default();
        let (scheme, rest) = reference.split_once("://").unwrap_or(("", reference));
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty() { scheme } else { host }.to_ascii_lowercase()
    }

    /// A start of what `reference` brings.
    pub fn of(reference: String) -> Self {
        Self { artifact: Artifact::Reference(reference), link_name: None, ends: false }
    }
}

/// What is started or stopped, as far as the command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Artifact {
    /// By where it comes from.
    Reference(String),
    /// By its key.
    Key(String),
}

/// Whether an accepted command about the artifact `reference` is still being carried out.
pub fn is_pursued(shared: &Shared, reference: &str) -> bool {
    shared.pending.has(reference)
}

/// Gives up accepted commands whose place one about `subject` takes: what is stopped is not started later, and what was left
/// from before the boot gives way to anything newer. Of commands of this boot no start ends another: they add up.
async fn supersede(shared: &Shared, subject: &Subject) {
    let gives_way = |pursued: &Pursued| {
        (subject.ends || pursued.ticket.resumed)
            && pursued.subject.link_name == subject.link_name
            && pursued.reference().is_some_and(|pursued| match &subject.artifact {
                Artifact::Reference(reference) => reference == pursued,
                Artifact::Key(key) => shared.cache.resolve_reference(pursued).as_ref() == Some(key),
            })
    };
    let names: Vec<String> = {
        let tasks = shared.pending.tasks();
        if let (true, Artifact::Key(key)) = (subject.ends, &subject.artifact) {
            // What a first start of a reference brings is not known before it is here; then it is looked at.
            for pursued in tasks.values().filter(|pursued| pursued.subject.link_name == subject.link_name) {
                let mut stopped = pursued.ticket.stopped();
                if stopped.len() < MAX_STOPPED {
                    stopped.insert(key.clone());
                }
            }
        }
        tasks.iter().filter(|(_, pursued)| gives_way(pursued)).map(|(name, _)| name.clone()).collect()
    };
    for name in names {
        shared.pending.give_up(&name, "it gives way to a newer one").await;
    }
}

/// Tells by events that the command about `subject` is not carried out any more: whoever sent it may wait for one.
pub(super) fn tell_given_up(shared: &Shared, subject: &Subject, why: &str) {
    let Artifact::Reference(reference) = &subject.artifact else { return };
    match &subject.link_name {
        Some(link_name) => shared.events.emit(&ProviderStartFailed {
            provider_ref: reference,
            link_name,
            host_id: &shared.host_id,
            error: why,
        }),
        None => shared.events.tell_start_failed(None, reference, &BTreeMap::new(), 0, why),
    }
}

/// Carries out a command in the place of those it supersedes, and waits for its outcome as long as a client may be kept waiting. What takes longer is put on
/// disk and accepted; its end is told by events then, as clients expect.
///
/// # Errors
/// Those of the command, or it could not be put on disk and was given up.
pub async fn carry_out(shared: &Arc<Shared>, verb: Verb, body: &[u8], patience: Duration) -> Result<()> {
    let subject = command::subject(verb, body);
    let others = !shared.pending.tasks().is_empty();
    if let Some(subject) = &subject {
        supersede(shared, subject).await;
    }
    let ticket = Ticket::new(verb, shared.host.now(), others);
    let (sender, receiver) = smol::channel::bounded(1);
    let working = {
        let (shared, ticket, body) = (shared.clone(), ticket.clone(), body.to_vec());
        task::spawn(async move {
            let outcome = command::run(&shared, &ticket, verb, &body).await;
            // Nobody listens any more when the ack is given already.
            let _ = sender.try_send(outcome);
            ended(&shared, &ticket).await;
        })
    };
    match crate::task::within(patience, receiver.recv()).await {
        Some(Ok(outcome)) => {
            working.detach();
            return outcome;
        }
        Some(Err(_)) => return Err(Error::internal("the command ended without an outcome")),
        None => {}
    }
    // The host's end is no change, and is asked for after the answer.
    let Some(subject) = subject else {
        working.detach();
        return Ok(());
    };
    let entering = shared.pending.enter().await;
    for given_up in shared.pending.make_room(&subject.source()).await {
        tell_given_up(shared, &given_up, "the command was given up: too many others came after it");
    }
    if let Err(error) = ticket.keep(&shared.host, verb, body).await {
        // A change that is on its way to the disk comes to its end first; else the work ends here.
        let _no_change_under_way = ticket.state.lock().await;
        working.cancel().await;
        return receiver.try_recv().unwrap_or(Err(error));
    }
    let state = ticket.state.lock().await;
    // It may have come to its end while the disk was busy.
    if *state == State::Done {
        drop((state, entering));
        working.detach();
        return receiver.recv().await.unwrap_or(Ok(()));
    }
    shared.pending.insert(ticket.name.clone(), Pursued::new(subject, ticket.clone(), working));
    Ok(())
}

/// The command of `ticket` has come to its end: nothing of it is left.
async fn ended(shared: &Shared, ticket: &Ticket) {
    ticket.forget(&shared.host).await;
    // The last step: dropping the own task's handle ends it here.
    shared.pending.ended(&ticket.name);
}

/// Takes up again what was accepted before the boot and not carried out.
pub fn resume(shared: &Arc<Shared>) -> Result<()> {
    for (name, record) in shared.host.store().scan(Table::Host, RECORD.as_bytes())? {
        let name = String::from_utf8_lossy(&name).into_owned();
        let read = record.iter().position(|byte| *byte == b'\n').and_then(|end| {
            let head = std::str::from_utf8(&record[..end]).ok()?;
            // Older versions wrote no time; it counts from now.
            let (token, accepted) = head.split_once(' ').unwrap_or((head, ""));
            let verb = Verb::ALL.into_iter().find(|verb| verb.token() == token)?;
            Some((verb, accepted.parse::<u64>().ok(), record[end + 1..].to_vec()))
        });
        let Some((verb, accepted, body)) = read else {
            log::warn!("an accepted command on disk cannot be read and was left alone"; record = name);
            continue;
        };
        // One whose body cannot be read is about nothing, and ends with its first attempt.
        let subject = command::subject(verb, &body).unwrap_or_else(|| Subject::of(String::new()));
        let now = shared.host.now();
        let accepted = accepted.unwrap_or(if now.is_trusted() { now.unix_seconds() } else { 0 });
        let ticket = Ticket::resumed(name.clone(), verb, accepted);
        let mut tasks = shared.pending.tasks();
        let task = task::spawn(pursue(shared.clone(), ticket.clone(), verb, body, subject.clone()));
        let pursued = Pursued::new(subject, ticket, task);
        log::info!(
            "going on with a command from before the start";
            image_ref = pursued.reference().unwrap_or_default(), command = verb.token()
        );
        tasks.insert(name, pursued);
    }
    Ok(())
}

async fn pursue(shared: Arc<Shared>, ticket: Arc<Ticket>, verb: Verb, body: Vec<u8>, subject: Subject) {
    // An update needs the actor that it updates.
    shared.host.settle().await;
    let mut wait = FIRST_RETRY;
    loop {
        match command::run(&shared, &ticket, verb, &body).await {
            Err(error) if ticket.goes_on_after(&error) && is_too_old(shared.host.now(), ticket.accepted) => {
                log::warn!(
                    "a command is given up, {} days after it was accepted: {error}", MAX_AGE.as_secs() / 86_400;
                    command = verb.token()
                );
                tell_given_up(&shared, &subject, error.text());
                break;
            }
            Err(error) if ticket.goes_on_after(&error) => {
                log::warn!(
                    "a command from before the start cannot be carried out yet: {error}; trying again within {} s",
                    wait.as_secs(); command = verb.token()
                );
                let mut progress = ticket.progress();
                progress.attempts += 1;
                progress.next = Instant::now().checked_add(wait);
                error.text().clone_into(&mut progress.reason);
            }
            Err(error) => {
                log::warn!("a command from before the start is given up: {error}"; command = verb.token());
                break;
            }
            Ok(()) => break,
        }
        smol::Timer::after(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
    ended(&shared, &ticket).await;
}
