//! The keyspaces against a model of Redis, against the protocol's samples, over restarts, clocks, quotas and nonsense.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use super::*;
use crate::{
    error::Kind,
    store::{FaultDisk, Settings},
    wire::Entity,
};

/// The samples of `protocol/vectors/interfaces.json`.
pub(crate) struct Vectors(serde_json::Value);

pub(crate) fn vectors() -> Vectors {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/interfaces.json")).unwrap();
    Vectors(serde_json::from_str(&text).unwrap())
}

impl Vectors {
    pub(crate) fn request(&self, operation: &str) -> Vec<u8> {
        self.bytes(operation, "request_hex")
    }

    pub(crate) fn response(&self, operation: &str) -> Vec<u8> {
        self.bytes(operation, "response_hex")
    }

    fn bytes(&self, operation: &str, field: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(self.0[operation][field].as_str().unwrap().as_bytes()).unwrap()
    }
}

/// Seconds of a wall clock and of a steady one, for tests to set.
#[derive(Clone, Default)]
struct Time(Arc<(AtomicU64, AtomicU64)>);

impl Time {
    fn source(&self) -> clock::Source {
        let time = self.clone();
        let seconds = |clock: &AtomicU64| Duration::from_secs(clock.load(Relaxed));
        Box::new(move || (seconds(&time.0.0), seconds(&time.0.1)))
    }

    fn set_wall(&self, seconds: u64) {
        self.0.0.store(seconds, Relaxed);
    }

    fn pass(&self, seconds: u64) {
        self.0.0.fetch_add(seconds, Relaxed);
        self.0.1.fetch_add(seconds, Relaxed);
    }
}

struct Board {
    disk: FaultDisk,
    time: Time,
    provider: KeyValue,
}

fn settings() -> Settings {
    Settings { segment_bytes: 4096, ..Settings::default() }
}

fn link(name: &str, values: &[(&str, &str)]) -> Arc<LinkDefinition> {
    Arc::new(LinkDefinition {
        actor_id: "MACTOR".into(),
        provider_id: "VPROVIDER".into(),
        link_name: name.into(),
        contract_id: KEY_VALUE.into(),
        values: values.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        id: String::new(),
    })
}

impl Board {
    fn new() -> Self {
        let time = Time::default();
        time.set_wall(1_000_000);
        Self::start(FaultDisk::new(), time)
    }

    fn start(disk: FaultDisk, time: Time) -> Self {
        let (store, damage) = Store::open(settings(), Arc::new(disk.clone())).unwrap();
        assert_eq!(damage, []);
        let provider = KeyValue::with_clock(store, Quotas::default(), time.source());
        smol::block_on(provider.link(link("default", &[]))).unwrap();
        Self { disk, time, provider }
    }

    fn restart(self) -> Self {
        let Self { disk, time, provider } = self;
        drop(provider);
        // The thread that served the last change may hold the store for a moment longer.
        let until = Instant::now() + Duration::from_secs(5);
        while crate::store::Disk::lock(&disk).is_err() {
            assert!(Instant::now() < until, "the store is never let go");
            std::thread::yield_now();
        }
        Self::start(disk, time)
    }

    fn raw(&self, link: Arc<LinkDefinition>, operation: &str, payload: Vec<u8>) -> Result<Vec<u8>> {
        let call = Call {
            origin: Entity::actor("MACTOR"),
            target: Entity::provider("VPROVIDER", KEY_VALUE, &link.link_name),
            operation: format!("KeyValue.{operation}"),
            payload,
            deadline: Instant::now() + Duration::from_secs(5),
            depth: 0,
            trace: None,
        };
        smol::block_on(self.provider.call(link, call))
    }

    fn on<T: DeserializeOwned>(&self, name: &str, operation: &str, request: &(impl Serialize + ?Sized)) -> Result<T> {
        let answer = self.raw(link(name, &[]), operation, codec::encode(request)?)?;
        // No answer at all is the unit, which MessagePack writes as nil.
        codec::decode("answer", if answer.is_empty() { b"\xc0" } else { &answer })
    }

    fn call<T: DeserializeOwned>(&self, operation: &str, request: &(impl Serialize + ?Sized)) -> Result<T> {
        self.on("default", operation, request)
    }

    fn get(&self, key: &str) -> Option<String> {
        let answer: GetResponse = self.call("Get", key).unwrap();
        answer.exists.then_some(answer.value)
    }

    fn set(&self, key: &str, value: &str, expires: u32) -> Result<()> {
        self.call("Set", &SetRequest { key: key.into(), value: value.into(), expires })
    }

