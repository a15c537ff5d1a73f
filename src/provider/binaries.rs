//! Binaries unpacked from provider archives, each in a file named by its SHA-256.
//!
//! A binary appears under its name only when all of it is durable and the token in its archive vouches for it, so two builds
//! never collide, whatever their revisions say. It is hashed again before each start. Files here may be executed; the rest of
//! the state directory need not allow that. Everything here blocks.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXUPPER;
use sha2::{Digest, Sha256};

use super::failed;
use crate::{
    claims::{Policy, Provider, SignedProvider, Token, archive, archive::Wanted, judge_provider, verify_kept_provider},
    error::{Error, Result},
    lock::Mutex,
    log,
};

/// Begins the name of a binary that is being written.
const UNFINISHED: &str = ".new";

/// Bytes hashed at once.
const READ_BYTES: usize = 64 * 1024;

/// Characters of a binary's name.
const HASH_CHARS: usize = 64;

/// Where the binaries are.
#[derive(Clone)]
pub struct Binaries {
    directory: PathBuf,
    /// One at a time: two writers of the same archive would share an unfinished file.
    writing: Arc<Mutex<()>>,
}

impl Binaries {
    /// Binaries in `directory`, which is made when it is needed.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, writing: Arc::default() }
    }

    /// Where the binary with this hash is, if it is here.
    pub fn path(&self, hash: &str) -> PathBuf {
        self.directory.join(hash)
    }

    /// Checks `archive` and keeps the binary for this machine.
    ///
    /// # Errors
    /// Those of [`judge_provider`]; [`Kind::Storage`](crate::error::Kind::Storage) when the disk failed. Nothing new is kept
    /// then.
    pub fn keep(&self, archive: &[u8], policy: &Policy) -> Result<SignedProvider> {
        // Before anything is written: the token, and whether it vouches for the binary.
        let claims = judge_provider(archive, &archive::host_target(), policy)?;
        let _one_at_a_time = self.writing.lock();
        let place = || format!("cannot unpack the provider into {}", self.directory.display());
        make_directory(&self.directory).map_err(|cause| failed(place(), &cause))?;
        let unfinished = self.directory.join(UNFINISHED);
        // One that was left when power went.
        let _ = fs::remove_file(&unfinished);
        let outcome = self.unpack(archive, &claims.binary_hash, &unfinished);
        if outcome.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        outcome.map(|()| claims)
    }

    /// Writes the binary in `archive`, which has been judged, under its `hash`.
    fn unpack(&self, archive: &[u8], hash: &str, unfinished: &Path) -> Result<()> {
        let kept =
            |cause: io::Error| failed(format!("cannot keep the provider in {}", self.directory.display()), &cause);
        let path = self.path(hash);
        if hash_of(&path).is_ok_and(|found| found == hash) {
            return Ok(());
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unfinished).map_err(kept)?;
        archive::read(archive, Wanted::Target(&archive::host_target()), &mut file)?.check_hashes()?;
        file.flush().map_err(kept)?;
        file.set_permissions(Permissions::from_mode(0o500)).map_err(kept)?;
        file.sync_all().map_err(kept)?;
        // Closed before it gets its name: a file open for writing cannot be executed.
        drop(file);
        fs::rename(unfinished, &path).map_err(kept)?;
        File::open(&self.directory).and_then(|directory| directory.sync_all()).map_err(kept)?;
        Ok(())
    }

    /// Checks `token`, and the binary that was kept for it.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::error::Kind::NotFound): the binary is not here. [`Kind::Storage`](crate::error::Kind::Storage):
    /// it was changed or cannot be read; it is removed then, so that it can be kept again. Those of the token.
    pub fn check(&self, token: &str, policy: &Policy) -> Result<SignedProvider> {
        let target = archive::host_target();
        let hash = binary_hash(token, &target)?;
        let path = self.path(&hash);
        let bytes = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("the provider's binary {} is not unpacked here", path.display())));
            }
            Err(cause) => return Err(failed(format!("cannot read the provider's binary {}", path.display()), &cause)),
        };
        let found = hash_of(&path)
            .map_err(|cause| failed(format!("cannot read the provider's binary {}", path.display()), &cause))?;
        if found != hash {
            let _ = fs::remove_file(&path);
            return Err(Error::storage(format!(
                "the provider's binary {} was changed since it was unpacked and was removed",
                path.display()
            )));
        }
        verify_kept_provider(token, &target, bytes, hash, policy)
    }

    /// Removes every binary that none of the tokens in `needed` vouches for.
    pub fn tidy(&self, needed: &BTreeSet<String>) {
        let target = archive::host_target();
        let needed: BTreeSet<String> = needed.iter().filter_map(|token| binary_hash(token, &target).ok()).collect();
        let _one_at_a_time = self.writing.lock();
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if needed.contains(&name) {
                continue;
            }
            if let Err(cause) = fs::remove_file(entry.path()) {
                log::warn!("cannot remove {}: {cause}", entry.path().display());
            }
        }
    }
}

