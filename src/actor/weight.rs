//! What judging and translating a module takes, known before either begins.
//!
//! A few bytes of a module can cost the interpreter a thousand times as many: types, nested blocks, tables of branches, calls
//! with many parameters. So each of these has a limit of its own, and what all instructions together may become is estimated,
//! on the large side, and bounded by the size of the module. This reads the module once, forwards, and keeps two numbers for
//! each type and one for each function; whatever it lets through is validated by wasmi afterwards. The whole may then take
//! six times the module and 8 MiB more, which `tests/module_memory.rs` tries to exceed.

use wasmparser::{BlockType, FunctionBody, Operator, Parser, Payload, TypeRef};

use crate::{
    actor::outline::leb128,
    error::{Error, Result},
};

/// Types of functions. Compilers make a few hundred; each costs wasmi some 300 bytes. More are refused.
const TYPES: u32 = 10_000;

/// Parameters of a function or block. Compilers of actors make a dozen; each is copied at each call. More are refused.
const PARAMS: u32 = 128;

/// Results of a function or block. Compilers of actors make one; each is copied at each branch. More are refused.
const RESULTS: u32 = 16;

/// Local variables of a function, its parameters among them. Large functions of debug builds have two thousand. More are
/// refused.
const LOCALS: u32 = 16_384;

/// Blocks within each other. A `switch` with a thousand cases becomes a thousand of them. More are refused.
const NESTED_BLOCKS: u32 = 4_096;

/// Bytes of one function. Interpreters written in C have functions of 100 KB. While wasmi works at a function it takes some
/// 20 times as much; a larger one is refused.
const FUNCTION_BYTES: usize = 256 * 1024;

/// Entries of all element segments. Rust and TinyGo modules have some hundreds; each costs wasmi 40 bytes. More are refused.
const ELEMENT_ITEMS: u32 = 50_000;

/// What all functions may become when they are translated: so many bytes for each byte of the module, and so many more.
/// Code of compilers becomes three to four times as long.
const TRANSLATED_PER_BYTE: u64 = 4;
const TRANSLATED_BASE_BYTES: u64 = 3 << 20;

/// What an instruction becomes, bytes. wasmi writes eight for what it does and two to eight for each operand.
mod becomes {
    /// Those that only move the position on the stack.
    pub const NOTHING: u64 = 2;
    /// One operation on values.
    pub const OPERATION: u64 = 14;
    /// A branch, with the note where to that is kept until the target is known.
    pub const BRANCH: u64 = 24;
    /// One target in a table of branches.
    pub const TARGET: u64 = 16;
    /// One value that is copied to where a call, block or branch expects it.
    pub const COPY: u64 = 12;
}

/// Parameters and results of a type.
#[derive(Clone, Copy, Default)]
struct Arity {
    params: u32,
    results: u32,
}

/// What was read so far.
struct Scale {
    types: Vec<Arity>,
    /// The type of each function, imported ones first.
    functions: Vec<u32>,
    /// The most results that any type has.
    most_results: u32,
    bodies: usize,
    imported: usize,
    elements: u32,
    translated: u64,
    allowed: u64,
}

/// Refuses a module that would cost more than its size justifies. Its counts must have been checked by
/// [`Outline::check`](super::outline::Outline::check) before.
///
/// # Errors
/// `Limit`: names what there is too much of, and the limit. `Invalid`: malformed.
pub fn check(wasm: &[u8]) -> Result<()> {
    let allowed = TRANSLATED_PER_BYTE * wasm.len() as u64 + TRANSLATED_BASE_BYTES;
    let mut scale = Scale {
        types: Vec::new(),
        functions: Vec::new(),
        most_results: 0,
        bodies: 0,
        imported: 0,
        elements: 0,
        translated: 0,
        allowed,
    };
    for payload in Parser::new(0).parse_all(wasm) {
        scale.add(payload.map_err(|cause| malformed(&cause))?, wasm)?;
    }
    Ok(())
}

fn malformed(cause: &dyn std::fmt::Display) -> Error {
    Error::invalid(format!("not a valid WebAssembly module: {cause}"))
}

