//! From a reference to verified bytes in the store, whatever the source.
//!
//! Called by the host for actors and provider archives. A reference with a digest that is in the store needs no network;
//! one without is looked up again, and the copy kept from before is used when its source cannot be reached. Sources
//! that need a floor above this one (`lattice`) register themselves. It never judges what the bytes are worth: that is
//! `claims`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use smol::{Timer, lock};

use crate::{
    artifact::{
        Content, Credentials, Limit, Live, Origin, Pace, Received, Record, Records, Reference, Remote, Requester,
        Resolved, Retention, Running, Settings, Source, Swept, Transfer, Wanted,
        pace::{LONGEST_RETRY_AFTER, retry_wait},
        read_file,
        running::Watched,
    },
    error::{Error, Kind, Result},
    lock::{Mutex, MutexGuard, RwLock},
    log,
    store::{Digest, Store},
    task,
};

/// Attempts at once, of all downloads together: each takes a thread and its buffers, and more do not make a link faster.
/// Others wait for their turn, within their total time.
const MAX_ATTEMPTS_AT_ONCE: usize = 4;

/// Verified bytes. In text only how many.
#[derive(Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Of `bytes`.
    pub digest: Digest,
    /// All of them.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}", self.bytes.len(), self.digest)
    }
}

/// All sources, in front of one store.
pub struct Artifacts {
    store: Store,
    settings: Live,
    credentials: Arc<Credentials>,
    origins: RwLock<BTreeMap<Remote, Arc<dyn Origin>>>,
    /// Asked before the source of a reference, for any content whose digest is known.
    front: RwLock<Option<Arc<dyn Origin>>>,
    /// Who fetches what: whoever asks for the same waits and finds it in the store.
    fetching: Mutex<BTreeMap<String, Arc<lock::Mutex<()>>>>,
    records: Records,
    pub(super) retention: Retention,
    running: Running,
    pace: Arc<Pace>,
    places: lock::Semaphore,
}

/// What is asked for, as every step below needs it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    reference: &'a Reference,
    requester: Requester,
    remote: Remote,
    /// What it is for, in words.
    purpose: &'a str,
    limit: Limit,
    deadline: Instant,
    /// Attempts in a row that may bring nothing.
    fruitless: u32,
}

impl Artifacts {
    /// Sources register with [`Artifacts::register`].
    pub fn new(store: Store, settings: impl Into<Live>) -> Self {
        let settings: Live = settings.into();
        Self {
            credentials: Arc::new(Credentials::new(store.clone())),
            origins: RwLock::default(),
            front: RwLock::default(),
            fetching: Mutex::default(),
            records: Records::load(store.clone()),
            retention: Retention::new(&store, settings.clone()),
            running: Running::default(),
            pace: Arc::new(Pace::new(settings.now().bytes_per_second)),
            places: lock::Semaphore::new(MAX_ATTEMPTS_AT_ONCE),
            store,
            settings,
        }
    }

    /// How to log in to registries: for the source of images, and for whoever learns of a login.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// References to `remote` are fetched by `origin` from now on.
    pub fn register(&self, remote: Remote, origin: Arc<dyn Origin>) {
        self.origins.write().insert(remote, origin);
    }

    /// `origin` is asked from now on before the source of a reference, once, for any content whose digest is known. What
    /// goes wrong there is logged, and the source asked.
    pub fn set_front(&self, origin: Arc<dyn Origin>) {
        *self.front.write() = Some(origin);
    }

    /// `needed` says from now on which content must never be removed; while it says nothing, nothing is.
    pub fn needed_by(&self, needed: impl Fn() -> Option<BTreeSet<Digest>> + Send + Sync + 'static) {
        self.retention.needed_by(Box::new(needed));
    }

