//! The executor every task of this process runs on, and the threads that run it.
//!
//! One work-stealing executor serves sockets, timers and guests. The main thread runs it inside a tokio current-thread
//! runtime, because the NATS client needs one and this is the cheapest arrangement measured (one thread, half the CPU
//! of a compatibility layer). Where there is more than one core, worker threads run it too.
//!
//! It never runs blocking work: that goes to [`smol::unblock`].
//!
//! Every thread that this process cannot do without is started before anything else runs, and stays: where no more can be
//! started later (`TasksMax` of the unit, a limit of the user), work waits for one of these and goes on.

use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use event_listener::Event;
use futures_util::FutureExt;
use smol::{Executor, Task, Timer, future};
use tokio::runtime::{Runtime, RuntimeMetrics};

use crate::lock::{Mutex, MutexGuard};

static EXECUTOR: Executor<'static> = Executor::new();

/// The threads that run the executor, and how often they were asked to come round.
static THREADS: Mutex<Vec<Arc<Thread>>> = Mutex::new(Vec::new());
static ASKED: AtomicU64 = AtomicU64::new(0);
static ASK: Event = Event::new();
static CAME_ROUND: Event = Event::new();

/// A thread that runs the executor.
struct Thread {
    name: String,
    /// The last question it answered.
    round: AtomicU64,
}

/// Tasks that were spawned and have not ended.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// The runtime of the main thread, to count what the NATS client runs there.
static RUNTIME: OnceLock<RuntimeMetrics> = OnceLock::new();

/// Stack of a worker thread, bytes. 2 MiB, as Rust gives its own threads: an unoptimised interpreter has been seen to need
/// more than 256 KiB. It is address space, memory only as far as it is touched. Exceeding it ends the process.
const WORKER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// Blocking threads the runtime may start (host names, certificate files). One is enough: such work is rare.
const TOKIO_BLOCKING_THREADS: usize = 1;

/// How long that thread waits for more work: for ever, as far as a clock can tell. The runtime ends the process where it
/// needs a thread and gets none.
const TOKIO_KEEP_ALIVE: Duration = Duration::from_secs(u32::MAX as u64);

/// Threads for blocking work that are always there: for the disk, for names, and for two calls that leave for other
/// machines meanwhile. Each costs some 20 kB of memory; more are started while they are needed and can be had.
const KEPT_BLOCKING_THREADS: usize = 4;

/// Threads that drive timers and sockets.
const REACTOR_THREADS: usize = 1;

/// Stack of a thread that only waits, bytes; rounded up by the C library where that needs more.
const TRIAL_STACK_BYTES: usize = 64 * 1024;

/// Starts `future` on the executor. Dropping the returned task cancels it; `detach` lets it run on.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    LIVE.fetch_add(1, Relaxed);
    let counted = Counted;
    EXECUTOR.spawn(future.map(move |outcome| {
        drop(counted);
        outcome
    }))
}

/// Goes with a task, however that ends.
struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, Relaxed);
    }
}

/// Tasks that live now, here and on the runtime of the NATS client. It goes up and down with the work; at rest it stays.
pub fn live() -> usize {
    LIVE.load(Relaxed) + RUNTIME.get().map_or(0, RuntimeMetrics::num_alive_tasks)
}

/// Runs `main` to its end on this thread, every spawned task beside it, with `workers` more threads helping.
///
/// # Errors
/// The runtime or a thread could not be started.
pub fn run<T>(workers: usize, main: impl Future<Output = T>) -> io::Result<T> {
    run_on(start(workers)?, main)
}

fn run_on<T>(runtime: Runtime, main: impl Future<Output = T>) -> io::Result<T> {
    // Only tests run this twice in one process; they count nothing.
    let _ = RUNTIME.set(runtime.metrics());
    let answering = Thread::enlist("main".to_owned()).answer_for_ever();
    Ok(runtime.block_on(future::or(main, future::or(answering, tick_for_ever()))))
}

/// The same for a process that must go on whatever happens to the threads of this machine: all that it needs are started
/// first, and stay.
///
/// # Errors
/// The same, or the system does not start as many threads; the text says how many.
pub fn run_reserved<T>(workers: usize, main: impl Future<Output = T>) -> io::Result<T> {
    // The libraries below start a thread when they first need it and end the process where they get none. So this is tried
    // with as many threads as there will be, at a moment when nothing is lost yet.
    try_threads(workers + KEPT_BLOCKING_THREADS + TOKIO_BLOCKING_THREADS + REACTOR_THREADS)?;
    // Starts the thread that drives timers and sockets.
    smol::block_on(Timer::after(Duration::ZERO));
    blocking::keep(KEPT_BLOCKING_THREADS)?;
    let runtime = start(workers)?;
    // Its one thread starts now.
    drop(runtime.spawn_blocking(|| ()));
    run_on(runtime, main)
}

fn start(workers: usize) -> io::Result<Runtime> {
    for number in 0..workers {
        thread::Builder::new().name(format!("worker-{number}")).stack_size(WORKER_STACK_BYTES).spawn(move || {
            let answering = Thread::enlist(format!("worker-{number}")).answer_for_ever();
            smol::block_on(future::or(answering, EXECUTOR.run(future::pending::<()>())))
        })?;
    }
    tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(TOKIO_BLOCKING_THREADS)
        .thread_keep_alive(TOKIO_KEEP_ALIVE)
        .thread_stack_size(WORKER_STACK_BYTES)
        .enable_io()
        .enable_time()
        .build()
}