fn too_many(what: &str, count: impl std::fmt::Display, limit: impl std::fmt::Display) -> Error {
    Error::limit(format!("the module has {what} {count}, the limit is {limit}"))
}

impl Scale {
    fn add(&mut self, payload: Payload<'_>, wasm: &[u8]) -> Result<()> {
        match payload {
            // By hand: the reader of the crate would read all types of a group at once.
            Payload::TypeSection(reader) => {
                let content = wasm.get(reader.range()).unwrap_or_default();
                self.add_types(content)
            }
            Payload::ImportSection(reader) => {
                for import in reader {
                    if let TypeRef::Func(kind) = import.map_err(|cause| malformed(&cause))?.ty {
                        self.functions.push(kind);
                        self.imported += 1;
                    }
                }
                Ok(())
            }
            Payload::FunctionSection(reader) => {
                for kind in reader {
                    self.functions.push(kind.map_err(|cause| malformed(&cause))?);
                }
                Ok(())
            }
            Payload::ElementSection(reader) => {
                for element in reader {
                    let count = match element.map_err(|cause| malformed(&cause))?.items {
                        wasmparser::ElementItems::Functions(items) => items.count(),
                        wasmparser::ElementItems::Expressions(_, items) => items.count(),
                    };
                    self.elements = self.elements.saturating_add(count);
                    if self.elements > ELEMENT_ITEMS {
                        return Err(too_many("element items:", self.elements, ELEMENT_ITEMS));
                    }
                }
                Ok(())
            }
            Payload::CodeSectionEntry(body) => self.add_body(&body),
            _ => Ok(()),
        }
    }

    fn add_types(&mut self, content: &[u8]) -> Result<()> {
        let cut_off = || malformed(&"its types are cut off or of a kind that actors do not have");
        let (count, mut rest) = leb128(content).ok_or_else(cut_off)?;
        let total = count.saturating_add(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        if total > TYPES {
            return Err(too_many("types:", total, TYPES));
        }
        for _ in 0..count {
            rest = rest.strip_prefix(&[FUNCTION_TYPE]).ok_or_else(cut_off)?;
            let mut counts = [0; 2];
            for (count, (what, limit)) in
                counts.iter_mut().zip([("a type with parameters:", PARAMS), ("a type with results:", RESULTS)])
            {
                let (values, after) = leb128(rest).ok_or_else(cut_off)?;
                if values > limit {
                    return Err(too_many(what, values, limit));
                }
                // Each value type that wasmi knows is one byte.
                rest = after.get(values as usize..).ok_or_else(cut_off)?;
                *count = values;
            }
            let [params, results] = counts;
            self.most_results = self.most_results.max(results);
            self.types.push(Arity { params, results });
        }
        Ok(())
    }

    fn arity_of(&self, kind: u32) -> Arity {
        // What is not there is refused by the validator.
        self.types.get(kind as usize).copied().unwrap_or_default()
    }

    fn add_body(&mut self, body: &FunctionBody<'_>) -> Result<()> {
        let function = self.functions.get(self.imported + self.bodies).copied().unwrap_or(u32::MAX);
        self.bodies += 1;
        let bytes = body.range().len();
        if bytes > FUNCTION_BYTES {
            return Err(too_many("a function with bytes:", bytes, FUNCTION_BYTES));
        }
        let mut locals = self.arity_of(function).params;
        for group in body.get_locals_reader().map_err(|cause| malformed(&cause))? {
            locals = locals.saturating_add(group.map_err(|cause| malformed(&cause))?.0);
        }
        if locals > LOCALS {
            return Err(too_many("a function with local variables:", locals, LOCALS));
        }
        let mut depth = 0_u32;
        let mut operators = body.get_operators_reader().map_err(|cause| malformed(&cause))?;
        while !operators.eof() {
            let operator = operators.read().map_err(|cause| malformed(&cause))?;
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                Operator::End => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth > NESTED_BLOCKS {
                return Err(too_many("blocks within each other: more than", NESTED_BLOCKS, NESTED_BLOCKS));
            }
            self.translated = self.translated.saturating_add(self.cost(&operator));
        }
        if self.translated > self.allowed {
            return Err(Error::limit(format!(
                "the functions of the module may become more than {} bytes when they are translated, the limit for its \
                 size: it has too many calls with parameters, branches with results or tiny instructions",
                self.allowed
            )));
        }
        Ok(())
    }

    /// What `operator` may become, bytes.
    fn cost(&self, operator: &Operator<'_>) -> u64 {
        let copies = |count: u32| becomes::COPY * u64::from(count);
        let call = |arity: Arity| becomes::BRANCH + copies(arity.params) + copies(arity.results);
        match operator {
            Operator::LocalGet { .. }
            | Operator::I32Const { .. }
            | Operator::I64Const { .. }
            | Operator::F32Const { .. }
            | Operator::F64Const { .. }
            | Operator::Nop
            | Operator::Drop
            | Operator::Unreachable => becomes::NOTHING,
            Operator::End | Operator::Return => becomes::NOTHING + copies(self.most_results),
            Operator::Block { blockty } => becomes::NOTHING + copies(self.params_of(blockty)),
            Operator::Loop { blockty } | Operator::If { blockty } => becomes::BRANCH + copies(self.params_of(blockty)),
            Operator::Else | Operator::Br { .. } | Operator::BrIf { .. } => becomes::BRANCH + copies(self.most_results),
            Operator::BrTable { targets } => {
                let each = becomes::TARGET + copies(self.most_results);
                becomes::BRANCH + each * (u64::from(targets.len()) + 1)
            }
            Operator::Call { function_index } => {
                let kind = self.functions.get(*function_index as usize).copied().unwrap_or(u32::MAX);
                call(self.arity_of(kind))
            }
            Operator::CallIndirect { type_index, .. } => call(self.arity_of(*type_index)),
            _ => becomes::OPERATION,
        }
    }

    fn params_of(&self, block: &BlockType) -> u32 {
        match block {
            BlockType::FuncType(kind) => self.arity_of(*kind).params,
            BlockType::Empty | BlockType::Type(_) => 0,
        }
    }
}

/// Begins a type of a function.
const FUNCTION_TYPE: u8 = 0x60;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn refusal(text: &str) -> String {
        let error = check(&wat::parse_str(text).unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::Limit, "{error}");
        error.text().to_owned()
    }

