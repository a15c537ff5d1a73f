//! Network namespaces with a cable between two of them and none to anywhere else.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
};

use super::host::Sandbox;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Tells the namespaces of one process apart.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces and the cable between them; gone when dropped.
pub struct Cable {
    names: [String; 2],
}

/// Addresses at the two ends; more of 10.77.0.0/24 can be added.
const ENDS: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

impl Cable {
    /// Lays it.
    pub fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces, which only root may: run the tests as root"
        );
        let number = NEXT.fetch_add(1, Relaxed);
        let names = ["a", "b"].map(|end| format!("latticed-{}-{number}-{end}", std::process::id()));
        let cable = Self { names };
        let [a, b] = &cable.names;
        for name in &cable.names {
            ip(&["netns", "add", name]);
        }
        ip(&["link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable", "netns", b]);
        for (name, address) in cable.names.iter().zip(ENDS) {
            ip(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "cable"]);
            for device in ["cable", "lo"] {
                ip(&["-n", name, "link", "set", device, "up"]);
            }
        }
        cable
    }

    /// Gives the end `end` one more address.
    pub fn add_address(&self, end: usize, address: &str) {
        ip(&["-n", &self.names[end], "addr", "add", &format!("{address}/24"), "dev", "cable"]);
    }

    /// Plugs it out, or in again.
    pub fn plug(&self, plugged: bool) {
        ip(&["-n", &self.names[0], "link", "set", "cable", if plugged { "up" } else { "down" }]);
    }

    /// A program at `path` that runs `program` at the end `end` of the cable: for whoever starts programs by their path.
    pub fn program_at(&self, end: usize, program: &str, path: PathBuf) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;

        let text =
            format!("#!/bin/sh\nexec {} netns exec {} {program} \"$@\"\n", found("ip").display(), self.names[end]);
        fs::write(&path, text).expect("the temporary folder is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        path
    }

    /// A sandbox at each end whose hosts are run from `program`; the folder holds what starts them there.
    pub fn sandboxes(&self, program: &str) -> ([Sandbox; 2], tempfile::TempDir) {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let at =
            |end: usize| Sandbox::new(self.program_at(end, program, folder.path().join(format!("latticed-{end}"))));
        ([at(0), at(1)], folder)
    }

    /// Runs `work` at the end `end` of the cable; threads it starts are there too.
    pub fn run_at<T: Send>(&self, end: usize, work: impl FnOnce() -> T + Send) -> T {
        let place = Path::new("/run/netns").join(&self.names[end]);
        thread::scope(|scope| {
            let there = scope.spawn(|| {
                let namespace = File::open(place).expect("the namespace is there");
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
                work()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            // Already gone is fine.
            let _ = Command::new(found("ip")).args(["netns", "del", name]).output();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new(found("ip")).args(arguments).output().expect("ip starts");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// Where a program of the system is; hosts of the tests run without a search path.
fn found(program: &str) -> PathBuf {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|place| Path::new(place).join(program));
    let found = places.iter().find(|place| place.is_file());
    found.unwrap_or_else(|| panic!("these tests need {program} (Debian: apt-get install iproute2)")).clone()
}

/// Runs the test `name` of this program again in a network of its own, where the ports everybody knows are free, and says
/// whether this is that run.
pub fn in_a_network_of_its_own(name: &str) -> bool {
    const INSIDE: &str = "LATTICED_TEST_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test has a path");
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
    let output = Command::new("unshare")
        .arg("--net")
        .args(user)
        .args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
        .arg(program)
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "yes")
        .stdin(Stdio::null())
        .output()
        .expect("unshare is installed (Debian: util-linux)");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success() && text.contains("1 passed"), "in a network of its own (unshare, ip): {text}");
    false
}
