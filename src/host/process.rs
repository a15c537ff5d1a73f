//! Providers as processes of their own, as the host sees them: found by a reference, kept, started, watched, started again.
//!
//! The room that unpacks archives and runs processes sits above this floor and implements [`Processes`]; here is what the
//! host asks of it, what it is told in return ([`Watcher`]), and when a process that ended by itself is started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Instant,
};

use smol::channel;

use crate::{
    artifact::{Fetched, Limit, Reference, Requester, Source},
    claims::{Policy, SignedProvider},
    error::{Error, Kind, Result},
    host::{
        BoxFuture, Capability, Host, ProviderStatus, Uplink,
        desired::{Desired, DesiredProvider},
        event::Event,
        health::Patient,
        issuer::Signed,
        router::Counters,
        routes::{Routes, RunningProvider},
    },
    log,
    store::{Digest, MAX_BLOB_BYTES},
    task,
    wire::{LinkDefinition, id},
};

/// A provider by its public key and link name.
pub type ProviderName = (String, String);

/// What a process is started from.
pub struct ProcessStart {
    /// What should run.
    pub desired: DesiredProvider,
    /// Who it is, checked just now.
    pub claims: SignedProvider,
    /// Name of this process, a UUID.
    pub instance_id: String,
    /// Its links at this moment.
    pub links: Vec<LinkDefinition>,
    /// The way it is spoken to.
    pub uplink: Arc<dyn Uplink>,
    /// Who wants to know what becomes of it.
    pub watcher: Watcher,
}

/// Runs providers as processes.
pub trait Processes: Send + Sync + 'static {
    /// Checks `archive` and keeps what this machine needs of it, durably.
    ///
    /// # Errors
    /// The archive may not run here, or the disk failed; nothing was kept then.
    fn keep(&self, archive: Vec<u8>, policy: Policy) -> BoxFuture<'static, Result<SignedProvider>>;

    /// Checks what was kept for `token` again, as before each start.
    ///
    /// # Errors
    /// [`Kind::NotFound`] or [`Kind::Storage`]: it is not here or no longer what it was, and must be fetched again; everything
    /// else is a refusal.
    fn check(&self, token: String, policy: Policy) -> BoxFuture<'static, Result<SignedProvider>>;

    /// Starts a process; it runs when this returns, and may not be ready yet.
    ///
    /// # Errors
    /// It cannot be started now.
    fn start(&self, start: ProcessStart) -> BoxFuture<'static, Result<Arc<dyn Capability>>>;

    /// The provider `name` was stopped for good.
    fn leave(&self, name: ProviderName) -> BoxFuture<'static, ()>;

    /// Forgets everything kept for providers whose tokens are not among `needed`, and what those have left that were stopped
    /// for good.
    fn tidy(&self, needed: BTreeSet<String>, wanted: BTreeSet<ProviderName>) -> BoxFuture<'static, ()>;

    /// Whether `process_id`, of this host's user, may manage this host.
    ///
    /// # Errors
    /// [`Kind::Denied`]: it is a provider's, or that cannot be ruled out.
    fn check_manager(&self, process_id: i32) -> BoxFuture<'static, Result<()>>;

    /// How often in a row a process that ended by itself is started again.
    fn restarts(&self) -> u32;
}

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// It is well.
    Well,
    /// It says what it lacks.
    Unwell(String),
    /// It said nothing in time.
    Silent,
}

/// Takes the news of one process to the host it belongs to.
#[derive(Clone)]
pub struct Watcher {
    host: Weak<Host>,
    name: ProviderName,
    instance_id: String,
    /// Closed once the host's tables and events tell of the process.
    told: channel::Receiver<()>,
}

