//! The executor every task of this process runs on, and the threads that run it.
//!
//! One work-stealing executor serves sockets, timers and guests. The main thread runs it inside a tokio current-thread
//! runtime, because the NATS client needs one and this is the cheapest arrangement measured (one thread, half the CPU
//! of a compatibility layer). Where there is more than one core, worker threads run it too.
//!
//! It never runs blocking work: that goes to [`smol::unblock`].

use std::{future::Future, io, num::NonZeroUsize, thread};

use smol::{Executor, Task, future};

static EXECUTOR: Executor<'static> = Executor::new();

/// Stack of a worker thread, bytes. 2 MiB, as Rust gives its own threads: an unoptimised interpreter has been seen to need
/// more than 256 KiB. It is address space, memory only as far as it is touched. Exceeding it ends the process.
const WORKER_STACK_BYTES: usize = 2 * 1024 * 1024;

/// Blocking threads the runtime may start (host names, certificate files). One is enough: such work is rare.
const TOKIO_BLOCKING_THREADS: usize = 1;

/// Starts `future` on the executor. Dropping the returned task cancels it; `detach` lets it run on.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
    EXECUTOR.spawn(future)
}

/// Runs `main` to its end on this thread, every spawned task beside it, with `workers` more threads helping.
///
/// # Errors
/// The runtime or a thread could not be started.
pub fn run<T>(workers: usize, main: impl Future<Output = T>) -> io::Result<T> {
    for number in 0..workers {
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .stack_size(WORKER_STACK_BYTES)
            .spawn(|| smol::block_on(EXECUTOR.run(future::pending::<()>())))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(TOKIO_BLOCKING_THREADS)
        .thread_stack_size(WORKER_STACK_BYTES)
        .enable_io()
        .enable_time()
        .build()?;
    Ok(runtime.block_on(future::or(main, tick_for_ever())))
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
