//! Whether the loops that do the work still move.
//!
//! The watchdog of the service manager and `/livez` ask. Nothing ticks for this between two questions: each question
//! makes every loop come round once and waits for it, so that an idle board stays idle and an answer is never older than
//! its question. A loop that waits for nothing but work is alive when it came round; the disk, which cannot be asked for
//! nothing, when no change has been waiting for it too long.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use smol::future;

use crate::{
    host::{BoxFuture, Host},
    lock::{Mutex, MutexGuard},
    task,
};

/// How long a change may wait for the disk before the disk counts as stuck. Worn cards pause for seconds while they
/// erase; a minute without one finished write is a medium that is gone.
const DISK_PATIENCE: Duration = Duration::from_secs(60);

/// How long one step of the reconciler may take beyond the drain time: reading and compiling the largest module on the
/// slowest board, a capability that uses up its patience, or a provider process with the longest delay that can be set.
const STEP_ALLOWANCE: Duration = Duration::from_secs(90);

/// Makes a loop come round within the time given; an error says why it did not.
type Ask = Box<dyn Fn(Duration) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A loop that stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stuck {
    /// Which: `executor`, `supervisor`, `disk`, `nats`.
    pub name: &'static str,
    /// What was seen.
    pub why: String,
    /// For how long, seconds: since it last came round.
    pub since_seconds: u64,
}

struct Loop {
    name: &'static str,
    ask: Ask,
    moved: Mutex<Instant>,
}

/// All loops of a host.
#[derive(Default)]
pub struct Liveness(Vec<Loop>);

impl Liveness {
    /// The loops of the process and of `host`. Others join with [`Liveness::add`].
    pub fn of(host: &std::sync::Arc<Host>) -> Self {
        let mut liveness = Self::default();
        liveness.add("executor", |bound| Box::pin(threads(bound)));
        let supervised = host.clone();
        liveness.add("supervisor", move |bound| {
            let host = supervised.clone();
            let allowance = STEP_ALLOWANCE + host.settings.drain;
            Box::pin(async move { host.reconciler.come_round(bound, allowance).await })
        });
        let store = host.store.clone();
        liveness.add("disk", move |_| {
            let waiting = store.waiting_since();
            Box::pin(async move {
                match waiting.map(|since| since.elapsed()) {
                    Some(waited) if waited > DISK_PATIENCE => {
                        Err(format!("a change has been waiting for {} s to be written", waited.as_secs()))
                    }
                    _ => Ok(()),
                }
            })
        });
        liveness
    }

    /// Adds the loop `name`, which `ask` makes come round.
    pub fn add(
        &mut self,
        name: &'static str,
        ask: impl Fn(Duration) -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    ) {
        self.0.push(Loop { name, ask: Box::new(ask), moved: Mutex::new(Instant::now()) });
    }

    /// Makes all loops come round and answers which did not within `bound`; none on a live host.
    ///
    /// A process whose loops all stand still never gets an answer: whoever asks takes silence for one.
    pub async fn check(&self, bound: Duration) -> Vec<Stuck> {
        // No tasks of the executor: one of its threads may be what stands still, with such a task in its hands.
        let answers = join_all(self.0.iter().map(|one| {
            let late = async move {
                task::independent_timer(bound).await;
                Err(format!("it did not answer within {} s", bound.as_secs_f32()))
            };
            future::or((one.ask)(bound), late)
        }))
        .await;
        let mut stuck = Vec::new();
        for (one, answer) in self.0.iter().zip(answers) {
            match answer {
                Ok(()) => *moved(one) = Instant::now(),
                Err(why) => stuck.push(Stuck { name: one.name, why, since_seconds: moved(one).elapsed().as_secs() }),
            }
        }
        stuck
    }
}

fn moved(one: &Loop) -> MutexGuard<'_, Instant> {
    one.moved.lock()
}

/// Every thread that runs the executor comes round.
async fn threads(bound: Duration) -> Result<(), String> {
    let round = task::ask_threads();
    let late = async {
        task::independent_timer(bound).await;
        Err(format!("{} did not come round within {} s", task::threads_behind(round).join(", "), bound.as_secs_f32()))
    };
    let all = async {
        task::threads_came_round(round).await;
        Ok(())
    };
    future::or(all, late).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_named_with_its_reason_and_time() {
        let mut liveness = Liveness::default();
        liveness.add("moving", |_| Box::pin(async { Ok(()) }));
        liveness.add("standing", |bound| {
            Box::pin(async move {
                smol::Timer::after(bound).await;
                Err("it sleeps".to_owned())
            })
        });
        let stuck = task::block_on(liveness.check(Duration::from_millis(20)));
        assert_eq!(stuck, [Stuck { name: "standing", why: "it sleeps".into(), since_seconds: 0 }]);
    }

    #[test]
    fn threads_that_run_the_executor_come_round_and_a_blocked_one_is_named() {
        let (block, blocked) = smol::channel::bounded::<()>(1);
        task::run(1, async move {
            assert_eq!(threads(Duration::from_secs(60)).await, Ok(()));
            // Blocks the worker, or, where the main thread is quicker, nothing: the main thread must go on to ask.
            let hog = task::spawn(async move {
                while std::thread::current().name() != Some("worker-0") {
                    smol::future::yield_now().await;
                }
                let _ = blocked.recv_blocking();
            });
            while block.receiver_count() > 0 && !block.is_empty() {
                smol::future::yield_now().await;
            }
            let stuck = loop {
                match threads(Duration::from_millis(100)).await {
                    Ok(()) => {}
                    Err(why) => break why,
                }
            };
            assert!(stuck.starts_with("worker-0 did not come round"), "{stuck}");
            block.send(()).await.expect("the hog waits");
            hog.await;
            assert_eq!(threads(Duration::from_secs(60)).await, Ok(()));
        })
        .expect("threads");
    }
}
