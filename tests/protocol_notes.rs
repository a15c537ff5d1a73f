//! The protocol's notes that comments cite: each cited file and section exists.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Fewer would mean that this test no longer finds the citations.
const LEAST_CITATIONS: usize = 100;

fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("a directory of the sources").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files(&path, found),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
}

/// The sections of a note: the numbers its headings begin with.
fn sections(note: &str) -> BTreeSet<String> {
    let headings = note
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    headings
        .filter_map(|heading| Some(heading.split(' ').next()?.trim_end_matches('.').to_owned()))
        .filter(|number| number.starts_with(|first: char| first.is_ascii_digit()))
        .collect()
}

/// What `text` cites: files, and the sections named behind each.
fn citations(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for part in text.split("protocol/").skip(1) {
        let Some((file, rest)) = part.split_once(".md") else { continue };
        if !file.chars().all(|one| one.is_ascii_lowercase() || one == '-') {
            continue;
        }
        let mut named = Vec::new();
        let mut rest = rest;
        while let Some(after) = rest.strip_prefix(" §").or_else(|| rest.strip_prefix(", §")) {
            let end = after.find(|one: char| !one.is_ascii_digit() && one != '.').unwrap_or(after.len());
            named.push(after[..end].trim_end_matches('.').to_owned());
            rest = &after[end..];
        }
        found.push((file.to_owned(), named));
    }
    found
}

#[test]
fn each_cited_section_of_the_protocol_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for below in ["src", "tests"] {
        files(&root.join(below), &mut sources);
    }
    let (mut count, mut missing) = (0, Vec::new());
    for source in sources.iter().filter(|source| !source.ends_with("tests/protocol_notes.rs")) {
        // A citation may be cut by the end of a line of a comment.
        let text = fs::read_to_string(source).expect("sources are text");
        let text =
            text.split_whitespace().filter(|word| !matches!(*word, "//" | "//!" | "///")).collect::<Vec<_>>().join(" ");
        for (file, named) in citations(&text) {
            count += 1;
            let Ok(note) = fs::read_to_string(root.join(format!("src/wire/protocol/{file}.md"))) else {
                missing.push(format!("{}: protocol/{file}.md", source.display()));
                continue;
            };
            let there = sections(&note);
            let gone = named.into_iter().filter(|section| !there.contains(section));
            missing.extend(gone.map(|section| format!("{}: protocol/{file}.md §{section}", source.display())));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count >= LEAST_CITATIONS, "only {count} citations were found");
}
