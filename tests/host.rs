//! The whole host in one process, on a real disk and real sockets: applications, links, calls, restarts.

mod support;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use latticed::{
    actor::{self, Engine},
    artifact::Requester,
    claims::{self, Now},
    error::Kind,
    host::{
        Application, Control, Host, Policy, Readiness,
        application::{ActorComponent, LinkComponent, ProviderComponent},
        core::Clock,
        health::{self, Patient},
    },
    store::{Digest, RealDisk},
    task,
    wire::{
        LinkDefinition,
        interface::{HTTP_SERVER, KEY_VALUE},
    },
};
use support::{guests, in_process};

async fn host(directory: &Path) -> Arc<Host> {
    let engine = Engine::new(actor::Settings::default()).expect("default limits are good");
    in_process::start(Arc::new(RealDisk::new(directory)), &engine).await.expect("the host starts")
}

fn echo_behind_http() -> Application {
    Application {
        name: "echo".into(),
        version: "v1".into(),
        actors: vec![ActorComponent {
            name: "echo".into(),
            reference: format!("file://{}", guests::module_path("echo").display()),
            max_concurrent: 2,
            issuers: Vec::new(),
            links: vec![LinkComponent {
                target: "web".into(),
                values: BTreeMap::from([("address".to_owned(), "127.0.0.1:0".to_owned())]),
            }],
        }],
        providers: vec![ProviderComponent {
            name: "web".into(),
            reference: "builtin:httpserver".into(),
            contract_id: HTTP_SERVER.into(),
            link_name: "default".into(),
            configuration: None,
            issuers: Vec::new(),
        }],
    }
}

fn get(url: &str) -> String {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("the listener answers");
    write!(stream, "GET /hello?x=1 HTTP/1.1\r\nHost: board\r\nConnection: close\r\n\r\n")
        .expect("the request goes out");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}

#[test]
fn an_application_answers_and_answers_again_after_a_restart_without_being_asked_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    task::block_on(async {
        let first = host(directory.path()).await;
        in_process::beside(&first, async {
            first.apply(echo_behind_http()).await.expect("the application is taken");
            assert_eq!(first.settle().await, Vec::<String>::new());
            let status = first.status();
            assert_eq!((status.actors.len(), status.providers.len(), status.links.len()), (1, 1, 1));
            let url = status.providers[0].detail.clone();
            let answer = smol::unblock(move || get(&url)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
            assert!(answer.contains("/hello"), "unexpected answer: {answer}");
        })
        .await;
        assert_eq!(first.status().actors, [], "a drained host runs nothing");
        drop(first);

        let second = host(directory.path()).await;
        in_process::beside(&second, async {
            assert_eq!(second.settle().await, Vec::<String>::new());
            let url = second.status().providers[0].detail.clone();
            let answer = smol::unblock(move || get(&url)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
        })
        .await;
    });
}

/// A clock that a test sets: seconds since 1970.
#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl Clock for TestClock {
    fn now(&self) -> Now {
        Now::Trusted(self.0.load(SeqCst))
    }
}

