//! Commands that are accepted before they are carried out, because an artifact is still on its way: kept on disk, so that
//! a power cut in between costs time and not the command.
//!
//! What a command comes to is written in one step with the end of its intention, so it happens once. After a boot what
//! was left is taken up again, and tried until it works, cannot work, or another command takes its place.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use smol::{Task, lock};

use super::{Shared, command};
use crate::{
    error::{Error, Kind, Result},
    host::{Host, desired::Desired},
    lattice::events::random_id,
    log,
    store::{Batch, Table},
    task,
    wire::{event::event_id, subject::Verb},
};

/// Beginning of an intention's record name.
const RECORD: &str = "intention/";

/// Intentions kept at most. A board has a handful of actors to fetch; one more command that takes its time is refused.
pub const MAX_INTENTIONS: usize = 256;

/// First and longest wait before what was left from before the boot is tried again, doubling between: a board whose
/// registry is out of reach for a day asks a few hundred times.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// One command being carried out, and the record of it, if there is one.
pub struct Ticket {
    /// Name of its record.
    kept: lock::Mutex<Option<String>>,
    /// It was accepted before this host's start: a failure that time may cure is not its end.
    resumed: bool,
}

impl Ticket {
    /// A command that has just come in.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { kept: lock::Mutex::new(None), resumed: false })
    }

    /// Changes what should run as the command wants it, and ends its intention with that.
    ///
    /// # Errors
    /// As [`Host::change`].
    pub async fn change(&self, host: &Host, change: impl FnOnce(&Desired) -> Result<Desired>) -> Result<()> {
        let mut kept = self.kept.lock().await;
        let also = match &*kept {
            Some(name) => Batch::new().delete(Table::Host, name.as_bytes()),
            None => Batch::new(),
        };
        host.change_and(also, change).await?;
        *kept = None;
        Ok(())
    }

    /// Whether the command will be tried again after this failure, so that nobody need be told of it yet.
    pub fn goes_on_after(&self, error: &Error) -> bool {
        self.resumed && is_curable(error)
    }

    /// Puts the command on disk.
    async fn keep(&self, host: &Host, verb: Verb, body: &[u8]) -> Result<()> {
        let mut kept = self.kept.lock().await;
        let store = host.store();
        if store.scan(Table::Host, RECORD.as_bytes())?.len() >= MAX_INTENTIONS {
            return Err(Error::limit(format!(
                "this host has accepted {MAX_INTENTIONS} commands that are not carried out yet; try again later"
            )));
        }
        let name = format!("{RECORD}{}", event_id(random_id()));
        let record = [verb.token().as_bytes(), b"\n", body].concat();
        store.commit(Batch::new().put(Table::Host, name.as_bytes(), record)).await?;
        *kept = Some(name);
        Ok(())
    }

    /// The command has ended without a change: its record goes.
    async fn forget(&self, host: &Host) {
        let Some(name) = self.kept.lock().await.take() else { return };
        if let Err(error) = host.store().commit(Batch::new().delete(Table::Host, name)).await {
            log::warn!(
                "a command that has ended is still on disk and will be carried out after the next boot: {error}"
            );
        }
    }
}

/// Whether waiting may help.
fn is_curable(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Storage | Kind::Busy)
}

/// What of a command's intention tells whether a later command takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Where an artifact comes from.
    Reference(String),
    /// `M…`.
    Key(String),
}

/// Commands from before the boot that are still being tried, by record name.
#[derive(Default)]
pub struct Resumed(Mutex<BTreeMap<String, Pursued>>);

struct Pursued {
    reference: String,
    ticket: Arc<Ticket>,
    task: Task<()>,
}