    fn increment(&self, key: &str, value: i32) -> Result<i32> {
        self.call("Increment", &IncrementRequest { key: key.into(), value })
    }
}

fn list_value(list_name: &str, value: &str) -> ListValueRequest {
    ListValueRequest { list_name: list_name.into(), value: value.into() }
}

fn set_value(set_name: &str, value: &str) -> SetValueRequest {
    SetValueRequest { set_name: set_name.into(), value: value.into() }
}

#[test]
fn protocol_samples() {
    let board = Board::new();
    let vectors = vectors();
    let raw = |operation: &str, request: Vec<u8>| board.raw(link("default", &[]), operation, request).unwrap();
    let sample = |operation: &str| {
        let name = format!("KeyValue.{operation}");
        assert_eq!(raw(operation, vectors.request(&name)), vectors.response(&name), "{operation}");
    };
    sample("Set");
    sample("Contains");
    sample("Get");
    assert_eq!(board.increment("counter", 4).unwrap(), 4);
    sample("Increment");
}

#[test]
fn errors_have_the_words_of_redis() {
    let board = Board::new();
    board.set("text", "abc", 0).unwrap();
    board.set("number", "2147483647", 0).unwrap();
    let _: u32 = board.call("ListAdd", &list_value("list", "a")).unwrap();
    let _: u32 = board.call("SetAdd", &set_value("set", "a")).unwrap();
    assert_eq!(board.increment("text", 1).unwrap_err().text(), "ERR value is not an integer or out of range");
    assert_eq!(board.increment("number", 1).unwrap_err().text(), "increment or decrement would overflow");
    assert_eq!(board.get("number").as_deref(), Some("2147483647"));
    let wrong: [Result<()>; 8] = [
        board.call::<GetResponse>("Get", "list").map(drop),
        board.call::<GetResponse>("Get", "set").map(drop),
        board.increment("list", 1).map(drop),
        board.call::<u32>("ListAdd", &list_value("text", "x")).map(drop),
        board.call::<u32>("SetAdd", &set_value("list", "x")).map(drop),
        board.call::<Vec<String>>("SetQuery", "text").map(drop),
        board.call::<Vec<String>>("SetUnion", &["set", "list"]).map(drop),
        board.call::<Vec<String>>("SetIntersection", &["set", "text"]).map(drop),
    ];
    for result in wrong {
        assert!(result.unwrap_err().text().starts_with("WRONGTYPE"));
    }
}

#[test]
fn links_of_different_names_share_nothing_and_of_one_name_everything() {
    let board = Board::new();
    for (name, values) in [("a", &[][..]), ("b", &[]), ("c", &[("keyspace", "a")])] {
        smol::block_on(board.provider.link(link(name, values))).unwrap();
    }
    let set = SetRequest { key: "k".into(), value: "a's".into(), expires: 0 };
    let () = board.on("a", "Set", &set).unwrap();
    let get = |name: &str| board.on::<GetResponse>(name, "Get", "k").unwrap().value;
    assert_eq!([get("a"), get("b"), get("c"), get("default")], ["a's", "", "a's", ""]);
    smol::block_on(board.provider.unlink(link("a", &[])));
    assert_eq!(board.on::<GetResponse>("a", "Get", "k").unwrap_err().kind(), Kind::Denied);
    let deleted: bool = board.on("c", "Del", "k").unwrap();
    assert!(deleted);
}

#[test]
fn keys_expire_and_never_come_back() {
    let board = Board::new();
    board.set("short", "1", 10).unwrap();
    board.set("long", "1", 1000).unwrap();
    board.set("for ever", "1", 0).unwrap();
    assert_eq!(board.increment("short", 1).unwrap(), 2, "an increment keeps the expiry");
    board.time.pass(9);
    assert_eq!(board.get("short").as_deref(), Some("2"));
    board.time.pass(1);
    assert_eq!(board.get("short"), None);
    let board = board.restart();
    board.time.set_wall(0);
    let board = board.restart();
    assert_eq!(board.get("short"), None, "gone is gone, even by a clock that was set back");
    assert_eq!(board.get("long").as_deref(), Some("1"), "and nothing is lost by it");
    board.time.pass(1000);
    assert_eq!(board.get("long"), None, "time counts while the clock is wrong");
    assert_eq!(board.get("for ever").as_deref(), Some("1"));
    board.set("for ever", "2", 5).unwrap();
    board.set("for ever", "3", 0).unwrap();
    board.time.pass(100);
    assert_eq!(board.get("for ever").as_deref(), Some("3"), "setting again takes the expiry away");
    assert_eq!(board.increment("long", 1).unwrap(), 1, "an expired number starts again");
}