    /// The bytes behind `reference`, on the word of `requester`; `wanted` says in errors what they are for, `an actor`. Those of a file are not put
    /// into the store: the caller does that by [`Artifacts::keep`] once it has accepted them.
    ///
    /// # Errors
    /// `Invalid` for a digest that cannot be read, is missing where it must be there, or does not match; `Denied` where
    /// one is demanded; `Limit` for more than `limit`; `Unavailable` without a source for it; those of the source.
    pub async fn fetch(
        &self,
        reference: &Reference,
        requester: Requester,
        wanted: &str,
        limit: Limit,
    ) -> Result<Fetched> {
        if let Source::File(path) = reference.source() {
            let bytes = read_file(path, Path::new(""), limit).await?;
            let (digest, bytes) = smol::unblock(move || (Digest::of(&bytes), bytes)).await;
            return Ok(Fetched { digest, bytes });
        }
        let digest = self.obtain(reference, requester, wanted, limit).await?;
        match self.store.blobs().read(digest).await {
            Ok(bytes) => Ok(Fetched { digest, bytes }),
            // Damaged, and set aside by now: once more, from its source.
            Err(error) => {
                log::warn!("{error}; fetching it again"; reference = reference.text());
                let digest = self.obtain(reference, requester, wanted, limit).await?;
                let bytes = self.store.blobs().read(digest).await?;
                Ok(Fetched { digest, bytes })
            }
        }
    }

    /// As [`Artifacts::fetch`], but leaves the bytes in the store, where they are under the digest it answers: for what is
    /// too large to be held in memory. What arrives now is checked on its way; what is there is not read: whoever reads
    /// it, by the store or [`Artifacts::fetch`], learns whether it is whole.
    ///
    /// # Errors
    /// Those of [`Artifacts::fetch`]; `Invalid` for a file, which is not in the store.
    pub async fn obtain(
        &self,
        reference: &Reference,
        requester: Requester,
        wanted: &str,
        limit: Limit,
    ) -> Result<Digest> {
        let Source::Remote(remote) = reference.source() else { return Err(reference.cannot_give(wanted)) };
        let settings = self.settings.now();
        let asked = Asked {
            reference,
            requester,
            remote: *remote,
            purpose: wanted,
            limit,
            deadline: Instant::now() + settings.total,
            fruitless: settings.attempts,
        };
        // What the text alone tells, anybody may read.
        self.check(asked).map_err(|error| explain(error, reference, limit))?;
        let outcome = self.obtain_remote(asked).await.map_err(|error| explain(error, reference, limit));
        outcome.map_err(|error| requester.may_read(error, reference))
    }

    /// Whether nobody between this board and the source can put something else in the place of what `reference` names.
    pub fn is_authentic(&self, reference: &Reference) -> bool {
        let Source::Remote(remote) = reference.source() else { return true };
        let origins = self.origins.read();
        origins.get(remote).is_none_or(|origin| origin.is_authentic(reference))
    }

    /// Which content `reference` stands for now, by the word of its source, which is asked once; `None` where only the
    /// content itself tells. Nothing is fetched. For the operator alone: what the lattice asks for is fetched when it asks.
    ///
    /// # Errors
    /// Those of [`Origin::resolve`].
    pub async fn look_up(&self, reference: &Reference, wanted: &str) -> Result<Option<Digest>> {
        let Source::Remote(remote) = reference.source() else { return Err(reference.cannot_give(wanted)) };
        let origin = self.origins.read().get(remote).cloned();
        let origin = origin.ok_or_else(|| reference.cannot_give(wanted))?;
        match in_time(Instant::now() + self.settings.now().idle, origin.resolve(reference, Requester::Operator)).await?
        {
            Resolved::Content(content) => Ok(content.digest),
            Resolved::Later(error, _) => Err(error),
        }
    }

    /// Keeps `bytes`, which came from a file, under the digest it answers.
    ///
    /// # Errors
    /// `Limit` when they do not fit beside what is needed; `Storage`.
    pub async fn keep(&self, bytes: Vec<u8>) -> Result<Digest> {
        let blobs = self.store.blobs();
        let (digest, bytes) = smol::unblock(move || (Digest::of(&bytes), bytes)).await;
        self.retention.hold(digest);
        if blobs.length(digest).is_none() {
            self.retention.make_room(&self.records, bytes.len() as u64, None).await?;
        }
        smol::unblock(move || blobs.put_blocking(&bytes)).await
    }

