//! The task behind [`Manifests`]: reads, applies, waits, and begins again.
//!
//! [`Manifests`]: super::Manifests

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use smol::{Timer, channel, future};

use super::{Request, Shared, files, subject};
use crate::{
    cli::{artifact::watch, preflight::applications::Judge},
    config::{Config, manifest},
    error::{Error, Result},
    host::{Application, Host, application::Asking},
    lock::Mutex,
    log, task,
};

/// Applications whose artifacts are looked for at once: as many as downloads run at once. One that waits for a slow source
/// does not hold up those that need none.
const AT_ONCE: usize = 4;

/// How long applications whose manifest is gone wait for those that come: one that was renamed changes over without a gap,
/// and none stays for as long as a download of another takes.
const FAREWELL: Duration = Duration::from_secs(10);

/// How a round ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    Done,
    /// Another one was asked for meanwhile.
    Interrupted,
}

/// See the file.
pub(super) struct Worker {
    pub shared: Arc<Shared>,
    pub host: Arc<Host>,
    pub path: PathBuf,
    /// Whether that is a directory.
    pub folder: bool,
    pub config: Config,
    pub asking: Asking,
    /// Those that were there when all were last read.
    pub files: Vec<PathBuf>,
    /// Whether one of them could not be read.
    pub unread: bool,
    /// Who of the manifests listens where.
    pub judge: Arc<Mutex<Judge>>,
}

impl Worker {
    /// Works until it is dropped; `tried` is dropped once all manifests were tried.
    pub async fn work(mut self, tried: channel::Sender<()>) {
        let host = self.host.clone();
        let mut untried = Some(tried);
        let (mut everything, mut waiting, mut undisturbed) = (true, None, true);
        loop {
            let first = untried.is_some();
            let shown = async {
                match first {
                    true => match watch(host.artifacts()).await {},
                    false => future::pending().await,
                }
            };
            match future::or(self.round(everything, first && undisturbed), shown).await {
                // A reload ends no host that may have served for long.
                Ok(Round::Interrupted) => undisturbed = false,
                Err(error) if first && undisturbed => {
                    *self.shared.failed.lock() = Some(error);
                    host.request_stop();
                    return;
                }
                outcome => {
                    if let Err(error) = outcome {
                        log::error!("the manifests in {} are left as they were: {error}", self.path.display());
                        self.give_up(&error);
                    }
                    // Dropped: whoever waits goes on.
                    (untried, waiting) = (None, None);
                }
            }
            if !everything && self.unread && host.pending().complaints().is_empty() {
                // All can be read by now, so that it shows which are gone.
                everything = true;
                continue;
            }
            let request = self.next().await;
            everything = request.is_some();
            waiting = request.or(waiting);
        }
    }

    /// Waits until something is to be done: all of it for whoever is answered, or what failed and is due.
    async fn next(&mut self) -> Option<channel::Sender<()>> {
        loop {
            let requested = self.shared.requested.listen();
            if let Some(Request { config, done }) = self.shared.request.lock().take() {
                (self.config, self.asking) = (config, Asking::Always);
                return Some(done);
            }
            let due = self.host.pending().next();
            let due = async {
                match due {
                    Some(due) => drop(Timer::at(due).await),
                    None => future::pending().await,
                }
                true
            };
            let asked = async {
                requested.await;
                false
            };
            if future::or(asked, due).await {
                return None;
            }
        }
    }