#[test]
fn each_quota_has_its_own_error() {
    let board = Board::new();
    let values = [("max_keys", "3"), ("max_bytes", "100"), ("max_value_bytes", "60"), ("max_elements", "2")];
    smol::block_on(board.provider.link(link("small", &values))).unwrap();
    let set = |key: &str, value: &str, expires: u32| {
        board.on::<()>("small", "Set", &SetRequest { key: key.into(), value: value.into(), expires })
    };
    let told = |result: Result<()>, word: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.text().contains(word), "{error}");
    };
    told(set("k", &"x".repeat(61), 0), "max_value_bytes");
    set("k", &"x".repeat(60), 0).unwrap();
    told(set("l", &"x".repeat(60), 0), "max_bytes");
    set("k", "x", 0).unwrap();
    set("l", &"x".repeat(60), 0).unwrap();
    let add = |value: &str| board.on::<u32>("small", "ListAdd", &list_value("m", value)).map(drop);
    add("1").unwrap();
    told(add("2"), "max_keys");
    let _: bool = board.on("small", "Del", "k").unwrap();
    add("2").unwrap();
    told(add("3"), "max_elements");
    told(set("n", "x", 0), "max_keys");
    // What has expired makes room.
    let _: bool = board.on("small", "Del", "l").unwrap();
    set("l", "x", 5).unwrap();
    told(set("n", "x", 0), "max_keys");
    board.time.pass(5);
    set("n", "x", 0).unwrap();
    told(set(&"k".repeat(2000), "x", 0), "2000 bytes");
}

#[test]
fn a_failed_write_changes_nothing_that_is_remembered() {
    let board = Board::new();
    smol::block_on(board.provider.link(link("small", &[("max_keys", "1")]))).unwrap();
    let set = SetRequest { key: "k".into(), value: "v".into(), expires: 0 };
    board.disk.set_read_only(true);
    let error = board.on::<()>("small", "Set", &set).unwrap_err();
    assert_eq!(error.kind(), Kind::Storage);
    assert!(error.text().contains("read-write"), "{error}");
    assert_eq!(board.get("nothing"), None);
    board.disk.set_read_only(false);
    let () = board.on("small", "Set", &set).unwrap();
}

#[test]
fn increments_beside_each_other_all_count() {
    let board = Board::new();
    let request = codec::encode(&IncrementRequest { key: "n".into(), value: 1 }).unwrap();
    let space = Arc::new(Space::of(&link("default", &[]), Quotas::default()).unwrap());
    let calls =
        (0..200).map(|_| board.provider.keyspaces.operation(Arc::clone(&space), "KeyValue.Increment", &request));
    let answers = smol::block_on(async {
        let tasks: Vec<_> = calls.map(Box::pin).collect();
        let mut answers = BTreeSet::new();
        let executor = smol::LocalExecutor::new();
        let tasks: Vec<_> = tasks.into_iter().map(|task| executor.spawn(task)).collect();
        executor
            .run(async {
                for task in tasks {
                    let answer: i32 = codec::decode("answer", &task.await.unwrap()).unwrap();
                    assert!(answers.insert(answer));
                }
            })
            .await;
        answers
    });
    assert_eq!(answers, (1..=200).collect());
    let (_, syncs) = board.disk.traffic();
    assert!(syncs < 200, "commits that wait together share a sync, there were {syncs}");
}

#[test]
fn a_long_list_costs_no_more_than_a_short_one() {
    let board = Board::new();
    for number in 0..500 {
        let _: u32 = board.call("ListAdd", &list_value("list", &number.to_string())).unwrap();
    }
    let (before, _) = board.disk.traffic();
    let _: u32 = board.call("ListAdd", &list_value("list", "x")).unwrap();
    // The list is 4 KiB long; one step of zeros may be written ahead.
    let (after, _) = board.disk.traffic();
    assert!((after - before) % (64 << 10) < 200, "{} bytes", after - before);
}

#[test]
fn an_increment_writes_what_the_documentation_says() {
    let board = Board::new();
    board.increment("counter", 1).unwrap();
    let (before, _) = board.disk.traffic();
    board.increment("counter", 1).unwrap();
    let (after, _) = board.disk.traffic();
    assert_eq!(after - before, 46);
}

/// What the model does to a key, drawn from few names so that types collide.
#[derive(Clone, Debug)]
enum Op {
    Get(String),
    Set(String, String, u32),
    Del(String),
    Contains(String),
    Increment(String, i32),
    ListAdd(String, String),
    ListDel(String, String),
    ListRange(String, i32, i32),
    SetAdd(String, String),
    SetDel(String, String),
    SetQuery(String),
    Union(Vec<String>),
    Intersection(Vec<String>),
    Pass(u64),
    Restart,
}

