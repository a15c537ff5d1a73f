//! What stays in the store and what goes: a budget for all artifacts, kept by removing what is unused for longest.
//!
//! Needed is what the host says (desired state, running revisions and those before them), what is pinned, and what was
//! fetched a moment ago and may be about to be needed. Nothing needed is ever removed: a download that does not fit beside
//! it is refused. Content that neither is needed nor has a reference is what a crash or a stop left behind, and goes.
//!
//! Until the host has said what it needs nothing is removed at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use smol::lock;

use crate::{
    artifact::Records,
    error::{Error, Result},
    log,
    store::{Blobs, Digest, Store},
};

/// The setting of the budget.
pub const BUDGET_SETTING: &str = "WASMCLOUD_ARTIFACT_BYTES";

/// Default budget: 256 MiB, a dozen provider archives and a hundred actors, little beside the smallest SD card in use.
pub const DEFAULT_BUDGET_BYTES: u64 = 256 << 20;

/// How long content that was just fetched or asked for counts as needed: it becomes so when the change is on disk, which
/// takes seconds; a board that checks ten archives before the first is on disk takes minutes.
const RECENT: Duration = Duration::from_secs(15 * 60);

type Needed = Box<dyn Fn() -> Option<BTreeSet<Digest>> + Send + Sync>;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Swept {
    /// Contents removed.
    pub removed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
    /// Contents that stay.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
}

/// The keeper of one store.
pub struct Keeper {
    blobs: Blobs,
    budget_bytes: u64,
    needed: RwLock<Option<Needed>>,
    recent: Mutex<BTreeMap<Digest, Instant>>,
    /// What was needed when the store was last swept.
    swept: Mutex<Option<BTreeSet<Digest>>>,
    sweeping: lock::Mutex<()>,
}

impl Keeper {
    /// Keeps the content of `store` within `budget_bytes`.
    pub fn new(store: &Store, budget_bytes: u64) -> Self {
        Self {
            blobs: store.blobs(),
            budget_bytes,
            needed: RwLock::default(),
            recent: Mutex::default(),
            swept: Mutex::default(),
            sweeping: lock::Mutex::new(()),
        }
    }

    /// `needed` says from now on what may never be removed.
    pub fn needed_by(&self, needed: Needed) {
        *self.needed.write().unwrap_or_else(PoisonError::into_inner) = Some(needed);
    }

    /// What the host needs; `None` until it has said so.
    pub fn needed(&self) -> Option<BTreeSet<Digest>> {
        self.needed.read().unwrap_or_else(PoisonError::into_inner).as_ref().and_then(|needed| needed())
    }

    /// `digest` is about to be needed: it stays for [`RECENT`] at least.
    pub fn hold(&self, digest: Digest) {
        self.recent().insert(digest, Instant::now());
    }

    /// `digest` is not wanted after all.
    pub fn let_go(&self, digest: Digest) {
        self.recent().remove(&digest);
    }

    /// Makes room for `bytes` more.
    ///
    /// # Errors
    /// `Limit` when what is needed leaves none.
    pub async fn make_room(&self, records: &Records, bytes: u64) -> Result<()> {
        let swept = self.sweep(records, bytes).await?;
        match swept.kept_bytes.saturating_add(bytes) > self.budget_bytes && self.needed().is_some() {
            false => Ok(()),
            true => Err(Error::limit(format!(
                "the store of artifacts has no room for {bytes} bytes: {} of its {} are taken by what runs, was just \
                 fetched or is pinned; raise {BUDGET_SETTING}, stop something, or unpin",
                swept.kept_bytes, self.budget_bytes
            ))),
        }
    }

    /// Sweeps if what is needed has changed since the last time. Failures are logged: the next change tries again.
    pub async fn tidy(&self, records: &Records) {
        let needed = self.needed();
        if needed.is_none() || *self.swept.lock().unwrap_or_else(PoisonError::into_inner) == needed {
            return;
        }
        match self.sweep(records, 0).await {
            Ok(swept) if swept.kept_bytes > self.budget_bytes => log::warn!(
                "artifacts that are needed take {} bytes, more than the {} of {BUDGET_SETTING}",
                swept.kept_bytes,
                self.budget_bytes
            ),
            Ok(Swept { removed: 0, .. }) => {}
            Ok(swept) => log::info!("removed {} artifacts nobody needs, {} bytes", swept.removed, swept.freed_bytes),
            Err(error) => log::warn!("cannot tidy up the store of artifacts: {error}"),
        }
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = needed;
    }

