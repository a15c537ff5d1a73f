//! The part of WASI preview 1 that the runtimes of languages pull in, and that gives a guest nothing: a clock, random
//! numbers, and a stdout and stderr that go to the log (`protocol/actor-abi.md §6`). Not offered where
//! `WASMCLOUD_ALLOW_WASI=off` says so.
//!
//! There are no files, no directories, no sockets and no environment behind it: those functions answer that no such
//! descriptor exists. A WASI command (`_start` without `__guest_call`) finds its request on stdin and as an argument, and
//! its stdout becomes the response (`§3.5`).

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use wasmi::{Caller, Error, FuncType, Linker, Val, ValType};

use crate::actor::{abi, guest::Guest};

/// The module names of WASI preview 1. The snapshot before it has the second name; its functions have the same types, and
/// what differs between the two is behind descriptors that do not exist here.
pub const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// What the functions return (`errno` of the WASI snapshot).
mod errno {
    pub const SUCCESS: i32 = 0;
    /// No such descriptor.
    pub const BADF: i32 = 8;
    /// An argument makes no sense.
    pub const INVAL: i32 = 28;
    /// Not offered.
    pub const NOTSUP: i32 = 58;
    /// A stream cannot be positioned.
    pub const SPIPE: i32 = 70;
}

/// Descriptors that exist.
const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;

/// The name a program finds as its first argument; hosts of this protocol use this one.
const PROGRAM: &str = "main.wasm";

/// Buffers one `fd_read` or `fd_write` may name. libc uses two; more are refused as an invalid argument.
const BUFFERS: i32 = 64;

/// Functions that answer `errno` whatever their parameters, each letter one parameter: `i` 32 bits, `l` 64 bits.
const DENIED: [(&str, &str, i32); 35] = [
    ("fd_advise", "illi", errno::BADF),
    ("fd_allocate", "ill", errno::BADF),
    ("fd_close", "i", errno::BADF),
    ("fd_datasync", "i", errno::BADF),
    ("fd_fdstat_set_flags", "ii", errno::BADF),
    ("fd_fdstat_set_rights", "ill", errno::BADF),
    ("fd_filestat_get", "ii", errno::BADF),
    ("fd_filestat_set_size", "il", errno::BADF),
    ("fd_filestat_set_times", "illi", errno::BADF),
    ("fd_pread", "iiili", errno::BADF),
    ("fd_prestat_get", "ii", errno::BADF),
    ("fd_prestat_dir_name", "iii", errno::BADF),
    ("fd_pwrite", "iiili", errno::BADF),
    ("fd_readdir", "iiili", errno::BADF),
    ("fd_renumber", "ii", errno::BADF),
    ("fd_seek", "ilii", errno::SPIPE),
    ("fd_sync", "i", errno::BADF),
    ("fd_tell", "ii", errno::SPIPE),
    ("path_create_directory", "iii", errno::BADF),
    ("path_filestat_get", "iiiii", errno::BADF),
    ("path_filestat_set_times", "iiiilli", errno::BADF),
    ("path_link", "iiiiiii", errno::BADF),
    ("path_open", "iiiiillii", errno::BADF),
    ("path_readlink", "iiiiii", errno::BADF),
    ("path_remove_directory", "iii", errno::BADF),
    ("path_rename", "iiiiii", errno::BADF),
    ("path_symlink", "iiiii", errno::BADF),
    ("path_unlink_file", "iii", errno::BADF),
    ("poll_oneoff", "iiii", errno::NOTSUP),
    ("proc_raise", "i", errno::NOTSUP),
    ("sched_yield", "", errno::SUCCESS),
    ("sock_accept", "iii", errno::BADF),
    ("sock_recv", "iiiiii", errno::BADF),
    ("sock_send", "iiiii", errno::BADF),
    ("sock_shutdown", "ii", errno::BADF),
];

/// Functions that do something.
const OFFERED: [&str; 11] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_fdstat_get",
    "fd_read",
    "fd_write",
    "proc_exit",
    "random_get",
];

/// Whether WASI preview 1 has a function `name`.
pub fn offers(name: &str) -> bool {
    OFFERED.contains(&name) || DENIED.iter().any(|(denied, _, _)| *denied == name)
}

