//! From settings to what providers as processes are told and held to.

use std::{env, path::PathBuf};

use crate::{
    claims::{KeyPair, Now},
    config::{Config, Origin, Secret},
    error::Result,
    host::Host,
    log,
    nats::{Endpoint, Login},
    provider::{Settings, layers::Kernel, rules::Rules, settings::Nats},
};

/// The program itself, whatever happens to the file it was started from: an update in place must not change what supervises.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The settings of the providers of `host`, whose invocations `cluster` signs and which believe `issuers`.
pub fn settings(config: &Config, host: &Host, cluster: KeyPair, issuers: Vec<String>) -> Result<Settings> {
    let told = &config.provider_rpc;
    let endpoint = Endpoint::parse(&told.host, told.port, Login::None, told.tls.clone())?;
    let text = |secret: &Option<Secret>| secret.as_ref().map_or("", |secret| secret.expose()).to_owned();
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    // What the operator did not ask for is left to the provider, so that `RUST_LOG` works.
    let set_level = config.values().iter().find(|value| value.setting.name == "WASMCLOUD_LOG_LEVEL");
    let log_level = set_level.filter(|value| value.origin != Origin::Default).map(|_| level_name(config.log.level));
    let providers = config.providers.clone();
    Ok(Settings {
        directory: config.state_directory.join("providers"),
        helper: PathBuf::from(OWN_PROGRAM),
        host_id: host.id(),
        lattice: config.lattice.clone(),
        nats: Nats {
            tls: told.tls.required || endpoint.servers.first().is_some_and(|server| server.tls),
            url: endpoint.url(),
            jwt: text(&told.jwt),
            seed: text(&told.seed),
        },
        minting: config.providers.minting()?,
        clock: || Now::from_system(0),
        control_prefix: config.ctl_topic_prefix.clone(),
        cluster,
        cluster_issuers: issuers,
        rpc_timeout: config.rpc_timeout,
        js_domain: config.js_domain.clone(),
        structured_logging: config.log.structured,
        log_level,
        telemetry: (variable("OTEL_TRACES_EXPORTER"), variable("OTEL_EXPORTER_OTLP_ENDPOINT")),
        environment: providers.environment,
        confinement: providers.confinement,
        rules: Rules::parse(&providers.rules)?,
        kernel: Kernel::default(),
        cgroup: None,
        legacy_archives: providers.legacy_archives,
        restarts: providers.restarts,
        first_probe: providers.first_probe,
        probe_interval: providers.probe_interval,
        shutdown_delay: config.provider_delay,
    })
}

/// A level as both generations of provider SDKs read it: `warn`, not `warning`.
fn level_name(level: log::Level) -> String {
    level.name().to_owned()
}
