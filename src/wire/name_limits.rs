//! How long the names may be that come from outside: keys, link names, contracts, references, labels, names of values.
//!
//! A name travels on: into subjects, logs, tables, ping replies, records on disk. Where one enters (a command, the lattice's
//! bucket, another host's answer, the claims of a module) it is checked or cut here, so that no name blinds whoever reads
//! them. What real tools send is far below each limit.

use std::collections::BTreeMap;

use super::text::prefix;
use crate::error::{Error, Result};

/// Longest link name, key or other part of a subject, bytes: keys have 56, link names are words. Servers end the connection
/// over a subject of a few thousand. A longer one is refused.
pub const MAX_PART_BYTES: usize = 256;

/// Longest contract, bytes: `wasmcloud:keyvalue` has 18. A longer one is refused.
pub const MAX_CONTRACT_BYTES: usize = 256;

/// Longest reference to an actor or provider, bytes: the address of an image with its digest has about 200, a signed web
/// address may have 1000. A longer one is refused.
pub const MAX_REFERENCE_BYTES: usize = 4096;

/// Longest name of a link value, of an annotation and of a label, bytes. A longer one is refused.
pub const MAX_VALUE_NAME_BYTES: usize = 256;

/// Values of one link, and annotations of one command, at most; providers read a dozen. More are refused.
pub const MAX_VALUES: usize = 256;

/// Longest value of an annotation, bytes; tools put names and versions there. A longer one is refused.
pub const MAX_ANNOTATION_BYTES: usize = 4096;

/// Longest name for people that others gave to something (an actor in its claims, a host in its answer), bytes. A longer one
/// is cut: a name for people decides nothing.
pub const MAX_SHOWN_BYTES: usize = 256;

/// Labels of another host that are read at most; the rest of them is left out.
pub const MAX_SHOWN_LABELS: usize = 128;

/// Refuses a `name` of more than `most` bytes; `what` names it to the reader.
///
/// # Errors
/// [`Kind::Limit`](crate::error::Kind::Limit).
pub fn check(what: &str, name: &str, most: usize) -> Result<()> {
    if name.len() <= most {
        return Ok(());
    }
    let shown = prefix(name, 32).escape_debug();
    Err(Error::limit(format!("the {what} '{shown}…' has {} bytes, at most {most} are taken", name.len())))
}

/// Refuses values of a link that are too many, or a name among them that is too long. How long they may be together is the
/// limit of a request and of a link.
///
/// # Errors
/// [`Kind::Limit`](crate::error::Kind::Limit).
pub fn check_values(values: &BTreeMap<String, String>) -> Result<()> {
    check_count("values of a link", values)?;
    values.keys().try_for_each(|name| check("name of a link value", name, MAX_VALUE_NAME_BYTES))
}

/// Refuses annotations that are too many or too long.
///
/// # Errors
/// [`Kind::Limit`](crate::error::Kind::Limit).
pub fn check_annotations(annotations: &BTreeMap<String, String>) -> Result<()> {
    check_count("annotations", annotations)?;
    annotations.iter().try_for_each(|(name, value)| {
        check("name of an annotation", name, MAX_VALUE_NAME_BYTES)?;
        check("annotation", value, MAX_ANNOTATION_BYTES)
    })
}

fn check_count(what: &str, map: &BTreeMap<String, String>) -> Result<()> {
    if map.len() <= MAX_VALUES {
        return Ok(());
    }
    Err(Error::limit(format!("there are {} {what}, at most {MAX_VALUES} are taken", map.len())))
}

/// A name for people, cut to [`MAX_SHOWN_BYTES`].
pub fn shown(name: &str) -> String {
    prefix(name, MAX_SHOWN_BYTES).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn map(entries: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
        entries.into_iter().collect()
    }

    #[test]
    fn names_are_bounded_and_refusals_are_short() {
        let endless = "€".repeat(70_000);
        let refused = |outcome: Result<()>| {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), Kind::Limit);
            assert!(error.text().len() < 200, "{error}");
        };
        refused(check("contract", &endless, MAX_CONTRACT_BYTES));
        refused(check_values(&map([(endless.clone(), String::new())])));
        refused(check_values(&map((0..=MAX_VALUES).map(|one| (one.to_string(), String::new())))));
        refused(check_annotations(&map([(endless.clone(), String::new())])));
        refused(check_annotations(&map([("a".into(), endless.clone())])));
        assert!(shown(&endless).len() <= MAX_SHOWN_BYTES);
        // A certificate as a value of a link is taken.
        assert!(check_values(&map([("ca".into(), "x".repeat(60_000))])).is_ok());
    }
}
