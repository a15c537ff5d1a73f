//! The whole host in one process, on a real disk and real sockets: applications, links, calls, restarts.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use latticed::{
    actor::{self, Engine},
    capability::http_server,
    claims::{AllowedIssuers, KeyPair, Role},
    error::Result,
    host::{
        Application, Builtin, Builtins, Control, Host, Parts, Settings,
        application::{ActorComponent, LinkComponent, ProviderComponent},
        event::LogEvents,
    },
    service::clock::SystemClock,
    store::{self, RealDisk, Store},
    task,
    wire::interface::HTTP_SERVER,
};

fn module(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/actors/built").join(format!("{name}.wasm"));
    format!("file://{}", path.display())
}

fn host(directory: &Path) -> Result<Arc<Host>> {
    let (store, damage) = Store::open(store::Settings::default(), Arc::new(RealDisk::new(PathBuf::from(directory))))?;
    assert_eq!(damage, []);
    let mut builtins = Builtins::default();
    builtins.register(Builtin {
        name: "httpserver",
        contract_id: HTTP_SERVER,
        start: Box::new(|context| Ok(http_server::start(context))),
    });
    Host::new(
        Settings {
            lattice: "default".into(),
            friendly_name: "test-host-1".into(),
            labels: BTreeMap::new(),
            drain: Duration::from_secs(1),
            issuers: AllowedIssuers::any(),
        },
        Parts {
            key: KeyPair::generate(Role::Server)?,
            store,
            engine: Engine::new(actor::Settings::default())?,
            builtins,
            intrinsics: &[],
            events: vec![Arc::new(LogEvents)],
            clock: Box::new(SystemClock),
        },
    )
}

fn echo_behind_http() -> Application {
    Application {
        name: "echo".into(),
        version: "v1".into(),
        actors: vec![ActorComponent {
            name: "echo".into(),
            reference: module("echo"),
            max_concurrent: 2,
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

/// Runs `host` beside `work` and stops it afterwards.
fn with<T>(host: &Arc<Host>, work: impl Future<Output = T>) -> T {
    task::block_on(async {
        let running = task::spawn({
            let host = host.clone();
            async move { host.run().await }
        });
        let answer = work.await;
        host.request_stop();
        running.await;
        answer
    })
}

#[test]
fn an_application_answers_and_answers_again_after_a_restart_without_being_asked_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = host(directory.path()).expect("the host starts");
    with(&first, async {
        first.apply(echo_behind_http()).await.expect("the application is taken");
        assert_eq!(first.settle().await, Vec::<String>::new());
        let status = first.status();
        assert_eq!((status.actors.len(), status.providers.len(), status.links.len()), (1, 1, 1));
        let url = status.providers[0].detail.clone();
        let answer = smol::unblock(move || get(&url)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
        assert!(answer.contains("/hello"), "unexpected answer: {answer}");
    });
    assert_eq!(first.status().actors, [], "a drained host runs nothing");
    drop(first);

    let second = host(directory.path()).expect("the host starts again");
    with(&second, async {
        assert_eq!(second.settle().await, Vec::<String>::new());
        let url = second.status().providers[0].detail.clone();
        let answer = smol::unblock(move || get(&url)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "unexpected answer: {answer}");
    });
}
