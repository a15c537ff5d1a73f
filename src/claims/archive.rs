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

/// Most entries of an archive; real ones have at most a dozen. Refused above.
pub const MAX_ENTRIES: usize = 64;

/// First bytes of a gzip stream.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
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
pub fn read(mut input: impl Read, wanted: Wanted<'_>, sink: &mut dyn Write) -> Result<Contents> {
    let mut magic = [0; 2];
    input.read_exact(&mut magic).map_err(|cause| match cause.kind() {
        io::ErrorKind::UnexpectedEof => Error::invalid("Not enough bytes to be a valid PAR file"),
        _ => unreadable(&cause),
    })?;
    let is_compressed = magic == GZIP_MAGIC;
    let whole = magic.chain(input);
    let unpacked: Box<dyn Read + '_> = if is_compressed { Box::new(GzDecoder::new(whole)) } else { Box::new(whole) };

    let mut archive = tar::Archive::new(Bounded { inner: unpacked, left: MAX_UNPACKED_BYTES });
    let mut token = None;
    let mut binaries: Vec<Binary> = Vec::new();
    // Raw: long names and extended headers would be read into memory before their length could be judged.
    for (count, entry) in archive.entries().map_err(|cause| unreadable(&cause))?.raw(true).enumerate() {
        let mut entry = entry.map_err(|cause| unreadable(&cause))?;
        if count >= MAX_ENTRIES {
            return Err(Error::limit(format!("the provider archive has more than {MAX_ENTRIES} entries")));
        }
        let Some(stem) = file_stem(&entry) else { continue };
        if stem == CLAIMS_STEM {
            if token.replace(read_token(&mut entry)?).is_some() {
                return Err(Error::invalid("the provider archive has two tokens"));
            }
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

/// Name of a regular file without directory and last extension. Everything else in an archive is passed over.
fn file_stem<R: Read>(entry: &tar::Entry<'_, R>) -> Option<String> {
    let header = entry.header();
    if !header.entry_type().is_file() {
        return None;
    }
    let path = header.path_bytes();
    Path::new(OsStr::from_bytes(&path)).file_stem()?.to_str().map(str::to_owned)
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

/// A reader that fails once it has given `left` bytes, instead of ending as `Take` does.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !buffer.is_empty() {
            let text = format!("it unpacks to more than {MAX_UNPACKED_BYTES} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        self.left -= count as u64;
        Ok(count)
    }
}
