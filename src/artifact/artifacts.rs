//! From a reference to verified bytes in the store, whatever the source.
//!
//! Called by the host for actors and provider archives. A reference with a digest that is in the store needs no network;
//! one without is looked up again, and the copy kept from before is used when its source cannot be reached. Sources
//! that need a floor above this one (`lattice`) register themselves. It never judges what the bytes are worth: that is
//! `claims`.

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, RwLock},
};

use smol::lock;

use crate::{
    artifact::{Credentials, Limit, Reference, Remote, Source, read_file},
    error::{Error, Kind, Result},
    log,
    store::{Batch, Digest, Incoming, Store, Table},
};

/// First byte of a record: what follows is the digest of the content, 32 bytes.
const RECORD_VERSION: u8 = 1;

/// How many references without a digest are remembered. A board runs a few dozen; past this, an arbitrary one is
/// forgotten and needs its source the next time.
const MAX_RECORDS: u64 = 256;

/// What a source has done about a reference.
pub enum Received {
    /// All of its bytes are in, not finished yet; with the digest that the source itself promised for them.
    Content(Incoming, Option<Digest>),
    /// The reference points to these bytes, which were said to be in the store already.
    Known(Digest),
}

/// What a source is asked for.
pub struct Wanted {
    /// What to fetch.
    pub reference: Reference,
    /// Where the bytes go.
    pub into: Incoming,
    /// The blob that this reference pointed to before, if it is still in the store.
    pub kept: Option<Digest>,
}

/// One kind of place where bytes come from.
pub trait Origin: Send + Sync + 'static {
    /// Fetches what is wanted, with deadlines of its own.
    ///
    /// # Errors
    /// `Unavailable`, `Busy` or `Timeout` when another attempt may succeed: a copy kept from before is used then.
    /// Everything else is final. The text names the step, the cause and the remedy; the reference is added here.
    fn fetch(&self, wanted: Wanted) -> Pin<Box<dyn Future<Output = Result<Received>> + Send>>;
}

/// Verified bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Of `bytes`.
    pub digest: Digest,
    /// All of them.
    pub bytes: Vec<u8>,
}

/// All sources, in front of one store.
pub struct Artifacts {
    store: Store,
    credentials: Arc<Credentials>,
    origins: RwLock<BTreeMap<Remote, Arc<dyn Origin>>>,
    /// Who fetches what: whoever asks for the same waits and finds it in the store.
    fetching: Mutex<BTreeMap<String, Arc<lock::Mutex<()>>>>,
}

impl Artifacts {
    /// Sources register with [`Artifacts::register`].
    pub fn new(store: Store) -> Self {
        let credentials = Arc::new(Credentials::new(store.clone()));
        Self { store, credentials, origins: RwLock::default(), fetching: Mutex::default() }
    }

    /// How to log in to registries: for the source of images, and for whoever learns of a login.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// References to `remote` are fetched by `origin` from now on.
    pub fn register(&self, remote: Remote, origin: Arc<dyn Origin>) {
        self.origins.write().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(remote, origin);
    }

    /// The bytes behind `reference`; `wanted` says in errors what they are for, `an actor`. Those of a file are not put
    /// into the store: the caller does that once it has accepted them.
    ///
    /// # Errors
    /// `Invalid` for a digest that cannot be read, is missing where it must be there, or does not match; `Limit` for
    /// more than `limit`; `Unavailable` without a source for it; those of the source.
    pub async fn fetch(&self, reference: &Reference, wanted: &str, limit: Limit) -> Result<Fetched> {
        match reference.source() {
            Source::File(path) => {
                let bytes = read_file(path, Path::new(""), limit).await?;
                let (digest, bytes) = smol::unblock(move || (Digest::of(&bytes), bytes)).await;
                Ok(Fetched { digest, bytes })
            }
            Source::Builtin(_) => Err(reference.cannot_give(wanted)),
            Source::Remote(remote) => {
                self.fetch_remote(reference, *remote, wanted, limit).await.map_err(|error| {
                    // `cannot_give` names it already.
                    if error.text().contains(reference.text()) { error } else { error.context(reference.text()) }
                })
            }
        }
    }

