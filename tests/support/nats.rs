//! Real NATS servers for hosts that are real processes: late, killed, started again.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    host::{Host, Sandbox},
    http::free_address,
};

/// How long a server may take to start, or a state to come about. Far above what it takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Seed of the cluster of all tests; worthless.
pub fn cluster() -> latticed::claims::KeyPair {
    latticed::claims::KeyPair::from_name(latticed::claims::Role::Cluster, "test cluster")
}

/// A server that can be ended and started again on the same port.
pub struct NatsServer {
    port: u16,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl NatsServer {
    /// A server with JetStream that is not running yet.
    pub fn stopped() -> Self {
        Self::stopped_at(free_address().port())
    }

    /// The same, on a port of the test's choice.
    pub fn stopped_at(port: u16) -> Self {
        Self::described_at(port, |port, store| {
            format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n", store.display())
        })
    }

    /// A server that is not running yet, with the configuration that `text` writes for a port and a place for its store.
    pub fn described(text: impl FnOnce(u16, &Path) -> String) -> Self {
        Self::described_at(free_address().port(), text)
    }

    fn described_at(port: u16, text: impl FnOnce(u16, &Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let server = Self { port, folder, child: None };
        let text = text(port, &server.folder.path().join("js"));
        fs::write(server.folder.path().join("nats.conf"), text).expect("the temporary folder is writable");
        server
    }

    /// A running server.
    pub fn start() -> Self {
        let mut server = Self::stopped();
        server.resume();
        server
    }

    /// A running server with a configuration of the test's own, in which `{port}` and `{dir}` stand for its port and folder.
    pub fn configured(configuration: &str) -> Self {
        let mut server = Self::described(|port, store| {
            let folder = store.parent().expect("it is in a folder").display().to_string();
            configuration.replace("{port}", &port.to_string()).replace("{dir}", &folder)
        });
        server.resume();
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it, and waits until it answers.
    pub fn resume(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("nats.log"))
            .expect("the temporary folder is writable");
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(self.folder.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("nats-server must be installed for these tests (Debian: apt-get install nats-server)");
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        eventually("the NATS server answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("the server can be asked"));
            assert!(ended.is_none(), "nats-server ended ({ended:?}): {}", self.log());
            TcpStream::connect(address).is_ok()
        });
    }

    /// Ends it at once, without a word to its clients.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server can be awaited");
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("nats.log")).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A hub with JetStream in a domain of its own, and a leaf without.
pub fn hub_and_leaf() -> (NatsServer, NatsServer) {
    let door = free_address();
    let hub = NatsServer::configured(&format!(
        "listen: \"127.0.0.1:{{port}}\"\njetstream {{ store_dir: \"{{dir}}/js\", domain: hub }}\n\
         leafnodes {{ listen: \"{door}\" }}\n"
    ));
    let leaf = NatsServer::configured(&format!(
        "listen: \"127.0.0.1:{{port}}\"\nleafnodes {{ remotes: [ {{ url: \"nats://{door}\" }} ] }}\n"
    ));
    (hub, leaf)
}

/// Runs the host of `sandbox` with the server at `port` for everything, with files allowed and `more` settings, and waits until
/// it is there.
pub fn joined(sandbox: &Sandbox, port: u16, more: &[(&str, &str)]) -> Host {
    let (port, seed) = (port.to_string(), cluster().seed().expose().to_owned());
    let mut settings = vec![
        ("WASMCLOUD_RPC_PORT", port.as_str()),
        ("WASMCLOUD_CTL_PORT", port.as_str()),
        ("WASMCLOUD_CLUSTER_SEED", seed.as_str()),
        ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
    ];
    settings.extend_from_slice(more);
    let port = port.parse().expect("a port");
    let mut host = sandbox.run_again(&settings);
    host.wait_for("listening for commands");
    let id = host.status().host_id;
    eventually("the server passes commands on", || answers(port, &id) != Some(false));
    host
}

/// Whether the host `id` answers on the last of its control subjects; nothing where the server lets nobody ask without
/// a login.
fn answers(port: u16, id: &str) -> Option<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    // A host that takes no commands at all says nothing.
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let question = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true,\"no_responders\":true}}\r\nSUB answer 1\r\n\
         PUB wasmbus.ctl.default.labels.{id}.none answer 0\r\n\r\n"
    );
    stream.write_all(question.as_bytes()).ok()?;
    for line in BufReader::new(stream).lines() {
        match line.ok()?.split(' ').next() {
            Some("MSG") => return Some(true),
            Some("HMSG") => return Some(false),
            Some("-ERR") => return None,
            _ => {}
        }
    }
    None
}

/// Waits until `condition` holds, and says how long that took.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it did not come about within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

/// Runs a test that speaks to a NATS server.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// A client whose requests wait as long as a slow machine may take.
pub async fn connect(server: &NatsServer) -> async_nats_031::Client {
    connect_to(server.url()).await
}

/// The same, from a URL.
pub async fn connect_to(url: String) -> async_nats_031::Client {
    let options = async_nats_031::ConnectOptions::new().request_timeout(Some(PATIENCE)).connection_timeout(PATIENCE);
    options.connect(url).await.expect("the server answers")
}

/// A published control client, once the lattice has its bucket: it is not built without.
pub async fn control_client(
    nats: &async_nats_031::Client,
) -> ctl_client_030::Client<ctl_client_030::kv::DirectKvStore> {
    let start = Instant::now();
    loop {
        let builder = ctl_client_030::ClientBuilder::new(nats.clone()).timeout(PATIENCE);
        match builder.build().await {
            Ok(client) => return client,
            Err(error) => assert!(start.elapsed() < PATIENCE, "the lattice has no bucket: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
