//! Real Redis servers that lose nothing they acknowledged: killed, started again, with and without TLS.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{http::free_address, nats::eventually};

/// A server that can be ended and started again on the same port, with the same data.
pub struct RedisServer {
    port: u16,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// A running server.
    pub fn start() -> Self {
        Self::with(|port, _| vec!["--port".into(), port.to_string()], &[])
    }

    /// A running server that keeps nothing: what it costs to ask it, and not what the disk costs.
    pub fn in_memory() -> Self {
        // The last word on a setting counts.
        Self::with(|port, _| vec!["--port".into(), port.to_string()], &["--appendonly", "no"])
    }

    /// A running server that speaks TLS with `redis.pem` and `redis.key`, which `issue` writes into the folder it is given.
    pub fn with_tls(issue: impl FnOnce(&Path)) -> Self {
        Self::with(
            |port, folder| {
                issue(folder);
                let path = |name: &str| folder.join(name).display().to_string();
                let pairs = [
                    ("--port", "0".to_owned()),
                    ("--tls-port", port.to_string()),
                    ("--tls-cert-file", path("redis.pem")),
                    ("--tls-key-file", path("redis.key")),
                    ("--tls-ca-cert-file", path("redis.pem")),
                    ("--tls-auth-clients", "no".to_owned()),
                ];
                pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
            },
            &[],
        )
    }

    fn with(arguments: impl FnOnce(u16, &Path) -> Vec<String>, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let port = free_address().port();
        let mut arguments = arguments(port, folder.path());
        // Everything acknowledged is on the disk.
        for word in
            ["--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "always", "--save", ""].iter().chain(more)
        {
            arguments.push((*word).to_owned());
        }
        let mut server = Self { port, folder, arguments, child: None };
        server.resume();
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The rule that lets providers connect to it.
    pub fn rule(&self) -> String {
        format!("connect={}", self.port)
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> redis::Connection {
        self.try_connect().expect("Redis answers")
    }

    /// The same, if it answers now.
    pub fn try_connect(&self) -> Option<redis::Connection> {
        redis::Client::open(self.url()).and_then(|client| client.get_connection()).ok()
    }

    /// Starts it, and waits until it answers.
    pub fn resume(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("redis.log"))
            .expect("the temporary folder is writable");
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log)
            .spawn()
            .expect("redis-server must be installed for these tests (Debian: apt-get install redis-server)");
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        eventually("Redis answers", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("the server can be asked"));
            assert!(ended.is_none(), "redis-server ended ({ended:?}): {}", self.log());
            TcpStream::connect(address).is_ok()
        });
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the server can be killed");
            child.wait().expect("the server can be awaited");
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("redis.log")).unwrap_or_default()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Already gone is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
