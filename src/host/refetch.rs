//! Provider archives that had to be fetched again, because neither what was unpacked nor the archive is on the board any more.
//!
//! A fetch takes as long as its source lets it, so no step of the reconciler waits for one: the step of that provider is left
//! out until the archive is here or cannot be had, and everything else goes on.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use smol::Task;

use crate::{
    artifact::Reference,
    claims::SignedProvider,
    error::{Error, Result},
    host::{Host, desired::DesiredProvider, plan::Step, process::ProviderName},
    log, task,
};

enum State {
    /// Cancelled when this is dropped.
    OnItsWay(Task<()>),
    Here(Box<SignedProvider>),
}

struct Archive {
    reference: String,
    state: State,
}

/// By provider. Bounded by what should run.
#[derive(Default)]
pub struct Awaited(BTreeMap<ProviderName, Archive>);

impl Awaited {
    /// Whether the archive that `provider` is started from is on its way.
    pub fn has(&self, provider: &DesiredProvider) -> bool {
        self.0.get(&name_of(provider)).is_some_and(|archive| {
            archive.reference == provider.reference && matches!(archive.state, State::OnItsWay(_))
        })
    }

    /// What is on its way, by the subject of its step, and what to say of it.
    pub fn iter(&self) -> impl Iterator<Item = (String, &'static str)> {
        let on_its_way = self.0.iter().filter(|(_, archive)| matches!(archive.state, State::OnItsWay(_)));
        on_its_way
            .map(|((key, link_name), _)| (format!("provider {key}/{link_name}"), "its archive is being fetched again"))
    }

    /// Who is in the archive that came for `provider`, said once.
    pub fn take(&mut self, provider: &DesiredProvider) -> Option<SignedProvider> {
        let archive = self.0.remove(&name_of(provider)).filter(|archive| archive.reference == provider.reference)?;
        match archive.state {
            State::Here(claims) => Some(*claims),
            State::OnItsWay(_) => None,
        }
    }

    /// Gives up what is for providers that are not `wanted` any more.
    pub fn retain(&mut self, wanted: impl Fn(&ProviderName) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// Gives up everything.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Host {
    /// Begins to fetch the archive of `desired` from its source; its step waits from now on.
    pub(super) fn await_archive(self: &Arc<Self>, desired: &DesiredProvider, reference: Reference) -> Error {
        let (host, wanted) = (self.clone(), desired.clone());
        let mut awaited = self.reconciler.awaited();
        // Looks itself up when it is done, so it is in its place before it can be.
        let task = task::spawn(async move {
            let outcome = host.fetch_again(&wanted, &reference).await;
            host.archive_came(&wanted, outcome);
        });
        let archive = Archive { reference: desired.reference.clone(), state: State::OnItsWay(task) };
        awaited.0.insert(name_of(desired), archive);
        Error::unavailable("its archive is being fetched again")
    }

    async fn fetch_again(&self, desired: &DesiredProvider, reference: &Reference) -> Result<SignedProvider> {
        let claims = self.fetch_archive(reference, desired.requester, &Vec::from_iter(desired.issuer.clone())).await?;
        self.check_same(desired, &claims)?;
        Ok(claims)
    }

    /// Refuses what another provider's archive has in the place of that of `desired`.
    pub(super) fn check_same(&self, desired: &DesiredProvider, claims: &SignedProvider) -> Result<()> {
        if claims.subject == desired.public_key {
            return Ok(());
        }
        Err(Error::conflict(format!(
            "{} is now the provider {}, not {}",
            desired.reference, claims.subject, desired.public_key
        )))
    }

    fn archive_came(&self, desired: &DesiredProvider, outcome: Result<SignedProvider>) {
        let step = Step::StartProvider(desired.clone());
        let before = match outcome {
            Ok(claims) => {
                log::info!("its archive is here again"; provider_id = desired.public_key, reference = desired.reference);
                let archive = Archive { reference: desired.reference.clone(), state: State::Here(Box::new(claims)) };
                self.reconciler.awaited().0.insert(name_of(desired), archive)
            }
            Err(error) => {
                self.tell_failure(&step, &error);
                self.reconciler.fail(step.subject(), error, Instant::now());
                self.reconciler.awaited().0.remove(&name_of(desired))
            }
        };
        if let Some(Archive { state: State::OnItsWay(own), .. }) = before {
            // The task that runs this.
            own.detach();
        }
        self.reconciler.nudge();
    }
}

fn name_of(provider: &DesiredProvider) -> ProviderName {
    (provider.public_key.clone(), provider.link_name.clone())
}
