//! The modules in `tests/actors/built` are what the sources beside them give.
//!
//! `tests/actors/build` writes down the SHA-256 of every file it read and made; file times say nothing after a clone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

const REMEDY: &str = "run tests/actors/build and commit tests/actors";

/// Path below `tests/actors` to the hash of its content: every file that is a source or a module.
fn files(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        let below: PathBuf = path.strip_prefix(root).expect("it is below the root").into();
        let name = below.to_str().expect("names of guests are UTF-8").to_string();
        if name == "target"
            || name == "built/CHECKSUMS"
            || below.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.')
        {
            continue;
        }
        if path.is_dir() {
            files(root, &path, found);
        } else {
            let bytes = fs::read(&path).expect("the file can be read");
            found.insert(name, HEXLOWER.encode(&Sha256::digest(bytes)));
        }
    }
}

#[test]
fn no_source_changed_after_its_module_was_built() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/actors"));
    let checksums = fs::read_to_string(root.join("built/CHECKSUMS")).expect(REMEDY);
    let built: BTreeMap<String, String> = checksums
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once("  ").expect("a line of sha256sum: HASH, two spaces, PATH"))
        .map(|(hash, name)| (name.to_string(), hash.to_string()))
        .collect();
    let mut present = BTreeMap::new();
    files(root, root, &mut present);

    let mut stale: Vec<String> = Vec::new();
    for (name, hash) in &present {
        match built.get(name) {
            None => stale.push(format!("{name} is new")),
            Some(recorded) if recorded != hash => stale.push(format!("{name} changed")),
            Some(_) => {}
        }
    }
    stale.extend(built.keys().filter(|name| !present.contains_key(*name)).map(|name| format!("{name} is gone")));
    assert!(stale.is_empty(), "since the modules were built: {}; {REMEDY}", stale.join(", "));
    assert!(built.contains_key("built/echo.wasm"), "the list of modules is empty; {REMEDY}");
}
