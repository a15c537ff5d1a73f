//! The nine functions a guest may import (`protocol/actor-abi.md §1`).
//!
//! Every pointer and length comes from the guest and is checked against its memory; a wrong one ends the invocation
//! with a text that names the function. Copies cost fuel, so that a guest cannot make the host work for nothing.

use std::time::Instant;

use wasmi::{Caller, Error, Linker, Memory};

use crate::actor::{HostCall, guest::Guest, trace};

/// The module names of the host ABI. Guests of the older generation, and every guest built with a public waPC library,
/// import the same functions from the second.
pub const MODULES: [&str; 2] = ["wasmbus", "wapc"];

/// The names a guest may import from it.
pub const FUNCTIONS: [&str; 9] = [
    "__guest_request",
    "__guest_response",
    "__guest_error",
    "__host_call",
    "__host_response_len",
    "__host_response",
    "__host_error_len",
    "__host_error",
    "__console_log",
];

/// Length of a binding, namespace or operation of a host call, bytes. Real ones have some tens; a longer one ends the
/// invocation.
const NAME_BYTES: usize = 1024;

/// Length of an error text a guest may set, bytes. The rest is cut off: the text travels in a response and in logs.
const ERROR_BYTES: usize = 64 * 1024;

/// Fuel of a call into the host beyond the instruction itself; about the time of so many instructions.
const CALL_FUEL: u64 = 100;

/// Bytes copied between guest and host for one unit of fuel.
const BYTES_PER_FUEL: u64 = 16;

/// Says that the guest waits for the answer to a host call: not an error, the way wasmi suspends a call.
#[derive(Debug)]
pub struct Suspended;

impl std::fmt::Display for Suspended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("waiting for the answer to a host call")
    }
}

impl wasmi::errors::HostError for Suspended {}

/// Takes fuel for a call into the host that copies `bytes`. What is missing is forgiven: the slice ends at the guest's
/// next instruction.
pub fn charge(caller: &mut Caller<'_, Guest>, bytes: usize) -> Result<(), Error> {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let left = caller.get_fuel()?.saturating_sub(CALL_FUEL + bytes / BYTES_PER_FUEL);
    caller.set_fuel(left)
}

/// The guest's memory.
pub fn memory(caller: &mut Caller<'_, Guest>) -> Result<Memory, Error> {
    if let Some(memory) = caller.data().memory {
        return Ok(memory);
    }
    let memory = caller
        .get_export("memory")
        .and_then(wasmi::Extern::into_memory)
        .ok_or_else(|| Error::new("the module exports no memory named `memory`"))?;
    caller.data_mut().memory = Some(memory);
    Ok(memory)
}

/// Copies `len` bytes at `pointer` out of the guest's memory. Nothing is read for a length of 0, wherever it points.
pub fn read(
    caller: &mut Caller<'_, Guest>,
    function: &str,
    what: &str,
    pointer: i32,
    len: i32,
    limit: usize,
) -> Result<Vec<u8>, Error> {
    let (start, len) = (unsigned(pointer), unsigned(len));
    if len == 0 {
        return Ok(Vec::new());
    }
    if len > limit {
        return Err(Error::new(format!("{function}: {what} has {len} bytes, the limit is {limit}")));
    }
    charge(caller, len)?;
    let memory = memory(caller)?;
    let bytes = start.checked_add(len).and_then(|end| memory.data(&*caller).get(start..end));
    bytes.map(<[u8]>::to_vec).ok_or_else(|| outside(function, what, start, len, memory.data_size(&*caller)))
}

/// Copies `bytes` to `pointer` in the guest's memory.
pub fn write(
    caller: &mut Caller<'_, Guest>,
    function: &str,
    what: &str,
    pointer: i32,
    bytes: &[u8],
) -> Result<(), Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    charge(caller, bytes.len())?;
    let memory = memory(caller)?;
    let start = unsigned(pointer);
    memory
        .write(&mut *caller, start, bytes)
        .map_err(|_| outside(function, what, start, bytes.len(), memory.data_size(&*caller)))
}

/// A guest's `i32` as the address or length it means.
pub fn unsigned(value: i32) -> usize {
    // The protocol says: pointers and lengths are unsigned 32-bit. usize has at least 32 bits on every target.
    value as u32 as usize
}

fn outside(function: &str, what: &str, start: usize, len: usize, size: usize) -> Error {
    Error::new(format!("{function}: {what} at {start}, {len} bytes long, is outside the memory of {size} bytes"))
}

fn name(caller: &mut Caller<'_, Guest>, what: &str, pointer: i32, len: i32) -> Result<String, Error> {
    let bytes = read(caller, "__host_call", what, pointer, len, NAME_BYTES)?;
    String::from_utf8(bytes).map_err(|_| Error::new(format!("__host_call: {what} is not UTF-8")))
}

fn guest_request(mut caller: Caller<'_, Guest>, operation: i32, payload: i32) -> Result<(), Error> {
    let guest = caller.data_mut();
    if guest.request_taken {
        return Err(Error::new("__guest_request: the request was taken already, it can be taken once"));
    }
    guest.request_taken = true;
    let (name, body) = (std::mem::take(&mut guest.operation), std::mem::take(&mut guest.payload));
    write(&mut caller, "__guest_request", "the operation", operation, name.as_bytes())?;
    write(&mut caller, "__guest_request", "the payload", payload, &body)
}

