//! `latticed run`: start a host in the foreground. Here every room is wired to the others.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use smol::future;
use zeroize::Zeroizing;

use super::{
    Output,
    joining::{self, Joining},
    logins,
    manifests::Manifests,
    mirroring::Mirroring,
    preflight,
    reload::Reloader,
};
use crate::{
    actor::Engine,
    capability::{self, http_client, http_server, messaging},
    claims::{KeyPair, Role, keys::wipe_stack},
    config::{Config, friendly_name, host_config, is_host_name, machine_name},
    dumpable,
    error::{Context, Kind, Result},
    host::{
        self, Broker, Host, Liveness, Parts, Readiness, Rules,
        event::{Events, LogEvents},
    },
    lattice::NatsBroker,
    log,
    service::{clock::SystemClock, descriptors, heap, manager::Manager, notify, signals, sockets::HandedOver},
    store::{RealDisk, Store},
    task,
    web::{
        self, Admin, Probes,
        probes::{Place, Probed},
    },
};

const EXAMPLES: &str = "\
Examples:
  latticed run tests/quickstart/counter.yaml     start a host with the actors and links of a manifest
  latticed run                                   start it with what it ran before
  WASMCLOUD_JOIN=never latticed run              the same, and stay out of any lattice
  WASMCLOUD_LOG_LEVEL=debug latticed run app.yaml

The first SIGTERM or Ctrl-C finishes what is in flight, the second ends at once; SIGHUP reads settings, credentials,
certificates and manifests again. Settings come from the environment, .env files and host_config.json; `latticed check`
shows each with its origin.";

/// Start a host, with the actors and links of manifests if any are given.
///
/// What the manifest asks for is kept: a later `latticed run` without it starts the same again, also without the files
/// it named. Another manifest with the same application name takes its place.
///
/// A registry or mirror that is away is asked again until it answers; a single manifest that can never be used as it is ends
/// the start, one of a directory is passed over and named by `latticed status`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// wadm application manifest (YAML), or a directory of them; without one the host starts what it ran before.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    pub host_config: Option<PathBuf>,

    /// Read settings from this file of NAME=value lines, too; it is weaker than the environment, and SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, _output: &mut Output) -> Result<()> {
    let config =
        Config::load_with(args.host_config.as_deref(), args.env_file.as_deref()).inspect_err(notify::failed)?;
    log::setup(config.log);
    let outcome = start(args, config);
    if let Err(error) = &outcome {
        notify::failed(error);
    }
    outcome
}

fn start(args: Args, config: Config) -> Result<()> {
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    if config.dumpable {
        dumpable::allow()?;
    }
    heap::configure();
    task::run_reserved(config.workers, serve(config, args)).context(Kind::Internal, "cannot start the main loop")?
}

/// What may run here by the settings.
pub fn rules(config: &Config) -> Rules {
    Rules {
        issuers: config.allowed_issuers.clone(),
        update_issuers: config.update_issuers.clone(),
        file_load: config.allow_file_load,
        strict_update: config.strict_update,
        remote: config.remote,
    }
}

/// The built-in providers' share of the settings.
pub(super) fn capabilities(
    config: &Config,
    broker: Option<Arc<dyn Broker>>,
    sockets: Option<Arc<HandedOver>>,
) -> capability::Settings {
    let payload_bytes = config.actor.payload_bytes;
    capability::Settings {
        http_server: http_server::Settings {
            timeout: config.rpc_timeout,
            payload_bytes,
            max_body_bytes: payload_bytes,
            drain: config.drain,
            remote_listen: config.remote_listen.clone(),
            ..http_server::Settings::default()
        },
        http_client: http_client::Settings {
            request_bytes_max: payload_bytes,
            response_bytes_max: payload_bytes,
            remote_allow: config.artifacts.fetch_allow.clone(),
            ..http_client::Settings::default()
        },
        messaging: messaging::Settings {
            broker,
            timeout: config.rpc_timeout,
            payload_bytes,
            ..messaging::Settings::default()
        },
        sockets: sockets.map(|sockets| sockets as Arc<dyn http_server::Sockets>),
        quotas: config.key_value,
    }
}