fn operations() -> impl Strategy<Value = Op> {
    let key = || proptest::sample::select(vec!["a", "b", "ab", "", "\u{0}", "ü"]).prop_map(String::from);
    let value = || {
        prop_oneof![
            proptest::sample::select(vec!["1", "2", "x", "", "-7", "2147483647"]).prop_map(String::from),
            "\\PC{0,6}",
            Just("long ".repeat(30)),
        ]
    };
    prop_oneof![
        key().prop_map(Op::Get),
        (key(), value(), prop_oneof![Just(0), 1..20_u32]).prop_map(|(k, v, e)| Op::Set(k, v, e)),
        key().prop_map(Op::Del),
        key().prop_map(Op::Contains),
        (key(), any::<i32>().prop_map(|n| n % 100)).prop_map(|(k, n)| Op::Increment(k, n)),
        (key(), value()).prop_map(|(k, v)| Op::ListAdd(k, v)),
        (key(), value()).prop_map(|(k, v)| Op::ListDel(k, v)),
        (key(), -5..5, -5..5).prop_map(|(k, a, b)| Op::ListRange(k, a, b)),
        (key(), value()).prop_map(|(k, v)| Op::SetAdd(k, v)),
        (key(), value()).prop_map(|(k, v)| Op::SetDel(k, v)),
        key().prop_map(Op::SetQuery),
        proptest::collection::vec(key(), 0..4).prop_map(Op::Union),
        proptest::collection::vec(key(), 0..4).prop_map(Op::Intersection),
        (1..8_u64).prop_map(Op::Pass),
        Just(Op::Restart),
    ]
}

#[derive(Clone, Debug)]
enum Held {
    Text(String, Option<u64>),
    List(Vec<String>),
    Set(BTreeSet<String>),
}

/// Redis in a few lines: answers as text, errors as `!`.
#[derive(Default)]
struct Model {
    now: u64,
    keys: BTreeMap<String, Held>,
}

impl Model {
    fn list(&mut self, key: &str) -> Option<Vec<String>> {
        match self.keys.get(key) {
            None => Some(Vec::new()),
            Some(Held::List(list)) => Some(list.clone()),
            Some(_) => None,
        }
    }

    fn set(&mut self, key: &str) -> Option<BTreeSet<String>> {
        match self.keys.get(key) {
            None => Some(BTreeSet::new()),
            Some(Held::Set(set)) => Some(set.clone()),
            Some(_) => None,
        }
    }

    fn keep(&mut self, key: &str, held: Held) {
        let empty = match &held {
            Held::Text(..) => false,
            Held::List(list) => list.is_empty(),
            Held::Set(set) => set.is_empty(),
        };
        if empty {
            self.keys.remove(key);
        } else {
            self.keys.insert(key.into(), held);
        }
    }

    fn run(&mut self, op: &Op) -> String {
        let now = self.now;
        self.keys.retain(|_, held| !matches!(held, Held::Text(_, Some(moment)) if *moment <= now));
        self.try_run(op).unwrap_or_else(|| "!".into())
    }

