//! The store: one log, one writer at a time, many readers.
//!
//! Changes queue up; whoever finds the queue unattended starts a blocking thread that decides on all that is waiting,
//! writes it as one frame with one `fdatasync`, and answers. While that sync runs, the next group gathers. With nothing
//! to do there is no thread and no timer.
//!
//! Called by `host` (identity, desired state, links) and by the key-value capability. Everything here that touches the
//! disk blocks: async code uses [`Store::update`], [`Store::commit`] and [`Store::read`], which run it elsewhere.

use std::{future::Future, sync::Arc, time::Instant};

use super::{
    Batch, Blobs, Damage, Table,
    disk::{Disk, Lock},
    partial::Partials,
    state::{Overlay, State, Transaction, View},
    writer::Writer,
};
use crate::error::{Error, Result};

use crate::lock::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Default length of a segment: 1 MiB. Shorter ones cost more file creations (each dirties the directory and the file
/// system's journal), longer ones more room beyond the live data and a longer pause when one is cleaned.
pub const DEFAULT_SEGMENT_BYTES: u64 = 1 << 20;

/// Default limit of what is kept, keys and values together: 64 MiB. The log takes at most twice that plus two segments,
/// and opening reads all of it. Beyond it, changes that add something fail with [`Kind::Limit`](crate::error::Kind).
pub const DEFAULT_MAX_BYTES: u64 = 64 << 20;

/// Default limit of the number of keys: 200 000, about 25 MiB of memory for the index. Beyond it, new keys fail.
pub const DEFAULT_MAX_KEYS: u64 = 200_000;

/// Most bytes one commit may change: 4 MiB. It is written as one frame and held in memory twice while it is.
pub const MAX_COMMIT_BYTES: usize = 4 << 20;

/// A group takes no more commits once it has this many bytes: 256 KiB is a few milliseconds of an SD card.
const GROUP_BYTES: usize = 256 << 10;

/// Commits that may wait: 4096, far more than there can be invocations at once. Beyond it they fail at once.
const MAX_WAITING: usize = 4096;

/// Limits of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`DEFAULT_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// See [`DEFAULT_MAX_BYTES`].
    pub max_bytes: u64,
    /// See [`DEFAULT_MAX_KEYS`].
    pub max_keys: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { segment_bytes: DEFAULT_SEGMENT_BYTES, max_bytes: DEFAULT_MAX_BYTES, max_keys: DEFAULT_MAX_KEYS }
    }
}

/// The state of this host. Clones are cheap and share it; the directory stays locked until the last one is gone.
#[derive(Clone)]
pub struct Store {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) settings: Settings,
    pub(super) state: RwLock<State>,
    /// Held by the thread that writes, and only then.
    pub(super) writer: Mutex<Writer>,
    pub(super) damage: Mutex<Vec<Damage>>,
    queue: Mutex<Queue>,
    /// Blobs on their way, and those that were cut off.
    pub(super) partials: Mutex<Partials>,
    _lock: Lock,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Box<dyn Job>>,
    /// A thread is working on the queue and will look again before it ends.
    attended: bool,
    /// When that thread was asked for, or last had a group on disk.
    moved: Option<Instant>,
}

/// A commit in the queue: decided on in order, answered when the group is on disk.
trait Job: Send {
    /// Decides; on `false` nothing of it may be kept.
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> bool;
    /// Replaces the decision by `error`.
    fn refuse(&mut self, error: Error);
    /// Answers: the decision if the write succeeded and it was to be kept, else why not.
    fn answer(self: Box<Self>, written: &Result<()>);
}

struct Update<T, F> {
    change: Option<F>,
    outcome: Option<Result<T>>,
    sender: smol::channel::Sender<Result<T>>,
}

impl<T: Send, F: FnOnce(&mut Transaction<'_>) -> Result<T> + Send> Job for Update<T, F> {
    fn decide(&mut self, transaction: &mut Transaction<'_>) -> bool {
        self.outcome = self.change.take().map(|change| change(transaction));
        matches!(self.outcome, Some(Ok(_)))
    }

    fn refuse(&mut self, error: Error) {
        self.outcome = Some(Err(error));
    }

    fn answer(self: Box<Self>, written: &Result<()>) {
        let outcome = match (self.outcome, written) {
            (Some(Ok(_)), Err(error)) => Err(error.clone()),
            (Some(outcome), _) => outcome,
            (None, _) => return,
        };
        // Nobody listens when the caller gave up; the change is made all the same.
        let _ = self.sender.try_send(outcome);
    }
}

impl Store {
    pub(super) fn new(disk: Arc<dyn Disk>, settings: Settings, lock: Lock, state: State, writer: Writer) -> Self {
        let shared = Shared {
            disk,
            settings,
            state: RwLock::new(state),
            writer: Mutex::new(writer),
            damage: Mutex::default(),
            queue: Mutex::default(),
            partials: Mutex::default(),
            _lock: lock,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The value of `key`. Blocks for one read of the disk, usually answered by the page cache.
    ///
    /// # Errors
    /// `Storage` when the value cannot be read or was damaged since it was written.
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.look(|view| view.get(table, key))
    }

    /// Keys and values whose key starts with `prefix`, in key order. Blocks for one read each.
    ///
    /// # Errors
    /// `Storage` when one of them cannot be read or was damaged.
    pub fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.look(|view| view.scan(table, prefix))
    }