/// Offers WASI to modules of the linker's engine.
pub fn define(linker: &mut Linker<Guest>, module: &str) -> Result<(), Error> {
    for (name, parameters, errno) in DENIED {
        let parameters = parameters.bytes().map(|letter| if letter == b'l' { ValType::I64 } else { ValType::I32 });
        linker.func_new(
            module,
            name,
            FuncType::new(parameters, [ValType::I32]),
            move |_, _: &[Val], results: &mut [Val]| {
                results.fill(Val::I32(errno));
                Ok(())
            },
        )?;
    }
    linker.func_wrap(module, "args_sizes_get", args_sizes_get)?;
    linker.func_wrap(module, "args_get", args_get)?;
    linker.func_wrap(module, "environ_sizes_get", environ_sizes_get)?;
    linker.func_wrap(module, "environ_get", |_: i32, _: i32| errno::SUCCESS)?;
    linker.func_wrap(module, "clock_res_get", clock_res_get)?;
    linker.func_wrap(module, "clock_time_get", clock_time_get)?;
    linker.func_wrap(module, "fd_fdstat_get", fd_fdstat_get)?;
    linker.func_wrap(module, "fd_read", fd_read)?;
    linker.func_wrap(module, "fd_write", fd_write)?;
    linker.func_wrap(module, "random_get", random_get)?;
    linker.func_wrap(module, "proc_exit", |status: i32| Err::<(), _>(Error::i32_exit(status)))?;
    Ok(())
}

fn put(caller: &mut Caller<'_, Guest>, function: &str, pointer: i32, bytes: &[u8]) -> Result<(), Error> {
    abi::write(caller, function, "the result", pointer, bytes)
}

fn put_u32(caller: &mut Caller<'_, Guest>, function: &str, pointer: i32, value: usize) -> Result<(), Error> {
    let value = u32::try_from(value).unwrap_or(u32::MAX);
    put(caller, function, pointer, &value.to_le_bytes())
}

/// The program's arguments, each with the NUL that C expects.
fn arguments(guest: &Guest) -> Vec<Vec<u8>> {
    let mut arguments = vec![format!("{PROGRAM}\0").into_bytes()];
    if guest.command {
        arguments.push(format!("{}\0", guest.operation).into_bytes());
    }
    arguments
}

fn args_sizes_get(mut caller: Caller<'_, Guest>, count: i32, bytes: i32) -> Result<i32, Error> {
    let arguments = arguments(caller.data());
    put_u32(&mut caller, "args_sizes_get", count, arguments.len())?;
    put_u32(&mut caller, "args_sizes_get", bytes, arguments.iter().map(Vec::len).sum())?;
    Ok(errno::SUCCESS)
}

fn args_get(mut caller: Caller<'_, Guest>, pointers: i32, buffer: i32) -> Result<i32, Error> {
    let (mut pointer, mut at) = (pointers, buffer);
    for argument in arguments(caller.data()) {
        put(&mut caller, "args_get", pointer, &at.to_le_bytes())?;
        put(&mut caller, "args_get", at, &argument)?;
        pointer = pointer.wrapping_add(4);
        at = at.wrapping_add(i32::try_from(argument.len()).unwrap_or(i32::MAX));
    }
    Ok(errno::SUCCESS)
}

fn environ_sizes_get(mut caller: Caller<'_, Guest>, count: i32, bytes: i32) -> Result<i32, Error> {
    put_u32(&mut caller, "environ_sizes_get", count, 0)?;
    put_u32(&mut caller, "environ_sizes_get", bytes, 0)?;
    Ok(errno::SUCCESS)
}

