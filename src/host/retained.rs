//! Which artifacts this host needs and must therefore keep: what should run, what runs, and what ran before it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crate::{
    artifact::{Artifacts, Limit, Reference, published::Names},
    error::{Error, Result},
    host::{
        Host,
        desired::{Desired, DesiredActor, Loaded},
    },
    log,
    store::Digest,
};

/// How long one step of the reconciler may wait for content that is missing or damaged. What has arrived by then stays,
/// and the step is tried again; meanwhile the others get their turn.
const RESTORE_PATIENCE: Duration = Duration::from_secs(60);

/// What a host needs that does not run, by what its store says should.
///
/// # Errors
/// The store cannot be read, or a record of it cannot: nobody knows then what that needs.
pub fn of_stopped(artifacts: &Artifacts) -> Result<BTreeSet<Digest>> {
    let Loaded { desired, problems, .. } = Desired::load(artifacts.store())?;
    match problems.first() {
        Some(problem) => Err(Error::storage(problem.clone())),
        None => of_desired(&desired, artifacts),
    }
}

fn of_desired(desired: &Desired, artifacts: &Artifacts) -> Result<BTreeSet<Digest>> {
    let actors = desired.actors.values();
    let mut needs: BTreeSet<Digest> = actors.flat_map(|actor| [Some(actor.digest), actor.previous]).flatten().collect();
    // Providers are known by their reference alone.
    let records = artifacts.records();
    let providers = desired.providers.values().map(|provider| &provider.reference);
    needs.extend(providers.filter_map(|reference| records.find(reference)?.digest()));
    // Other boards come for these.
    needs.extend(Names::new(artifacts.store().clone()).digests()?);
    Ok(needs)
}

impl Host {
    /// Says so to the store of artifacts, from now on.
    pub(super) fn declare_needs(self: &Arc<Self>) {
        let host = Arc::downgrade(self);
        self.artifacts.needed_by(move || host.upgrade().and_then(|host| host.needs()));
    }

    /// `None` when it cannot be said now: nothing is removed then.
    fn needs(&self) -> Option<BTreeSet<Digest>> {
        let mut needs = match of_desired(&self.desired(), &self.artifacts) {
            Ok(needs) => needs,
            Err(error) => {
                log::warn!("the published names cannot be read, so nothing is removed: {error}");
                return None;
            }
        };
        let routes = self.router.routes();
        for running in routes.actors() {
            needs.insert(running.desired.digest);
            needs.extend(running.desired.previous);
        }
        let records = self.artifacts.records();
        let running = routes.providers().map(|provider| &provider.desired.reference);
        needs.extend(running.filter_map(|reference| records.find(reference)?.digest()));
        Some(needs)
    }

    /// The most bytes a module may have, and the setting that says so.
    pub(super) fn module_limit(&self) -> Limit {
        Limit { bytes: self.engine.settings().module_bytes as u64, setting: "WASMCLOUD_ACTOR_MODULE_BYTES" }
    }

    /// How often an actor runs when nobody says how often.
    pub fn max_concurrent(&self) -> u16 {
        self.engine.settings().max_concurrent
    }

    /// Brings back the module of an actor that should run and whose copy here is missing or damaged.
    pub(super) async fn restore_module(&self, actor: &DesiredActor) -> Result<()> {
        let reference = Reference::parse(&actor.reference)?;
        self.artifacts
            .restore(&reference, actor.requester, actor.digest, "an actor", self.module_limit(), RESTORE_PATIENCE)
            .await?;
        log::info!("its module is here again"; actor_id = actor.public_key, reference = actor.reference);
        Ok(())
    }
}
