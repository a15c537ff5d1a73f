//! Invocations straight through the router of a whole host in this process: no socket, no HTTP.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Write,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use latticed::{
    actor::{self, Engine},
    artifact,
    claims::{KeyPair, Role},
    error::Result as HostResult,
    host::{
        Application, BoxFuture, Builtin, Builtins, Call, Capability, Host, Invoke, Parts, Rules, Settings,
        application::ActorComponent,
    },
    service::clock::SystemClock,
    store::{self, RealDisk, Store},
    task,
    wire::{
        Entity, LinkDefinition, codec,
        interface::{HTTP_SERVER, HttpRequest, NUMBERGEN},
    },
};

use crate::{
    Effort,
    support::{guests, process},
    table::{Goal, Table, median},
};

/// Host calls of the guest that does nothing else.
const HOST_CALLS: u32 = 1000;

/// Longest an invocation may take here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measures.
pub fn measure(effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let subjects = [("echo", guests::module_path("echo")), ("echo_small", guests::module_path("echo_small"))];
    let calling =
        [("no_calls", 0), ("calls", HOST_CALLS)].map(|(name, calls)| (name, caller(folder.path(), name, calls)));
    let mut components = Vec::new();
    for (name, path) in &subjects {
        components.push(component(name, path));
    }
    for (name, path) in calling {
        components.push(component(name, &path?));
    }

    with(folder.path(), components, async |host| measure_in(host, effort, table).await)
}

/// A host that runs `actors`, for as long as `work` takes.
fn with<T>(
    folder: &Path,
    actors: Vec<ActorComponent>,
    work: impl AsyncFnOnce(&Host) -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let host = host(&folder.join("state"))?;
    task::block_on(async {
        let running = {
            let host = host.clone();
            task::spawn(async move { host.run().await })
        };
        host.apply(Application { name: "bench".into(), actors, ..Application::default() }).await?;
        let problems = host.settle().await;
        if !problems.is_empty() {
            return Err(problems.join("; ").into());
        }
        let outcome = work(&host).await;
        host.request_stop();
        running.await;
        outcome
    })
}

/// What the 180 KB echo takes for `payload` without any network, µs of processor time.
pub fn echo_cpu(effort: Effort, payload: &[u8]) -> Result<f64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let echo = component("echo", &guests::module_path("echo"));
    with(folder.path(), vec![echo], async |host| {
        let key = guests::key("echo");
        let mut rounds = Vec::new();
        for _ in 0..effort.rounds {
            let before = process::cpu(std::process::id())?;
            for _ in 0..effort.invocations {
                invoke(host, &key, payload.to_vec()).await?;
            }
            let cpu = process::cpu(std::process::id())? - before;
            rounds.push(cpu.as_secs_f64() * 1e6 / f64::from(effort.invocations));
        }
        Ok(median(&mut rounds))
    })
}

async fn measure_in(host: &Host, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let request = codec::encode(&HttpRequest { method: "GET".into(), path: "/".into(), ..HttpRequest::default() })?;
    let mut rounds: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..effort.rounds {
        for (name, share) in [("echo", 1), ("echo_small", 1), ("no_calls", 1), ("calls", 20)] {
            // Computed outside of what is measured: it costs a signature's worth of arithmetic.
            let key = guests::key(name);
            let invocations = effort.invocations / share;
            let before = process::cpu(std::process::id())?;
            for _ in 0..invocations {
                invoke(host, &key, request.clone()).await?;
            }
            let cpu = process::cpu(std::process::id())? - before;
            rounds.entry(name).or_default().push(cpu.as_secs_f64() * 1e6 / f64::from(invocations));
        }
    }
    let mut of = |name| rounds.get_mut(name).map_or(f64::NAN, |values| median(values));
    let (nothing, calls) = (of("no_calls"), of("calls"));
    table.add("CPU of an invocation, 180 KB echo, through the router", of("echo"), "µs", Goal::AtMost(100.0));
    table.add("CPU of an invocation, one-page echo, through the router", of("echo_small"), "µs", Goal::None);
    table.add("CPU of an invocation, a guest that returns at once", nothing, "µs", Goal::None);
    table.add("CPU of a call from guest to host and back", (calls - nothing) / f64::from(HOST_CALLS), "µs", Goal::None);
    Ok(())
}