    /// Reads and applies everything, or only what failed and is due; `first` is whether nothing was applied before.
    ///
    /// # Errors
    /// The directory, or the disk; at `first` the only manifest, for a reason that does not pass. Single files of a directory
    /// are reported and passed over.
    async fn round(&mut self, everything: bool, first: bool) -> Result<Round> {
        let folder = self.folder;
        let files = match everything {
            true => {
                // At once: what is tried again is among them, however this round ends.
                self.files = self.list(folder).await?;
                // Files that are gone listen nowhere.
                self.judge = Arc::new(Mutex::new(Judge::new(&self.config)));
                self.files.clone()
            }
            false => {
                let now = Instant::now();
                self.files.iter().filter(|file| self.host.pending().is_due(&subject(file), now)).cloned().collect()
            }
        };
        for file in &files {
            self.host.pend(&subject(file));
        }
        let (mut names, mut read, mut unread) = (BTreeSet::new(), Vec::new(), false);
        // A full disk is told at once: whoever starts a host at a terminal can make room.
        let fatal = |error: &Error| first && !folder && !error.kind().is_passing();
        for file in &files {
            let outcome = match self.read(file).await {
                Ok(manifest) if names.insert(manifest.name.clone()) => self.judge(file, manifest).await,
                Ok(manifest) => {
                    Err(Error::conflict(format!("another manifest is of the application {} too", manifest.name)))
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(application) => read.push((file.clone(), application)),
                Err(error) if fatal(&error) => return Err(error),
                Err(error) => {
                    unread = true;
                    self.ended(file, Err(error));
                }
            }
        }
        if everything {
            self.unread = unread;
        }
        let this = &*self;
        let applied = read.into_iter().map(|(file, application)| async move {
            let outcome = this.apply(&application).await?;
            match outcome {
                Err(error) if fatal(&error) => Some(Err(error)),
                outcome => {
                    this.ended(&file, outcome);
                    Some(Ok(()))
                }
            }
        });
        let (coming, came) = channel::bounded::<()>(1);
        let arrivals = async {
            let outcomes: Vec<Option<Result<()>>> = stream::iter(applied).buffer_unordered(AT_ONCE).collect().await;
            drop(coming);
            outcomes
        };
        let farewells = async {
            if !everything {
                return Ok(());
            }
            // Closed when nothing is on its way any more.
            let _ = task::within(FAREWELL, came.recv()).await;
            this.bid_farewell(&names).await
        };
        let (outcomes, gone) = future::zip(arrivals, farewells).await;
        for outcome in outcomes {
            match outcome {
                None => return Ok(Round::Interrupted),
                Some(outcome) => outcome?,
            }
        }
        gone.map(|()| Round::Done)
    }

    async fn list(&self, folder: bool) -> Result<Vec<PathBuf>> {
        let path = self.path.clone();
        let files = match folder {
            true => smol::unblock(move || files::list(&path)).await?,
            false => vec![path],
        };
        let subjects: BTreeSet<String> = files.iter().map(|file| subject(file)).collect();
        for subject in &subjects {
            self.host.pend(subject);
        }
        self.host.retain_pending(&subjects);
        Ok(files)
    }

    async fn read(&self, file: &Path) -> Result<manifest::Application> {
        let (config, file) = (self.config.clone(), file.to_owned());
        smol::unblock(move || files::read(&file, &config)).await
    }

    /// What of `manifest` runs here, judged beside the others.
    async fn judge(&self, file: &Path, manifest: manifest::Application) -> Result<Application> {
        let (judge, config, file) = (self.judge.clone(), self.config.clone(), file.to_owned());
        smol::unblock(move || {
            for warning in judge.lock().judge(&file, &manifest)? {
                log::warn!("{warning}");
            }
            Ok(files::wanted(manifest, &config))
        })
        .await
    }

    /// Makes `application` desired state; `None` when another round was asked for while its artifacts were looked for.
    async fn apply(&self, application: &Application) -> Option<Result<()>> {
        let prepared = async { Some(self.host.prepare(application, self.asking).await) };
        let interrupted = async {
            loop {
                let requested = self.shared.requested.listen();
                if self.shared.request.lock().is_some() {
                    return None;
                }
                requested.await;
            }
        };
        Some(match future::or(prepared, interrupted).await? {
            // Not to be left halfway: disk and memory would differ.
            Ok(prepared) => self.host.adopt(application, prepared).await,
            Err(error) => Err(error),
        })
    }

    /// What a round that ended with `error` has begun failed with it.
    fn give_up(&self, error: &Error) {
        for file in self.files.iter().filter(|file| self.host.pending().is_under_way(&subject(file))) {
            self.ended(file, Err(error.clone()));
        }
    }

    /// The application of `file` is what it should be, or stays what it was.
    fn ended(&self, file: &Path, outcome: Result<()>) {
        let failed = outcome.err();
        let text = failed.as_ref().map(|error| error.text().to_owned());
        let wait = self.host.pended(&subject(file), failed);
        match (text, wait) {
            (None, _) => {}
            (Some(why), None) => log::error!("the application of {} is left as it was: {why}", file.display()),
            (Some(why), Some(wait)) => log::error!(
                "the application of {} is left as it was: {why}; next attempt in {} s",
                file.display(),
                wait.as_secs()
            ),
        }
    }

    /// Has applications go that an earlier manifest brought and no manifest names now: `names` are all there are.
    async fn bid_farewell(&self, names: &BTreeSet<String>) -> Result<()> {
        let gone: Vec<String> = self.host.desired().applications().difference(names).cloned().collect();
        if gone.is_empty() {
            return Ok(());
        }
        if self.unread {
            // The unreadable file may be the one of an application that seems gone.
            log::warn!("applications without a manifest stay until all manifests can be read: {}", gone.join(", "));
            return Ok(());
        }
        for name in gone {
            log::info!(
                "the application {name} is removed, because its manifest is gone: nothing in {} names it",
                self.path.display()
            );
            self.host.leave_application(&name).await?;
        }
        Ok(())
    }
}