    /// Makes room for `bytes` of the content `digest`, and keeps it for a while once it is there.
    ///
    /// # Errors
    /// `Limit` when they do not fit beside what is needed; `Storage`.
    pub(super) async fn make_room(&self, digest: Digest, bytes: u64) -> Result<()> {
        self.retention.hold(digest);
        self.retention.make_room(&self.records, bytes, None).await
    }

    /// Brings back the content `digest` that `reference` gave before, and that is missing or damaged now. What the
    /// reference stands for now does not matter. Waits no longer than `patience`; what has arrived stays.
    ///
    /// # Errors
    /// Those of [`Artifacts::fetch`]; `Invalid` when its source gives something else by now.
    pub async fn restore(
        &self,
        reference: &Reference,
        requester: Requester,
        digest: Digest,
        wanted: &str,
        limit: Limit,
        patience: Duration,
    ) -> Result<()> {
        match reference.source() {
            Source::File(path) => {
                let bytes = read_file(path, Path::new(""), limit).await?;
                let (found, bytes) = smol::unblock(move || (Digest::of(&bytes), bytes)).await;
                if found != digest {
                    return Err(Error::invalid(format!(
                        "{reference} has the digest sha256:{found} by now, sha256:{digest} is needed; start it again to \
                         take the new one"
                    )));
                }
                self.keep(bytes).await.map(drop)
            }
            Source::Builtin(_) => Err(reference.cannot_give(wanted)),
            Source::Remote(remote) => {
                let settings = self.settings.now();
                let asked = Asked {
                    reference,
                    requester,
                    remote: *remote,
                    purpose: wanted,
                    limit,
                    deadline: Instant::now() + settings.total.min(patience),
                    fruitless: settings.attempts,
                };
                let content = Content { digest: Some(digest), ..Content::default() };
                let outcome = self.by_digest(asked, digest, &content).await;
                outcome.map_err(|error| requester.may_read(explain(error, reference, limit), reference))
            }
        }
    }

    /// Whether anything is fetched for what is asked, by its text alone.
    fn check(&self, asked: Asked<'_>) -> Result<()> {
        if self.settings.now().require_digest && !asked.reference.is_pinned() {
            return Err(Error::denied(
                "it does not say which content it means, and WASMCLOUD_REQUIRE_DIGEST is set: end it with \
                 @sha256:DIGEST (#sha256=DIGEST for a download)",
            ));
        }
        asked.reference.content_digest()?;
        asked.reference.manifest_digest()?;
        let origin = self.origins.read().get(&asked.remote).cloned();
        origin.map_or(Ok(()), |origin| origin.check(asked.reference))
    }

    async fn obtain_remote(&self, asked: Asked<'_>) -> Result<Digest> {
        match asked.reference.content_digest()? {
            Some(digest) => {
                let content = Content { digest: Some(digest), ..Content::default() };
                self.by_digest(asked, digest, &content).await?;
                self.remember(asked.reference, digest, &content).await?;
                Ok(digest)
            }
            None => self.by_name(asked).await,
        }
    }

