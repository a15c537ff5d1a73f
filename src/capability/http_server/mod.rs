//! `wasmcloud:httpserver` inside the process (`protocol/interfaces.md §2`): one listener for each link, each request an
//! invocation of the linked actor.
//!
//! The host starts it by [`start`] and speaks to it as to any [`Capability`]. It never runs a guest, never decides who may
//! be called (the router does), and never keeps a request longer than its time-out and the drain time.
//!
//! # Layout
//!
//! * [`settings`]: limits the host sets; [`link_values`]: what a link may choose; `values`: one
//!   of them.
//! * `listener`: the socket, its connections, their orderly end; `pace`: when one is too slow; `stream`: its bytes.
//! * `sockets`: where listening sockets may come from and go to.
//! * `service`: one request; `payload`: its bytes on the way to the actor and back; `cors`, `budget`, `overload`.

mod budget;
mod cors;
pub mod link_values;
mod listener;
mod overload;
mod pace;
mod payload;
mod service;
pub mod settings;
mod sockets;
mod stream;
#[cfg(test)]
mod tests;
mod values;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

pub use self::settings::Settings;
pub use self::sockets::Sockets;
use self::{
    budget::Budget,
    link_values::{Options, TlsFiles},
    listener::{Closing, Listener},
};
use crate::{
    capability::preview::LinkPlan,
    certificate,
    error::{Error, Result},
    host::{BoxFuture, Call, Capability, ProviderContext, remote},
    lock::{Mutex, MutexGuard},
    log,
    wire::{Entity, LinkDefinition, interface},
};

/// Largest `config_file`, bytes. Settings take a few hundred; more is not a settings file.
const CONFIG_FILE_BYTES_MAX: u64 = 64 * 1024;

/// Starts an HTTP server with the default limits. It listens nowhere until it is linked.
pub fn start(context: ProviderContext) -> Arc<dyn Capability> {
    start_with(context, Settings::default())
}

/// Starts an HTTP server with limits of the caller's.
pub fn start_with(context: ProviderContext, settings: Settings) -> Arc<dyn Capability> {
    start_keeping(context, settings, None)
}

/// Starts an HTTP server whose listening sockets come from `sockets` where they can, and go there.
pub fn start_keeping(
    context: ProviderContext,
    settings: Settings,
    sockets: Option<Arc<dyn Sockets>>,
) -> Arc<dyn Capability> {
    let budget = Arc::new(Budget::new(settings.body_budget_bytes));
    let origin = Entity::provider(&context.public_key, interface::HTTP_SERVER, &context.link_name);
    let settings = Arc::new(settings);
    Arc::new(HttpServer { context, origin, settings, budget, sockets, listeners: Mutex::default() })
}

/// Actor and link name: what tells the links of one contract apart.
type LinkKey = (String, String);

struct HttpServer {
    context: ProviderContext,
    origin: Entity,
    settings: Arc<Settings>,
    budget: Arc<Budget>,
    sockets: Option<Arc<dyn Sockets>>,
    listeners: Mutex<BTreeMap<LinkKey, Listener>>,
}

impl HttpServer {
    fn listeners(&self) -> MutexGuard<'_, BTreeMap<LinkKey, Listener>> {
        self.listeners.lock()
    }

    /// The link of `listener` goes, and its socket with it.
    fn forget(&self, listener: &Listener) {
        let address = listener.options().address;
        if let (Some(sockets), Some(socket), true) = (&self.sockets, listener.socket(), address.port() != 0) {
            sockets.forget(address, socket);
        }
    }

    async fn open(&self, link: Arc<LinkDefinition>, confined: bool) -> Result<()> {
        let key = key(&link);
        if self.listeners().get(&key).is_some_and(|listener| listener.link().values == link.values) {
            return Ok(());
        }
        let settings = Arc::clone(&self.settings);
        let read = Arc::clone(&link);
        let prepare = move || match confined {
            true => prepare_confined(&settings, &read),
            false => prepare(&settings, &read),
        };
        let (options, warnings, acceptor) = smol::unblock(prepare)
            .await
            .map_err(|error| error.context(format_args!("the HTTP server link of actor {}", link.actor_id)))?;
        for warning in warnings {
            log::warn!("{warning}"; actor_id = link.actor_id, link_name = link.link_name);
        }
        // A link with other values that was not removed before: the newer one counts.
        let replaced = self.listeners().remove(&key);
        if let Some(listener) = replaced {
            self.forget(&listener);
            listener.close(Closing::Unlinked).await;
        }
        let mut listeners = self.listeners();
        let asked = options.address;
        if let Some(other) = listeners.values().find(|other| asked.port() != 0 && other.options().address == asked) {
            return Err(Error::conflict(format!(
                "cannot listen on {asked} for actor {}: the link of actor {} listens there; give one of the two links \
                 another `address`",
                link.actor_id,
                other.link().actor_id
            )));
        }
        let listener = Listener::open(listener::Parts {
            link: Arc::clone(&link),
            options,
            settings: Arc::clone(&self.settings),
            budget: Arc::clone(&self.budget),
            invoke: Arc::clone(&self.context.invoke),
            origin: self.origin.clone(),
            acceptor,
            socket: self.sockets.as_ref().and_then(|sockets| sockets.take(asked)),
        })?;
        // A port that the kernel chose is another one next time.
        if let (Some(sockets), Some(socket), true) = (&self.sockets, listener.socket(), asked.port() != 0) {
            sockets.keep(asked, socket);
        }
        log::info!(
            "listening on {}", url(&listener);
            actor_id = link.actor_id, link_name = link.link_name, provider_id = self.context.public_key
        );
        listeners.insert(key, listener);
        Ok(())
    }
}

