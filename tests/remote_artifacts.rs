//! What commands of the lattice can make a host fetch and run: nothing from its own machine or network, no answer tells what is
//! there, and nothing of another issuer in the place of what runs.

mod support;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use latticed::{
    claims::{KeyPair, Role, builtin_provider_key},
    store::Digest,
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use support::{
    guests,
    host::Sandbox,
    http::free_address,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually, joined},
};

/// What the service answers that nobody from afar may learn anything about.
const SECRET: &[u8] = b"credentials of the instance: swordfish";

/// A service on this machine that gives what it is told to, and counts who comes.
struct Service {
    address: SocketAddr,
    came: Arc<AtomicUsize>,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Service {
    fn new(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let (came, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(answer)));
        let (counted, given) = (came.clone(), answer.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(mut client) = client else { continue };
                counted.fetch_add(1, SeqCst);
                let answer = given.lock().expect("no panic holds it").clone();
                // Whoever does not like the answer hangs up.
                let _ = client.read(&mut [0; 4096]);
                let _ = client.write_all(&answer);
            }
        });
        Self { address, came, answer }
    }

    fn giving(body: &[u8]) -> Self {
        Self::new(answer_of(body))
    }

    fn gives(&self, answer: Vec<u8>) {
        *self.answer.lock().expect("no panic holds it") = answer;
    }

    fn came(&self) -> usize {
        self.came.load(SeqCst)
    }
}

fn answer_of(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn blobs(state: &Path) -> usize {
    std::fs::read_dir(state.join("blobs")).into_iter().flatten().count()
}

/// Nothing of it tells what was there, beyond the reference, which who asked knows.
fn assert_says_nothing(text: &str, reference: &str, of: &[u8]) {
    let text = text.replace(reference, "REF");
    let digest = Digest::of(of).to_string();
    for told in [&digest, &of.len().to_string(), "onnection refused", "swordfish", "SHA", "status"] {
        assert!(!text.contains(told), "{told:?} was told: {text}");
    }
}

#[test]
fn a_command_reaches_no_address_of_this_machine_and_learns_nothing() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let service = Service::giving(SECRET);
        let board = joined(&sandbox, server.port(), &[]);
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;
        let (port, digest) = (service.address.port(), Digest::of(SECRET));
        let closed = free_address().port();
        let mut told = Vec::new();
        for place in [
            format!("127.0.0.1:{port}"),
            format!("localhost:{port}"),
            format!("127.1:{port}"),
            format!("127.0.0.1:{closed}"),
        ] {
            for reference in [
                format!("http://{place}/latest/meta-data#sha256={}", "00".repeat(32)),
                format!("http://{place}/latest/meta-data#sha256={digest}"),
                format!("https://{place}/latest/meta-data#sha256={digest}"),
                format!("{place}/some/image:1"),
            ] {
                let ack = client.scale_actor(&id, &reference, Some(1), None).await.expect("an answer");
                assert!(!ack.accepted, "{reference}");
                assert_says_nothing(&ack.error, &reference, SECRET);
                told.push(ack.error.replace(&reference, "REF"));
                let ack = client.start_provider(&id, &reference, None, None, None).await.expect("an answer");
                assert!(!ack.accepted, "{reference}");
                told.push(ack.error.replace(&reference, "REF"));
            }
        }
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 1, "what is there and what is not are told apart: {told:?}");
        assert_eq!(service.came(), 0, "the host asked an address of its own machine");
        assert_eq!(blobs(&sandbox.path("state")), 0);
        let log = board.output();
        assert!(log.contains("WASMCLOUD_REMOTE_FETCH_ALLOW"), "the operator is not told what to set: {log}");
    });
}

