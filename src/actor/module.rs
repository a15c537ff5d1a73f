//! From signed bytes to a module that instances are made of: parsed, validated, its imports and exports checked.
//!
//! Runs on the blocking pool only. Each module has an engine of its own, because wasmi keeps the code of a module as
//! long as its engine lives: that is what lets the cache give memory back.

use std::sync::Arc;

use wasmi::{
    CompilationMode, Config, CustomFuelCosts, Engine, ExternType, FuncType, ImportType, Linker, Module, Store,
    TrapCode, ValType, errors::ErrorKind,
};

use crate::{
    actor::{
        abi, assembly_script,
        guest::{Guest, Surroundings},
        outline::Outline,
        settings::Settings,
        wasi, weight,
    },
    error::{Error, Result},
};

/// Bytes of a page of linear memory.
const PAGE_BYTES: u64 = 64 * 1024;

/// Values on the interpreter's stack that a call starts with, bytes. Enough for a Rust actor; it grows up to its limit.
const STACK_START_BYTES: usize = 8 * 1024;

/// Bytes of one function, and of all functions together, up to which they are translated when they are first called.
/// Translation cannot be interrupted and takes 28 ns per byte on x86_64: a larger function would keep a thread from
/// others for longer than a slice, and more code could do so again and again. Modules beyond either are translated as a
/// whole when they are loaded, on the blocking pool, which costs three times the time and more memory.
const LAZY_FUNCTION_BYTES: usize = 32 * 1024;
/// See [`LAZY_FUNCTION_BYTES`].
const LAZY_CODE_BYTES: usize = 512 * 1024;

/// Bytes that `memory.copy`, `memory.fill` and `memory.grow` move for one unit of fuel: wasmi's own choice. One such
/// instruction cannot be interrupted; over all of [`settings::MEMORY_BYTES`](super::settings::MEMORY_BYTES) it takes
/// some milliseconds.
const BYTES_COPIED_PER_FUEL: u32 = 64;

/// Memory of an engine, its linker and an empty module, bytes.
const MODULE_BASE_BYTES: usize = 24 * 1024;
/// Memory per function beside its code, bytes.
const BYTES_PER_FUNCTION: usize = 150;
/// Memory per byte of code of a module whose functions are translated one by one, assuming that a third of them was.
const LAZY_BYTES_PER_CODE_BYTE: usize = 3;
/// Memory per byte of code of a module translated as a whole.
const EAGER_BYTES_PER_CODE_BYTE: usize = 6;

/// A module ready to make instances.
pub struct Compiled {
    engine: Engine,
    linker: Linker<Guest>,
    module: Module,
    /// What it occupies in memory, bytes, estimated.
    pub footprint: usize,
    /// What an invocation calls, in this order.
    pub entries: Vec<Entry>,
    /// Whether it is a WASI command: `_start` is all it has, the request is on stdin.
    pub command: bool,
}

/// A function of the module that an invocation calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `_initialize`: what a module without `main` runs before anything else.
    Initialize,
    /// `start`: what some older compilers call `_start`.
    PlainStart,
    /// `wapc_init`: registers the operations of a guest that was built with a waPC library.
    WapcInit,
    /// `_start`: what `main` became; may end with `proc_exit(0)`.
    Start,
    /// `__guest_call`: one operation.
    GuestCall,
}

impl Entry {
    /// All of them, in the order in which they are called.
    const ALL: [Self; 5] = [Self::Initialize, Self::PlainStart, Self::WapcInit, Self::Start, Self::GuestCall];

    /// The name it is exported under.
    pub fn name(self) -> &'static str {
        match self {
            Entry::Initialize => "_initialize",
            Entry::PlainStart => "start",
            Entry::WapcInit => "wapc_init",
            Entry::Start => "_start",
            Entry::GuestCall => "__guest_call",
        }
    }

    fn signature(self) -> FuncType {
        match self {
            Entry::GuestCall => FuncType::new([ValType::I32, ValType::I32], [ValType::I32]),
            _ => FuncType::new([], []),
        }
    }

    /// Whether a function of this name and another type is a mistake. Where it is not, the function is the module's own: the
    /// name says nothing about it.
    fn is_reserved(self) -> bool {
        !matches!(self, Entry::PlainStart | Entry::WapcInit)
    }
}