impl Capability for HttpServer {
    fn contract_id(&self) -> &str {
        interface::HTTP_SERVER
    }

    fn link(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open(link, false))
    }

    fn link_confined(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open(link, true))
    }

    fn unlink(&self, link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let listener = self.listeners().remove(&key(&link));
            if let Some(listener) = listener {
                self.forget(&listener);
                listener.close(Closing::Unlinked).await;
            }
        })
    }

    fn call(&self, _link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        let error = Error::usage(format!(
            "{} is no operation of the HTTP server: it calls actors, actors do not call it",
            call.operation
        ));
        Box::pin(std::future::ready(Err(error)))
    }

    /// Where it listens, `http://127.0.0.1:8080`; several links by commas.
    fn detail(&self) -> String {
        self.listeners().values().map(url).collect::<Vec<_>>().join(", ")
    }

    fn originates(&self) -> bool {
        true
    }

    fn reload(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let links: Vec<_> = self.listeners().values().filter(|one| one.tls).map(|one| one.link().clone()).collect();
            for link in links {
                let (settings, read) = (Arc::clone(&self.settings), Arc::clone(&link));
                let (_, _, acceptor) = smol::unblock(move || prepare(&settings, &read))
                    .await
                    .map_err(|error| error.context(format_args!("the HTTP server link of actor {}", link.actor_id)))?;
                if let Some(listener) = self.listeners().get(&key(&link)) {
                    listener.replace_acceptor(acceptor);
                }
            }
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let listeners = std::mem::take(&mut *self.listeners());
            // All at once, so that the drain times do not add up.
            let closing: Vec<_> =
                listeners.into_values().map(|listener| crate::task::spawn(listener.close(Closing::Stopped))).collect();
            for listener in closing {
                listener.await;
            }
        })
    }
}

fn key(link: &LinkDefinition) -> LinkKey {
    (link.actor_id.clone(), link.link_name.clone())
}

fn url(listener: &Listener) -> String {
    let scheme = if listener.tls { "https" } else { "http" };
    format!("{scheme}://{}", listener.bound)
}

/// Options of a link, what was not understood in it, and its certificate.
type Prepared = (Options, Vec<String>, Option<futures_rustls::TlsAcceptor>);

/// The options of a link that came over the lattice to a board that confines those. It reads no file of the board.
fn prepare_confined(settings: &Settings, link: &LinkDefinition) -> Result<Prepared> {
    let refuse = |name| Err(remote::refuse_link(name, "name files of this board"));
    if link.value("config_file").is_some() {
        return refuse("config_file");
    }
    let (mut options, mut warnings) = Options::from_link(settings, link, None)?;
    if options.tls.is_some() {
        return refuse("tls");
    }
    let (asked, address) = (options.address, confine(options.address, &settings.remote_listen)?);
    if address != asked {
        warnings.push(format!(
            "the link came over the lattice, so it listens on {address} instead of {asked}: set WASMCLOUD_REMOTE_LISTEN \
             to the addresses it may listen on, or WASMCLOUD_REMOTE=full"
        ));
    }
    options.address = address;
    Ok((options, warnings, None))
}

/// Where a link from the lattice listens that asks for `asked`: on loopback, or on an address that is `allowed`.
fn confine(asked: SocketAddr, allowed: &[IpAddr]) -> Result<SocketAddr> {
    let ip = asked.ip().to_canonical();
    let every = |other: &IpAddr| other.is_unspecified() && other.is_ipv4() == ip.is_ipv4();
    if ip.is_loopback() || allowed.iter().any(|other| *other == ip || every(other)) {
        return Ok(asked);
    }
    match ip {
        IpAddr::V4(address) if address.is_unspecified() => Ok((Ipv4Addr::LOCALHOST, asked.port()).into()),
        IpAddr::V6(address) if address.is_unspecified() => Ok((Ipv6Addr::LOCALHOST, asked.port()).into()),
        _ => Err(Error::denied(format!(
            "the link came over the lattice, and may not listen on {ip}: add {ip} to WASMCLOUD_REMOTE_LISTEN on this board, \
             or set WASMCLOUD_REMOTE=full there"
        ))),
    }
}

/// Everything about a link that needs files. Runs on a blocking thread.
fn prepare(settings: &Settings, link: &LinkDefinition) -> Result<Prepared> {
    let file = link.value("config_file").map(read_config).transpose()?;
    let (options, warnings) = Options::from_link(settings, link, file.as_deref())?;
    let acceptor = options.tls.as_ref().map(acceptor_of).transpose()?;
    Ok((options, warnings, acceptor))
}

/// What `link` would do. Reads the files it names. Blocks.
///
/// # Errors
/// A value or a file that cannot be used.
pub fn preview(settings: &Settings, link: &LinkDefinition) -> Result<LinkPlan> {
    let (options, warnings, _) = prepare(settings, link)?;
    Ok(LinkPlan { warnings, listens: Some(options.address) })
}

fn acceptor_of(tls: &TlsFiles) -> Result<futures_rustls::TlsAcceptor> {
    certificate::acceptor((&tls.cert_file, "`tls.cert_file`"), (&tls.priv_key_file, "`tls.priv_key_file`"))
}

fn read_config(path: &str) -> Result<String> {
    use std::io::Read;
    let refuse = |why: String| Error::config(format!("cannot read `config_file` {path}: {why}"));
    let file = std::fs::File::open(Path::new(path)).map_err(|cause| refuse(cause.to_string()))?;
    let mut text = String::new();
    let read =
        file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|cause| refuse(cause.to_string()))?;
    if read as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(refuse(format!("it is larger than {CONFIG_FILE_BYTES_MAX} bytes, which no settings file is")));
    }
    Ok(text)
}