#[test]
fn what_the_setting_opens_leads_nowhere_else_and_refused_bytes_are_gone() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let (inside, open) = (Service::giving(SECRET), Service::giving(SECRET));
        let mirror = free_address();
        let (allowed, listen) = (open.address.to_string(), mirror.to_string());
        let settings = [("WASMCLOUD_REMOTE_FETCH_ALLOW", &*allowed), ("WASMCLOUD_MIRROR_LISTEN", &*listen)];
        let board = joined(&sandbox, server.port(), &settings);
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;
        let digest = Digest::of(SECRET);

        // By a redirect.
        open.gives(
            format!(
                "HTTP/1.1 302 Found\r\nLocation: http://{}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                inside.address
            )
            .into_bytes(),
        );
        let reference = |digest: &str| format!("http://{allowed}/a.wasm#sha256={digest}");
        let ack = client.scale_actor(&id, &reference(&digest.to_string()), Some(1), None).await.expect("an answer");
        assert!(!ack.accepted);
        assert_says_nothing(&ack.error, &reference(&digest.to_string()), SECRET);
        assert_eq!((open.came(), inside.came()), (1, 0));

        // Another digest than the one that was named, and the right one of what is no module and no archive.
        open.gives(answer_of(SECRET));
        let wrong = "ab".repeat(32);
        let ack = client.scale_actor(&id, &reference(&wrong), Some(1), None).await.expect("an answer");
        assert!(!ack.accepted);
        assert_says_nothing(&ack.error, &reference(&wrong), SECRET);
        let right = reference(&digest.to_string());
        let ack = client.scale_actor(&id, &right, Some(1), None).await.expect("an answer");
        assert!(!ack.accepted && !ack.error.contains("swordfish"), "{}", ack.error);
        let ack = client.start_provider(&id, &right, None, None, None).await.expect("an answer");
        assert!(!ack.accepted && !ack.error.contains("swordfish"), "{}", ack.error);
        assert_eq!(blobs(&sandbox.path("state")), 0, "refused bytes stay in the store");
        assert_eq!(status_of(mirror, digest), "404");

        // What is good is taken.
        let module = std::fs::read(guests::module_path("echo")).expect("the guest is built");
        open.gives(answer_of(&module));
        let good = reference(&Digest::of(&module).to_string());
        let ack = client.scale_actor(&id, &good, Some(1), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor runs", || board.status().actors.len() == 1);
        assert_eq!(status_of(mirror, Digest::of(&module)), "200", "what was accepted is for other boards");
    });
}

/// What is fetched on somebody's word lies in the store while it is checked. Whoever asks the mirror for it at that
/// moment must not get it either, so it is a big module whose check takes long, and that is refused.
#[test]
fn the_mirror_gives_nothing_that_is_being_checked() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let body = slowly_refused();
        let (open, mirror, digest) = (Service::giving(&body), free_address(), Digest::of(&body));
        let (allowed, listen) = (open.address.to_string(), mirror.to_string());
        let settings = [("WASMCLOUD_REMOTE_FETCH_ALLOW", &*allowed), ("WASMCLOUD_MIRROR_LISTEN", &*listen)];
        let board = joined(&sandbox, server.port(), &settings);
        let client = control_client(&nats::connect(&server).await).await;
        let id = board.status().host_id;
        let blob = sandbox.path("state").join("blobs").join(digest.to_string());
        let ended = Arc::new(AtomicBool::new(false));
        let met = Arc::new(AtomicUsize::new(0));
        let (until, there, meeting) = (ended.clone(), blob.clone(), met.clone());
        let asking = thread::spawn(move || {
            let mut statuses = BTreeSet::new();
            while !until.load(SeqCst) {
                let before = there.exists();
                statuses.insert(status_of(mirror, digest));
                meeting.fetch_add(usize::from(before && there.exists()), SeqCst);
            }
            statuses
        });
        let end = Instant::now() + PATIENCE;
        while met.load(SeqCst) < 3 {
            assert!(Instant::now() < end, "the mirror was never asked while the store held it: {}", board.output());
            let reference = format!("http://{allowed}/a.wasm#sha256={digest}");
            let ack = client.scale_actor(&id, &reference, Some(1), None).await.expect("an answer");
            assert!(!ack.accepted, "it was to be refused");
        }
        ended.store(true, SeqCst);
        let statuses = asking.join().expect("it asks to the end");
        assert_eq!(statuses, BTreeSet::from(["404".to_owned()]));
        assert!(!blob.exists(), "refused bytes stay in the store");
    });
}

/// A module with a signature of its own that does not fit: its hash is taken over all of it before it is refused.
fn slowly_refused() -> Vec<u8> {
    let mut module = std::fs::read(guests::module_path("echo")).expect("the guest is built");
    // A section that means nothing, in a place where the hash covers it: so the hash is another than the one signed.
    let padding = vec![0; 7 << 20];
    let mut section = vec![0];
    let mut length = padding.len() + 2;
    while length >= 0x80 {
        section.push((length as u8 & 0x7f) | 0x80);
        length >>= 7;
    }
    section.push(length as u8);
    section.extend([1, b'x']);
    section.extend(padding);
    module.splice(8..8, section);
    module
}

/// The status with which the mirror answers whoever wants `digest`.
fn status_of(mirror: SocketAddr, digest: Digest) -> String {
    let mut stream = TcpStream::connect(mirror).expect("the mirror serves");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out can be set");
    let request = format!("HEAD /sha256:{digest} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.split(' ').nth(1).expect("a status line").to_owned()
}

#[test]
fn a_manifest_of_the_board_may_name_any_address() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let module = std::fs::read(guests::module_path("echo")).expect("the guest is built");
    let service = Service::giving(&module);
    let mut manifest = Manifest::new("echo");
    let reference = format!("http://{}/echo.wasm#sha256={}", service.address, Digest::of(&module));
    manifest.actor_from("echo", &reference, 1);
    let manifest = sandbox.write("echo.yaml", manifest.text());
    let board = sandbox.run(&manifest, &[]);
    eventually("the actor runs", || sandbox.path("latticed/admin.sock").exists() && board.status().actors.len() == 1);
}