/// What was admitted runs until it is replaced: while its claims expire, after a restart, when its manifest is given again,
/// and whatever the clock says meanwhile. A host that did not admit it refuses it.
#[test]
fn claims_that_expire_stop_nothing_that_was_admitted_before_or_after_a_restart() {
    const ISSUED: u64 = 1_800_000_000;
    const ENDS: u64 = ISSUED + 3600;
    let folder = tempfile::tempdir().expect("a temporary directory");
    let guest = std::fs::read(guests::module_path("echo")).expect("the guest is built");
    let signed = claims::module::extract(&guest).expect("it is a module").expect("it is signed");
    let mut token = signed.token.claims().clone();
    (token.iat, token.exp) = (ISSUED, Some(ENDS));
    let (module, _) = claims::module::sign(&guest, token, &guests::account()).expect("a guest can be signed");
    let path = folder.path().join("expiring.wasm");
    std::fs::write(&path, module).expect("the temporary folder is writable");
    let mut application = echo_behind_http();
    application.actors[0].reference = format!("file://{}", path.display());

    let clock = TestClock(Arc::new(AtomicU64::new(ISSUED)));
    let engine = Engine::new(actor::Settings::default()).expect("default limits are good");
    let start = |name: &str| {
        let disk = Arc::new(RealDisk::new(folder.path().join(name)));
        let (engine, clock) = (engine.clone(), clock.clone());
        async move { in_process::start_at(disk, &engine, Box::new(clock)).await.expect("the host starts") }
    };
    async fn answers(host: &Host) {
        let url = host.status().providers[0].detail.clone();
        let answer = smol::unblock(move || get(&url)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
    }
    let expired = |host: &Host| host.status().problems.iter().filter(|text| text.contains("expired")).count();
    task::block_on(async {
        let first = start("state").await;
        in_process::beside(&first, async {
            first.apply(application.clone()).await.expect("the application is taken");
            assert_eq!(first.settle().await, Vec::<String>::new());
            assert_eq!(expired(&first), 0);
            clock.0.store(ENDS + 1, SeqCst);
            answers(&first).await;
            assert_eq!(expired(&first), 1);
        })
        .await;
        drop(first);

        let second = start("state").await;
        in_process::beside(&second, async {
            assert_eq!(second.settle().await, Vec::<String>::new());
            answers(&second).await;
            assert_eq!(expired(&second), 1, "{:?}", second.status().problems);
            second.apply(application.clone()).await.expect("its manifest is taken again");
            assert_eq!(second.settle().await, Vec::<String>::new());
            answers(&second).await;
            clock.0.store(ISSUED, SeqCst);
            assert_eq!(expired(&second), 0);
            answers(&second).await;
            clock.0.store(ENDS + 1, SeqCst);
        })
        .await;
        drop(second);

        let stranger = start("another state").await;
        in_process::beside(&stranger, async {
            let refused = stranger.apply(application.clone()).await.expect_err("it did not admit that before");
            assert!(refused.text().contains("expired"), "{refused}");
        })
        .await;
    });
}

#[test]
fn an_application_that_contradicts_itself_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    task::block_on(async {
        let host = host(directory.path()).await;
        in_process::beside(&host, async {
            host.apply(echo_behind_http()).await.expect("the application is taken");
            let before = host.desired();
            let mut twice = echo_behind_http();
            twice.actors.push(ActorComponent { name: "again".into(), ..twice.actors[0].clone() });
            let refused = host.apply(twice).await.expect_err("one actor, two components");
            assert!(refused.text().contains("again"), "unexpected text: {refused}");
            let mut astray = echo_behind_http();
            astray.actors[0].links[0].target = "nowhere".into();
            let refused = host.apply(astray).await.expect_err("no such component");
            assert!(refused.text().contains("nowhere"), "unexpected text: {refused}");
            let mut foreign = Application { name: "other".into(), ..echo_behind_http() };
            foreign.actors[0].links[0].values.insert("port".into(), "1".into());
            let refused = host.apply(foreign).await.expect_err("the link is another application's");
            assert!(refused.text().contains("the application echo"), "unexpected text: {refused}");
            assert_eq!(host.desired(), before);
        })
        .await;
    });
}

#[test]
fn an_actor_ended_for_bad_health_waits_for_a_command_about_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    task::block_on(async {
        let host = host(directory.path()).await;
        host.health().configure(health::Settings { failures: 1, restarts: 0, ..health::Settings::default() });
        let (readiness, patient) = (Readiness::default(), Patient::Actor(guests::key("echo")));
        in_process::beside(&host, async {
            host.apply(echo_behind_http()).await.expect("the application is taken");
            host.settle().await;
            let lacks = || readiness.lacks(&host, Policy::Local);
            assert_eq!(lacks(), []);
            let runs = || host.status().actors.len();

            host.report_health(&patient, Err("too dry".into()));
            host.settle().await;
            assert_eq!((runs(), lacks()), (0, Vec::new()), "nobody expects it to run");
            let problems = host.status().problems;
            assert!(problems.iter().any(|problem| problem.contains("too dry")), "{problems:?}");

            let other = LinkDefinition {
                id: "other".into(),
                actor_id: guests::key("counter"),
                provider_id: "VX".into(),
                contract_id: "wasmcloud:keyvalue".into(),
                ..LinkDefinition::default()
            };
            host.change(|desired| desired.put_link(other)).await.expect("a link of others");
            host.reconsider();
            host.settle().await;
            assert_eq!(runs(), 0, "a command about something else");

            host.apply(echo_behind_http()).await.expect("the application is taken again");
            host.settle().await;
            assert_eq!((runs(), host.status().problems), (1, Vec::new()));
        })
        .await;
    });
}