impl Watcher {
    /// A probe found it so; nothing where another process took its place meanwhile. One that says itself that it is
    /// unwell is left alone: it works and knows what it lacks, and a new process would lack it too. One that says
    /// nothing is taken for dead after a while.
    pub fn probed(&self, found: Probed) {
        let Some(host) = self.host.upgrade() else { return };
        if !host.router.routes().runs_instance(&self.name, &self.instance_id) {
            return;
        }
        let patient = Patient::Provider(self.name.0.clone(), self.name.1.clone());
        match found {
            Probed::Well => host.report_health(&patient, Ok(())),
            Probed::Unwell(complaint) => host.report_complaint(&patient, complaint),
            Probed::Silent => host.report_health(&patient, Err("it does not answer".to_owned())),
        }
    }

    /// It should be ended and started anew, as it is.
    pub fn renew(&self) {
        if let Some(host) = self.host.upgrade() {
            host.reconciler.renew(self.name.clone());
        }
    }

    /// The process ended without having been asked to.
    pub fn ended(&self, reason: String) {
        let Some(host) = self.host.upgrade() else { return };
        let watcher = self.clone();
        task::spawn(async move {
            let _ = watcher.told.recv().await;
            host.process_ended(&watcher.name, &watcher.instance_id, reason);
        })
        .detach();
    }
}

impl Host {
    /// Gives the host its way to run providers as processes. The first one given stays.
    pub fn set_processes(&self, processes: Arc<dyn Processes>) {
        if self.processes.set(processes).is_err() {
            log::warn!("a second way to run providers was offered and not taken");
        }
    }

    fn processes(&self) -> Result<&Arc<dyn Processes>> {
        self.processes.get().ok_or_else(no_processes)
    }

    /// Forgets binaries that no provider of this host needs any more. Once a start: what a command brings meanwhile and a tidy
    /// round takes away is fetched again when it starts.
    pub(super) async fn tidy_processes(&self) {
        if let Some(processes) = self.processes.get() {
            let desired = self.desired();
            let needed = desired.providers.values().filter_map(|there| there.token.clone()).collect();
            processes.tidy(needed, desired.providers.keys().cloned().collect()).await;
        }
    }

    /// The process of the provider `name` was stopped; whether for good, what should run says.
    pub(super) async fn leave_process(&self, name: &ProviderName) {
        if let Some(processes) = self.processes.get()
            && !self.desired().providers.contains_key(name)
        {
            processes.leave(name.clone()).await;
        }
    }

    /// The key of the provider behind `reference`, as far as it is known without fetching anything.
    pub fn known_provider(&self, reference: &str) -> Option<String> {
        match Reference::parse(reference).ok()?.source() {
            Source::Builtin(name) => Some(self.builtins.find(name).ok()?.public_key()),
            _ => {
                let desired = self.desired();
                desired
                    .providers
                    .values()
                    .find(|there| there.reference == reference)
                    .map(|there| there.public_key.clone())
            }
        }
    }

    /// The provider in the archive behind `reference`, fetched, checked and kept.
    pub(super) async fn find_archive(
        &self,
        reference: &Reference,
        link_name: &str,
        requester: Requester,
        issuers: &[String],
    ) -> Result<DesiredProvider> {
        let processes = self.processes()?;
        check_link_name(link_name)?;
        let claims = match self.fetch_archive(reference, requester, issuers).await {
            // A board starts again without the stick it was installed from.
            Err(error) if error.kind() == Kind::NotFound => {
                let desired = self.desired();
                let kept = desired.providers.values().find(|there| there.reference == reference.text());
                let token = kept.and_then(|kept| kept.token.clone()).ok_or(error.clone())?;
                log::warn!("{error}; starting the copy kept from before");
                processes.check(token, self.policy()).await?
            }
            outcome => outcome?,
        };
        Ok(DesiredProvider {
            reference: reference.text().to_owned(),
            public_key: claims.subject,
            link_name: link_name.to_owned(),
            contract_id: claims.contract_id,
            configuration: None,
            annotations: BTreeMap::new(),
            applications: BTreeSet::new(),
            token: Some(claims.token),
            requester,
            issuer: Some(claims.issuer),
        })
    }

