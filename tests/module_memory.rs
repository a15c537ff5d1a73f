//! What judging and translating a module takes at the worst: six times its size and 8 MiB, or it is refused.
//!
//! A test program of its own, as it counts what its whole process allocates.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use latticed::{
    actor::{Engine, HostCall, ModuleSource, Outcalls, Settings},
    claims::{Actor, Claims, KeyPair, Now, Policy, Role, module, verify_actor},
    error::{Error, Kind, Result},
    task,
};

/// The promise.
const TIMES: usize = 6;
const BASE: usize = 8 << 20;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator as it is; the counters are not part of what is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Bytes(Arc<Vec<u8>>);

impl ModuleSource for Bytes {
    fn read(&self) -> Result<Vec<u8>> {
        Ok(self.0.to_vec())
    }
}

struct Nobody;

impl Outcalls for Nobody {
    fn console(&self, _caller: &str, _text: &str) {}

    fn host_call(
        &self,
        _caller: &str,
        _call: HostCall,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'static>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

fn leb(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id][..], &leb(content.len()), content].concat()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [leb(items.len()), items.concat()].concat()
}

/// A function type of `params` and `results` times i32.
fn kind(params: usize, results: usize) -> Vec<u8> {
    [&[0x60][..], &leb(params), &vec![0x7f; params], &leb(results), &vec![0x7f; results]].concat()
}

/// A body with `locals` local variables.
fn body(locals: usize, code: &[u8]) -> Vec<u8> {
    let declared = if locals == 0 { vec![0] } else { [&[1][..], &leb(locals), &[0x7f]].concat() };
    let content = [&declared[..], code, &[0x0b]].concat();
    [leb(content.len()), content].concat()
}

/// What differs from one module to the next.
#[derive(Default)]
struct Parts {
    types: Vec<Vec<u8>>,
    /// Type and body of each function.
    functions: Vec<(usize, Vec<u8>)>,
    elements: Vec<u8>,
    exports: Vec<Vec<u8>>,
    data: Vec<u8>,
    globals: usize,
}

impl Parts {
    fn of(functions: Vec<(usize, Vec<u8>)>, types: Vec<Vec<u8>>) -> Self {
        Self { types, functions, ..Self::default() }
    }

    /// The module, with what every actor has: type 0 and function 0 are `__guest_call`.
    fn module(mut self) -> Vec<u8> {
        let mut types = vec![kind(2, 1)];
        types.append(&mut self.types);
        let mut functions = vec![(0, body(0, &[0x41, 1]))];
        functions.append(&mut self.functions);
        let mut exports = vec![[&[6][..], b"memory", &[2, 0]].concat(), [&[12][..], b"__guest_call", &[0, 0]].concat()];
        exports.append(&mut self.exports);
        let kinds: Vec<Vec<u8>> = functions.iter().map(|(kind, _)| leb(*kind)).collect();
        let bodies: Vec<Vec<u8>> = functions.into_iter().map(|(_, body)| body).collect();
        let globals = vec![vec![0x7f, 0, 0x41, 0, 0x0b]; self.globals];
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        wasm.extend(section(1, &list(&types)));
        wasm.extend(section(3, &list(&kinds)));
        wasm.extend(section(4, &[1, 0x70, 0, 1]));
        wasm.extend(section(5, &[1, 0, 1]));
        wasm.extend(section(6, &list(&globals)));
        wasm.extend(section(7, &list(&exports)));
        if !self.elements.is_empty() {
            wasm.extend(section(9, &self.elements));
        }
        wasm.extend(section(10, &list(&bodies)));
        if !self.data.is_empty() {
            wasm.extend(section(11, &self.data));
        }
        wasm
    }
}

/// So many functions of type `kind` with `code` again and again in each, between `before` and `after`.
fn filled(
    bytes: usize,
    kind: usize,
    function: usize,
    before: &[u8],
    code: &[u8],
    after: &[u8],
) -> Vec<(usize, Vec<u8>)> {
    let each = code.repeat(function / code.len());
    let body = body(4, &[before, &each, after].concat());
    vec![(kind, body); (bytes / function).max(1)]
}