    /// Looks up what the reference stands for.
    async fn by_name(&self, asked: Asked<'_>) -> Result<Digest> {
        let _turn = self.turn(asked.reference.text()).await;
        let manifest = asked.reference.manifest_digest()?;
        let record = self.records.find(asked.reference.text());
        let known = record.as_ref().and_then(Record::digest);
        let known = known.or_else(|| manifest.and_then(|manifest| self.records.by_manifest(manifest)));
        let kept = known.filter(|digest| {
            self.retention.hold(*digest);
            self.fits(*digest, asked.limit)
        });
        if let (Some(kept), true) = (kept, asked.reference.is_pinned()) {
            let content = Content { digest: Some(kept), manifest, ..Content::default() };
            self.remember(asked.reference, kept, &content).await?;
            return Ok(kept);
        }
        let asked = match kept {
            // Who has a copy does not wait long for a better one.
            Some(_) => Asked { fruitless: 1, ..asked },
            None => asked,
        };
        let outcome = match self.resolve(asked).await {
            Ok(content) => match content.digest {
                Some(digest) => self.by_digest(asked, digest, &content).await.map(|()| (digest, content)),
                None => self.download(asked, &content, kept).await.map(|digest| (digest, content)),
            },
            Err(error) => Err(error),
        };
        match outcome {
            Ok((digest, content)) => {
                self.remember(asked.reference, digest, &content).await?;
                Ok(digest)
            }
            Err(error) if error.kind().is_passing() => {
                let kept = kept.ok_or(error.clone())?;
                let error = explain(error, asked.reference, asked.limit);
                log::warn!("{error}; using the copy kept from before"; digest = kept);
                self.records.touch(asked.reference.text());
                Ok(kept)
            }
            Err(error) => Err(error),
        }
    }

    async fn resolve(&self, asked: Asked<'_>) -> Result<Content> {
        if let Some(content) = self.resolve_in_front(asked).await? {
            return Ok(content);
        }
        let origin = self.origin(asked)?;
        let watched = self.running.begin(asked.reference.text(), asked.remote.name());
        let mut attempts = Attempts::new(asked);
        loop {
            watched.attempt(0);
            let (error, after) = match in_time(asked.deadline, origin.resolve(asked.reference, asked.requester)).await {
                Ok(Resolved::Content(content)) => return Ok(content),
                Ok(Resolved::Later(error, after)) => (error, Some(after)),
                Err(error) => (error, None),
            };
            attempts.next(&watched, error, after, false).await?;
        }
    }

    /// What the mirrors say of an image that is pinned by its manifest; of nothing else, as anything else they say could
    /// not be checked.
    async fn resolve_in_front(&self, asked: Asked<'_>) -> Result<Option<Content>> {
        let front = self.front.read().clone();
        let (Some(front), Some(_)) = (front, asked.reference.manifest_digest()?) else { return Ok(None) };
        let error = match in_time(asked.deadline, front.resolve(asked.reference, asked.requester)).await {
            Ok(Resolved::Content(content)) => return Ok(Some(content)),
            Ok(Resolved::Later(error, _)) | Err(error) => error,
        };
        log::info!("the mirror does not have its manifest: {error}"; reference = asked.reference.text());
        Ok(None)
    }

    /// Has `digest` in the store when it returns.
    async fn by_digest(&self, asked: Asked<'_>, digest: Digest, content: &Content) -> Result<()> {
        let _turn = self.turn(&digest.to_string()).await;
        self.retention.hold(digest);
        if self.store.blobs().length(digest).is_some() {
            return self.check_length(digest, asked.limit);
        }
        let origin = self.origin(asked);
        let front = self.front.read().clone();
        if let Some(front) = front.filter(|_| asked.remote != Remote::Mirror) {
            let once = Asked { fruitless: 1, ..asked };
            match self.download_from(front, once, content, None).await {
                Ok(_) => return Ok(()),
                Err(error) => log::info!("the mirror does not have it: {error}"; reference = asked.reference.text()),
            }
        }
        self.download_from(origin?, asked, content, None).await.map(drop)
    }

    async fn download(&self, asked: Asked<'_>, content: &Content, kept: Option<Digest>) -> Result<Digest> {
        self.download_from(self.origin(asked)?, asked, content, kept).await
    }

