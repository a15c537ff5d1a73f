//! `wasmcloud:keyvalue` on the state store (`protocol/interfaces.md §4`): what a Redis behind the first-party provider
//! does, on one board, without a server, and still there after a power cut.
//!
//! * `space`: what a link may do: its keyspace and quotas. `layout`: how keys, lists and sets lie in the store.
//! * `session`: one operation at work. `operations`: what the contract offers. `clock`: the time by which keys expire.
//!
//! Started by the reference `builtin:keyvalue`. Link values: `keyspace` (default: the link name), `max_keys`, `max_bytes`,
//! `max_value_bytes`, `max_elements`; `URL` is ignored, so links made for Redis work. Anything else is named in a warning, and a
//! misspelt one of these is refused.
//!
//! # What a change costs
//!
//! One frame of the store's log: 24 bytes, and for each record 3 bytes, its key (keyspace + key + 3 bytes) and its value
//! (1 byte more, 9 with an expiry). An increment of `counter` under the link `default` writes 46 bytes; elements of lists
//! (10 more) and members of sets (3 more) are records of their own, so a long list costs no more than a short one. The
//! medium writes a page of 4 KiB in each case. An expiring key also writes 13 bytes of time. Reads write nothing, except
//! that a key found to have expired is removed.
//!
//! It never answers before a change is durable, and never keeps a copy of values in memory.

mod clock;
mod layout;
mod operations;
mod session;
mod space;
#[cfg(test)]
pub(crate) mod tests;

use std::{collections::HashMap, sync::Arc, time::Duration};

pub use space::{DEFAULT_MAX_BYTES, DEFAULT_MAX_ELEMENTS, DEFAULT_MAX_KEYS, DEFAULT_MAX_VALUE_BYTES, Quotas};

use clock::Clock;
use session::{Session, Totals};
use space::Space;

use crate::{
    capability::preview::LinkPlan,
    error::{Error, Result},
    host::{BoxFuture, Call, Capability},
    lock::Mutex,
    log,
    store::{Store, Table, Transaction, View},
    wire::{
        LinkDefinition, codec,
        interface::{
            GetResponse, IncrementRequest, KEY_VALUE, ListRangeRequest, ListValueRequest, SetRequest, SetValueRequest,
        },
    },
};

/// The key-value capability.
pub struct KeyValue {
    keyspaces: Arc<Keyspaces>,
    quotas: Quotas,
    /// By actor and link name.
    links: Mutex<HashMap<(String, String), Arc<Space>>>,
}

/// What `link` would do.
///
/// # Errors
/// A value that cannot be used.
pub fn preview(quotas: Quotas, link: &LinkDefinition) -> Result<LinkPlan> {
    Space::of(link, quotas)?;
    Ok(LinkPlan { warnings: space::unknown_values(link)?, listens: None })
}

struct Keyspaces {
    store: Store,
    clock: Clock,
    totals: Mutex<Totals>,
}

impl KeyValue {
    /// Serves keys from `store`; `quotas` are those of links that name none. Reads one value of the store, on this
    /// thread.
    pub fn new(store: Store, quotas: Quotas) -> Self {
        Self::with_clock(store, quotas, clock::system())
    }

    fn with_clock(store: Store, quotas: Quotas, source: clock::Source) -> Self {
        let floor = match store.get(Table::KeyValue, layout::CLOCK) {
            Ok(bytes) => bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes),
            Err(error) => {
                log::warn!("the time of the last expiring key is lost, keys may live longer: {error}");
                0
            }
        };
        let clock = Clock::new(source, Duration::from_millis(floor));
        let keyspaces = Keyspaces { store, clock, totals: Mutex::default() };
        Self { keyspaces: Arc::new(keyspaces), quotas, links: Mutex::default() }
    }
}

impl Capability for KeyValue {
    fn contract_id(&self) -> &str {
        KEY_VALUE
    }

    fn link(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let space = Space::of(&link, self.quotas)?;
            for warning in space::unknown_values(&link)? {
                log::warn!("{warning}"; actor_id = link.actor_id, link_name = link.link_name);
            }
            self.links.lock().insert((link.actor_id.clone(), link.link_name.clone()), Arc::new(space));
            Ok(())
        })
    }

    fn unlink(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.links.lock().remove(&(link.actor_id.clone(), link.link_name.clone()));
        })
    }

    fn call(&self, link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move {
            let space = self.links.lock().get(&(link.actor_id.clone(), link.link_name.clone())).cloned();
            let space = space.ok_or_else(|| {
                Error::denied(format!("{} is not linked to {KEY_VALUE} as {}", link.actor_id, link.link_name))
            })?;
            self.keyspaces.operation(space, &call.operation, &call.payload).await
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.links.lock().clear() })
    }
}

