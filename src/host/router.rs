//! The one road: every invocation, whoever makes it, passes here, and here claims, links, limits and counting happen.
//!
//! The router holds what runs ([`Routes`]); the reconciler alone changes it. It decides and hands over: guests run in
//! `actor`, contracts are served behind [`Capability`]. It never waits without the caller's deadline.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use crate::{
    actor::{self, HostCall, Outcalls},
    error::{Error, Kind, Result},
    host::{
        BoxFuture, Call, Capability, Invoke, Uplink, UplinkStatus,
        routes::{Routes, unclaimed},
    },
    lock::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    log, task,
    wire::{Entity, LinkDefinition},
};

/// What a guest reads when a call out took longer than it may, also when nobody answers (`protocol/invocation.md §5.1`).
const REQUEST_TIMEOUT: &str = "Failed to perform RPC call: request timeout";

/// The router of one host.
pub struct Router {
    lattice: String,
    routes: RwLock<Routes>,
    /// The way to other hosts, once there is one.
    uplink: OnceLock<Arc<dyn Uplink>>,
    /// The router itself, for the futures it hands out.
    this: OnceLock<std::sync::Weak<Router>>,
}

/// Calls and failures of one entity.
#[derive(Debug, Default)]
pub struct Counters {
    calls: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    fn count<T>(&self, outcome: &Result<T>) {
        self.calls.fetch_add(1, Relaxed);
        if outcome.is_err() {
            self.errors.fetch_add(1, Relaxed);
        }
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Relaxed)
    }

    /// Failed calls so far.
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }
}

impl Router {
    /// A router of the lattice `lattice` with nothing running.
    pub fn new(lattice: &str) -> Arc<Self> {
        let router = Arc::new(Self {
            lattice: lattice.to_owned(),
            routes: RwLock::default(),
            uplink: OnceLock::new(),
            this: OnceLock::new(),
        });
        router.this.set(Arc::downgrade(&router)).expect("nobody else has seen the router yet");
        router
    }

