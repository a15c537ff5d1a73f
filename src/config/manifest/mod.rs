//! wadm application manifests: the files that wasmCloud users already write.
//!
//! Called by `latticed run` and `latticed check`. [`parse`] is pure; [`read`] adds the one file. References are checked
//! for what they mean, not opened.

mod model;
mod reader;
mod tree;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::Path};

pub use model::{Actor, Application, Capability, Link};
pub use tree::{MAX_BYTES, Position};

use crate::{
    artifact::{Limit, file::read_blocking},
    error::{Error, Result},
    text_file::{is_blank, without_mark},
};
use model::Place;
use tree::Flaw;

/// Reads the manifest at `path`. Relative references count from its directory. Blocks for the length of one file.
///
/// # Errors
/// As [`parse`]; the file cannot be read or is no text; `Unavailable` for an empty one.
pub fn read(path: &Path, labels: &BTreeMap<String, String>) -> Result<Application> {
    let bytes = read_blocking(path, Limit::fixed(MAX_BYTES))?;
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|_| Error::config(format!("{name}: a manifest is UTF-8 text")))?;
    if is_blank(&text) {
        return Err(Error::unavailable(format!(
            "{name} is empty, as a power cut can leave a file: what came from it before is left as it is; write it again"
        )));
    }
    let directory = std::path::absolute(path)
        .map_err(|cause| Error::config(format!("cannot tell the directory of {name}: {cause}")))?;
    parse(&name, &text, directory.parent().unwrap_or(Path::new("/")), labels)
}

/// Reads the text of the manifest called `file`, whose relative references count from `directory`, for a host with
/// `labels`.
///
/// # Errors
/// `Config`, as `FILE:LINE:COLUMN: text`: no YAML, no manifest, or one that makes no sense.
pub fn parse(file: &str, text: &str, directory: &Path, labels: &BTreeMap<String, String>) -> Result<Application> {
    let at = |flaw: Flaw| format!("{file}:{}: {}", flaw.position, flaw.text);
    let read = || {
        let root = tree::parse(without_mark(text))?;
        model::application(&root, &Place { directory, labels })
    };
    let (mut application, mut warnings) = read().map_err(|flaw| Error::config(at(flaw)))?;
    warnings.sort_by_key(|flaw| flaw.position);
    application.warnings = warnings.into_iter().map(at).collect();
    Ok(application)
}
