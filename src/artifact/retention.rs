//! What stays in the store and what goes: a budget for all artifacts, kept by removing what is unused for longest.
//!
//! Needed is what the host says (desired state, running revisions and those before them), what is pinned, and what was
//! fetched a moment ago and may be about to be needed. Nothing needed is ever removed: a download that does not fit beside
//! it is refused. Downloads that were cut off count as well, and go first, the oldest first, unless they are on their way
//! now. Content that neither is needed nor has a reference is what a crash or a stop left behind, and goes.
//!
//! Until the host has said what it needs nothing is removed at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use smol::lock;

use crate::{
    artifact::{Live, Records},
    error::{Error, Result},
    lock::{Mutex, MutexGuard, RwLock},
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
    /// Their bytes, and those of downloads that were cut off and stay.
    pub kept_bytes: u64,
    /// Downloads that were cut off, and given up.
    #[serde(default)]
    pub given_up: u64,
}

/// A download is on its way as long as this lives: what has arrived of it stays.
pub struct Fetching<'a> {
    retention: &'a Retention,
    name: String,
}

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        let mut fetching = self.retention.fetching.lock();
        if let Some(count) = fetching.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                fetching.remove(&self.name);
            }
        }
    }
}

/// Decides what stays in one store.
pub struct Retention {
    blobs: Blobs,
    settings: Live,
    needed: RwLock<Option<Needed>>,
    recent: Arc<Mutex<BTreeMap<Digest, Instant>>>,
    /// What is on its way now, by the name of its unfinished blob, and how many fetch it.
    fetching: Mutex<BTreeMap<String, usize>>,
    /// What was needed when the store was last swept.
    swept: Mutex<Option<BTreeSet<Digest>>>,
    sweeping: lock::Mutex<()>,
}

impl Retention {
    /// Keeps the content of `store` within the budget of `settings`.
    pub fn new(store: &Store, settings: Live) -> Self {
        Self {
            blobs: store.blobs(),
            settings,
            needed: RwLock::default(),
            recent: Arc::default(),
            fetching: Mutex::default(),
            swept: Mutex::default(),
            sweeping: lock::Mutex::new(()),
        }
    }

    /// What all artifacts may take now.
    fn budget_bytes(&self) -> u64 {
        self.settings.now().budget_bytes
    }

    /// `needed` says from now on what may never be removed.
    pub fn needed_by(&self, needed: Needed) {
        *self.needed.write() = Some(needed);
    }

    /// What the host needs; `None` until it has said so.
    pub fn needed(&self) -> Option<BTreeSet<Digest>> {
        self.needed.read().as_ref().and_then(|needed| needed())
    }

    /// `digest` is about to be needed: it stays for [`RECENT`] at least.
    pub fn hold(&self, digest: Digest) {
        self.recent().insert(digest, Instant::now());
    }

    /// `digest` is not wanted after all.
    pub fn let_go(&self, digest: Digest) {
        self.recent().remove(&digest);
    }

