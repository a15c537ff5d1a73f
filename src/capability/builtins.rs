//! The list of what `builtin:NAME` may name, and how each is started.

use std::sync::Arc;

use super::{http_client, http_server, key_value, logging, messaging, numbers};
use crate::{
    host::{Builtin, Builtins, Capability},
    store::Store,
    wire::interface::{HTTP_CLIENT, HTTP_SERVER, KEY_VALUE, LOGGING, MESSAGING, NUMBERGEN},
};

/// Names of those that every actor reaches without a link (`protocol/actor-abi.md §5`).
pub const INTRINSICS: &[&str] = &["logging", "numbergen"];

/// Settings of all built-in providers.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The HTTP server.
    pub http_server: http_server::Settings,
    /// The HTTP client.
    pub http_client: http_client::Settings,
    /// Messaging, and its way to brokers.
    pub messaging: messaging::Settings,
    /// Keeper of listening sockets, where there is one.
    pub sockets: Option<Arc<dyn http_server::Sockets>>,
    /// What a keyspace may hold.
    pub quotas: key_value::Quotas,
}

/// All built-in providers of this program.
pub fn builtins(store: &Store, settings: &Settings) -> Builtins {
    let mut builtins = Builtins::default();
    let (server, sockets) = (settings.http_server.clone(), settings.sockets.clone());
    builtins.register(Builtin {
        name: "httpserver",
        contract_id: HTTP_SERVER,
        start: Box::new(move |context| Ok(http_server::start_keeping(context, server.clone(), sockets.clone()))),
    });
    let client = settings.http_client.clone();
    builtins.register(Builtin {
        name: "httpclient",
        contract_id: HTTP_CLIENT,
        start: Box::new(move |context| Ok(http_client::start_with(context, client.clone()))),
    });
    let (messages, kept) = (settings.messaging.clone(), store.clone());
    builtins.register(Builtin {
        name: "messaging",
        contract_id: MESSAGING,
        start: Box::new(move |context| Ok(messaging::start(context, kept.clone(), messages.clone()))),
    });
    let (store, quotas) = (store.clone(), settings.quotas);
    builtins.register(Builtin {
        name: "keyvalue",
        contract_id: KEY_VALUE,
        start: Box::new(move |_| Ok(Arc::new(key_value::KeyValue::new(store.clone(), quotas)) as Arc<dyn Capability>)),
    });
    builtins.register(Builtin {
        name: "logging",
        contract_id: LOGGING,
        start: Box::new(|_| Ok(Arc::new(logging::Logging))),
    });
    builtins.register(Builtin {
        name: "numbergen",
        contract_id: NUMBERGEN,
        start: Box::new(|_| Ok(Arc::new(numbers::Numbers))),
    });
    builtins
}