    /// Removes what nobody refers to, and then, unused for longest first, until `extra` bytes more would fit the budget.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep(&self, records: &Records, extra: u64) -> Result<Swept> {
        let _one_at_a_time = self.sweeping.lock().await;
        let blobs = self.blobs.clone();
        let sizes = smol::unblock(move || {
            let digests = blobs.list()?;
            Ok::<_, Error>(
                digests.into_iter().filter_map(|digest| Some((digest, blobs.length(digest)?))).collect::<Vec<_>>(),
            )
        })
        .await?;
        let mut swept = Swept {
            kept: sizes.len() as u64,
            kept_bytes: sizes.iter().map(|(_, bytes)| bytes).sum(),
            ..Swept::default()
        };
        let Some(mut needed) = self.needed() else { return Ok(swept) };
        needed.extend(records.pins());
        let mut unneeded: Vec<(u64, Digest, u64)> = sizes
            .into_iter()
            .filter(|(digest, _)| !needed.contains(digest))
            .map(|(digest, bytes)| (records.order_of(digest), digest, bytes))
            .collect();
        unneeded.sort_unstable();
        for (order, digest, bytes) in unneeded {
            // 0: no reference brought it.
            if order > 0 && swept.kept_bytes.saturating_add(extra) <= self.budget_bytes {
                break;
            }
            if self.is_held(digest) {
                continue;
            }
            let text = digest.to_string();
            let names: Vec<String> = records
                .all()
                .into_iter()
                .filter(|(_, record)| record.digest().is_some_and(|digest| digest.to_string() == text))
                .map(|(name, _)| name)
                .collect();
            // First what speaks of it: content without a record is swept at the next start.
            records.forget(&names).await?;
            if self.remove_unless_held(digest).await? {
                swept.removed += 1;
                swept.freed_bytes += bytes;
                swept.kept -= 1;
                swept.kept_bytes -= bytes;
            }
        }
        self.recent().retain(|_, since| since.elapsed() < RECENT);
        Ok(swept)
    }

    fn is_held(&self, digest: Digest) -> bool {
        self.recent().get(&digest).is_some_and(|since| since.elapsed() < RECENT)
    }

    /// Somebody may have begun to need it since it was looked for: whoever does holds it first.
    async fn remove_unless_held(&self, digest: Digest) -> Result<bool> {
        let recent = self.recent();
        if recent.get(&digest).is_some_and(|since| since.elapsed() < RECENT) {
            return Ok(false);
        }
        // Under the lock, and short: a removal and the sync of a folder.
        let removed = self.blobs.remove(digest);
        drop(recent);
        removed.map(|()| true)
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<Digest, Instant>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        artifact::{Artifacts, Content, Settings},
        error::Kind,
        store::{self, Disk, FaultDisk},
    };

    struct Board {
        disk: FaultDisk,
        artifacts: Artifacts,
        needed: Arc<Mutex<BTreeSet<Digest>>>,
    }

    impl Board {
        fn on(disk: &FaultDisk, budget_bytes: u64) -> Self {
            Self::try_on(disk, budget_bytes).unwrap()
        }

        fn try_on(disk: &FaultDisk, budget_bytes: u64) -> Result<Self> {
            let store = Store::open(store::Settings::default(), Arc::new(disk.clone()))?.0;
            let artifacts = Artifacts::new(store, Settings { budget_bytes, ..Settings::default() });
            let needed = Arc::<Mutex<BTreeSet<Digest>>>::default();
            let says = needed.clone();
            artifacts.needed_by(move || Some(says.lock().unwrap().clone()));
            Ok(Self { disk: disk.clone(), artifacts, needed })
        }

        fn need(&self, contents: &[&[u8]]) {
            *self.needed.lock().unwrap() = contents.iter().map(|content| Digest::of(content)).collect();
        }

        /// As a source would leave it, fetched long ago.
        fn has(&self, reference: &str, content: &[u8]) {
            self.try_has(reference, content).unwrap();
        }

        fn try_has(&self, reference: &str, content: &[u8]) -> Result<()> {
            let digest = self.artifacts.store().blobs().put_blocking(content)?;
            if reference.is_empty() {
                return Ok(());
            }
            let records = self.artifacts.records();
            smol::block_on(records.remember(reference, digest, &Content::default(), &BTreeSet::new()))
        }

        fn sweep(&self) -> Swept {
            smol::block_on(self.artifacts.collect(false)).unwrap()
        }

        fn here(&self, contents: &[&[u8]]) {
            let mut expected: Vec<String> = contents.iter().map(|content| Digest::of(content).to_string()).collect();
            expected.sort();
            let mut found = self.disk.list(store::BLOBS_DIR).unwrap();
            found.sort();
            assert_eq!(found, expected);
        }
    }

    const A: &[u8] = &[1; 40];
    const B: &[u8] = &[2; 40];
    const C: &[u8] = &[3; 40];
    const D: &[u8] = &[4; 40];

    #[test]
    fn over_the_budget_what_is_unused_for_longest_goes_and_what_is_needed_or_pinned_stays() {
        let board = Board::on(&FaultDisk::new(), 120);
        for (reference, content) in [("z/oldest:1", A), ("y/b:1", B), ("x/c:1", C), ("a/d:1", D)] {
            board.has(reference, content);
        }
        board.need(&[A]);
        let swept = board.sweep();
        assert_eq!((swept.removed, swept.freed_bytes, swept.kept, swept.kept_bytes), (1, 40, 3, 120));
        board.here(&[A, C, D]);
        assert!(board.artifacts.records().find("y/b:1").is_none(), "nothing speaks of what is gone");

        board.artifacts.records().touch("x/c:1");
        smol::block_on(board.artifacts.keep(B.to_vec())).unwrap();
        board.here(&[A, B, C]);
        board.need(&[A, B]);
        smol::block_on(board.artifacts.records().pin(Digest::of(C), true)).unwrap();
        let error = smol::block_on(board.artifacts.keep(D.to_vec())).unwrap_err();
        assert!(error.kind() == Kind::Limit && error.text().contains(BUDGET_SETTING), "{error}");
        board.here(&[A, B, C]);
        smol::block_on(board.artifacts.records().pin(Digest::of(C), false)).unwrap();
        smol::block_on(board.artifacts.keep(D.to_vec())).unwrap();
        board.here(&[A, B, D]);
        assert_eq!(smol::block_on(board.artifacts.collect(true)).unwrap().removed, 0, "just kept, and needed");
    }

    #[test]
    fn what_nobody_refers_to_goes_and_nothing_does_before_the_host_has_spoken() {
        let disk = FaultDisk::new();
        let board = Board::on(&disk, 1000);
        board.has("a/a:1", A);
        board.has("", B);
        board.has("", C);
        board.need(&[C]);
        let silent = Artifacts::new(board.artifacts.store().clone(), Settings::default());
        assert_eq!(smol::block_on(silent.collect(true)).unwrap().removed, 0);
        smol::block_on(board.artifacts.tidy());
        board.here(&[A, C]);
        board.has("", B);
        smol::block_on(board.artifacts.tidy());
        board.here(&[A, B, C]);
        board.need(&[A]);
        smol::block_on(board.artifacts.tidy());
        board.here(&[A]);
    }

    #[test]
    fn the_order_of_use_survives_the_process_as_far_as_it_was_written() {
        let disk = FaultDisk::new();
        let board = Board::on(&disk, 1000);
        board.has("z/a:1", A);
        board.has("y/b:1", B);
        drop(board);
        let board = Board::on(&disk, 80);
        board.has("x/c:1", C);
        board.sweep();
        board.here(&[B, C]);
    }

    #[test]
    fn power_may_be_cut_at_every_step_of_a_sweep() {
        let life = |disk: &FaultDisk| -> Result<()> {
            let board = Board::try_on(disk, 80)?;
            for (reference, content) in [("a/a:1", A), ("a/b:1", B), ("a/c:1", C), ("", D)] {
                board.try_has(reference, content)?;
            }
            board.need(&[A]);
            smol::block_on(board.artifacts.collect(false)).map(drop)
        };
        let clean = FaultDisk::new();
        life(&clean).unwrap();
        drop(Board::on(&clean, 80));
        let steps = clean.steps();
        assert!(steps > 20, "{steps}");
        for step in 0..steps {
            let disk = FaultDisk::new();
            disk.cut_at(step);
            assert!(life(&disk).is_err() || disk.is_off() || step + 4 >= steps, "step {step}");
            for seed in 0..3 {
                let disk = disk.restart(seed * 1000 + step);
                let board = Board::on(&disk, 80);
                let records = board.artifacts.records().all();
                let blobs = board.artifacts.store().blobs();
                for (name, record) in &records {
                    let digest = record.digest().unwrap();
                    // Missing is possible: it is fetched again. Wrong is not.
                    if blobs.length(digest).is_some() {
                        assert!(blobs.read_blocking(digest).is_ok(), "step {step} seed {seed}: {name}");
                    }
                }
                board.need(&[A]);
                let swept = board.sweep();
                assert!(swept.kept_bytes <= 80, "step {step} seed {seed}");
                let spoken: BTreeSet<Digest> = records.values().filter_map(crate::artifact::Record::digest).collect();
                let left = blobs.list().unwrap();
                assert!(left.iter().all(|digest| *digest == Digest::of(A) || spoken.contains(digest)));
            }
        }
    }
}
