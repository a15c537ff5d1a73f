//! One module: who it is, what it imports, whether this host would run it.

use std::{path::Path, pin::Pin, sync::Arc};

use serde::Serialize;

use crate::{
    actor::{self, Engine, HostCall, ModuleSource, Outcalls},
    claims::{Now, Policy, SignedModule, verify_actor},
    cli::{Output, table::printable},
    config::{Config, value::show_bytes},
    error::{Error, Result},
    task,
};

/// A page of a guest's memory.
const WASM_PAGE_BYTES: u64 = 64 * 1024;

/// What is said of a module that would run.
#[derive(Serialize)]
struct Shown {
    subject: String,
    issuer: String,
    name: String,
    version: String,
    revision: i32,
    call_alias: Option<String>,
    capabilities: Vec<String>,
    bytes: usize,
    /// Estimated memory of the compiled module.
    compiled_bytes: usize,
    imports: Vec<String>,
    memory_bytes: Option<u64>,
    memory_limit_bytes: usize,
    warnings: Vec<String>,
}

/// A module that passed.
pub(super) struct Checked {
    /// Its claims.
    pub claims: SignedModule,
    /// Estimated memory of the compiled module.
    pub compiled_bytes: usize,
}

/// Shows the module `bytes` of the file `path`.
pub(super) fn check(path: &Path, bytes: Vec<u8>, config: &Config, output: &mut Output) -> Result<()> {
    let of_file = |error: Error| error.context(path.display());
    let size = bytes.len();
    // Imports first: they are what one wants to see of a module that is refused for one of them.
    let (imports, memory_bytes) = interface(&bytes).map_err(of_file)?;
    let Checked { claims, compiled_bytes } = verdict(bytes, config).map_err(of_file)?;
    let mut warnings = super::carried(config, output);
    if !claims.hash_matches {
        warnings.push("its claims are older than revision 3 and do not vouch for these bytes".to_owned());
    }
    let shown = Shown {
        subject: claims.subject,
        issuer: claims.issuer,
        name: claims.name,
        version: claims.version,
        revision: claims.revision,
        call_alias: claims.call_alias,
        capabilities: claims.caps,
        bytes: size,
        compiled_bytes,
        imports,
        memory_bytes,
        memory_limit_bytes: config.actor.memory_bytes,
        warnings,
    };
    if output.json() {
        return output.document(&shown);
    }
    super::warn(&shown.warnings);
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { printable(&text) };
    for (what, text) in [
        ("Actor", format!("{} {}", shown.subject, shown.name)),
        ("Issuer", shown.issuer),
        ("Version", format!("{} (revision {})", or_none(shown.version), shown.revision)),
        ("Call alias", shown.call_alias.unwrap_or_default()),
        ("Capabilities", shown.capabilities.join(", ")),
        ("Imports", shown.imports.join(", ")),
        ("Size", format!("{} bytes, about {} once compiled", shown.bytes, shown.compiled_bytes)),
        ("Memory", {
            let start = shown.memory_bytes.map_or_else(|| "none".into(), show_bytes);
            format!("starts with {start}, may grow to {}", show_bytes(shown.memory_limit_bytes as u64))
        }),
    ] {
        output.line(format_args!("{what:<14}{}", or_none(text)))?;
    }
    output.line("this host would run it")
}

/// Verifies and compiles `bytes` under the limits of `config`, as a start would.
///
/// # Errors
/// Those of a start.
pub(super) fn verdict(bytes: Vec<u8>, config: &Config) -> Result<Checked> {
    let policy = Policy { issuers: config.allowed_issuers.clone(), ..Policy::new(Now::from_system(0)) };
    let claims = verify_actor(&bytes, &policy)?;
    // A cache that keeps it, so that its size can be told.
    let engine = Engine::new(actor::Settings { module_cache_bytes: usize::MAX, ..config.actor.clone() })?;
    let module = Arc::new(Bytes(bytes));
    let actor = task::block_on(engine.load(&claims.subject, &claims.name, module, Arc::new(Nobody)))?;
    let compiled_bytes = engine.module_cache_bytes();
    drop(actor);
    Ok(Checked { claims, compiled_bytes })
}

/// The imports of a module, `module.name` each, and the bytes its memory starts with.
fn interface(bytes: &[u8]) -> Result<(Vec<String>, Option<u64>)> {
    let module = wasmi::Module::new(&wasmi::Engine::default(), bytes)
        .map_err(|cause| Error::invalid(format!("not a valid WebAssembly module: {cause}")))?;
    let imports = module.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect();
    let memory = module.exports().find_map(|export| {
        let memory = export.ty().memory()?;
        memory.minimum().checked_mul(WASM_PAGE_BYTES)
    });
    Ok((imports, memory))
}

/// The module that is being checked.
struct Bytes(Vec<u8>);

impl ModuleSource for Bytes {
    fn read(&self) -> Result<Vec<u8>> {
        Ok(self.0.clone())
    }
}

/// A module on trial may run its start section and reaches nothing from there.
struct Nobody;

impl Outcalls for Nobody {
    fn host_call(
        &self,
        _: &str,
        _: HostCall,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'static>> {
        Box::pin(async { Err("a module that is only checked reaches nothing".to_owned()) })
    }

    fn console(&self, _: &str, _: &str) {}
}
