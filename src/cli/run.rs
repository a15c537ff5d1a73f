//! `latticed run`: start a host in the foreground. Here every room is wired to the others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Output,
    joining::{self, Joining},
};
use crate::{
    actor::Engine,
    capability::{self, http_client, http_server, messaging},
    claims::{KeyPair, Role},
    config::{Config, RegistryAccount, friendly_name, host_config, manifest},
    error::{Context, Kind, Result},
    host::{
        self, Application, Broker, Host, Parts,
        application::{ActorComponent, LinkComponent, ProviderComponent},
        event::{Events, LogEvents},
    },
    lattice::NatsBroker,
    log,
    service::{clock::SystemClock, heap, signals},
    store::{RealDisk, Store},
    task,
    web::{self, Admin},
};

const EXAMPLES: &str = "\
Examples:
  latticed run tests/quickstart/counter.yaml     start a host with the actors and links of a manifest
  latticed run                                   start it with what it ran before
  WASMCLOUD_JOIN=never latticed run              the same, and stay out of any lattice
  WASMCLOUD_LOG_LEVEL=debug latticed run app.yaml

The first SIGTERM or Ctrl-C finishes what is in flight, the second ends at once. Settings come from the environment,
.env files and host_config.json; `latticed check` shows each with its origin.";

/// Start a host, with the actors and links of a manifest if one is given.
///
/// What the manifest asks for is kept: a later `latticed run` without it starts the same again, also without the files
/// it named. Another manifest with the same application name takes its place.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// wadm application manifest (YAML); without one the host starts what it ran before.
    pub file: Option<PathBuf>,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    pub host_config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, _output: &mut Output) -> Result<()> {
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    log::setup(config.log);
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    let application = args.file.map(|path| read(&path, &config)).transpose()?;
    heap::configure();
    task::run(config.workers, serve(config, application)).context(Kind::Internal, "cannot start the main loop")?
}

/// Reads the manifest and says what this board cannot honour.
fn read(path: &Path, config: &Config) -> Result<Application> {
    let manifest = manifest::read(path, &config.labels)?;
    for warning in &manifest.warnings {
        log::warn!("{warning}");
    }
    Ok(Application {
        name: manifest.name,
        version: manifest.version,
        actors: manifest
            .actors
            .into_iter()
            .map(|actor| ActorComponent {
                name: actor.name,
                reference: match actor.path {
                    Some(path) => format!("file://{}", path.display()),
                    None => actor.reference.text().to_owned(),
                },
                max_concurrent: actor.max_concurrent.unwrap_or(config.actor.max_concurrent),
                links: actor
                    .links
                    .into_iter()
                    .map(|link| LinkComponent { target: link.target, values: link.values })
                    .collect(),
            })
            .collect(),
        providers: manifest
            .capabilities
            .into_iter()
            .map(|capability| ProviderComponent {
                name: capability.name,
                reference: capability.reference.text().to_owned(),
                contract_id: capability.contract_id,
                link_name: capability.link_name,
                configuration: capability.configuration,
            })
            .collect(),
    })
}

/// The built-in providers' share of the settings.
fn capabilities(config: &Config, broker: Arc<dyn Broker>) -> capability::Settings {
    let payload_bytes = config.actor.payload_bytes;
    capability::Settings {
        http_server: http_server::Settings {
            timeout: config.rpc_timeout,
            payload_bytes,
            max_body_bytes: payload_bytes,
            drain: config.drain,
            ..http_server::Settings::default()
        },
        http_client: http_client::Settings {
            request_bytes_max: payload_bytes,
            response_bytes_max: payload_bytes,
            ..http_client::Settings::default()
        },
        messaging: messaging::Settings {
            broker: Some(broker),
            timeout: config.rpc_timeout,
            payload_bytes,
            ..messaging::Settings::default()
        },
        quotas: config.key_value,
    }
}

async fn serve(config: Config, application: Option<Application>) -> Result<()> {
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
    let key = match config.host_key()? {
        Some(key) => key,
        None => {
            let usable = |seed: &str| KeyPair::from_seed(seed).is_ok();
            let make = || KeyPair::generate(Role::Server).map(|key| key.seed().expose().to_owned());
            KeyPair::from_seed(&store.host_seed(usable, make).await?)?
        }
    };
    let engine = Engine::new(config.actor.clone())?;
    engine.when_idle(heap::give_back);
    let friendly_name = friendly_name()?;
    log::name(&key.public_key().to_string(), &friendly_name);
    let mut listeners: Vec<Arc<dyn Events>> = vec![Arc::new(LogEvents)];
    let joining = Joining::prepare(&config, cluster, &key.public_key().to_string(), &mut listeners)?;
    let broker = NatsBroker::new(joining::timing(&config), &key.public_key().to_string())?;
    let host = Host::new(
        host::Settings {
            lattice: config.lattice.clone(),
            friendly_name,
            labels: config.labels.clone(),
            drain: config.drain,
            issuers: config.allowed_issuers.clone(),
            artifacts: config.artifacts.clone(),
        },
        Parts {
            key,
            builtins: capability::builtins(&store, &capabilities(&config, Arc::new(broker.clone()))),
            store,
            engine,
            intrinsics: capability::INTRINSICS,
            events: listeners,
            clock: Box::new(SystemClock),
        },
    )?;
    if let Some(RegistryAccount { registry, user, password }) = &config.registry {
        host.artifacts().credentials().configure(registry, user, password.expose());
    }
    // Before anything starts: a second host on this socket must not get as far as opening ports.
    let settings = web::Settings {
        body_limit_bytes: config.actor.payload_bytes,
        call_timeout: config.rpc_timeout,
        ..web::Settings::at(config.admin_socket.clone())
    };
    let admin = Admin::start(settings, host.clone()).await?;
    let joined = joining.join(&host, &broker).await?;
    if let Some(application) = application {
        host.apply(application).await?;
    }
    let stopper = host.clone();
    signals::on_stop(move || stopper.request_stop()).context(Kind::Internal, "cannot catch signals")?;
    let housekeeping = task::spawn(keep_house());
    host.run().await;
    housekeeping.cancel().await;
    joined.leave().await;
    admin.stop().await;
    log::settle();
    Ok(())
}

/// Time between two rounds of housekeeping. Ten seconds: late enough to let the processor sleep, soon enough for an
/// operator who watches the log.
const HOUSEKEEPING: Duration = Duration::from_secs(10);

/// Reports held-back log lines of sources that went quiet.
async fn keep_house() {
    loop {
        smol::Timer::after(HOUSEKEEPING).await;
        log::settle();
    }
}