    /// What runs, to read.
    pub fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read()
    }

    /// What runs, to change; for the reconciler.
    pub(super) fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write()
    }

    fn this(&self) -> Arc<Router> {
        self.this.get().and_then(std::sync::Weak::upgrade).expect("a method runs, so somebody holds the router")
    }

    /// Gives the router its way to other hosts. The first one given stays.
    pub fn set_uplink(&self, uplink: Arc<dyn Uplink>) {
        if self.uplink.set(uplink).is_err() {
            log::warn!("a second way to other hosts was offered and not taken");
        }
    }

    /// The way to other hosts, where there is one.
    pub fn uplink(&self) -> Option<Arc<dyn Uplink>> {
        self.uplink.get().cloned()
    }

    /// How the way to other hosts stands; nothing where there is none.
    pub fn uplink_status(&self) -> Option<UplinkStatus> {
        self.uplink.get().map(|uplink| uplink.status())
    }

    /// Serves `call` of somebody outside this host with what runs here, never with what runs elsewhere: two hosts that
    /// each believe the other runs an actor must not play ball with a call.
    pub fn serve(&self, call: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
        let router = self.this();
        Box::pin(async move {
            if call.target.is_actor() {
                return router.call_actor(call).await;
            }
            let link = router.link_of(&call)?;
            router.call_provider(link, call).await
        })
    }

    /// Runs `call` here if its target runs here, else wherever it does.
    async fn call_anywhere(&self, link: Option<Arc<LinkDefinition>>, call: Call) -> Result<Vec<u8>> {
        let here = match &link {
            Some(link) => self.routes().provider(&link.provider_id, &link.link_name).is_some(),
            None => self.routes().actor(&call.target.public_key).is_some(),
        };
        // A host that works alone answers as one: what is not here is nowhere.
        match (here, self.uplink.get().filter(|uplink| uplink.is_connected()), link) {
            (false, Some(uplink), _) => {
                let deadline = call.deadline;
                in_time(deadline, uplink.call(call)).await
            }
            (_, _, Some(link)) => self.call_provider(link, call).await,
            (_, _, None) => self.call_actor(call).await,
        }
    }

    /// The link that lets the origin of `call` reach its target.
    fn link_of(&self, call: &Call) -> Result<Arc<LinkDefinition>> {
        let target = &call.target;
        let found = self.routes().links.find(&call.origin.public_key, &target.contract_id, &target.link_name);
        found.ok_or_else(|| {
            Error::denied(format!(
                "Invocation not authorized: missing link definition for {} on {}",
                target.contract_id, self.lattice
            ))
        })
    }

    /// Runs `call` against the actor it names.
    async fn call_actor(&self, call: Call) -> Result<Vec<u8>> {
        let running =
            self.routes().actor(&call.target.public_key).ok_or_else(|| not_running(&call.target.public_key))?;
        // Only who names neither is an actor here; everywhere else one missing is enough (`protocol/invocation.md §4.1`).
        let from_actor = call.origin.link_name.is_empty() && call.origin.contract_id.is_empty();
        if !from_actor && !running.claims.may_use(&call.origin.contract_id) {
            log::warn!(
                "{}", unclaimed(&running.claims.name, &call.origin.contract_id);
                actor_id = call.target.public_key
            );
            return Err(Error::denied(format!(
                "Invocation source does not have the required capability claim {}",
                call.origin.contract_id
            )));
        }
        let context = actor::Context { deadline: call.deadline, depth: call.depth };
        running.actor.invoke_traced(&call.operation, call.payload, context, call.trace).await
    }

    /// Runs `call` of an actor against the provider behind `link`.
    async fn call_provider(&self, link: Arc<LinkDefinition>, call: Call) -> Result<Vec<u8>> {
        let provider = self.routes().provider(&link.provider_id, &link.link_name).ok_or_else(|| {
            Error::unavailable(format!(
                "the provider {} with link name {} is not running on this host",
                link.provider_id, link.link_name
            ))
        })?;
        let deadline = call.deadline;
        let outcome = in_time(deadline, provider.capability.call(link, call)).await;
        provider.counters.count(&outcome);
        outcome
    }

    /// Resolves and runs what the guest of `caller` asked for, in the order of `protocol/invocation.md §5.1`.
    async fn call_out(&self, caller: String, call: HostCall) -> Result<Vec<u8>> {
        let route = self.resolve(&caller, &call)?;
        let HostCall { binding, namespace, operation, payload, deadline, depth, trace } = call;
        let origin = Entity::actor(caller);
        let trace = Some(trace);
        let call = |target| Call { origin, target, operation, payload, deadline, depth: depth + 1, trace };
        match route {
            Route::Intrinsic(capability, link) => {
                let target = Entity::provider("", namespace, binding);
                in_time(deadline, capability.call(link, call(target))).await
            }
            Route::Provider(link) => {
                let target = Entity::provider(link.provider_id.clone(), namespace, binding);
                self.call_anywhere(Some(link), call(target)).await
            }
            Route::Actor(key) => self.call_anywhere(None, call(Entity::actor(key))).await,
        }
    }

    fn resolve(&self, caller: &str, call: &HostCall) -> Result<Route> {
        let routes = self.routes();
        let claimed = |contract: &str| routes.may_use(caller, contract);
        if let Some(capability) = routes.intrinsic(&call.namespace) {
            // Every host of this protocol answers these without a claim; refusing would break actors that work there.
            if !claimed(&call.namespace) {
                log::debug!("the actor uses {} without claiming it", call.namespace; actor_id = caller);
            }
            let link = LinkDefinition {
                actor_id: caller.to_owned(),
                link_name: call.binding.clone(),
                contract_id: call.namespace.clone(),
                ..LinkDefinition::default()
            };
            return Ok(Route::Intrinsic(capability, Arc::new(link)));
        }
        if let Some(link) = routes.links.find(caller, &call.namespace, &call.binding) {
            if !claimed(&call.namespace) {
                let name = routes.actor(caller).map(|actor| actor.claims.name.clone()).unwrap_or_default();
                log::warn!("{}", unclaimed(&name, &call.namespace); actor_id = caller);
                return Err(Error::denied(format!(
                    "Invocation not authorized: missing capability claim for {}",
                    call.namespace
                )));
            }
            return Ok(Route::Provider(link));
        }
        if let Some(key) = routes.resolve_actor(&call.namespace) {
            return Ok(Route::Actor(key));
        }
        if let Some(key) = self.uplink.get().and_then(|uplink| uplink.resolve_alias(&call.namespace)) {
            return Ok(Route::Actor(key));
        }
        Err(Error::denied(format!(
            "Invocation not authorized: missing link definition for {} on {}",
            call.namespace, self.lattice
        )))
    }
}

/// Where a call of a guest goes.
enum Route {
    /// A contract every host serves itself.
    Intrinsic(Arc<dyn Capability>, Arc<LinkDefinition>),
    Provider(Arc<LinkDefinition>),
    Actor(String),
}

fn not_running(key: &str) -> Error {
    Error::unavailable(format!("Invocation received for actor {key} that is not running"))
}

/// Waits for `outcome` until `deadline`, and says what a guest reads when that passes.
async fn in_time(deadline: Instant, outcome: impl Future<Output = Result<Vec<u8>>>) -> Result<Vec<u8>> {
    task::before(deadline, outcome).await.unwrap_or_else(|| Err(Error::timeout(REQUEST_TIMEOUT)))
}

impl Invoke for Router {
    fn invoke(&self, call: Call) -> BoxFuture<'static, Result<Vec<u8>>> {
        let router = self.this();
        Box::pin(async move {
            let link = if call.target.is_actor() { None } else { Some(router.link_of(&call)?) };
            router.call_anywhere(link, call).await
        })
    }
}

impl Outcalls for Router {
    fn host_call(
        &self,
        caller: &str,
        call: HostCall,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'static>> {
        let (router, caller) = (self.this(), caller.to_owned());
        Box::pin(async move {
            let namespace = call.namespace.clone();
            router.call_out(caller.clone(), call).await.map_err(|error| {
                if error.kind() != Kind::Guest {
                    log::debug!("call out to {namespace} failed: {error}"; actor_id = caller);
                }
                error.text().to_owned()
            })
        })
    }

    fn console(&self, caller: &str, text: &str) {
        log::guest(caller, log::Level::Debug, text);
    }
}
