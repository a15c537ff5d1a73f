//! What a provider may do to its host and to the rest of the machine: nothing. A shell in the provider tries, with the tools
//! and calls that an attacker would use.

mod support;

use std::{
    io::Write,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use support::{
    nats::{block_on, eventually},
    provider,
    stage::{Stage, lives},
};

/// What `script` prints in a shell of the provider `name`.
async fn shell(stage: &Stage, name: &str, script: &str) -> String {
    let said = stage.call(name, "Test.Execute", script.as_bytes()).await.expect("a shell");
    String::from_utf8_lossy(&said).into_owned()
}

/// A line of a shell that prints `DID name` when `command` succeeds.
fn attempt((name, command): &(&str, String)) -> String {
    format!("{{ {command}; }} >/dev/null 2>&1 && echo DID {name}\n")
}

/// A system call by number, and the error it ends with; perl is part of every Debian.
fn call(number: i64, arguments: &str) -> String {
    format!("perl -e '$! = 0; my $r = syscall({number}, {arguments}); print $r == -1 ? $! + 0 : \"done\", \"\\n\"'")
}

/// State and niceness of a process.
fn state_and_niceness(process: u32) -> (String, String) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let fields: Vec<_> = stat.rsplit_once(") ").expect("a stat").1.split(' ').map(str::to_owned).collect();
    (fields[0].clone(), fields[16].clone())
}

#[test]
fn a_provider_cannot_change_limits_priority_or_state_of_its_host() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.linked("saboteur").await;
        let host = stage.host().pid();
        let limits = || std::fs::read_to_string(format!("/proc/{host}/limits")).expect("it lives");
        let before = (limits(), state_and_niceness(host).1);
        let commands: Vec<(&str, String)> = vec![
            ("files", format!("prlimit --pid {host} --nofile=8:8")),
            ("file-size", format!("prlimit --pid {host} --fsize=0:0")),
            ("cpu", format!("prlimit --pid {host} --cpu=1:1")),
            ("nice", format!("renice -n 19 -p {host}")),
            ("scheduler", format!("chrt --idle --pid 0 {host}")),
            ("io", format!("ionice -c 3 -p {host}")),
            ("affinity", format!("taskset -p 1 {host}")),
            ("stop", format!("kill -STOP {host}")),
            ("kill", format!("kill -KILL {host}")),
            ("group", format!("kill -KILL -- -{host}")),
            ("users", "unshare --user true".into()),
            ("network", "unshare --net true".into()),
            ("mount", "mount -t tmpfs none .".into()),
            ("root", "chroot / true".into()),
        ];
        let script: String = commands.iter().map(attempt).collect();
        let own = "prlimit --nofile=64:64 true && nice -n 3 true && taskset 1 true && ionice -c 3 true && echo OWN";
        let said = shell(&stage, "saboteur", &(script + own)).await;
        // What it does to itself is its own business.
        assert_eq!(said.trim(), "OWN");
        assert_eq!((limits(), state_and_niceness(host).1), before);
        assert_ne!(state_and_niceness(host).0, "T");
        assert_eq!(stage.increment("saboteur").await, Ok(1));
        let detail = stage.host().status().providers[0].detail.clone();
        for layer in ["own files (Landlock)", "TCP to port", "no signals", "system calls filtered", "no writable code"]
        {
            assert!(detail.contains(layer), "this test needs Linux 6.12 with Landlock: {detail}");
        }
    });
}

