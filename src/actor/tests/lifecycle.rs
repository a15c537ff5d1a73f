//! Loading, the cache of compiled modules, stopping.

use smol::{channel, future};

use super::*;
use crate::{
    actor::slot::Slot,
    error::{Error, Kind},
};

/// A guest that waits for the answer to one host call.
fn waiter() -> Vec<u8> {
    guest(
        "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0))) (i32.const 1)",
    )
}

fn blocked() -> (Arc<Table>, channel::Sender<()>) {
    let (sender, receiver) = channel::unbounded::<()>();
    let table = Table::new(move |_| {
        let receiver = receiver.clone();
        Box::pin(async move { receiver.recv().await.map(|()| Vec::new()).map_err(|_| "closed".to_string()) })
    });
    (table, sender)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        future::yield_now().await;
    }
}

/// How many wait for the compilation that is under way.
fn waiters(actor: &Actor) -> usize {
    match &*actor.0.slot.lock() {
        // The slot and the compilation hold the flight, too.
        Slot::Compiling(flight) => Arc::strong_count(flight) - 2,
        _ => 0,
    }
}

#[test]
fn an_idle_module_beyond_the_budget_is_compiled_again_once_for_all_callers() {
    let engine = engine(|settings| settings.module_cache_bytes = 0);
    let source = source(echo());
    task::block_on(async {
        let actor = engine.load("MTEST", "test", source.clone(), Table::silent()).await.unwrap();
        assert!(!actor.counts().compiled, "nothing fits into a budget of 0");
        assert_eq!(engine.module_cache_bytes(), 0);
        assert_eq!(source.reads.load(Ordering::Relaxed), 1);
        let held = source.hold.lock().await;
        let tasks: Vec<_> = (0..8u8).map(|number| task::spawn(actor.invoke("Op", vec![number], context()))).collect();
        until(|| waiters(&actor) == 8).await;
        drop(held);
        for (number, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await, Ok(vec![number as u8]));
        }
        assert_eq!(source.reads.load(Ordering::Relaxed), 2, "eight callers woke it once");
        until(|| !actor.counts().compiled).await;
        assert_eq!(engine.module_cache_bytes(), 0);
    });
}

#[test]
fn the_least_recently_used_modules_go_first_and_none_in_use() {
    let one = {
        let engine = engine(|_| ());
        let actor = task::block_on(load(&engine, echo())).unwrap();
        let bytes = engine.module_cache_bytes();
        assert!(actor.counts().compiled && bytes > 0);
        bytes
    };
    let engine = engine(|settings| settings.module_cache_bytes = 2 * one + one / 2);
    let (table, answers) = blocked();
    task::block_on(async {
        let busy = load_with(&engine, waiter(), table).await.unwrap();
        let waiting = task::spawn(busy.invoke("Op", Vec::new(), context()));
        until(|| busy.counts().running == 1).await;
        let (old, new) = (load(&engine, echo()).await.unwrap(), load(&engine, echo()).await.unwrap());
        let compiled = || [&busy, &old, &new].map(|actor| actor.counts().compiled);
        assert_eq!(compiled(), [true, false, true], "the one in use stays, whatever its age");
        invoke(&old, b"").await.unwrap();
        assert_eq!(compiled(), [true, true, false]);
        answers.send(()).await.unwrap();
        waiting.await.unwrap();
        invoke(&new, b"").await.unwrap();
        assert_eq!(compiled(), [false, true, true]);
        drop((busy, old, new));
        // Actors that are gone take their modules along, once the last task that knew them is gone, too.
        until(|| engine.module_cache_bytes() == 0).await;
    });
}

#[test]
fn callers_that_go_away_do_not_stop_a_compilation() {
    let engine = engine(|settings| settings.module_cache_bytes = 0);
    let source = source(echo());
    task::block_on(async {
        let actor = engine.load("MTEST", "test", source.clone(), Table::silent()).await.unwrap();
        let held = source.hold.lock().await;
        let mut call = Box::pin(actor.invoke("Op", Vec::new(), context()));
        assert!(future::poll_once(&mut call).await.is_none());
        let second = task::spawn(actor.invoke("Op", b"second".to_vec(), context()));
        until(|| waiters(&actor) == 2).await;
        drop(call);
        until(|| waiters(&actor) == 1).await;
        drop(held);
        assert_eq!(second.await, Ok(b"second".to_vec()));
        assert_eq!(source.reads.load(Ordering::Relaxed), 2);
    });
}

/// A source that fails when told to.
struct Fickle {
    wasm: Vec<u8>,
    broken: Mutex<bool>,
}

impl ModuleSource for Fickle {
    fn read(&self) -> Result<Vec<u8>> {
        if *self.broken.lock().unwrap() {
            return Err(Error::storage("the card is gone"));
        }
        Ok(self.wasm.clone())
    }
}

#[test]
fn a_source_that_fails_fails_its_callers_and_may_recover() {
    let engine = engine(|settings| settings.module_cache_bytes = 0);
    let source = Arc::new(Fickle { wasm: echo(), broken: Mutex::new(false) });
    task::block_on(async {
        let actor = engine.load("MTEST", "test", source.clone(), Table::silent()).await.unwrap();
        *source.broken.lock().unwrap() = true;
        let error = invoke(&actor, b"").await.unwrap_err();
        assert_eq!((error.kind(), error.text()), (Kind::Storage, "actor test: the card is gone"));
        assert!(matches!(*actor.0.slot.lock(), Slot::Cold));
        *source.broken.lock().unwrap() = false;
        assert_eq!(invoke(&actor, b"back").await, Ok(b"back".to_vec()));
    });
}

