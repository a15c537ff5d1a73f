//! What an invocation costs, straight at the actor room: CPU time, memory, compilation.
//!
//! ```text
//! cargo bench --bench invoke
//! ```
//! CPU times are of the whole process (`CLOCK_PROCESS_CPUTIME_ID`), the median of [`ROUNDS`] rounds. Figures of the
//! router, of HTTP and of the idle host are made by the end-to-end benchmark.

use std::{
    future::Future,
    hint::black_box,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use latticed::{
    actor::{Actor, Context, Engine, HostCall, ModuleSource, Outcalls, Settings},
    error::Result,
    service::heap,
    task,
    wire::{codec, interface::HttpRequest},
};

/// Rounds of each measurement; the median is shown.
const ROUNDS: usize = 9;

struct File(String);

impl ModuleSource for File {
    fn read(&self) -> Result<Vec<u8>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/actors/built").join(&self.0);
        Ok(std::fs::read(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display())))
    }
}

struct Wat(String);

impl ModuleSource for Wat {
    fn read(&self) -> Result<Vec<u8>> {
        Ok(wat::parse_str(&self.0).expect("the module of the benchmark is valid"))
    }
}

/// Answers every host call at once with nothing.
struct Nothing(AtomicU64);

impl Outcalls for Nothing {
    fn host_call(
        &self,
        _caller: &str,
        _call: HostCall,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'static>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    fn console(&self, _caller: &str, _text: &str) {}
}

/// CPU time of this process so far, microseconds.
fn cpu() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Bytes the allocator has handed out.
fn allocated() -> usize {
    // SAFETY: takes and returns plain numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Proportional set size and private dirty memory, KiB.
fn memory() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
    };
    (value("Pss:"), value("Private_Dirty:"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn load(engine: &Engine, key: &str, source: impl ModuleSource) -> Actor {
    engine.load(key, key, Arc::new(source), Arc::new(Nothing(AtomicU64::new(0)))).await.expect("the actor loads")
}

async fn invoke(actor: &Actor, operation: &str, payload: &[u8]) -> Vec<u8> {
    let context = Context { deadline: Instant::now() + Duration::from_secs(60), depth: 0 };
    actor.invoke(operation, payload.to_vec(), context).await.expect("the actor answers")
}

fn engine(change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings { threads: 1, ..Settings::default() };
    change(&mut settings);
    Engine::new(settings).expect("the settings are good")
}

fn request() -> Vec<u8> {
    let request = HttpRequest { method: "GET".into(), path: "/raw".into(), ..HttpRequest::default() };
    codec::encode(&request).expect("a request can be encoded")
}

fn invocations() {
    println!("\ninvocation in a fresh instance              CPU µs");
    let request = request();
    for file in ["echo.wasm", "echo_small.wasm"] {
        let engine = engine(|_| ());
        task::block_on(async {
            let actor = load(&engine, file, File(file.into())).await;
            let fuel = {
                invoke(&actor, "HttpServer.HandleRequest", &request).await;
                actor.counts().fuel
            };
            let time = each(2000, || invoke(&actor, "HttpServer.HandleRequest", &request)).await;
            println!("{file:<16} ({fuel:>6} units of fuel) {time:>15.1}");
        });
    }
}

/// CPU time of one of `count` repetitions, microseconds.
async fn each<T, F: Future<Output = T>>(count: usize, run: impl Fn() -> F) -> f64 {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let start = cpu();
        for _ in 0..count {
            black_box(run().await);
        }
        rounds.push((cpu() - start) / count as f64);
    }
    median(rounds)
}

/// A guest that repeats `body` 1000 times.
fn repeat(body: &str) -> Wat {
    Wat(format!(
        r#"(module
        (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func (export "__guest_call") (param i32 i32) (result i32) (local $i i32)
            (loop $again {body}
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
            (i32.const 1)))"#
    ))
}

fn host_calls_and_slices() {
    let zeros = "(i32.const 0) ".repeat(8);
    let calls = repeat(&format!("(drop (call $call {zeros}))"));
    let nothing = repeat("");
    let engine = engine(|_| ());
    task::block_on(async {
        let (calls, nothing) = (load(&engine, "calls", calls).await, load(&engine, "nothing", nothing).await);
        let with = each(200, || invoke(&calls, "Op", b"")).await;
        let without = each(200, || invoke(&nothing, "Op", b"")).await;
        println!("\nhost call, answered at once (1000 in one invocation)  {:.2} µs each", (with - without) / 1000.0);
    });
    let spin = "(i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.mul (local.get $i) (i32.const 7))))";
    for slice in [10_000, 100_000, 1_000_000_000] {
        let engine = self::engine(|settings| settings.slice_fuel = slice);
        task::block_on(async {
            let actor = load(&engine, "spin", repeat(&spin.repeat(100))).await;
            invoke(&actor, "Op", b"").await;
            let fuel = actor.counts().fuel as f64;
            let time = each(20, || invoke(&actor, "Op", b"")).await;
            println!(
                "slices of {slice:>10} units: {:.1} units per µs, a slice is {:.0} µs",
                fuel / time,
                slice as f64 * time / fuel
            );
        });
    }
}

fn compilation() {
    println!("\ncompiling                 CPU µs   memory KiB   footprint KiB   after a call KiB");
    for file in ["echo.wasm", "counter.wasm", "callee.wasm", "echo_small.wasm"] {
        let engine = engine(|settings| settings.module_cache_bytes = 64 << 20);
        task::block_on(async {
            drop(load(&engine, file, File(file.into())).await);
            let mut times = Vec::new();
            for _ in 0..ROUNDS {
                let start = cpu();
                drop(load(&engine, file, File(file.into())).await);
                times.push(cpu() - start);
            }
            let before = allocated();
            let actor = load(&engine, file, File(file.into())).await;
            let loaded = allocated() - before;
            let footprint = engine.module_cache_bytes();
            let context = Context { deadline: Instant::now() + Duration::from_secs(60), depth: 0 };
            // Some of these answer with an error here; what counts is what a call translates.
            let _ = actor.invoke("HttpServer.HandleRequest", request(), context).await;
            let called = allocated().saturating_sub(before);
            println!(
                "{file:<20} {:>12.0} {:>12} {:>15} {:>18}",
                median(times),
                loaded / 1024,
                footprint / 1024,
                called / 1024
            );
        });
    }
}

fn many_actors() {
    let engine = engine(|_| ());
    task::block_on(async {
        let (before, dirty_before) = memory();
        let mut actors = Vec::new();
        for number in 0..100 {
            actors.push(load(&engine, &format!("M{number:055}"), File("echo.wasm".into())).await);
        }
        heap::give_back();
        let (loaded, dirty) = memory();
        println!(
            "\n100 actors loaded and idle: PSS {before} -> {loaded} KiB, private dirty {dirty_before} -> {dirty} KiB"
        );
        let request = request();
        let mut wall = Vec::new();
        let start = cpu();
        for actor in &actors {
            let start = Instant::now();
            invoke(actor, "HttpServer.HandleRequest", &request).await;
            wall.push(start.elapsed().as_secs_f64() * 1e6);
        }
        println!("waking one: {:.0} µs CPU, {:.0} µs wall (median)", (cpu() - start) / 100.0, median(wall));
        heap::give_back();
        let (woken, dirty) = memory();
        println!("after waking each once:     PSS {woken} KiB, private dirty {dirty} KiB");
    });
}

fn main() {
    heap::configure();
    println!("{} rounds, medians", ROUNDS);
    many_actors();
    invocations();
    host_calls_and_slices();
    compilation();
}