    pub(super) async fn fetch_archive(
        &self,
        reference: &Reference,
        requester: Requester,
        issuers: &[String],
    ) -> Result<SignedProvider> {
        let limit = Limit::fixed(MAX_BLOB_BYTES as u64);
        let processes = self.processes()?;
        let Fetched { digest, bytes } = self.artifacts.fetch(reference, requester, "a provider", limit).await?;
        let kept = processes.keep(bytes, self.policy()).await.and_then(|claims| {
            let signed = Signed { reference, key: &claims.subject, issuer: &claims.issuer };
            self.check_issuer(&signed, requester, issuers)?;
            Ok(claims)
        });
        match kept {
            Ok(claims) => {
                self.artifacts.accept(reference, digest).await;
                Ok(claims)
            }
            // Nothing was found against it, so it need not be fetched again.
            Err(error) if error.kind().is_curable() => Err(error.context(reference.text())),
            Err(error) => {
                self.discard(reference, digest).await;
                Err(error.context(reference.text()))
            }
        }
    }

    /// Removes what was refused: it neither fills the disk nor is given to others. What is needed stays, though it may be
    /// refused only by now.
    pub(super) async fn discard(&self, reference: &Reference, digest: Digest) {
        if let Err(error) = self.artifacts.discard(reference, digest).await {
            log::warn!("cannot remove what was refused: {error}"; reference = reference.text());
        }
    }

    /// The archive that `reference` brought before, unpacked from the copy that is here; nobody is asked.
    async fn recall_archive(&self, reference: &Reference) -> Option<SignedProvider> {
        let digest = self.artifacts.records().find(reference.text())?.digest()?;
        let bytes = self.store.blobs().read(digest).await.ok()?;
        self.processes().ok()?.keep(bytes, self.policy()).await.ok()
    }

