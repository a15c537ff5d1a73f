//! Chaos: two hosts in one lattice while links are cut and go dark, the server is killed and comes again, commands come in
//! bursts and actors are called all the time. Afterwards everything is as commanded, nothing was answered twice, and
//! nothing is left over: no task, no subscription, no descriptor, no memory.
//!
//! Twenty seconds of it in `tests/run`; `LATTICED_CHAOS_SECONDS=120` for two minutes. What happens follows from a seed,
//! which is printed; `LATTICED_CHAOS_SEED` repeats it, as far as two processes and a network repeat anything.

mod support;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use latticed::{
    claims::builtin_provider_key,
    wire::interface::{HTTP_SERVER, HttpResponse, KEY_VALUE},
};
use serde_json::{Value, json};
use support::{
    asker::{ASK, Asker},
    calls::{Signer, answered, http_request},
    door::Door,
    guests,
    held::{Held, held},
    host::{Host, Sandbox},
    http::{free_address, wait_for_200},
    load::HttpLoad,
    manifest::Manifest,
    nats::{self, NatsServer, PATIENCE, block_on},
    process::Memory,
};

/// How long it lasts unless said otherwise.
const SECONDS: u64 = 20;

/// The first turn, before anything is weighed, lasts half as long as the second, and at least so long.
const WARM: Duration = Duration::from_secs(10);

/// Callers at once.
const CALLERS: usize = 4;

/// Requests to local actors per second, on each host.
const LOCAL_PER_SECOND: u32 = 20;

/// After this long without work freed memory has been given back, and threads without work have ended.
const SETTLE: Duration = Duration::from_secs(15);

/// Memory at the end may be this much of what it was at the start.
const GROWTH: f64 = 1.10;

