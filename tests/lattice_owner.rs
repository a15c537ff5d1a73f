//! Whose NATS server a host joins: a server that somebody named; else, and only where a person started the host, the one on
//! this machine that belongs to root or to the same user.
//!
//! Needs root, for servers of other users, and nothing that listens on NATS's usual port: each test has its own network.

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use latticed::{
    host::UplinkStatus,
    nats::{LocalServer, Owners},
    task,
};
use rustix::{process::Uid, thread::set_thread_res_uid};
use support::{
    host::{Host, Sandbox},
    namespace::in_a_network_of_its_own,
    nats::eventually,
};

/// NATS's own port, which is meant where nobody names another.
const PORT: u16 = 4222;
const MONITOR: u16 = 8222;

/// Users without rights: somebody, and the one the hosts of `Sandbox::of_nobody` run as.
const STRANGER: u32 = 4711;
const NOBODY: u32 = 65_534;

/// A NATS server of one user, ended with the test.
struct Server {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    fn of(user: u32, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let configuration = format!(
            "listen: \"0.0.0.0:{PORT}\"\nhttp: \"127.0.0.1:{MONITOR}\"\njetstream {{ store_dir: \"{}\" }}\n{more}",
            folder.path().join("js").display()
        );
        std::fs::write(folder.path().join("nats.conf"), configuration).expect("the temporary folder is writable");
        chown(folder.path(), Some(user), Some(user)).expect("these tests need root: they run servers of other users");
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(folder.path().join("nats.conf"))
            .uid(user)
            .gid(user)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server must be installed for these tests (Debian: apt-get install nats-server)");
        eventually("the NATS server answers", || TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).is_ok());
        Self { child, _folder: folder }
    }

    /// How many connections it has now whose client gave the name of this program.
    fn clients(&self) -> usize {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, MONITOR)).expect("the monitor answers");
        stream.write_all(b"GET /connz HTTP/1.0\r\n\r\n").expect("the monitor listens");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the monitor answers in text");
        assert!(text.contains("num_connections"), "{text}");
        text.matches("\"name\": \"latticed").count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host to which no server is named, and which may join any. Its attempts come quickly.
fn unnamed(sandbox: &Sandbox, more: &[(&str, &str)]) -> Host {
    let mut settings = vec![
        ("WASMCLOUD_JOIN", "any"),
        ("WASMCLOUD_DUMPABLE", "false"),
        ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "100"),
        ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "300"),
    ];
    settings.extend_from_slice(more);
    sandbox.run_again(&settings)
}

fn refuses(host: &Host, server: &Server, user: u32) {
    let why = format!("it belongs to the user with id {user}");
    eventually("the stranger's server is refused", || {
        uplink(host).is_some_and(|uplink| !uplink.connected && uplink.reason.contains(&why))
    });
    let before = uplink(host).expect("it looks for a lattice");
    assert!(before.reason.contains("set NATS_HOST=127.0.0.1"), "{}", before.reason);
    eventually("it goes on looking", || uplink(host).is_some_and(|uplink| uplink.attempts > before.attempts + 2));
    assert_eq!(server.clients(), 0, "nothing was said to it");
}

/// How it stands; nothing while the host cannot be asked yet.
fn uplink(host: &Host) -> Option<UplinkStatus> {
    task::block_on(host.client().status()).ok()?.uplink
}

fn is_connected(host: &Host) -> bool {
    uplink(host).is_some_and(|uplink| uplink.connected)
}

#[test]
fn a_strangers_server_is_never_joined_and_roots_is() {
    if !in_a_network_of_its_own("a_strangers_server_is_never_joined_and_roots_is") {
        return;
    }
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let stranger = Server::of(STRANGER, "");
    let mut host = unnamed(&sandbox, &[]);
    refuses(&host, &stranger, STRANGER);
    host.wait_for("nobody named the NATS server at 127.0.0.1:4222, and it belongs to the user with id 4711");

    // The commands that speak to a lattice without a host refuse it too.
    let listed = sandbox.command(&["hosts", "--wait-ms", "500"]).env("WASMCLOUD_JOIN", "any").output();
    let listed = listed.expect("the program starts");
    let text = String::from_utf8_lossy(&listed.stderr).into_owned();
    assert!(!listed.status.success() && text.contains("user with id 4711"), "{:?} {text}", listed.status);
    drop(stranger);

    let right = Server::of(0, "");
    eventually("root's server is joined", || is_connected(&host));
    host.wait_for("which nobody named and which belongs to root");
    drop(right);

    // It is checked for each connection, not once.
    let stranger = Server::of(STRANGER, "");
    refuses(&host, &stranger, STRANGER);
}

