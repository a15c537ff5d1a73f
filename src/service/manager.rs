//! Keeps the service manager informed: patience while starting, ready, status, watchdog, stopping.
//!
//! Started by the command that runs a host; where nobody listens nothing here runs. It only looks: readiness, liveness and
//! the words are made elsewhere. On an idle board it wakes for the watchdog alone; the status line follows what happens
//! and the housekeeping tick.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use smol::{Timer, future};

use super::{
    notify::{self, STATUS_GAP, StatusLine},
    progress::{EXTENSION, LOOK, Progress, Seen},
    status_line,
};
use crate::{
    host::{Control, Host, Liveness, Policy, Readiness, Stuck},
    log, task,
};

/// Share of a watchdog period that loops get to come round; what is left is for telling about it before the manager acts
/// by itself.
const CHECK_SHARE: f64 = 0.8;

/// What the service manager is told about.
pub struct Manager {
    /// The host.
    pub host: Arc<Host>,
    /// Its loops.
    pub liveness: Arc<Liveness>,
    /// What it lacks.
    pub readiness: Arc<Readiness>,
    /// When it counts as ready.
    pub policy: Policy,
    /// Set once the service manager knows the host as running.
    pub known_ready: Arc<AtomicBool>,
}

impl Manager {
    /// Works for ever. `tick` is the housekeeping tick.
    pub async fn inform_for_ever(self, tick: smol::channel::Receiver<()>) {
        let manager = Arc::new(self);
        let watched = manager.clone();
        let watching = async move { watched.watch_for_ever().await };
        let telling = async move {
            let mut line = StatusLine::new();
            future::or(manager.until_ready(&mut line), manager.stay_patient()).await;
            if !manager.host.is_stopping() {
                notify::ready();
                manager.known_ready.store(true, Relaxed);
                log::info!("ready");
                manager.tell_until_stopping(line, tick).await;
            }
            notify::stopping();
            notify::status("stopping: finishing what is in flight");
            future::pending().await
        };
        future::or(watching, telling).await
    }

    /// Waits until the host lacks nothing, and says meanwhile what it waits for.
    async fn until_ready(&self, line: &mut StatusLine) {
        loop {
            let news = self.host.news();
            if self.host.is_stopping() {
                return;
            }
            let lacks = self.readiness.lacks(&self.host, self.policy);
            let Some(first) = lacks.first() else { return };
            let text = format!("starting: {}: {}", first.what, first.why);
            if line.is_due(&text, false, Instant::now()) {
                notify::status(&text);
            }
            let held_back = line.is_behind(&text);
            let later = async {
                match held_back {
                    true => {
                        Timer::after(STATUS_GAP).await;
                    }
                    false => future::pending().await,
                }
            };
            future::or(news, later).await;
        }
    }

    /// Asks the manager for more time for as long as the start gets somewhere and every loop moves. Returns when it gets no
    /// further though all of them do: what is wrong then no other start would mend, and one would end what is well.
    async fn stay_patient(&self) {
        let mut progress = Progress::new(Instant::now());
        loop {
            let stuck = self.liveness.check(LOOK / 2).await;
            let moves = progress.is_real(self.seen(), Instant::now()) || self.host.is_at_work();
            match (moves, stuck.is_empty()) {
                (true, true) => notify::extend(EXTENSION),
                (false, true) => {
                    log::warn!("the start gets no further; the host goes on with what it has");
                    return;
                }
                (_, false) => log::warn!("the start does not get anywhere{}", names(&stuck)),
            }
            Timer::after(LOOK).await;
        }
    }

    /// What the start has done so far.
    fn seen(&self) -> Seen {
        // Attempts to find a lattice that the start does not wait for lead it nowhere.
        let awaited = self.policy == Policy::Lattice;
        let uplink = self.host.router().uplink_status().filter(|_| awaited);
        let connecting = uplink.as_ref().and_then(|uplink| uplink.next_try_seconds).map(Duration::from_secs);
        let trying = self.host.next_try().map(|next| next.saturating_duration_since(Instant::now()));
        Seen {
            steps: self.host.steps(),
            attempts: uplink.map_or(0, |uplink| uplink.attempts),
            fetched: self.host.artifacts().moved(),
            next_try: connecting.into_iter().chain(trying).filter(|wait| !wait.is_zero()).min(),
        }
    }

    /// Says how the host is whenever that changed.
    async fn tell_until_stopping(&self, mut line: StatusLine, tick: smol::channel::Receiver<()>) {
        let mut counted = (self.calls(), Instant::now());
        let (mut rate, mut first) = (0, true);
        loop {
            let news = self.host.news();
            if self.host.is_stopping() {
                return;
            }
            let lacks = self.readiness.lacks(&self.host, self.policy);
            let text = status_line::line(&self.host.status(), &lacks, rate);
            if line.is_due(&text, first || !lacks.is_empty(), Instant::now()) {
                notify::status(&text);
            }
            first = false;
            let ticked = async {
                // The tick goes on as long as the process does.
                let _ = tick.recv().await;
                true
            };
            let happened = async {
                news.await;
                false
            };
            if future::or(ticked, happened).await {
                let (calls, now) = (self.calls(), Instant::now());
                let seconds = now.duration_since(counted.1).as_secs_f64();
                rate = (calls.saturating_sub(counted.0) as f64 / seconds.max(1.0)).round() as u64;
                counted = (calls, now);
            }
        }
    }

    fn calls(&self) -> u64 {
        self.host.router().routes().actors().map(|actor| actor.actor.counts().calls).sum()
    }

    /// Tells the watchdog that the process lives after having seen that every loop does.
    async fn watch_for_ever(&self) {
        let Some(limit) = notify::watchdog() else { return future::pending().await };
        let period = limit / 2;
        loop {
            let stuck = self.liveness.check(period.mul_f64(CHECK_SHARE)).await;
            if stuck.is_empty() {
                notify::alive();
            } else {
                let text = format!("stuck{}", names(&stuck));
                log::error!("{text}: asking the service manager to start this host again");
                notify::dead(&text);
            }
            task::independent_timer(period).await;
        }
    }
}

fn names(stuck: &[Stuck]) -> String {
    stuck.iter().map(|one| format!(": {} ({})", one.name, one.why)).collect()
}