#[test]
fn a_stopping_actor_refuses_new_calls_and_lets_the_others_finish() {
    let engine = engine(|settings| settings.max_concurrent = 1);
    let (table, answers) = blocked();
    task::block_on(async {
        let actor = load_with(&engine, waiter(), table).await.unwrap();
        let running = task::spawn(actor.invoke("Op", Vec::new(), context()));
        until(|| actor.counts().running == 1).await;
        let queued = task::spawn(actor.invoke("Op", Vec::new(), context()));
        until(|| actor.counts().queued == 1).await;
        let stop = task::spawn({
            let actor = actor.clone();
            async move { actor.stop(Duration::from_secs(60)).await }
        });
        until(|| actor.0.is_stopping()).await;
        let refused = invoke(&actor, b"").await.unwrap_err();
        assert_eq!((refused.kind(), refused.text()), (Kind::Unavailable, "actor test is stopping"));
        answers.send(()).await.unwrap();
        answers.send(()).await.unwrap();
        assert_eq!(running.await, Ok(Vec::new()));
        assert_eq!(queued.await, Ok(Vec::new()));
        assert_eq!(stop.await, 0);
        assert!(!actor.counts().compiled);
        assert_eq!(actor.stop(Duration::ZERO).await, 0, "stopping twice does no harm");
    });
}

#[test]
fn what_outlasts_the_grace_is_cut_off() {
    let engine = engine(|settings| {
        settings.max_concurrent = 2;
        settings.fuel = u64::MAX;
    });
    let (table, _never) = blocked();
    task::block_on(async {
        let waiter = load_with(&engine, waiter(), table).await.unwrap();
        let spinner = load(&engine, guest("(loop $again (br $again)) (i32.const 1)")).await.unwrap();
        let calls: Vec<_> = (0..3).map(|_| task::spawn(waiter.invoke("Op", Vec::new(), context()))).collect();
        let spinning = task::spawn(spinner.invoke("Op", Vec::new(), context()));
        until(|| waiter.counts().running == 2 && waiter.counts().queued == 1 && spinner.counts().running == 1).await;
        assert_eq!(waiter.stop(Duration::from_millis(1)).await, 3);
        assert_eq!(spinner.stop(Duration::from_millis(1)).await, 1);
        for call in calls.into_iter().chain([spinning]) {
            let error = call.await.unwrap_err();
            assert_eq!((error.kind(), error.text()), (Kind::Unavailable, "actor test was stopped before it answered"));
        }
        assert_eq!((waiter.counts().running, waiter.counts().queued, waiter.counts().errors), (0, 0, 3));
    });
}

#[test]
fn every_invocation_has_memory_globals_and_tables_of_its_own() {
    // Answers what it finds, then overwrites everything it can reach.
    let nosy = module(&format!(
        "{PRELUDE} (global $g (mut i32) (i32.const 1)) (table $t 2 funcref) (func $f) (elem declare func $f)
        (data $d \"seed\")
        (func (export \"__guest_call\") (param i32 i32) (result i32)
            (i32.store (i32.const 0) (global.get $g))
            (i32.store (i32.const 4) (memory.size))
            (i32.store (i32.const 8) (ref.is_null (table.get $t (i32.const 1))))
            (memory.init $d (i32.const 12) (i32.const 0) (i32.const 4))
            (call $response (i32.const 0) (i32.const 65536))
            (data.drop $d)
            (global.set $g (i32.const 9))
            (table.set $t (i32.const 1) (ref.func $f))
            (drop (memory.grow (i32.const 3)))
            (memory.fill (i32.const 0) (i32.const 255) (i32.const 262144))
            (i32.const 1))"
    ));
    let engine = engine(|_| ());
    task::block_on(async {
        let actor = load(&engine, nosy).await.unwrap();
        let mut fresh = vec![1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b's', b'e', b'e', b'd'];
        fresh.resize(65536, 0);
        for _ in 0..20 {
            assert!(invoke(&actor, b"").await.unwrap() == fresh, "something of another invocation shows");
        }
    });
}

#[test]
fn modules_with_large_functions_run_as_others_do() {
    // 50 KB in one function, above what is translated while others wait for the thread.
    let large = guest(&format!(
        "{} (i32.store (i32.const 0) (local.get $op)) (call $response (i32.const 0) (i32.const 4)) (i32.const 1)",
        "(local.set $op (i32.add (local.get $op) (i32.const 1)))".repeat(8_000)
    ));
    assert!(large.len() > 50_000);
    assert_eq!(once(large, |_| ()), Ok(8_002u32.to_le_bytes().to_vec()));
}

#[test]
fn a_limit_beyond_all_time_is_no_limit() {
    assert_eq!(once(echo(), |settings| settings.deadline = Duration::MAX), Ok(b"payload".to_vec()));
}

#[test]
fn settings_that_let_nothing_run_are_refused() {
    for (change, name) in [
        ((|settings| settings.fuel = 0) as fn(&mut Settings), "WASMCLOUD_ACTOR_FUEL"),
        (|settings| settings.slice_fuel = 0, "WASMCLOUD_SLICE_FUEL"),
        (|settings| settings.nesting = 0, "WASMCLOUD_ACTOR_NESTING"),
        (|settings| settings.max_running = 0, "WASMCLOUD_MAX_RUNNING"),
        (|settings| settings.deadline = Duration::ZERO, "WASMCLOUD_ACTOR_DEADLINE_MS"),
    ] {
        let mut settings = Settings::default();
        change(&mut settings);
        let error = Engine::new(settings).err().unwrap();
        assert_eq!(
            (error.kind(), error.text()),
            (Kind::Config, format!("{name} is 0, so no actor could ever run").as_str())
        );
    }
}
