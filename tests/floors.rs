//! The floors of `src/lib.rs`: a room imports only from floors below its own. Rooms of the ground floor may import from
//! each other.
//!
//! Read from the sources: every `crate::ROOM` in code that is not a test's. What tests import is their own business.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lowest first, as `src/lib.rs` lists them.
const FLOORS: &[&[&str]] = &[
    &["error", "task", "lock", "private", "dumpable", "text_file", "users", "log", "suggest", "client_source"],
    &["wire", "store", "trust", "certificate", "allowed_hosts", "guarded_resolver", "redirect"],
    &["claims"],
    &["nats", "actor", "artifact"],
    &["host", "sdk"],
    &["lattice", "capability", "provider", "web"],
    &["config", "service"],
    &["cli"],
];

/// Above all floors: they may import anything, and nothing imports them.
const ROOF: &[&str] = &["bin", "main", "lib", "build"];

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("a directory of the sources").flatten() {
        let path = entry.path();
        // One with a `Cargo.toml` is another crate.
        if path.is_dir() {
            if !path.join("Cargo.toml").exists() {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The room of a file: the first part of its path in `src`.
fn room(path: &Path) -> String {
    let first = path.components().next().expect("a path").as_os_str().to_string_lossy().into_owned();
    first.strip_suffix(".rs").map_or(first.clone(), str::to_owned)
}

fn is_for_tests(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().contains("test"))
}

/// The code of a source: no comments, no tests at its end.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The rooms that `code` names: `crate::ROOM…`, and each member of `crate::{…}`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(first_word(rest));
            continue;
        };
        let (mut depth, mut member) = (0, String::new());
        for one in group.chars() {
            match one {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    found.insert(first_word(&std::mem::take(&mut member)));
                    continue;
                }
                _ => {}
            }
            member.push(one);
        }
        found.insert(first_word(&member));
    }
    found.remove("");
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|one| one.is_ascii_alphanumeric() || *one == '_').collect()
}

#[test]
fn a_room_imports_only_from_floors_below_its_own() {
    let floor_of: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor))).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let (mut rooms, mut wrong, mut seen) = (BTreeSet::new(), Vec::new(), 0);
    for path in files {
        let relative = path.strip_prefix(&root).expect("it is below");
        let own = room(relative);
        rooms.insert(own.clone());
        if ROOF.contains(&&*own) || is_for_tests(relative) {
            continue;
        }
        let floor =
            *floor_of.get(&*own).unwrap_or_else(|| panic!("{own} is on no floor: put it on one, here and in lib.rs"));
        for other in imports(&code(&fs::read_to_string(&path).expect("sources are text"))) {
            let Some(there) = floor_of.get(&*other).filter(|_| other != own) else { continue };
            seen += 1;
            if *there > floor || (*there == floor && floor > 0) {
                wrong.push(format!("{}: {own} (floor {floor}) imports {other} (floor {there})", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Fewer would mean that this test no longer finds the imports.
    assert!(seen > 500, "only {seen} imports were found");
    let gone: Vec<&&str> = FLOORS.iter().copied().flatten().filter(|room| !rooms.contains(**room)).collect();
    assert!(gone.is_empty(), "on a floor, and not in src: {gone:?}");
}

#[test]
fn imports_are_found_in_groups_and_alone() {
    let code = "use crate::{\n    a::{self, B},\n    c,\n    d::E,\n};\nuse crate::f;\ncrate::g::h(crate::{i});";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["a", "c", "d", "f", "g", "i"].map(str::to_owned));
}