    fn try_run(&mut self, op: &Op) -> Option<String> {
        Some(match op {
            Op::Get(key) => match self.keys.get(key) {
                None => "None".into(),
                Some(Held::Text(text, _)) => format!("{:?}", Some(text)),
                Some(_) => return None,
            },
            Op::Set(key, value, expires) => {
                let moment = (*expires > 0).then(|| self.now + u64::from(*expires));
                self.keys.insert(key.clone(), Held::Text(value.clone(), moment));
                "()".into()
            }
            Op::Del(key) => self.keys.remove(key).is_some().to_string(),
            Op::Contains(key) => self.keys.contains_key(key).to_string(),
            Op::Increment(key, by) => {
                let (old, moment) = match self.keys.get(key) {
                    None => (0, None),
                    Some(Held::Text(text, moment)) => {
                        (text.parse::<i32>().ok().filter(|number| number.to_string() == *text)?, *moment)
                    }
                    Some(_) => return None,
                };
                let new = old.checked_add(*by)?;
                self.keys.insert(key.clone(), Held::Text(new.to_string(), moment));
                new.to_string()
            }
            Op::ListAdd(key, value) => {
                let mut list = self.list(key)?;
                list.push(value.clone());
                let length = list.len();
                self.keep(key, Held::List(list));
                length.to_string()
            }
            Op::ListDel(key, value) => {
                let mut list = self.list(key)?;
                let before = list.len();
                list.retain(|element| element != value);
                let removed = list.len() < before;
                self.keep(key, Held::List(list));
                removed.to_string()
            }
            Op::ListRange(key, start, stop) => {
                let list = self.list(key)?;
                let length = list.len() as i32;
                let at = |index: i32| if index < 0 { index + length } else { index };
                let (first, last) = (at(*start), at(*stop));
                let within = (0..length).filter(|index| (first..=last).contains(index));
                format!("{:?}", within.map(|index| &list[index as usize]).collect::<Vec<_>>())
            }
            Op::SetAdd(key, value) => {
                let mut set = self.set(key)?;
                let added = set.insert(value.clone());
                self.keep(key, Held::Set(set));
                u32::from(added).to_string()
            }
            Op::SetDel(key, value) => {
                let mut set = self.set(key)?;
                let removed = set.remove(value);
                self.keep(key, Held::Set(set));
                u32::from(removed).to_string()
            }
            Op::SetQuery(key) => format!("{:?}", self.set(key)?),
            Op::Union(keys) => {
                let sets = keys.iter().map(|key| self.set(key)).collect::<Option<Vec<_>>>()?;
                format!("{:?}", sets.into_iter().flatten().collect::<BTreeSet<_>>())
            }
            Op::Intersection(keys) => {
                let sets = keys.iter().map(|key| self.set(key)).collect::<Option<Vec<_>>>()?;
                let all = sets.into_iter().reduce(|a, b| &a & &b).unwrap_or_default();
                format!("{all:?}")
            }
            Op::Pass(seconds) => {
                self.now += seconds;
                String::new()
            }
            Op::Restart => String::new(),
        })
    }
}

fn shown<T: std::fmt::Debug>(answer: Result<T>) -> String {
    answer.map_or_else(
        |error| {
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
            "!".into()
        },
        |answer| format!("{answer:?}"),
    )
}

/// Sets have no order in the contract.
fn sorted(answer: Result<Vec<String>>) -> String {
    shown(answer.map(|members| {
        let count = members.len();
        let members: BTreeSet<String> = members.into_iter().collect();
        assert_eq!(members.len(), count, "no member twice");
        members
    }))
}

fn run(board: &Board, op: &Op) -> String {
    match op {
        Op::Get(key) => {
            shown(board.call::<GetResponse>("Get", key).map(|answer| answer.exists.then_some(answer.value)))
        }
        Op::Set(key, value, expires) => shown(board.set(key, value, *expires)),
        Op::Del(key) => {
            let operation = ["Del", "ListClear", "SetClear"][key.len() % 3];
            shown(board.call::<bool>(operation, key))
        }
        Op::Contains(key) => shown(board.call::<bool>("Contains", key)),
        Op::Increment(key, by) => shown(board.increment(key, *by)),
        Op::ListAdd(key, value) => shown(board.call::<u32>("ListAdd", &list_value(key, value))),
        Op::ListDel(key, value) => shown(board.call::<bool>("ListDel", &list_value(key, value))),
        Op::ListRange(key, start, stop) => {
            let request = ListRangeRequest { list_name: key.clone(), start: *start, stop: *stop };
            shown(board.call::<Vec<String>>("ListRange", &request))
        }
        Op::SetAdd(key, value) => shown(board.call::<u32>("SetAdd", &set_value(key, value))),
        Op::SetDel(key, value) => shown(board.call::<u32>("SetDel", &set_value(key, value))),
        Op::SetQuery(key) => sorted(board.call("SetQuery", key)),
        Op::Union(keys) => sorted(board.call("SetUnion", keys)),
        Op::Intersection(keys) => sorted(board.call("SetIntersection", keys)),
        Op::Pass(seconds) => {
            board.time.pass(*seconds);
            String::new()
        }
        Op::Restart => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn answers_are_those_of_the_model(ops in proptest::collection::vec(operations(), 1..120)) {
        let mut board = Board::new();
        let mut model = Model::default();
        for (number, op) in ops.iter().enumerate() {
            if matches!(op, Op::Restart) {
                board = board.restart();
            }
            prop_assert_eq!(run(&board, op), model.run(op), "operation {}: {:?}", number, op);
        }
    }

    #[test]
    fn any_payload_is_answered(
        operation in proptest::sample::select(vec!["Get", "Set", "Del", "Contains", "Increment", "ListAdd", "ListDel",
            "ListClear", "ListRange", "SetAdd", "SetDel", "SetUnion", "SetIntersection", "SetQuery", "SetClear", "Else"]),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let board = Board::new();
        if let Err(error) = board.raw(link("default", &[]), operation, payload) {
            prop_assert!(matches!(error.kind(), Kind::Invalid | Kind::Limit), "{:?}", error);
        }
    }
}
