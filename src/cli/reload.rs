//! What SIGHUP does: settings, credentials, certificates and manifests are read again; what can follow at once does, and
//! the log says what changed and what waits for the next start.
//!
//! Nothing is changed when the settings cannot be read. The environment of a process never changes, so settings follow
//! from files: `--env-file`, `.env`, `host_config.json`, credentials.

use std::{sync::Arc, time::Duration};

use super::{
    logins,
    manifests::Manifests,
    mirroring::Mirroring,
    preflight,
    run::{Args, rules},
};
use crate::{
    config::{Config, Effective},
    error::Result,
    host::Host,
    lock::{Mutex, MutexGuard},
    log,
    service::notify,
    task,
};

/// Settings that take effect without a new start. The certificates and credentials that paths lead to are read again
/// whether or not the paths changed.
const AT_ONCE: &[&str] = &[
    "WASMCLOUD_LOG_LEVEL",
    "WASMCLOUD_ALLOWED_ISSUERS",
    "WASMCLOUD_UPDATE_ISSUERS",
    "WASMCLOUD_ALLOW_FILE_LOAD",
    "WASMCLOUD_STRICT_UPDATE_CHECK",
    "WASMCLOUD_REMOTE",
    "WASMCLOUD_HEALTH_PERIOD_MS",
    "WASMCLOUD_HEALTH_FAILURES",
    "WASMCLOUD_HEALTH_RESTARTS",
    "WASMCLOUD_ALLOW_WASI",
    "WASMCLOUD_ACTOR_MEMORY_BYTES",
    "WASMCLOUD_ACTOR_DEADLINE_MS",
    "WASMCLOUD_ACTOR_FUEL",
    "WASMCLOUD_ACTOR_STACK_DEPTH",
    "WASMCLOUD_ACTOR_MODULE_BYTES",
    "WASMCLOUD_ACTOR_TABLE_ELEMENTS",
    "WASMCLOUD_ACTOR_QUEUE",
    "WASMCLOUD_ACTOR_MAX_CONCURRENT",
    "WASMCLOUD_ACTOR_PAYLOAD_BYTES",
    "WASMCLOUD_ACTOR_LOG_BYTES",
    "WASMCLOUD_ACTOR_LOG_PER_SECOND",
    "WASMCLOUD_SLICE_FUEL",
    "WASMCLOUD_MIRROR_TOKEN",
    "WASMCLOUD_MIRROR_TLS_CERT_FILE",
    "WASMCLOUD_MIRROR_TLS_KEY_FILE",
    "WASMCLOUD_ARTIFACT_BYTES",
    "WASMCLOUD_ARTIFACT_TIMEOUT_MS",
    "WASMCLOUD_ARTIFACT_IDLE_MS",
    "WASMCLOUD_ARTIFACT_ATTEMPTS",
    "WASMCLOUD_ARTIFACT_BYTES_PER_SECOND",
    "WASMCLOUD_ARTIFACT_CA_FILE",
    "WASMCLOUD_REQUIRE_DIGEST",
    "WASMCLOUD_OCI_ALLOW_LATEST",
    "WASMCLOUD_OCI_ALLOWED_INSECURE",
    "WASMCLOUD_OCI_AUTH_FILE",
    "WASMCLOUD_REMOTE_FETCH_ALLOW",
    "OCI_REGISTRY",
    "OCI_REGISTRY_USER",
    "OCI_REGISTRY_PASSWORD",
];

/// How long a reload waits for what manifests name. A file of this board takes milliseconds; what is fetched from afar goes on
/// beyond the end of the reload, and readiness tells of it.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(20);

/// Reads again what the host was started with.
pub struct Reloader {
    args: Args,
    host: Arc<Host>,
    mirroring: Arc<Mirroring>,
    manifests: Option<Arc<Manifests>>,
    /// What is in force.
    config: Mutex<Config>,
}

impl Reloader {
    /// For the host that was started with `args` and `config`, its part among the mirrors of a site, and the manifests it was
    /// given.
    pub fn new(
        args: Args,
        host: Arc<Host>,
        mirroring: Arc<Mirroring>,
        manifests: Option<Arc<Manifests>>,
        config: Config,
    ) -> Self {
        Self { args, host, mirroring, manifests, config: Mutex::new(config) }
    }

    /// Reads everything again. `ready` says whether the service manager knows the host as running: only then is it told,
    /// as the end of a reload is the word for the end of a start.
    pub async fn reload(&self, ready: bool) {
        log::info!("reading settings, credentials, certificates and manifests again");
        if ready {
            notify::reloading();
        }
        let failed = self.follow().await.err();
        if let Some(error) = &failed {
            log::error!("nothing was reloaded: {error}");
        }
        self.host.reloaded(failed.map(|error| error.text().to_owned()));
        if ready {
            notify::ready();
        }
    }