/// The echo guest as revision 2, signed by an account that has nothing to do with the first revision.
fn foreign(sandbox: &Sandbox) -> (String, String) {
    let account = KeyPair::from_name(Role::Account, "stranger");
    let wasm = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
    let signed = guests::sign_as(&account, "echo", &[HTTP_SERVER], &wasm, 2).expect("it can be signed");
    let path = sandbox.write("foreign.wasm", signed);
    (format!("file://{}", path.display()), account.public_key().to_string())
}

#[test]
fn another_issuer_takes_neither_the_place_nor_the_links_of_an_actor() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let (other, stranger) = foreign(&sandbox);
        let own = format!("file://{}", guests::module_path("echo").display());
        let (key, account) = (guests::key("echo"), guests::account().public_key().to_string());
        let board = joined(&sandbox, server.port(), &[]);
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;
        let running = |board: &support::host::Host| board.status().actors.first().map(|actor| actor.revision);
        let ack = client.scale_actor(&id, &own, Some(1), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor runs", || running(&board) == Some(1));
        let refused = |ack: ctl_client_030::CtlOperationAck| {
            let named = ack.error.contains(&stranger) && ack.error.contains(&account);
            assert!(!ack.accepted && named, "both issuers are named: {}", ack.error);
        };
        refused(client.update_actor(&id, &key, &other, None).await.expect("an answer"));
        assert_eq!(running(&board), Some(1));

        // Stopped, but its link is here still: it is not for somebody else. Nor after a new start of the host.
        let provider = builtin_provider_key("keyvalue").to_string();
        client
            .advertise_link(&key, &provider, KEY_VALUE, "default", std::collections::HashMap::new())
            .await
            .expect("an answer");
        eventually("the link is known", || !board.status().links.is_empty());
        let ack = client.stop_actor(&id, &key, None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor has stopped", || running(&board).is_none());
        refused(client.scale_actor(&id, &other, Some(1), None).await.expect("an answer"));
        board.kill();
        let board = joined(&sandbox, server.port(), &[]);
        refused(client.scale_actor(&id, &other, Some(1), None).await.expect("an answer"));

        // The operator names who may: by the setting.
        let ack = client.scale_actor(&id, &own, Some(1), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        board.kill();
        let board = joined(&sandbox, server.port(), &[("WASMCLOUD_UPDATE_ISSUERS", &stranger)]);
        eventually("the actor runs again", || running(&board) == Some(1));
        let ack = client.update_actor(&id, &key, &other, None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the named issuer's revision runs", || running(&board) == Some(2));
    });
}

#[test]
fn an_update_names_the_actor_it_is_for() {
    block_on(async {
        let (sandbox, server) = (Sandbox::new(env!("CARGO_BIN_EXE_latticed")), NatsServer::start());
        let board = joined(&sandbox, server.port(), &[]);
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let id = board.status().host_id;
        let wasm = std::fs::read(guests::module_path("echo_small")).expect("the guest is built");
        let newer = guests::sign_revision("echo", &[HTTP_SERVER], &wasm, 2).expect("it can be signed");
        let newer = format!("file://{}", sandbox.write("newer.wasm", newer).display());
        for guest in ["echo", "counter"] {
            let reference = format!("file://{}", guests::module_path(guest).display());
            let ack = client.scale_actor(&id, &reference, Some(1), None).await.expect("an answer");
            assert!(ack.accepted, "{}", ack.error);
        }
        eventually("both run", || board.status().actors.len() == 2);
        let ack = client.update_actor(&id, &guests::key("counter"), &newer, None).await.expect("an answer");
        let named = [guests::key("counter"), guests::key("echo")].iter().all(|key| ack.error.contains(key));
        assert!(!ack.accepted && named, "both actors are named: {}", ack.error);
        assert!(board.status().actors.iter().all(|actor| actor.revision == 1), "the other actor was updated");
    });
}

#[test]
fn a_manifest_says_whose_its_parts_must_be() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let (reference, stranger) = foreign(&sandbox);
    let account = guests::account().public_key().to_string();
    let running = |issuer: &str| {
        let mut manifest = Manifest::new("echo");
        manifest.actor_of("echo", &reference, issuer, 1);
        sandbox.run(&sandbox.write("echo.yaml", manifest.text()), &[])
    };
    let mut board = running(&account);
    board.wait_for(&format!("it is signed by {stranger}, its `issuer` must be {account}"));
    board.kill();
    let board = running(&stranger);
    eventually("the actor runs", || sandbox.path("latticed/admin.sock").exists() && board.status().actors.len() == 1);
}
