//! What a reference means: the text that an operator, a manifest or a client gives for "these bytes".
//!
//! Pure: parses and explains, never opens anything. The text is kept byte for byte, because clients compare the
//! reference in an event with the one they sent (`protocol/wash.md`, "Ref match trap").

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    store::Digest,
};

/// Longest reference taken, bytes. Registries allow 255 for a name and 128 for a tag, Linux 4096 for a path; longer
/// text is a mistake and would only fill logs and status.
pub const MAX_REFERENCE_BYTES: usize = 4096 + "file://".len();

/// Comes before the digest of a download.
const WEB_DIGEST: &str = "#sha256=";

/// Longest name after `builtin:`, bytes. The longest one that exists has 10.
pub const MAX_BUILTIN_BYTES: usize = 64;

/// How much of a refused reference an error repeats, characters: enough to recognise it.
const SHOWN_CHARACTERS: usize = 120;

/// A parsed reference together with its text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    text: String,
    source: Source,
}

/// Where the bytes behind a reference are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// `file://PATH`: a file of this machine. The path is taken literally, without percent decoding; a relative one
    /// counts from where the reference was written (the manifest's directory, the working directory).
    File(PathBuf),
    /// `builtin:NAME`: a provider that is part of this program.
    Builtin(String),
    /// Elsewhere: fetched by the source that is registered for it.
    Remote(Remote),
}

/// A place to fetch from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Remote {
    /// `REGISTRY/REPOSITORY[:TAG][@sha256:…]`.
    Image,
    /// `https://…`.
    Https,
    /// `http://…`.
    Http,
    /// `nats://BUCKET/NAME`: an object in a NATS object store.
    Nats,
    /// `mirror://NAME@sha256:…`: the store of another board.
    Mirror,
    /// `bindle://…`, of the reference host; recognised so that the error is a good one.
    Bindle,
}

impl Remote {
    /// The place in words, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Remote::Image => "an image in a registry",
            Remote::Https => "a download over HTTPS",
            Remote::Http => "a download over HTTP",
            Remote::Nats => "an object in a NATS object store",
            Remote::Mirror => "an artifact of another board's mirror",
            Remote::Bindle => "a bindle",
        }
    }
}

impl Reference {
    /// Reads `text`.
    ///
    /// # Errors
    /// `Invalid`, with what was probably meant: an unknown scheme, a bare path, an empty or malformed name.
    pub fn parse(text: &str) -> Result<Self> {
        let source = source(text).map_err(|reason| {
            if text.is_empty() {
                return Error::invalid("the reference is empty; write file://PATH or builtin:NAME");
            }
            Error::invalid(format!("the reference {} {reason}", shown(text)))
        })?;
        Ok(Self { text: text.to_owned(), source })
    }

    /// The reference as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it points to.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether what it points to can never change: it carries a digest, be it of a manifest or of the content.
    pub fn is_pinned(&self) -> bool {
        match self.source {
            Source::Remote(Remote::Https | Remote::Http) => self.text.contains(WEB_DIGEST),
            Source::Remote(_) => self.text.contains("@sha256:"),
            Source::File(_) | Source::Builtin(_) => false,
        }
    }

    /// The digest of the content, where the reference carries it. That of an image is the digest of its manifest and
    /// therefore not given here.
    ///
    /// # Errors
    /// `Invalid` when it is malformed, or missing from a download or a mirror's artifact, which are never fetched
    /// without.
    pub fn content_digest(&self) -> Result<Option<Digest>> {
        let (mark, required) = match self.source {
            Source::Remote(Remote::Https | Remote::Http) => (WEB_DIGEST, true),
            Source::Remote(Remote::Nats | Remote::Mirror) => ("@sha256:", false),
            _ => return Ok(None),
        };
        match self.text.rsplit_once(mark) {
            Some((_, digest)) => self.read_digest(digest).map(Some),
            None if required => Err(Error::invalid(format!(
                "the reference {} lacks its digest; end it with {mark} and the SHA-256 of the content, as sha256sum prints it",
                shown(&self.text)
            ))),
            None => Ok(None),
        }
    }

    /// The digest of the manifest of an image, where the reference carries it.
    ///
    /// # Errors
    /// `Invalid` when it is malformed.
    pub fn manifest_digest(&self) -> Result<Option<Digest>> {
        match self.source {
            Source::Remote(Remote::Image) => {
                self.text.split_once("@sha256:").map(|(_, digest)| self.read_digest(digest)).transpose()
            }
            _ => Ok(None),
        }
    }

    fn read_digest(&self, digest: &str) -> Result<Digest> {
        digest.parse().map_err(|error: Error| error.context(format!("the reference {}", shown(&self.text))))
    }

    /// Whether its bytes come over a network, by a source that there can be.
    pub fn is_fetched(&self) -> bool {
        matches!(&self.source, Source::Remote(remote) if *remote != Remote::Bindle)
    }