/// SplitMix64: chaos that can be had again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut draw = self.0;
        draw = (draw ^ draw >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        draw = (draw ^ draw >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        draw ^ draw >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// What was commanded last of one host.
#[derive(Clone, Debug, Default, PartialEq)]
struct Commanded {
    /// Actors by name, how many of each at once.
    actors: BTreeMap<&'static str, u64>,
    client: bool,
    label: Option<String>,
}

/// Names of the links that come and go, with the value they carry.
type Links = BTreeMap<String, String>;

/// What actors do for an HTTP server.
const HANDLE: &str = "HttpServer.HandleRequest";

const ACTORS: [&str; 2] = ["echo", "echo_small"];
const LINK_NAMES: u64 = 4;

/// One host, its link, and what it was told.
struct Board {
    host: Host,
    id: String,
    /// The key of its counting actor.
    counter: String,
    address: Option<SocketAddr>,
    _sandbox: Sandbox,
    commanded: RefCell<Commanded>,
}

impl Board {
    /// Only one may serve HTTP: links hold for every host of the lattice, and two on one machine cannot listen at one port.
    fn start(number: usize, port: u16, address: Option<SocketAddr>) -> Self {
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        // Each host counts with an actor of its own, so that each count is of one store.
        let name = format!("counter{number}");
        let module = std::fs::read(guests::module_path("counter")).expect("the guest is built");
        let module = guests::sign(&name, &[HTTP_SERVER, KEY_VALUE], &module).expect("it can be signed");
        let module = sandbox.write("counter.wasm", module);
        let mut manifest = Manifest::empty("chaos");
        manifest.capability("keyvalue", KEY_VALUE);
        if let Some(address) = address {
            manifest.capability("httpserver", HTTP_SERVER).actor(&name, &module, 4).http(address);
        } else {
            manifest.actor(&name, &module, 4);
        }
        manifest.link("keyvalue", &[]);
        let manifest = sandbox.write("chaos.yaml", manifest.text());
        let (port, seed) = (port.to_string(), nats::cluster().seed().expose().to_owned());
        let mut host = sandbox.run(
            &manifest,
            &[
                ("NATS_HOST", "127.0.0.1"),
                ("NATS_PORT", &*port),
                ("WASMCLOUD_CLUSTER_SEED", &*seed),
                ("WASMCLOUD_ALLOW_FILE_LOAD", "true"),
                ("WASMCLOUD_NATS_RECONNECT_BASE_MS", "100"),
                ("WASMCLOUD_NATS_RECONNECT_CAP_MS", "1000"),
                ("WASMCLOUD_NATS_SILENCE_MS", "2000"),
            ],
        );
        host.wait_for("the lattice's bucket is followed");
        if let Some(address) = address {
            wait_for_200(address, PATIENCE).expect("it serves");
        }
        let id = host.status().host_id;
        Self { host, id, counter: guests::key(&name), address, _sandbox: sandbox, commanded: RefCell::default() }
    }

    /// What it should run of what was commanded, as it says itself.
    fn desired(&self) -> (Commanded, Links) {
        let status = self.host.status();
        let actors = ACTORS.iter().filter_map(|name| {
            let running = status.actors.iter().find(|one| one.public_key == guests::key(name))?;
            Some((*name, u64::from(running.max_concurrent)))
        });
        let commanded = Commanded {
            actors: actors.collect(),
            client: status.providers.iter().any(|one| one.name == "httpclient"),
            label: status.labels.get("chaos").cloned(),
        };
        let links = status.links.iter().filter(|link| link.link_name.starts_with("chaos"));
        (commanded, links.map(|link| (link.link_name.clone(), link.values["value"].clone())).collect())
    }

    async fn scale(&self, asker: &Asker, name: &'static str, count: u64) {
        let reference = format!("file://{}", guests::module_path(name).display());
        let body = json!({"actor_ref": reference, "host_id": self.id, "count": count});
        asker.command(format!("wasmbus.ctl.default.cmd.{}.scale", self.id), body).await;
        match count {
            0 => drop(self.commanded.borrow_mut().actors.remove(name)),
            _ => drop(self.commanded.borrow_mut().actors.insert(name, count)),
        }
    }

    async fn provider(&self, asker: &Asker, run: bool) {
        let key = builtin_provider_key("httpclient").to_string();
        let (verb, body) = match run {
            true => ("lp", json!({"provider_ref": "builtin:httpclient", "link_name": "default"})),
            false => {
                ("sp", json!({"provider_ref": key, "link_name": "default", "contract_id": "wasmcloud:httpclient"}))
            }
        };
        asker.command(format!("wasmbus.ctl.default.cmd.{}.{verb}", self.id), body).await;
        self.commanded.borrow_mut().client = run;
    }

    async fn label(&self, asker: &Asker, value: Option<String>) {
        let (verb, body) = match &value {
            Some(value) => ("put", json!({"key": "chaos", "value": value})),
            None => ("del", json!({"key": "chaos"})),
        };
        asker.command(format!("wasmbus.ctl.default.labels.{}.{verb}", self.id), body).await;
        self.commanded.borrow_mut().label = value;
    }

    /// One command after the other, and now and then a burst with many questions beside, until told to end.
    async fn command_until(&self, asker: &Asker, mut dice: Dice, ended: &AtomicBool) -> u64 {
        let mut commands = 0;
        while !ended.load(SeqCst) {
            let name = ACTORS[dice.below(2) as usize];
            let other = ACTORS[(dice.below(2)) as usize];
            let count = dice.below(6);
            match dice.below(4) {
                0 => self.scale(asker, name, count).await,
                1 => self.provider(asker, dice.below(2) == 0).await,
                2 => self.label(asker, (dice.below(3) > 0).then(|| dice.below(100).to_string())).await,
                _ => {
                    // Everything at once, but no two commands for one thing: those have no order.
                    let questions = (0..20).map(|number| {
                        let (subject, answers) = match number % 4 {
                            0 => ("ping.hosts".to_owned(), 2),
                            1 => (format!("get.{}.inv", self.id), 1),
                            2 => ("get.links".to_owned(), 1),
                            _ => ("get.claims".to_owned(), 1),
                        };
                        asker.ask(format!("wasmbus.ctl.default.{subject}"), Vec::new(), answers)
                    });
                    let (run, value) = (dice.below(2) == 0, dice.below(100).to_string());
                    futures_util::join!(
                        futures_util::future::join_all(questions),
                        self.scale(asker, other, count),
                        self.provider(asker, run),
                        self.label(asker, Some(value)),
                    );
                    commands += 2;
                }
            }
            commands += 1;
            tokio::time::sleep(dice.millis(1, 200)).await;
        }
        commands
    }
}

/// The whole: two hosts, each behind a door of its own, one server, one client.
struct Site {
    boards: Vec<Board>,
    doors: Arc<Vec<Door>>,
    asker: Rc<Asker>,
    signer: Signer,
    links: RefCell<Links>,
}

/// What happened.
#[derive(Default)]
struct Happened {
    wrecks: BTreeMap<&'static str, u32>,
    commands: u64,
    /// Calls: answered, refused, without an answer.
    calls: [u64; 3],
    /// Of the counting actor: sent, and answered with a count.
    counted: [u64; 2],
    local: usize,
}

impl Site {
    /// Puts or deletes a link where every host of the lattice looks for it.
    async fn link(&self, name: String, value: Option<String>) {
        let (actor, provider) = (guests::key("echo"), builtin_provider_key("keyvalue").to_string());
        let id = latticed::wire::link::link_id(&actor, KEY_VALUE, &name);
        let link = json!({
            "id": id, "actor_id": actor, "provider_id": provider, "link_name": name, "contract_id": KEY_VALUE,
            "values": {"value": value},
        });
        let subject = format!("$KV.LATTICEDATA_default.LINKDEF_{id}");
        let start = Instant::now();
        loop {
            let mut headers = async_nats_031::HeaderMap::new();
            let body = match &value {
                Some(_) => link.to_string(),
                None => {
                    headers.insert("KV-Operation", "DEL");
                    String::new()
                }
            };
            let request = async_nats_031::Request::new().headers(headers).payload(body.into()).timeout(Some(ASK));
            match self.asker.nats.send_request(subject.clone(), request).await {
                Ok(ack) if !String::from_utf8_lossy(&ack.payload).contains("error") => break,
                other => assert!(start.elapsed() < 2 * PATIENCE, "the bucket does not take {name}: {other:?}"),
            }
        }
        match value {
            Some(value) => drop(self.links.borrow_mut().insert(name, value)),
            None => drop(self.links.borrow_mut().remove(&name)),
        }
    }

    async fn link_until(&self, mut dice: Dice, ended: &AtomicBool) -> u64 {
        let mut commands = 0;
        while !ended.load(SeqCst) {
            let name = format!("chaos{}", dice.below(LINK_NAMES));
            let value = (dice.below(3) > 0).then(|| dice.below(1000).to_string());
            self.link(name, value).await;
            commands += 1;
            tokio::time::sleep(dice.millis(20, 400)).await;
        }
        commands
    }

    /// Calls one actor after the other.
    async fn call_until(&self, mut dice: Dice, ended: &AtomicBool, happened: &RefCell<Happened>) {
        while !ended.load(SeqCst) {
            let counting = dice.below(4) == 0;
            let name = ACTORS[dice.below(2) as usize];
            let key = match counting {
                true => self.boards[dice.below(2) as usize].counter.clone(),
                false => guests::key(name),
            };
            let text = "x".repeat(dice.below(2000) as usize);
            let body = http_request(if counting { "/chaos" } else { "/raw" }, "", text.as_bytes());
            let invocation = self.signer.invocation(&key, HANDLE, &body);
            happened.borrow_mut().counted[0] += u64::from(counting);
            let answer = self.asker.ask(format!("wasmbus.rpc.default.{key}"), invocation, 1).await;
            {
                let mut happened = happened.borrow_mut();
                match answer.map(|answer| answered(&answer)) {
                    Some(Ok(answer)) => {
                        if name == "echo" && !counting {
                            let answer: HttpResponse = rmp_serde::from_slice(&answer).expect("an HTTP answer");
                            assert_eq!(answer.body, text.as_bytes(), "the answer to another request");
                        }
                        happened.counted[1] += u64::from(counting);
                        happened.calls[0] += 1;
                    }
                    Some(Err(_)) => happened.calls[1] += 1,
                    None => happened.calls[2] += 1,
                }
            }
            tokio::time::sleep(dice.millis(1, 30)).await;
        }
    }

    /// Chaos for `time`, then quiet again.
    async fn shake(&self, server: NatsServer, time: Duration, dice: &mut Dice) -> (NatsServer, Happened) {
        let ended = Arc::new(AtomicBool::new(false));
        let happened = RefCell::new(Happened::default());
        let address = self.boards[0].address.expect("the first host serves HTTP");
        let load = HttpLoad::start(address, b"", LOCAL_PER_SECOND, 2);
        let wrecker = thread::spawn({
            let (doors, ended, dice) = (self.doors.clone(), ended.clone(), Dice(dice.roll()));
            move || wreck(server, &doors, dice, &ended)
        });
        let commands = self.boards.iter().map(|board| board.command_until(&self.asker, Dice(dice.roll()), &ended));
        let commands = futures_util::future::join_all(commands.collect::<Vec<_>>());
        let calls: Vec<_> = (0..CALLERS).map(|_| self.call_until(Dice(dice.roll()), &ended, &happened)).collect();
        let clock = async {
            tokio::time::sleep(time).await;
            ended.store(true, SeqCst);
            // The others end only in a network that works: so it is waited for without standing in their way.
            while !wrecker.is_finished() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let (_, commands, links, _) = futures_util::join!(
            clock,
            commands,
            self.link_until(Dice(dice.roll()), &ended),
            futures_util::future::join_all(calls)
        );
        let (server, wrecks) = wrecker.join().expect("the wrecker does not panic");
        let mut happened = happened.into_inner();
        happened.wrecks = wrecks;
        happened.commands = commands.iter().sum::<u64>() + links;
        let load = load.end();
        assert_eq!(load.failures(), Vec::<&String>::new(), "local traffic");
        happened.local = load.requests();
        (server, happened)
    }

    /// Waits until every host runs what it was told.
    async fn as_commanded(&self) {
        for board in &self.boards {
            let wanted = (board.commanded.borrow().clone(), self.links.borrow().clone());
            let start = Instant::now();
            loop {
                let desired = board.desired();
                if desired == wanted {
                    break;
                }
                assert!(start.elapsed() < PATIENCE, "commanded {wanted:?}\nbut {desired:?}\n{}", board.host.output());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(board.host.status().problems, Vec::<String>::new());
        }
    }

    /// Brings everything to the state in which it is compared.
    async fn rest(&self) {
        for board in &self.boards {
            board.scale(&self.asker, "echo", 2).await;
            board.scale(&self.asker, "echo_small", 1).await;
            board.provider(&self.asker, true).await;
            board.label(&self.asker, None).await;
        }
        for number in 0..LINK_NAMES {
            self.link(format!("chaos{number}"), Some("rest".to_owned())).await;
        }
        self.as_commanded().await;
    }

    /// Sums of what the counting actors of all hosts counted.
    fn counted(&self) -> u64 {
        let one = |board: &Board| {
            let answer = board.host.call(&board.counter, HANDLE, &http_request("/chaos", "", b"")).expect("an answer");
            let answer: HttpResponse = rmp_serde::from_slice(&answer).expect("an HTTP answer");
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            // This very question counts too.
            body["counter"].as_u64().expect("a number") - 1
        };
        self.boards.iter().map(one).sum()
    }
}

/// Cuts, darkens, kills and mends until told to end; what it did, by kind.
fn wreck(
    mut server: NatsServer,
    doors: &[Door],
    mut dice: Dice,
    ended: &AtomicBool,
) -> (NatsServer, BTreeMap<&'static str, u32>) {
    let mut done = BTreeMap::new();
    while !ended.load(SeqCst) {
        let door = &doors[dice.below(doors.len() as u64) as usize];
        let what = match dice.below(8) {
            0..3 => {
                door.darken();
                thread::sleep(dice.millis(200, 4000));
                door.mend();
                "links gone dark"
            }
            3..6 => {
                door.smash();
                thread::sleep(dice.millis(50, 1500));
                door.mend();
                "links cut"
            }
            _ => {
                server.kill();
                thread::sleep(dice.millis(50, 1500));
                server.resume();
                "server restarts"
            }
        };
        *done.entry(what).or_insert(0) += 1;
        thread::sleep(dice.millis(200, 1500));
    }
    (server, done)
}

fn number_of(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn chaos_leaves_what_was_commanded_and_nothing_else() {
    let seconds = number_of("LATTICED_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = number_of("LATTICED_CHAOS_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is later than 1970");
        now.as_secs()
    });
    println!("{seconds} seconds of chaos with LATTICED_CHAOS_SEED={seed}");
    let mut dice = Dice(seed);
    block_on(async {
        let monitor = free_address().port();
        let mut server = NatsServer::described(|port, store| {
            let store = store.display();
            format!(
                "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\njetstream {{ store_dir: \"{store}\" }}\n"
            )
        });
        server.resume();
        let doors: Vec<Door> = (0..2).map(|_| Door::to(server.port())).collect();
        let boards =
            vec![Board::start(0, doors[0].port(), Some(free_address())), Board::start(1, doors[1].port(), None)];
        let nats = nats::connect(&server).await;
        let asker = Rc::new(Asker::new(nats));
        let site = Site {
            boards,
            doors: Arc::new(doors),
            asker: asker.clone(),
            signer: Signer::default(),
            links: RefCell::default(),
        };
        let test = async {
            // Once through everything, so that what is kept for good is there before it is weighed: tables, buffers and the
            // allocator's heap reach their size only after many reconnects, and keep it from then on.
            let warm = Duration::from_secs(seconds / 2).max(WARM);
            let (server, warm) = site.shake(server, warm, &mut dice).await;
            site.rest().await;
            tokio::time::sleep(SETTLE).await;
            let before: Vec<Held> = site.boards.iter().map(|board| held(&board.host, &board.id, monitor)).collect();

            let (_server, happened) = site.shake(server, Duration::from_secs(seconds), &mut dice).await;
            site.as_commanded().await;
            println!(
                "{:?}; {} commands; calls answered, refused, lost: {:?}; {} local requests",
                happened.wrecks, happened.commands, happened.calls, happened.local
            );
            assert!(happened.calls[0] > 0 && happened.commands > 0, "too little happened to tell");
            // Answers that came too late are in by now.
            assert_eq!(site.asker.answered_too_often(), Vec::<String>::new());
            let (sent, answered) = (warm.counted[0] + happened.counted[0], warm.counted[1] + happened.counted[1]);
            let counted = site.counted();
            println!("counting calls: {sent} sent, {counted} counted, {answered} answered");
            assert!(answered <= counted && counted <= sent, "{answered} answered, {counted} counted, {sent} sent");

            site.rest().await;
            for (board, before) in site.boards.iter().zip(&before) {
                let start = Instant::now();
                loop {
                    let now = held(&board.host, &board.id, monitor);
                    let grown = now.memory.pss as f64 / before.memory.pss as f64;
                    let same = now.tasks <= before.tasks
                        && now.threads <= before.threads
                        && now.descriptors <= before.descriptors
                        && now.subscriptions == before.subscriptions;
                    if same && grown <= GROWTH {
                        let kib = |memory: Memory| (memory.pss / 1024, memory.private_dirty / 1024);
                        println!(
                            "{}: tasks {} before, {} after; threads {}, {}; descriptors {}, {}; subscriptions {}, {}; \
                             KiB (PSS, private dirty) {:?}, {:?}: {:+.1} %",
                            board.id,
                            before.tasks,
                            now.tasks,
                            before.threads,
                            now.threads,
                            before.descriptors,
                            now.descriptors,
                            before.subscriptions.values().sum::<u32>(),
                            now.subscriptions.values().sum::<u32>(),
                            kib(before.memory),
                            kib(now.memory),
                            (grown - 1.0) * 100.0
                        );
                        break;
                    }
                    assert!(start.elapsed() < PATIENCE, "left over: {now:?}\nbefore: {before:?}");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let listening = async {
            asker.listen().await;
            unreachable!("the client is not closed");
        };
        futures_util::future::select(std::pin::pin!(test), std::pin::pin!(listening)).await;
    });
}
