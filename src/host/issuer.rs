//! Whether what was fetched may be run under its key, by who signed it.
//!
//! A key alone proves nothing: any account can sign a module under the key of another one's. So the issuer of what should run
//! here, or has links here, is kept ([`Desired::issuers`](crate::host::desired::Desired)), and another issuer does not get its
//! place and its links. The operator may name issuers: in a manifest, or for updates in a setting.

use crate::{
    artifact::{Reference, Requester, Source},
    claims::issuer::{SETTING, UPDATE_SETTING},
    error::{Error, Result},
    host::Host,
    log,
};

/// Refuses what is not signed by one of the `issuers` that a manifest names.
///
/// # Errors
/// `Denied`.
pub fn check_named(issuer: &str, issuers: &[String]) -> Result<()> {
    match issuers.iter().any(|named| named == issuer) {
        true => Ok(()),
        false => Err(Error::denied(format!("it is signed by {issuer}, its `issuer` must be {}", issuers.join(" or ")))),
    }
}

/// The refusal of what comes over a line that anybody may change, with nothing to tell whose it is.
pub fn of_nobody() -> Error {
    Error::denied(format!(
        "it comes from a mirror without TLS, and nothing says whose it must be: pin it by its digest, name its `issuer` in \
         the manifest, or list the accounts that may sign in {SETTING}"
    ))
}

/// What was fetched: an actor or a provider.
pub(super) struct Signed<'a> {
    /// Where it came from.
    pub reference: &'a Reference,
    /// Its key.
    pub key: &'a str,
    /// The account that signed it.
    pub issuer: &'a str,
}

impl Host {
    /// Refuses what another account signed than may have signed it. The manifest of the operator names `issuers`, or none.
    ///
    /// # Errors
    /// `Denied`.
    pub(super) fn check_issuer(&self, signed: &Signed<'_>, requester: Requester, issuers: &[String]) -> Result<()> {
        let Signed { reference, key, issuer } = *signed;
        if !issuers.is_empty() {
            return check_named(issuer, issuers);
        }
        let rules = self.rules();
        if rules.update_issuers.names(issuer) {
            return Ok(());
        }
        let desired = self.desired();
        let Some(pinned) = desired.issuers.get(key) else {
            // Whoever can change what the line brings could put anything of his own there.
            return match rules.issuers.is_any() && !self.artifacts.is_authentic(reference) {
                true => Err(of_nobody()),
                false => Ok(()),
            };
        };
        if pinned == issuer {
            return Ok(());
        }
        // A file of this board, or a reference that the operator has just written, is the operator's own word.
        let is_file = matches!(reference.source(), Source::File(_));
        if requester == Requester::Operator && (is_file || !self.came_from(key, reference)) {
            log::warn!(
                "{reference} is the actor or provider {key} signed by {issuer}; before it was signed by {pinned}"
            );
            return Ok(());
        }
        Err(Error::denied(format!(
            "it is {key} signed by {issuer}; what runs or has links here under that key is signed by {pinned}, and another \
             issuer does not take its place: name the new one in {UPDATE_SETTING}, or as `issuer` in the manifest, if it may"
        )))
    }

    /// Whether what should run here under `key` came from `reference`.
    fn came_from(&self, key: &str, reference: &Reference) -> bool {
        let desired = self.desired();
        let actor = desired.actors.get(key).is_some_and(|actor| actor.reference == reference.text());
        let mut providers = desired.providers.values().filter(|provider| provider.public_key == key);
        actor || providers.any(|provider| provider.reference == reference.text())
    }
}