    async fn fetch_remote(&self, reference: &Reference, remote: Remote, wanted: &str, limit: Limit) -> Result<Fetched> {
        let expected = reference.content_digest()?;
        let name = expected.map_or_else(|| reference.text().to_owned(), |digest| digest.to_string());
        let turn = self.lock_fetching().entry(name.clone()).or_default().clone();
        let fetched = {
            let _turn = turn.lock().await;
            self.fetch_in_turn(reference, remote, expected, wanted, limit).await
        };
        drop(turn);
        let mut fetching = self.lock_fetching();
        if fetching.get(&name).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            fetching.remove(&name);
        }
        fetched
    }

    async fn fetch_in_turn(
        &self,
        reference: &Reference,
        remote: Remote,
        expected: Option<Digest>,
        wanted: &str,
        limit: Limit,
    ) -> Result<Fetched> {
        let kept = self.kept(reference, expected, limit).await?;
        match kept {
            Some(kept) if reference.is_pinned() => Ok(kept),
            kept => match self.fetch_anew(reference, remote, expected, kept.as_ref(), wanted, limit).await {
                Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Busy | Kind::Timeout) => {
                    let kept = kept.ok_or(error.clone())?;
                    log::warn!("{error}; using the copy kept from before"; digest = kept.digest);
                    Ok(kept)
                }
                outcome => outcome,
            },
        }
    }

    async fn fetch_anew(
        &self,
        reference: &Reference,
        remote: Remote,
        expected: Option<Digest>,
        kept: Option<&Fetched>,
        wanted: &str,
        limit: Limit,
    ) -> Result<Fetched> {
        let origin = self.origins.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&remote).cloned();
        let origin = origin.ok_or_else(|| reference.cannot_give(wanted))?;
        let into = self.store.blobs().incoming(limit.bytes);
        let asked = Wanted { reference: reference.clone(), into, kept: kept.map(|kept| kept.digest) };
        let digest = match origin.fetch(asked).await? {
            Received::Content(incoming, promised) => {
                let expected = expected.or(promised);
                smol::unblock(move || incoming.finish(expected)).await?
            }
            Received::Known(digest) => digest,
        };
        let fetched = match kept {
            Some(kept) if kept.digest == digest => kept.clone(),
            _ => Fetched { digest, bytes: self.store.blobs().read(digest).await? },
        };
        // One with a digest finds its copy by that; the record would say nothing new.
        if expected.is_none() {
            self.remember(reference, digest).await?;
        }
        Ok(fetched)
    }

    /// The copy from before, checked. A damaged one is set aside by the store and counts as missing.
    async fn kept(&self, reference: &Reference, expected: Option<Digest>, limit: Limit) -> Result<Option<Fetched>> {
        let recorded = match expected {
            Some(digest) => Some(digest),
            None => self.store.get(Table::Artifact, reference.text().as_bytes())?.as_deref().and_then(read_record),
        };
        let Some(digest) = recorded else { return Ok(None) };
        match self.store.blobs().read(digest).await {
            Ok(bytes) if bytes.len() as u64 > limit.bytes => Err(Error::limit(format!(
                "it has {} bytes, more than the limit of {}; raise {} if it is meant to be so large",
                bytes.len(),
                limit.bytes,
                limit.setting
            ))),
            Ok(bytes) => Ok(Some(Fetched { digest, bytes })),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => {
                log::warn!("{error}; fetching it again"; reference = reference.text());
                Ok(None)
            }
        }
    }

    async fn remember(&self, reference: &Reference, digest: Digest) -> Result<()> {
        let record: Vec<u8> = [&[RECORD_VERSION], digest.0.as_slice()].concat();
        if self.store.get(Table::Artifact, reference.text().as_bytes())?.as_ref() == Some(&record) {
            return Ok(());
        }
        let mut batch = Batch::new().put(Table::Artifact, reference.text(), record);
        let full = self.store.look(|view| {
            view.count(Table::Artifact, b"") >= MAX_RECORDS
                && !view.contains(Table::Artifact, reference.text().as_bytes())
        });
        if full && let Some(first) = self.store.look(|view| view.keys(Table::Artifact, b"").into_iter().next()) {
            batch = batch.delete(Table::Artifact, first);
        }
        self.store.commit(batch).await
    }

    /// Removes what `reference` brought, after its content was refused; that of a file was never put into the store.
    /// The caller knows that nothing else needs the same bytes.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn discard(&self, reference: &Reference, digest: Digest) -> Result<()> {
        if !matches!(reference.source(), Source::Remote(_)) {
            return Ok(());
        }
        if self.store.look(|view| view.contains(Table::Artifact, reference.text().as_bytes())) {
            self.store.commit(Batch::new().delete(Table::Artifact, reference.text())).await?;
        }
        let blobs = self.store.blobs();
        smol::unblock(move || blobs.remove(digest)).await
    }

    fn lock_fetching(&self) -> MutexGuard<'_, BTreeMap<String, Arc<lock::Mutex<()>>>> {
        self.fetching.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// `None` for a record of a version this program does not know: the reference is fetched again.