    /// Starts `desired` as a process.
    pub(super) async fn start_process(self: &Arc<Self>, desired: &DesiredProvider) -> Result<()> {
        let processes = self.processes()?.clone();
        let name = (desired.public_key.clone(), desired.link_name.clone());
        // Whatever comes of it: from here on a failure is a failed start and waits as such.
        self.reconciler.restarts().started(&name, Instant::now());
        let token = desired.token.clone().unwrap_or_default();
        let claims = match processes.check(token, self.policy()).await {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Storage) => {
                log::warn!("{error}; unpacking or fetching it again"; provider_id = desired.public_key);
                let reference = Reference::parse(&desired.reference)?;
                let came = self.reconciler.awaited().take(desired);
                let again = match (self.recall_archive(&reference).await, came) {
                    (Some(again), _) if again.subject == desired.public_key => again,
                    (_, Some(came)) => came,
                    _ => return Err(self.await_archive(desired, reference)),
                };
                self.check_same(desired, &again)?;
                again
            }
            outcome => {
                // What came for an earlier start is of no use to a later one.
                drop(self.reconciler.awaited().take(desired));
                outcome?
            }
        };
        let uplink = self.router.uplink().filter(|uplink| uplink.status().connected).ok_or_else(|| {
            Error::unavailable("there is no connection to NATS now; the provider is started when there is one")
        })?;
        log::name(&desired.public_key, &claims.name);
        let instance_id = id::strict_uuid()?.as_str().to_owned();
        let links = self.links_of(&self.desired(), &name);
        let (telling, told) = channel::bounded(1);
        let watcher =
            Watcher { told, host: Arc::downgrade(self), name: name.clone(), instance_id: instance_id.clone() };
        let start = ProcessStart {
            desired: desired.clone(),
            claims: claims.clone(),
            instance_id: instance_id.clone(),
            links,
            uplink,
            watcher,
        };
        let capability = processes.start(start).await?;
        self.put_provider(RunningProvider {
            desired: desired.clone(),
            capability,
            counters: Counters::default(),
            claims: Some(claims),
            instance_id: Some(instance_id),
        });
        drop(telling);
        Ok(())
    }

    fn links_of(&self, desired: &Desired, name: &ProviderName) -> Vec<LinkDefinition> {
        let links = desired.links.values().map(|wanted| &wanted.link);
        let own = links.filter(|link| (&link.provider_id, &link.link_name) == (&name.0, &name.1));
        own.map(|link| (**link).clone()).collect()
    }

    /// A process ended by itself: it is taken off the tables, and started again when that is wanted and worth it.
    fn process_ended(&self, name: &ProviderName, instance_id: &str, reason: String) {
        let gone = {
            let mut routes = self.router.routes_mut();
            // Stopped meanwhile, or another process took its place.
            if !routes.runs_instance(name, instance_id) {
                return;
            }
            routes.remove_provider(name)
        };
        let Some(gone) = gone else { return };
        self.reconciler.forget_links(name);
        self.health.renew(&Patient::Provider(name.0.clone(), name.1.clone()));
        let limit = self.processes.get().map_or(0, |processes| processes.restarts());
        let random = getrandom::u32().unwrap_or(u32::MAX / 2);
        self.reconciler.restarts().ended(name, &reason, limit, Instant::now(), random);
        self.tell(&Event::ProviderStopped {
            public_key: name.0.clone(),
            contract_id: gone.desired.contract_id.clone(),
            link_name: name.1.clone(),
            reason,
        });
        self.reconciler.nudge();
    }

    /// Wanted providers that do not run, for the status.
    pub(super) fn missing_providers(&self, routes: &Routes) -> Vec<ProviderStatus> {
        let desired = self.desired();
        let missing =
            desired.providers.iter().filter(|((key, link_name), _)| routes.provider(key, link_name).is_none());
        missing
            .map(|(name, wanted)| ProviderStatus {
                public_key: wanted.public_key.clone(),
                name: wanted.reference.clone(),
                image_ref: wanted.reference.clone(),
                contract_id: wanted.contract_id.clone(),
                link_name: wanted.link_name.clone(),
                state: self.reconciler.restarts().text(name).unwrap_or_else(|| "does not run".to_owned()),
                ..ProviderStatus::default()
            })
            .collect()
    }

    /// Lets a provider that was given up be tried again; whether it was.
    pub fn retry_provider(&self, public_key: &str, link_name: &str) -> bool {
        let name = (public_key.to_owned(), link_name.to_owned());
        let given_up = self.reconciler.restarts().forgive(&name);
        if given_up {
            self.reconciler.wake();
        }
        given_up
    }
}

/// Why a host by itself runs no provider as a process.
pub fn no_processes() -> Error {
    Error::config(
        "a provider as a process is reached over NATS, and this host is by itself: name a server in WASMCLOUD_RPC_HOST, or \
         use a builtin: provider",
    )
}

/// Refuses a link name that a provider as a process cannot run under: it becomes part of subjects, and of what the process
/// may do there.
///
/// # Errors
/// `Invalid`.
pub fn check_link_name(link_name: &str) -> Result<()> {
    let plain = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
    if link_name.is_empty() || link_name.len() > MAX_LINK_NAME_BYTES || !link_name.chars().all(plain) {
        return Err(Error::invalid(format!(
            "the link name '{}' cannot be part of a NATS subject: use up to {MAX_LINK_NAME_BYTES} letters, digits, '-' and '_'",
            link_name.escape_debug()
        )));
    }
    Ok(())
}

/// Longest link name of a process, bytes: it is part of a folder's name.
const MAX_LINK_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_name_is_one_plain_token() {
        for good in ["default", "a-b_c", "größe"] {
            check_link_name(good).unwrap();
        }
        for bad in ["", "a.b", "*", ">", "a b", "../x", &"x".repeat(65)] {
            assert!(check_link_name(bad).is_err(), "{bad}");
        }
    }
}
