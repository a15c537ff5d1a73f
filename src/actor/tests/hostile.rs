//! Guests that mean harm: each ends in its own clear error, none takes the host with it.

use proptest::prelude::*;

use super::*;
use crate::error::{Error, Kind};

fn refused(outcome: Result<Vec<u8>>, kind: Kind, text: &str) {
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.text()), (kind, text));
}

/// What a guest that runs `body` answers.
fn outcome(body: &str) -> Result<Vec<u8>> {
    once(guest(body), |_| ())
}

#[test]
fn an_endless_loop_uses_up_its_fuel() {
    refused(
        once(guest("(loop $again (br $again)) (i32.const 1)"), |settings| settings.fuel = 1_000_000),
        Kind::Limit,
        "actor test used up its 1000000 units of fuel (WASMCLOUD_ACTOR_FUEL)",
    );
}

#[test]
fn an_endless_loop_meets_its_own_deadline_or_its_callers() {
    let wasm = guest("(loop $again (br $again)) (i32.const 1)");
    refused(
        once(wasm.clone(), |settings| {
            settings.fuel = u64::MAX;
            settings.deadline = Duration::from_millis(30);
        }),
        Kind::Timeout,
        "actor test did not answer within 30 ms (WASMCLOUD_ACTOR_DEADLINE_MS)",
    );
    let engine = engine(|settings| settings.fuel = u64::MAX);
    let outcome = task::block_on(async {
        let deadline = Instant::now() + Duration::from_millis(30);
        load(&engine, wasm).await?.invoke("Op", Vec::new(), Context { deadline, depth: 0 }).await
    });
    refused(outcome, Kind::Timeout, "actor test did not answer before its caller's deadline");
}

#[test]
fn memory_growth_ends_at_the_limit() {
    // A guest that does not check what `memory.grow` answers, as allocators of real guests trap.
    let hog = guest("(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) (unreachable)");
    refused(
        once(hog, |_| ()),
        Kind::Limit,
        "wasm `unreachable` instruction executed (it asked for 16842752 bytes of memory, the limit is 16777216 \
         (WASMCLOUD_ACTOR_MEMORY_BYTES))",
    );
    // One that does check lives on.
    let polite =
        guest("(drop (memory.grow (i32.const 60000))) (call $response (i32.const 0) (i32.const 3)) (i32.const 1)");
    assert_eq!(once(polite, |_| ()), Ok(vec![0; 3]));
}