/// Makes `directory` for this user alone, and those above it that are missing.
pub(super) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The hash that `token` vouches for, checked to be one: it becomes a file's name.
fn binary_hash(token: &str, target: &str) -> Result<String> {
    let token = Token::<Provider>::parse(token)?;
    let hashes = &token.claims().body()?.target_hashes;
    let hash = hashes.get(target).ok_or_else(|| Error::invalid(format!("the provider has no binary for {target}")))?;
    let is_hash = hash.len() == HASH_CHARS && hash.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
    if !is_hash {
        return Err(Error::invalid(format!("the provider's token holds no SHA-256 for {target}")));
    }
    Ok(hash.clone())
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(HEXUPPER.encode(&hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        claims::{Claims, KeyPair, Now, Role, archive_writer},
        error::Kind,
    };

    const NOW: Now = Now::Trusted(1_900_000_000);

    /// An archive of `binary` for this machine, with revision 7.
    fn archive_of(binary: &[u8]) -> Vec<u8> {
        let target = archive::host_target();
        let hash = archive_writer::hash(binary).unwrap().1;
        let body = Provider {
            capid: "wasmcloud:test".into(),
            rev: Some(7),
            target_hashes: [(target.clone(), hash)].into(),
            ..Provider::default()
        };
        let subject = KeyPair::from_name(Role::Service, "shelf").public_key().to_string();
        let claims = Claims::new(subject, body, NOW).unwrap();
        let token = Token::sign(claims, &KeyPair::from_name(Role::Account, "shelf")).unwrap();
        let source = archive_writer::Source { target, bytes: binary.len() as u64, content: binary };
        archive_writer::write(Vec::new(), &token, vec![source], true).unwrap()
    }

    fn names(binaries: &Binaries) -> usize {
        fs::read_dir(&binaries.directory).map_or(0, Iterator::count)
    }

    #[test]
    fn two_builds_of_one_revision_do_not_collide_and_files_are_executable() {
        let folder = tempfile::tempdir().unwrap();
        let (binaries, policy) = (Binaries::new(folder.path().join("bin")), Policy::new(NOW));
        let first = archive_of(b"one");
        let one = binaries.keep(&first, &policy).unwrap();
        let two = binaries.keep(&archive_of(b"two"), &policy).unwrap();
        assert_eq!((one.revision, two.revision), (7, 7));
        for (claims, content) in [(&one, b"one"), (&two, b"two")] {
            let path = binaries.path(&claims.binary_hash);
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o500);
            assert_eq!(binaries.check(&claims.token, &policy).unwrap(), *claims);
        }
        // Keeping it once more changes nothing.
        assert_eq!(binaries.keep(&first, &policy).unwrap(), one);
        assert_eq!(names(&binaries), 2);
        binaries.tidy(&BTreeSet::from([two.token.clone()]));
        assert_eq!(binaries.check(&one.token, &policy).unwrap_err().kind(), Kind::NotFound);
        assert!(binaries.check(&two.token, &policy).is_ok());
    }

    #[test]
    fn a_changed_binary_is_removed_and_a_bad_archive_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (binaries, policy) = (Binaries::new(folder.path().join("bin")), Policy::new(NOW));
        let claims = binaries.keep(&archive_of(b"one"), &policy).unwrap();
        let path = binaries.path(&claims.binary_hash);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"evil").unwrap();
        assert_eq!(binaries.check(&claims.token, &policy).unwrap_err().kind(), Kind::Storage);
        assert_eq!(binaries.check(&claims.token, &policy).unwrap_err().kind(), Kind::NotFound);
        assert!(binaries.keep(b"#!/bin/sh\necho raw\n", &policy).is_err());
        let mut damaged = archive_of(b"one");
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        assert!(binaries.keep(&damaged, &policy).is_err());
        let mut elsewhere = Policy::new(NOW);
        elsewhere.issuers =
            crate::claims::AllowedIssuers::only([KeyPair::from_name(Role::Account, "other").public_key()]);
        assert_eq!(binaries.keep(&archive_of(b"one"), &elsewhere).unwrap_err().kind(), Kind::Denied);
        assert_eq!(names(&binaries), 0);
    }

    /// A megabyte or less that unpacks to 127 MB is refused before a byte of it is written: by its token, and where that
    /// is good by its size.
    #[test]
    fn nothing_is_written_for_an_archive_that_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let binaries = Binaries::new(folder.path().join("bin"));
        let archive = archive_of(&vec![0; 127 << 20]);
        assert!(archive.len() < 1 << 20, "{}", archive.len());
        let mut elsewhere = Policy::new(NOW);
        elsewhere.issuers =
            crate::claims::AllowedIssuers::only([KeyPair::from_name(Role::Account, "other").public_key()]);
        assert_eq!(binaries.keep(&archive, &elsewhere).unwrap_err().kind(), Kind::Denied);
        let refused = binaries.keep(&archive, &Policy::new(NOW)).unwrap_err();
        assert!(refused.kind() == Kind::Limit && refused.text().contains("unpacks to more than"), "{refused}");
        assert!(!folder.path().join("bin").exists(), "not even its folder was made");
        let module = binaries.keep(b"\0asm\x01\0\0\0", &Policy::new(NOW)).unwrap_err();
        assert!(module.text().contains("start it as an actor"), "{module}");
        let text = binaries.keep(&[b'x'; 2000], &Policy::new(NOW)).unwrap_err();
        assert!(text.text().contains("no provider archive") && !text.text().contains("numeric"), "{text}");
    }
}