    /// Runs `look` on one consistent state, on this thread.
    pub fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let state = self.shared.state();
        look(&View { disk: self.shared.disk.as_ref(), state: &state, overlay: &Overlay::default() })
    }

    /// Runs `look` on one consistent state, on a blocking thread.
    pub fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let store = self.clone();
        smol::unblock(move || store.look(look))
    }

    /// Makes the changes of `batch` together; they are durable when the future resolves with `Ok`.
    ///
    /// Starts at once. Dropping the future does not take the change back.
    ///
    /// # Errors
    /// `Storage` when the disk is full, read-only or failing: nothing of the batch is there then. `Limit` when the
    /// batch or the store would become too large, or too many commits wait.
    pub fn commit(&self, batch: Batch) -> impl Future<Output = Result<()>> + Send + 'static {
        self.update(move |transaction| {
            for (table, key, value) in batch.changes {
                match value {
                    Some(value) => transaction.put(table, &key, value),
                    None => {
                        transaction.delete(table, &key);
                    }
                }
            }
            Ok(())
        })
    }

    /// Runs `change` on the newest state, no other change beside it, and makes what it did durable; answers what it
    /// returned. When it returns an error, nothing it did is kept.
    ///
    /// Starts at once, on a blocking thread. Dropping the future does not take the change back.
    ///
    /// # Errors
    /// Those of `change`, and those of [`commit`](Self::commit).
    pub fn update<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send + 'static {
        let (sender, receiver) = smol::channel::bounded(1);
        let accepted = self.enqueue(Box::new(Update { change: Some(change), outcome: None, sender }));
        async move {
            accepted?;
            receiver.recv().await.unwrap_or_else(|_| Err(Error::internal("a change of the state ended unexpectedly")))
        }
    }

    fn enqueue(&self, job: Box<dyn Job>) -> Result<()> {
        let mut queue = self.shared.queue.lock();
        if queue.waiting.len() >= MAX_WAITING {
            return Err(Error::limit(format!(
                "{MAX_WAITING} changes wait for the state directory {} already: the storage medium is too slow for \
                 this load",
                self.shared.disk.place()
            )));
        }
        queue.waiting.push(job);
        if !std::mem::replace(&mut queue.attended, true) {
            queue.moved = Some(Instant::now());
            let shared = Arc::clone(&self.shared);
            smol::unblock(move || shared.attend()).detach();
        }
        Ok(())
    }

    /// Since when changes wait without one of them having been written; nothing when none waits.
    pub fn waiting_since(&self) -> Option<Instant> {
        let queue = self.shared.queue.lock();
        queue.moved.filter(|_| queue.attended)
    }

    /// Everything found wrong with the state directory, at opening and since.
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.damage.lock().clone()
    }

    /// Larger things, by their digest, in the same directory.
    pub fn blobs(&self) -> Blobs {
        Blobs::new(Arc::clone(&self.shared))
    }

    /// The state directory, for messages.
    pub fn place(&self) -> String {
        self.shared.disk.place()
    }
}

impl Shared {
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read()
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write()
    }

    /// Works on the queue until it is empty.
    fn attend(self: Arc<Self>) {
        let unattended = Unattended(&self);
        loop {
            let waiting = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.attended = false;
                    std::mem::forget(unattended);
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let mut waiting = waiting.into_iter().peekable();
            while waiting.peek().is_some() {
                self.write_group(&mut waiting);
                self.queue.lock().moved = Some(Instant::now());
            }
        }
    }

    /// Decides on as many jobs as fit a group, writes them, answers them.
    fn write_group(&self, waiting: &mut impl Iterator<Item = Box<dyn Job>>) {
        let mut writer = self.writer.lock();
        let mut overlay = Overlay::default();
        let mut decided = Vec::new();
        let mut refused = false;
        {
            let state = self.state();
            for mut job in waiting.by_ref() {
                let mut transaction = Transaction::new(self.disk.as_ref(), &state, &mut overlay);
                if !job.decide(&mut transaction) {
                    transaction.undo();
                } else if let Err(error) = self.check_limits(&transaction) {
                    transaction.undo();
                    job.refuse(error);
                    // The next decision must not build on what this one remembers: it goes to the next group.
                    refused = true;
                }
                decided.push(job);
                if overlay.bytes >= GROUP_BYTES || refused {
                    break;
                }
            }
        }
        let written = if overlay.changes.is_empty() { Ok(()) } else { writer.write(self, &overlay) };
        if refused || written.is_err() {
            self.state_mut().failed_writes += 1;
        }
        for job in decided {
            job.answer(&written);
        }
        if written.is_ok() {
            writer.clean_if_worth_it(self);
        }
    }

    fn check_limits(&self, transaction: &Transaction<'_>) -> Result<()> {
        let (bytes, growth_bytes, growth_keys) = transaction.size();
        if bytes > MAX_COMMIT_BYTES {
            return Err(Error::limit(format!(
                "a change of {bytes} bytes is more than the {MAX_COMMIT_BYTES} the state directory takes at once"
            )));
        }
        let live = transaction.state.live_bytes.saturating_add_signed(transaction.overlay.growth_bytes);
        if growth_bytes > 0 && live > self.settings.max_bytes {
            return Err(Error::limit(format!(
                "the state would grow to {live} bytes, its limit is {}: delete something",
                self.settings.max_bytes
            )));
        }
        let keys = (transaction.state.index.len() as u64).saturating_add_signed(transaction.overlay.growth_keys);
        if growth_keys > 0 && keys > self.settings.max_keys {
            return Err(Error::limit(format!(
                "the state would grow to {keys} keys, its limit is {}: delete something",
                self.settings.max_keys
            )));
        }
        Ok(())
    }
}

/// Lets the next commit start a new thread, should this one end by a panic.
struct Unattended<'a>(&'a Shared);

impl Drop for Unattended<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().attended = false;
    }
}
