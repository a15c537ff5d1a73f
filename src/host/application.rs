//! An application: actors, providers and links that belong together, as a manifest asks for them.
//!
//! Resolving fetches and checks every artifact first, so that an application either becomes desired state as a whole or
//! leaves everything as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    artifact::{Fetched, Reference, Requester, Source},
    claims::{self, SignedModule},
    error::{Error, Kind, Result},
    host::{
        Host,
        applied::Applied,
        change::Module,
        desired::{Desired, DesiredActor, DesiredLink, DesiredProvider, Group},
        health::Patient,
        issuer::Signed,
    },
    log,
    wire::{LinkDefinition, link::link_id, subject::check_part},
};

/// What a manifest asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Application {
    /// Its name: applying another one of the same name replaces it.
    pub name: String,
    /// Version text, for people.
    pub version: String,
    /// The actors.
    pub actors: Vec<ActorComponent>,
    /// The providers.
    pub providers: Vec<ProviderComponent>,
}

/// One actor of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ActorComponent {
    /// Name inside the application.
    pub name: String,
    /// Where the module comes from; a file by its full path.
    pub reference: String,
    /// Invocations that may run at once; 0 starts nothing.
    pub max_concurrent: u16,
    /// Accounts that may have signed it; empty where the manifest names none.
    pub issuers: Vec<String>,
    /// Links from this actor to providers of the application.
    pub links: Vec<LinkComponent>,
}

/// One link of an actor of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LinkComponent {
    /// Name of the provider component.
    pub target: String,
    /// Values for the provider.
    pub values: BTreeMap<String, String>,
}

/// One provider of an application.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProviderComponent {
    /// Name inside the application.
    pub name: String,
    /// `builtin:NAME`, or where its archive comes from.
    pub reference: String,
    /// Contract the manifest names; checked against the provider's own.
    pub contract_id: String,
    /// Link name it serves.
    pub link_name: String,
    /// Start configuration.
    pub configuration: Option<String>,
    /// Accounts that may have signed it; empty where the manifest names none.
    pub issuers: Vec<String>,
}

/// When the sources of an application's artifacts are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// For everything that is not pinned to what is here: somebody wants it now.
    Always,
    /// Only for what this host has not had from that reference yet. A start runs what ran before and waits for nobody: a
    /// network that drops packets would hold it up by a connection's whole time-out for each artifact.
    ForUnknown,
}

/// What was found of an application's artifacts.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// Everything: its manifest is new here, or was changed.
    Whole(Desired),
    /// What runs as its unchanged manifest says; commands have stopped or replaced the rest.
    Renewed(Desired),
}

impl Host {
    /// Makes `application` part of the desired state, in the place of the one with its name.
    ///
    /// Returns once the change is on disk; what runs follows (see [`Host::settle`]).
    ///
    /// # Errors
    /// Those of [`Host::prepare`] and [`Host::adopt`]. Nothing was changed then.
    pub async fn apply(&self, application: Application) -> Result<()> {
        let prepared = self.prepare(&application, Asking::Always).await?;
        self.adopt(&application, prepared).await
    }

    /// Fetches and checks what `application` names, as far as its manifest decides what runs: where it is what it was when
    /// it was last applied, commands given since stand, and what they stopped or replaced is not asked for. Changes nothing
    /// but what is kept in the store, and may be given up at any point.
    ///
    /// # Errors
    /// Those of [`Host::resolve`].
    pub async fn prepare(&self, application: &Application, asking: Asking) -> Result<Prepared> {
        let desired = self.desired();
        let applied = desired.applied.get(&application.name).filter(|applied| applied.is_unchanged(application));
        if applied.is_none_or(|applied| !applied.is_explained(&desired)) {
            return Ok(Prepared::Whole(self.resolve(application, asking).await?));
        }
        let mut part = Desired::default();
        for component in &application.providers {
            let runs = |there: &&DesiredProvider| {
                (&there.reference, &there.link_name) == (&component.reference, &component.link_name)
            };
            if !desired.providers.values().any(|there| runs(&there)) {
                continue;
            }
            let provider = self.resolve_provider(component, asking).await?;
            part.providers.insert((provider.public_key.clone(), provider.link_name.clone()), provider);
        }
        for component in &application.actors {
            if !desired.actors.values().any(|there| there.reference == component.reference) {
                continue;
            }
            let actor = self.resolve_actor(component, &application.name, asking).await;
            let actor = actor.map_err(|error| error.context(&component.name))?;
            part.actors.insert(actor.public_key.clone(), actor);
        }
        Ok(Prepared::Renewed(part))
    }

