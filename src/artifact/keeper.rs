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