impl Compiled {
    /// Compiles `wasm` and makes one instance of it on trial.
    ///
    /// # Errors
    /// `Limit`: it exceeds a limit of `surroundings.settings`. `Denied`: it imports something outside the host ABI.
    /// `Invalid`: it is no valid module, or lacks an export.
    pub fn new(wasm: &[u8], surroundings: &Arc<Surroundings>) -> Result<Self> {
        let settings = &surroundings.settings;
        if wasm.len() > settings.module_bytes {
            return Err(Error::limit(format!(
                "the module has {} bytes, the limit is {} (WASMCLOUD_ACTOR_MODULE_BYTES)",
                wasm.len(),
                settings.module_bytes
            )));
        }
        let outline = Outline::of(wasm)?;
        outline.check(settings)?;
        weight::check(wasm)?;
        let lazy = outline.largest_function_bytes <= LAZY_FUNCTION_BYTES && outline.code_bytes <= LAZY_CODE_BYTES;
        let engine = Engine::new(&config(settings, lazy));
        let module = Module::new(&engine, wasm).map_err(|cause| refused_by_the_engine(&cause))?;
        for import in module.imports() {
            check_import(&import, settings.allow_wasi)?;
        }
        let (entries, command) = check_exports(&module, settings)?;
        let mut linker = Linker::new(&engine);
        define_imports(&mut linker, &module)
            .map_err(|cause| Error::internal(format!("cannot define the host functions: {cause}")))?;
        let footprint = footprint(wasm.len(), &outline, lazy);
        let compiled = Self { engine, linker, module, footprint, entries, command };
        compiled.try_out(surroundings)?;
        Ok(compiled)
    }

    /// Makes an instance with `fuel` for its start section.
    ///
    /// # Errors
    /// What the engine says; [`Guest::bounds`] in the store knows whether a limit was behind it.
    pub fn instantiate(&self, guest: Guest, fuel: u64) -> (Store<Guest>, Result<wasmi::Instance, wasmi::Error>) {
        let mut store = Store::new(&self.engine, guest);
        store.limiter(|guest| &mut guest.bounds);
        let instance = store.set_fuel(fuel).and_then(|()| self.linker.instantiate_and_start(&mut store, &self.module));
        store.data_mut().bounds.freeze_tables();
        (store, instance)
    }

    /// Finds at load what would otherwise fail at every call: import types, tables and segments that do not fit.
    fn try_out(&self, surroundings: &Arc<Surroundings>) -> Result<()> {
        let now = std::time::Instant::now();
        let guest = Guest::new(surroundings.clone(), now, 0, None);
        // Without fuel a start section ends before its first instruction, and everything else is done by then.
        let (store, instance) = self.instantiate(guest, 0);
        match instance {
            Ok(_) => Ok(()),
            Err(cause) if cause.as_trap_code() == Some(TrapCode::OutOfFuel) => Ok(()),
            Err(cause) => Err(match store.data().bounds.refusal() {
                Some(refusal) => Error::limit(format!("the module cannot be instantiated: {refusal}")),
                None => Error::invalid(format!("the module cannot be instantiated: {cause}")),
            }),
        }
    }
}

/// How the engine reads and runs modules: what the compilers of actors emit, no more.
fn config(settings: &Settings, lazy: bool) -> Config {
    let mut config = Config::default();
    config
        .compilation_mode(if lazy { CompilationMode::LazyTranslation } else { CompilationMode::Eager })
        .consume_fuel(true)
        // Translation is not charged: wasmi cannot resume a call that runs out of fuel there.
        .fuel_cost(CustomFuelCosts {
            bytes_copied_per_fuel: BYTES_COPIED_PER_FUEL,
            fuel_per_bytes_translated: 0,
            fuel_per_bytes_validated: 0,
        })
        .ignore_custom_sections(true)
        .wasm_multi_memory(false)
        .wasm_tail_call(false)
        .set_max_recursion_depth(settings.stack_depth)
        .set_max_stack_height(settings.stack_bytes.max(STACK_START_BYTES))
        .set_min_stack_height(STACK_START_BYTES)
        // A stack is never reused: it would keep what a deep call made of it, and an instance would inherit it.
        .set_max_cached_stacks(0);
    config
}