    /// Attempt after attempt until all of it is here, checked and kept.
    async fn download_from(
        &self,
        origin: Arc<dyn Origin>,
        asked: Asked<'_>,
        content: &Content,
        kept: Option<Digest>,
    ) -> Result<Digest> {
        let name = content.digest.map_or_else(|| asked.reference.text().to_owned(), |digest| digest.to_string());
        let _fetching = self.retention.fetching(&name);
        if let Some(bytes) = content.bytes {
            if bytes > asked.limit.bytes {
                return Err(Error::too_large(format!(
                    "it has {bytes} bytes, more than the {} allowed",
                    asked.limit.bytes
                )));
            }
            self.retention.make_room(&self.records, bytes, Some(&name)).await?;
        }
        let watched = self.running.begin(asked.reference.text(), asked.remote.name());
        let mut attempts = Attempts::new(asked);
        let mut began_anew = false;
        loop {
            let place = in_time(asked.deadline, async { Ok(self.places.acquire().await) }).await?;
            let limit = content.bytes.unwrap_or(u64::MAX).min(asked.limit.bytes);
            let (blobs, called, digest) = (self.store.blobs(), name.clone(), content.digest);
            let into = smol::unblock(move || blobs.resume(&called, digest, limit)).await.report_to(watched.progress());
            let (before, resumed) = (into.received(), into.resumed() > 0);
            watched.attempt(before);
            let wanted = Wanted {
                reference: asked.reference.clone(),
                requester: asked.requester,
                content: content.clone(),
                into,
                kept,
                pace: self.pace.clone(),
                deadline: asked.deadline,
            };
            let (error, after) = match in_time(asked.deadline, origin.fetch(wanted)).await {
                Ok(Received::Content(incoming, promised)) => {
                    self.retention.make_room(&self.records, incoming.received(), Some(&name)).await?;
                    let expected = content.digest.or(promised);
                    match smol::unblock(move || incoming.finish(expected)).await {
                        Ok(digest) => {
                            self.retention.hold(digest);
                            return Ok(digest);
                        }
                        // What an earlier attempt left was not what it should have been: once more from the front.
                        Err(error) if error.kind() == Kind::Invalid && resumed && !began_anew => {
                            log::warn!("{error}; fetching all of it again"; reference = asked.reference.text());
                            began_anew = true;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(Received::Known(digest)) => {
                    self.retention.hold(digest);
                    return Ok(digest);
                }
                Ok(Received::Later(error, after)) => (error, Some(after)),
                // Within what was announced nothing is too large.
                Err(error) if error.kind() == Kind::Limit && content.bytes.is_some() => {
                    return Err(Error::invalid(format!(
                        "it has more than the {limit} bytes that its source announced; nothing of it was kept"
                    )));
                }
                Err(error) => (error, None),
            };
            drop(place);
            let progressed = watched.progress().received() > before;
            attempts.next(&watched, error, after, progressed).await?;
        }
    }

    fn origin(&self, asked: Asked<'_>) -> Result<Arc<dyn Origin>> {
        let origin = self.origins.read().get(&asked.remote).cloned();
        origin.ok_or_else(|| asked.reference.cannot_give(asked.purpose))
    }

    async fn remember(&self, reference: &Reference, digest: Digest, content: &Content) -> Result<()> {
        let needed = self.retention.needed().unwrap_or_default();
        self.records.remember(reference.text(), digest, content, &needed).await
    }

    /// Whether `digest` is here and within `limit`: one that is larger is looked at again, which says so.
    fn fits(&self, digest: Digest, limit: Limit) -> bool {
        self.store.blobs().length(digest).is_some_and(|bytes| bytes <= limit.bytes)
    }

    fn check_length(&self, digest: Digest, limit: Limit) -> Result<()> {
        match self.store.blobs().length(digest) {
            Some(bytes) if bytes > limit.bytes => {
                Err(Error::too_large(format!("it has {bytes} bytes, more than the {} allowed", limit.bytes)))
            }
            _ => Ok(()),
        }
    }

    /// Waits until nobody else fetches `name`.
    async fn turn(&self, name: &str) -> Turn<'_> {
        let mutex = self.lock_fetching().entry(name.to_owned()).or_default().clone();
        let guard = mutex.lock_arc().await;
        Turn { artifacts: self, name: name.to_owned(), mutex, guard: Some(guard) }
    }

    /// The content `digest` that `reference` brought was checked and is what it should be: from now on other boards may
    /// have it. A failure is logged: it is not given to others then.
    pub async fn accept(&self, reference: &Reference, digest: Digest) {
        if let Err(error) = self.records.accept(reference.text(), digest).await {
            log::warn!("it is not given to other boards: {error}"; reference = reference.text());
        }
    }

    /// Whether other boards may have the content `digest`: it was accepted, pinned or published here. What somebody
    /// only had this board fetch is given to nobody. Reads the names in the store.
    pub fn is_for_others(&self, digest: Digest) -> bool {
        match self.records.is_accepted(digest) {
            Some(true) => true,
            // Accepted before it was kept, as nothing is put into the store from a file otherwise.
            None if self.needed().contains(&digest) => true,
            _ => self.records.pins().contains(&digest) || self.names().offer(digest),
        }
    }

    /// The same for the kept manifest `manifest`: whether it leads to content that other boards may have.
    pub fn is_manifest_for_others(&self, manifest: Digest) -> bool {
        self.records.behind_manifest(manifest).into_iter().any(|digest| self.is_for_others(digest))
    }

    /// Removes what `reference` brought, after its content was refused; that of a file was never put into the store.
    /// What is needed or pinned stays.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn discard(&self, reference: &Reference, digest: Digest) -> Result<()> {
        if !matches!(reference.source(), Source::Remote(_)) {
            return Ok(());
        }
        self.records.forget(&[reference.text().to_owned()]).await?;
        self.retention.let_go(digest);
        let needed = self.retention.needed().unwrap_or_default();
        if needed.contains(&digest) || self.records.pins().contains(&digest) || self.records.order_of(digest) > 0 {
            return Ok(());
        }
        let blobs = self.store.blobs();
        smol::unblock(move || blobs.remove(digest)).await
    }

    /// Downloads on their way now.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.running.transfers()
    }