    /// Makes what was prepared of `application` desired state.
    ///
    /// # Errors
    /// It contradicts another application, or the disk failed. Nothing was changed then.
    pub async fn adopt(&self, application: &Application, prepared: Prepared) -> Result<()> {
        let (Prepared::Whole(part) | Prepared::Renewed(part)) = &prepared;
        let actors = part.actors.keys().cloned().map(Patient::Actor);
        let providers = part.providers.keys().cloned().map(|(key, name)| Patient::Provider(key, name));
        let asked: Vec<Patient> = actors.chain(providers).collect();
        match prepared {
            Prepared::Whole(part) => {
                let applied = Applied::new(application, &part)?;
                self.change(|desired| desired.replace_application(applied, part)).await?;
            }
            Prepared::Renewed(part) => {
                self.change(|desired| Ok(desired.refresh_application(&application.name, &part))).await?;
            }
        }
        // Also where that changed nothing: whoever applies it again wants all of it to run.
        asked.iter().for_each(|patient| self.release(patient));
        Ok(())
    }

    /// Takes the application `name` away.
    ///
    /// # Errors
    /// The disk failed. Nothing was changed then.
    pub async fn leave_application(&self, name: &str) -> Result<()> {
        self.change(|desired| Ok(desired.without_application(name))).await
    }

    /// What `application` asks for, with everything it names fetched and checked; sources are asked as `asking` says. Changes
    /// nothing but what is kept in the store, and may be given up at any point.
    ///
    /// # Errors
    /// A reference cannot be read, a module is not acceptable, two parts contradict each other, or the disk failed.
    pub async fn resolve(&self, application: &Application, asking: Asking) -> Result<Desired> {
        let mut part = Desired::default();
        let mut targets = BTreeMap::new();
        for component in &application.providers {
            let mut provider = self.resolve_provider(component, asking).await?;
            provider.applications = BTreeSet::from([application.name.clone()]);
            targets.insert(component.name.as_str(), provider.clone());
            let key = (provider.public_key.clone(), provider.link_name.clone());
            if part.providers.insert(key, provider).is_some() {
                return Err(Error::conflict(format!(
                    "the component {} asks for {} with link name {} a second time: give it another link_name",
                    component.name, component.reference, component.link_name
                )));
            }
        }
        for component in &application.actors {
            let actor = self
                .resolve_actor(component, &application.name, asking)
                .await
                .map_err(|error| error.context(&component.name))?;
            for link in &component.links {
                let provider = targets.get(link.target.as_str()).ok_or_else(|| {
                    Error::not_found(format!("{}: there is no capability component {}", component.name, link.target))
                })?;
                let link = LinkDefinition {
                    id: link_id(&actor.public_key, &provider.contract_id, &provider.link_name),
                    actor_id: actor.public_key.clone(),
                    provider_id: provider.public_key.clone(),
                    link_name: provider.link_name.clone(),
                    contract_id: provider.contract_id.clone(),
                    values: link.values.clone(),
                };
                let owner = application.name.clone();
                part.links
                    .insert(link.id.clone(), DesiredLink { link: Arc::new(link), application: owner, confined: false });
            }
            if component.max_concurrent == 0 {
                continue;
            }
            let key = actor.public_key.clone();
            if let Some(other) = part.actors.insert(key.clone(), actor) {
                return Err(Error::conflict(format!(
                    "the component {} is the actor {key}, which {} brings already: one module needs one component",
                    component.name, other.reference
                )));
            }
        }
        Ok(part)
    }