/// What a module occupies once compiled, bytes. `tests/bench/invoke.rs` compares it with what the allocator handed out:
/// for a Rust actor of 180 KB 206 KiB when it is loaded, 437 KiB after a call has translated what it needs, against 524
/// KiB estimated. It errs on the large side, as later calls may meet more functions.
fn footprint(module_bytes: usize, outline: &Outline, lazy: bool) -> usize {
    let functions = usize::try_from(outline.functions).unwrap_or(usize::MAX);
    let code =
        outline.code_bytes.saturating_mul(if lazy { LAZY_BYTES_PER_CODE_BYTE } else { EAGER_BYTES_PER_CODE_BYTE });
    MODULE_BASE_BYTES
        .saturating_add(module_bytes.saturating_sub(outline.code_bytes))
        .saturating_add(code)
        .saturating_add(functions.saturating_mul(BYTES_PER_FUNCTION))
}

fn refused_by_the_engine(cause: &wasmi::Error) -> Error {
    match cause.kind() {
        // A translation fails only where a function has more of something than the interpreter's code can name.
        ErrorKind::ImplementationLimits(_) | ErrorKind::UserLimits(_) | ErrorKind::Translation(_) => {
            Error::limit(format!("the module is refused: {cause}"))
        }
        _ => Error::invalid(format!("not a valid WebAssembly module: {cause}")),
    }
}

/// Offers a module what it may import, from those names alone that it imports something from: each definition costs memory
/// in every compiled module.
fn define_imports(linker: &mut Linker<Guest>, module: &Module) -> Result<(), wasmi::Error> {
    let imports = |name: &str| module.imports().any(|import| import.module() == name);
    for name in abi::MODULES.into_iter().filter(|name| imports(name)) {
        abi::define(linker, name)?;
    }
    for name in wasi::MODULES.into_iter().filter(|name| imports(name)) {
        wasi::define(linker, name)?;
    }
    if imports(assembly_script::MODULE) {
        assembly_script::define(linker)?;
    }
    Ok(())
}

/// Only what this host offers may be imported.
fn check_import(import: &ImportType<'_>, allow_wasi: bool) -> Result<()> {
    let (module, name) = (import.module(), import.name());
    if abi::MODULES.contains(&module) {
        if abi::FUNCTIONS.contains(&name) {
            return Ok(());
        }
        return Err(Error::denied(format!(
            "imports {module}::{name}, which is not one of the nine functions of the host ABI"
        )));
    }
    if (module, name) == (assembly_script::MODULE, assembly_script::FUNCTION) {
        return Ok(());
    }
    if wasi::MODULES.contains(&module) {
        if !wasi::offers(name) {
            return Err(Error::denied(format!("imports {module}::{name}, which is no function of WASI preview 1")));
        }
        if allow_wasi {
            return Ok(());
        }
        return Err(Error::denied(format!(
            "imports {module}::{name}, and WASMCLOUD_ALLOW_WASI=off offers no WASI; set WASMCLOUD_ALLOW_WASI=inert to \
             offer it with a clock, random numbers, output to the log and nothing else, or build the actor for \
             wasm32-unknown-unknown"
        )));
    }
    Err(Error::denied(format!(
        "imports {module}::{name}, which this host does not offer; actors may import the functions of `wasmbus` (the \
         older name `wapc` means the same), the inert part of WASI preview 1, and `env::abort`"
    )))
}

/// Finds what an invocation will call, and that the memory exists and fits.
fn check_exports(module: &Module, settings: &Settings) -> Result<(Vec<Entry>, bool)> {
    let mut entries = Vec::new();
    for entry in Entry::ALL {
        match module.get_export(entry.name()) {
            None => {}
            Some(ExternType::Func(found)) if found == entry.signature() => entries.push(entry),
            Some(_) if !entry.is_reserved() => {}
            Some(_) => {
                return Err(Error::invalid(format!("exports {} with another type than the host ABI's", entry.name())));
            }
        }
    }
    if entries.contains(&Entry::Start) {
        entries.retain(|entry| *entry != Entry::Initialize);
    }
    let command = !entries.contains(&Entry::GuestCall);
    if command && !entries.contains(&Entry::Start) {
        return Err(Error::invalid("exports neither __guest_call nor _start, so there is nothing to call"));
    }
    match module.get_export("memory") {
        Some(ExternType::Memory(memory)) => {
            let bytes = memory.minimum().saturating_mul(PAGE_BYTES);
            if usize::try_from(bytes).is_ok_and(|bytes| bytes <= settings.memory_bytes) {
                return Ok((entries, command));
            }
            Err(Error::limit(format!(
                "starts with {bytes} bytes of memory, the limit is {} (WASMCLOUD_ACTOR_MEMORY_BYTES)",
                settings.memory_bytes
            )))
        }
        _ => Err(Error::invalid("exports no memory named `memory`, which the host ABI needs")),
    }
}