async fn invoke(host: &Host, key: &str, payload: Vec<u8>) -> HostResult<Vec<u8>> {
    let call = Call {
        origin: Entity::provider("", HTTP_SERVER, "default"),
        target: Entity::actor(key),
        operation: "HttpServer.HandleRequest".into(),
        payload,
        deadline: Instant::now() + PATIENCE,
        depth: 0,
        trace: None,
    };
    host.router().invoke(call).await
}

fn component(name: &str, path: &Path) -> ActorComponent {
    ActorComponent {
        name: name.into(),
        reference: format!("file://{}", path.display()),
        max_concurrent: 1,
        issuers: Vec::new(),
        links: Vec::new(),
    }
}

/// Writes a guest that makes `calls` host calls and returns, and says where.
fn caller(folder: &Path, name: &str, calls: u32) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let mut body = String::new();
    if calls > 0 {
        write!(
            body,
            "(local.set $left (i32.const {calls}))
             (loop $again
               (drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const {}) (i32.const 64) (i32.const 18)
                                 (i32.const 0) (i32.const 0)))
               (call $answer (i32.const 1024))
               (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))",
            NUMBERGEN.len()
        )?;
    }
    let source = format!(
        r#"(module
             (import "wasmbus" "__host_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
             (import "wasmbus" "__host_response" (func $answer (param i32)))
             (memory (export "memory") 1)
             (data (i32.const 0) "{NUMBERGEN}") (data (i32.const 64) "NumberGen.Random32")
             (func (export "__guest_call") (param i32 i32) (result i32) (local $left i32) {body} (i32.const 1)))"#
    );
    let path = folder.join(name).with_extension("wasm");
    fs::write(&path, guests::sign(name, &[HTTP_SERVER, NUMBERGEN], &wat::parse_str(source)?)?)?;
    Ok(path)
}

/// Stands for any capability: answers at once, so that only the road is measured.
struct AtOnce;

impl Capability for AtOnce {
    fn contract_id(&self) -> &str {
        NUMBERGEN
    }
    fn link(&self, _link: Arc<LinkDefinition>) -> BoxFuture<'_, HostResult<()>> {
        Box::pin(async { Ok(()) })
    }
    fn unlink(&self, _link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
    fn call(&self, _link: Arc<LinkDefinition>, _call: Call) -> BoxFuture<'_, HostResult<Vec<u8>>> {
        Box::pin(async { Ok(vec![0xce, 0, 0, 0, 7]) })
    }
    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

fn host(state: &Path) -> Result<Arc<Host>, Box<dyn Error>> {
    let (store, _damage) = Store::open(store::Settings::default(), Arc::new(RealDisk::new(state)))?;
    let mut builtins = Builtins::default();
    builtins.register(Builtin {
        name: "numbergen",
        contract_id: NUMBERGEN,
        start: Box::new(|_context| Ok(Arc::new(AtOnce))),
    });
    let settings = Settings {
        lattice: "default".into(),
        friendly_name: "bench".into(),
        labels: BTreeMap::new(),
        drain: PATIENCE,
        rules: Rules::default(),
        artifacts: artifact::Settings::default(),
    };
    let parts = Parts {
        key: KeyPair::generate(Role::Server)?,
        store,
        engine: Engine::new(actor::Settings::default())?,
        builtins,
        intrinsics: &["numbergen"],
        events: Vec::new(),
        clock: Box::new(SystemClock),
    };
    Ok(Host::new(settings, parts)?)
}