/// Whether `count` threads can be started at once.
fn try_threads(count: usize) -> io::Result<()> {
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let mut started = Vec::new();
    let mut outcome = Ok(());
    for _ in 0..count {
        let held = held.clone();
        // Ends when nobody holds the other side any more.
        let wait = move || {
            let _ = held.lock().recv();
        };
        match thread::Builder::new().stack_size(TRIAL_STACK_BYTES).spawn(wait) {
            Ok(thread) => started.push(thread),
            Err(cause) => {
                outcome = Err(io::Error::new(
                    cause.kind(),
                    format!(
                        "this process needs {count} threads beside its first, and the system starts {} ({cause}): raise \
                         TasksMax of the unit, or the limit of processes of its user (`ulimit -u`)",
                        started.len()
                    ),
                ));
                break;
            }
        }
    }
    drop(hold);
    for thread in started {
        // They do nothing that could fail.
        let _ = thread.join();
    }
    outcome
}

impl Thread {
    /// Notes that the thread called `name` runs the executor.
    fn enlist(name: String) -> Arc<Self> {
        let thread = Arc::new(Self { name, round: AtomicU64::new(ASKED.load(SeqCst)) });
        threads().push(thread.clone());
        thread
    }

    /// Answers each question. Polled by the thread itself and by no other, beside the executor: an answer is a sign of
    /// life of this thread.
    async fn answer_for_ever<T>(self: Arc<Self>) -> T {
        loop {
            let asked = ASK.listen();
            let round = ASKED.load(SeqCst);
            if self.round.swap(round, SeqCst) != round {
                CAME_ROUND.notify(usize::MAX);
            }
            asked.await;
        }
    }
}

fn threads() -> MutexGuard<'static, Vec<Arc<Thread>>> {
    THREADS.lock()
}

/// Asks every thread that runs the executor to come round; answers the number of the question.
pub fn ask_threads() -> u64 {
    let round = ASKED.fetch_add(1, SeqCst) + 1;
    ASK.notify(usize::MAX);
    round
}

/// Threads that have not come round since that question.
pub fn threads_behind(round: u64) -> Vec<String> {
    threads().iter().filter(|one| one.round.load(SeqCst) < round).map(|one| one.name.clone()).collect()
}

/// Waits until every thread has come round since that question.
pub async fn threads_came_round(round: u64) {
    loop {
        let news = CAME_ROUND.listen();
        if threads_behind(round).is_empty() {
            return;
        }
        news.await;
    }
}

/// Waits for `future`, but no longer than `patience` from now: `None` when that was over first. What is ready at once
/// is answered however short the patience is. Works on any thread: the timer is smol's.
pub fn within<T>(patience: Duration, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    unless(Timer::after(patience), future)
}

/// As [`within`], but no longer than until `deadline`.
pub fn before<T>(deadline: Instant, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    unless(Timer::at(deadline), future)
}

/// What `future` answers, unless `late` fires first. Combinators hold `future` once. An `async` function would hold it
/// twice, and such waits stand inside each other.
fn unless<T>(late: Timer, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    future::or(future.map(Some), late.map(|_| None))
}

/// A timer for whoever watches the others: that of the runtime around the main thread where there is one. All other timers
/// of this process share a reactor, which a thread that stands still may hold.
pub async fn independent_timer(time: Duration) {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::time::sleep(time).await,
        Err(_) => drop(Timer::after(time).await),
    }
}

/// Runs the executor one task at a time, so that the runtime around it gets its turn after each: `Executor::run` would
/// take two hundred slices of a busy guest before it yields.
async fn tick_for_ever<T>() -> T {
    loop {
        EXECUTOR.tick().await;
        future::yield_now().await;
    }
}

/// Runs `future` and every spawned task on this thread until `future` ends. For tests, benchmarks and short commands.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    smol::block_on(EXECUTOR.run(future))
}

/// Worker threads worth starting on this machine: one less than its cores, as the main thread works too.
pub fn default_workers() -> usize {
    thread::available_parallelism().map_or(0, |cores| NonZeroUsize::get(cores) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_future_or_with_its_time_whichever_comes_first() {
        let long = Duration::from_secs(3600);
        let short = Duration::from_millis(5);
        block_on(async {
            assert_eq!(within(long, async { 1 }).await, Some(1));
            assert_eq!(within(short, future::pending::<u8>()).await, None);
            assert_eq!(before(Instant::now() + long, async { 2 }).await, Some(2));
            assert_eq!(before(Instant::now() + short, future::pending::<u8>()).await, None);
        });
    }

    #[test]
    fn a_wait_costs_no_second_copy_of_its_future() {
        let large = [0_u8; 4096];
        let future = async move {
            future::yield_now().await;
            large[0]
        };
        let bytes = size_of_val(&future);
        assert!(size_of_val(&within(Duration::ZERO, future)) < bytes + 512);
    }

    #[test]
    fn what_is_ready_is_answered_though_there_is_no_time_left() {
        block_on(async {
            assert_eq!(within(Duration::ZERO, async { 1 }).await, Some(1));
            assert_eq!(before(Instant::now(), async { 2 }).await, Some(2));
            assert_eq!(before(Instant::now(), future::pending::<u8>()).await, None);
        });
    }
}
