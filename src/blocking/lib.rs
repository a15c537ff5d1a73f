//! A pool of threads for work that blocks, with a known number of threads that are always there.

#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    future::Future,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use async_task::Runnable;
pub use async_task::Task;

/// Most threads at once. A call that leaves for another machine (HTTP client, downloads) has a thread until it is back; as
/// many may be on their way, and the next ones wait.
pub const MAX_THREADS: usize = 128;

/// How long a thread that is not kept waits for more work before it ends.
const IDLE: Duration = Duration::from_secs(2);

static POOL: Pool = Pool {
    state: Mutex::new(State { queue: VecDeque::new(), threads: 0, idle: 0, kept: 0 }),
    work: Condvar::new(),
    refused: AtomicU64::new(0),
};

struct Pool {
    state: Mutex<State>,
    work: Condvar,
    /// How often the system started no thread.
    refused: AtomicU64,
}

struct State {
    queue: VecDeque<Runnable>,
    /// Threads that there are, or that are being started.
    threads: usize,
    /// Those of them that wait for work.
    idle: usize,
    /// Those that never end.
    kept: usize,
}

/// Runs `work` on a thread where it may block. Dropping the task keeps work from being begun and does not stop it; `detach` lets
/// it run on.
pub fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Task<T> {
    spawn(async move { work() })
}

fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    let (runnable, task) = async_task::Builder::new().propagate_panic(true).spawn(move |()| future, schedule);
    runnable.schedule();
    task
}

/// Starts threads until there are `count` that never end.
///
/// # Errors
/// The system starts no more. Those that were started stay.
pub fn keep(count: usize) -> io::Result<()> {
    loop {
        let mut state = lock();
        if state.kept >= count {
            return Ok(());
        }
        state.kept += 1;
        state.threads += 1;
        drop(state);
        if let Err(cause) = start(true) {
            let mut state = lock();
            state.kept -= 1;
            state.threads -= 1;
            return Err(cause);
        }
    }
}

/// How often the system started no thread although there was work for one. The work is done by the threads there are.
pub fn refused() -> u64 {
    POOL.refused.load(Relaxed)
}

fn lock() -> MutexGuard<'static, State> {
    POOL.state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn schedule(runnable: Runnable) {
    let mut state = lock();
    state.queue.push_back(runnable);
    if state.queue.len() <= state.idle || state.threads >= MAX_THREADS {
        drop(state);
        POOL.work.notify_one();
        return;
    }
    state.threads += 1;
    // Without the lock: starting a thread may take long, or fail.
    drop(state);
    POOL.work.notify_one();
    if start(false).is_ok() {
        return;
    }
    POOL.refused.fetch_add(1, Relaxed);
    let mut state = lock();
    state.threads -= 1;
    // Nobody is there who could ever do it: better here than never.
    if state.threads == 0
        && let Some(runnable) = state.queue.pop_front()
    {
        drop(state);
        runnable.run();
    }
}

fn start(kept: bool) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let name = format!("blocking-{}", NUMBER.fetch_add(1, Relaxed));
    thread::Builder::new().name(name).spawn(move || work(kept)).map(drop)
}

/// The life of one thread.
fn work(kept: bool) {
    let mut state = lock();
    loop {
        while let Some(runnable) = state.queue.pop_front() {
            drop(state);
            // Whoever awaits the task gets the panic.
            let _ = catch_unwind(AssertUnwindSafe(|| runnable.run()));
            state = lock();
        }
        state.idle += 1;
        if kept {
            state = POOL.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            continue;
        }
        let (locked, waited) = POOL.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = locked;
        state.idle -= 1;
        if waited.timed_out() && state.queue.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}
