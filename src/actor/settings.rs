//! Every limit a guest lives under, its default, its unit and what happens when it is reached.
//!
//! `config` fills [`Settings`] from the names given here; nothing in this room reads the environment.

use std::time::Duration;

use crate::task;

/// Linear memory of one instance, bytes. 16 MiB: a Rust or TinyGo actor starts with 1 to 2 MiB, and
/// [`MAX_RUNNING`] of them at this limit use half of a 512 MB board. Growth beyond it fails inside the guest; a module
/// that starts above it is refused.
pub const MEMORY_BYTES: usize = 16 * 1024 * 1024;

/// Wall-clock time of one invocation, waiting included. 5 s is what hosts of this protocol wait for a call in the same
/// process. Beyond it the invocation ends with an error; an earlier deadline of the caller wins.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Fuel of one invocation, about one unit per Wasm instruction. 10^9 is a second of one core on x86_64 and more than
/// [`DEADLINE`] on a small ARM core. Beyond it the invocation ends with an error.
pub const FUEL: u64 = 1_000_000_000;

/// Nested calls inside a guest. 1000 frames hold every serialiser seen; beyond it the invocation ends with an error.
pub const STACK_DEPTH: usize = 1_000;

/// Values on the interpreter's stack, bytes. 512 KiB gives each of [`STACK_DEPTH`] frames 64 values of 8 bytes. Beyond
/// it the invocation ends with the same error as too deep a stack.
pub const STACK_BYTES: usize = 512 * 1024;

/// Size of a module, bytes. 8 MiB holds a debug build of a Rust actor; larger ones are refused before they are parsed.
pub const MODULE_BYTES: usize = 8 * 1024 * 1024;

/// Elements of one table (function pointers). Rust and TinyGo modules have some hundreds; larger tables are refused.
pub const TABLE_ELEMENTS: usize = 10_000;

/// Functions of a module. Each costs about 100 bytes and 25 ns per instance; more are refused.
pub const FUNCTIONS: u32 = 20_000;

/// Tables of a module. Compilers make one; more are refused.
pub const TABLES: u32 = 4;

/// Global variables of a module. Compilers make a handful; more are refused.
pub const GLOBALS: u32 = 1_000;

/// Element segments of a module. Compilers make one or two; more are refused.
pub const ELEMENT_SEGMENTS: u32 = 1_000;

/// Data segments of a module. AssemblyScript makes one per string constant; more are refused.
pub const DATA_SEGMENTS: u32 = 10_000;

/// Imports of a module. The host ABI has 9 names, WASI 46 and AssemblyScript one; more are refused.
pub const IMPORTS: u32 = 100;

/// Exports of a module. Each costs some 100 ns per instance; compilers of actors make fewer than ten, more are refused.
pub const EXPORTS: u32 = 200;

/// Invocations of one actor at once where nobody said how many. Eight keep a core busy while most wait for answers;
/// further ones queue.
pub const MAX_CONCURRENT: u16 = 8;

/// Invocations in front of one actor. 64 absorb a burst of HTTP requests; further ones are refused.
pub const QUEUE: usize = 64;

/// Invocations from outside that run at once on this host: see [`MEMORY_BYTES`]. Further ones queue. Calls between
/// actors have places of their own for each nesting depth (a quarter of this number), so that callers who wait can
/// never starve those they wait for.
pub const MAX_RUNNING: usize = 16;

/// Invocations in front of the whole host (for each nesting depth). Further ones are refused.
pub const HOST_QUEUE: usize = 256;

/// Body of an invocation, of its response and of each host call and answer, bytes. 4 MiB is above what clients of this
/// protocol send in one piece (900 KiB) and below what would hurt a small board. Larger ones are refused.
pub const PAYLOAD_BYTES: usize = 4 * 1024 * 1024;

/// How deep actors may call actors (A calls B calls A). Deeper calls are refused.
pub const NESTING: u8 = 8;

/// Length of one log text, bytes. The rest is cut off.
pub const LOG_BYTES: usize = 4 * 1024;

/// Log texts of one actor per second. Further ones are dropped and counted in the next text that passes.
pub const LOG_PER_SECOND: u32 = 50;

/// Compiled modules kept for idle actors, bytes as estimated when they are compiled. Eight of 180 KB stay warm; the others
/// are compiled again on their next call, which takes a few milliseconds.
pub const MODULE_CACHE_BYTES: usize = 4 * 1024 * 1024;