#[test]
fn calls_into_other_processes_and_the_depths_of_the_kernel_are_refused() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.linked("prober").await;
        let host = stage.host().pid();
        let refused = [
            (libc::SYS_ptrace, format!("16, {host}, 0, 0")),
            (libc::SYS_process_vm_readv, format!("{host}, 0, 0, 0, 0, 0")),
            (libc::SYS_process_vm_writev, format!("{host}, 0, 0, 0, 0, 0")),
            (libc::SYS_io_uring_setup, "1, 0".into()),
            (libc::SYS_keyctl, "0, -3, 0".into()),
            (libc::SYS_bpf, "0, 0, 0".into()),
            (libc::SYS_userfaultfd, "1".into()),
            (libc::SYS_perf_event_open, "0, 0, 0, 0, 0".into()),
            (libc::SYS_unshare, libc::CLONE_NEWUSER.to_string()),
            (libc::SYS_setns, "0, 0".into()),
            (libc::SYS_clone, format!("{}, 0, 0, 0, 0", libc::CLONE_NEWPID | libc::SIGCHLD)),
            (libc::SYS_shmget, "0, 4096, 0600".into()),
            (libc::SYS_prctl, format!("{}, 0, 0, 0, 0", libc::PR_SET_DUMPABLE)),
            // Writable and executable; and executable after it was writable.
            (libc::SYS_mmap, "0, 4096, 7, 34, -1, 0".into()),
            (libc::SYS_socket, "2, 1, 262".into()),
            // Flags and project of a file, by each way there is.
            (libc::SYS_ioctl, format!("0, {}, 0", 0x401C_5820)),
            (libc::SYS_ioctl, format!("0, {}, 0", 0x4008_6602)),
            (469, "0, 0, 0, 0, 0".into()),
        ];
        for (number, arguments) in refused {
            let said = shell(&stage, "prober", &call(number, &arguments)).await;
            let refusal = [libc::EPERM, libc::EACCES].map(|errno| errno.to_string());
            assert!(refusal.contains(&said.trim().to_owned()), "{number} {arguments}: {said}");
        }
        // What programs look for and do without is not there for them: newer calls, and x86's other numbering.
        for number in [libc::SYS_clone3, 600, 0x4000_0000 + 101] {
            let said = shell(&stage, "prober", &call(number, "0, 0")).await;
            assert_eq!(said.trim(), libc::ENOSYS.to_string(), "{number}");
        }
        assert_eq!(stage.increment("prober").await, Ok(1));
    });
}

/// Connects to `port` over TCP, and says why not.
fn connect_to(port: u16) -> String {
    format!("perl -MIO::Socket::INET -e 'print IO::Socket::INET->new(\"127.0.0.1:{port}\") ? \"connected\" : \"$!\"'")
}

#[test]
fn a_provider_connects_to_nats_and_where_its_rules_say() {
    block_on(async {
        let open = TcpListener::bind("127.0.0.1:0").expect("a port");
        let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
        let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("latticed-{}", std::process::id()));
        let _abstract = UnixListener::bind_addr(&name.expect("a name")).expect("it is free");
        let to_abstract = format!(
            "perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Peer => \"\\0latticed-{}\") ? \"connected\" : \"$!\"'",
            std::process::id()
        );
        let rules = format!("connect={},{}:connect=any", port(&open), provider::key("free"));
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RULES", &rules)]).await;
        stage.linked("bound").await;
        assert_eq!(shell(&stage, "bound", &connect_to(port(&open))).await, "connected");
        assert_eq!(shell(&stage, "bound", &connect_to(stage.port)).await, "connected");
        assert_eq!(shell(&stage, "bound", &connect_to(port(&closed))).await, "Permission denied");
        assert_eq!(shell(&stage, "bound", &to_abstract).await, "Operation not permitted");
        stage.stop("bound").await;
        stage.event("provider_stopped").await;
        stage.linked("free").await;
        assert_eq!(shell(&stage, "free", &connect_to(port(&closed))).await, "connected");
    });
}

#[test]
fn what_the_operator_switches_off_is_off_and_shown() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_CONFINEMENT", "off")]).await;
        stage.linked("loose").await;
        let said = shell(&stage, "loose", &call(libc::SYS_mmap, "0, 4096, 7, 34, -1, 0")).await;
        assert_eq!(said.trim(), "done");
        let detail = stage.host().status().providers[0].detail.clone();
        assert!(detail.contains("all files of its user") && detail.contains("TCP to anywhere"), "{detail}");
        assert!(!detail.contains("filtered") && !detail.contains("cannot confine"), "{detail}");
    });
}

#[test]
fn where_nothing_may_be_missing_a_provider_runs_with_all_of_it() {
    block_on(async {
        let rules = format!("{}:jit=on", provider::key("compiler"));
        let settings = [("WASMCLOUD_PROVIDER_CONFINEMENT", "required"), ("WASMCLOUD_PROVIDER_RULES", &*rules)];
        let mut stage = Stage::start(&settings).await;
        stage.linked("compiler").await;
        let said = shell(&stage, "compiler", &call(libc::SYS_mmap, "0, 4096, 7, 34, -1, 0")).await;
        assert_eq!(said.trim(), "done");
        let detail = stage.host().status().providers[0].detail.clone();
        assert!(detail.contains("system calls filtered") && !detail.contains("no writable code"), "{detail}");
    });
}

