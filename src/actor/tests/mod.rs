//! What the tests of this room share: engines with limits of their own, actors from WAT, a router that answers from a
//! closure.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    actor::{Actor, Context, Engine, HostCall, ModuleSource, Outcalls, Settings},
    error::Result,
    task,
};

mod hostile;
mod lifecycle;
mod scheduling;
mod vectors;
mod wapc;
mod wasi;

/// Imports and memory that most modules of these tests start with.
const PRELUDE: &str = r#"
    (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
    (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
    (import "wasmbus" "__guest_error" (func $error (param i32 i32)))
    (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasmbus" "__host_response_len" (func $answer_len (result i32)))
    (import "wasmbus" "__host_response" (func $answer (param i32)))
    (import "wasmbus" "__host_error_len" (func $host_error_len (result i32)))
    (import "wasmbus" "__host_error" (func $host_error (param i32)))
    (import "wasmbus" "__console_log" (func $log (param i32 i32)))
    (memory (export "memory") 1)"#;

/// A module with [`PRELUDE`] whose `__guest_call` has `body`; `$op` and `$len` are its parameters.
fn guest(body: &str) -> Vec<u8> {
    module(&format!("{PRELUDE} (func (export \"__guest_call\") (param $op i32) (param $len i32) (result i32) {body})"))
}

/// A module of these fields.
fn module(fields: &str) -> Vec<u8> {
    wat::parse_str(format!("(module {fields})")).unwrap()
}

/// A module that answers its payload.
fn echo() -> Vec<u8> {
    guest(
        "(call $request (i32.const 0) (i32.const 4096)) (call $response (i32.const 4096) (local.get $len)) (i32.const 1)",
    )
}

/// Bytes in memory that count how often they were read.
struct Bytes {
    wasm: Vec<u8>,
    reads: AtomicUsize,
    /// While a test holds it, reading waits.
    hold: smol::lock::Mutex<()>,
}

impl ModuleSource for Bytes {
    fn read(&self) -> Result<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let _released = self.hold.lock_blocking();
        Ok(self.wasm.clone())
    }
}

fn source(wasm: Vec<u8>) -> Arc<Bytes> {
    Arc::new(Bytes { wasm, reads: AtomicUsize::new(0), hold: smol::lock::Mutex::new(()) })
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Answer = dyn Fn(HostCall) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync;

/// Outcalls that remember what was asked and answer through a closure.
struct Table {
    answer: Box<Answer>,
    calls: Mutex<Vec<HostCall>>,
    console: Mutex<Vec<String>>,
}

impl Table {
    fn new(
        answer: impl Fn(HostCall) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), calls: Mutex::default(), console: Mutex::default() })
    }

    /// Answers every call with `answer` at once.
    fn fixed(answer: Result<Vec<u8>, String>) -> Arc<Self> {
        Self::new(move |_| {
            let answer = answer.clone();
            Box::pin(async move { answer })
        })
    }

    fn silent() -> Arc<Self> {
        Self::fixed(Err("nobody is there".to_string()))
    }
}

impl Outcalls for Table {
    fn host_call(&self, _caller: &str, call: HostCall) -> BoxFuture<'static, Result<Vec<u8>, String>> {
        self.calls.lock().unwrap().push(call.clone());
        (self.answer)(call)
    }

    fn console(&self, _caller: &str, text: &str) {
        self.console.lock().unwrap().push(text.to_string());
    }
}

fn engine(change: impl FnOnce(&mut Settings)) -> Engine {
    let mut settings = Settings { threads: 1, ..Settings::default() };
    change(&mut settings);
    Engine::new(settings).unwrap()
}

async fn load(engine: &Engine, wasm: Vec<u8>) -> Result<Actor> {
    load_with(engine, wasm, Table::silent()).await
}

async fn load_with(engine: &Engine, wasm: Vec<u8>, outcalls: Arc<dyn Outcalls>) -> Result<Actor> {
    engine.load("MTEST", "test", source(wasm), outcalls).await
}

/// A context with a minute of time.
fn context() -> Context {
    Context { deadline: Instant::now() + Duration::from_secs(60), depth: 0 }
}

async fn invoke(actor: &Actor, payload: &[u8]) -> Result<Vec<u8>> {
    actor.invoke("Op", payload.to_vec(), context()).await
}

/// Loads `wasm` with changed settings and invokes it once.
fn once(wasm: Vec<u8>, change: impl FnOnce(&mut Settings)) -> Result<Vec<u8>> {
    let engine = engine(change);
    task::block_on(async { invoke(&load(&engine, wasm).await?, b"payload").await })
}