/// Fuel of one slice: how long a guest runs before others get their turn. 100 000 units are 0.1 ms on x86_64 (measured: a
/// nanosecond each) and, at a tenth of that speed, a millisecond on a Cortex-A53. An ordinary request (55 000 units for
/// the echo of `tests/actors`) fits one slice; slicing costs nothing measurable down to 10 000.
pub const SLICE_FUEL: u64 = 100_000;

/// Limits of guests. [`Settings::default`] holds the constants of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `WASMCLOUD_ACTOR_MEMORY_BYTES`, see [`MEMORY_BYTES`].
    pub memory_bytes: usize,
    /// `WASMCLOUD_ACTOR_DEADLINE_MS`, see [`DEADLINE`].
    pub deadline: Duration,
    /// `WASMCLOUD_ACTOR_FUEL`, see [`FUEL`].
    pub fuel: u64,
    /// `WASMCLOUD_ACTOR_STACK_DEPTH`, see [`STACK_DEPTH`].
    pub stack_depth: usize,
    /// See [`STACK_BYTES`].
    pub stack_bytes: usize,
    /// `WASMCLOUD_ACTOR_MODULE_BYTES`, see [`MODULE_BYTES`].
    pub module_bytes: usize,
    /// `WASMCLOUD_ACTOR_TABLE_ELEMENTS`, see [`TABLE_ELEMENTS`].
    pub table_elements: usize,
    /// See [`FUNCTIONS`].
    pub functions: u32,
    /// See [`TABLES`].
    pub tables: u32,
    /// See [`GLOBALS`].
    pub globals: u32,
    /// See [`ELEMENT_SEGMENTS`].
    pub element_segments: u32,
    /// See [`DATA_SEGMENTS`].
    pub data_segments: u32,
    /// See [`IMPORTS`].
    pub imports: u32,
    /// See [`EXPORTS`].
    pub exports: u32,
    /// `WASMCLOUD_ACTOR_MAX_CONCURRENT`, see [`MAX_CONCURRENT`].
    pub max_concurrent: u16,
    /// `WASMCLOUD_ACTOR_QUEUE`, see [`QUEUE`].
    pub queue: usize,
    /// `WASMCLOUD_MAX_RUNNING`, see [`MAX_RUNNING`].
    pub max_running: usize,
    /// `WASMCLOUD_QUEUE`, see [`HOST_QUEUE`].
    pub host_queue: usize,
    /// `WASMCLOUD_ACTOR_PAYLOAD_BYTES`, see [`PAYLOAD_BYTES`].
    pub payload_bytes: usize,
    /// `WASMCLOUD_ACTOR_NESTING`, see [`NESTING`].
    pub nesting: u8,
    /// `WASMCLOUD_ACTOR_LOG_BYTES`, see [`LOG_BYTES`].
    pub log_bytes: usize,
    /// `WASMCLOUD_ACTOR_LOG_PER_SECOND`, see [`LOG_PER_SECOND`].
    pub log_per_second: u32,
    /// `WASMCLOUD_MODULE_CACHE_BYTES`, see [`MODULE_CACHE_BYTES`].
    pub module_cache_bytes: usize,
    /// `WASMCLOUD_SLICE_FUEL`, see [`SLICE_FUEL`].
    pub slice_fuel: u64,
    /// Threads that run guests: `WASMCLOUD_WORKERS` and the main thread. So many guests may be in a slice at once.
    pub threads: usize,
    /// `WASMCLOUD_ALLOW_WASI`: modules may import WASI preview 1 and get clock, random numbers, and output that goes to the
    /// log; everything else in it answers that nothing is there. On, because the runtimes of many languages import it and it
    /// gives a guest nothing that the host ABI does not give.
    pub allow_wasi: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_BYTES,
            deadline: DEADLINE,
            fuel: FUEL,
            stack_depth: STACK_DEPTH,
            stack_bytes: STACK_BYTES,
            module_bytes: MODULE_BYTES,
            table_elements: TABLE_ELEMENTS,
            functions: FUNCTIONS,
            tables: TABLES,
            globals: GLOBALS,
            element_segments: ELEMENT_SEGMENTS,
            data_segments: DATA_SEGMENTS,
            imports: IMPORTS,
            exports: EXPORTS,
            max_concurrent: MAX_CONCURRENT,
            queue: QUEUE,
            max_running: MAX_RUNNING,
            host_queue: HOST_QUEUE,
            payload_bytes: PAYLOAD_BYTES,
            nesting: NESTING,
            log_bytes: LOG_BYTES,
            log_per_second: LOG_PER_SECOND,
            module_cache_bytes: MODULE_CACHE_BYTES,
            slice_fuel: SLICE_FUEL,
            threads: task::default_workers() + 1,
            allow_wasi: true,
        }
    }
}
