//! Manifests as `latticed run` takes them: one file, or a directory of them, to applications.
//!
//! A task of its own, so that the host informs the service manager, answers probes and obeys signals while a first start
//! fetches what manifests name. It reads all of them at the start and at each reload; what fails for a reason that may pass
//! is tried again. From a directory, applications whose file is gone go too, and one that cannot be read leaves its
//! application as it was: a board must not go dark because of one bad file.

pub(super) mod files;
mod worker;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use event_listener::Event as Signal;
use smol::{Task, channel, future};

use self::worker::Worker;
use crate::{
    cli::preflight::applications::Judge,
    config::Config,
    error::{Error, Result},
    host::{Host, application::Asking},
    lock::Mutex,
    task,
};

/// How long what ran before waits for manifests. Those whose artifacts are here take milliseconds, and then nothing starts
/// only to be replaced at once; a download takes longer, and what ran before must not wait for it.
const HEAD_START: Duration = Duration::from_millis(500);

/// The manifests that a host was given, for as long as this lives.
pub struct Manifests {
    shared: Arc<Shared>,
    host: Arc<Host>,
    /// Closed once all of them have been tried.
    first_round: channel::Receiver<()>,
    task: Task<()>,
}

#[derive(Default)]
struct Shared {
    request: Mutex<Option<Request>>,
    requested: Signal,
    /// Why the host cannot go on with the only manifest it was given.
    failed: Mutex<Option<Error>>,
}

/// All of them are to be read again.
struct Request {
    config: Config,
    /// Dropped when that was done.
    done: channel::Sender<()>,
}

impl Manifests {
    /// Begins with the manifest at `path`, or all of that directory.
    pub fn start(host: &Arc<Host>, path: PathBuf, config: &Config) -> Self {
        let shared = Arc::new(Shared::default());
        let (tried, first_round) = channel::bounded(1);
        let worker = Worker {
            shared: shared.clone(),
            host: host.clone(),
            folder: path.is_dir(),
            path,
            config: config.clone(),
            asking: Asking::ForUnknown,
            files: Vec::new(),
            unread: false,
            judge: Arc::new(Mutex::new(Judge::new(config))),
        };
        // Known before the task has its first turn: nobody may take the host for ready until then.
        host.pend(&subject(&worker.path));
        Self { shared, host: host.clone(), first_round, task: task::spawn(worker.work(tried)) }
    }

    /// Waits until all of them were tried, but not much longer than those take that need nothing from afar.
    pub async fn head_start(&self) {
        let stopping = async {
            loop {
                let news = self.host.news();
                if self.host.is_stopping() {
                    return;
                }
                news.await;
            }
        };
        task::within(HEAD_START, future::or(self.tried(), stopping)).await;
    }

    /// Waits until all of them are applied.
    pub async fn applied(&self) {
        self.tried().await;
        loop {
            let news = self.host.news();
            if self.host.pending().complaints().is_empty() {
                return;
            }
            news.await;
        }
    }

    /// Has all of them read again with `config`, asking sources anew, and waits until each was tried. What is on its way is
    /// given up for it.
    pub async fn again(&self, config: Config) {
        let (done, round) = channel::bounded(1);
        *self.shared.request.lock() = Some(Request { config, done });
        self.shared.requested.notify(usize::MAX);
        // An error: it was done, or another request has taken the place of this one.
        let _ = round.recv().await;
    }

    /// Ends it; answers why the host ends, if that is because of its manifest.
    ///
    /// # Errors
    /// The only manifest that the host was given cannot be used.
    pub async fn stop(self) -> Result<()> {
        self.task.cancel().await;
        self.shared.failed.lock().take().map_or(Ok(()), Err)
    }

    async fn tried(&self) {
        // An error: the other end is dropped then.
        let _ = self.first_round.recv().await;
    }
}

/// What readiness and status call the application of `file`.
fn subject(file: &Path) -> String {
    format!("manifest {}", file.file_name().unwrap_or(file.as_os_str()).to_string_lossy())
}
