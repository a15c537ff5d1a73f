//! An echo in one page of memory, without the standard library or the SDK: how small an actor can be.
//!
//! Answers `HttpServer.HandleRequest` with status 200 and the request's body, or its path when it has no body.
//! Requests and answers are MessagePack maps (`protocol/interfaces.md §2`), read and written by hand.

#![no_std]

use core::{panic::PanicInfo, slice};

#[link(wasm_import_module = "wasmbus")]
extern "C" {
    fn __guest_request(operation: *mut u8, payload: *mut u8);
    fn __guest_response(bytes: *const u8, length: usize);
    fn __guest_error(bytes: *const u8, length: usize);
}

/// Longest request, and longest answer. Two buffers and the stack fill one page.
const BUFFER_BYTES: usize = 24 * 1024;

static mut REQUEST: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];
static mut RESPONSE: [u8; BUFFER_BYTES] = [0; BUFFER_BYTES];

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

/// Called by the host, once in the life of an instance.
#[no_mangle]
pub extern "C" fn __guest_call(operation_length: usize, payload_length: usize) -> i32 {
    if operation_length.saturating_add(payload_length) > BUFFER_BYTES {
        return fail("the request is longer than 24 KiB");
    }
    // The host runs one call in a fresh instance, so nothing else can hold the buffers.
    let (request, response) = unsafe {
        let request = &raw mut REQUEST as *mut u8;
        __guest_request(request, request.add(operation_length));
        (
            slice::from_raw_parts(request as *const u8, operation_length + payload_length),
            slice::from_raw_parts_mut(&raw mut RESPONSE as *mut u8, BUFFER_BYTES),
        )
    };
    let (operation, payload) = request.split_at(operation_length);
    match operation {
        b"HttpServer.HandleRequest" => match echo(payload, response) {
            Some(length) => {
                unsafe { __guest_response(response.as_ptr(), length) };
                1
            }
            None => fail("the request is not an HTTP request, or its echo is longer than 24 KiB"),
        },
        _ => fail("only HttpServer.HandleRequest is handled"),
    }
}

fn fail(text: &str) -> i32 {
    unsafe { __guest_error(text.as_ptr(), text.len()) };
    0
}

/// Writes the answer to `payload` and says how long it is.
fn echo(payload: &[u8], response: &mut [u8]) -> Option<usize> {
    let mut reader = Reader(payload);
    let (mut path, mut body): (&[u8], &[u8]) = (b"", b"");
    for _ in 0..reader.map()? {
        match reader.bytes()? {
            b"path" => path = reader.bytes()?,
            b"body" => body = reader.bytes()?,
            _ => reader.skip()?,
        }
    }
    let echoed = if body.is_empty() { path } else { body };
    let mut length = 0;
    let mut write = |bytes: &[u8]| {
        let end = length + bytes.len();
        response.get_mut(length..end)?.copy_from_slice(bytes);
        length = end;
        Some(())
    };
    write(b"\x83\xaastatusCode\xcc\xc8\xa6header\x80\xa4body\xc5")?;
    write(&u16::try_from(echoed.len()).ok()?.to_be_bytes())?;
    write(echoed)?;
    Some(length)
}

/// The part of MessagePack that an HTTP request is made of.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A big-endian number of `width` bytes.
    fn number(&mut self, width: usize) -> Option<usize> {
        Some(self.take(width)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn marker(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    /// The number of entries of the map that comes next.
    fn map(&mut self) -> Option<usize> {
        match self.marker()? {
            marker @ 0x80..=0x8f => Some(usize::from(marker & 0x0f)),
            0xde => self.number(2),
            0xdf => self.number(4),
            _ => None,
        }
    }

    /// The text or blob that comes next.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = match self.marker()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xc4 | 0xd9 => self.number(1)?,
            0xc5 | 0xda => self.number(2)?,
            0xc6 | 0xdb => self.number(4)?,
            _ => return None,
        };
        self.take(length)
    }

    /// Steps over the text, blob, list or map that comes next, without recursion: `left` counts values still to come.
    fn skip(&mut self) -> Option<()> {
        let mut left = 1_usize;
        while left > 0 {
            left -= 1;
            let rest = self.0;
            left = left.checked_add(match self.marker()? {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
                marker @ 0x90..=0x9f => usize::from(marker & 0x0f),
                0xdc => self.number(2)?,
                0xdd => self.number(4)?,
                0x80..=0x8f | 0xde | 0xdf => {
                    self.0 = rest;
                    self.map()?.checked_mul(2)?
                }
                _ => {
                    self.0 = rest;
                    self.bytes()?;
                    0
                }
            })?;
        }
        Some(())
    }
}
