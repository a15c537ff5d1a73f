//! Provider archives, written. Called by `latticed archive create` and by tests.
//!
//! Equal input gives equal bytes: no names, times or owners of the machine that writes get in, and binaries are sorted
//! by target. Binaries are streamed; each is hashed again while it is written, so an archive never disagrees with its
//! token.

use std::io::{self, Read, Write};

use data_encoding::HEXUPPER;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::{
    archive::{CLAIMS_STEM, COPY_BYTES},
    body::Provider,
    token::Token,
};
use crate::error::{Context, Error, Kind, Result};

/// Longest target name: with its extension it must fit the name field of a tar header.
const MAX_TARGET_CHARS: usize = 64;

/// A binary to be archived.
pub struct Source<R> {
    /// `x86_64-linux`.
    pub target: String,
    /// Its length in bytes; exactly as many are read.
    pub bytes: u64,
    /// The binary itself.
    pub content: R,
}

/// Length and upper-case hex SHA-256 of all that `content` gives, as a token's `target_hashes` wants it.
///
/// # Errors
/// What `content` fails with.
pub fn hash(mut content: impl Read) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; COPY_BYTES];
    let mut bytes = 0;
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, HEXUPPER.encode(&hasher.finalize())));
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// Refuses what cannot name a target (`{arch}-{os}`).
///
/// # Errors
/// [`Kind::Usage`].
pub fn check_target(target: &str) -> Result<()> {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    match target.split_once('-') {
        Some((arch, os)) if is_word(arch) && is_word(os) && target.len() <= MAX_TARGET_CHARS => Ok(()),
        _ => Err(Error::usage(format!(
            "'{target}' is not a target; write ARCH-OS as in x86_64-linux, aarch64-linux or arm-linux"
        ))),
    }
}

/// Writes an archive of `token` and exactly the binaries it vouches for, and gives `out` back.
///
/// # Errors
/// [`Kind::Usage`]: the binaries are not those of the token, or a target is no name for one.
/// [`Kind::Conflict`]: a binary changed since it was hashed. [`Kind::Storage`]: reading or writing failed.
pub fn write<W: Write, R: Read>(
    out: W,
    token: &Token<Provider>,
    mut binaries: Vec<Source<R>>,
    compress: bool,
) -> Result<W> {
    let hashes = &token.claims().body()?.target_hashes;
    binaries.sort_by(|a, b| a.target.cmp(&b.target));
    let given: Vec<&String> = binaries.iter().map(|binary| &binary.target).collect();
    if !given.iter().copied().eq(hashes.keys()) {
        return Err(Error::usage(format!(
            "the token vouches for the targets {:?}, the archive was given {given:?}",
            hashes.keys().collect::<Vec<_>>()
        )));
    }
    given.into_iter().try_for_each(|target| check_target(target))?;

    const DOING: &str = "cannot write the provider archive";
    if compress {
        let encoder = write_tar(GzEncoder::new(out, Compression::best()), token, binaries)?;
        encoder.finish().context(Kind::Storage, DOING)
    } else {
        write_tar(out, token, binaries)
    }
}

fn write_tar<W: Write, R: Read>(out: W, token: &Token<Provider>, binaries: Vec<Source<R>>) -> Result<W> {
    const DOING: &str = "cannot write the provider archive";
    let hashes = &token.claims().body()?.target_hashes;
    let mut tar = tar::Builder::new(out);
    let text = token.text().as_bytes();
    let header = header(&format!("{CLAIMS_STEM}.jwt"), text.len() as u64)?;
    tar.append(&header, text).context(Kind::Storage, DOING)?;
    for Source { target, bytes, content } in binaries {
        let mut content = Hashing { inner: content.take(bytes), hasher: Sha256::new() };
        let header = self::header(&format!("{target}.bin"), bytes)?;
        tar.append(&header, &mut content).context(Kind::Storage, DOING)?;
        let written = HEXUPPER.encode(&content.hasher.finalize());
        if hashes.get(&target) != Some(&written) {
            return Err(Error::conflict(format!(
                "the binary for '{target}' changed while the archive was written; the archive is not usable"
            )));
        }
    }
    tar.into_inner().context(Kind::Storage, DOING)
}

/// A header as the tools of the field write it: name, size, time zero, and nothing about owner or mode.
fn header(name: &str, bytes: u64) -> Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).context(Kind::Usage, format_args!("'{name}' cannot name an entry of an archive"))?;
    header.set_size(bytes);
    header.set_cksum();
    Ok(header)
}

/// Hashes what passes through.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