    async fn resolve_provider(&self, component: &ProviderComponent, asking: Asking) -> Result<DesiredProvider> {
        let provider = match self.recall_provider(component, asking) {
            Some(provider) => provider,
            None => self
                .find_signed(&component.reference, &component.link_name, Requester::Operator, &component.issuers)
                .await
                .map_err(|error| error.context(&component.name))?,
        };
        if !component.contract_id.is_empty() && component.contract_id != provider.contract_id {
            return Err(Error::config(format!(
                "{}: {} serves {}, the manifest says {}",
                component.name, component.reference, provider.contract_id, component.contract_id
            )));
        }
        Ok(DesiredProvider { configuration: component.configuration.clone(), ..provider })
    }

    /// The provider behind `reference`, asked for by `requester`, to be started under `link_name`, without configuration or annotations.
    ///
    /// # Errors
    /// The reference names none that this host can start, or its archive cannot be fetched or may not run.
    pub async fn find_provider(
        &self,
        reference: &str,
        link_name: &str,
        requester: Requester,
    ) -> Result<DesiredProvider> {
        self.find_signed(reference, link_name, requester, &[]).await
    }

    /// As [`Host::find_provider`], of one of the accounts `issuers` if there are any.
    async fn find_signed(
        &self,
        reference: &str,
        link_name: &str,
        requester: Requester,
        issuers: &[String],
    ) -> Result<DesiredProvider> {
        let parsed = Reference::parse(reference)?;
        let Source::Builtin(name) = parsed.source() else {
            return self.find_archive(&parsed, link_name, requester, issuers).await;
        };
        let builtin = self.builtins.find(name)?;
        check_part("link name", link_name)?;
        Ok(DesiredProvider {
            reference: reference.to_owned(),
            public_key: builtin.public_key(),
            link_name: link_name.to_owned(),
            contract_id: builtin.contract_id.to_owned(),
            configuration: None,
            annotations: BTreeMap::new(),
            applications: BTreeSet::new(),
            token: None,
            requester,
            issuer: None,
        })
    }

    /// The provider that came from this reference before, where nobody is to be asked for it.
    fn recall_provider(&self, component: &ProviderComponent, asking: Asking) -> Option<DesiredProvider> {
        if !may_recall(&component.reference, asking) {
            return None;
        }
        let desired = self.desired();
        let kept = desired.providers.values().find(|there| {
            there.reference == component.reference && may_have_signed(&component.issuers, there.issuer.as_deref())
        })?;
        kept.token.as_ref()?;
        Some(DesiredProvider {
            link_name: component.link_name.clone(),
            annotations: BTreeMap::new(),
            applications: BTreeSet::new(),
            requester: Requester::Operator,
            ..kept.clone()
        })
    }

    /// The actor that came from this reference before, where nobody is to be asked for it and its module is here. Whether
    /// that is whole is seen when it starts.
    async fn recall_actor(
        &self,
        component: &ActorComponent,
        application: &str,
        asking: Asking,
    ) -> Option<DesiredActor> {
        if !may_recall(&component.reference, asking) {
            return None;
        }
        let kept = self.kept_actor(component, application)?;
        let (blobs, digest) = (self.store.blobs(), kept.digest);
        smol::unblock(move || blobs.length(digest)).await?;
        Some(kept)
    }

    /// The actor that came from this reference before.
    fn kept_actor(&self, component: &ActorComponent, application: &str) -> Option<DesiredActor> {
        let desired = self.desired();
        let kept = desired.actors.values().find(|actor| {
            actor.reference == component.reference && may_have_signed(&component.issuers, actor.issuer.as_deref())
        })?;
        Some(DesiredActor {
            groups: vec![group(component, application)],
            requester: Requester::Operator,
            ..kept.clone()
        })
    }

    /// The same in the place of what cannot be had: a board starts again without the stick it was installed from.
    fn fall_back(&self, component: &ActorComponent, application: &str, missing: Error) -> Result<DesiredActor> {
        let kept = self.kept_actor(component, application).ok_or(missing.clone())?;
        log::warn!("{missing}; starting the copy kept from before"; actor_id = kept.public_key);
        Ok(kept)
    }