#[test]
fn a_module_that_starts_above_the_memory_limit_is_refused_at_load() {
    let wasm = module(r#"(memory (export "memory") 300) (func (export "_start"))"#);
    refused(
        once(wasm, |_| ()),
        Kind::Limit,
        "actor test: starts with 19660800 bytes of memory, the limit is 16777216 (WASMCLOUD_ACTOR_MEMORY_BYTES)",
    );
}

#[test]
fn a_stack_bomb_meets_the_stack_limit() {
    let bomb = module(&format!(
        "{PRELUDE} (func $deeper (param i64 i64 i64) (result i64)
            (i64.add (call $deeper (local.get 0) (local.get 1) (local.get 2)) (local.get 0)))
        (func (export \"__guest_call\") (param i32 i32) (result i32)
            (i32.wrap_i64 (call $deeper (i64.const 1) (i64.const 2) (i64.const 3))))"
    ));
    let text = "actor test nested its calls deeper than 1000 (WASMCLOUD_ACTOR_STACK_DEPTH) or put more than 524288 \
                bytes on its stack";
    refused(once(bomb, |_| ()), Kind::Limit, text);
    // Few frames, but thousands of locals in each.
    let wide = module(&format!(
        "{PRELUDE} (func $wide (result i64) (local {}) (call $wide))
        (func (export \"__guest_call\") (param i32 i32) (result i32) (i32.wrap_i64 (call $wide)))",
        "i64 ".repeat(5000)
    ));
    refused(once(wide, |_| ()), Kind::Limit, text);
}

#[test]
fn traps_read_as_the_engine_says_them() {
    refused(outcome("(unreachable)"), Kind::Guest, "wasm `unreachable` instruction executed");
    refused(outcome("(i32.div_u (i32.const 1) (i32.const 0))"), Kind::Guest, "integer divide by zero");
    refused(outcome("(i32.load (i32.const 65536))"), Kind::Guest, "out of bounds memory access");
}

#[test]
fn what_a_guest_answers_is_no_trap_though_it_reads_like_one() {
    for body in ["(unreachable)", "(i32.div_u (i32.const 1) (i32.const 0))", "(i32.load (i32.const 65536))"] {
        assert!(outcome(body).unwrap_err().is_trap(), "{body}");
    }
    let posing = module(&format!(
        "{PRELUDE} (data (i32.const 0) \"integer divide by zero\")
        (func (export \"__guest_call\") (param i32 i32) (result i32)
            (call $error (i32.const 0) (i32.const 22)) (i32.const 0))"
    ));
    let error = once(posing, |_| ()).unwrap_err();
    assert_eq!((error.kind(), error.text()), (Kind::Guest, "integer divide by zero"));
    assert!(!error.is_trap());
}

#[test]
fn wrong_pointers_and_lengths_in_each_host_function() {
    for (body, text) in [
        ("(call $request (i32.const 65535) (i32.const 0))", "__guest_request: the operation at 65535, 2 bytes long"),
        ("(call $request (i32.const 0) (i32.const -1))", "__guest_request: the payload at 4294967295, 7 bytes long"),
        ("(call $response (i32.const 65530) (i32.const 7))", "__guest_response: the response at 65530, 7 bytes long"),
        ("(call $response (i32.const 0) (i32.const -1))", "__guest_response: the response has 4294967295 bytes"),
        ("(call $error (i32.const -1) (i32.const 1))", "__guest_error: the error text at 4294967295, 1 bytes long"),
        ("(call $error (i32.const 0) (i32.const -1))", "__guest_error: the error text at 0, 4294967295 bytes long"),
        (
            "(drop (call $call (i32.const 65536) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0)))",
            "__host_call: the binding at 65536, 1 bytes long",
        ),
        (
            "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 65000) (i32.const 999) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0)))",
            "__host_call: the namespace at 65000, 999 bytes long",
        ),
        (
            "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1025)
                (i32.const 0) (i32.const 0)))",
            "__host_call: the operation has 1025 bytes, the limit is 1024",
        ),
        (
            "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 1) (i32.const 65536)))",
            "__host_call: the payload at 1, 65536 bytes long",
        ),
        (
            "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 4194305)))",
            "__host_call: the payload has 4194305 bytes, the limit is 4194304 (WASMCLOUD_ACTOR_PAYLOAD_BYTES)",
        ),
        (
            "(i32.store8 (i32.const 0) (i32.const 255))
            (drop (call $call (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0)))",
            "__host_call: the binding is not UTF-8",
        ),
        ("(call $log (i32.const 65536) (i32.const 1))", "__console_log: the text at 65536, 1 bytes long"),
        ("(call $log (i32.const 1) (i32.const -1))", "__console_log: the text at 1, 4294967295 bytes long"),
        (
            "(drop (call $call (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0)
                (i32.const 1) (i32.const 0))) (call $host_error (i32.const 65535))",
            "__host_error: the error text at 65535, 15 bytes long",
        ),
        (
            "(call $request (i32.const 0) (i32.const 9)) (call $request (i32.const 0) (i32.const 9))",
            "__guest_request: the request was taken already",
        ),
    ] {
        let error = outcome(&format!("{body} (i32.const 1)")).unwrap_err();
        assert_eq!(error.kind(), Kind::Guest, "{body}");
        assert!(error.text().starts_with(text), "{body}: {error}");
    }
    let answered = once_with(
        "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0))) (call $answer (i32.const 65533)) (i32.const 1)",
        Table::fixed(Ok(b"four".to_vec())),
    );
    let text = answered.unwrap_err();
    assert!(text.text().starts_with("__host_response: the answer at 65533, 4 bytes long"), "{text}");
}

