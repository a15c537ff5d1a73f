//! The list of what is published, drawn for browsers, scripts and programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::request::Format;
use crate::{
    error::{Error, Result},
    store::Digest,
};

/// One published name.
#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// The name.
    pub name: String,
    /// `sha256:` and the digest.
    pub digest: String,
    /// Length of the content.
    pub bytes: u64,
}

impl Entry {
    pub(super) fn new(name: String, digest: Digest, bytes: u64) -> Self {
        Self { name, digest: format!("sha256:{digest}"), bytes }
    }

    fn hex(&self) -> &str {
        self.digest.trim_start_matches("sha256:")
    }
}

#[derive(Serialize)]
struct Document<'a> {
    artifacts: &'a [Entry],
}

/// Media type and text of the list.
pub(super) fn draw(entries: &[Entry], format: Format) -> Result<(&'static str, String)> {
    Ok(match format {
        Format::Json => (
            "application/json",
            serde_json::to_string(&Document { artifacts: entries })
                .map_err(|cause| Error::internal(format!("cannot write the list: {cause}")))?,
        ),
        Format::Text => ("text/plain; charset=utf-8", text(entries)),
        Format::Html => ("text/html; charset=utf-8", html(entries)),
    })
}

fn text(entries: &[Entry]) -> String {
    entries.iter().fold(String::new(), |mut text, entry| {
        // Writing to a String cannot fail. Two spaces, as sha256sum writes and reads them.
        let _ = writeln!(text, "{}  {}", entry.hex(), entry.name);
        text
    })
}

/// Names hold no character that means something in HTML, and digests neither.
fn html(entries: &[Entry]) -> String {
    let mut page = String::from(
        "<!doctype html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>Artifacts of this board</title>\
         <style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em 1em .2em 0;text-align:left}\
         code{font-size:85%}</style><h1>Artifacts of this board</h1>\
         <table><tr><th>Name<th>Bytes<th>SHA-256",
    );
    for entry in entries {
        let (name, hex) = (&entry.name, entry.hex());
        let _ = write!(
            page,
            "<tr><td><a href=\"/{name}\">{name}</a><td>{}<td><a href=\"/sha256:{hex}\"><code>{hex}</code></a>",
            entry.bytes
        );
    }
    page.push_str("</table>\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reader_gets_its_list() {
        let entries = [Entry::new("site/echo".into(), Digest([10; 32]), 7)];
        let hex = "0a".repeat(32);
        assert_eq!(draw(&entries, Format::Text).unwrap().1, format!("{hex}  site/echo\n"));
        let json: serde_json::Value = serde_json::from_str(&draw(&entries, Format::Json).unwrap().1).unwrap();
        let expected = serde_json::json!({"artifacts": [
            {"name": "site/echo", "digest": format!("sha256:{hex}"), "bytes": 7},
        ]});
        assert_eq!(json, expected);
        let page = draw(&entries, Format::Html).unwrap().1;
        assert!(page.contains("<a href=\"/site/echo\">site/echo</a>") && page.contains(&hex), "{page}");
    }
}