    /// Removes what nobody needs any more, if that has changed since the last time; called after each change.
    pub async fn tidy(&self) {
        self.retention.tidy(&self.records).await;
    }

    /// Removes what nobody needs: at once, and all of it with `everything`, not only what is over the budget.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn collect(&self, everything: bool) -> Result<Swept> {
        self.retention.sweep(&self.records, if everything { u64::MAX } else { 0 }).await
    }

    /// What is remembered of references and pins.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// What is needed and therefore stays; nothing until the host has said so.
    pub fn needed(&self) -> BTreeSet<Digest> {
        self.retention.needed().unwrap_or_default()
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the host decided, as it stands: for sources, which follow it too.
    pub fn settings(&self) -> &Live {
        &self.settings
    }

    /// What the host decides from now on. A download on its way ends under the rules it began with, but for the rate.
    pub fn follow(&self, settings: Settings) {
        self.pace.set(settings.bytes_per_second);
        self.settings.set(settings);
    }

    /// How far all downloads have come since the start, for whoever watches whether they still move: the same number
    /// means that nothing arrived and nothing was tried.
    pub fn moved(&self) -> u64 {
        self.running.moved()
    }

    /// When the next attempt of a download that waits is due.
    pub fn next_attempt(&self) -> Option<Instant> {
        self.running.next_attempt()
    }

    fn lock_fetching(&self) -> MutexGuard<'_, BTreeMap<String, Arc<lock::Mutex<()>>>> {
        self.fetching.lock()
    }
}

/// The right to fetch something alone.
struct Turn<'a> {
    artifacts: &'a Artifacts,
    name: String,
    mutex: Arc<lock::Mutex<()>>,
    guard: Option<lock::MutexGuardArc<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut fetching = self.artifacts.lock_fetching();
        self.guard = None;
        // The table's and this one: nobody waits. Whoever comes now waits for the table first.
        if Arc::strong_count(&self.mutex) == 2 {
            fetching.remove(&self.name);
        }
    }
}

/// Attempts of one download.
struct Attempts {
    deadline: Instant,
    /// In a row, without a byte.
    fruitless: u32,
    allowed: u32,
}

impl Attempts {
    fn new(asked: Asked<'_>) -> Self {
        Self { deadline: asked.deadline, fruitless: 0, allowed: asked.fruitless }
    }

