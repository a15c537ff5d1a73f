//! What must be done so that what runs becomes what should run. A plain function of the two, without I/O or clock.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    host::{
        desired::{Desired, DesiredActor, DesiredLink, DesiredProvider},
        remote,
    },
    wire::{
        LinkDefinition,
        interface::{HTTP_SERVER, MESSAGING},
    },
};

/// One step. The order of the variants is the order of execution: what goes away goes first, a provider is there before
/// its links, and a link that lets requests in comes after the actor that answers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take a link away from its provider.
    Unlink(Arc<LinkDefinition>),
    /// Stop an actor.
    StopActor(String),
    /// Stop a provider.
    StopProvider((String, String)),
    /// Start a provider.
    StartProvider(DesiredProvider),
    /// Start an actor, or put another module in the place of the running one.
    StartActor(DesiredActor),
    /// Let another number of invocations run at once.
    Scale(DesiredActor),
    /// Give a link to its provider; the flag says that a server of this process listens for it on loopback only.
    Link(Arc<LinkDefinition>, bool),
}

impl Step {
    /// What the step is about, to remember its failures by.
    pub fn subject(&self) -> String {
        match self {
            Step::Unlink(link) | Step::Link(link, _) => format!("link {}", link.id),
            Step::StopActor(key) => format!("actor {key}"),
            Step::StartActor(actor) | Step::Scale(actor) => format!("actor {}", actor.public_key),
            Step::StopProvider((key, link_name)) => format!("provider {key}/{link_name}"),
            Step::StartProvider(provider) => format!("provider {}/{}", provider.public_key, provider.link_name),
        }
    }
}

/// What runs, as far as the plan needs to know.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// By public key.
    pub actors: BTreeMap<String, DesiredActor>,
    /// By public key and link name.
    pub providers: BTreeMap<(String, String), DesiredProvider>,
    /// Links their providers have taken, by identity, and whether each listens on loopback only.
    pub links: BTreeMap<String, (Arc<LinkDefinition>, bool)>,
}

/// Whether the provider of `link` has it only for actors of this host: built-in servers and subscribers are on many boards
/// under one key, and each would open the links of all boards.
pub fn is_of_another_board(desired: &Desired, link: &LinkDefinition) -> bool {
    let provider = desired.providers.get(&(link.provider_id.clone(), link.link_name.clone()));
    let built_in = provider.is_some_and(|provider| provider.token.is_none());
    built_in && !desired.actors.contains_key(&link.actor_id)
}

/// Whether this host gives `link` to its provider.
fn is_given(desired: &Desired, link: &LinkDefinition) -> bool {
    let opens = [HTTP_SERVER, MESSAGING].contains(&link.contract_id.as_str());
    // A link to a provider that does not run here is for another host to deliver.
    desired.providers.contains_key(&(link.provider_id.clone(), link.link_name.clone()))
        && !(opens && is_of_another_board(desired, link))
}