fn once_with(body: &str, table: Arc<Table>) -> Result<Vec<u8>> {
    let engine = engine(|_| ());
    task::block_on(async { invoke(&load_with(&engine, guest(body), table).await?, b"payload").await })
}

#[test]
fn empty_buffers_may_point_anywhere() {
    let body = "(call $response (i32.const -1) (i32.const 0)) (call $error (i32.const -7) (i32.const 0))
        (call $log (i32.const -1) (i32.const 0)) (call $answer (i32.const -1)) (call $host_error (i32.const -1))
        (drop (call $call (i32.const -1) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const -1) (i32.const 0)
            (i32.const -1) (i32.const 0)))
        (call $answer (i32.const -1)) (i32.const 1)";
    // An empty error text is an error all the same: it was set.
    refused(once_with(body, Table::fixed(Ok(Vec::new()))), Kind::Guest, "");
    let without_error = body.replace("(call $error (i32.const -7) (i32.const 0))", "");
    assert_eq!(once_with(&without_error, Table::fixed(Ok(Vec::new()))), Ok(Vec::new()));
}

#[test]
fn a_response_flood_costs_fuel_and_keeps_only_the_last_response() {
    let flood = guest("(loop $again (call $response (i32.const 0) (i32.const 65536)) (br $again)) (i32.const 1)");
    let engine = engine(|settings| settings.fuel = 10_000_000);
    let (outcome, counts) = task::block_on(async {
        let actor = load(&engine, flood).await.unwrap();
        (invoke(&actor, b"").await, actor.counts())
    });
    assert_eq!(outcome.unwrap_err().kind(), Kind::Limit);
    assert_eq!(counts.fuel, 10_000_000);
}

#[test]
fn a_response_above_the_limit_names_it() {
    let body = "(drop (memory.grow (i32.const 100))) (call $response (i32.const 0) (i32.const 5000000)) (i32.const 1)";
    refused(
        outcome(body),
        Kind::Guest,
        "__guest_response: the response has 5000000 bytes, the limit is 4194304 (WASMCLOUD_ACTOR_PAYLOAD_BYTES)",
    );
}

#[test]
fn a_log_flood_is_cut_in_length_and_rate() {
    let table = Table::silent();
    let flood = "(local $i i32) (loop $again (call $log (i32.const 0) (i32.const 60000))
        (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $again (i32.lt_u (local.get $i) (i32.const 5000))))
        (i32.const 1)";
    assert_eq!(once_with(flood, table.clone()), Ok(Vec::new()));
    let lines = table.console.lock().unwrap();
    // One window holds 50; a slow machine may see a few windows pass.
    assert!((50..=1000).contains(&lines.len()), "{} lines", lines.len());
    assert!(lines.iter().all(|line| line.len() < 4 * 1024 + 200));
    assert!(lines[0].contains("55904 bytes more than WASMCLOUD_ACTOR_LOG_BYTES allows"), "{}", &lines[0][4090..]);
}

#[test]
fn an_answer_above_the_limit_is_an_error_of_the_host_call() {
    let body = "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0))) (i32.const 1)";
    refused(
        once_with(body, Table::fixed(Ok(vec![0; 4 * 1024 * 1024 + 1]))),
        Kind::Guest,
        "the answer has 4194305 bytes, the limit is 4194304 (WASMCLOUD_ACTOR_PAYLOAD_BYTES)",
    );
}

#[test]
fn a_payload_above_the_limit_is_refused_before_anything_runs() {
    let engine = engine(|settings| settings.payload_bytes = 100);
    let outcome = task::block_on(async { invoke(&load(&engine, echo()).await?, &[0; 101]).await });
    refused(outcome, Kind::Limit, "the payload has 101 bytes, the limit is 100 (WASMCLOUD_ACTOR_PAYLOAD_BYTES)");
}