fn guest_response(mut caller: Caller<'_, Guest>, pointer: i32, len: i32) -> Result<(), Error> {
    let limit = caller.data().surroundings.settings.payload_bytes;
    if unsigned(len) > limit {
        return Err(Error::new(format!(
            "__guest_response: the response has {} bytes, the limit is {limit} (WASMCLOUD_ACTOR_PAYLOAD_BYTES)",
            unsigned(len)
        )));
    }
    let response = read(&mut caller, "__guest_response", "the response", pointer, len, limit)?;
    caller.data_mut().response = Some(response);
    Ok(())
}

fn guest_error(mut caller: Caller<'_, Guest>, pointer: i32, len: i32) -> Result<(), Error> {
    // A length beyond the limit is cut, but the whole of it must lie inside the memory all the same.
    let text = if unsigned(len) > ERROR_BYTES {
        let size = memory(&mut caller)?.data_size(&caller);
        if unsigned(pointer).checked_add(unsigned(len)).is_none_or(|end| end > size) {
            return Err(outside("__guest_error", "the error text", unsigned(pointer), unsigned(len), size));
        }
        read(&mut caller, "__guest_error", "the error text", pointer, ERROR_BYTES as i32, ERROR_BYTES)?
    } else {
        read(&mut caller, "__guest_error", "the error text", pointer, len, ERROR_BYTES)?
    };
    caller.data_mut().error = Some(String::from_utf8_lossy(&text).into_owned());
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the protocol's signature")]
fn host_call(
    mut caller: Caller<'_, Guest>,
    binding: i32,
    binding_len: i32,
    namespace: i32,
    namespace_len: i32,
    operation: i32,
    operation_len: i32,
    payload: i32,
    payload_len: i32,
) -> Result<i32, Error> {
    let limit = caller.data().surroundings.settings.payload_bytes;
    let binding = name(&mut caller, "the binding", binding, binding_len)?;
    let namespace = name(&mut caller, "the namespace", namespace, namespace_len)?;
    let operation = name(&mut caller, "the operation", operation, operation_len)?;
    if unsigned(payload_len) > limit {
        return Err(Error::new(format!(
            "__host_call: the payload has {} bytes, the limit is {limit} (WASMCLOUD_ACTOR_PAYLOAD_BYTES)",
            unsigned(payload_len)
        )));
    }
    let payload = read(&mut caller, "__host_call", "the payload", payload, payload_len, limit)?;
    let guest = caller.data_mut();
    let (deadline, depth) = (guest.deadline, guest.depth);
    let trace = guest.trace.get_or_insert_with(trace::fresh).clone();
    guest.pending = Some(HostCall { binding, namespace, operation, payload, deadline, depth, trace });
    Err(Error::host(Suspended))
}

fn length(bytes: Option<usize>) -> i32 {
    // Bounded by the payload limit; one beyond 2^31 would not fit a 32-bit guest's memory either.
    bytes.map_or(0, |len| i32::try_from(len).unwrap_or(i32::MAX))
}

fn host_response_len(caller: Caller<'_, Guest>) -> i32 {
    length(caller.data().host_response.as_ref().map(Vec::len))
}

fn host_response(mut caller: Caller<'_, Guest>, pointer: i32) -> Result<(), Error> {
    let response = caller.data_mut().host_response.take().unwrap_or_default();
    write(&mut caller, "__host_response", "the answer", pointer, &response)
}

fn host_error_len(caller: Caller<'_, Guest>) -> i32 {
    length(caller.data().host_error.as_ref().map(String::len))
}

fn host_error(mut caller: Caller<'_, Guest>, pointer: i32) -> Result<(), Error> {
    let text = caller.data_mut().host_error.take().unwrap_or_default();
    write(&mut caller, "__host_error", "the error text", pointer, text.as_bytes())
}

fn console_log(mut caller: Caller<'_, Guest>, pointer: i32, len: i32) -> Result<(), Error> {
    print(&mut caller, "__console_log", pointer, len)
}

/// Hands a text of the guest to the log, within its limits.
pub fn print(caller: &mut Caller<'_, Guest>, function: &str, pointer: i32, len: i32) -> Result<(), Error> {
    let (start, len) = (unsigned(pointer), unsigned(len));
    if len == 0 {
        return charge(caller, 0);
    }
    let surroundings = caller.data().surroundings.clone();
    charge(caller, len.min(surroundings.settings.log_bytes))?;
    let memory = memory(caller)?;
    let text = start.checked_add(len).and_then(|end| memory.data(&*caller).get(start..end));
    let text = text.ok_or_else(|| outside(function, "the text", start, len, memory.data_size(&*caller)))?;
    let admitted = surroundings.console.lock().admit(text, Instant::now());
    if let Some(text) = admitted {
        surroundings.outcalls.console(&surroundings.key, &text);
    }
    Ok(())
}

/// Offers the nine functions to modules of the linker's engine that import them from `module`.
pub fn define(linker: &mut Linker<Guest>, module: &str) -> Result<(), Error> {
    linker.func_wrap(module, "__guest_request", guest_request)?;
    linker.func_wrap(module, "__guest_response", guest_response)?;
    linker.func_wrap(module, "__guest_error", guest_error)?;
    linker.func_wrap(module, "__host_call", host_call)?;
    linker.func_wrap(module, "__host_response_len", host_response_len)?;
    linker.func_wrap(module, "__host_response", host_response)?;
    linker.func_wrap(module, "__host_error_len", host_error_len)?;
    linker.func_wrap(module, "__host_error", host_error)?;
    linker.func_wrap(module, "__console_log", console_log)?;
    Ok(())
}