    async fn follow(&self) -> Result<()> {
        let (host_config, env_file) = (self.args.host_config.clone(), self.args.env_file.clone());
        let new = smol::unblock(move || Config::load_with(host_config.as_deref(), env_file.as_deref())).await?;
        let (new, judged) = smol::unblock(move || {
            let judged = preflight::settings(&new);
            (new, judged)
        })
        .await;
        for warning in new.warnings.iter().chain(&judged?) {
            log::warn!("{warning}");
        }
        // Before anything changes: a certificate that cannot be used stops the reload.
        let renewal = self.mirroring.read_again(&new).await?;
        let (new, logins) = smol::unblock(move || logins::read(&new).map(|logins| (new, logins))).await?;
        let limited = self.host.limit_actors(new.actor.clone())?;
        let old = self.config().clone();
        let (at_once, later) = changes(old.values(), new.values());
        log::set_level(new.log.level);
        self.host.health().configure(new.health);
        self.host.follow_rules(rules(&new));
        self.host.follow_artifacts(new.artifacts.clone());
        let logged_in = self.host.artifacts().credentials().configure(logins);
        self.mirroring.renew(&new, renewal);
        let mut followed = at_once;
        if logged_in {
            followed.push("logins for registries".to_owned());
        }
        if self.host.set_labels(new.labels.clone()) {
            followed.push("labels".to_owned());
        }
        if limited {
            followed.push("limits of actors, each at its next invocation".to_owned());
        }
        self.host.reload_capabilities().await;
        *self.config() = new.clone();
        match followed.is_empty() {
            true => log::info!("reloaded; no setting changed that takes effect at once"),
            false => log::info!("reloaded; now in effect: {}", followed.join(", ")),
        }
        if !later.is_empty() {
            log::warn!("changed, but in effect only after a restart: {}", later.join(", "));
        }
        if let Some(manifests) = &self.manifests
            && task::within(MANIFEST_PATIENCE, manifests.again(new)).await.is_none()
        {
            log::info!("what manifests name is still being fetched");
        }
        Ok(())
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock()
    }
}

/// What differs between `old` and `new`: what takes effect at once and what does not, each in words without secrets.
fn changes(old: &[Effective], new: &[Effective]) -> (Vec<String>, Vec<String>) {
    let (mut at_once, mut later) = (Vec::new(), Vec::new());
    for new in new {
        let Some(old) = old.iter().find(|old| old.setting == new.setting) else { continue };
        if old.value == new.value {
            continue;
        }
        let shown = |value: String| if value.is_empty() { "not set".to_owned() } else { value };
        let text = match new.setting.kind.is_secret() {
            true => new.setting.name.to_owned(),
            false => format!("{} {} -> {}", new.setting.name, shown(old.shown()), shown(new.shown())),
        };
        let list = if AT_ONCE.contains(&new.setting.name) { &mut at_once } else { &mut later };
        list.push(text);
    }
    (at_once, later)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, settings::find};

    fn values(environment: &[(&str, &str)]) -> Vec<Effective> {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Sources { environment, ..Sources::default() }.resolve().expect("good settings").0
    }

    #[test]
    fn what_follows_at_once_exists_in_the_table() {
        for name in AT_ONCE {
            assert!(find(name).is_some_and(|setting| setting.name == *name), "{name}");
        }
    }

    #[test]
    fn changes_are_named_and_secrets_are_not_shown() {
        let old = values(&[("WASMCLOUD_LOG_LEVEL", "info"), ("OCI_REGISTRY_PASSWORD", "old secret")]);
        let new = values(&[
            ("WASMCLOUD_LOG_LEVEL", "debug"),
            ("OCI_REGISTRY_PASSWORD", "new secret"),
            ("WASMCLOUD_WORKERS", "7"),
            ("WASMCLOUD_CTL_HOST", "hub"),
        ]);
        let (at_once, later) = changes(&old, &new);
        assert_eq!(at_once, ["WASMCLOUD_LOG_LEVEL info -> debug", "OCI_REGISTRY_PASSWORD"]);
        assert!(later.contains(&"WASMCLOUD_CTL_HOST 127.0.0.1 -> hub".to_owned()), "{later:?}");
        assert!(later.iter().any(|text| text.starts_with("WASMCLOUD_WORKERS ")), "{later:?}");
        assert_eq!(changes(&new, &new), (Vec::new(), Vec::new()));
    }
}