/// The steps from `running` to `desired`, where commands over the lattice are under `rule`.
pub fn plan(desired: &Desired, running: &Running, rule: remote::Rule) -> Vec<Step> {
    let mut steps = Vec::new();
    let restarts = |key: &(String, String)| match (desired.providers.get(key), running.providers.get(key)) {
        (Some(wanted), Some(there)) => {
            (&wanted.reference, &wanted.configuration, &wanted.token)
                != (&there.reference, &there.configuration, &there.token)
        }
        _ => true,
    };
    let provider_of = |link: &LinkDefinition| (link.provider_id.clone(), link.link_name.clone());

    let same = |wanted: &DesiredLink, there: &(Arc<LinkDefinition>, bool)| {
        wanted.link == there.0 && wanted.is_confined(rule) == there.1
    };
    for (id, there) in &running.links {
        let link = &there.0;
        let wanted = desired.links.get(id).is_some_and(|wanted| same(wanted, there) && is_given(desired, link));
        if !wanted || restarts(&provider_of(link)) {
            steps.push(Step::Unlink(link.clone()));
        }
    }
    for key in running.actors.keys().filter(|key| !desired.actors.contains_key(*key)) {
        steps.push(Step::StopActor(key.clone()));
    }
    for key in running.providers.keys().filter(|key| restarts(key)) {
        steps.push(Step::StopProvider(key.clone()));
    }
    for (key, provider) in &desired.providers {
        if restarts(key) {
            steps.push(Step::StartProvider(provider.clone()));
        }
    }
    for (key, actor) in &desired.actors {
        match running.actors.get(key) {
            None => steps.push(Step::StartActor(actor.clone())),
            Some(there) if there.digest != actor.digest => steps.push(Step::StartActor(actor.clone())),
            Some(there) if !there.runs_like(actor) => steps.push(Step::Scale(actor.clone())),
            Some(_) => {}
        }
    }
    for (id, wanted) in &desired.links {
        let link = &wanted.link;
        if !is_given(desired, link) {
            continue;
        }
        let there = running.links.get(id).is_some_and(|there| same(wanted, there));
        if !there || restarts(&provider_of(link)) {
            steps.push(Step::Link(link.clone(), wanted.is_confined(rule)));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        host::{desired::Group, remote::Rights},
        store::Digest,
        wire::link::link_id,
    };

    fn actor(key: &str, module: &[u8], max_concurrent: u16) -> DesiredActor {
        DesiredActor {
            reference: format!("file:///{key}.wasm"),
            public_key: key.into(),
            digest: Digest::of(module),
            previous: None,
            groups: vec![Group { count: max_concurrent, application: "app".into(), ..Group::default() }],
            requester: crate::artifact::Requester::Operator,
            issuer: None,
        }
    }

    fn provider(name: &str) -> DesiredProvider {
        DesiredProvider {
            reference: format!("builtin:{name}"),
            public_key: format!("V{name}"),
            link_name: "default".into(),
            contract_id: format!("wasmcloud:{name}"),
            configuration: None,
            annotations: BTreeMap::new(),
            applications: BTreeSet::from(["app".to_owned()]),
            token: None,
            requester: crate::artifact::Requester::Operator,
            issuer: None,
        }
    }

    fn link(actor: &str, provider: &DesiredProvider, value: &str) -> LinkDefinition {
        LinkDefinition {
            id: link_id(actor, &provider.contract_id, &provider.link_name),
            actor_id: actor.into(),
            provider_id: provider.public_key.clone(),
            link_name: provider.link_name.clone(),
            contract_id: provider.contract_id.clone(),
            values: BTreeMap::from([("port".to_owned(), value.to_owned())]),
        }
    }

    fn desired(actors: &[DesiredActor], providers: &[DesiredProvider], links: &[LinkDefinition]) -> Desired {
        Desired {
            actors: actors.iter().map(|actor| (actor.public_key.clone(), actor.clone())).collect(),
            providers: providers
                .iter()
                .map(|provider| ((provider.public_key.clone(), provider.link_name.clone()), provider.clone()))
                .collect(),
            issuers: BTreeMap::new(),
            links: links
                .iter()
                .map(|link| {
                    let wanted =
                        DesiredLink { link: Arc::new(link.clone()), application: "app".into(), confined: false };
                    (link.id.clone(), wanted)
                })
                .collect(),
            ..Desired::default()
        }
    }

    fn plan(desired: &Desired, running: &Running) -> Vec<Step> {
        super::plan(desired, running, remote::Rule::Always(Rights::Full))
    }

    /// Performs steps as the reconciler does when nothing fails.
    fn perform(running: &mut Running, steps: &[Step]) {
        for step in steps {
            match step.clone() {
                Step::Unlink(link) => drop(running.links.remove(&link.id)),
                Step::StopActor(key) => drop(running.actors.remove(&key)),
                Step::StopProvider(key) => drop(running.providers.remove(&key)),
                Step::StartProvider(provider) => {
                    drop(running.providers.insert((provider.public_key.clone(), provider.link_name.clone()), provider))
                }
                Step::StartActor(actor) | Step::Scale(actor) => {
                    drop(running.actors.insert(actor.public_key.clone(), actor));
                }
                Step::Link(link, confined) => drop(running.links.insert(link.id.clone(), (link, confined))),
            }
        }
    }

    #[test]
    fn an_empty_host_gets_providers_then_actors_then_links_and_then_rests() {
        let http = provider("httpserver");
        let wanted = desired(&[actor("M1", b"one", 1)], std::slice::from_ref(&http), &[link("M1", &http, "8080")]);
        let mut running = Running::default();
        let steps = plan(&wanted, &running);
        assert!(
            matches!(steps[..], [Step::StartProvider(_), Step::StartActor(_), Step::Link(..)]),
            "unexpected order: {steps:?}"
        );
        perform(&mut running, &steps);
        assert_eq!(plan(&wanted, &running), []);
    }

    #[test]
    fn a_changed_link_is_taken_away_and_given_anew() {
        let http = provider("httpserver");
        let before = desired(&[actor("M1", b"one", 1)], std::slice::from_ref(&http), &[link("M1", &http, "8080")]);
        let mut running = Running::default();
        perform(&mut running, &plan(&before, &Running::default()));
        let after = desired(&[actor("M1", b"one", 1)], std::slice::from_ref(&http), &[link("M1", &http, "9090")]);
        let steps = plan(&after, &running);
        assert!(matches!(steps[..], [Step::Unlink(_), Step::Link(..)]), "unexpected steps: {steps:?}");
        perform(&mut running, &steps);
        assert_eq!(plan(&after, &running), []);
    }

    #[test]
    fn another_module_is_a_start_another_count_a_scale_and_absence_a_stop() {
        let mut running = Running::default();
        perform(
            &mut running,
            &plan(&desired(&[actor("M1", b"one", 1), actor("M2", b"two", 1)], &[], &[]), &Running::default()),
        );
        let steps = plan(&desired(&[actor("M1", b"new", 1)], &[], &[]), &running);
        assert_eq!(steps, [Step::StopActor("M2".into()), Step::StartActor(actor("M1", b"new", 1))]);
        perform(&mut running, &steps);
        let steps = plan(&desired(&[actor("M1", b"new", 7)], &[], &[]), &running);
        assert_eq!(steps, [Step::Scale(actor("M1", b"new", 7))]);
    }

    #[test]
    fn a_provider_with_a_new_configuration_restarts_with_its_links() {
        let (http, mut other) = (provider("httpserver"), provider("httpserver"));
        let (links, actors) = ([link("M1", &http, "8080")], [actor("M1", b"one", 1)]);
        let mut running = Running::default();
        perform(&mut running, &plan(&desired(&actors, std::slice::from_ref(&http), &links), &Running::default()));
        other.configuration = Some("{}".into());
        let steps = plan(&desired(&actors, &[other], &links), &running);
        assert!(
            matches!(steps[..], [Step::Unlink(_), Step::StopProvider(_), Step::StartProvider(_), Step::Link(..)]),
            "unexpected steps: {steps:?}"
        );
    }

    #[test]
    fn a_built_in_server_opens_links_of_actors_of_this_board_alone() {
        let (http, store) = (provider("httpserver"), provider("keyvalue"));
        let links = [link("M1", &http, "8080"), link("Melsewhere", &http, "8081"), link("Melsewhere", &store, "x")];
        let providers = [http.clone(), store];
        let wanted = desired(&[actor("M1", b"one", 1)], &providers, &links);
        let given = |steps: &[Step]| -> Vec<String> {
            let given = steps.iter().filter_map(|step| match step {
                Step::Link(link, _) => Some(link.values["port"].clone()),
                _ => None,
            });
            let mut given: Vec<String> = given.collect();
            given.sort();
            given
        };
        let mut running = Running::default();
        let steps = plan(&wanted, &running);
        // Calls of actors elsewhere reach the store over the lattice; a server would take a port for nobody.
        assert_eq!(given(&steps), ["8080", "x"]);
        perform(&mut running, &steps);
        let left = desired(&[], &providers, &links);
        assert!(plan(&left, &running).contains(&Step::Unlink(Arc::new(links[0].clone()))), "its actor has gone");
        // A provider of an archive may stand for all boards.
        let archive = DesiredProvider { token: Some("token".into()), ..http };
        let elsewhere = desired(&[], &[archive], &links[..2]);
        assert_eq!(given(&plan(&elsewhere, &Running::default())), ["8080", "8081"]);
    }

    #[test]
    fn a_link_is_given_anew_when_it_may_listen_elsewhere() {
        let http = provider("httpserver");
        let mut wanted = desired(&[actor("M1", b"one", 1)], std::slice::from_ref(&http), &[link("M1", &http, "8080")]);
        for link in wanted.links.values_mut() {
            (link.application, link.confined) = (String::new(), true);
        }
        let flags = |rule, running: &Running| {
            let steps = super::plan(&wanted, running, rule);
            steps.iter().find_map(|step| if let Step::Link(_, confined) = step { Some(*confined) } else { None })
        };
        let mut running = Running::default();
        assert_eq!(flags(remote::Rule::Always(Rights::Full), &running), Some(false));
        assert_eq!(flags(remote::Rule::Always(Rights::Own), &running), Some(true));
        assert_eq!(flags(remote::Rule::ByLogin, &running), Some(true));
        perform(&mut running, &super::plan(&wanted, &Running::default(), remote::Rule::ByLogin));
        assert_eq!(flags(remote::Rule::ByLogin, &running), None);
        assert_eq!(flags(remote::Rule::Always(Rights::Full), &running), Some(false));
    }

    #[test]
    fn a_link_to_a_provider_elsewhere_is_left_to_the_host_that_runs_it() {
        let elsewhere = provider("keyvalue");
        assert_eq!(plan(&desired(&[], &[], &[link("M1", &elsewhere, "x")]), &Running::default()), []);
    }
}
