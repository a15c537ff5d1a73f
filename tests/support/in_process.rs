//! A host inside the test's own process, for tests that look where the program cannot be seen from outside.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use latticed::{
    actor::Engine,
    artifact, capability,
    claims::{KeyPair, Role},
    error::Result,
    host::{Host, Parts, Rules, Settings, core::Clock, event::LogEvents},
    service::clock::SystemClock,
    store::{self, Disk, Store},
    task,
};

/// A host on `disk`, with every built-in provider.
pub async fn start(disk: Arc<dyn Disk>, engine: &Engine) -> Result<Arc<Host>> {
    start_at(disk, engine, Box::new(SystemClock)).await
}

/// The same, with a clock of the test's own.
pub async fn start_at(disk: Arc<dyn Disk>, engine: &Engine, clock: Box<dyn Clock>) -> Result<Arc<Host>> {
    let (store, _) = Store::open(store::Settings::default(), disk)?;
    let make = || KeyPair::generate(Role::Server).map(|key| key.seed().expose().to_owned());
    let key = KeyPair::from_seed(&store.host_seed(|seed| KeyPair::from_seed(seed).is_ok(), make).await?)?;
    Host::new(
        Settings {
            lattice: "default".into(),
            friendly_name: "test-host-1".into(),
            labels: BTreeMap::new(),
            drain: Duration::from_secs(1),
            rules: Rules::default(),
            artifacts: artifact::Settings::default(),
        },
        Parts {
            key,
            builtins: capability::builtins(&store, &capability::Settings::default()),
            store,
            engine: engine.clone(),
            intrinsics: capability::INTRINSICS,
            events: vec![Arc::new(LogEvents)],
            clock,
        },
    )
}

/// Runs `host` beside `work` and stops it afterwards.
pub async fn beside<T>(host: &Arc<Host>, work: impl Future<Output = T>) -> T {
    let running = task::spawn({
        let host = host.clone();
        async move { host.run().await }
    });
    let answer = work.await;
    host.request_stop();
    running.await;
    answer
}
