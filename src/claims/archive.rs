//! Provider archives, read: a tar stream, perhaps gzip-compressed, of one token and one binary per target
//! (`protocol/claims.md §4`).
//!
//! Called by [`super::verify_provider`] and by `latticed archive inspect`. The archive is streamed: whatever its size and
//! compression, memory holds the token and a copy buffer. Reading blocks, and never writes a file by a name that the
//! archive chose.

use std::{
    env::consts::{ARCH, OS},
    ffi::OsStr,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use data_encoding::HEXUPPER;
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use super::{
    body::Provider,
    token::{MAX_TOKEN_BYTES, Token},
};
use crate::error::{Context, Error, Kind, Result};

/// Largest binary that is read out of an archive, bytes. Providers of this line have 10 to 60 MiB; a larger one would not
/// run beside a host on a board of 512 MiB. Refused above.
pub const MAX_BINARY_BYTES: u64 = 128 * 1024 * 1024;

/// Largest archive, unpacked, bytes: room for every known target at usual sizes. It bounds the time that a file of
/// endless zeros, compressed to nothing, can take. Refused above.
pub const MAX_UNPACKED_BYTES: u64 = 1024 * 1024 * 1024;

/// Largest archive, unpacked, as a multiple of what it has compressed, and what any may have beside that: binaries become a
/// third to a fifth. Where an archive comes from somebody else, a small one cannot have this machine work for seconds. Refused
/// above.
const UNPACKED_PER_BYTE: u64 = 20;
/// See [`UNPACKED_PER_BYTE`].
const UNPACKED_BASE_BYTES: u64 = 4 << 20;

/// Most entries of an archive; real ones have at most a dozen. Refused above.
pub const MAX_ENTRIES: usize = 64;

/// First bytes of a gzip stream.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// First bytes of a WebAssembly module.
const MODULE_MAGIC: [u8; 2] = [0, b'a'];
/// File stem of the token's entry.
pub(super) const CLAIMS_STEM: &str = "claims";

/// The target of this host: `x86_64-linux`, `aarch64-linux`, `arm-linux`.
pub fn host_target() -> String {
    format!("{ARCH}-{OS}")
}

/// Which binaries are read and hashed.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// One; it is written to the sink, and its absence is an error.
    Target(&'a str),
    /// All; each is only hashed.
    Everything,
}

/// A binary in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binary {
    /// `x86_64-linux`.
    pub target: String,
    /// Its length.
    pub bytes: u64,
    /// Upper-case hex SHA-256; `None` for one that was not wanted.
    pub hash: Option<String>,
}

/// What an archive holds. Signature, dates and issuer are not checked yet.
#[derive(Clone, Debug)]
pub struct Contents {
    /// Its token.
    pub token: Token<Provider>,
    /// Its binaries, in file order.
    pub binaries: Vec<Binary>,
    /// Whether it is gzip-compressed.
    pub is_compressed: bool,
}

