//! The front of the room: is this actor, is this provider, what it says it is, and may it run here?
//!
//! The host asks before it starts anything. The answer holds what the host needs to know and show; it never holds a
//! module or a binary.

use std::io::Write;

use super::{
    archive::{self, Wanted},
    body::{Actor, Provider, effective_revision},
    issuer::AllowedIssuers,
    module,
    time::Now,
    token::Token,
};
use crate::{
    error::{Error, Result},
    wire::name_limits,
};

/// What this host demands beyond the protocol.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The present, as far as it is known.
    pub now: Now,
    /// Whose signature counts.
    pub issuers: AllowedIssuers,
    /// Tokens of providers that were admitted here before: their dates were looked at then and refuse no more.
    pub admitted: Vec<String>,
    /// Accept provider archives whose token is expired, too early or badly signed, as hosts before this one did. It has
    /// no effect once `issuers` names accounts: an unchecked signature names nobody.
    pub legacy_archives: bool,
}

impl Policy {
    /// What the protocol demands and no more: any issuer, signatures and dates checked.
    pub fn new(now: Now) -> Self {
        Self { now, issuers: AllowedIssuers::any(), admitted: Vec::new(), legacy_archives: false }
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
        name: name_limits::shown(&name.unwrap_or_default()),
        caps: caps.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        revision: effective_revision(rev, claims.iat),
        version: name_limits::shown(&ver.unwrap_or_default()),
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
    archive: &[u8],
    target: &str,
    binary: &mut dyn Write,
    policy: &Policy,
) -> Result<SignedProvider> {
    let provider = judge_provider(archive, target, policy)?;
    archive::read(archive, Wanted::Target(target), binary)?.check_hashes()?;
    Ok(provider)
}

/// As [`verify_provider`], and writes nothing: the token first, then whether it vouches for the binary.
///
/// # Errors
/// As [`verify_provider`].
pub fn judge_provider(archive: &[u8], target: &str, policy: &Policy) -> Result<SignedProvider> {
    let found = archive::judge(archive, target, &mut |token| check_provider(token, policy))?;
    found.check_hashes()?;
    let entry = found
        .binaries
        .into_iter()
        .find(|binary| binary.target == target)
        .ok_or_else(|| Error::internal("the archive reader answered without the wanted binary"))?;
    accept(found.token, entry.bytes, entry.hash.unwrap_or_default(), policy)
}

/// Checks a provider again of which the token and the binary were kept: `binary_bytes` and `binary_hash` are of the binary as
/// it is now.
///
/// # Errors
/// As [`verify_provider`].
pub fn verify_kept_provider(
    token: &str,
    target: &str,
    binary_bytes: u64,
    binary_hash: String,
    policy: &Policy,
) -> Result<SignedProvider> {
    let token = Token::<Provider>::parse(token)?;
    if token.claims().body()?.target_hashes.get(target) != Some(&binary_hash) {
        return Err(Error::invalid(format!("File hash and verify hash do not match for '{target}'")));
    }
    accept(token, binary_bytes, binary_hash, policy)
}

/// Checks the token of a provider by itself.
fn check_provider(token: &Token<Provider>, policy: &Policy) -> Result<()> {
    let claims = token.claims();
    claims.subject_key()?;
    let subject = named(&claims.sub, claims.body()?.name.as_deref());
    if !policy.legacy_archives || !policy.issuers.is_any() {
        let admitted = policy.admitted.iter().any(|admitted| *admitted == token.text());
        let now = if admitted { Now::UNKNOWN } else { policy.now };
        token.check(now).map_err(|cause| cause.context(&subject))?;
    }
    policy.issuers.check(&claims.issuer_key()?, &subject)
}

/// Checks the token of a provider whose binary it vouches for.
fn accept(token: Token<Provider>, binary_bytes: u64, binary_hash: String, policy: &Policy) -> Result<SignedProvider> {
    check_provider(&token, policy)?;
    let claims = token.claims();
    let provider = claims.body()?;
    let Provider { name, capid, vendor, rev, ver, config_schema, .. } = provider.clone();
    Ok(SignedProvider {
        subject: claims.sub.clone(),
        issuer: claims.iss.clone(),
        name: name_limits::shown(&name.unwrap_or_default()),
        contract_id: capid,
        vendor,
        revision: effective_revision(rev, claims.iat),
        version: name_limits::shown(&ver.unwrap_or_default()),
        expires: claims.exp,
        not_before: claims.nbf,
        config_schema,
        binary_bytes,
        binary_hash,
        token: token.text().to_string(),
    })
}

/// Key and name of a subject, for texts. The name is whatever the issuer wrote, so it is escaped.
fn named(key: &str, name: Option<&str>) -> String {
    match name {
        Some(name) if !name.is_empty() => format!("{key} ({})", name_limits::shown(name).escape_debug()),
        _ => key.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, HEXLOWER};
    use serde_json::Value;

    use super::*;
    use crate::{
        claims::{KeyPair, PublicKey, Role, token::Claims},
        error::Kind,
    };

    const NOW: Now = Now::Trusted(1_900_000_000);

    fn actor_vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/actor_claims.json")).unwrap()
    }

