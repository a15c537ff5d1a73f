//! A real nats-server for tests: started on a free port, in a directory of its own, ended with the test.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    connection::Connection,
    endpoint::{Endpoint, Login, Timing, Tls},
};

/// How long a server may take to start or a state to come about before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A port nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Passes bytes on between clients of `port` and the server on `to`, until it is told to swallow them.
pub fn forward(port: u16, to: u16, swallow: Arc<AtomicBool>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let pump = |mut from: TcpStream, mut into: TcpStream, swallow: Arc<AtomicBool>| {
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if !swallow.load(SeqCst) && into.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = into.shutdown(Shutdown::Both);
        });
    };
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect((Ipv4Addr::LOCALHOST, to))) else { return };
            pump(client.try_clone().unwrap(), server.try_clone().unwrap(), swallow.clone());
            pump(server, client, swallow.clone());
        }
    });
}

/// A server that can be ended and started again on the same port.
pub struct NatsServer {
    pub port: u16,
    pub directory: tempfile::TempDir,
    child: Option<Child>,
}

impl NatsServer {
    /// A running server with JetStream, and `extra` in its configuration; `{dir}` there stands for its directory.
    pub fn start(extra: &str) -> Self {
        let mut server = Self::stopped(extra);
        server.resume();
        server
    }

    /// The same, not started yet.
    pub fn stopped(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Self { port: free_port(), directory, child: None };
        server.configure(extra);
        server
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration anew, for the next start.
    pub fn configure(&self, extra: &str) {
        let here = self.directory.path().display().to_string();
        let configuration = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{here}/js\" }}\n{}\n",
            self.port,
            extra.replace("{dir}", &here)
        );
        fs::write(self.path("nats.conf"), configuration).unwrap();
    }

    pub fn resume(&mut self) {
        assert!(self.child.is_none());
        let log = fs::File::create(self.path("nats.log")).unwrap();
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(self.path("nats.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("nats-server must be installed for these tests (Debian: apt-get install nats-server)");
        self.child = Some(child);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            assert!(Instant::now() < until, "nats-server: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server at once, without a word to its clients.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("nats.log")).unwrap_or_default()
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::parse("127.0.0.1", self.port, Login::None, Tls::default()).unwrap()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Time-outs that a busy machine does not reach.
pub fn steady() -> Timing {
    Timing { silence: Duration::from_secs(60), patience: Duration::from_secs(3), ..quick() }
}

/// Time-outs for tests of the time-outs themselves.
pub fn quick() -> Timing {
    Timing {
        reconnect_base: Duration::from_millis(50),
        reconnect_cap: Duration::from_millis(300),
        connect: Duration::from_secs(5),
        silence: Duration::from_millis(2000),
        patience: Duration::from_millis(500),
        bucket_heartbeat: Duration::from_secs(1),
    }
}

/// A connection that works.
pub async fn connect(endpoint: &Endpoint, timing: &Timing) -> Connection {
    let connection = Connection::open("test", endpoint, timing, "NTEST").await.unwrap();
    eventually("connected", || connection.is_connected()).await;
    connection
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "it did not come about: {what}");
        smol::Timer::after(Duration::from_millis(10)).await;
    }
}

/// Runs a test on a runtime like the process's own.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    crate::task::run(0, test).unwrap()
}

/// Writes a certificate authority and what it signs into `directory`: `ca.pem`, and `NAME.pem`, `NAME.key` for each name.
pub fn write_certificates(directory: &Path, names: &[&str]) {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    let authority = parameters.self_signed(&authority_key).unwrap();
    fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    for name in names {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters =
            rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        parameters.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &issuer).unwrap();
        fs::write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