    /// Waits until it is time for another attempt after one that ended with `error`.
    ///
    /// # Errors
    /// `error` when no other attempt is worth it.
    async fn next(&mut self, watched: &Watched, error: Error, after: Option<Duration>, progressed: bool) -> Result<()> {
        if !error.kind().is_passing() {
            return Err(error);
        }
        watched.failed(error.text());
        self.fruitless = if progressed { 0 } else { self.fruitless + 1 };
        let jitter = retry_wait(self.fruitless, getrandom::u32().unwrap_or(u32::MAX / 2));
        let wait = match after {
            Some(after) => after + jitter.min(after / 4),
            None => jitter,
        };
        let too_long = after.is_some_and(|after| after > LONGEST_RETRY_AFTER) || Instant::now() + wait >= self.deadline;
        if self.fruitless >= self.allowed || too_long {
            return Err(match watched.attempts() {
                1 => error,
                attempts => Error::new(error.kind(), format!("{error} (given up after {attempts} attempts)")),
            });
        }
        log::info!("{error}; next attempt in {:.1} s", wait.as_secs_f64());
        watched.waits_until(Some(Instant::now() + wait));
        Timer::after(wait).await;
        watched.waits_until(None);
        Ok(())
    }
}

/// `error` with the reference before it, unless it names it already, and with the remedy for a limit.
fn explain(error: Error, reference: &Reference, limit: Limit) -> Error {
    let error = match error.is_too_large() {
        true => Error::too_large(format!("{error}; {}", limit.remedy())),
        false => error,
    };
    // A matter of wording alone: an address is not to be read twice.
    if error.text().contains(reference.text()) { error } else { error.context(reference.text()) }
}

