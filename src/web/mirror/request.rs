//! What a request of the mirror asks for, and on which conditions (RFC 9110 §13, §14). Plain functions, no I/O.

use percent_encoding::percent_decode_str;

use crate::{artifact::published::check_name, store::Digest};

/// What comes before a digest in a path and in an ETag.
const DIGEST_MARK: &str = "sha256:";

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The list.
    List,
    /// Content by its digest.
    Content(Digest),
    /// Content by a published name.
    Name(String),
}

/// Reads a path; `None` for what can be nothing here. A name is looked up in a table and is never a path of the disk.
pub(super) fn target(path: &str) -> Option<Target> {
    let rest = path.strip_prefix('/')?;
    if rest.is_empty() {
        return Some(Target::List);
    }
    let decoded = percent_decode_str(rest).decode_utf8().ok()?;
    match decoded.strip_prefix(DIGEST_MARK) {
        Some(digest) => digest.parse().ok().map(Target::Content),
        None => check_name(&decoded).ok().map(|()| Target::Name(decoded.into_owned())),
    }
}

/// The ETag of content: strong, as the content is its digest's alone.
pub(super) fn etag(digest: Digest) -> String {
    format!("\"{DIGEST_MARK}{digest}\"")
}

/// Whether `If-None-Match` says that the client has it already.
pub(super) fn is_known(if_none_match: &str, etag: &str) -> bool {
    let same = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag) == etag;
    if_none_match.trim() == "*" || if_none_match.split(',').map(str::trim).any(same)
}

/// Which bytes of `length` are wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    Whole,
    /// From the first up to, not including, the second.
    Some(u64, u64),
    /// None that are there.
    Nothing,
}

/// Reads `Range`. What is malformed, or asks for several parts, means all of it, as it must be ignored.
pub(super) fn part(range: Option<&str>, length: u64) -> Part {
    let Some((first, last)) = range
        .and_then(|range| range.trim().strip_prefix("bytes="))
        .filter(|range| !range.contains(','))
        .and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    // Digits alone: `parse` would take a sign.
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Part::Whole;
    }
    // More than fits is more than there is.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    match (first, last) {
        ("", "") => Part::Whole,
        ("", count) => match number(count).min(length) {
            0 => Part::Nothing,
            count => Part::Some(length - count, length),
        },
        (first, last) => {
            let first = number(first);
            let last = if last.is_empty() { u64::MAX } else { number(last) };
            if last < first {
                Part::Whole
            } else if first >= length {
                Part::Nothing
            } else {
                Part::Some(first, last.saturating_add(1).min(length))
            }
        }
    }
}

/// How the list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Lines that `sha256sum -c` reads.
    Text,
    /// For programs.
    Json,
    /// For browsers.
    Html,
}

/// Reads `Accept`: browsers name HTML, programs that want JSON say so, curl takes anything.
pub(super) fn format(accept: &str) -> Format {
    if accept.contains("application/json") {
        Format::Json
    } else if accept.contains("text/html") {
        Format::Html
    } else {
        Format::Text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_name_the_list_a_digest_or_a_name_and_never_a_file() {
        let digest = "0a".repeat(32);
        assert_eq!(target("/"), Some(Target::List));
        assert_eq!(target(&format!("/sha256:{digest}")), Some(Target::Content(Digest([10; 32]))));
        assert_eq!(target(&format!("/sha256%3A{digest}")), Some(Target::Content(Digest([10; 32]))));
        assert_eq!(target("/site/echo.wasm"), Some(Target::Name("site/echo.wasm".into())));
        assert_eq!(target("/a%2Fb"), Some(Target::Name("a/b".into())));
        for bad in
            ["", "x", "//", "/../etc/passwd", "/%2e%2e/x", "/a/..%2f..", "/%00", "/%ff", "/sha256:xy", "/.x", "*"]
        {
            assert_eq!(target(bad), None, "{bad}");
        }
    }

    #[test]
    fn conditions_are_read_as_the_standard_says() {
        let tag = etag(Digest([10; 32]));
        assert!(is_known(&tag, &tag) && is_known("*", &tag) && is_known(&format!("\"x\", W/{tag}"), &tag));
        assert!(!is_known("\"x\"", &tag) && !is_known("", &tag) && !is_known(tag.trim_matches('"'), &tag));

        let part = |range: &str| part(Some(range), 10);
        assert_eq!(part("bytes=0-0"), Part::Some(0, 1));
        assert_eq!(part("bytes=4-"), Part::Some(4, 10));
        assert_eq!(part("bytes=4-99999999999999999999999999"), Part::Some(4, 10));
        assert_eq!(part("bytes=-3"), Part::Some(7, 10));
        assert_eq!(part("bytes=-99"), Part::Some(0, 10));
        for nothing in ["bytes=10-", "bytes=99999999999999999999-", "bytes=-0"] {
            assert_eq!(part(nothing), Part::Nothing, "{nothing}");
        }
        for ignored in
            ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "bytes=a-b", "bytes=+1-2", "lines=0-1", "0-1"]
        {
            assert_eq!(part(ignored), Part::Whole, "{ignored}");
        }
        assert_eq!(super::part(None, 10), Part::Whole);
        assert_eq!(super::part(Some("bytes=0-"), 0), Part::Nothing);
    }

    #[test]
    fn the_list_comes_as_it_is_asked_for() {
        assert_eq!(format("*/*"), Format::Text);
        assert_eq!(format("application/json"), Format::Json);
        assert_eq!(format("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Format::Html);
    }

    proptest! {
        #[test]
        fn any_range_stays_inside(range in any::<String>(), length: u64) {
            if let Part::Some(first, end) = part(Some(&format!("bytes={range}")), length) {
                prop_assert!(first < end && end <= length);
            }
        }

        #[test]
        fn any_path_is_a_safe_name_or_nothing(path in any::<String>()) {
            if let Some(Target::Name(name)) = target(&format!("/{path}")) {
                prop_assert!(name.split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
            }
        }
    }
}