    #[test]
    fn each_limit_has_its_own_text() {
        let values = |count: u32| "i32 ".repeat(count as usize);
        let types: String = (0..=TYPES).map(|_| "(type (func))").collect();
        assert!(refusal(&format!("(module {types})")).contains("types: 10001"));
        assert!(refusal(&format!("(module (type (func (param {}))))", values(PARAMS + 1))).contains("parameters: 129"));
        assert!(refusal(&format!("(module (type (func (result {}))))", values(RESULTS + 1))).contains("results: 17"));
        assert!(refusal(&format!("(module (func (local {})))", values(LOCALS + 1))).contains("local variables"));
        let depth = NESTED_BLOCKS as usize + 1;
        let nested = format!("{}{}", "block ".repeat(depth), "end ".repeat(depth));
        assert!(refusal(&format!("(module (func {nested}))")).contains("blocks within each other"));
        let long = "nop ".repeat(FUNCTION_BYTES);
        assert!(refusal(&format!("(module (func {long}))")).contains("a function with bytes"));
        let items = "0 ".repeat(ELEMENT_ITEMS as usize + 1);
        assert!(refusal(&format!("(module (func) (elem func {items}))")).contains("element items"));
        let calls = "call 0 ".repeat(40_000);
        let text = format!("(module (func (param {}) {calls}))", values(PARAMS));
        assert!(refusal(&text).contains("calls with parameters"));
    }

    #[test]
    fn modules_of_compilers_pass() {
        for name in ["echo", "counter", "mailbox", "hostile/stack_bomb"] {
            let path = format!("{}/tests/actors/built/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
            check(&std::fs::read(path).unwrap()).unwrap();
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut module = b"\0asm\x01\0\0\0".to_vec();
            module.extend(bytes);
            let _ = check(&module);
        }
    }
}
