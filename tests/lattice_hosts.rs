//! Several hosts in one lattice, each a process of its own: actors and providers that call each other across them, calls
//! spread over hosts that run the same actor, and a host that dies in the middle of a call. And the connections of very
//! many hosts, in this process, that lose their server together.

mod support;

use std::{
    collections::HashMap,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use latticed::{
    claims::{KeyPair, Role, builtin_provider_key},
    nats::{Connection, Endpoint, Login, Timing, Tls},
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use support::{
    calls::Caller,
    guests,
    host::{Host, Sandbox},
    http::{free_address, get, wait_for_200},
    nats::{self, NatsServer, PATIENCE, block_on, control_client, eventually},
};

type Control = ctl_client_030::Client<ctl_client_030::kv::DirectKvStore>;

/// Calls that are to be spread. With two hosts, fewer than a tenth for one of them happens once in 10^33.
const SPREAD: u64 = 200;

/// A host and where it lives.
struct Board {
    host: Host,
    sandbox: Sandbox,
    id: String,
}

impl Board {
    /// A host that was told nothing yet, in the lattice.
    fn start(server: &NatsServer) -> Self {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let (port, seed) = (server.port().to_string(), nats::cluster().seed().expose().to_owned());
        let mut host = sandbox.run_again(&[
            ("NATS_HOST", "127.0.0.1"),
            ("NATS_PORT", &*port),
            ("WASMCLOUD_CLUSTER_SEED", &*seed),
            ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
            // A guest that never ends is to be ended by its caller's time-out, not by its own limit.
            ("WASMCLOUD_ACTOR_FUEL", "1000000000000"),
        ]);
        host.wait_for("the lattice's bucket is followed");
        let id = host.status().host_id;
        Self { host, sandbox, id }
    }

    /// Starts the guest in the file `module` as the actor `key`, by a command of `client`.
    async fn actor(&self, client: &Control, module: &std::path::Path, key: &str) {
        let reference = format!("file://{}", module.display());
        let ack = client.scale_actor(&self.id, &reference, Some(4), None).await.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the actor runs", || self.calls(key).is_some());
    }

    /// Starts a guest of the tests.
    async fn guest(&self, client: &Control, name: &str) {
        self.actor(client, &guests::module_path(name), &guests::key(name)).await;
    }

    /// Starts a provider of this program.
    async fn provider(&self, client: &Control, name: &str) {
        let ack = client.start_provider(&self.id, &format!("builtin:{name}"), None, None, None).await;
        let ack = ack.expect("an answer");
        assert!(ack.accepted, "{}", ack.error);
        eventually("the provider runs", || self.host.status().providers.iter().any(|one| one.name == name));
    }

    /// How often the actor `key` was called here; nothing where it does not run.
    fn calls(&self, key: &str) -> Option<u64> {
        self.host.status().actors.iter().find(|one| one.public_key == key).map(|one| one.calls)
    }
}

async fn link(client: &Control, actor: &str, provider: &str, contract: &str, values: HashMap<String, String>) {
    let provider = builtin_provider_key(provider).to_string();
    client.advertise_link(actor, &provider, contract, "default", values).await.expect("the link is taken");
}

fn at(address: SocketAddr) -> HashMap<String, String> {
    [("address".to_owned(), address.to_string())].into()
}

#[test]
fn actors_and_providers_of_three_hosts_call_each_other_and_equals_share_the_calls() {
    block_on(async {
        let server = NatsServer::start();
        let [first, second, third] = [(); 3].map(|()| Board::start(&server));
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let (greeting, counting) = (free_address(), free_address());
        first.provider(&client, "httpserver").await;
        first.guest(&client, "caller").await;
        first.guest(&client, "counter").await;
        second.guest(&client, "callee").await;
        third.provider(&client, "keyvalue").await;
        link(&client, &guests::key("caller"), "httpserver", HTTP_SERVER, at(greeting)).await;
        link(&client, &guests::key("counter"), "httpserver", HTTP_SERVER, at(counting)).await;
        link(&client, &guests::key("counter"), "keyvalue", KEY_VALUE, HashMap::new()).await;

        // HTTP on the first host, its actor, over NATS the actor on the second, by its call alias.
        let answer = || get(greeting, "/Ada?via=test/callee");
        eventually("the alias is known and the port is served", || matches!(answer(), Ok((200, _))));
        let (_, text) = answer().expect("it answered before");
        assert!(text.contains("callee") && text.contains("Ada"), "{text}");
        assert!(second.calls(&guests::key("callee")) >= Some(2), "{:?}", second.host.status().actors);

        // HTTP on the first host, its actor, over NATS the built-in store of the third.
        wait_for_200(counting, PATIENCE).expect("the link is known everywhere");
        let counted = || {
            let (status, body) = get(counting, "/shared").expect("an answer");
            assert_eq!(status, 200, "{body}");
            body
        };
        assert_eq!((counted(), counted()), (r#"{"counter":1}"#.into(), r#"{"counter":2}"#.into()));
        let store = third.host.status().providers.into_iter().find(|one| one.name == "keyvalue");
        assert!(store.is_some_and(|store| store.calls >= 3), "{:?}", third.host.status().providers);

        // Two hosts run the same actor: each call is answered once, by one of them, and both do their part.
        second.guest(&client, "echo_small").await;
        third.guest(&client, "echo_small").await;
        let (caller, key) = (Caller::new(nats), guests::key("echo_small"));
        // Subscribed a moment after they run.
        let served = || async { caller.http(&key, "/", "", b"x").await.is_ok() };
        let start = Instant::now();
        while !served().await {
            assert!(start.elapsed() < PATIENCE, "it is not served");
        }
        let before = [&second, &third].map(|board| board.calls(&key).expect("it runs"));
        for number in 0..SPREAD {
            let body = number.to_string();
            let answer = caller.http(&key, "/", "", body.as_bytes()).await.expect("an answer");
            assert_eq!(answer, body.as_bytes());
        }
        let after = [&second, &third].map(|board| board.calls(&key).expect("it runs"));
        let shares = [after[0] - before[0], after[1] - before[1]];
        println!("{SPREAD} calls, spread {shares:?}");
        assert_eq!(shares[0] + shares[1], SPREAD, "a call ran twice, or nowhere: {shares:?}");
        assert!(shares.iter().all(|share| *share >= SPREAD / 10), "one host does it all: {shares:?}");
    });
}

#[test]
fn a_host_that_dies_in_a_call_costs_that_call_alone() {
    block_on(async {
        let server = NatsServer::start();
        let [asking, dying, living] = [(); 3].map(|()| Board::start(&server));
        let nats = nats::connect(&server).await;
        let client = control_client(&nats).await;
        let (address, callee) = (free_address(), guests::key("callee"));
        asking.provider(&client, "httpserver").await;
        asking.guest(&client, "caller").await;
        link(&client, &guests::key("caller"), "httpserver", HTTP_SERVER, at(address)).await;
        // The same actor on two hosts, in an unlucky revision on the one that is to die: it never ends by itself.
        living.guest(&client, "callee").await;
        eventually("it is called by its alias", || matches!(get(address, "/Ada?via=test/callee"), Ok((200, _))));
        let endless = std::fs::read(guests::module_path("hostile/endless_loop")).expect("the guest is built");
        let endless = guests::sign_revision("callee", &[], &endless, 2).expect("it can be signed");
        let endless = dying.sandbox.write("endless.wasm", endless);
        dying.actor(&client, &endless, &callee).await;

        // Called until a call lands on the host that is to die.
        let asked = thread::spawn(move || {
            loop {
                let start = Instant::now();
                match get(address, "/Ada?via=test/callee").expect("the local server answers") {
                    (200, _) => {}
                    other => return (start.elapsed(), other),
                }
            }
        });
        eventually("a call is under way there", || {
            dying.host.status().actors.iter().any(|one| one.public_key == callee && one.instances > 0)
        });
        dying.host.kill();
        let (lasted, (status, text)) = asked.join().expect("it ends");
        println!("the call that was under way ended after {lasted:?} with {status}: {text}");
        assert!(lasted < PATIENCE / 2, "{lasted:?}");
        assert_eq!(status, 504, "{text}");

        let before = living.calls(&callee).expect("it runs");
        for number in 0..50 {
            let (status, text) = get(address, "/Ada?via=test/callee").expect("an answer");
            assert_eq!(status, 200, "call {number} afterwards: {text}");
        }
        assert_eq!(living.calls(&callee), Some(before + 50));
    });
}

/// Boards that lose their server together.
const HERD: usize = 500;

/// Their widest first wait: the spread of their return. Far above what the server needs to start again, which decides how
/// many find it too early.
const SPREAD_OF_RETURN: Duration = Duration::from_secs(6);

/// How often the server is restarted at most. A machine that stands still for a moment bunches five hundred clients in one
/// process whatever they planned; boards that do plan together come together every time.
const TRIES: usize = 3;

/// The connection a host makes, five hundred times: what the back-off promises must still hold after the client library,
/// the runtime and a real server that restarts had their say.
#[test]
fn five_hundred_boards_come_back_to_one_server_evenly() {
    block_on(async {
        let mut server = NatsServer::start();
        let endpoint = Endpoint::parse("127.0.0.1", server.port(), Login::None, Tls::default()).expect("an address");
        let timing = Timing {
            reconnect_base: SPREAD_OF_RETURN,
            reconnect_cap: SPREAD_OF_RETURN * 2,
            connect: PATIENCE,
            ..Timing::default()
        };
        let mut herd = Vec::new();
        for number in 0..HERD {
            let key = KeyPair::from_name(Role::Server, &format!("board {number}")).public_key().to_string();
            herd.push(Connection::open("herd", &endpoint, &timing, &key).await.expect("it begins to connect"));
        }
        let all = |herd: &[Connection]| {
            futures_util::future::join_all(herd.iter().cloned().map(|one| async move {
                one.connected().await;
                Instant::now()
            }))
        };
        tokio::time::timeout(PATIENCE, all(&herd)).await.expect("all connect");

        let mean = HERD as f64 / SPREAD_OF_RETURN.as_secs_f64();
        let mut busiest = Vec::new();
        while busiest.len() < TRIES && busiest.last().is_none_or(|last| *last as f64 > 1.5 * mean) {
            let lost = Instant::now();
            server.kill();
            server.resume();
            let outage = lost.elapsed();
            let gone = futures_util::future::join_all(herd.iter().map(Connection::disconnected));
            tokio::time::timeout(PATIENCE, gone).await.expect("all notice");
            let back = tokio::time::timeout(PATIENCE, all(&herd)).await.expect("all come back");
            let mut back: Vec<f64> = back.iter().map(|at| at.duration_since(lost).as_secs_f64()).collect();
            back.sort_by(f64::total_cmp);
            let within =
                |first: &f64| back.partition_point(|at| *at < first + 1.0) - back.partition_point(|at| at < first);
            busiest.push(back.iter().map(within).max().expect("some"));
            println!(
                "server away for {outage:.2?}; {HERD} boards back from {:.2} to {:.2} s after the loss, nine of ten \
                 within {:.2} s; seen in the busiest second: {busiest:?}, the mean over the spread is {mean:.0}",
                back[0],
                back[HERD - 1],
                back[HERD * 9 / 10]
            );
        }
        let last = *busiest.last().expect("it was tried");
        assert!(last as f64 <= 1.5 * mean, "{busiest:?} came back within a second, the mean is {mean:.0}");
    });
}
