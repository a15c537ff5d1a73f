//! The front of the room: is this actor, is this provider, what it says it is, and may it run here?
//!
//! The host asks before it starts anything. The answer holds what the host needs to know and show; it never holds a
//! module or a binary.

use std::io::{Read, Write};

use super::{
    archive::{self, Wanted},
    body::{Actor, Provider, effective_revision},
    issuer::AllowedIssuers,
    module,
    time::Now,
};
use crate::error::{Error, Result};

/// What this host demands beyond the protocol.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The present, as far as it is known.
    pub now: Now,
    /// Whose signature counts.
    pub issuers: AllowedIssuers,
    /// Accept provider archives whose token is expired, too early or badly signed, as hosts before this one did. It has
    /// no effect once `issuers` names accounts: an unchecked signature names nobody.
    pub legacy_archives: bool,
}

impl Policy {
    /// What the protocol demands and no more: any issuer, signatures and dates checked.
    pub fn new(now: Now) -> Self {
        Self { now, issuers: AllowedIssuers::any(), legacy_archives: false }
    }
}

/// An actor that may run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedModule {
    /// Its public key as the token writes it, `M…`: its name in the lattice.
    pub subject: String,
    /// The account that signed it, `A…`.
    pub issuer: String,
    /// Name for people, `""` if it has none.
    pub name: String,
    /// Contracts it may use.
    pub caps: Vec<String>,
    /// Free labels.
    pub tags: Vec<String>,
    /// Effective revision: orders versions of one actor.
    pub revision: i32,
    /// Version for people, `""` if it has none.
    pub version: String,
    /// Second name by which other actors may call it.
    pub call_alias: Option<String>,
    /// When it was signed, seconds since 1970.
    pub issued: u64,
    /// Expires after this moment, seconds since 1970.
    pub expires: Option<u64>,
    /// Not usable before this moment, seconds since 1970.
    pub not_before: Option<u64>,
    /// Upper-case hex SHA-256 of the module's canonical form.
    pub module_hash: String,
    /// Whether the token vouches for these bytes; false only for claims older than revision 3, which deserve a warning.
    pub hash_matches: bool,
    /// The token.
    pub token: String,
}

impl SignedModule {
    /// Whether the actor claims `contract`.
    pub fn may_use(&self, contract: &str) -> bool {
        self.caps.iter().any(|cap| cap == contract)
    }
}

/// Checks an actor's module (`protocol/claims.md §3.2`), then its issuer.
///
/// # Errors
/// With the texts of the protocol. [`Kind::Invalid`](crate::error::Kind::Invalid): malformed, unsigned or changed since.
/// [`Kind::Denied`](crate::error::Kind::Denied): expired, too early, badly signed, or by an issuer not allowed.
pub fn verify_actor(module: &[u8], policy: &Policy) -> Result<SignedModule> {
    let failed = |cause: Error| cause.context("Failed to extract claims from module");
    let found =
        module::extract(module).map_err(failed)?.ok_or_else(|| Error::invalid("No claims found in source module"))?;
    // Older claims do not bind the module. That is the protocol's business as long as anyone may sign; a list of issuers
    // would mean nothing if an old token of theirs could be put on any module.
    if !found.hash_matches && (found.hash_is_binding() || !policy.issuers.is_any()) {
        return Err(failed(Error::invalid("Invalid module hash")));
    }
    let claims = found.token.claims();
    claims.subject_key().map_err(failed)?;
    found.token.check(policy.now)?;
    policy.issuers.check(&claims.issuer_key().map_err(failed)?, &named(&claims.sub, claims.body()?.name.as_deref()))?;

    let Actor { name, tags, caps, rev, ver, call_alias, .. } = claims.body()?.clone();
    Ok(SignedModule {
        subject: claims.sub.clone(),
        issuer: claims.iss.clone(),
        name: name.unwrap_or_default(),
        caps: caps.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        revision: effective_revision(rev, claims.iat),
        version: ver.unwrap_or_default(),
        call_alias: call_alias.filter(|alias| !alias.is_empty()),
        issued: claims.iat,
        expires: claims.exp,
        not_before: claims.nbf,
        module_hash: found.module_hash,
        hash_matches: found.hash_matches,
        token: found.token.text().to_string(),
    })
}

/// A provider that may run here.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedProvider {
    /// Its public key as the token writes it, `V…`.
    pub subject: String,
    /// The account that signed it, `A…`.
    pub issuer: String,
    /// Name for people, `""` if it has none.
    pub name: String,
    /// The contract it serves.
    pub contract_id: String,
    /// Who made it.
    pub vendor: String,
    /// Effective revision.
    pub revision: i32,
    /// Version for people, `""` if it has none.
    pub version: String,
    /// Expires after this moment, seconds since 1970.
    pub expires: Option<u64>,
    /// Not usable before this moment, seconds since 1970.
    pub not_before: Option<u64>,
    /// JSON schema of its configuration.
    pub config_schema: Option<serde_json::Value>,
    /// Length of the binary that was written out.
    pub binary_bytes: u64,
    /// Upper-case hex SHA-256 of the binary.
    pub binary_hash: String,
    /// The token.
    pub token: String,
}

/// Checks a provider archive, plain or gzip, and writes the binary for `target` (see [`archive::host_target`]) to
/// `binary`. Blocking: call it where files may be read. What was written may be used only after `Ok`.
///
/// # Errors
/// With the texts of `protocol/claims.md §4`. [`Kind::Invalid`](crate::error::Kind::Invalid): malformed, damaged, without
/// this target. [`Kind::Denied`](crate::error::Kind::Denied): expired, too early, badly signed, or by an issuer not
/// allowed. [`Kind::Limit`](crate::error::Kind::Limit): larger than the limits of [`archive`].
/// [`Kind::Storage`](crate::error::Kind::Storage): `binary` could not be written.
pub fn verify_provider(
    archive: impl Read,
    target: &str,
    binary: &mut dyn Write,
    policy: &Policy,
) -> Result<SignedProvider> {
    let found = archive::read(archive, Wanted::Target(target), binary)?;
    found.check_hashes()?;
    let claims = found.token.claims();
    let provider = claims.body()?;
    claims.subject_key()?;
    let subject = named(&claims.sub, provider.name.as_deref());
    if !policy.legacy_archives || !policy.issuers.is_any() {
        found.token.check(policy.now).map_err(|cause| cause.context(&subject))?;
    }
    policy.issuers.check(&claims.issuer_key()?, &subject)?;

    let entry = found
        .binaries
        .into_iter()
        .find(|binary| binary.target == target)
        .ok_or_else(|| Error::internal("the archive reader answered without the wanted binary"))?;
    let Provider { name, capid, vendor, rev, ver, config_schema, .. } = provider.clone();
    Ok(SignedProvider {
        subject: claims.sub.clone(),
        issuer: claims.iss.clone(),
        name: name.unwrap_or_default(),
        contract_id: capid,
        vendor,
        revision: effective_revision(rev, claims.iat),
        version: ver.unwrap_or_default(),
        expires: claims.exp,
        not_before: claims.nbf,
        config_schema,
        binary_bytes: entry.bytes,
        binary_hash: entry.hash.unwrap_or_default(),
        token: found.token.text().to_string(),
    })
}

/// Key and name of a subject, for texts.
fn named(key: &str, name: Option<&str>) -> String {
    match name {
        Some(name) if !name.is_empty() => format!("{key} ({name})"),
        _ => key.to_string(),
    }
}
