//! Which artifacts this host needs and must therefore keep: what should run, what runs, and what ran before it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    artifact::{Limit, Reference, published::Names},
    error::Result,
    host::{Host, desired::DesiredActor},
    log,
    store::Digest,
};

/// How long one step of the reconciler may wait for content that is missing or damaged. What has arrived by then stays,
/// and the step is tried again; meanwhile the others get their turn.
const RESTORE_PATIENCE: Duration = Duration::from_secs(60);

impl Host {
    /// Says so to the store of artifacts, from now on.
    pub(super) fn declare_needs(self: &Arc<Self>) {
        let host = Arc::downgrade(self);
        self.artifacts.needed_by(move || host.upgrade().and_then(|host| host.needs()));
    }

    /// `None` when it cannot be said now: nothing is removed then.
    fn needs(&self) -> Option<BTreeSet<Digest>> {
        let desired = self.desired();
        let actors = desired.actors.values();
        let mut needs: BTreeSet<Digest> =
            actors.flat_map(|actor| [Some(actor.digest), actor.previous]).flatten().collect();
        let routes = self.router.routes();
        for running in routes.actors() {
            needs.insert(running.desired.digest);
            needs.extend(running.desired.previous);
        }
        // Providers are known by their reference alone.
        let records = self.artifacts.records();
        let providers = desired.providers.values().map(|provider| &provider.reference);
        let running = routes.providers().map(|provider| &provider.desired.reference);
        needs.extend(providers.chain(running).filter_map(|reference| records.find(reference)?.digest()));
        // Other boards come for these.
        match Names::new(self.store.clone()).digests() {
            Ok(published) => needs.extend(published),
            Err(error) => {
                log::warn!("the published names cannot be read, so nothing is removed: {error}");
                return None;
            }
        }
        Some(needs)
    }

    /// The most bytes a module may have, and the setting that says so.
    pub(super) fn module_limit(&self) -> Limit {
        Limit { bytes: self.engine.settings().module_bytes as u64, setting: "WASMCLOUD_ACTOR_MODULE_BYTES" }
    }

    /// Brings back the module of an actor that should run and whose copy here is missing or damaged.
    pub(super) async fn restore_module(&self, actor: &DesiredActor) -> Result<()> {
        let reference = Reference::parse(&actor.reference)?;
        self.artifacts.restore(&reference, actor.digest, "an actor", self.module_limit(), RESTORE_PATIENCE).await?;
        log::info!("its module is here again"; actor_id = actor.public_key, reference = actor.reference);
        Ok(())
    }
}