    /// What has arrived under `name` stays as long as the answer lives.
    pub fn fetching(&self, name: &str) -> Fetching<'_> {
        let mut fetching = self.fetching.lock();
        *fetching.entry(name.to_owned()).or_default() += 1;
        Fetching { retention: self, name: name.to_owned() }
    }

    fn is_fetched(&self, name: &str) -> bool {
        self.fetching.lock().contains_key(name)
    }

    /// Makes room for `bytes` more. What has arrived of it under the name `own` is part of them.
    ///
    /// # Errors
    /// `Limit` when what is needed leaves none.
    pub async fn make_room(&self, records: &Records, bytes: u64, own: Option<&str>) -> Result<()> {
        let swept = self.sweep_beside(records, bytes, own).await?;
        match swept.kept_bytes.saturating_add(bytes) > self.budget_bytes() && self.needed().is_some() {
            false => Ok(()),
            true => Err(Error::limit(format!(
                "the store of artifacts has no room for {bytes} bytes: {} of its {} are taken by what runs, was just \
                 fetched or is pinned; raise {BUDGET_SETTING}, stop something, or unpin",
                swept.kept_bytes,
                self.budget_bytes()
            ))),
        }
    }

    /// Sweeps if what is needed has changed since the last time. Failures are logged: the next change tries again.
    pub async fn tidy(&self, records: &Records) {
        let needed = self.needed();
        if needed.is_none() || *self.swept.lock() == needed {
            return;
        }
        match self.sweep(records, 0).await {
            Ok(swept) if swept.kept_bytes > self.budget_bytes() => log::warn!(
                "artifacts that are needed take {} bytes, more than the {} of {BUDGET_SETTING}",
                swept.kept_bytes,
                self.budget_bytes()
            ),
            Ok(Swept { removed: 0, given_up: 0, .. }) => {}
            Ok(swept) => log::info!(
                "removed {} artifacts nobody needs and {} downloads that were cut off, {} bytes",
                swept.removed,
                swept.given_up,
                swept.freed_bytes
            ),
            Err(error) => log::warn!("cannot tidy up the store of artifacts: {error}"),
        }
        *self.swept.lock() = needed;
    }

    /// Removes what nobody refers to, and then, until `extra` bytes more would fit the budget, what was cut off and after
    /// that what is unused for longest.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sweep(&self, records: &Records, extra: u64) -> Result<Swept> {
        self.sweep_beside(records, extra, None).await
    }

    async fn sweep_beside(&self, records: &Records, extra: u64, own: Option<&str>) -> Result<Swept> {
        let _one_at_a_time = self.sweeping.lock().await;
        let budget = self.budget_bytes();
        let blobs = self.blobs.clone();
        let (sizes, mut unfinished) = smol::unblock(move || {
            let digests = blobs.list()?;
            let sizes = digests.into_iter().filter_map(|digest| Some((digest, blobs.length(digest)?)));
            Ok::<_, Error>((sizes.collect::<Vec<_>>(), blobs.unfinished()))
        })
        .await?;
        unfinished.retain(|one| own != Some(&*one.name));
        let mut swept = Swept {
            kept: sizes.len() as u64,
            kept_bytes: sizes.iter().map(|(_, bytes)| bytes).chain(unfinished.iter().map(|one| &one.bytes)).sum(),
            ..Swept::default()
        };
        let Some(mut needed) = self.needed() else { return Ok(swept) };
        needed.extend(records.pins());
        let orphans = self.orphans(records, &sizes, &needed);
        let orphaned = |swept: &Swept| swept.kept_bytes.saturating_sub(orphans).saturating_add(extra);
        for one in unfinished {
            if orphaned(&swept) <= budget {
                break;
            }
            if self.is_fetched(&one.name) {
                continue;
            }
            let (blobs, name) = (self.blobs.clone(), one.name);
            if smol::unblock(move || blobs.give_up(&name)).await {
                swept.given_up += 1;
                swept.freed_bytes += one.bytes;
                swept.kept_bytes -= one.bytes;
            }
        }
        let mut unneeded: Vec<(u64, Digest, u64)> = sizes
            .into_iter()
            .filter(|(digest, _)| !needed.contains(digest))
            .map(|(digest, bytes)| (records.order_of(digest), digest, bytes))
            .collect();
        unneeded.sort_unstable();
        for (order, digest, bytes) in unneeded {
            // 0: no reference brought it.
            if order > 0 && swept.kept_bytes.saturating_add(extra) <= budget {
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

    /// Bytes of what goes in any case, as no reference brought it.
    fn orphans(&self, records: &Records, sizes: &[(Digest, u64)], needed: &BTreeSet<Digest>) -> u64 {
        let stays = |digest| needed.contains(&digest) || self.is_held(digest) || records.order_of(digest) > 0;
        sizes.iter().filter(|(digest, _)| !stays(*digest)).map(|(_, bytes)| bytes).sum()
    }

    fn is_held(&self, digest: Digest) -> bool {
        self.recent().get(&digest).is_some_and(|since| since.elapsed() < RECENT)
    }

    /// Somebody may have begun to need it since it was looked for: whoever does holds it first.
    async fn remove_unless_held(&self, digest: Digest) -> Result<bool> {
        let (recent, blobs) = (self.recent.clone(), self.blobs.clone());
        smol::unblock(move || {
            let recent = recent.lock();
            if recent.get(&digest).is_some_and(|since| since.elapsed() < RECENT) {
                return Ok(false);
            }
            blobs.remove_under(digest, recent).map(|()| true)
        })
        .await
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<Digest, Instant>> {
        self.recent.lock()
    }
}

#[cfg(test)]
mod tests {
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
            artifacts.needed_by(move || Some(says.lock().clone()));
            Ok(Self { disk: disk.clone(), artifacts, needed })
        }

        fn need(&self, contents: &[&[u8]]) {
            *self.needed.lock() = contents.iter().map(|content| Digest::of(content)).collect();
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
            self.here_beside(0, contents);
        }

        /// The same, beside so many unfinished ones.
        fn here_beside(&self, unfinished: usize, contents: &[&[u8]]) {
            let mut expected: Vec<String> = contents.iter().map(|content| Digest::of(content).to_string()).collect();
            expected.sort();
            let mut found = self.disk.list(store::BLOBS_DIR).unwrap();
            let all = found.len();
            found.retain(|name| !name.ends_with(".part"));
            assert_eq!(all - found.len(), unfinished);
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
    fn downloads_that_were_cut_off_count_and_go_first_but_not_those_on_their_way() {
        let disk = FaultDisk::new();
        let board = Board::on(&disk, 120);
        let blobs = board.artifacts.store().blobs();
        let cut_off = |name: &str, bytes: usize| {
            let mut incoming = blobs.resume(name, Some(Digest::of(name.as_bytes())), 100);
            incoming.write(&vec![7; bytes]).unwrap();
        };
        let left = || blobs.unfinished().into_iter().map(|one| one.name).collect::<Vec<_>>();
        board.has("a/a:1", A);
        board.need(&[]);
        for (name, bytes) in [("first", 20), ("second", 20), ("third", 30)] {
            cut_off(name, bytes);
        }
        let swept = board.sweep();
        assert_eq!((swept.given_up, swept.kept, swept.kept_bytes), (0, 1, 110));

        // Twenty bytes too many: the oldest goes, and content that nobody needs stays.
        let retention = &board.artifacts.retention;
        let room = |bytes, own| smol::block_on(retention.make_room(board.artifacts.records(), bytes, own));
        room(30, None).unwrap();
        assert_eq!(left(), ["second", "third"]);
        // What has arrived of it is part of what room is made for, and nothing is given up that somebody fetches.
        room(60, Some("third")).unwrap();
        assert_eq!(left(), ["second", "third"]);
        let second = retention.fetching("second");
        room(50, None).unwrap();
        assert_eq!(left(), ["second"]);
        board.here_beside(1, &[A]);
        drop(second);
        let mut going_on = blobs.resume("second", Some(Digest::of(b"second")), 100);
        room(100, None).unwrap();
        assert_eq!(left(), ["second"], "somebody writes to it");
        board.here_beside(1, &[]);
        going_on.write(&[7; 10]).unwrap();
        drop(going_on);
        let swept = smol::block_on(board.artifacts.collect(true)).unwrap();
        assert_eq!((swept.given_up, swept.freed_bytes, swept.kept_bytes), (1, 30, 0));
        assert_eq!(disk.list(store::BLOBS_DIR).unwrap(), Vec::<String>::new());
        drop((blobs, board));
        let board = Board::on(&disk, 120);
        assert_eq!(board.artifacts.store().look(|view| view.count(store::Table::Partial, b"")), 0);
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
