//! Whose signature counts: the list of accounts this host runs actors and providers of.
//!
//! A token always proves which account signed it, never that the account may. By default any may, as in every host of
//! this line; an operator who lists accounts makes the host refuse all others.

use std::{collections::BTreeSet, sync::Arc};

use super::keys::{PublicKey, Role};
use crate::error::{Error, Result};

/// The setting, as the errors name it.
pub const SETTING: &str = "WASMCLOUD_ALLOWED_ISSUERS";

/// The setting of the accounts that may take the place of others.
pub const UPDATE_SETTING: &str = "WASMCLOUD_UPDATE_ISSUERS";

/// The accounts whose actors and providers may run. Cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedIssuers(Option<Arc<BTreeSet<PublicKey>>>);

impl AllowedIssuers {
    /// Any account.
    pub fn any() -> Self {
        Self(None)
    }

    /// Only `accounts`; none of them when empty.
    pub fn only(accounts: impl IntoIterator<Item = PublicKey>) -> Self {
        Self(Some(Arc::new(accounts.into_iter().collect())))
    }

    /// No account.
    pub fn none() -> Self {
        Self::only([])
    }

    /// Reads the setting `setting`: public keys of accounts (`A…`) separated by commas. Unset and empty both mean any account; a
    /// list that holds nothing but commas is a mistake, and a mistake must not open the door.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config): an element is not the public key of an account, or there is none.
    pub fn parse(list: &str, setting: &str) -> Result<Self> {
        if list.trim().is_empty() {
            return Ok(Self::any());
        }
        let keys = list.split(',').map(str::trim).filter(|key| !key.is_empty());
        let accounts = keys
            .map(|text| {
                let key: PublicKey =
                    text.parse().map_err(|cause: Error| Error::config(format!("{setting}: {cause}")))?;
                if key.role() == Role::Account {
                    return Ok(key);
                }
                Err(Error::config(format!(
                    "{setting}: {key} is {} key; issuers are accounts, their keys start with A",
                    key.role().with_article()
                )))
            })
            .collect::<Result<BTreeSet<_>>>()?;
        if accounts.is_empty() {
            return Err(Error::config(format!("{setting} names no account; leave it empty to unset it")));
        }
        Ok(Self::only(accounts))
    }

    /// Whether any account may sign.
    pub fn is_any(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `issuer` is listed by name.
    pub fn names(&self, issuer: &str) -> bool {
        self.0.as_ref().is_some_and(|accounts| accounts.iter().any(|account| account.to_string() == issuer))
    }

    /// Refuses an issuer that is not on the list. `subject` is what was signed, for the text.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied), naming issuer, subject and setting.
    pub fn check(&self, issuer: &PublicKey, subject: &str) -> Result<()> {
        match &self.0 {
            Some(accounts) if !accounts.contains(issuer) => Err(Error::denied(format!(
                "the issuer {issuer} of {subject} is not among the allowed issuers; add it to {SETTING} to run this"
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{claims::KeyPair, error::Kind};

    #[test]
    fn the_default_lets_anyone_sign() {
        let issuer = KeyPair::from_name(Role::Account, "a").public_key();
        for list in ["", "  "] {
            assert!(AllowedIssuers::parse(list, SETTING).unwrap().check(&issuer, "M").is_ok());
        }
        assert!(AllowedIssuers::only([]).check(&issuer, "M").is_err());
    }

    #[test]
    fn a_list_refuses_others_and_says_how_to_admit_them() {
        let [a, b, c] = ["a", "b", "c"].map(|name| KeyPair::from_name(Role::Account, name).public_key());
        let allowed = AllowedIssuers::parse(&format!("{a}, {b}"), SETTING).unwrap();
        assert!(allowed.check(&a, "M1").is_ok() && allowed.check(&b, "M1").is_ok());
        let refusal = allowed.check(&c, "M1").unwrap_err();
        assert_eq!(refusal.kind(), Kind::Denied);
        for part in [c.to_string().as_str(), "M1", SETTING] {
            assert!(refusal.text().contains(part), "{refusal}");
        }
    }

    #[test]
    fn what_is_no_account_cannot_be_listed() {
        let host = KeyPair::from_name(Role::Server, "h").public_key().to_string();
        for list in [host.as_str(), "nobody", "*", " , "] {
            let refusal = AllowedIssuers::parse(list, SETTING).unwrap_err();
            assert_eq!(refusal.kind(), Kind::Config);
            assert!(refusal.text().starts_with(SETTING), "{refusal}");
        }
    }
}
