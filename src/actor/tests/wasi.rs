//! WASI preview 1 where it is offered: a clock, random numbers, output to the log, and nothing else.

use super::*;
use crate::error::Kind;

/// WASI imports as libc declares them.
const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
        (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;

/// A module with WASI and the host ABI, further `fields`, and a `__guest_call` with `body`.
fn wasi_guest(fields: &str, body: &str) -> Vec<u8> {
    module(&format!(
        "{IMPORTS} {PRELUDE} {fields}
        (func (export \"__guest_call\") (param $op i32) (param $len i32) (result i32) {body})"
    ))
}

/// Loads `wasm` where WASI is offered, invokes it once and answers what it logged, too.
fn run(wasm: Vec<u8>) -> (Result<Vec<u8>>, Vec<String>) {
    // As it is unless it is set otherwise.
    let engine = engine(|_| ());
    let table = Table::silent();
    let outcome = task::block_on(async {
        let actor = load_with(&engine, wasm, table.clone()).await?;
        actor.invoke("Trait.Method", b"the payload".to_vec(), context()).await
    });
    let console = table.console.lock().unwrap().clone();
    (outcome, console)
}

#[test]
fn the_clock_runs_and_random_numbers_are_random() {
    let body = "(drop (call $clock (i32.const 0) (i64.const 1) (i32.const 0)))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
        (i32.store (i32.const 48) (call $clock (i32.const 9) (i64.const 1) (i32.const 40)))
        (drop (call $random (i32.const 16) (i32.const 16)))
        (call $response (i32.const 0) (i32.const 52)) (i32.const 1)";
    let (first, second) = (run(wasi_guest("", body)).0.unwrap(), run(wasi_guest("", body)).0.unwrap());
    let clock = u64::from_le_bytes(first[..8].try_into().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(now.abs_diff(clock) < 60_000_000_000, "{clock}");
    assert_eq!(first[48..52], 28i32.to_le_bytes(), "an unknown clock is an invalid argument");
    assert_ne!(first[16..32], [0; 16]);
    assert_ne!(first[16..32], second[16..32]);
}

#[test]
fn stdout_and_stderr_go_to_the_log() {
    let write = |fd: i32| {
        format!(
            "(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 5))
            (drop (call $fd_write (i32.const {fd}) (i32.const 0) (i32.const 1) (i32.const 16)))
            (call $response (i32.const 16) (i32.const 4)) (i32.const 1)"
        )
    };
    let data = "(data (i32.const 100) \"alarm\")";
    assert_eq!(run(wasi_guest(data, &write(2))), (Ok(vec![5, 0, 0, 0]), vec!["alarm".to_string()]));
    assert_eq!(run(wasi_guest(data, &write(1))), (Ok(vec![5, 0, 0, 0]), vec!["alarm".to_string()]));
    assert_eq!(run(wasi_guest(data, &write(3))), (Ok(vec![0; 4]), Vec::new()), "no such descriptor");
}

#[test]
fn there_are_no_files_no_directories_and_no_environment() {
    let body = "(i32.store (i32.const 0) (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1)
            (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 32)))
        (i32.store (i32.const 4) (call $prestat (i32.const 3) (i32.const 32)))
        (i32.store (i32.const 8) (i32.const 7))
        (drop (call $environ_sizes (i32.const 8) (i32.const 12)))
        (call $response (i32.const 0) (i32.const 12)) (i32.const 1)";
    assert_eq!(run(wasi_guest("", body)).0, Ok(vec![8, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]));
}

#[test]
fn a_clean_exit_is_a_success_wherever_it_happens_and_any_other_is_not() {
    let start = "(func (export \"_start\") (call $exit (i32.const 0)))";
    let respond = "(call $response (i32.const 0) (i32.const 1))";
    assert_eq!(run(wasi_guest(start, &format!("{respond} (i32.const 1)"))).0, Ok(vec![0]));
    assert_eq!(run(wasi_guest("", &format!("{respond} (call $exit (i32.const 0)) (i32.const 0)"))).0, Ok(vec![0]));
    let error = run(wasi_guest("", "(call $exit (i32.const 3)) (i32.const 1)")).0.unwrap_err();
    assert_eq!((error.kind(), error.text()), (Kind::Guest, "the actor exited with status 3"));
}

#[test]
fn a_command_finds_its_request_on_stdin_and_answers_on_stdout() {
    // Copies its second argument, then all of stdin in pieces of four bytes.
    let command = module(&format!(
        "{IMPORTS} (memory (export \"memory\") 1)
        (func $print (param i32 i32)
            (i32.store (i32.const 0) (local.get 0)) (i32.store (i32.const 4) (local.get 1))
            (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))))
        (func (export \"_start\")
            (drop (call $args_sizes (i32.const 32) (i32.const 36)))
            (drop (call $args (i32.const 40) (i32.const 200)))
            (call $print (i32.load (i32.const 44)) (i32.sub (i32.load (i32.const 36)) (i32.const 10)))
            (loop $again
                (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 4))
                (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 20)))
                (call $print (i32.const 100) (i32.load (i32.const 20)))
                (br_if $again (i32.load (i32.const 20))))
            (call $exit (i32.const 0)))"
    ));
    assert_eq!(run(command), (Ok(b"Trait.Method\0the payload".to_vec()), Vec::new()));
}