    /// Reads the module behind `reference` on the word of `requester`, checks it and keeps its bytes.
    ///
    /// # Errors
    /// It cannot be read ([`Kind::NotFound`] when it is not there), is not acceptable, or the disk failed.
    pub async fn fetch_module(&self, reference: &str, requester: Requester) -> Result<(Module, SignedModule)> {
        self.fetch_signed(reference, requester, &[]).await
    }

    /// As [`Host::fetch_module`], of one of the accounts `issuers` if there are any.
    async fn fetch_signed(
        &self,
        reference: &str,
        requester: Requester,
        issuers: &[String],
    ) -> Result<(Module, SignedModule)> {
        let parsed = Reference::parse(reference)?;
        let limit = self.module_limit();
        let Fetched { digest: fetched, bytes } = self.artifacts.fetch(&parsed, requester, "an actor", limit).await?;
        let policy = self.policy_for(fetched);
        let accepted = smol::unblock(move || {
            let claims = claims::verify_actor(&bytes, &policy)?;
            Ok::<_, Error>((claims, bytes))
        })
        .await;
        let accepted = accepted.and_then(|(claims, bytes)| {
            let signed = Signed { reference: &parsed, key: &claims.subject, issuer: &claims.issuer };
            self.check_issuer(&signed, requester, issuers)?;
            Ok((claims, bytes))
        });
        let (claims, bytes) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                self.discard(&parsed, fetched).await;
                return Err(error.context(parsed.text()));
            }
        };
        let digest = match parsed.source() {
            // What came from afar went into the store on its way.
            Source::Remote(_) => {
                self.artifacts.accept(&parsed, fetched).await;
                fetched
            }
            _ => self.artifacts.keep(bytes).await.map_err(|error| error.context(parsed.text()))?,
        };
        let module = Module {
            reference: reference.to_owned(),
            public_key: claims.subject.clone(),
            digest,
            requester,
            issuer: Some(claims.issuer.clone()),
        };
        Ok((module, claims))
    }

    /// The actor of `component`, its module fetched.
    async fn resolve_actor(
        &self,
        component: &ActorComponent,
        application: &str,
        asking: Asking,
    ) -> Result<DesiredActor> {
        if let Some(kept) = self.recall_actor(component, application, asking).await {
            return Ok(kept);
        }
        // A source that is gone, or that gives by now what nobody may run, stops no board that has something better.
        let is_fetched = || Reference::parse(&component.reference).is_ok_and(|reference| reference.is_fetched());
        let (module, claims) =
            match self.fetch_signed(&component.reference, Requester::Operator, &component.issuers).await {
                Err(error) if error.kind() == Kind::NotFound || is_fetched() => {
                    return self.fall_back(component, application, error);
                }
                outcome => outcome?,
            };
        if let Err(older) = self.check_not_older(&module, &claims).await {
            return self.fall_back(component, application, older);
        }
        Ok(DesiredActor {
            reference: module.reference,
            public_key: module.public_key,
            digest: module.digest,
            previous: None,
            groups: vec![group(component, application)],
            requester: Requester::Operator,
            issuer: module.issuer,
        })
    }
}

/// Whether `issuer` is one of those that the manifest names, if it names any.
fn may_have_signed(issuers: &[String], issuer: Option<&str>) -> bool {
    issuers.is_empty() || issuer.is_some_and(|issuer| issuers.iter().any(|named| named == issuer))
}

/// Whether what came from `reference` before will do. A file of this machine is read anew: that costs nothing.
fn may_recall(reference: &str, asking: Asking) -> bool {
    asking == Asking::ForUnknown && Reference::parse(reference).is_ok_and(|reference| reference.is_fetched())
}

fn group(component: &ActorComponent, application: &str) -> Group {
    Group { count: component.max_concurrent, annotations: BTreeMap::new(), application: application.to_owned() }
}
