//! Provider archives for tests: real executables, packed and signed as people do it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use latticed::claims::{Claims, KeyPair, Now, Provider, Role, Token, archive, archive_writer};

use super::{guests, published};

/// When every archive was issued: 2026-01-01.
const ISSUED_UNIX_SECONDS: u64 = 1_767_225_600;

/// The example program `test-provider`, built if it is not, or not from these sources.
pub fn mannered() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| published::example("test-provider"))
}

/// The content of `program` without what only debuggers read: development builds are mostly that.
pub fn stripped(program: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let out = folder.path().join("stripped");
    let outcome = Command::new("strip").arg("-o").arg(&out).arg(program).status();
    let outcome = outcome.expect("strip must be installed for these tests (Debian: apt-get install binutils)");
    assert!(outcome.success(), "{} could not be stripped", program.display());
    std::fs::read(out).expect("it was written")
}

/// The key of the provider `name`, `V…`.
pub fn key(name: &str) -> String {
    KeyPair::from_name(Role::Service, &format!("latticed tests: {name}")).public_key().to_string()
}

/// A signed archive of `binary` for this machine, as the provider `name` of `contract`.
pub fn archive(name: &str, contract: &str, binary: &[u8]) -> Vec<u8> {
    archive_with(name, contract, binary, |_| {})
}

/// The same, with claims changed by `change`.
pub fn archive_with(name: &str, contract: &str, binary: &[u8], change: impl FnOnce(&mut Claims<Provider>)) -> Vec<u8> {
    let target = archive::host_target();
    let (bytes, hash) = archive_writer::hash(binary).expect("memory can be read");
    let body = Provider {
        name: Some(name.to_owned()),
        capid: contract.to_owned(),
        vendor: "tests".to_owned(),
        rev: Some(3),
        ver: Some("0.3.0".to_owned()),
        target_hashes: [(target.clone(), hash)].into(),
        config_schema: None,
    };
    let mut claims = Claims::new(key(name), body, Now::Trusted(ISSUED_UNIX_SECONDS)).expect("claims are complete");
    change(&mut claims);
    let token = Token::sign(claims, &guests::account()).expect("an account signs");
    let source = archive_writer::Source { target, bytes, content: binary };
    archive_writer::write(Vec::new(), &token, vec![source], true).expect("memory can be written")
}