/// A host that runs as root, as in many containers.
#[test]
fn a_provider_of_root_has_no_power_of_root_but_to_listen_on_low_ports() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.linked("rooted").await;
        let said =
            shell(&stage, "rooted", "grep -E '^Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f 2 | sort -u").await;
        assert_eq!(said, "0000000000000000\n0000000000000400\n");
        assert_eq!(stage.increment("rooted").await, Ok(1));
    });
}

#[test]
fn a_rule_gives_a_provider_a_user_of_its_own() {
    const USER: u32 = 61_234;
    block_on(async {
        let rules = format!("{}:user={USER}", provider::key("apart"));
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RULES", &rules)]).await;
        stage.linked("beside").await;
        assert_eq!(shell(&stage, "beside", "id -u; id -g").await, "0\n0\n");

        // A folder of the operator that nobody else may pass through: said, and not changed.
        let mode = |mode| std::fs::set_permissions(stage.sandbox.path(""), std::fs::Permissions::from_mode(mode));
        mode(0o700).expect("it is ours");
        stage.put_link("apart", json!({})).await;
        stage.launch("apart", json!({})).await;
        let refused = format!("user {USER} of this provider cannot pass through");
        eventually("it is refused", || stage.host().output().contains(&refused));
        mode(0o711).expect("it is ours");
        stage.stop("apart").await;
        stage.launch("apart", json!({})).await;
        stage.place_where("apart", |place| place["link"].is_object()).await;
        assert_eq!(shell(&stage, "apart", "id -u; id -g; id -G").await, format!("{USER}\n{USER}\n{USER}\n"));
        assert_eq!(shell(&stage, "apart", "touch mine && stat -c %u mine").await, format!("{USER}\n"));
        let capabilities = shell(&stage, "apart", "grep -E '^CapEff' /proc/self/status | cut -f 2").await;
        assert_eq!(capabilities, "0000000000000000\n");
        let providers = stage.host().status().providers;
        assert!(providers.iter().any(|one| one.detail.contains(&format!("user {USER}"))), "{providers:?}");
        assert_eq!(stage.increment("apart").await, Ok(1));
    });
}

/// Runs `script` as a provider on a kernel that has `layers` only.
fn on_an_older_kernel(layers: &Value, protected: &[u32], script: &str) -> String {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let task = json!({
        "confinement": { "memory_bytes": 0, "files": 0, "processes": 0, "disk_bytes": 0, "disk_files": 0, "mode": "best", "landlock": true,
            "seccomp": true, "jit": false, "connect": "anywhere", "read": [], "write": [] },
        "supervisor": std::process::id(), "directory": folder.path(), "cgroup": null, "layers": layers,
        "protected": protected,
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .args(["__confine", &task.to_string(), "/bin/sh"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    child.stdin.take().expect("it is piped").write_all(script.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("sleep is installed")
}

/// Where Landlock cannot keep signals in, the filter names whom it protects; where the kernel has no switch against writable
/// code, the filter sees to that too.
#[test]
fn without_the_newest_landlock_the_filter_protects_the_host() {
    let layers = json!({ "files": false, "tcp": false, "scopes": false, "syscalls": true, "code_by_switch": false,
        "code_by_filter": true });
    let mut host = sleeper();
    let id = host.id();
    let commands: Vec<(&str, String)> = vec![
        ("stop", format!("kill -STOP {id}")),
        ("kill", format!("kill -KILL {id}")),
        ("group", format!("kill -KILL -- -{id}")),
        ("everybody", "kill -CONT -- -1".into()),
        ("supervisor", format!("kill -CONT {}", std::process::id())),
        ("limits", format!("prlimit --pid {id} --cpu=1:1")),
    ];
    let script: String = commands.iter().map(attempt).collect();
    let mapped = call(libc::SYS_mmap, "0, 4096, 7, 34, -1, 0");
    let by_descriptor = call(libc::SYS_pidfd_open, &format!("{id}, 0"));
    let own = "sleep 1000 & kill $! && echo OWN";
    let said = on_an_older_kernel(&layers, &[id], &format!("{script}{mapped}\n{by_descriptor}\n{own}\n"));
    assert_eq!(said, "1\n1\nOWN\n");
    assert!(lives(u64::from(id)));
    assert_ne!(state_and_niceness(id).0, "T");
    host.kill().expect("it is ours");
    host.wait().expect("it is ours");
}