/// The clocks of WASI: wall-clock time, and time that never goes back (from the host's first use of it).
fn clock(id: i32) -> Option<u64> {
    static FIRST_USE: LazyLock<Instant> = LazyLock::new(Instant::now);
    let elapsed = match id {
        0 => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        1 => FIRST_USE.elapsed(),
        _ => return None,
    };
    // 2^64 nanoseconds after 1970 is the year 2554.
    Some(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

fn clock_res_get(mut caller: Caller<'_, Guest>, id: i32, result: i32) -> Result<i32, Error> {
    if clock(id).is_none() {
        return Ok(errno::INVAL);
    }
    put(&mut caller, "clock_res_get", result, &1u64.to_le_bytes())?;
    Ok(errno::SUCCESS)
}

fn clock_time_get(mut caller: Caller<'_, Guest>, id: i32, _precision: i64, result: i32) -> Result<i32, Error> {
    let Some(time) = clock(id) else { return Ok(errno::INVAL) };
    put(&mut caller, "clock_time_get", result, &time.to_le_bytes())?;
    Ok(errno::SUCCESS)
}

fn fd_fdstat_get(mut caller: Caller<'_, Guest>, fd: i32, result: i32) -> Result<i32, Error> {
    if !(STDIN..=STDERR).contains(&fd) {
        return Ok(errno::BADF);
    }
    // struct fdstat, 24 bytes: file type (2 = character device), flags, rights; stdio may be read and written.
    let mut stat = [0u8; 24];
    stat[0] = 2;
    stat[8] = 0b0100_0010;
    put(&mut caller, "fd_fdstat_get", result, &stat)?;
    Ok(errno::SUCCESS)
}

/// Reads the list of buffers that `fd_read` and `fd_write` are given: pairs of pointer and length.
fn buffers(
    caller: &mut Caller<'_, Guest>,
    function: &str,
    pointer: i32,
    count: i32,
) -> Result<Option<Vec<(i32, i32)>>, Error> {
    if !(0..=BUFFERS).contains(&count) {
        return Ok(None);
    }
    let list = abi::read(caller, function, "the list of buffers", pointer, count * 8, usize::MAX)?;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, i32::from_le_bytes);
    Ok(Some(list.chunks_exact(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect()))
}

fn fd_read(mut caller: Caller<'_, Guest>, fd: i32, list: i32, count: i32, result: i32) -> Result<i32, Error> {
    if fd != STDIN {
        return Ok(errno::BADF);
    }
    let Some(buffers) = buffers(&mut caller, "fd_read", list, count)? else { return Ok(errno::INVAL) };
    let mut total = 0;
    for (pointer, len) in buffers {
        let guest = caller.data_mut();
        let input = if guest.command { &guest.payload[guest.stdin_read..] } else { &[] };
        let chunk = input[..input.len().min(abi::unsigned(len))].to_vec();
        guest.stdin_read += chunk.len();
        abi::write(&mut caller, "fd_read", "the buffer", pointer, &chunk)?;
        total += chunk.len();
    }
    put_u32(&mut caller, "fd_read", result, total)?;
    Ok(errno::SUCCESS)
}

fn fd_write(mut caller: Caller<'_, Guest>, fd: i32, list: i32, count: i32, result: i32) -> Result<i32, Error> {
    if fd != STDOUT && fd != STDERR {
        return Ok(errno::BADF);
    }
    let Some(buffers) = buffers(&mut caller, "fd_write", list, count)? else { return Ok(errno::INVAL) };
    let mut total = 0usize;
    for (pointer, len) in buffers {
        if fd == STDERR || !caller.data().command {
            abi::print(&mut caller, "fd_write", pointer, len)?;
        } else {
            let limit = caller.data().surroundings.settings.payload_bytes;
            let written = caller.data().response.as_ref().map_or(0, Vec::len);
            if abi::unsigned(len) > limit - written {
                return Err(Error::new(format!(
                    "fd_write: the response has more than {limit} bytes (WASMCLOUD_ACTOR_PAYLOAD_BYTES)"
                )));
            }
            let chunk = abi::read(&mut caller, "fd_write", "the buffer", pointer, len, limit)?;
            caller.data_mut().response.get_or_insert_default().extend(chunk);
        }
        total = total.saturating_add(abi::unsigned(len));
    }
    put_u32(&mut caller, "fd_write", result, total)?;
    Ok(errno::SUCCESS)
}

fn random_get(mut caller: Caller<'_, Guest>, pointer: i32, len: i32) -> Result<i32, Error> {
    abi::charge(&mut caller, abi::unsigned(len))?;
    let memory = abi::memory(&mut caller)?;
    let (start, size) = (abi::unsigned(pointer), memory.data_size(&caller));
    let buffer = start
        .checked_add(abi::unsigned(len))
        .and_then(|end| memory.data_mut(&mut caller).get_mut(start..end))
        .ok_or_else(|| {
            Error::new(format!("random_get: the buffer at {start} is outside the memory of {size} bytes"))
        })?;
    getrandom::fill(buffer).map_err(|cause| Error::new(format!("random_get: no random numbers: {cause}")))?;
    Ok(errno::SUCCESS)
}