#[test]
fn a_link_that_the_claims_do_not_name_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    task::block_on(async {
        let host = host(directory.path()).await;
        in_process::beside(&host, async {
            let mut application = echo_behind_http();
            application.providers[0].reference = "builtin:keyvalue".into();
            application.providers[0].contract_id = KEY_VALUE.into();
            application.actors[0].links[0].values.clear();
            host.apply(application).await.expect("the application is taken");
            host.settle().await;
            let problems = host.status().problems;
            assert!(problems.len() == 1 && problems[0].contains("--cap wasmcloud:keyvalue"), "{problems:?}");
            assert_eq!(Readiness::default().lacks(&host, Policy::Local), [], "everything asked for runs");
        })
        .await;
    });
}

#[test]
fn a_module_whose_file_is_gone_starts_from_the_kept_copy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let module = directory.path().join("echo.wasm");
    std::fs::copy(guests::module_path("echo"), &module).expect("the guest is built");
    let mut application = echo_behind_http();
    application.actors[0].reference = format!("file://{}", module.display());
    task::block_on(async {
        let host = host(&directory.path().join("state")).await;
        in_process::beside(&host, async {
            host.apply(application.clone()).await.expect("the application is taken");
            std::fs::remove_file(&module).expect("it was there");
            host.apply(application.clone()).await.expect("the copy in the store is used");
            assert_eq!(host.settle().await, Vec::<String>::new());
            assert_eq!(host.status().actors.len(), 1);
            application.actors[0].reference = "file:///nowhere/echo.wasm".into();
            let refused = host.apply(application).await.expect_err("never seen");
            assert!(refused.text().contains("/nowhere/echo.wasm"), "unexpected text: {refused}");
        })
        .await;
    });
}

/// Gives `body` to one client after the other, `times` times, then goes away; its address.
fn serve(body: Vec<u8>, times: usize) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let place = listener.local_addr().expect("a bound listener has an address");
    let server = thread::spawn(move || {
        for _ in 0..times {
            let (mut stream, _) = listener.accept().expect("a client comes");
            let mut lines = BufReader::new(stream.try_clone().expect("a second handle")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).expect("the client takes it");
        }
    });
    (format!("http://{place}/echo.wasm"), server)
}

fn kept_blobs(directory: &Path) -> usize {
    std::fs::read_dir(directory.join("blobs")).map_or(0, Iterator::count)
}

#[test]
fn a_downloaded_actor_answers_and_starts_again_when_its_server_is_gone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let module = std::fs::read(guests::module_path("echo")).expect("the guest is there");
    let digest = Digest::of(&module);
    let (address, server) = serve(module, 2);
    let wrong = format!("{address}#sha256={}", Digest::of(b"something else"));
    let mut application = echo_behind_http();
    application.actors[0].reference = format!("{address}#sha256={digest}");
    task::block_on(async {
        let first = host(directory.path()).await;
        in_process::beside(&first, async {
            let error = first.fetch_module(&wrong, Requester::Operator).await.expect_err("a wrong digest is refused");
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.text().contains(&wrong), "{error}");
            assert_eq!(kept_blobs(directory.path()), 0);

            first.apply(application.clone()).await.expect("the application is taken");
            assert_eq!(first.settle().await, Vec::<String>::new());
            let url = first.status().providers[0].detail.clone();
            let answer = smol::unblock(move || get(&url)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
        })
        .await;
        drop(first);
        smol::unblock(move || server.join()).await.expect("the server gave it twice and is gone");

        let second = host(directory.path()).await;
        in_process::beside(&second, async {
            assert_eq!(second.settle().await, Vec::<String>::new());
            let url = second.status().providers[0].detail.clone();
            let answer = smol::unblock(move || get(&url)).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
            second.apply(application).await.expect("applied again, it needs no server");
        })
        .await;
    });
}

#[test]
fn a_download_that_nobody_signed_is_refused_and_not_kept() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let body = b"\0asm\x01\0\0\0".to_vec();
    let digest = Digest::of(&body);
    let (address, server) = serve(body, 1);
    task::block_on(async {
        let host = host(directory.path()).await;
        host.fetch_module(&format!("{address}#sha256={digest}"), Requester::Operator)
            .await
            .expect_err("it carries no signature");
        assert_eq!(kept_blobs(directory.path()), 0);
    });
    server.join().expect("the server was asked");
}
