//! Guests of the older generation and of other languages: the same functions under the name `wapc`, the entries that their
//! runtimes need, and AssemblyScript's way to give up.

use super::*;
use crate::error::Kind;

/// A module that imports from `name`, with further `fields` and a `__guest_call` of `body`.
fn guest_of(name: &str, fields: &str, body: &str) -> Vec<u8> {
    let prelude = PRELUDE.replace("wasmbus", name);
    module(&format!(
        "{prelude} {fields}
        (func (export \"__guest_call\") (param $op i32) (param $len i32) (result i32) {body})"
    ))
}

/// Calls `Op` with `payload` where a host call is answered with `answer`; the outcome, the host calls and the log.
fn call(wasm: Vec<u8>, answer: Result<Vec<u8>, String>) -> (Result<Vec<u8>>, Vec<HostCall>, Vec<String>) {
    let (engine, table) = (engine(|_| ()), Table::fixed(answer));
    let outcome = task::block_on(async {
        let actor = load_with(&engine, wasm, table.clone()).await?;
        invoke(&actor, b"payload").await
    });
    let calls = table.calls.lock().unwrap().clone();
    let console = table.console.lock().unwrap().clone();
    (outcome, calls, console)
}

#[test]
fn the_functions_of_wapc_are_those_of_wasmbus() {
    // Takes its request, logs the operation, asks an actor with the payload, and answers with what that said.
    let body = "(call $request (i32.const 0) (i32.const 64)) (call $log (i32.const 0) (local.get $op))
        (if (i32.eq (i32.const 1) (call $call (i32.const 200) (i32.const 7) (i32.const 207) (i32.const 1)
                (i32.const 208) (i32.const 3) (i32.const 64) (local.get $len)))
            (then (call $answer (i32.const 300)) (call $response (i32.const 300) (i32.const 5)))
            (else (call $error (i32.const 400) (call $host_error_len)) (call $host_error (i32.const 400))
                (call $error (i32.const 400) (i32.const 7))))
        (i32.const 1)";
    let data = "(data (i32.const 200) \"defaultMGet\")";
    for name in ["wasmbus", "wapc"] {
        let (outcome, calls, console) = call(guest_of(name, data, body), Ok(b"hello".to_vec()));
        assert_eq!((outcome, console), (Ok(b"hello".to_vec()), vec!["Op".to_string()]), "{name}");
        assert_eq!(calls.len(), 1);
        let made = &calls[0];
        assert_eq!(
            (made.binding.as_str(), made.namespace.as_str(), made.operation.as_str(), &made.payload[..]),
            ("default", "M", "Get", &b"payload"[..])
        );
        let (outcome, ..) = call(guest_of(name, data, body), Err("refused".to_string()));
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.text()), (Kind::Guest, "refused"), "{name}");
    }
    // One module may use both names.
    let mixed = PRELUDE.replacen("wasmbus", "wapc", 4);
    let wasm = module(&format!(
        "{mixed} (func (export \"__guest_call\") (param $op i32) (param $len i32) (result i32)
            (call $request (i32.const 0) (i32.const 64)) (call $response (i32.const 64) (local.get $len)) (i32.const 1))"
    ));
    assert_eq!(once(wasm, |_| ()), Ok(b"payload".to_vec()));
}

/// Every entry appends its digit, so that the number tells which ran and in which order.
#[test]
fn start_wapc_init_and_the_other_start_run_before_the_call_in_this_order() {
    let digit = |name: &str, digit: i32| {
        format!(
            "(func (export \"{name}\")
                (global.set $g (i32.add (i32.mul (global.get $g) (i32.const 10)) (i32.const {digit}))))"
        )
    };
    let number = |fields: String| {
        let fields = format!("(global $g (mut i32) (i32.const 0)) {fields}");
        let body =
            "(i32.store (i32.const 0) (global.get $g)) (call $response (i32.const 0) (i32.const 4)) (i32.const 1)";
        let outcome = once(guest_of("wapc", &fields, body), |_| ()).unwrap();
        u32::from_le_bytes(outcome.try_into().unwrap())
    };
    let all = || digit("_start", 3) + &digit("wapc_init", 2) + &digit("start", 1);
    assert_eq!(number(all()), 123);
    assert_eq!(number(digit("wapc_init", 2)), 2);
    assert_eq!(number(digit("start", 1) + &digit("wapc_init", 2)), 12);
    assert_eq!(number(digit("_initialize", 4) + &digit("wapc_init", 2) + &digit("start", 1)), 412);
    // A function of the module's own that happens to have the name.
    assert_eq!(number("(func (export \"start\") (param i32) unreachable)".to_owned() + &digit("wapc_init", 2)), 2);
}

#[test]
fn what_runs_before_the_call_may_fail_and_may_not_take_the_request() {
    let entry = |body: &str| guest_of("wapc", &format!("(func (export \"wapc_init\") {body})"), "(i32.const 1)");
    let error = once(entry("unreachable"), |_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Guest);
    // The request is not there yet: nothing is copied, and the call gets it all the same.
    let wasm = guest_of(
        "wapc",
        "(func (export \"wapc_init\") (call $request (i32.const 0) (i32.const 64)))",
        "(call $request (i32.const 0) (i32.const 64)) (call $response (i32.const 64) (local.get $len)) (i32.const 1)",
    );
    assert_eq!(once(wasm, |_| ()), Ok(b"payload".to_vec()));
}

#[test]
fn an_abort_of_assembly_script_ends_the_invocation_with_its_text() {
    let import = "(import \"env\" \"abort\" (func $abort (param i32 i32 i32 i32)))";
    let guest = |message: i32, file: i32| {
        // Two strings as AssemblyScript keeps them: the length in bytes, then UTF-16.
        module(&format!(
            "{import} {PRELUDE}
            (data (i32.const 96) \"\\0a\\00\\00\\00b\\00a\\00d\\00 \\00\\f6\\00\")
            (data (i32.const 196) \"\\08\\00\\00\\00a\\00.\\00t\\00s\\00\")
            (data (i32.const 296) \"\\ff\\ff\\ff\\ff\")
            (func (export \"__guest_call\") (param i32 i32) (result i32)
                (call $abort (i32.const {message}) (i32.const {file}) (i32.const 12) (i32.const 3)) (i32.const 1))"
        ))
    };
    for (message, file, text) in [
        (100, 200, "the actor aborted: bad \u{f6} (a.ts:12:3)"),
        (0, 200, "the actor aborted: no message (a.ts:12:3)"),
        (0, 0, "the actor aborted: no message (unknown file:12:3)"),
        (65_534, -1, "the actor aborted: \u{0} (unknown file:12:3)"),
    ] {
        let error = once(guest(message, file), |_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Guest);
        assert!(error.is_trap());
        if message < 65_000 {
            assert_eq!(error.text(), text);
        } else {
            // A pointer at the end of the memory: no text, and no other error in the place of the abort.
            assert!(error.text().starts_with("the actor aborted: "), "{error}");
        }
    }
    // A text that claims to be longer than the memory is cut at the limit of such texts.
    let error = once(guest(300, 0), |_| ()).unwrap_err();
    assert!(error.text().starts_with("the actor aborted: ") && error.text().len() < 8192, "{}", error.text().len());
}
