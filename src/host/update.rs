//! Whether another module may take the place of a running actor's, by whoever asks for it.

use crate::{
    claims::{SignedModule, issuer::UPDATE_SETTING},
    error::{Error, Result},
    host::{Host, change::Module},
};

impl Host {
    /// Checks that `module`, whose claims are `claims`, may take the running actor's place, and loads it once as a start would:
    /// one that cannot work changes nothing. Where [`Rules`] are strict it may claim no capability that the running
    /// one does not.
    ///
    /// [`Rules`]: crate::host::Rules
    ///
    /// # Errors
    /// `NotFound` when the actor does not run here; `Conflict` unless its revision is greater than the one that runs; `Denied`
    /// for more capabilities; why it cannot be loaded.
    pub async fn check_update(&self, module: &Module, claims: &SignedModule) -> Result<()> {
        let there = self.router.routes().actor(&module.public_key).map(|running| running.claims.clone());
        let there = there
            .ok_or_else(|| Error::not_found(format!("the actor {} is not running on this host", module.public_key)))?;
        let reference = &module.reference;
        if claims.revision <= there.revision {
            return Err(Error::conflict(format!(
                "{reference} has revision {}, {} runs already; the new one must be greater",
                claims.revision, there.revision
            )));
        }
        if claims.issuer != there.issuer && !self.rules().update_issuers.names(&claims.issuer) {
            return Err(Error::denied(format!(
                "{reference} is signed by {}, the running revision by {}, and an update needs the same issuer: name the new \
                 one in {UPDATE_SETTING} if it may take the place",
                claims.issuer, there.issuer
            )));
        }
        // The token of an old module could be put on any other.
        if there.hash_matches && !claims.hash_matches {
            return Err(Error::denied(format!(
                "the token of {reference} does not vouch for its bytes, and that of the running revision does: sign it again"
            )));
        }
        if self.rules().strict_update {
            let gained: Vec<&str> = claims.caps.iter().filter(|cap| !there.may_use(cap)).map(String::as_str).collect();
            if !gained.is_empty() {
                return Err(Error::denied(format!(
                    "{reference} claims {}, which the running revision does not, and WASMCLOUD_STRICT_UPDATE_CHECK is on: \
                     stop the actor and start the new revision, if it may have that",
                    gained.join(", ")
                )));
            }
        }
        self.try_module(module, &claims.name).await
    }
}