    fn archive_vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/provider_archive.json")).unwrap()
    }

    fn wasm(vectors: &Value, name: &str) -> Vec<u8> {
        HEXLOWER.decode(vectors[name].as_str().unwrap().as_bytes()).unwrap()
    }

    fn account() -> KeyPair {
        KeyPair::from_name(Role::Account, "verify")
    }

    /// The module of the vectors, signed with claims that `change` makes.
    fn signed(change: impl FnOnce(&mut Claims<Actor>)) -> Vec<u8> {
        let subject = KeyPair::from_name(Role::Module, "verify").public_key().to_string();
        let mut claims = Claims::new(subject, Actor::default(), NOW).unwrap();
        change(&mut claims);
        module::sign(&wasm(&actor_vectors(), "unsigned_wasm_hex"), claims, &account()).unwrap().0
    }

    #[test]
    fn the_actor_of_the_vectors_may_run() {
        let vectors = actor_vectors();
        let actor = verify_actor(&wasm(&vectors, "signed_wasm_hex"), &Policy::new(NOW)).unwrap();
        assert_eq!(actor.subject, vectors["module_public"].as_str().unwrap());
        assert_eq!(actor.issuer, vectors["account_public"].as_str().unwrap());
        assert_eq!((actor.name.as_str(), actor.revision, actor.version.as_str()), ("echo", 3, "0.3.0"));
        assert_eq!(actor.caps, ["wasmcloud:httpserver", "wasmcloud:keyvalue"]);
        assert_eq!(actor.tags, ["example"]);
        assert_eq!(actor.call_alias.as_deref(), Some("acme/echo_actor"));
        assert_eq!(actor.module_hash, vectors["module_hash_in_claims"].as_str().unwrap());
        assert_eq!(actor.token, vectors["jwt"].as_str().unwrap());
        assert!(actor.hash_matches && actor.may_use("wasmcloud:keyvalue") && !actor.may_use("wasmcloud:messaging"));
    }

    #[test]
    fn each_refusal_of_an_actor_has_its_own_words() {
        let vectors = actor_vectors();
        let refusal = |module: &[u8]| verify_actor(module, &Policy::new(NOW)).unwrap_err().to_string();
        assert_eq!(refusal(&wasm(&vectors, "unsigned_wasm_hex")), "No claims found in source module");

        let mut tampered = wasm(&vectors, "signed_wasm_hex");
        let at = tampered.windows(12).position(|window| window == b"__guest_call").unwrap();
        tampered[at] = b'X';
        assert!(vectors["tampered_extract_result"].as_str().unwrap().starts_with("Invalid module hash"));
        assert_eq!(refusal(&tampered), "Failed to extract claims from module: Invalid module hash");

        let expired = signed(|claims| claims.exp = vectors["expired"]["exp"].as_u64());
        assert_eq!(refusal(&expired), "Claims token expired");
        let early = signed(|claims| claims.nbf = vectors["not_yet"]["nbf"].as_u64());
        assert_eq!(refusal(&early), "Claims token cannot be used yet");
        assert!(verify_actor(&early, &Policy::new(Now::judge(0, 0))).is_ok(), "a board without a clock must run it");

        let mut forged = signed(|_| {});
        let last = forged.len() - 2;
        forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
        assert_eq!(refusal(&forged), "Invalid signature on module token");
        assert!(refusal(b"\0asm\x01\0\0\0\0").starts_with("Failed to extract claims from module: "));
    }

    #[test]
    fn old_claims_do_not_bind_the_module_unless_issuers_are_listed() {
        let mut module = signed(|claims| claims.wascap_revision = Some(2));
        let at = module.windows(12).position(|window| window == b"__guest_call").unwrap();
        module[at] = b'X';
        let mut policy = Policy::new(NOW);
        assert!(!verify_actor(&module, &policy).unwrap().hash_matches);
        policy.issuers = AllowedIssuers::only([account().public_key()]);
        assert!(verify_actor(&module, &policy).unwrap_err().text().ends_with("Invalid module hash"));
    }

    #[test]
    fn an_issuer_that_is_not_listed_is_refused() {
        let module = signed(|claims| claims.wascap.as_mut().unwrap().name = Some("greeter".into()));
        let mut policy = Policy::new(NOW);
        policy.issuers = AllowedIssuers::only([KeyPair::from_name(Role::Account, "other").public_key()]);
        let refusal = verify_actor(&module, &policy).unwrap_err();
        assert_eq!(refusal.kind(), Kind::Denied);
        for part in [account().public_key().to_string().as_str(), "(greeter)", "WASMCLOUD_ALLOWED_ISSUERS"] {
            assert!(refusal.text().contains(part), "{refusal}");
        }
        let hostile = signed(|claims| claims.wascap.as_mut().unwrap().name = Some("\u{1b}[2Jgone\nfake line".into()));
        let refusal = verify_actor(&hostile, &policy).unwrap_err();
        assert!(!refusal.text().contains(char::is_control), "{refusal}");

        policy.issuers = AllowedIssuers::only([account().public_key()]);
        assert!(verify_actor(&module, &policy).is_ok());
    }

    fn load(par: &[u8], policy: &Policy) -> Result<(SignedProvider, Vec<u8>)> {
        let mut binary = Vec::new();
        let provider = verify_provider(par, "x86_64-linux", &mut binary, policy)?;
        Ok((provider, binary))
    }

    #[test]
    fn the_provider_of_the_vectors_may_run() {
        let vectors = archive_vectors();
        let par = BASE64.decode(vectors["par_base64"].as_str().unwrap().as_bytes()).unwrap();
        let (provider, binary) = load(&par, &Policy::new(NOW)).unwrap();
        assert_eq!(binary, vectors["binary_utf8"].as_str().unwrap().as_bytes());
        assert_eq!(provider.subject, vectors["subject_public"].as_str().unwrap());
        assert_eq!((provider.name.as_str(), provider.contract_id.as_str()), ("Redis KV", "wasmcloud:keyvalue"));
        assert_eq!((provider.revision, provider.version.as_str(), provider.vendor.as_str()), (7, "0.1.0", "acme"));
        assert_eq!(
            (provider.binary_bytes, provider.binary_hash.as_str()),
            (8, vectors["target_hash"].as_str().unwrap())
        );

        let mut policy = Policy::new(NOW);
        let issuer: PublicKey = vectors["issuer_public"].as_str().unwrap().parse().unwrap();
        policy.issuers = AllowedIssuers::only([issuer]);
        assert!(load(&par, &policy).is_ok());
        policy.issuers = AllowedIssuers::only([account().public_key()]);
        assert!(load(&par, &policy).unwrap_err().text().contains("WASMCLOUD_ALLOWED_ISSUERS"));
    }

    #[test]
    fn a_damaged_signature_is_refused_and_loads_only_where_that_was_asked_for() {
        let vectors = archive_vectors();
        assert!(vectors["damaged_signature_result"].as_str().unwrap().starts_with("loads without error"));
        let mut par = BASE64.decode(vectors["par_base64"].as_str().unwrap().as_bytes()).unwrap();
        // The token's entry starts behind its header of 512 bytes; its last characters are the signature.
        let at = 512 + vectors["tar_entries"][0]["size"].as_u64().unwrap() as usize - 10;
        par[at] = if par[at] == b'A' { b'B' } else { b'A' };
        let mut policy = Policy::new(NOW);
        let refusal = load(&par, &policy).unwrap_err();
        assert_eq!(refusal.kind(), Kind::Denied);
        assert!(refusal.text().ends_with("(Redis KV): Invalid signature on provider token"), "{refusal}");

        policy.legacy_archives = true;
        assert_eq!(load(&par, &policy).unwrap().1, b"bloobloo");
        policy.issuers = AllowedIssuers::only([vectors["issuer_public"].as_str().unwrap().parse().unwrap()]);
        assert!(load(&par, &policy).is_err(), "an unchecked signature must not satisfy a list of issuers");
    }
}