#[test]
fn imports_outside_the_abi_are_refused_by_name() {
    let with_import = |import: &str| {
        once(module(&format!("{import} {PRELUDE} (func (export \"_start\"))")), |settings| settings.allow_wasi = false)
    };
    for (import, text) in [
        (
            r#"(import "env" "exit" (func))"#,
            "actor test: imports env::exit, which this host does not offer; actors may import the functions of \
             `wasmbus` (the older name `wapc` means the same), the inert part of WASI preview 1, and `env::abort`",
        ),
        (
            r#"(import "wasmbus" "__guest_state" (func))"#,
            "actor test: imports wasmbus::__guest_state, which is not one of the nine functions of the host ABI",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
            "actor test: imports wasi_snapshot_preview1::fd_write, and WASMCLOUD_ALLOW_WASI=off offers no WASI; set \
             WASMCLOUD_ALLOW_WASI=inert to offer it with a clock, random numbers, output to the log and nothing else, \
             or build the actor for wasm32-unknown-unknown",
        ),
        (
            r#"(import "wasi_unstable" "random_get" (func (param i32 i32) (result i32)))"#,
            "actor test: imports wasi_unstable::random_get, and WASMCLOUD_ALLOW_WASI=off offers no WASI; set \
             WASMCLOUD_ALLOW_WASI=inert to offer it with a clock, random numbers, output to the log and nothing else, \
             or build the actor for wasm32-unknown-unknown",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_steal" (func))"#,
            "actor test: imports wasi_snapshot_preview1::fd_steal, which is no function of WASI preview 1",
        ),
        (
            r#"(import "wapc" "__guest_state" (func))"#,
            "actor test: imports wapc::__guest_state, which is not one of the nine functions of the host ABI",
        ),
    ] {
        refused(with_import(import), Kind::Denied, text);
    }
    let wrong_type = with_import(r#"(import "wasmbus" "__host_error" (func (param i64)))"#).unwrap_err();
    assert_eq!(wrong_type.kind(), Kind::Invalid);
    assert!(wrong_type.text().starts_with("actor test: the module cannot be instantiated: "), "{wrong_type}");
    assert!(wrong_type.text().contains("__host_error"), "{wrong_type}");
    let memory = with_import(r#"(import "wasmbus" "__guest_request" (memory 1))"#).unwrap_err();
    assert_eq!(memory.kind(), Kind::Invalid);
}

#[test]
fn modules_without_what_the_abi_needs_are_refused() {
    for (fields, text) in [
        (
            r#"(memory (export "memory") 1)"#,
            "actor test: exports neither __guest_call nor _start, so there is nothing to call",
        ),
        (
            r#"(func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1))"#,
            "actor test: exports no memory named `memory`, which the host ABI needs",
        ),
        (
            r#"(memory (export "memory") 1) (func (export "__guest_call") (param i32) (result i32) (i32.const 1))"#,
            "actor test: exports __guest_call with another type than the host ABI's",
        ),
        (
            r#"(global (export "memory") i32 (i32.const 1)) (func (export "_start"))"#,
            "actor test: exports no memory named `memory`, which the host ABI needs",
        ),
    ] {
        refused(once(module(fields), |_| ()), Kind::Invalid, text);
    }
}

#[test]
fn tables_are_bounded_and_never_grow() {
    refused(
        once(module(&format!("{PRELUDE} (table 10001 funcref) (func (export \"_start\"))")), |_| ()),
        Kind::Limit,
        "actor test: the module cannot be instantiated: it asked for a table of 10001 elements, the limit is 10000 \
         (WASMCLOUD_ACTOR_TABLE_ELEMENTS)",
    );
    refused(
        once(module(&format!("{PRELUDE} {} (func (export \"_start\"))", "(table 1 funcref)".repeat(5))), |_| ()),
        Kind::Limit,
        "actor test: the module has 5 tables, the limit is 4",
    );
    let grows = module(&format!(
        "{PRELUDE} (table $t 1 funcref) (func (export \"__guest_call\") (param i32 i32) (result i32)
            (loop $again (drop (i32.add (i32.const 1) (i32.const 2)))
                (if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then (unreachable)))
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get 0) (i32.const 1000))))
            (i32.const 1))"
    ));
    assert_eq!(once(grows, |settings| settings.slice_fuel = 7), Ok(Vec::new()));
}