impl Contents {
    /// Compares every hashed binary with the token.
    ///
    /// # Errors
    /// [`Kind::Invalid`], naming the first target that is not what the token vouches for.
    pub fn check_hashes(&self) -> Result<()> {
        let hashes = &self.token.claims().body()?.target_hashes;
        for Binary { target, hash, .. } in &self.binaries {
            match (hash, hashes.get(target)) {
                (None, _) => {}
                (Some(found), Some(signed)) if found == signed => {}
                (Some(_), Some(_)) => {
                    return Err(Error::invalid(format!("File hash and verify hash do not match for '{target}'")));
                }
                (Some(_), None) => {
                    return Err(Error::invalid(format!(
                        "the archive's token does not vouch for the binary '{target}'"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Reads an archive. What is `wanted` goes to `sink` as it arrives, before anything about it is checked.
///
/// # Errors
/// [`Kind::Invalid`]: malformed or incomplete. [`Kind::Limit`]: a limit of this module. [`Kind::Storage`]: `input` could
/// not be read or `sink` not be written.
pub fn read(input: impl Read, wanted: Wanted<'_>, sink: &mut dyn Write) -> Result<Contents> {
    read_within(input, wanted, sink, MAX_UNPACKED_BYTES, &mut |_| Ok(()))
}

/// Reads an archive that came from somebody else, and writes nothing: `accept` judges its token as soon as it is found, which
/// is at the front in every archive that a tool made.
///
/// # Errors
/// As [`read`], and those of `accept`.
pub fn judge(archive: &[u8], target: &str, accept: &mut dyn FnMut(&Token<Provider>) -> Result<()>) -> Result<Contents> {
    let most = UNPACKED_PER_BYTE.saturating_mul(archive.len() as u64).saturating_add(UNPACKED_BASE_BYTES);
    read_within(archive, Wanted::Target(target), &mut io::sink(), most.min(MAX_UNPACKED_BYTES), accept)
}

fn read_within(
    mut input: impl Read,
    wanted: Wanted<'_>,
    sink: &mut dyn Write,
    unpacked_bytes: u64,
    accept: &mut dyn FnMut(&Token<Provider>) -> Result<()>,
) -> Result<Contents> {
    let mut magic = [0; 2];
    input.read_exact(&mut magic).map_err(|cause| match cause.kind() {
        io::ErrorKind::UnexpectedEof => Error::invalid("Not enough bytes to be a valid PAR file"),
        _ => unreadable(&cause),
    })?;
    if magic == MODULE_MAGIC {
        return Err(Error::invalid(
            "it is a WebAssembly module, which is an actor, and no provider archive: start it as an actor, or name the \
             archive (.par) of the provider",
        ));
    }
    let is_compressed = magic == GZIP_MAGIC;
    let whole = magic.chain(input);
    let unpacked: Box<dyn Read + '_> = if is_compressed { Box::new(GzDecoder::new(whole)) } else { Box::new(whole) };

    let mut archive = tar::Archive::new(Bounded { inner: unpacked, most: unpacked_bytes, left: unpacked_bytes });
    let mut token = None;
    let mut binaries: Vec<Binary> = Vec::new();
    // Raw: long names and extended headers would be read into memory before their length could be judged.
    for (count, entry) in archive.entries().map_err(|cause| unreadable(&cause))?.raw(true).enumerate() {
        let mut entry = entry.map_err(|cause| no_entry(&cause, count))?;
        if count >= MAX_ENTRIES {
            return Err(Error::limit(format!("the provider archive has more than {MAX_ENTRIES} entries")));
        }
        let Some(stem) = file_stem(&entry) else { continue };
        if stem == CLAIMS_STEM {
            if token.is_some() {
                return Err(Error::invalid("the provider archive has two tokens"));
            }
            let found = read_token(&mut entry)?;
            accept(&found)?;
            token = Some(found);
            continue;
        }
        if binaries.iter().any(|binary| binary.target == stem) {
            return Err(Error::invalid(format!("the provider archive has two binaries for '{stem}'")));
        }
        let hash = match wanted {
            Wanted::Target(target) if target == stem => Some(copy_hashed(&mut entry, &stem, sink)?),
            Wanted::Target(_) => None,
            Wanted::Everything => Some(copy_hashed(&mut entry, &stem, &mut io::sink())?),
        };
        binaries.push(Binary { bytes: entry.size(), target: stem, hash });
    }

    let found: Vec<&str> = binaries.iter().map(|binary| binary.target.as_str()).collect();
    let missing = match wanted {
        Wanted::Target(target) if !found.contains(&target) => Some(target),
        Wanted::Everything if found.is_empty() => Some("any target"),
        _ => None,
    };
    if let Some(target) = missing {
        let found = if found.is_empty() { "nothing".into() } else { found.join(", ") };
        return Err(Error::invalid(format!(
            "Not enough files found in provider archive. Is this a complete archive? It has no binary for {target}; \
             binaries found: {found}"
        )));
    }
    let token = token.ok_or_else(|| Error::invalid("No claims found embedded in provider archive."))?;
    Ok(Contents { token, binaries, is_compressed })
}

/// Name of a regular file without directory and last extension. Everything else in an archive is passed over, names with
/// control characters too: names get into errors.
fn file_stem<R: Read>(entry: &tar::Entry<'_, R>) -> Option<String> {
    let header = entry.header();
    if !header.entry_type().is_file() {
        return None;
    }
    let path = header.path_bytes();
    Path::new(OsStr::from_bytes(&path))
        .file_stem()?
        .to_str()
        .filter(|stem| !stem.contains(char::is_control))
        .map(str::to_owned)
}

fn read_token<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Token<Provider>> {
    let bytes = entry.size();
    if bytes > MAX_TOKEN_BYTES as u64 {
        return Err(Error::limit(format!(
            "the token in the provider archive has {bytes} bytes; at most {MAX_TOKEN_BYTES} are read"
        )));
    }
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|cause| unreadable(&cause))?;
    let text = String::from_utf8(text).context(Kind::Invalid, "the token in the provider archive is not text")?;
    // Archives put together by hand end the token with a line break.
    Token::parse(text.trim()).map_err(|cause| cause.context("the token in the provider archive"))
}

fn copy_hashed<R: Read>(entry: &mut tar::Entry<'_, R>, target: &str, sink: &mut dyn Write) -> Result<String> {
    let expected = entry.size();
    if expected > MAX_BINARY_BYTES {
        return Err(Error::limit(format!(
            "the provider's binary for '{target}' has {expected} bytes; at most {MAX_BINARY_BYTES} are read"
        )));
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    loop {
        let count = entry.read(&mut buffer).map_err(|cause| unreadable(&cause))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        sink.write_all(&buffer[..count])
            .context(Kind::Storage, format_args!("cannot write the provider's binary for '{target}'"))?;
        copied += count as u64;
    }
    if copied != expected {
        return Err(Error::invalid(format!(
            "the provider archive ends within the binary for '{target}'; the file is cut short"
        )));
    }
    Ok(HEXUPPER.encode(&hasher.finalize()))
}

/// Bytes copied at once: a multiple of the flash page of every common card.
pub(super) const COPY_BYTES: usize = 64 * 1024;

fn unreadable(cause: &io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::FileTooLarge => Kind::Limit,
        _ if cause.raw_os_error().is_some() => Kind::Storage,
        _ => Kind::Invalid,
    };
    Error::new(kind, format!("the provider archive cannot be read: {cause}"))
}

/// The entry with the number `count` cannot be read. Of the first one that means that it is no archive at all, for which the
/// library has no words that help.
fn no_entry(cause: &io::Error, count: usize) -> Error {
    let error = unreadable(cause);
    match (error.kind(), count) {
        (Kind::Invalid, 0) => Error::invalid(
            "it is no provider archive: it is neither a tar file nor one compressed with gzip; make one with `wash par \
             create` or `latticed archive create`",
        ),
        (Kind::Invalid, _) => {
            Error::invalid(format!("the provider archive is damaged behind its entry {count}; fetch or make it again"))
        }
        _ => error,
    }
}

/// A reader that fails once it has given `left` bytes, instead of ending as `Take` does.
struct Bounded<R> {
    inner: R,
    /// What it may give in all.
    most: u64,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            let text = format!("it unpacks to more than {} bytes", self.most);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::claims::{
        KeyPair, Role,
        archive_writer::{self, Source},
        token::Claims,
    };

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/provider_archive.json")).unwrap()
    }

    fn text<'a>(vectors: &'a Value, path: &str) -> &'a str {
        vectors.pointer(path).unwrap_or_else(|| panic!("no {path}")).as_str().unwrap()
    }

    fn par(vectors: &Value) -> Vec<u8> {
        BASE64.decode(text(vectors, "/par_base64").as_bytes()).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads for one target and checks the hash, as the host does.
    fn load(archive: &[u8], target: &str) -> Result<(Contents, Vec<u8>)> {
        let mut binary = Vec::new();
        let contents = read(archive, Wanted::Target(target), &mut binary)?;
        contents.check_hashes()?;
        Ok((contents, binary))
    }

    /// An archive of the given entries, whatever they are.
    fn tar_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_path(name).unwrap();
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn token_for(binaries: &[(&str, &[u8])]) -> Token<Provider> {
        let target_hashes = binaries
            .iter()
            .map(|(target, content)| (target.to_string(), archive_writer::hash(*content).unwrap().1))
            .collect();
        let body = Provider { capid: "test:test".into(), target_hashes, ..Provider::default() };
        let subject = KeyPair::from_name(Role::Service, "p").public_key().to_string();
        let claims = Claims::new(subject, body, crate::claims::Now::judge(0, 0)).unwrap();
        Token::sign(claims, &KeyPair::from_name(Role::Account, "a")).unwrap()
    }

    fn sources<'a>(binaries: &[(&str, &'a [u8])]) -> Vec<Source<&'a [u8]>> {
        binaries
            .iter()
            .map(|(target, content)| Source {
                target: target.to_string(),
                bytes: content.len() as u64,
                content: *content,
            })
            .collect()
    }

    #[test]
    fn the_archive_of_the_vectors_is_read_plain_and_compressed() {
        let vectors = vectors();
        for (archive, is_compressed) in [(par(&vectors), false), (gzip(&par(&vectors)), true)] {
            let (contents, binary) = load(&archive, "x86_64-linux").unwrap();
            assert_eq!(contents.is_compressed, is_compressed);
            assert_eq!(binary, text(&vectors, "/binary_utf8").as_bytes());
            let claims = contents.token.claims();
            assert_eq!(serde_json::to_value(claims).unwrap(), vectors["claims"]);
            assert_eq!(claims.iss, text(&vectors, "/issuer_public"));
            assert_eq!(claims.sub, text(&vectors, "/subject_public"));
            assert!(contents.token.is_signed().unwrap());
            let hash = Some(text(&vectors, "/target_hash").to_string());
            assert_eq!(contents.binaries, [Binary { target: "x86_64-linux".into(), bytes: 8, hash }]);
        }
    }

    #[test]
    fn writing_gives_the_bytes_of_the_vectors() {
        let vectors = vectors();
        let (contents, binary) = load(&par(&vectors), "x86_64-linux").unwrap();
        let binaries = [("x86_64-linux", binary.as_slice())];
        let written = archive_writer::write(Vec::new(), &contents.token, sources(&binaries), false).unwrap();
        assert!(written == par(&vectors));

        let headers: Vec<Value> = tar::Archive::new(written.as_slice())
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header().as_bytes();
                serde_json::json!({
                    "name": entry.path().unwrap(),
                    "size": entry.size(),
                    "magic_hex": data_encoding::HEXLOWER.encode(&header[257..265]),
                    "typeflag": header[156],
                    "mode_field": String::from_utf8_lossy(&header[100..107]),
                })
            })
            .collect();
        assert_eq!(Value::Array(headers), vectors["tar_entries"]);

