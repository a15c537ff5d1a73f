//! Downloads on their way, for whoever watches: `latticed status`, a line on a terminal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use serde::{Deserialize, Serialize};

use crate::{lock::Mutex, store::Progress};

/// One download at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// What is fetched, as it was asked for.
    pub reference: String,
    /// What kind of place it comes from, in words.
    pub source: String,
    /// Bytes that are here.
    pub received: u64,
    /// Of so many, once the source has said so.
    #[serde(default)]
    pub total: Option<u64>,
    /// Since this download was asked for, waits included.
    pub bytes_per_second: u64,
    /// Since then.
    pub seconds: u64,
    /// Which attempt this is.
    pub attempt: u32,
    /// Why the attempt before ended; empty for the first.
    #[serde(default)]
    pub problem: String,
}

/// All of them.
#[derive(Default)]
pub struct Running(Arc<All>);

#[derive(Default)]
struct All {
    downloads: Mutex<BTreeMap<u64, Arc<Download>>>,
    /// How far those that ended had come: their bytes and their attempts.
    ended: AtomicU64,
}

struct Download {
    reference: String,
    source: &'static str,
    progress: Arc<Progress>,
    /// What was here when it was asked for; nothing before the first attempt has looked.
    at_first: Mutex<Option<u64>>,
    started: Instant,
    attempt: AtomicU32,
    problem: Mutex<String>,
    /// When it is tried again, while it waits for that.
    next: Mutex<Option<Instant>>,
}

/// A download is on its way as long as this lives; then whoever still brings bytes for it is stopped.
pub struct Watched {
    download: Arc<Download>,
    number: u64,
    all: Arc<All>,
}

impl Running {
    /// Begins one.
    pub fn begin(&self, reference: &str, source: &'static str) -> Watched {
        let download = Arc::new(Download {
            reference: reference.to_owned(),
            source,
            progress: Arc::default(),
            at_first: Mutex::default(),
            started: Instant::now(),
            attempt: AtomicU32::new(0),
            problem: Mutex::default(),
            next: Mutex::default(),
        });
        let mut all = self.0.downloads.lock();
        let number = all.last_key_value().map_or(0, |(number, _)| number + 1);
        all.insert(number, download.clone());
        Watched { download, number, all: self.0.clone() }
    }

    /// All of them now, in the order they began.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.0.downloads.lock().values().map(|download| download.transfer()).collect()
    }

    /// Bytes and attempts of all downloads there ever were: another number means that something moved.
    pub fn moved(&self) -> u64 {
        let running = self.0.downloads.lock().values().map(|download| download.moved()).sum::<u64>();
        running.wrapping_add(self.0.ended.load(Ordering::Relaxed))
    }

    /// When the next one that waits is tried again.
    pub fn next_attempt(&self) -> Option<Instant> {
        self.0.downloads.lock().values().filter_map(|download| *download.next.lock()).min()
    }
}

impl Download {
    fn moved(&self) -> u64 {
        self.progress.received().wrapping_add(self.attempt.load(Ordering::Relaxed).into())
    }

    fn transfer(&self) -> Transfer {
        let received = self.progress.received();
        let before = self.at_first.lock().unwrap_or(received);
        let lasted = self.started.elapsed();
        Transfer {
            reference: self.reference.clone(),
            source: self.source.to_owned(),
            received,
            total: self.progress.total(),
            bytes_per_second: (received.saturating_sub(before) as f64 / lasted.as_secs_f64().max(0.001)) as u64,
            seconds: lasted.as_secs(),
            attempt: self.attempt.load(Ordering::Relaxed),
            problem: self.problem.lock().clone(),
        }
    }
}

impl Watched {
    /// Another attempt begins, with so many bytes here.
    pub fn attempt(&self, received: u64) {
        self.download.attempt.fetch_add(1, Ordering::Relaxed);
        self.download.at_first.lock().get_or_insert(received);
    }

    /// Why the attempt ended.
    pub fn failed(&self, problem: &str) {
        problem.clone_into(&mut self.download.problem.lock());
    }

    /// Until when it waits before another attempt; `None` when that begins.
    pub fn waits_until(&self, next: Option<Instant>) {
        *self.download.next.lock() = next;
    }

    /// Where whoever brings bytes tells how far it is.
    pub fn progress(&self) -> Arc<Progress> {
        self.download.progress.clone()
    }

    /// How many attempts were made.
    pub fn attempts(&self) -> u32 {
        self.download.attempt.load(Ordering::Relaxed)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.download.progress.stop();
        let mut running = self.all.downloads.lock();
        running.remove(&self.number);
        self.all.ended.fetch_add(self.download.moved(), Ordering::Relaxed);
    }
}
