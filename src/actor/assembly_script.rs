//! `env::abort`, which every module of the AssemblyScript compiler imports: it ends the invocation with the text that the
//! guest gives, and does nothing else.

use std::fmt;

use wasmi::{Caller, Error, Linker};
use wasmi_core::HostError;

use crate::actor::{abi, guest::Guest};

/// The module name it is imported from.
pub const MODULE: &str = "env";

/// Its name.
pub const FUNCTION: &str = "abort";

/// Length of each of its two texts, bytes. Longer ones are cut: they travel in a response and in logs.
const TEXT_BYTES: usize = 2048;

/// Why an invocation ended that the guest ended by it.
#[derive(Debug)]
pub struct Aborted(String);

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the actor aborted: {}", self.0)
    }
}

impl HostError for Aborted {}

/// Offers it to modules of the linker's engine.
pub fn define(linker: &mut Linker<Guest>) -> Result<(), Error> {
    linker.func_wrap(MODULE, FUNCTION, abort)?;
    Ok(())
}

fn abort(mut caller: Caller<'_, Guest>, message: i32, file: i32, line: i32, column: i32) -> Result<(), Error> {
    let message = text(&mut caller, message).unwrap_or_else(|| "no message".to_owned());
    let file = text(&mut caller, file).unwrap_or_else(|| "unknown file".to_owned());
    let (line, column) = (abi::unsigned(line), abi::unsigned(column));
    Err(Error::host(Aborted(format!("{message} ({file}:{line}:{column})"))))
}

/// A string of the guest: UTF-16, its length in bytes in front of it. `None` for a null pointer and for one that points
/// outside the memory, which must not hide that the guest aborted.
fn text(caller: &mut Caller<'_, Guest>, pointer: i32) -> Option<String> {
    if pointer == 0 {
        return None;
    }
    let length = abi::read(caller, FUNCTION, "the length", pointer.wrapping_sub(4), 4, 4).ok()?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    let length = length.min(TEXT_BYTES as u32) & !1;
    let length = i32::try_from(length).ok()?;
    let bytes = abi::read(caller, FUNCTION, "the text", pointer, length, TEXT_BYTES).ok()?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Some(String::from_utf16_lossy(&units))
}
