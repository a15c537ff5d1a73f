//! Providers elsewhere: those of other hosts, and detached ones that no host ever started (`protocol/providers.md §5, §7`).
//!
//! Whoever starts a detached provider does so with links of that moment; every later one it hears only if hosts say it. So
//! each host says every link to a provider it does not run itself, as all hosts of this protocol do; those that have it
//! already ignore it. Providers that actors of this host are linked to are probed, so that the status tells where calls will
//! go; one that stays silent is forgotten, its links are not.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;

use super::Shared;
use crate::{
    error::Result,
    host::{ProviderStatus, Uplink},
    lock::{Mutex, MutexGuard},
    log,
    wire::{
        LinkDefinition, codec,
        event::provider::{HealthCheckFailed, HealthCheckPassed},
        subject::ProviderTopic,
    },
};

/// Providers elsewhere that are watched at most: each costs a question per period. More are not listed.
const MAX_WATCHED: usize = 64;

/// Questions in a row without an answer after which a provider is forgotten.
const MISSES: u32 = 4;

/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The body of a question; providers ignore it.
const PROBE: &[u8] = b"\x81\xabplaceholder\xc3";

/// A provider by its key and link name.
type Name = (String, String);

/// What is known of providers elsewhere.
#[derive(Default)]
pub struct Remotes(Mutex<BTreeMap<Name, Remote>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Remote {
    contract_id: String,
    healthy: bool,
    misses: u32,
}

/// What an answer or a silence means.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// It is there, and was not known to be.
    Appeared,
    Passed,
    Failed,
    Nothing,
}

impl Remotes {
    fn known(&self) -> MutexGuard<'_, BTreeMap<Name, Remote>> {
        self.0.lock()
    }

    /// Those that answered lately, for the status.
    pub fn statuses(&self) -> Vec<ProviderStatus> {
        let known = self.known();
        let status = |((key, link_name), remote): (&Name, &Remote)| ProviderStatus {
            public_key: key.clone(),
            contract_id: remote.contract_id.clone(),
            link_name: link_name.clone(),
            state: if remote.healthy { "remote" } else { "remote, not well" }.to_owned(),
            ..ProviderStatus::default()
        };
        known.iter().map(status).collect()
    }

    /// Takes in what came of a question to `name`: whether it is well, or nothing.
    fn asked(&self, name: &Name, contract_id: &str, answer: Option<bool>) -> News {
        let mut known = self.known();
        match (known.get_mut(name), answer) {
            (None, None) => News::Nothing,
            (None, Some(healthy)) => {
                let contract_id = contract_id.to_owned();
                known.insert(name.clone(), Remote { contract_id, healthy, misses: 0 });
                News::Appeared
            }
            (Some(remote), answer) => {
                let was = remote.healthy;
                remote.healthy = answer == Some(true);
                remote.misses = if answer.is_some() { 0 } else { remote.misses + 1 };
                let news = match (was, remote.healthy) {
                    (false, true) => News::Passed,
                    (true, false) => News::Failed,
                    _ => News::Nothing,
                };
                if remote.misses >= MISSES {
                    known.remove(name);
                }
                news
            }
        }
    }

    fn retain(&self, watched: &BTreeMap<Name, String>) {
        self.known().retain(|name, _| watched.contains_key(name));
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    healthy: bool,
}

/// Watches providers elsewhere, for ever.
pub async fn watch_for_ever(shared: Arc<Shared>) {
    loop {
        smol::Timer::after(shared.settings.probe_interval).await;
        let watched = watched(&shared);
        shared.remotes.retain(&watched);
        for (name, contract_id) in &watched {
            let Some(uplink) = shared.host.router().uplink().filter(|uplink| uplink.is_connected()) else { break };
            let asked = uplink.ask_provider(&name.0, &name.1, ProviderTopic::Health, PROBE.to_vec(), PATIENCE).await;
            let answer = match asked {
                Ok(answer) => answer,
                // A name that cannot be asked for is nobody's fault but its own.
                Err(error) if !error.kind().is_passing() => continue,
                Err(_) => break,
            };
            let answer = answer.map(|body| codec::read::<Answer>(&body).is_ok_and(|answer| answer.healthy));
            tell(&shared, &*uplink, name, contract_id, answer).await;
        }
    }
}

async fn tell(shared: &Shared, uplink: &dyn Uplink, name: &Name, contract_id: &str, answer: Option<bool>) {
    let (public_key, link_name) = (name.0.as_str(), name.1.as_str());
    match shared.remotes.asked(name, contract_id, answer) {
        News::Appeared => {
            log::info!("a provider elsewhere is there"; provider_id = public_key, link_name = link_name);
            // It may have been started after its links were said.
            for link in elsewhere(shared).into_iter().filter(|link| is_of(link, name)) {
                if let Err(error) = say(uplink, ProviderTopic::LinkPut, &link).await {
                    log::debug!("a link was not said: {error}");
                }
            }
            if answer == Some(true) {
                shared.events.emit(&HealthCheckPassed { public_key, contract_id, link_name });
            }
        }
        News::Passed => shared.events.emit(&HealthCheckPassed { public_key, contract_id, link_name }),
        News::Failed => shared.events.emit(&HealthCheckFailed { public_key, contract_id, link_name }),
        News::Nothing => {}
    }
}

/// Says `link`; one that can never be said is left out.
async fn say_or_leave(uplink: &dyn Uplink, topic: ProviderTopic, link: &LinkDefinition) -> Result<()> {
    match say(uplink, topic, link).await {
        Err(error) if !error.kind().is_passing() => {
            log::warn!("a link cannot be said to its provider: {error}"; provider_id = link.provider_id);
            Ok(())
        }
        outcome => outcome,
    }
}