impl Keyspaces {
    /// Answers one operation of the contract.
    async fn operation(self: &Arc<Self>, space: Arc<Space>, operation: &str, payload: &[u8]) -> Result<Vec<u8>> {
        macro_rules! request {
            () => {
                codec::decode(&format!("{operation} request"), payload)?
            };
        }
        match operation {
            "KeyValue.Get" => {
                let key: String = request!();
                let value = self.look(space, move |session| session.get(&key)).await?;
                let exists = value.is_some();
                codec::encode(&GetResponse { value: value.unwrap_or_default(), exists })
            }
            "KeyValue.Set" => {
                let request: SetRequest = request!();
                self.change(space, move |session| {
                    let expires = (request.expires > 0)
                        .then(|| session.now_ms().saturating_add(u64::from(request.expires) * 1000));
                    session.set(&request.key, &request.value, expires)
                })
                .await?;
                Ok(Vec::new())
            }
            "KeyValue.Del" | "KeyValue.ListClear" | "KeyValue.SetClear" => {
                let key: String = request!();
                codec::encode(&self.change(space, move |session| session.del(&key)).await?)
            }
            "KeyValue.Contains" => {
                let key: String = request!();
                codec::encode(&self.look(space, move |session| session.contains(&key)).await?)
            }
            "KeyValue.Increment" => {
                let request: IncrementRequest = request!();
                let change = move |session: &mut Session<'_, '_>| session.increment(&request.key, request.value);
                codec::encode(&self.change(space, change).await?)
            }
            "KeyValue.ListAdd" => {
                let ListValueRequest { list_name, value } = request!();
                codec::encode(&self.change(space, move |session| session.list_add(&list_name, &value)).await?)
            }
            "KeyValue.ListDel" => {
                let ListValueRequest { list_name, value } = request!();
                codec::encode(&self.change(space, move |session| session.list_del(&list_name, &value)).await?)
            }
            "KeyValue.ListRange" => {
                let ListRangeRequest { list_name, start, stop } = request!();
                codec::encode(&self.look(space, move |session| session.list_range(&list_name, start, stop)).await?)
            }
            "KeyValue.SetAdd" => {
                let SetValueRequest { set_name, value } = request!();
                codec::encode(&self.change(space, move |session| session.set_add(&set_name, &value)).await?)
            }
            "KeyValue.SetDel" => {
                let SetValueRequest { set_name, value } = request!();
                codec::encode(&self.change(space, move |session| session.set_del(&set_name, &value)).await?)
            }
            "KeyValue.SetUnion" => {
                let keys: Vec<String> = request!();
                codec::encode(&self.look(space, move |session| session.set_union(&keys)).await?)
            }
            "KeyValue.SetIntersection" => {
                let keys: Vec<String> = request!();
                codec::encode(&self.look(space, move |session| session.set_intersection(&keys)).await?)
            }
            "KeyValue.SetQuery" => {
                let key: String = request!();
                codec::encode(&self.look(space, move |session| session.set_query(&key)).await?)
            }
            _ => Err(Error::invalid(format!("{KEY_VALUE} has no operation {operation:?}"))),
        }
    }

    /// Runs an operation that only reads. Keys it found to have expired are gone durably before it is answered.
    async fn look<T: Send + 'static>(
        self: &Arc<Self>,
        space: Arc<Space>,
        operation: impl FnOnce(&mut Session<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (keyspaces, own_space) = (Arc::clone(self), Arc::clone(&space));
        let look = move |view: &View<'_>| {
            let mut session = Session::look(view, &own_space, keyspaces.clock.now_ms());
            let answer = operation(&mut session);
            (answer, session.expired)
        };
        let (answer, expired) = self.store.read(look).await;
        if !expired.is_empty() {
            let removal = self.change(space, move |session| {
                for key in &expired {
                    // Reading it removes it, unless it was set again meanwhile.
                    session.string(key)?;
                }
                Ok(())
            });
            if let Err(error) = removal.await {
                log::debug!("an expired key could not be removed yet: {error}");
            }
        }
        answer
    }

    /// Runs an operation that may change something; what it did is durable when this answers.
    async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        space: Arc<Space>,
        operation: impl FnOnce(&mut Session<'_, '_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let keyspaces = Arc::clone(self);
        let change = move |transaction: &mut Transaction<'_>| {
            let mut session = Session::change(transaction, &space, keyspaces.clock.now_ms());
            let answer = operation(&mut session)?;
            session.finish(&mut keyspaces.totals.lock())?;
            Ok(answer)
        };
        self.store.update(change).await
    }
}
