//! The sections of a WebAssembly binary: where each begins and ends, and nothing about what is in it.
//!
//! Called by [`super::module`]. It borrows the input and never allocates, so hostile lengths and counts cost nothing;
//! whether the contents make a valid module is the interpreter's question.

use crate::error::{Error, Result};

/// Preamble of a core module.
pub(super) const CORE: [u8; 8] = *b"\0asm\x01\0\0\0";
/// Preamble of a component.
pub(super) const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";

/// Id of a custom section.
pub(super) const CUSTOM: u8 = 0;
/// Id of the section of a component that holds a core module.
const NESTED_MODULE: u8 = 1;
/// Id of the section of a component that holds a component.
const NESTED_COMPONENT: u8 = 4;

/// How deep components may nest modules and components. Tools make two or three levels; each costs one stack frame, and
/// a deeper binary is refused.
pub(super) const MAX_NESTING: u8 = 16;

/// What a binary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Core,
    Component,
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section<'a> {
    pub id: u8,
    /// What follows the length.
    pub content: &'a [u8],
    /// Whether the content is a module or component of its own.
    pub is_nested: bool,
}

impl<'a> Section<'a> {
    /// Name and content of a custom section; `None` for every other section.
    pub fn custom(&self) -> Result<Option<(&'a [u8], &'a [u8])>> {
        if self.id != CUSTOM {
            return Ok(None);
        }
        let mut rest = self.content;
        let length = read_u32(&mut rest).ok_or_else(|| Error::invalid("a custom section has a malformed name"))?;
        rest.split_at_checked(length as usize)
            .map(Some)
            .ok_or_else(|| Error::invalid("the name of a custom section is longer than the section"))
    }
}

/// The sections of one binary, in order. After an error there is nothing more.
pub(super) struct Sections<'a> {
    encoding: Encoding,
    total: usize,
    rest: &'a [u8],
}

impl<'a> Sections<'a> {
    /// Reads the preamble.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (encoding, rest) = if let Some(rest) = bytes.strip_prefix(&CORE) {
            (Encoding::Core, rest)
        } else if let Some(rest) = bytes.strip_prefix(&COMPONENT) {
            (Encoding::Component, rest)
        } else {
            return Err(Error::invalid(match bytes {
                [0, b'a', b's', b'm', ..] => "its WebAssembly version is not known here",
                [0x1f, 0x8b, ..] => "it is compressed with gzip, as archives of providers are: start it as a provider",
                [b'(', ..] => "it is WebAssembly text; convert it to binary first",
                _ => "it is not WebAssembly: it does not start with the bytes 00 61 73 6d",
            }));
        };
        Ok(Self { encoding, total: bytes.len(), rest })
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    fn read(&mut self) -> Result<Section<'a>> {
        let at = self.total - self.rest.len();
        let (id, mut rest) = self.rest.split_first().map(|(id, rest)| (*id, rest)).unwrap_or((CUSTOM, &[]));
        let length = read_u32(&mut rest)
            .ok_or_else(|| Error::invalid(format!("the section at byte {at} has a malformed length")))?;
        let (content, rest) = rest.split_at_checked(length as usize).ok_or_else(|| {
            Error::invalid(format!(
                "the section at byte {at} claims {length} bytes, {} are left; the file is cut short or damaged",
                rest.len()
            ))
        })?;
        self.rest = rest;
        let is_nested = self.encoding == Encoding::Component && matches!(id, NESTED_MODULE | NESTED_COMPONENT);
        Ok(Section { id, content, is_nested })
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Result<Section<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let section = self.read();
        if section.is_err() {
            self.rest = &[];
        }
        Some(section)
    }
}

/// Reads an unsigned LEB128 of at most 32 bits; padding up to five bytes is allowed, as linkers write it.
fn read_u32(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

/// The shortest LEB128 of `value`: a buffer and how much of it counts.
pub(super) fn minimal_leb(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut length = 0;
    loop {
        bytes[length] = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, length + 1);
        }
        bytes[length] |= 0x80;
        length += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_beyond_32_bits_or_five_bytes_are_malformed() {
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x1f][..], &[0x80; 6], &[0x80, 0x80], &[]] {
            let mut rest = bytes;
            assert_eq!(read_u32(&mut rest), None, "{bytes:?}");
        }
        let mut padded = &[0x83, 0x80, 0x80, 0x80, 0x00, 7][..];
        assert_eq!((read_u32(&mut padded), padded), (Some(3), &[7][..]));
    }

    #[test]
    fn what_is_not_webassembly_is_told_apart() {
        for (bytes, expected) in [
            (&b"(module)"[..], "text"),
            (b"\0asm\x02\0\0\0", "version"),
            (b"\x7fELF", "not WebAssembly"),
            (b"", "not WebAssembly"),
        ] {
            let refusal = Sections::new(bytes).err().unwrap();
            assert!(refusal.text().contains(expected), "{refusal}");
        }
    }

    proptest! {
        #[test]
        fn minimal_lengths_read_back(value: u32) {
            let (bytes, length) = minimal_leb(value);
            let mut rest = &bytes[..length];
            prop_assert_eq!(read_u32(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