        let zipped = archive_writer::write(Vec::new(), &contents.token, sources(&binaries), true).unwrap();
        let again = archive_writer::write(Vec::new(), &contents.token, sources(&binaries), true).unwrap();
        assert!(zipped == again, "compressed archives must be reproducible");
        assert_eq!(load(&zipped, "x86_64-linux").unwrap().1, binary);
    }

    #[test]
    fn errors_have_the_words_of_the_vectors() {
        let vectors = vectors();
        for short in [&b""[..], &[0x1f]] {
            assert_eq!(load(short, "x86_64-linux").unwrap_err().to_string(), text(&vectors, "/too_short_error"));
        }
        let refusal = load(&par(&vectors), "aarch64-linux").unwrap_err();
        assert!(refusal.text().starts_with(text(&vectors, "/missing_target_error")), "{refusal}");
        assert!(refusal.text().contains("aarch64-linux") && refusal.text().contains("x86_64-linux"), "{refusal}");

        let mut damaged = par(&vectors);
        let at = damaged.windows(8).rposition(|window| window == b"bloobloo").unwrap();
        damaged[at] ^= 1;
        assert_eq!(load(&damaged, "x86_64-linux").unwrap_err().to_string(), text(&vectors, "/damaged_binary_error"));

        let refusal = load(&tar_of(&[("x86_64-linux.bin", b"bloobloo")]), "x86_64-linux").unwrap_err();
        assert_eq!(refusal.to_string(), "No claims found embedded in provider archive.");
    }

    #[test]
    fn only_stems_count_and_order_does_not() {
        let binaries: [(&str, &[u8]); 2] = [("x86_64-linux", b"one"), ("aarch64-linux", b"two")];
        let token = token_for(&binaries);
        let archive = tar_of(&[
            ("some/where/aarch64-linux.exe", b"two"),
            ("x86_64-linux", b"one"),
            ("meta/claims.txt", format!("{}\n", token.text()).as_bytes()),
        ]);
        assert_eq!(load(&archive, "aarch64-linux").unwrap().1, b"two");
        assert_eq!(load(&archive, "x86_64-linux").unwrap().1, b"one");
        let all = read(archive.as_slice(), Wanted::Everything, &mut io::sink()).unwrap();
        all.check_hashes().unwrap();
        assert_eq!(all.binaries.len(), 2);
    }

    #[test]
    fn a_binary_nobody_vouches_for_is_refused() {
        let token = token_for(&[("x86_64-linux", b"one")]);
        let archive = tar_of(&[("claims.jwt", token.text().as_bytes()), ("arm-linux.bin", b"x")]);
        assert!(load(&archive, "arm-linux").unwrap_err().text().contains("does not vouch"));
    }

    #[test]
    fn twice_the_same_is_refused() {
        let token = token_for(&[("x86_64-linux", b"one")]);
        let text = token.text().as_bytes();
        let tokens = tar_of(&[("claims.jwt", text), ("claims.old", text), ("x86_64-linux.bin", b"one")]);
        assert!(load(&tokens, "x86_64-linux").unwrap_err().text().contains("two tokens"));
        let binaries = tar_of(&[("claims.jwt", text), ("x86_64-linux.bin", b"one"), ("x86_64-linux.b", b"two")]);
        assert!(load(&binaries, "x86_64-linux").unwrap_err().text().contains("two binaries"));
    }

    #[test]
    fn limits_hold_before_anything_is_read() {
        let mut header = tar::Header::new_gnu();
        header.set_path("x86_64-linux.bin").unwrap();
        header.set_size(MAX_BINARY_BYTES + 1);
        header.set_cksum();
        assert_eq!(load(header.as_bytes(), "x86_64-linux").unwrap_err().kind(), Kind::Limit);

        header.set_path("claims.jwt").unwrap();
        header.set_size(MAX_TOKEN_BYTES as u64 + 1);
        header.set_cksum();
        assert_eq!(load(header.as_bytes(), "x86_64-linux").unwrap_err().kind(), Kind::Limit);

        let names: Vec<String> = (0..=MAX_ENTRIES).map(|number| format!("t{number}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert_eq!(load(&tar_of(&many), "x86_64-linux").unwrap_err().kind(), Kind::Limit);
        assert_eq!(load(&tar_of(&many[1..]), "x86_64-linux").unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn a_stream_that_unpacks_without_end_is_cut_off() {
        let mut bounded = Bounded { inner: io::repeat(0), most: 100, left: 100 };
        let mut read = Vec::new();
        let refusal = bounded.read_to_end(&mut read).unwrap_err();
        assert_eq!((read.len(), unreadable(&refusal).kind()), (100, Kind::Limit));
    }

    #[test]
    fn the_writer_refuses_what_would_not_load() {
        let binaries: [(&str, &[u8]); 1] = [("x86_64-linux", b"one")];
        let token = token_for(&binaries);
        let write = |binaries: &[(&str, &'static [u8])]| {
            archive_writer::write(Vec::new(), &token, sources(binaries), false).map_err(|cause| cause.kind())
        };
        assert!(write(&[("x86_64-linux", b"one")]).is_ok());
        assert_eq!(write(&[]), Err(Kind::Usage));
        assert_eq!(write(&[("x86_64-linux", b"one"), ("arm-linux", b"")]), Err(Kind::Usage));
        assert_eq!(write(&[("x86_64-linux", b"two")]), Err(Kind::Conflict));
        for name in ["claims", "linux", "x86_64-linux.bin", "../x-linux", "X86-linux", "-", ""] {
            assert!(archive_writer::check_target(name).is_err(), "{name}");
        }
        archive_writer::check_target(&host_target()).unwrap();
    }

    #[test]
    fn an_archive_cut_short_never_loads() {
        let archive = par(&vectors());
        // The two empty blocks at the end carry nothing.
        for cut in 0..archive.len() - 1024 - 504 {
            assert!(load(&archive[..cut], "x86_64-linux").is_err(), "{cut}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn damage_anywhere_is_found_or_harmless(at: proptest::sample::Index, bit in 0u8..8, compressed: bool) {
            let vectors = vectors();
            let mut archive = if compressed { gzip(&par(&vectors)) } else { par(&vectors) };
            let at = at.index(archive.len());
            archive[at] ^= 1 << bit;
            if let Ok((contents, binary)) = load(&archive, "x86_64-linux") {
                let intact = contents.token.is_signed().unwrap_or(false);
                prop_assert!(!intact || binary == b"bloobloo");
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = load(&bytes, "x86_64-linux");
            let _ = load(&[&GZIP_MAGIC[..], &bytes].concat(), "x86_64-linux");
        }
    }
}
