//! Claims that expired after they were admitted: said in the log once and in the status for as long as it is so.
//!
//! What was admitted runs on until it is replaced, and starts again at the next boot (`Host::policy_for`): a claim that ends
//! while its actor runs, a board that boots later, and a clock that is set back all come to the same.

use std::collections::BTreeSet;

use super::{Host, routes::Routes};
use crate::{claims::Now, lock::Mutex, log};

/// Entities whose end was said.
#[derive(Default)]
pub(super) struct Expiry(Mutex<BTreeSet<String>>);

impl Host {
    /// Says of each actor and provider whose claims have expired that it runs on, once.
    pub fn warn_of_expired(&self) {
        let expired = expired(&self.router.routes(), self.now());
        let mut said = self.expiry.0.lock();
        // One that was replaced, or whose clock was set back, is said again when it comes to that.
        said.retain(|known| expired.contains(known));
        for text in expired {
            if said.insert(text.clone()) {
                log::warn!("{text}");
            }
        }
    }
}

/// A sentence for each actor and provider whose claims have expired by `now`, in a fixed order.
pub(super) fn expired(routes: &Routes, now: Now) -> BTreeSet<String> {
    let actors = routes.actors().map(|running| ("actor", &running.desired.public_key, running.claims.expires));
    let providers = routes.providers().filter_map(|running| {
        let claims = running.claims.as_ref()?;
        Some(("provider", &running.desired.public_key, claims.expires))
    });
    let expired = actors.chain(providers).filter(|(_, _, expires)| now.is_past(*expires));
    expired.map(|(what, key, _)| text(what, key)).collect()
}

fn text(what: &str, key: &str) -> String {
    format!(
        "{what} {key}: its claims have expired since it was admitted here; it runs until it is replaced, and a new command \
         cannot start it elsewhere: sign it again and update it"
    )
}
