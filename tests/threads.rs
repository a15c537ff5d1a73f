//! Hosts on machines that start no more threads: one that begins says so, one that runs goes on. They need root, and a user that
//! has no other processes.

mod support;

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use latticed::wire::interface::HttpRequest;
use support::{
    guests,
    host::{Host, Sandbox},
    manifest::Manifest,
};

/// A user of nobody's, so that what else runs on this machine does not count.
fn unused_user(number: u32) -> u32 {
    1_000_000 + std::process::id() * 10 + number
}

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_latticed")
}

fn threads(host: &Host) -> usize {
    fs::read_dir(format!("/proc/{}/task", host.pid())).expect("it runs").count()
}

fn serving(sandbox: &Sandbox) -> Host {
    let mut manifest = Manifest::new("app");
    manifest.actor("echo", &guests::module_path("echo"), 1);
    let path = sandbox.write("app.yaml", manifest.text());
    let host = sandbox.run(&path, &[("WASMCLOUD_WORKERS", "2")]);
    support::nats::eventually("the actor runs", || {
        let answer = latticed::task::block_on(host.client().status());
        answer.is_ok_and(|status| status.actors.len() == 1)
    });
    host
}

/// Clients at once: each has up to two connections, and the admin socket takes 16.
const CLIENTS: usize = 8;

/// Calls, status and work that blocks, more of it at once than there are threads for it.
fn works(sandbox: &Sandbox, host: &Host) {
    let request =
        rmp_serde::to_vec_named(&HttpRequest { method: "GET".into(), path: "/".into(), ..HttpRequest::default() })
            .expect("encoded");
    let call = || host.call(&guests::key("echo"), "HttpServer.HandleRequest", &request).expect("it is answered");
    call();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let list = sandbox.command(&["artifact", "list"]).output().expect("the program can be started");
                assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
                call();
            });
        }
    });
    assert_eq!(host.status().actors.len(), 1);
}

fn ends_in_order(host: Host) {
    let (status, output) = host.terminate();
    assert!(status.success(), "{output}");
}

#[test]
fn a_host_whose_user_may_have_no_more_processes_goes_on() {
    let sandbox = Sandbox::of_user(program(), unused_user(0));
    let host = serving(&sandbox);
    let limit = format!("--nproc={0}:{0}", threads(&host));
    // As that user: root may need a right that containers do not have.
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &host.pid().to_string(), &limit]).uid(unused_user(0)).gid(unused_user(0));
    let outcome = prlimit.status();
    assert!(outcome.expect("prlimit is installed (Debian: apt-get install util-linux)").success());
    works(&sandbox, &host);
    ends_in_order(host);
}

/// A control group that counts tasks, removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is there");
        let counts = |place: &str| {
            let listed = fs::read_to_string(Path::new(place).join("cgroup.controllers")).unwrap_or_default();
            listed.split_whitespace().any(|one| one == "pids")
        };
        let place = mounts.lines().find_map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let first = words[2] == "cgroup" && words[3].split(',').any(|one| one == "pids");
            (first || (words[2] == "cgroup2" && counts(words[1]))).then(|| words[1].to_owned())
        });
        let place = place.expect("this test needs a kernel with the controller `pids`");
        // In the unified tree a controller has to be handed down; where it is already, this changes nothing.
        let _ = fs::write(Path::new(&place).join("cgroup.subtree_control"), "+pids");
        let group = Path::new(&place).join(format!("latticed-threads-{}", std::process::id()));
        fs::create_dir(&group).expect("root may make control groups");
        Self(group)
    }

    fn tell(&self, file: &str, word: &str) {
        fs::write(self.0.join(file), word).unwrap_or_else(|cause| panic!("{file}: {cause}"));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_host_whose_control_group_takes_no_more_tasks_goes_on() {
    let group = Group::new();
    let sandbox = Sandbox::of_user(program(), unused_user(1));
    let host = serving(&sandbox);
    group.tell("cgroup.procs", &host.pid().to_string());
    group.tell("pids.max", &threads(&host).to_string());
    works(&sandbox, &host);
    ends_in_order(host);
}

#[test]
fn a_host_that_gets_too_few_threads_says_how_many_it_needs() {
    let user = unused_user(2);
    let sandbox = Sandbox::of_user(program(), user);
    let plain = sandbox.command(&["run"]);
    let mut limited = Command::new("prlimit");
    limited.args(["--nproc=4:4", program(), "run"]).current_dir(sandbox.path("")).env_clear();
    limited.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).uid(user).gid(user);
    let output = limited.output().expect("prlimit is installed (Debian: apt-get install util-linux)");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("threads beside its first") && said.contains("TasksMax"), "{said}");
}
