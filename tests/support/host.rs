//! The real program as a child process, in a folder of its own.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use latticed::{host::HostStatus, task, web::Client};

/// How long a host may take to do what a test waits for. Far above what it takes, so that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with everything a host writes, removed when dropped. Several hosts may live in it one after another.
pub struct Sandbox {
    folder: tempfile::TempDir,
    program: PathBuf,
    /// Whose the programs are, where not the test's.
    user: Option<u32>,
}

/// The user `nobody`, everywhere.
const NOBODY: u32 = 65_534;

impl Sandbox {
    /// A fresh folder for hosts of the binary `program`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let folder = tempfile::Builder::new().prefix("latticed-").tempdir().expect("the temporary folder is writable");
        // Made absolute: it is started in that folder.
        let program = std::path::absolute(program.into()).expect("the working folder has a path");
        Self { folder, program, user: None }
    }

    /// The same for hosts that are not root: of `nobody` where the test is root, else of the test's user.
    pub fn of_nobody(program: impl Into<PathBuf>) -> Self {
        if rustix::process::geteuid().is_root() { Self::of_user(program, NOBODY) } else { Self::new(program) }
    }

    /// The same for hosts of the user `user`; only root can make it.
    pub fn of_user(program: impl Into<PathBuf>, user: u32) -> Self {
        let mut sandbox = Self::new(program);
        std::os::unix::fs::chown(sandbox.folder.path(), Some(user), Some(user)).expect("root may give away");
        sandbox.user = Some(user);
        sandbox
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the file `name`, and says where it is.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("the temporary folder is writable");
        path
    }

    /// The program with `arguments`, seeing nothing but this folder and no setting of whoever runs the tests.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            // Not XDG_STATE_HOME: root keeps state elsewhere, and tests may run as root.
            .env("STATE_DIRECTORY", self.path("state"))
            // Whatever serves NATS on this machine is none of a test's business: it names its own server.
            .env("WASMCLOUD_JOIN", "named")
            // Tests and benchmarks look into it, also where they are not root.
            .env("WASMCLOUD_DUMPABLE", "true")
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Starts a host with `manifest` and `settings` in its environment.
    pub fn run(&self, manifest: &Path, settings: &[(&str, &str)]) -> Host {
        self.start(&["run", manifest.to_str().expect("temporary paths are UTF-8")], settings)
    }

    /// Starts a host with what it was told before, and nothing else.
    pub fn run_again(&self, settings: &[(&str, &str)]) -> Host {
        self.start(&["run"], settings)
    }

    /// Starts a host by `arguments`, with `settings` in its environment.
    pub fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Host {
        self.start(arguments, settings)
    }

    fn start(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Host {
        let mut command = self.command(arguments);
        let mut child = command
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be started");
        let output = Output::default();
        let readers = vec![
            output.read(child.stdout.take().expect("it is piped")),
            output.read(child.stderr.take().expect("it is piped")),
        ];
        Host { child, output, readers, socket: self.path("latticed/admin.sock") }
    }
}

/// Everything a host printed so far, on either stream.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<String>>);

impl Output {
    fn read(&self, stream: impl std::io::Read + Send + 'static) -> JoinHandle<()> {
        let text = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                text.push('\n');
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running host. Killed when dropped.
pub struct Host {
    child: Child,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    socket: PathBuf,
}

impl Host {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// A client of its admin socket.
    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// Waits until it printed `text`.
    pub fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.output().contains(text) {
            let ended = self.child.try_wait().expect("the child can be asked");
            assert!(ended.is_none(), "the host ended ({ended:?}) and did not print {text:?}: {}", self.output());
            assert!(Instant::now() < end, "the host did not print {text:?} within {PATIENCE:?}: {}", self.output());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its status.
    pub fn status(&self) -> HostStatus {
        now(self.client().status()).unwrap_or_else(|error| panic!("no status: {error}\n{}", self.output()))
    }

    /// Calls `operation` of `actor` through the admin socket; a failure is the host's text.
    pub fn call(&self, actor: &str, operation: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
        let client = self.client();
        let answer = client.call(actor, operation, payload.to_vec(), PATIENCE);
        now(answer).map_err(|error| error.to_string())
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("the child can be killed");
        self.child.wait().expect("the child can be awaited");
    }

    /// Sends it `signal`.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a child has a pid");
        rustix::process::kill_process(pid, signal).expect("the child can be signalled");
    }

    /// Asks it to stop (SIGTERM), and says how it ended and all it printed.
    pub fn terminate(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    /// Waits until it ends by itself, and says how and all it printed.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                for reader in self.readers.drain(..) {
                    reader.join().expect("readers do not panic");
                }
                return (status, self.output());
            }
            assert!(Instant::now() < end, "the host did not stop within {PATIENCE:?}: {}", self.output());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Waits for `answer` here and now. Tests do that inside tokio's runtime too, whose budget for one turn would end after some
/// sixty answers and never be renewed while the turn lasts: so it is not charged.
fn now<T>(answer: impl Future<Output = T>) -> T {
    task::block_on(tokio::task::unconstrained(answer))
}

impl Drop for Host {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