/// As users run it, and not to be looked into by others of the same user.
#[test]
fn the_users_own_server_is_joined_by_a_host_but_not_by_a_service() {
    if !in_a_network_of_its_own("the_users_own_server_is_joined_by_a_host_but_not_by_a_service") {
        return;
    }
    let sandbox = Sandbox::of_nobody(env!("CARGO_BIN_EXE_latticed"));
    let own = Server::of(NOBODY, "");
    let mut host = unnamed(&sandbox, &[]);
    host.wait_for("which nobody named and which belongs to the user of this host");
    drop(own);
    let stranger = Server::of(STRANGER, "");
    refuses(&host, &stranger, STRANGER);
    drop((host, stranger));

    // Providers of a service are of the same user as the service.
    let own = Server::of(NOBODY, "");
    let socket = sandbox.path("notify").display().to_string();
    let service = unnamed(&sandbox, &[("NOTIFY_SOCKET", &socket)]);
    refuses(&service, &own, NOBODY);
}

#[test]
fn a_service_looks_for_no_server_that_nobody_named() {
    if !in_a_network_of_its_own("a_service_looks_for_no_server_that_nobody_named") {
        return;
    }
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let server = Server::of(0, "");
    // An empty value sets nothing: the default holds.
    let socket = sandbox.path("notify").display().to_string();
    let service = sandbox.run_again(&[("WASMCLOUD_JOIN", ""), ("NOTIFY_SOCKET", &socket)]);
    eventually("it runs", || task::block_on(service.client().status()).is_ok());
    assert_eq!(service.status().uplink, None);
    drop(service);
    let named = [("WASMCLOUD_JOIN", ""), ("NOTIFY_SOCKET", &*socket), ("NATS_HOST", "127.0.0.1")];
    let service = sandbox.run_again(&named);
    eventually("it joins the server that is named", || is_connected(&service));
    drop(server);
}

/// A stranger accepts a connection while the right server is away, gives the port back to it, and goes on.
#[test]
fn who_holds_the_connection_counts_not_who_listens_now() {
    let (told, tells) = mpsc::channel();
    let (go, goes) = mpsc::channel::<()>();
    let stranger = thread::spawn(move || {
        let id = Uid::from_raw(STRANGER);
        set_thread_res_uid(id, id, id).expect("these tests need root: they act as other users");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        told.send(listener.local_addr().expect("it listens")).expect("the test waits");
        let (connection, _) = listener.accept().expect("the test connects");
        drop(listener);
        told.send(connection.local_addr().expect("it is connected")).expect("the test waits");
        // The connection stays while the test looks at it.
        goes.recv().expect("the test ends it");
    });
    let address: SocketAddr = tells.recv().expect("the stranger listens");
    let server = LocalServer { address, owners: Owners::RootOrSelf };
    let refused = server.check_listener().expect_err("a stranger listens");
    assert!(refused.contains("it belongs to the user with id 4711"), "{refused}");
    let _connection = TcpStream::connect(address).expect("the stranger listens");
    tells.recv().expect("the stranger accepted it");
    let _right = TcpListener::bind(address).expect("the port is free again");
    assert_eq!(server.check_listener(), Ok(()));
    let refused = server.check_connections().expect_err("a stranger holds the other end");
    assert!(refused.contains("it belongs to the user with id 4711"), "{refused}");
    go.send(()).expect("the stranger waits");
    stranger.join().expect("the stranger ends");
}

/// On another machine anybody who reaches a server without login and TLS commands the hosts behind it.
#[test]
fn an_open_server_beyond_this_machine_is_warned_of() {
    if !in_a_network_of_its_own("an_open_server_beyond_this_machine_is_warned_of") {
        return;
    }
    const ELSEWHERE: &str = "10.9.9.9";
    let added = Command::new("ip").args(["addr", "add", &format!("{ELSEWHERE}/32"), "dev", "lo"]).status();
    assert!(added.expect("ip is installed (Debian: iproute2)").success());
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let login = "authorization { user: board, password: swordfish }\n";
    let credentials = [("WASMCLOUD_RPC_USER", "board"), ("WASMCLOUD_RPC_PASSWORD", "swordfish")];
    let credentials =
        [credentials, [("WASMCLOUD_CTL_USER", "board"), ("WASMCLOUD_CTL_PASSWORD", "swordfish")]].concat();
    for (address, more, settings, warned) in
        [(ELSEWHERE, "", &[][..], true), ("127.0.0.1", "", &[][..], false), (ELSEWHERE, login, &credentials[..], false)]
    {
        let server = Server::of(0, more);
        let host = sandbox.run_again(&[&[("NATS_HOST", address)], settings].concat());
        eventually("it is connected", || is_connected(&host));
        let problem = "asks for no login and the line to it has no TLS";
        if warned {
            eventually("it is logged", || host.output().contains(problem));
        }
        let problems = host.status().problems;
        assert_eq!(problems.iter().any(|text| text.contains(problem)), warned, "{address}: {problems:?}");
        let (_, output) = host.terminate();
        assert_eq!(output.matches(problem).count(), usize::from(warned), "{address}: {output}");
        drop(server);
    }
}