#[test]
fn features_no_actor_needs_are_refused() {
    for fields in [
        r#"(memory (export "memory") 1) (memory 1) (func (export "_start"))"#,
        r#"(memory (export "memory") i64 1) (func (export "_start"))"#,
        r#"(memory (export "memory") 1 1 shared) (func (export "_start"))"#,
        r#"(memory (export "memory") 1) (func (export "_start") (drop (v128.const i64x2 1 2)))"#,
    ] {
        let error = once(module(fields), |_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{fields}");
        assert!(error.text().starts_with("actor test: not a valid WebAssembly module: "), "{error}");
    }
}

#[test]
fn too_large_a_module_is_refused_before_it_is_parsed() {
    refused(
        once(vec![0; 101], |settings| settings.module_bytes = 100),
        Kind::Limit,
        "actor test: the module has 101 bytes, the limit is 100 (WASMCLOUD_ACTOR_MODULE_BYTES)",
    );
}

#[test]
fn a_start_section_has_one_slice() {
    let start = |body: &str| {
        module(&format!(
            "{PRELUDE} (global $g (mut i32) (i32.const 0)) (func $start {body}) (start $start)
            (func (export \"__guest_call\") (param i32 i32) (result i32)
                (i32.store8 (i32.const 0) (global.get $g)) (call $response (i32.const 0) (i32.const 1)) (i32.const 1))"
        ))
    };
    assert_eq!(once(start("(global.set $g (i32.const 7))"), |_| ()), Ok(vec![7]));
    refused(
        once(start("(loop $again (br $again))"), |_| ()),
        Kind::Limit,
        "the start section of actor test did not end within one slice of 100000 units of fuel (WASMCLOUD_SLICE_FUEL); \
         work that takes longer belongs into _start",
    );
    let calls = "(drop (call $call (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0)))";
    refused(once(start(calls), |_| ()), Kind::Guest, "waiting for the answer to a host call");
}

#[test]
fn start_and_initialize_run_before_the_call() {
    let entries = |fields: &str| {
        module(&format!(
            "{PRELUDE} (global $g (mut i32) (i32.const 0)) {fields}
            (func (export \"__guest_call\") (param i32 i32) (result i32)
                (i32.store8 (i32.const 0) (global.get $g)) (call $response (i32.const 0) (i32.const 1)) (i32.const 1))"
        ))
    };
    let add = |name: &str, n: i32| {
        format!("(func (export \"{name}\") (global.set $g (i32.add (global.get $g) (i32.const {n}))))")
    };
    assert_eq!(once(entries(&add("_start", 1)), |_| ()), Ok(vec![1]));
    assert_eq!(once(entries(&add("_initialize", 2)), |_| ()), Ok(vec![2]));
    assert_eq!(once(entries(&(add("_start", 1) + &add("_initialize", 2))), |_| ()), Ok(vec![1]));
    let endless = entries("(func (export \"_start\") (loop $again (br $again)))");
    assert_eq!(once(endless, |settings| settings.fuel = 200_000).unwrap_err().kind(), Kind::Limit);
}

/// Loads bytes and, if they load, calls them: whatever comes out, nothing panics and nothing hangs.
fn survives(wasm: Vec<u8>) -> Result<(), Error> {
    once(wasm, |settings| settings.fuel = 100_000).map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(survives(bytes).is_err());
    }

    #[test]
    fn damaged_modules_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut wasm = echo();
        let at = at.index(wasm.len());
        wasm[at] = byte;
        // Some damage does no harm: in a name, in a constant, or a cut in front of a custom section.
        let _ = survives(wasm.clone());
        wasm.truncate(cut.index(wasm.len()));
        let _ = survives(wasm);
    }
}