impl Resumed {
    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, Pursued>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether a command from before the boot about the artifact `reference` is still being tried.
pub fn is_pursued(shared: &Shared, reference: &str) -> bool {
    shared.resumed.tasks().values().any(|pursued| pursued.reference == reference)
}

/// Gives up what was left from before the boot about `subject`: a newer command has come.
pub async fn supersede(shared: &Shared, subject: &Subject) {
    let about = |reference: &str| match subject {
        Subject::Reference(other) => reference == other,
        Subject::Key(key) => shared.cache.resolve_reference(reference).as_ref() == Some(key),
    };
    let names: Vec<String> = {
        let tasks = shared.resumed.tasks();
        tasks.iter().filter(|(_, pursued)| about(&pursued.reference)).map(|(name, _)| name.clone()).collect()
    };
    for name in names {
        let Some(Pursued { reference, ticket, task }) = shared.resumed.tasks().remove(&name) else { continue };
        // A change that is on its way to the disk comes to its end first.
        let _no_change_under_way = ticket.kept.lock().await;
        task.cancel().await;
        log::info!("a command from before the start gives way to a newer one"; image_ref = reference);
        if let Err(error) = shared.host.store().commit(Batch::new().delete(Table::Host, name)).await {
            log::warn!("{error}");
        }
    }
}

/// Carries out a command, and waits for its outcome as long as a client may be kept waiting. What takes longer is put on
/// disk and accepted; its end is told by events then, as clients expect.
///
/// # Errors
/// Those of the command, or it could not be put on disk and was given up.
pub async fn carry_out(shared: &Arc<Shared>, verb: Verb, body: &[u8], patience: Duration) -> Result<()> {
    let ticket = Ticket::new();
    let (sender, receiver) = smol::channel::bounded(1);
    let working = {
        let (shared, ticket, body) = (shared.clone(), ticket.clone(), body.to_vec());
        task::spawn(async move {
            let outcome = command::run(&shared, &ticket, verb, &body).await;
            ticket.forget(&shared.host).await;
            // Nobody listens any more when the ack is given already.
            let _ = sender.try_send(outcome);
        })
    };
    match crate::lattice::connection::within(patience, receiver.recv()).await {
        Some(Ok(outcome)) => return outcome,
        Some(Err(_)) => return Err(Error::internal("the command ended without an outcome")),
        None => {}
    }
    if verb.fetches() {
        if let Err(error) = ticket.keep(&shared.host, verb, body).await {
            // A change that is on its way to the disk comes to its end first; else the work ends here.
            let _no_change_under_way = ticket.kept.lock().await;
            working.cancel().await;
            return receiver.try_recv().unwrap_or(Err(error));
        }
        // It may have come to its end while the disk was busy.
        if let Ok(outcome) = receiver.try_recv() {
            ticket.forget(&shared.host).await;
            return outcome;
        }
    }
    working.detach();
    Ok(())
}

/// Takes up again what was accepted before the boot and not carried out.
pub fn resume(shared: &Arc<Shared>) -> Result<()> {
    for (name, record) in shared.host.store().scan(Table::Host, RECORD.as_bytes())? {
        let name = String::from_utf8_lossy(&name).into_owned();
        let read = record.iter().position(|byte| *byte == b'\n').and_then(|end| {
            let token = std::str::from_utf8(&record[..end]).ok()?;
            let verb = Verb::ALL.into_iter().find(|verb| verb.token() == token)?;
            Some((verb, record[end + 1..].to_vec()))
        });
        let Some((verb, body)) = read else {
            log::warn!("an accepted command on disk cannot be read and was left alone"; record = name);
            continue;
        };
        let reference = command::reference(verb, &body).unwrap_or_default();
        log::info!("going on with a command from before the start"; image_ref = reference, command = verb.token());
        let ticket = Arc::new(Ticket { kept: lock::Mutex::new(Some(name.clone())), resumed: true });
        let mut tasks = shared.resumed.tasks();
        let task = task::spawn(pursue(shared.clone(), ticket.clone(), name.clone(), verb, body));
        tasks.insert(name, Pursued { reference, ticket, task });
    }
    Ok(())
}

async fn pursue(shared: Arc<Shared>, ticket: Arc<Ticket>, name: String, verb: Verb, body: Vec<u8>) {
    // An update needs the actor that it updates.
    shared.host.settle().await;
    let mut wait = FIRST_RETRY;
    loop {
        match command::run(&shared, &ticket, verb, &body).await {
            Err(error) if ticket.goes_on_after(&error) => log::warn!(
                "a command from before the start cannot be carried out yet: {error}; trying again within {} s",
                wait.as_secs(); command = verb.token()
            ),
            Err(error) => {
                log::warn!("a command from before the start is given up: {error}"; command = verb.token());
                break;
            }
            Ok(()) => break,
        }
        smol::Timer::after(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
    ticket.forget(&shared.host).await;
    // The last step: dropping the own task's handle ends it here.
    let own = shared.resumed.tasks().remove(&name);
    if let Some(pursued) = own {
        pursued.task.detach();
    }
}