/// Waits for `work` until `deadline`, and names the setting when that passes.
async fn in_time<T>(deadline: Instant, work: impl Future<Output = Result<T>>) -> Result<T> {
    task::before(deadline, work).await.unwrap_or_else(|| {
        Err(Error::timeout("it did not arrive in time; raise WASMCLOUD_ARTIFACT_TIMEOUT_MS for a slow link"))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{
        artifact::{origin::Work, records::MAX_RECORDS},
        store,
        store::{FaultDisk, Table},
    };

    const LIMIT: Limit = Limit { bytes: 100, setting: "WASMCLOUD_TEST_LIMIT" };

    /// Gives what it holds, and counts how often it was asked.
    #[derive(Default)]
    struct Fake {
        content: Mutex<Option<Vec<u8>>>,
        asked: AtomicUsize,
    }

    impl Fake {
        fn holds(&self, content: Option<&[u8]>) {
            *self.content.lock() = content.map(<[u8]>::to_vec);
        }
    }

    struct Shared(Arc<Fake>);

    impl Origin for Shared {
        fn fetch(&self, mut wanted: Wanted) -> Work<Result<Received>> {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            let content = self.0.content.lock().clone();
            Box::pin(async move {
                smol::future::yield_now().await;
                let content = content.ok_or_else(|| Error::unavailable("nobody answers"))?;
                wanted.into.write(&content)?;
                Ok(Received::Content(wanted.into, None))
            })
        }
    }

    fn setup() -> (FaultDisk, Artifacts, Arc<Fake>) {
        let disk = FaultDisk::new();
        let (store, _) = Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap();
        let (artifacts, fake) =
            (Artifacts::new(store, Settings { attempts: 1, ..Settings::default() }), Arc::new(Fake::default()));
        for remote in [Remote::Image, Remote::Https, Remote::Mirror] {
            artifacts.register(remote, Arc::new(Shared(fake.clone())));
        }
        (disk, artifacts, fake)
    }

    fn fetch(artifacts: &Artifacts, text: &str) -> Result<Vec<u8>> {
        let reference = Reference::parse(text).unwrap();
        smol::block_on(artifacts.fetch(&reference, Requester::Operator, "an actor", LIMIT)).map(|fetched| fetched.bytes)
    }

    #[test]
    fn a_kept_reference_with_a_digest_asks_nobody_and_a_damaged_one_is_fetched_again() {
        let (disk, artifacts, fake) = setup();
        fake.holds(Some(b"module"));
        let digest = Digest::of(b"module");
        let text = format!("https://example.org/a.wasm#sha256={digest}");
        assert_eq!(fetch(&artifacts, &text).unwrap(), b"module");
        assert_eq!(fetch(&artifacts, &text).unwrap(), b"module");
        assert_eq!(fetch(&artifacts, &format!("mirror://a@sha256:{digest}")).unwrap(), b"module");
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);

        disk.corrupt(&format!("blobs/{digest}"), 2, 0x40);
        assert_eq!(fetch(&artifacts, &text).unwrap(), b"module");
        assert_eq!(fake.asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_tag_is_looked_up_again_and_starts_from_its_record_when_nobody_answers() {
        let (_, artifacts, fake) = setup();
        let tag = "registry.example.org/echo:1";
        assert_eq!(fetch(&artifacts, tag).unwrap_err().kind(), Kind::Unavailable);
        fake.holds(Some(b"one"));
        assert_eq!(fetch(&artifacts, tag).unwrap(), b"one");
        fake.holds(Some(b"two"));
        assert_eq!(fetch(&artifacts, tag).unwrap(), b"two");
        fake.holds(None);
        assert_eq!(fetch(&artifacts, tag).unwrap(), b"two");
        fake.holds(Some(&[0; 101]));
        assert_eq!(fetch(&artifacts, tag).unwrap_err().kind(), Kind::Limit, "a final error is not hidden by the copy");
    }

    #[test]
    fn a_wrong_digest_is_refused_by_name_and_nothing_stays() {
        let (disk, artifacts, fake) = setup();
        fake.holds(Some(b"module"));
        let text = format!("https://example.org/a.wasm#sha256={}", "0a".repeat(32));
        let error = fetch(&artifacts, &text).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.text().contains(&text) && error.text().contains("expected is"), "{error}");
        assert_eq!(store::Disk::list(&disk, "blobs").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn records_are_bounded_and_what_was_refused_leaves_nothing() {
        let (disk, artifacts, fake) = setup();
        fake.holds(Some(b"module"));
        let count = || artifacts.store.look(|view| view.count(Table::Artifact, b"")) as usize;
        for number in 0..MAX_RECORDS + 3 {
            fetch(&artifacts, &format!("registry.example.org/echo:{number}")).unwrap();
        }
        assert_eq!(count(), MAX_RECORDS);
        let last = Reference::parse(&format!("registry.example.org/echo:{}", MAX_RECORDS + 2)).unwrap();
        smol::block_on(artifacts.discard(&last, Digest::of(b"module"))).unwrap();
        assert_eq!(count(), MAX_RECORDS - 1);
        assert_eq!(store::Disk::list(&disk, "blobs").unwrap().len(), 1, "others refer to it");
        fake.holds(Some(b"refused"));
        fetch(&artifacts, last.text()).unwrap();
        smol::block_on(artifacts.discard(&last, Digest::of(b"refused"))).unwrap();
        assert_eq!(store::Disk::list(&disk, "blobs").unwrap().len(), 1);
        fake.holds(Some(b"module"));
        fetch(&artifacts, &format!("https://example.org/a.wasm#sha256={}", Digest::of(b"module"))).unwrap();
        assert_eq!(count(), MAX_RECORDS, "remembered by its name");
    }

    #[test]
    fn many_who_ask_for_the_same_cause_one_download() {
        let (_, artifacts, fake) = setup();
        fake.holds(Some(b"module"));
        let text = format!("https://example.org/a.wasm#sha256={}", Digest::of(b"module"));
        let reference = Reference::parse(&text).unwrap();
        smol::block_on(async {
            let asked = (0..8).map(|_| artifacts.fetch(&reference, Requester::Operator, "an actor", LIMIT));
            for fetched in futures_util::future::join_all(asked).await {
                assert_eq!(fetched.unwrap().bytes, b"module");
            }
        });
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
        assert!(artifacts.lock_fetching().is_empty());
    }
}
