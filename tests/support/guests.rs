//! The guests of `tests/actors`: where their modules are, who they are, how they are signed.
//!
//! Everything follows from a guest's name, so that building and signing again gives the same bytes. The account's seed
//! can be computed by anyone who reads this: no host may trust it for anything but tests.

use std::path::PathBuf;

use latticed::{
    claims::{Actor, Claims, KeyPair, Now, Role, module},
    error::Result,
};

/// When every guest was issued: 2026-01-01. A fixed moment, so that signing is reproducible.
const ISSUED_UNIX_SECONDS: u64 = 1_767_225_600;

/// The folder of the guests' sources.
pub fn sources() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/actors"))
}

/// The signed module of the guest `name`: `echo`, `hostile/trap`.
pub fn module_path(name: &str) -> PathBuf {
    sources().join("built").join(name).with_extension("wasm")
}

/// The worthless account that issues all guests.
pub fn account() -> KeyPair {
    KeyPair::from_name(Role::Account, "latticed tests")
}

/// The key of the guest `name`, `M…`.
pub fn key(name: &str) -> String {
    KeyPair::from_name(Role::Module, &format!("latticed tests: {name}")).public_key().to_string()
}

/// Signs `wasm` as the guest `name` with the call alias `test/NAME` (or `hostile/NAME`) and the right to `contracts`.
pub fn sign(name: &str, contracts: &[&str], wasm: &[u8]) -> Result<Vec<u8>> {
    sign_revision(name, contracts, wasm, 1)
}

/// The same, as a given revision: what a live update takes.
pub fn sign_revision(name: &str, contracts: &[&str], wasm: &[u8], revision: i32) -> Result<Vec<u8>> {
    sign_as(&account(), name, contracts, wasm, revision)
}

/// The same, by another account.
pub fn sign_as(account: &KeyPair, name: &str, contracts: &[&str], wasm: &[u8], revision: i32) -> Result<Vec<u8>> {
    let (group, own) = name.split_once('/').unwrap_or(("test", name));
    let actor = Actor {
        name: Some(own.to_string()),
        caps: Some(contracts.iter().map(ToString::to_string).collect()),
        rev: Some(revision),
        ver: Some("0.1.0".to_string()),
        call_alias: Some(format!("{group}/{own}")),
        ..Actor::default()
    };
    let mut claims = Claims::new(key(name), actor, Now::Trusted(ISSUED_UNIX_SECONDS))?;
    // A fixed identifier of the usual form, 22 letters and digits.
    claims.jti = format!("{:A<22.22}", own.replace('_', "").to_ascii_uppercase());
    Ok(module::sign(wasm, claims, account)?.0)
}
