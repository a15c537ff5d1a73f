//! Logins for registries in a file, in the form that Docker, podman and oras keep them: also what systemd hands over as a
//! credential.
//!
//! ```json
//! {"auths": {"registry.example:5000": {"auth": "base64 of user:password"},
//!            "ghcr.io": {"username": "board", "password": "…"},
//!            "other.example": {"registrytoken": "…"}}}
//! ```
//!
//! Helpers that such a file may name are programs and are not run. The text of an error never holds a part of the file.

use std::{collections::BTreeMap, path::Path};

use data_encoding::BASE64;
use serde::Deserialize;

use crate::{
    artifact::{Limit, RegistryLogin, file::read_blocking},
    error::{Error, Result},
    log, private,
    text_file::{blank_warning, is_blank, without_mark},
};

/// Largest such file: 256 KiB, a thousand registries with long tokens.
const LIMIT: Limit = Limit::fixed(256 << 10);

#[derive(Deserialize)]
struct Words {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

/// The logins in the file at `path`, by registry as it is written there. Blocks.
///
/// # Errors
/// Those of reading a file; `Denied` when every user may read it; `Config` when it is none of the form.
pub fn read(path: &Path) -> Result<Vec<(String, RegistryLogin)>> {
    private::check(path)?;
    let bytes = read_blocking(path, LIMIT)?;
    let text = String::from_utf8_lossy(&bytes);
    if is_blank(&text) {
        log::warn!("{}", blank_warning(&path.display().to_string()));
        return Ok(Vec::new());
    }
    parse(without_mark(&text).as_bytes()).map_err(|error| error.context(path.display()))
}

fn parse(bytes: &[u8]) -> Result<Vec<(String, RegistryLogin)>> {
    // serde_json names line and column and, for a wrong type, the value: the value stays out.
    let words: Words = serde_json::from_slice(bytes).map_err(|cause| {
        Error::config(format!(
            "it is no file of registry logins (line {}, column {}): {{\"auths\": {{\"HOST\": {{\"auth\": \"…\"}}}}}} is \
             what `docker login` writes",
            cause.line(),
            cause.column()
        ))
    })?;
    words.auths.into_iter().filter_map(|(registry, entry)| login(&registry, entry).transpose()).collect()
}

/// `None` for an entry without a login: that of a helper.
fn login(registry: &str, entry: Entry) -> Result<Option<(String, RegistryLogin)>> {
    let wrong = || Error::config(format!("the member auth of {registry:?} is not the base64 of USER:PASSWORD"));
    let basic = |user: String, password: String| RegistryLogin::Basic { user, password };
    let login = match entry {
        Entry { registrytoken: Some(token), .. } if !token.is_empty() => RegistryLogin::Bearer(token),
        Entry { username: Some(user), password: Some(password), .. } => basic(user, password),
        Entry { auth: Some(auth), .. } if !auth.is_empty() => {
            let text = BASE64.decode(auth.trim().as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let (user, password) = text.as_deref().and_then(|text| text.split_once(':')).ok_or_else(wrong)?;
            basic(user.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        _ => return Ok(None),
    };
    Ok(Some((registry.to_owned(), login)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_read_and_helpers_are_passed_over() {
        let text = format!(
            r#"{{"auths": {{"a.example": {{"auth": "{}"}}, "https://b.example/v1/": {{"username": "u", "password": "p"}},
                "c.example": {{"registrytoken": "t"}}, "d.example": {{}}}}, "credsStore": "secretservice"}}"#,
            BASE64.encode(b"user:pass:word")
        );
        let basic = |user: &str, password: &str| RegistryLogin::Basic { user: user.into(), password: password.into() };
        let logins = parse(text.as_bytes()).unwrap();
        assert_eq!(
            logins,
            [
                ("a.example".to_owned(), basic("user", "pass:word")),
                ("c.example".to_owned(), RegistryLogin::Bearer("t".into())),
                ("https://b.example/v1/".to_owned(), basic("u", "p")),
            ]
        );
    }

    #[test]
    fn a_mark_line_ends_and_nothing_are_read_as_in_every_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            read(&path)
        };
        let text = "{\"auths\":\r\n {\"a.example\": {\"registrytoken\": \"t\"}}}\r\n";
        assert_eq!(write(&format!("\u{feff}{text}")).unwrap().len(), 1);
        for nothing in ["", "\r\n", "\u{feff}", "\0\0\0"] {
            assert_eq!(write(nothing).unwrap(), [], "{nothing:?}");
        }
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for text in [r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}}}"#, r#"{"auths": "secret"}"#, "secret", "[]"] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(!error.text().contains("secret") && !error.text().contains("c2VjcmV0"), "{error}");
        }
    }
}
