//! The host as its managers see it: [`Control`] on top of the parts.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use crate::{
    artifact::Artifacts,
    error::Result,
    host::{
        ActorStatus, BoxFuture, Call, Control, Host, HostStatus, Invoke, MemoryStatus, ProviderStatus,
        applied::Applied,
        routes::{Routes, unclaimed},
    },
    task,
    wire::Entity,
};

impl Control for Host {
    fn artifacts(&self) -> Option<&Artifacts> {
        Some(&self.artifacts)
    }

    fn check_manager(&self, process_id: i32) -> BoxFuture<'static, Result<()>> {
        match self.processes.get() {
            Some(processes) => processes.check_manager(process_id),
            None => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn status(&self) -> HostStatus {
        let routes = self.router.routes();
        let actors = routes
            .actors()
            .map(|running| {
                let counters = running.actor.counts();
                ActorStatus {
                    public_key: running.desired.public_key.clone(),
                    name: running.claims.name.clone(),
                    image_ref: running.desired.reference.clone(),
                    revision: running.claims.revision,
                    version: running.claims.version.clone(),
                    max_concurrent: running.desired.max_concurrent(),
                    instances: counters.running,
                    queued: counters.queued,
                    calls: counters.calls,
                    errors: counters.errors,
                    fuel: counters.fuel,
                    compiled: counters.compiled,
                    state: "running".to_owned(),
                }
            })
            .collect();
        let mut providers: Vec<_> = routes
            .providers()
            .map(|running| ProviderStatus {
                public_key: running.desired.public_key.clone(),
                name: running.name().to_owned(),
                image_ref: running.desired.reference.clone(),
                contract_id: running.desired.contract_id.clone(),
                link_name: running.desired.link_name.clone(),
                calls: running.counters.calls(),
                errors: running.counters.errors(),
                state: running.capability.state(),
                detail: running.capability.detail(),
            })
            .collect();
        providers.extend(self.missing_providers(&routes));
        providers.extend(self.router.uplink().map(|uplink| uplink.remote_providers()).unwrap_or_default());
        let mut links: Vec<_> = routes.links.iter().map(|link| (**link).clone()).collect();
        links.sort_by(|one, other| one.id.cmp(&other.id));
        let mut problems = self.damage.clone();
        let not_reloaded = self.configured().not_reloaded.clone();
        problems.extend(not_reloaded.iter().map(|why| format!("settings are not reloaded: {why}")));
        problems.extend(self.pending.problems());
        problems.extend(self.reconciler.problems());
        for (what, why, _) in self.health.complaints() {
            if !problems.iter().any(|problem| problem.starts_with(&what)) {
                problems.push(format!("{what}: unhealthy: {why}"));
            }
        }
        problems.extend(super::expiry::expired(&routes, self.now()));
        let mut unclaimed_links: Vec<String> = routes
            .links
            .iter()
            .filter(|link| routes.provider(&link.provider_id, &link.link_name).is_some())
            .filter_map(|link| Some((routes.actor(&link.actor_id)?, &link.contract_id)))
            .filter(|(actor, contract)| !actor.claims.may_use(contract))
            .map(|(actor, contract)| unclaimed(&actor.claims.name, contract))
            .collect();
        unclaimed_links.sort();
        problems.extend(unclaimed_links);
        let uplink = self.router.uplink_status();
        problems.extend(uplink.iter().flat_map(|uplink| uplink.problems.iter().cloned()));
        let names = self.names(&routes);
        HostStatus {
            host_id: self.id(),
            friendly_name: self.settings.friendly_name.clone(),
            lattice: self.settings.lattice.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            labels: self.labels(),
            memory: MemoryStatus { module_cache_bytes: self.engine.module_cache_bytes() as u64, ..memory() },
            tasks: task::live() as u64,
            actors,
            providers,
            links,
            uplink,
            downloads: self.artifacts.transfers(),
            not_reloaded,
            names,
            problems,
            differences: self.differences(),
            pending: self.router.uplink().map(|uplink| uplink.pending_commands()).unwrap_or_default(),
        }
    }

    fn call(
        &self,
        actor: String,
        operation: String,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Vec<u8>>> {
        let key = match self.router.routes().meant(&actor) {
            Ok(key) => key,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        self.router.invoke(Call {
            origin: Entity::default(),
            target: Entity::actor(key),
            operation,
            payload,
            deadline: Instant::now() + timeout,
            depth: 0,
            trace: None,
        })
    }

    fn remove_pending(&self, id: String) -> BoxFuture<'static, Result<bool>> {
        match self.router.uplink() {
            Some(uplink) => uplink.remove_command(id),
            None => Box::pin(std::future::ready(Ok(false))),
        }
    }

    fn request_stop(&self) {
        Host::request_stop(self);
    }
}

impl Host {
    /// Where what should run differs from the manifests of this board, one sentence each.
    fn differences(&self) -> Vec<String> {
        let desired = self.desired();
        let commanded = desired.applied.values().flat_map(Applied::sentences);
        commanded.chain(self.conflicts().values().cloned()).collect()
    }

    /// What people call what should run: names of claims where something runs, else what the reference ends in.
    fn names(&self, routes: &Routes) -> BTreeMap<String, String> {
        let desired = self.desired();
        let last = |reference: &str| {
            let end = reference.rsplit(['/', ':']).next().unwrap_or(reference);
            end.strip_suffix(".wasm").unwrap_or(end).to_owned()
        };
        let providers = desired.providers.values();
        let mut names: BTreeMap<String, String> =
            providers.map(|provider| (provider.public_key.clone(), last(&provider.reference))).collect();
        names.extend(desired.actors.values().map(|actor| (actor.public_key.clone(), last(&actor.reference))));
        let providers = routes.providers().map(|one| (one.desired.public_key.clone(), one.name().to_owned()));
        names.extend(providers);
        names.extend(routes.actors().map(|one| (one.desired.public_key.clone(), one.claims.name.clone())));
        names.retain(|_, name| !name.is_empty());
        names
    }
}

/// Memory of this process as the kernel accounts it; zeros where it does not tell.
pub fn memory() -> MemoryStatus {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    MemoryStatus {
        pss_bytes: bytes("Pss").unwrap_or_default(),
        rss_bytes: bytes("Rss").unwrap_or_default(),
        module_cache_bytes: 0,
    }
}
