//! Where a command takes a key from: a file, or an environment variable. Never the command line itself, which every user
//! of the machine can read in `/proc` and which shells write to their history.
//!
//! Used by `keys`, `claims` and `archive`. Its errors name the option and the place, never what was found there.

use std::{
    env,
    fs::File,
    io::{self, Read},
};

use crate::{
    claims::{KeyPair, PublicKey, Role},
    error::{Error, Result},
    text_file::{is_blank, without_mark},
};

/// Most bytes of a seed file that are read. A seed has 58; the rest is room for white space. Refused above, as it is
/// some other file.
const MAX_SEED_FILE_BYTES: u64 = 4096;

/// How the environment is named: `env:ISSUER_SEED`.
const ENVIRONMENT: &str = "env:";

/// The key pair whose seed is at `place` (a file, or `env:NAME`), of one of `roles` (any when empty). `option` is what
/// the user wrote it behind.
///
/// # Errors
/// `NotFound`, `Denied`, `Storage` for the place; `Invalid` for what is there; `Usage` for a seed given as such and for
/// a key of another role.
pub fn key_pair(option: &str, place: &str, roles: &[Role]) -> Result<KeyPair> {
    refuse_seed(option, place)?;
    let text = match place.strip_prefix(ENVIRONMENT) {
        Some(name) => env::var(name)
            .map_err(|_| Error::not_found(format!("{option}: the environment variable {name} is not set to text")))?,
        None => read_file(option, place)?,
    };
    let pair = KeyPair::from_seed(text.trim()).map_err(|cause| cause.context(format_args!("{option} {place}")))?;
    check_role(option, pair.public_key(), roles)?;
    Ok(pair)
}

/// The public key at `place`: the key itself, or a file or `env:NAME` that holds its seed.
///
/// # Errors
/// As [`key_pair`].
pub fn public_key(option: &str, place: &str, roles: &[Role]) -> Result<PublicKey> {
    refuse_seed(option, place)?;
    if !looks_like_public_key(place) {
        return Ok(key_pair(option, place, roles)?.public_key());
    }
    let key: PublicKey = place.parse().map_err(|cause: Error| cause.context(option))?;
    check_role(option, key, roles)?;
    Ok(key)
}

fn check_role(option: &str, key: PublicKey, roles: &[Role]) -> Result<()> {
    if roles.is_empty() || roles.contains(&key.role()) {
        return Ok(());
    }
    let wanted: Vec<&str> = roles.iter().map(|role| role.name()).collect();
    Err(Error::usage(format!(
        "{option}: {key} is {} key; this takes a key of role {}",
        key.role().with_article(),
        wanted.join(" or ")
    )))
}

/// Refuses a seed, even a mistyped one, before its text gets into an error about a missing file.
fn refuse_seed(option: &str, place: &str) -> Result<()> {
    let is_key_text = |text: &str| text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if place.starts_with('S') && place.len() >= 40 && is_key_text(place) {
        return Err(Error::usage(format!(
            "{option}: a seed on the command line can be read by every user of this machine; write it to a file, or \
             name an environment variable that holds it as {ENVIRONMENT}NAME"
        )));
    }
    Ok(())
}

fn looks_like_public_key(text: &str) -> bool {
    text.len() == 56 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// Reads a seed file. A pipe is fine: `<(pass show wasmcloud/issuer)`.
fn read_file(option: &str, path: &str) -> Result<String> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!(
            "{option}: there is no file {path}; `latticed keys gen ROLE --out {path}` makes one"
        )),
        io::ErrorKind::PermissionDenied => Error::denied(format!("{option}: cannot read {path}: permission denied")),
        io::ErrorKind::InvalidData => Error::invalid(format!("{option} {path}: the file does not hold text")),
        _ => Error::storage(format!("{option}: cannot read {path}: {cause}")),
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_SEED_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_SEED_FILE_BYTES {
        return Err(Error::invalid(format!("{option} {path}: the file is too long to be one seed")));
    }
    if is_blank(&text) {
        return Err(Error::invalid(format!("{option} {path}: the file is empty, as a power cut can leave one")));
    }
    Ok(without_mark(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_seed_on_the_command_line_is_refused_and_not_repeated() {
        let pair = KeyPair::generate(Role::Account).unwrap();
        let seed = pair.seed();
        for given in [seed.expose(), &seed.expose()[..50]] {
            let refusals = [key_pair("--issuer", given, &[]).err(), public_key("--subject", given, &[]).err()];
            for refusal in refusals {
                let refusal = refusal.unwrap();
                assert_eq!(refusal.kind(), Kind::Usage);
                assert!(!refusal.text().contains(given), "{refusal}");
            }
        }
    }

    #[test]
    fn a_seed_file_is_read_with_its_line_end_and_its_role_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("account.nk");
        let path = path.to_str().unwrap();
        let pair = KeyPair::generate(Role::Account).unwrap();
        std::fs::write(path, format!("{}\n", pair.seed().expose())).unwrap();
        assert_eq!(key_pair("--issuer", path, &[Role::Account]).unwrap().public_key(), pair.public_key());
        let refusal = key_pair("--issuer", path, &[Role::Operator]).unwrap_err();
        assert!(refusal.text().contains("account key") && refusal.text().contains("operator"), "{refusal}");

        let public = pair.public_key().to_string();
        assert_eq!(public_key("--subject", &public, &[Role::Account]).unwrap(), pair.public_key());
        assert!(public_key("--subject", &public, &[Role::Module]).is_err());

        std::fs::write(path, "a".repeat(5000)).unwrap();
        assert_eq!(key_pair("--issuer", path, &[]).unwrap_err().kind(), Kind::Invalid);
        let missing = format!("{path}.missing");
        assert_eq!(key_pair("--issuer", &missing, &[]).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(key_pair("--issuer", "env:LATTICED_TEST_NO_SUCH", &[]).unwrap_err().kind(), Kind::NotFound);
    }
}