    /// The path of a file reference as seen from `base`; `None` for every other source.
    pub fn path_from(&self, base: &Path) -> Option<PathBuf> {
        match &self.source {
            Source::File(path) => Some(base.join(path)),
            Source::Builtin(_) | Source::Remote(_) => None,
        }
    }

    /// The error of whoever is asked for something that this source cannot give; `wanted` says what, `an actor`.
    pub fn cannot_give(&self, wanted: &str) -> Error {
        match &self.source {
            Source::Remote(remote) => {
                let why = match remote {
                    Remote::Nats => "which only a host in a lattice can fetch",
                    Remote::Mirror => "which needs the address of that mirror in WASMCLOUD_MIRRORS",
                    _ => "which this version cannot fetch",
                };
                Error::unavailable(format!(
                    "{} is {}, {why}; copy it to this machine and refer to it as file://PATH",
                    shown(&self.text),
                    remote.name()
                ))
            }
            Source::Builtin(_) => Error::invalid(format!(
                "{} is a provider of this program and not {wanted}; refer to {wanted} as file://PATH",
                shown(&self.text)
            )),
            Source::File(_) => Error::invalid(format!(
                "{} is a file, which cannot be {wanted} in this version; refer to {wanted} as builtin:NAME",
                shown(&self.text)
            )),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `text` in quotes, escaped and cut, so that hostile text can neither fill nor forge a line of the log.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// `text` as a remedy repeats it: as it is while short, `PATH` when it would fill the line.
fn path_of(text: &str) -> &str {
    if text.len() <= SHOWN_CHARACTERS { text } else { "PATH" }
}

/// Why a path from somebody's home directory is refused: a service has another home than whoever wrote the reference.
const HOME_REFUSED: &str = "begins with ~, which only a shell replaces; write the path in full, file:///home/NAME/FILE";

/// The source that `text` names, or the reason why it names none, to be read after the reference itself.
fn source(text: &str) -> Result<Source, String> {
    if text.len() > MAX_REFERENCE_BYTES {
        return Err(format!("has {} bytes, more than the {MAX_REFERENCE_BYTES} allowed", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("holds a control character; check for a line end or a tab that slipped in".to_owned());
    }
    if text.trim() != text {
        return Err("begins or ends with a space; remove it".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return match scheme {
            "file" if rest.is_empty() => Err("names no file; write file://PATH".to_owned()),
            "file" if rest.starts_with("~/") => Err(HOME_REFUSED.to_owned()),
            "file" => Ok(Source::File(PathBuf::from(rest))),
            "builtin" => Err(format!("has two slashes too many; write builtin:{}", path_of(rest))),
            _ if rest.is_empty() => Err("names nothing after the scheme".to_owned()),
            "https" => Ok(Source::Remote(Remote::Https)),
            "http" => Ok(Source::Remote(Remote::Http)),
            "nats" => Ok(Source::Remote(Remote::Nats)),
            "mirror" => Ok(Source::Remote(Remote::Mirror)),
            "bindle" => Ok(Source::Remote(Remote::Bindle)),
            _ => Err("has a scheme nobody knows; write file://PATH or builtin:NAME".to_owned()),
        };
    }
    if let Some(name) = text.strip_prefix("builtin:") {
        return builtin(name);
    }
    if let Some(path) = text.strip_prefix("file:") {
        return Err(format!("lacks its two slashes; write file://{}", path_of(path)));
    }
    if text.starts_with('~') {
        return Err(HOME_REFUSED.to_owned());
    }
    if text.starts_with(['/', '.']) {
        return Err(format!("looks like a path; write file://{}", path_of(text)));
    }
    if is_image(text) {
        return Ok(Source::Remote(Remote::Image));
    }
    Err(format!(
        "is neither file://PATH nor builtin:NAME nor REGISTRY/REPOSITORY:TAG; if a file is meant, write file://{}",
        path_of(text)
    ))
}

fn builtin(name: &str) -> Result<Source, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() {
        return Err("names no provider; write builtin:NAME, for instance builtin:httpserver".to_owned());
    }
    if name.len() > MAX_BUILTIN_BYTES || !name.bytes().all(plain) {
        return Err(format!(
            "names no provider: a name has lower-case letters, digits and hyphens, at most {MAX_BUILTIN_BYTES}"
        ));
    }
    Ok(Source::Builtin(name.to_owned()))
}

/// Whether `text` has the shape `REGISTRY/REPOSITORY[:TAG][@sha256:…]`. The registry must show itself by a dot, a port
/// or the name `localhost`, as there is no default one.
fn is_image(text: &str) -> bool {
    let (named, digest) = match text.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (text, None),
    };
    let Some((registry, path)) = named.split_once('/') else { return false };
    let (repository, tag) = match path.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    is_registry(registry)
        && repository.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    host.split('.').all(label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && (port.is_some() || host.contains('.') || host == "localhost")
}

/// Upper case is allowed here: the reference host lower-cases before it pulls (`protocol/config.md §6`).
fn is_component(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.bytes().all(inner)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

fn is_tag(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=128).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn parsed(text: &str) -> Source {
        Reference::parse(text).expect(text).source().clone()
    }

    fn refusal(text: &str) -> String {
        let error = Reference::parse(text).expect_err(text);
        assert_eq!(error.kind(), Kind::Invalid);
        error.text().to_owned()
    }

    #[test]
    fn files_are_taken_literally() {
        assert_eq!(parsed("file:///opt/a%20b.wasm"), Source::File("/opt/a%20b.wasm".into()));
        assert_eq!(parsed("file://echo_s.wasm"), Source::File("echo_s.wasm".into()));
        assert_eq!(parsed("file://./echo: s.wasm"), Source::File("./echo: s.wasm".into()));
    }

    #[test]
    fn a_relative_file_counts_from_the_base() {
        let from = |text: &str| Reference::parse(text).expect(text).path_from(Path::new("/srv/app"));
        assert_eq!(from("file://a/b.wasm"), Some("/srv/app/a/b.wasm".into()));
        assert_eq!(from("file:///b.wasm"), Some("/b.wasm".into()));
        assert_eq!(from("builtin:keyvalue"), None);
    }

    #[test]
    fn builtins_are_plain_names() {
        assert_eq!(parsed("builtin:httpserver"), Source::Builtin("httpserver".into()));
        assert!(refusal("builtin:").contains("builtin:httpserver"));
        assert!(refusal("builtin:HTTP").contains("lower-case"));
        assert!(refusal("builtin:../x").contains("lower-case"));
        assert!(refusal("builtin://httpserver").contains("write builtin:httpserver"));
    }

    #[test]
    fn other_places_are_told_apart() {
        let digest = format!("localhost:5000/echo@sha256:{}", "0a".repeat(32));
        for (text, remote) in [
            ("wasmcloud.azurecr.io/echo:0.3.8", Remote::Image),
            ("ghcr.io/Someone/my_actor:v1", Remote::Image),
            ("localhost/echo", Remote::Image),
            (digest.as_str(), Remote::Image),
            ("https://example.org/echo.wasm#sha256=00", Remote::Https),
            ("http://example.org/echo.wasm", Remote::Http),
            ("nats://actors/echo", Remote::Nats),
            ("mirror://echo@sha256:00", Remote::Mirror),
            ("bindle://example.com/echo/1.0", Remote::Bindle),
        ] {
            assert_eq!(parsed(text), Source::Remote(remote), "{text}");
            let error = Reference::parse(text).expect(text).cannot_give("an actor");
            assert_eq!(error.kind(), Kind::Unavailable);
            assert!(error.text().contains(remote.name()) && error.text().contains("file://PATH"), "{error}");
        }
    }

    #[test]
    fn mistakes_are_answered_with_what_was_meant() {
        assert!(refusal("").contains("empty"));
        assert!(refusal("./echo.wasm").contains("write file://./echo.wasm"));
        assert!(refusal("/opt/echo.wasm").contains("write file:///opt/echo.wasm"));
        assert!(refusal("file:/opt/echo.wasm").contains("write file:///opt/echo.wasm"));
        assert!(refusal("file://").contains("no file"));
        assert!(refusal("echo_s.wasm").contains("write file://echo_s.wasm"));
        assert!(refusal("build/echo_s.wasm").contains("write file://build/echo_s.wasm"));
        assert!(refusal("ftp://example.org/x").contains("scheme"));
        assert!(refusal("https://").contains("nothing"));
        assert!(refusal(" file://x").contains("space"));
        assert!(refusal("file://x\nlatticed: all is well").contains("control"));
        assert!(refusal("example.org/echo:").contains("neither"));
        assert!(refusal("example.org/echo@sha256:00").contains("neither"));
        assert!(refusal(&"x".repeat(MAX_REFERENCE_BYTES + 1)).len() < 500);
        assert!(refusal(&"x".repeat(MAX_REFERENCE_BYTES)).len() < 500);
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused_in_one_line(text in any::<String>()) {
            match Reference::parse(&text) {
                Ok(reference) => prop_assert_eq!(reference.text(), text.as_str()),
                Err(error) => prop_assert!(!error.text().chars().any(char::is_control)),
            }
        }

        #[test]
        fn every_path_can_be_written(path in "[^\\p{Cc} ]([^\\p{Cc}]{0,40}[^\\p{Cc} ])?") {
            prop_assume!(path.trim() == path && !path.starts_with("~/"));
            prop_assert_eq!(parsed(&format!("file://{path}")), Source::File(path.into()));
        }

        #[test]
        fn images_of_the_usual_shape_are_recognised(
            text in "[a-z][a-z0-9-]{0,10}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?(/[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?){1,3}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,9})?(@sha256:[0-9a-f]{64})?"
        ) {
            prop_assert_eq!(parsed(&text), Source::Remote(Remote::Image));
        }
    }
}
