//! The outline of a module: how many of everything it has, read before anything is allocated for it.
//!
//! wasmi enforces counts too, but only a fixed set of them. This reads section headers, never their content; whatever
//! it lets through is validated by wasmi afterwards.

use crate::{
    actor::settings::Settings,
    error::{Error, Result},
};

/// `\0asm` and version 1.
const PREAMBLE: &[u8; 8] = b"\0asm\x01\0\0\0";

/// Numbers of the sections whose counts are limited.
mod section {
    pub const IMPORT: u8 = 2;
    pub const FUNCTION: u8 = 3;
    pub const TABLE: u8 = 4;
    pub const GLOBAL: u8 = 6;
    pub const EXPORT: u8 = 7;
    pub const ELEMENT: u8 = 9;
    pub const CODE: u8 = 10;
    pub const DATA: u8 = 11;
}

/// Counts and sizes of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Entries of the import section.
    pub imports: u32,
    /// Functions the module defines.
    pub functions: u32,
    /// Tables the module defines.
    pub tables: u32,
    /// Global variables the module defines.
    pub globals: u32,
    /// Entries of the export section.
    pub exports: u32,
    /// Element segments.
    pub element_segments: u32,
    /// Data segments.
    pub data_segments: u32,
    /// Bytes of all function bodies.
    pub code_bytes: usize,
    /// Bytes of the largest function body.
    pub largest_function_bytes: usize,
}

impl Outline {
    /// Reads the outline of `wasm`.
    ///
    /// # Errors
    /// `Invalid`: not a WebAssembly module, or its sections do not fit together.
    pub fn of(wasm: &[u8]) -> Result<Self> {
        let mut rest = wasm.strip_prefix(PREAMBLE).ok_or_else(|| {
            Error::invalid("not a valid WebAssembly module: it does not start with the magic number and version 1")
        })?;
        let mut outline = Self::default();
        while let Some((&id, after)) = rest.split_first() {
            let (content, after) = sized(after).ok_or_else(|| truncated(wasm.len() - rest.len()))?;
            outline.add(id, content).ok_or_else(|| truncated(wasm.len() - rest.len()))?;
            rest = after;
        }
        Ok(outline)
    }

    fn add(&mut self, id: u8, content: &[u8]) -> Option<()> {
        let counter = match id {
            section::IMPORT => &mut self.imports,
            section::FUNCTION => &mut self.functions,
            section::TABLE => &mut self.tables,
            section::GLOBAL => &mut self.globals,
            section::EXPORT => &mut self.exports,
            section::ELEMENT => &mut self.element_segments,
            section::DATA => &mut self.data_segments,
            section::CODE => {
                let (count, mut bodies) = leb128(content)?;
                for _ in 0..count {
                    let (body, after) = sized(bodies)?;
                    self.code_bytes += body.len();
                    self.largest_function_bytes = self.largest_function_bytes.max(body.len());
                    bodies = after;
                }
                return Some(());
            }
            _ => return Some(()),
        };
        // A repeated section is refused by the validator; here it must not lower a count.
        *counter = counter.saturating_add(leb128(content)?.0);
        Some(())
    }

    /// Compares the counts with the limits.
    ///
    /// # Errors
    /// `Limit`: names the count, its value and its limit.
    pub fn check(&self, settings: &Settings) -> Result<()> {
        for (what, count, limit) in [
            ("imports", self.imports, settings.imports),
            ("functions", self.functions, settings.functions),
            ("tables", self.tables, settings.tables),
            ("global variables", self.globals, settings.globals),
            ("exports", self.exports, settings.exports),
            ("element segments", self.element_segments, settings.element_segments),
            ("data segments", self.data_segments, settings.data_segments),
        ] {
            if count > limit {
                return Err(Error::limit(format!("the module has {count} {what}, the limit is {limit}")));
            }
        }
        Ok(())
    }
}

fn truncated(offset: usize) -> Error {
    Error::invalid(format!("not a valid WebAssembly module: the section at byte {offset} is cut off or malformed"))
}

/// Splits off what a length says.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = leb128(bytes)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

/// Reads an unsigned 32-bit LEB128 number.
pub(super) fn leb128(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0u32;
    for (at, &byte) in bytes.iter().enumerate().take(5) {
        let bits = u32::from(byte & 0x7f);
        let shift = 7 * u32::try_from(at).ok()?;
        if shift == 28 && bits > 0x0f {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_what_a_module_has() {
        let wasm = wat::parse_str(
            r#"(module (import "wasmbus" "__console_log" (func (param i32 i32)))
                (memory (export "memory") 1) (table 3 funcref) (global i32 (i32.const 1)) (global i32 (i32.const 2))
                (elem (i32.const 0) 0) (data (i32.const 0) "a") (data (i32.const 1) "b") (data (i32.const 2) "c")
                (func) (func (drop (i32.const 1)) (drop (i32.const 2))))"#,
        )
        .unwrap();
        let outline = Outline::of(&wasm).unwrap();
        assert_eq!((outline.imports, outline.functions, outline.tables, outline.globals), (1, 2, 1, 2));
        assert_eq!((outline.exports, outline.element_segments, outline.data_segments), (1, 1, 3));
        assert_eq!((outline.code_bytes, outline.largest_function_bytes), (2 + 8, 8));
    }

    #[test]
    fn each_count_has_its_limit() {
        let outline = Outline { data_segments: 10_001, ..Outline::default() };
        let error = outline.check(&Settings::default()).unwrap_err();
        assert_eq!(error.text(), "the module has 10001 data segments, the limit is 10000");
    }

    #[test]
    fn numbers_are_read_as_the_specification_says() {
        assert_eq!(leb128(&[0xe5, 0x8e, 0x26, 7]), Some((624_485, &[7][..])));
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((u32::MAX, &[][..])));
        assert_eq!(leb128(&[0xff, 0xff, 0xff, 0xff, 0x1f]), None);
        assert_eq!(leb128(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]), None);
        assert_eq!(leb128(&[0x80]), None);
    }

    proptest! {
        #[test]
        fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Outline::of(&bytes);
            let mut module = PREAMBLE.to_vec();
            module.extend(bytes);
            if let Ok(outline) = Outline::of(&module) {
                prop_assert!(outline.code_bytes <= module.len());
            }
        }
    }
}