fn is_of(link: &LinkDefinition, name: &Name) -> bool {
    (&link.provider_id, &link.link_name) == (&name.0, &name.1)
}

/// Links to providers that this host does not run.
fn elsewhere(shared: &Shared) -> Vec<Arc<LinkDefinition>> {
    let desired = shared.host.desired();
    let links = desired.links.values().map(|wanted| &wanted.link);
    links
        .filter(|link| !desired.providers.contains_key(&(link.provider_id.clone(), link.link_name.clone())))
        .cloned()
        .collect()
}

/// Providers elsewhere that actors of this host call, with their contracts.
fn watched(shared: &Shared) -> BTreeMap<Name, String> {
    let routes = shared.host.router().routes();
    let called = elsewhere(shared).into_iter().filter(|link| routes.actor(&link.actor_id).is_some());
    let named: BTreeMap<Name, String> =
        called.map(|link| ((link.provider_id.clone(), link.link_name.clone()), link.contract_id.clone())).collect();
    named.into_iter().take(MAX_WATCHED).collect()
}

async fn say(uplink: &dyn Uplink, topic: ProviderTopic, link: &LinkDefinition) -> Result<()> {
    uplink.tell_provider(&link.provider_id, &link.link_name, topic, codec::encode(link)?).await
}

/// Says links to providers elsewhere whenever they change, for ever.
pub async fn say_links_for_ever(shared: Arc<Shared>) {
    let mut said: BTreeMap<String, Arc<LinkDefinition>> = BTreeMap::new();
    loop {
        let changed = shared.host.desired_changed();
        shared.rpc.connected().await;
        if let Some(uplink) = shared.host.router().uplink()
            && let Err(error) = say_links(&shared, &*uplink, &mut said).await
        {
            log::debug!("a link was not said: {error}");
            smol::Timer::after(PATIENCE).await;
            continue;
        }
        changed.await;
    }
}

async fn say_links(
    shared: &Shared,
    uplink: &dyn Uplink,
    said: &mut BTreeMap<String, Arc<LinkDefinition>>,
) -> Result<()> {
    let wanted: BTreeMap<String, Arc<LinkDefinition>> =
        elsewhere(shared).into_iter().map(|link| (link.id.clone(), link)).collect();
    let desired = shared.host.desired();
    let gone: Vec<Arc<LinkDefinition>> =
        said.values().filter(|link| wanted.get(&link.id) != Some(link)).cloned().collect();
    for link in gone {
        // One whose provider runs here by now is that provider's own business.
        let name = (link.provider_id.clone(), link.link_name.clone());
        if !desired.providers.contains_key(&name) {
            say_or_leave(uplink, ProviderTopic::LinkDelete, &link).await?;
        }
        said.remove(&link.id);
    }
    let news: Vec<Arc<LinkDefinition>> = wanted.into_values().filter(|link| !said.contains_key(&link.id)).collect();
    for link in news {
        say_or_leave(uplink, ProviderTopic::LinkPut, &link).await?;
        said.insert(link.id.clone(), link);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::{Error, Kind},
        host::{BoxFuture, Call, UplinkStatus},
    };

    /// A way out on which everything fails in one way.
    struct Failing(Kind);

    impl Uplink for Failing {
        fn call(&self, _: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
            let error = Error::new(self.0, "a call");
            Box::pin(async { Err(error) })
        }

        fn resolve_alias(&self, _: &str) -> Option<String> {
            None
        }

        fn is_connected(&self) -> bool {
            true
        }

        fn tell_provider(&self, _: &str, _: &str, _: ProviderTopic, _: Vec<u8>) -> BoxFuture<'static, Result<()>> {
            let error = Error::new(self.0, "a link");
            Box::pin(async { Err(error) })
        }

        fn ask_provider(
            &self,
            _: &str,
            _: &str,
            _: ProviderTopic,
            _: Vec<u8>,
            _: Duration,
        ) -> BoxFuture<'static, Result<Option<Vec<u8>>>> {
            let error = Error::new(self.0, "a question");
            Box::pin(async { Err(error) })
        }

        fn status(&self) -> UplinkStatus {
            UplinkStatus::default()
        }
    }

    #[test]
    fn a_link_that_can_never_be_said_holds_up_no_other() {
        let link = LinkDefinition { provider_id: "V1".into(), ..LinkDefinition::default() };
        for kind in Kind::ALL {
            let said = crate::task::block_on(say_or_leave(&Failing(kind), ProviderTopic::LinkPut, &link));
            assert_eq!(said.is_err(), kind.is_passing(), "{kind:?}");
        }
    }

    #[test]
    fn one_elsewhere_appears_changes_and_is_forgotten_after_enough_silence() {
        let (remotes, name) = (Remotes::default(), ("V1".to_owned(), "default".to_owned()));
        let asked = |answer| remotes.asked(&name, "c", answer);
        assert_eq!(asked(None), News::Nothing);
        assert_eq!(asked(Some(true)), News::Appeared);
        assert_eq!(
            (asked(Some(true)), asked(Some(false)), asked(Some(true))),
            (News::Nothing, News::Failed, News::Passed)
        );
        assert_eq!(remotes.statuses()[0].state, "remote");
        assert_eq!(asked(None), News::Failed);
        for _ in 2..MISSES {
            assert_eq!((asked(None), remotes.statuses().len()), (News::Nothing, 1));
        }
        assert_eq!((asked(None), remotes.statuses().len()), (News::Nothing, 0));
        assert_eq!(asked(Some(true)), News::Appeared);
    }
}
