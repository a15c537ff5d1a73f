//! Who we are to a NATS server, said anew for each connection: its challenge is signed by our own key code.
//!
//! No secret leaves this file except into the client library's login.

use std::{fs, path::Path};

use async_nats::{Auth, AuthError};

use super::endpoint::Login;
use crate::{
    claims::KeyPair,
    private,
    text_file::{is_blank, without_mark},
};

/// Longest credentials file that is read, bytes. Real ones stay below 4 KiB.
const MAX_CREDENTIALS_BYTES: u64 = 64 * 1024;

/// The login for a server that asked to have `nonce` signed.
pub async fn answer(login: Login, nonce: Vec<u8>) -> Result<Auth, AuthError> {
    let mut auth = Auth::new();
    match login {
        Login::None => {}
        Login::Token(token) => auth.token = Some(token),
        Login::UserPassword { user, password } => {
            auth.username = Some(user);
            auth.password = Some(password);
        }
        Login::Nkey { seed } => {
            let key = key(&seed)?;
            auth.nkey = Some(key.public_key().to_string());
            auth.signature = Some(key.sign(&nonce).to_vec());
        }
        Login::Jwt { jwt, seed } => {
            auth.signature = Some(key(&seed)?.sign(&nonce).to_vec());
            auth.jwt = Some(jwt);
        }
        Login::CredentialsFile(path) => {
            let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(AuthError::new)?;
            let (jwt, seed) = read.map_err(AuthError::new)?;
            auth.signature = Some(key(&seed)?.sign(&nonce).to_vec());
            auth.jwt = Some(jwt);
        }
    }
    Ok(auth)
}

fn key(seed: &str) -> Result<KeyPair, AuthError> {
    KeyPair::from_seed(seed).map_err(|cause| AuthError::new(cause.text()))
}

fn read(path: &Path) -> Result<(String, String), String> {
    let named = |why: &str| format!("the credentials file {} cannot be used: {why}", path.display());
    private::check(path).map_err(|error| error.text().to_owned())?;
    let length = fs::metadata(path).map_err(|cause| named(&cause.to_string()))?.len();
    if length > MAX_CREDENTIALS_BYTES {
        return Err(named(&format!("it has {length} bytes, at most {MAX_CREDENTIALS_BYTES} are read")));
    }
    let text = fs::read_to_string(path).map_err(|cause| named(&cause.to_string()))?;
    parse(&text).map_err(named)
}

/// The token and the seed of a credentials file.
pub fn parse(text: &str) -> Result<(String, String), &'static str> {
    if is_blank(text) {
        return Err("it is empty, as a power cut can leave a file: write it again");
    }
    let block = |name: &str| {
        let mut lines = without_mark(text).lines().map(str::trim);
        // The dashes around the names vary between generations of the tool that writes these files.
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN") && line.contains(name))?;
        lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with("---")).map(str::to_owned)
    };
    let jwt = block("NATS USER JWT").ok_or("it has no block BEGIN NATS USER JWT")?;
    let seed = block("USER NKEY SEED").ok_or("it has no block BEGIN USER NKEY SEED")?;
    Ok((jwt, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Role;

    const FILE: &str = "-----BEGIN NATS USER JWT-----\neyJ0.eyJq.AbC\n------END NATS USER JWT------\n\n\
        ************************* IMPORTANT *************************\nNKEY Seed printed below can be used to sign.\n\n\
        -----BEGIN USER NKEY SEED-----\nSUxyz\n------END USER NKEY SEED------\n";

    #[test]
    fn a_credentials_file_holds_a_token_and_a_seed() {
        assert_eq!(parse(FILE), Ok(("eyJ0.eyJq.AbC".into(), "SUxyz".into())));
        assert_eq!(parse(&format!("\u{feff}{}", FILE.replace('\n', "\r\n"))), parse(FILE), "as an editor leaves it");
        assert!(parse("").unwrap_err().contains("empty"));
        assert!(parse("-----BEGIN NATS USER JWT-----\n------END NATS USER JWT------").is_err());
        assert!(parse(&FILE.replace("SUxyz\n", "")).is_err());
    }

    #[test]
    fn a_key_login_signs_the_challenge() {
        let key = KeyPair::from_name(Role::User, "u");
        let login = Login::Nkey { seed: key.seed().expose().to_owned() };
        let auth = smol::block_on(answer(login, b"nonce".to_vec())).unwrap();
        assert_eq!(auth.nkey, Some(key.public_key().to_string()));
        assert!(key.public_key().verify(b"nonce", &auth.signature.unwrap()));
        assert!(smol::block_on(answer(Login::Nkey { seed: "no".into() }, vec![])).is_err());
    }
}