fn read_record(record: &[u8]) -> Option<Digest> {
    let (version, digest) = record.split_first()?;
    (*version == RECORD_VERSION).then_some(Digest(digest.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{store, store::FaultDisk};

    const LIMIT: Limit = Limit { bytes: 100, setting: "WASMCLOUD_TEST_LIMIT" };

    /// Gives what it holds, and counts how often it was asked.
    #[derive(Default)]
    struct Fake {
        content: Mutex<Option<Vec<u8>>>,
        asked: AtomicUsize,
    }

    impl Fake {
        fn holds(&self, content: Option<&[u8]>) {
            *self.content.lock().unwrap() = content.map(<[u8]>::to_vec);
        }
    }

    struct Shared(Arc<Fake>);

    impl Origin for Shared {
        fn fetch(&self, mut wanted: Wanted) -> Pin<Box<dyn Future<Output = Result<Received>> + Send>> {
            self.0.asked.fetch_add(1, Ordering::SeqCst);
            let content = self.0.content.lock().unwrap().clone();
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
        let (artifacts, fake) = (Artifacts::new(store), Arc::new(Fake::default()));
        for remote in [Remote::Image, Remote::Https, Remote::Mirror] {
            artifacts.register(remote, Arc::new(Shared(fake.clone())));
        }
        (disk, artifacts, fake)
    }

    fn fetch(artifacts: &Artifacts, text: &str) -> Result<Vec<u8>> {
        let reference = Reference::parse(text).unwrap();
        smol::block_on(artifacts.fetch(&reference, "an actor", LIMIT)).map(|fetched| fetched.bytes)
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
        let count = || artifacts.store.look(|view| view.count(Table::Artifact, b""));
        for number in 0..MAX_RECORDS + 3 {
            fetch(&artifacts, &format!("registry.example.org/echo:{number}")).unwrap();
        }
        assert_eq!(count(), MAX_RECORDS);
        let last = Reference::parse(&format!("registry.example.org/echo:{}", MAX_RECORDS + 2)).unwrap();
        smol::block_on(artifacts.discard(&last, Digest::of(b"module"))).unwrap();
        assert_eq!(count(), MAX_RECORDS - 1);
        assert_eq!(store::Disk::list(&disk, "blobs").unwrap(), Vec::<String>::new());
        fetch(&artifacts, &format!("https://example.org/a.wasm#sha256={}", Digest::of(b"module"))).unwrap();
        assert_eq!(count(), MAX_RECORDS - 1, "a digest needs no record");
    }

    #[test]
    fn many_who_ask_for_the_same_cause_one_download() {
        let (_, artifacts, fake) = setup();
        fake.holds(Some(b"module"));
        let text = format!("https://example.org/a.wasm#sha256={}", Digest::of(b"module"));
        let reference = Reference::parse(&text).unwrap();
        smol::block_on(async {
            let asked = (0..8).map(|_| artifacts.fetch(&reference, "an actor", LIMIT));
            for fetched in futures_util::future::join_all(asked).await {
                assert_eq!(fetched.unwrap().bytes, b"module");
            }
        });
        assert_eq!(fake.asked.load(Ordering::SeqCst), 1);
        assert!(artifacts.lock_fetching().is_empty());
    }
}