/// Each way of making much of little, for modules of about `bytes`.
fn worst(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    let (large, small) = (200 << 10, 20 << 10);
    let none = kind(0, 0);
    let of_code = |function: usize, before: &[u8], code: &[u8], after: &[u8]| {
        Parts::of(filled(bytes, 1, function, before, code, after), vec![none.clone()]).module()
    };
    let one = |body: Vec<u8>, types: Vec<Vec<u8>>| Parts::of(vec![(1, body)], types).module();
    let deep = bytes / 3;
    let nested = |depth: usize| body(0, &[[0x02, 0x40].repeat(depth), vec![0x0b; depth]].concat());
    let items = |count: usize| [&[1, 1, 0][..], &leb(count), &vec![0; count]].concat();
    let calls = |params: usize, results: usize, function: usize| {
        let types = vec![none.clone(), kind(params, results)];
        let callee = (2, body(0, &[0x41, 0].repeat(results)));
        let round = [vec![0x10, 1], vec![0x1a; results]].concat();
        let round = if params == results { vec![0x10, 1] } else { [[0x41, 0].repeat(params), round].concat() };
        let before = if params == results { [0x41, 0].repeat(params) } else { Vec::new() };
        let after = if params == results { vec![0x1a; results] } else { Vec::new() };
        let mut functions = vec![callee];
        functions.extend(filled(bytes, 1, function, &before, &round, &after));
        Parts::of(functions, types).module()
    };
    let table = |results: usize, targets: usize| {
        let types = vec![none.clone(), kind(0, results)];
        let values = [0x41, 0].repeat(results);
        let round = [
            vec![0x02, if results == 0 { 0x40 } else { 0x02 }],
            values,
            [vec![0x20, 0, 0x0e], leb(targets), vec![0; targets + 1]].concat(),
            vec![0x0b],
            vec![0x1a; results],
        ]
        .concat();
        Parts::of(filled(bytes, 1, round.len().max(large), &[], &round, &[]), types).module()
    };
    vec![
        ("blocks within each other, without bound", one(nested(deep), vec![none.clone()])),
        (
            "blocks within each other, as deep as allowed",
            Parts::of(vec![(1, nested(4_000)); bytes / 12_000], vec![none.clone()]).module(),
        ),
        ("element items, without bound", Parts { elements: items(bytes), ..Parts::default() }.module()),
        ("element items, as many as allowed", Parts { elements: items(49_000), ..Parts::default() }.module()),
        ("types, without bound", Parts::of(vec![], vec![none.clone(); bytes / 3]).module()),
        (
            "types, as many as allowed",
            Parts::of(vec![], (0..9_990).map(|n| kind(n % 100, n / 1000)).collect()).module(),
        ),
        ("calls with 128 parameters", calls(128, 0, large)),
        ("calls with 1000 parameters", calls(1000, 0, large)),
        ("calls with 16 parameters and results", calls(16, 16, large)),
        ("calls with 2 parameters and results", calls(2, 2, small)),
        ("functions, without bound", Parts::of(vec![(1, body(0, &[])); bytes / 4], vec![none.clone()]).module()),
        ("functions, as many as allowed", Parts::of(vec![(1, body(0, &[])); 19_000], vec![none.clone()]).module()),
        ("functions that are not small", of_code(bytes, &[], &[0x01], &[])),
        ("tiny instructions", of_code(large, &[0x20, 0], &[0x67], &[0x1a])),
        ("tiny instructions in small functions", of_code(small, &[0x20, 0], &[0x67], &[0x1a])),
        ("additions", of_code(large, &[0x20, 0], &[0x20, 1, 0x6a], &[0x1a])),
        ("constants that wait", of_code(large, &[], &[0x41, 0], &[0x0c, 0])),
        ("local variables that wait", of_code(large, &[], &[0x20, 0], &[0x0c, 0])),
        ("copies of local variables", of_code(large, &[], &[0x20, 0, 0x41, 1, 0x21, 0, 0x1a], &[])),
        ("branches", of_code(large, &[], &[0x20, 0, 0x0d, 0], &[])),
        ("branches in small functions", of_code(small, &[], &[0x20, 0, 0x0d, 0], &[])),
        ("conditions", of_code(large, &[], &[0x20, 0, 0x04, 0x40, 0x05, 0x0b], &[])),
        ("loops", of_code(large, &[], &[0x03, 0x40, 0x0b], &[])),
        ("tables of branches", table(0, 100_000)),
        ("tables of branches with results", table(16, 100_000)),
        ("short tables of branches with results", table(16, 50)),
        (
            "local variables",
            Parts::of(vec![(1, body(16_000, &[])); bytes.min(1 << 20) / 100], vec![none.clone()]).module(),
        ),
        ("global variables", Parts { globals: bytes / 5, ..Parts::default() }.module()),
        ("data segments", Parts { data: list(&vec![vec![1, 0]; bytes / 2]), ..Parts::default() }.module()),
        ("exports", {
            let export = |n: usize| [&[8][..], format!("{n:08}").as_bytes(), &[0, 0]].concat();
            Parts { exports: (0..bytes / 11).map(export).collect(), ..Parts::default() }.module()
        }),
    ]
}

/// What it took at the most to look at `wasm`, beside what is there anyway, and what came of it.
fn peak(wasm: Vec<u8>) -> (usize, Result<()>) {
    let engine = Engine::new(Settings::default()).expect("default limits are good");
    let wasm = Arc::new(wasm);
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let judged = verify_actor(&wasm, &Policy::new(Now::judge(0, 0)));
    assert!(judged.is_ok(), "it is signed: {judged:?}");
    drop(judged);
    let outcome = task::block_on(engine.load("M", "worst", Arc::new(Bytes(wasm)), Arc::new(Nobody)));
    (MOST.load(Relaxed).saturating_sub(before), outcome.map(drop))
}

fn signed(wasm: &[u8]) -> Result<Vec<u8>, Error> {
    let key = KeyPair::from_name(Role::Module, "worst").public_key().to_string();
    let claims = Claims::new(key, Actor { name: Some("worst".into()), ..Actor::default() }, Now::judge(0, 0))?;
    Ok(module::sign(wasm, claims, &KeyPair::from_name(Role::Account, "worst"))?.0)
}

#[test]
fn no_module_takes_more_than_its_size_justifies() {
    let mut wrong = Vec::new();
    for bytes in [1 << 20, (8 << 20) - (64 << 10)] {
        for (name, wasm) in worst(bytes) {
            let wasm = signed(&wasm).expect("it can be signed");
            let (size, (peak, outcome)) = (wasm.len(), peak(wasm));
            let said = outcome.as_ref().err().map_or_else(|| "runs".to_owned(), |error| error.text().to_owned());
            println!(
                "{:>5} KiB {:>7} KiB {:>5.1} x  {name}: {said}",
                size >> 10,
                peak >> 10,
                peak as f64 / size as f64
            );
            if peak > TIMES * size + BASE {
                wrong.push(format!("{name}: {size} bytes take {peak}"));
            }
            // What is refused is refused for its size, and not by chance as malformed.
            if outcome.as_ref().is_err_and(|error| error.kind() != Kind::Limit) {
                wrong.push(format!("{name}: {said}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
