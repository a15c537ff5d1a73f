//! What of a running host can be changed without a new start: labels, issuers, limits of actors, rules for what is fetched,
//! certificates.
//!
//! Called when settings were read again. What runs goes on: actors are put in place anew as in a live update.

use std::collections::BTreeMap;

use crate::{
    actor, artifact,
    error::Result,
    host::{Capability, Host, Rules},
    log,
};

impl Host {
    /// Labels of the settings from now on; answers whether they are others than before.
    pub fn set_labels(&self, labels: BTreeMap<String, String>) -> bool {
        let mut configured = self.configured();
        let changed = configured.labels != labels;
        configured.labels = labels;
        changed
    }

    /// The last reload went well, or changed nothing for the reason told: status shows it until the next one.
    pub fn reloaded(&self, failed: Option<String>) {
        self.configured().not_reloaded = failed;
        self.announce();
    }

    /// What may be started from now on. What runs is not judged again.
    pub fn follow_rules(&self, rules: Rules) {
        self.configured().rules = rules;
        // Where links from the lattice listen depends on them.
        self.reconciler.nudge();
    }

    /// Rules for what is fetched from now on.
    pub fn follow_artifacts(&self, settings: artifact::Settings) {
        self.artifacts.follow(settings);
    }

    /// Limits of actors from now on; answers whether they are others than before. Running actors are put in place anew
    /// with them, their invocations in flight end under the old ones.
    ///
    /// # Errors
    /// A limit is 0 where that makes no sense; the old ones stay.
    pub fn limit_actors(&self, settings: actor::Settings) -> Result<bool> {
        let changed = self.engine.limit(settings)?;
        if changed {
            self.reconciler.renew_actors();
        }
        Ok(changed)
    }

    /// Has every provider of this process read again what it read from files: certificates above all.
    pub async fn reload_capabilities(&self) {
        let capabilities: Vec<(String, std::sync::Arc<dyn Capability>)> = {
            let routes = self.router.routes();
            routes.providers().map(|one| (one.desired.public_key.clone(), one.capability.clone())).collect()
        };
        for (key, capability) in capabilities {
            if let Err(error) = capability.reload().await {
                log::error!("a provider keeps what it read before: {error}"; provider_id = key);
            }
        }
    }
}
