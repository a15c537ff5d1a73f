//! The executor every task of this process runs on, and the threads that run it.
//!
//! One work-stealing executor serves sockets, timers and guests. The main thread runs it inside a tokio current-thread
//! runtime, because the NATS client needs one and this is the cheapest arrangement measured (one thread, half the CPU
//! of a compatibility layer). Where there is more than one core, worker threads run it too.
//!
//! It never runs blocking work: that goes to [`smol::unblock`].

use std::{
    future::Future,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use event_listener::Event;
use futures_util::FutureExt;
use smol::{Executor, Task, future};
use tokio::runtime::RuntimeMetrics;

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
    for number in 0..workers {
        thread::Builder::new().name(format!("worker-{number}")).stack_size(WORKER_STACK_BYTES).spawn(move || {
            let answering = Thread::enlist(format!("worker-{number}")).answer_for_ever();
            smol::block_on(future::or(answering, EXECUTOR.run(future::pending::<()>())))
        })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(TOKIO_BLOCKING_THREADS)
        .thread_stack_size(WORKER_STACK_BYTES)
        .enable_io()
        .enable_time()
        .build()?;
    // Only tests run this twice in one process; they count nothing.
    let _ = RUNTIME.set(runtime.metrics());
    let answering = Thread::enlist("main".to_owned()).answer_for_ever();
    Ok(runtime.block_on(future::or(main, future::or(answering, tick_for_ever()))))
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
    THREADS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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

/// A timer for whoever watches the others: that of the runtime around the main thread where there is one. All other timers
/// of this process share a reactor, which a thread that stands still may hold.
pub async fn independent_timer(time: Duration) {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => tokio::time::sleep(time).await,
        Err(_) => drop(smol::Timer::after(time).await),
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