#[test]
fn wrong_pointers_end_the_invocation() {
    for (body, text) in [
        ("(drop (call $random (i32.const 65530) (i32.const 7)))", "random_get: the buffer at 65530 is outside"),
        ("(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 65530)))", "clock_time_get: the result at 65530"),
        (
            "(drop (call $fd_write (i32.const 2) (i32.const 65530) (i32.const 1) (i32.const 0)))",
            "fd_write: the list of buffers at 65530",
        ),
        (
            "(i32.store (i32.const 0) (i32.const -1)) (i32.store (i32.const 4) (i32.const -1))
            (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 16)))",
            "fd_write: the text at 4294967295, 4294967295 bytes long",
        ),
        ("(drop (call $args (i32.const 65535) (i32.const 0)))", "args_get: the result at 65535"),
    ] {
        let error = run(wasi_guest("", &format!("{body} (i32.const 1)"))).0.unwrap_err();
        assert!(error.kind() == Kind::Guest && error.text().starts_with(text), "{body}: {error}");
    }
    let too_many = "(i32.store (i32.const 8)
        (call $fd_write (i32.const 2) (i32.const 0) (i32.const -1) (i32.const 16)))
        (call $response (i32.const 8) (i32.const 4)) (i32.const 1)";
    assert_eq!(run(wasi_guest("", too_many)).0, Ok(vec![28, 0, 0, 0]));
}

#[test]
fn every_function_of_the_snapshot_links_with_its_type() {
    // The list of the WASI snapshot: name, parameters (l = 64 bits), whether it returns an errno.
    let snapshot = "args_get ii args_sizes_get ii environ_get ii environ_sizes_get ii clock_res_get ii clock_time_get ili \
        fd_advise illi fd_allocate ill fd_close i fd_datasync i fd_fdstat_get ii fd_fdstat_set_flags ii \
        fd_fdstat_set_rights ill fd_filestat_get ii fd_filestat_set_size il fd_filestat_set_times illi fd_pread iiili \
        fd_prestat_get ii fd_prestat_dir_name iii fd_pwrite iiili fd_read iiii fd_readdir iiili fd_renumber ii \
        fd_seek ilii fd_sync i fd_tell ii fd_write iiii path_create_directory iii path_filestat_get iiiii \
        path_filestat_set_times iiiilli path_link iiiiiii path_open iiiiillii path_readlink iiiiii \
        path_remove_directory iii path_rename iiiiii path_symlink iiiii path_unlink_file iii poll_oneoff iiii \
        proc_raise i random_get ii sock_accept iii sock_recv iiiiii sock_send iiiii sock_shutdown ii";
    let words: Vec<_> = snapshot.split_whitespace().collect();
    assert_eq!(words.len(), 2 * 44, "all of the snapshot but proc_exit and sched_yield");
    let mut fields = String::from(
        "(import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32)))
        (import \"wasi_snapshot_preview1\" \"sched_yield\" (func (result i32)))",
    );
    for pair in words.chunks_exact(2) {
        let parameters: String = pair[1].chars().map(|letter| if letter == 'l' { "i64 " } else { "i32 " }).collect();
        fields +=
            &format!("(import \"wasi_snapshot_preview1\" \"{}\" (func (param {parameters}) (result i32)))", pair[0]);
    }
    // The snapshot before has no sock_accept; nobody who imports from it by name misses that it is there.
    for name in ["wasi_snapshot_preview1", "wasi_unstable"] {
        let fields = fields.replace("wasi_snapshot_preview1", name);
        let (outcome, _) = run(module(&format!("{fields} (memory (export \"memory\") 1) (func (export \"_start\"))")));
        assert_eq!(outcome, Ok(Vec::new()), "{name}");
    }
}

#[test]
fn a_module_may_import_from_the_older_name_and_both_names_mean_the_same() {
    let body = "(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 5))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
        (i32.store (i32.const 20) (call $path_open (i32.const 3) (i32.const 0) (i32.const 64) (i32.const 1)
            (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 32)))
        (call $response (i32.const 16) (i32.const 8)) (call $exit (i32.const 0)) (i32.const 0)";
    let guest = |imports: &str| {
        module(&format!(
            "{imports} {PRELUDE} (data (i32.const 100) \"alarm\")
            (func (export \"__guest_call\") (param i32 i32) (result i32) {body})"
        ))
    };
    let older = IMPORTS.replace("wasi_snapshot_preview1", "wasi_unstable");
    let wanted = (Ok(vec![5, 0, 0, 0, 8, 0, 0, 0]), vec!["alarm".to_string()]);
    for imports in [IMPORTS, &older, &IMPORTS.replacen("wasi_snapshot_preview1", "wasi_unstable", 3)] {
        assert_eq!(run(guest(imports)), wanted, "{imports}");
    }
}