async fn serve(config: Config, args: Args) -> Result<()> {
    let (sockets, probe_sockets) = HandedOver::sort(descriptors::take());
    let sockets = Arc::new(sockets);
    let settings = config.clone();
    let judged = smol::unblock(move || {
        preflight::settings(&settings).and_then(|said| preflight::writable(&settings).map(|()| said))
    });
    for warning in judged.await? {
        log::warn!("{warning}");
    }
    let probes_at = config.probes.as_deref().map(Place::parse).transpose()?;
    let cluster = joining::cluster(&config)?;
    if let Some(path) = config.host_config.clone() {
        // The key that was made up for this run too: `wash call` on this machine needs it.
        let content = host_config::content(&config, cluster.as_ref().map(|cluster| &cluster.key));
        if let Err(error) = smol::unblock(move || host_config::write(&path, &content)).await {
            log::warn!("{error}");
        }
    }
    let disk = Arc::new(RealDisk::new(config.state_directory.clone()));
    let settings = config.store.clone();
    let (store, damage) = smol::unblock(move || Store::open(settings, disk)).await?;
    for found in &damage {
        log::warn!("{found}");
    }
    let key = match config.host_key() {
        Some(key) => key,
        None => {
            let usable = |seed: &str| KeyPair::from_seed(seed).is_ok();
            let make = || KeyPair::generate(Role::Server).map(|key| key.seed().expose().to_owned());
            KeyPair::from_seed(&Zeroizing::new(store.host_seed(usable, make).await?))?
        }
    };
    key.keep_in_memory();
    wipe_stack();
    let engine = Engine::new(config.actor.clone())?;
    engine.when_idle(heap::give_back);
    let friendly_name = match config.host_name.clone().or_else(machine_name) {
        Some(name) => name,
        None => store.host_name(is_host_name, friendly_name).await?,
    };
    log::name(&key.public_key().to_string(), &friendly_name);
    let mut listeners: Vec<Arc<dyn Events>> = vec![Arc::new(LogEvents)];
    let joining = Joining::prepare(&config, cluster, &key.public_key().to_string(), &store, &mut listeners)?;
    let broker = NatsBroker::new(joining::timing(&config), &key.public_key().to_string())?;
    let host = Host::new(
        host::Settings {
            lattice: config.lattice.clone(),
            friendly_name,
            labels: config.labels.clone(),
            drain: config.drain,
            rules: rules(&config),
            artifacts: config.artifacts.clone(),
        },
        Parts {
            key,
            builtins: capability::builtins(
                &store,
                &capabilities(&config, Some(Arc::new(broker.clone())), Some(sockets.clone())),
            ),
            store,
            engine,
            intrinsics: capability::INTRINSICS,
            events: listeners,
            clock: Box::new(SystemClock),
        },
    )?;
    let stopper = host.clone();
    signals::on_stop(move || stopper.request_stop()).context(Kind::Internal, "cannot catch signals")?;
    let settings = config.clone();
    host.artifacts().credentials().configure(smol::unblock(move || logins::read(&settings)).await?);
    // Before anything starts: a second host on this socket must not get as far as opening ports.
    let settings = web::Settings {
        body_limit_bytes: config.actor.payload_bytes,
        call_timeout: config.rpc_timeout,
        ..web::Settings::at(config.admin_socket.clone())
    };
    let admin = Admin::start(settings, host.clone()).await?;
    let mirroring = Arc::new(Mirroring::start(&config, &host).await?);
    joining.allow_processes(&config, &host)?;
    let joined = joining.join(&host, &broker).await?;
    host.health().configure(config.health);
    let mut liveness = Liveness::of(&host);
    joined.watch(&mut liveness);
    let (liveness, readiness) = (Arc::new(liveness), Arc::new(Readiness::default()));
    let policy = config.readiness();
    let probed =
        Arc::new(Probed { host: host.clone(), liveness: liveness.clone(), readiness: readiness.clone(), policy });
    let mut probes = Vec::new();
    for socket in probe_sockets {
        probes.push(Probes::serve(socket, probed.clone())?);
    }
    if let Some(place) = probes_at {
        probes.push(Probes::bind(&place, probed)?);
    }
    let manifests = args.file.clone().map(|path| Arc::new(Manifests::start(&host, path, &config)));
    let (settled, given) = (host.clone(), manifests.clone());
    let releasing = task::spawn(async move {
        if let Some(given) = given {
            given.applied().await;
        }
        // What a link could not take now it may take later: nothing is let go then.
        if settled.settle().await.is_empty() {
            sockets.release_unclaimed();
        }
    });
    let (tick, ticks) = smol::channel::bounded(1);
    let housekeeping = task::spawn(keep_house(host.clone(), tick));
    let known_ready = Arc::new(AtomicBool::new(false));
    let manager = Manager { host: host.clone(), liveness, readiness, policy, known_ready: known_ready.clone() };
    let reloader = Arc::new(Reloader::new(args, host.clone(), mirroring.clone(), manifests.clone(), config));
    let reloading = signals::on_reload(move || {
        let (reloader, ready) = (reloader.clone(), known_ready.load(Relaxed));
        async move { reloader.reload(ready).await }
    })
    .context(Kind::Internal, "cannot catch signals")?;
    // On this thread and no other: a thread that stands still must not hold the one who would notice.
    let informing = async {
        match notify::is_managed() {
            true => manager.inform_for_ever(ticks).await,
            false => future::pending().await,
        }
    };
    let working = async {
        if let Some(manifests) = &manifests {
            manifests.head_start().await;
        }
        if !host.is_stopping() {
            host.run().await;
        }
    };
    future::or(working, informing).await;
    releasing.cancel().await;
    drop(probes);
    housekeeping.cancel().await;
    reloading.cancel().await;
    let outcome = match manifests.and_then(Arc::into_inner) {
        Some(manifests) => manifests.stop().await,
        None => Ok(()),
    };
    joined.leave().await;
    // Nobody reloads any more, so nobody else has it; if somebody had, it would end with them.
    if let Some(mirroring) = Arc::into_inner(mirroring) {
        mirroring.stop().await;
    }
    admin.stop().await;
    log::settle();
    outcome
}

/// Time between two rounds of housekeeping. Ten seconds: late enough to let the processor sleep, soon enough for an
/// operator who watches the log.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Reports held-back log lines of sources that went quiet and claims that expired, and lets others look around at the same moment.
async fn keep_house(host: Arc<Host>, tick: smol::channel::Sender<()>) {
    loop {
        smol::Timer::after(HOUSEKEEPING).await;
        log::settle();
        host.warn_of_expired();
        // Full means that nobody looks, which is as well.
        let _ = tick.try_send(());
    }
}
