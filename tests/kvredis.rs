//! `kvredis` as a process on a real Redis; the test plays its host. With a real host: `tests/provider_sdk.rs`.

mod support;

use std::{path::Path, thread, time::Duration};

use data_encoding::HEXLOWER;
use latticed::wire::interface::{
    GetResponse, IncrementRequest, KEY_VALUE, ListRangeRequest, ListValueRequest, SetRequest, SetValueRequest,
};
use serde_json::Value;
use support::{
    certificates::Authority,
    nats::eventually,
    played_host::{Health, PlayedHost},
    redis::RedisServer,
};

const ACTOR: &str = "MAU2ZOXBIG6MV4FSFYNJJU2NBPDTMHSSNUF74EWIS6KLZEZCSZW5PMMJ";
const OTHER: &str = "MDT7CYVBBPWFLGX6UGK6JXHIJNUVNDK5FSYJMPVUI3AGQXRLC7ZPBKHD";

fn kvredis(links: &[(&str, &str)], configuration: Option<&str>, environment: &[(&str, &str)]) -> PlayedHost {
    PlayedHost::start(Path::new(env!("CARGO_BIN_EXE_kvredis")), KEY_VALUE, links, configuration, environment)
}

fn set(key: &str, value: &str, expires: u32) -> SetRequest {
    SetRequest { key: key.into(), value: value.into(), expires }
}

fn member(name: &str, value: &str) -> SetValueRequest {
    SetValueRequest { set_name: name.into(), value: value.into() }
}

fn element(name: &str, value: &str) -> ListValueRequest {
    ListValueRequest { list_name: name.into(), value: value.into() }
}

fn add(key: &str, value: i32) -> IncrementRequest {
    IncrementRequest { key: key.into(), value }
}

#[test]
fn every_operation_is_what_redis_says() {
    let redis = RedisServer::start();
    let mut host = kvredis(&[(ACTOR, &redis.url())], None, &[]);
    assert_eq!(host.health(), Health { healthy: true, message: String::new() });
    let get = |key: &str| host.ask::<GetResponse>(ACTOR, "KeyValue.Get", &key).unwrap();
    let there = |value: &str| GetResponse { value: value.into(), exists: true };

    assert_eq!(get("k"), GetResponse::default());
    assert_eq!(host.call(ACTOR, "KeyValue.Set", &rmp_serde::to_vec_named(&set("k", "größe", 0)).unwrap()), Ok(vec![]));
    assert_eq!(get("k"), there("größe"));
    assert_eq!(host.ask(ACTOR, "KeyValue.Contains", &"k"), Ok(true));
    assert_eq!(host.ask(ACTOR, "KeyValue.Del", &"k"), Ok(true));
    assert_eq!(host.ask(ACTOR, "KeyValue.Del", &"k"), Ok(false));
    assert_eq!(host.ask(ACTOR, "KeyValue.Contains", &"k"), Ok(false));

    assert_eq!(host.ask(ACTOR, "KeyValue.Increment", &add("n", 5)), Ok(5));
    assert_eq!(host.ask(ACTOR, "KeyValue.Increment", &add("n", -7)), Ok(-2));
    assert_eq!(get("n"), there("-2"));

    for (length, value) in [(1, "a"), (2, "b"), (3, "a")] {
        assert_eq!(host.ask(ACTOR, "KeyValue.ListAdd", &element("l", value)), Ok(length));
    }
    let range = |start, stop| {
        let request = ListRangeRequest { list_name: "l".into(), start, stop };
        host.ask::<Vec<String>>(ACTOR, "KeyValue.ListRange", &request).unwrap()
    };
    assert_eq!((range(0, -1), range(1, 1)), (vec!["a".into(), "b".into(), "a".into()], vec!["b".into()]));
    assert_eq!(host.ask(ACTOR, "KeyValue.ListDel", &element("l", "a")), Ok(true));
    assert_eq!(range(0, -1), ["b", "a"]);
    assert_eq!(host.ask(ACTOR, "KeyValue.ListDel", &element("l", "z")), Ok(false));
    assert_eq!(host.ask(ACTOR, "KeyValue.ListClear", &"l"), Ok(true));
    assert_eq!(range(0, -1), [""; 0]);

    for (set, value) in [("s", "1"), ("s", "2"), ("t", "2"), ("t", "3")] {
        assert_eq!(host.ask(ACTOR, "KeyValue.SetAdd", &member(set, value)), Ok(1));
    }
    assert_eq!(host.ask(ACTOR, "KeyValue.SetAdd", &member("s", "1")), Ok(0));
    let members = |operation: &str, keys: &dyn Fn() -> Vec<u8>| {
        let answer = host.call(ACTOR, operation, &keys()).unwrap();
        let mut members: Vec<String> = rmp_serde::from_slice(&answer).unwrap();
        members.sort();
        members
    };
    let both = || rmp_serde::to_vec_named(&["s", "t"]).unwrap();
    assert_eq!(members("KeyValue.SetUnion", &both), ["1", "2", "3"]);
    assert_eq!(members("KeyValue.SetIntersection", &both), ["2"]);
    assert_eq!(members("KeyValue.SetQuery", &|| rmp_serde::to_vec_named("s").unwrap()), ["1", "2"]);
    assert_eq!(members("KeyValue.SetUnion", &|| rmp_serde::to_vec_named::<[&str; 0]>(&[]).unwrap()), [""; 0]);
    assert_eq!(host.ask(ACTOR, "KeyValue.SetDel", &member("s", "1")), Ok(1));
    assert_eq!(host.ask(ACTOR, "KeyValue.SetDel", &member("s", "1")), Ok(0));
    assert_eq!(host.ask(ACTOR, "KeyValue.SetClear", &"s"), Ok(true));
    assert_eq!(host.ask(ACTOR, "KeyValue.SetClear", &"s"), Ok(false));

    // What cannot be done is said, and by whom.
    let refused = |operation: &str, request: &dyn Fn() -> Vec<u8>| host.call(ACTOR, operation, &request()).unwrap_err();
    let wrong = refused("KeyValue.Get", &|| rmp_serde::to_vec_named("t").unwrap());
    assert!(wrong.contains("Redis at 127.0.0.1") && wrong.contains("WRONGTYPE"), "{wrong}");
    assert_eq!(refused("KeyValue.Nope", &Vec::new), "method not handled KeyValue.Nope");
    assert!(refused("KeyValue.Set", &|| vec![1]).contains("cannot decode the KeyValue.Set request"));
    let _: i32 = host.ask(ACTOR, "KeyValue.Increment", &add("high", i32::MAX)).unwrap();
    let too_high = host.ask::<i32>(ACTOR, "KeyValue.Increment", &add("high", 1)).unwrap_err();
    assert!(too_high.contains("the counter high stands at 2147483648"), "{too_high}");
    let mut direct = redis.connect();
    let () = redis::cmd("SET").arg("bytes").arg(&[0xff_u8, 0xfe][..]).query(&mut direct).unwrap();
    assert!(host.ask::<GetResponse>(ACTOR, "KeyValue.Get", &"bytes").unwrap_err().contains("Redis at"));

    let (status, log) = host.shut_down();
    assert!(status.success(), "{status}: {log}");
}

#[test]
fn values_expire_when_they_were_told_to() {
    let redis = RedisServer::start();
    let mut host = kvredis(&[(ACTOR, &redis.url())], None, &[]);
    host.health();
    for (key, expires) in [("for ever", 0), ("an hour", 3600), ("at once", 1)] {
        let request = rmp_serde::to_vec_named(&set(key, "x", expires)).unwrap();
        assert_eq!(host.call(ACTOR, "KeyValue.Set", &request), Ok(vec![]));
    }
    let mut direct = redis.connect();
    let mut left = |key: &str| redis::cmd("TTL").arg(key).query::<i64>(&mut direct).unwrap();
    assert_eq!(left("for ever"), -1);
    assert!((3000..=3600).contains(&left("an hour")));
    eventually("it expires", || !host.ask::<bool>(ACTOR, "KeyValue.Contains", &"at once").unwrap());
    assert_eq!(host.ask(ACTOR, "KeyValue.Contains", &"an hour"), Ok(true));
}

#[test]
fn the_bytes_are_those_of_the_first_party_interface() {
    let redis = RedisServer::start();
    let mut host = kvredis(&[(ACTOR, &redis.url())], None, &[]);
    host.health();
    let vectors: Value = serde_json::from_str(include_str!("vectors/interfaces.json")).unwrap();
    let hex = |value: &Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
    let mut direct = redis.connect();
    let () = redis::cmd("SET").arg("counter").arg(4).query(&mut direct).unwrap();
    for operation in ["KeyValue.Set", "KeyValue.Get", "KeyValue.Contains", "KeyValue.Increment"] {
        let case = &vectors[operation];
        assert_eq!(
            host.call(ACTOR, operation, &hex(&case["request_hex"])),
            Ok(hex(&case["response_hex"])),
            "{operation}"
        );
    }
}

#[test]
fn each_link_has_its_own_redis_and_the_start_configuration_names_the_usual_one() {
    let (one, two) = (RedisServer::start(), RedisServer::start());
    let configuration = format!("{{\"url\":\"{}\"}}", two.url());
    let mut host = kvredis(&[(ACTOR, &one.url())], Some(&configuration), &[]);
    host.health();
    host.tell_link("put", OTHER, "");
    host.wait_for(&format!("linked actor_id={OTHER}"));
    assert_eq!(host.ask(ACTOR, "KeyValue.Increment", &add("n", 1)), Ok(1));
    assert_eq!(host.ask(OTHER, "KeyValue.Increment", &add("n", 10)), Ok(10));
    assert_eq!(redis::cmd("GET").arg("n").query::<i32>(&mut one.connect()), Ok(1));
    assert_eq!(redis::cmd("GET").arg("n").query::<i32>(&mut two.connect()), Ok(10));

    // Another database of the same server, by another value.
    host.tell_link("del", OTHER, "");
    host.tell_link("put", OTHER, &format!("{}/3", one.url()));
    host.wait_for(&format!("unlinked actor_id={OTHER}"));
    eventually("linked again", || host.ask(OTHER, "KeyValue.Increment", &add("n", 100)) == Ok(100));
    host.tell_link("del", OTHER, "");
    eventually("unlinked", || {
        host.ask::<bool>(OTHER, "KeyValue.Contains", &"n") == Err(format!("unlinked actor: '{OTHER}'"))
    });

    host.tell_link("put", OTHER, "redis://me:swordfish@nowhere:port");
    host.wait_for("cannot be linked: URL cannot be used");
    let (status, log) = host.shut_down();
    assert!(status.success() && !log.contains("swordfish"), "{status}: {log}");
}

#[test]
fn a_redis_that_is_away_is_told_of_and_found_again() {
    let mut redis = RedisServer::start();
    let mut host = kvredis(&[(ACTOR, &redis.url())], None, &[]);
    assert!(host.health().healthy);
    assert_eq!(host.ask(ACTOR, "KeyValue.Increment", &add("n", 1)), Ok(1));
    redis.kill();
    let health = host.health();
    assert!(!health.healthy && health.message.contains(&redis.port().to_string()), "{health:?}");
    let refused = host.ask::<i32>(ACTOR, "KeyValue.Increment", &add("n", 1)).unwrap_err();
    assert!(refused.contains("Redis at"), "{refused}");
    redis.resume();
    eventually("well again", || host.health().healthy);
    assert_eq!(host.ask(ACTOR, "KeyValue.Increment", &add("n", 1)), Ok(2));

    // Restarted while nobody asked: the first call after it works.
    thread::sleep(Duration::from_millis(1500));
    redis.kill();
    redis.resume();
    assert_eq!(host.ask(ACTOR, "KeyValue.Increment", &add("n", 1)), Ok(3));
    redis.kill();
    redis.resume();
    assert_eq!(host.ask(ACTOR, "KeyValue.Get", &"n"), Ok(GetResponse { value: "3".into(), exists: true }));
}

#[test]
fn tls_is_spoken_with_the_certificates_of_the_system() {
    let authority = Authority::new("redis authority");
    let redis = RedisServer::with_tls(|folder| authority.issue(folder, "redis"));
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let url = format!("rediss://127.0.0.1:{}", redis.port());
    let mut trusting = kvredis(&[(ACTOR, &url)], None, &[("SSL_CERT_FILE", ca.to_str().unwrap())]);
    assert!(trusting.health().healthy, "{}", trusting.log());
    assert_eq!(trusting.ask(ACTOR, "KeyValue.Increment", &add("n", 1)), Ok(1));

    let strange = folder.path().join("other.pem");
    std::fs::write(&strange, Authority::new("another").pem()).unwrap();
    let mut doubting = kvredis(&[(ACTOR, &url)], None, &[("SSL_CERT_FILE", strange.to_str().unwrap())]);
    let health = doubting.health();
    assert!(!health.healthy && health.message.contains("certificate"), "{health:?}");
}

#[test]
fn it_says_why_it_does_not_start() {
    for configuration in ["{\"url\":\"redis://me:swordfish@h:x\"}", "{\"url\":swordfish}"] {
        let mut host = kvredis(&[], Some(configuration), &[]);
        let (status, log) = host.ended();
        assert_eq!(status.code(), Some(3), "{log}");
        assert!(log.contains("start configuration") && !log.contains("swordfish"), "{log}");
    }
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_kvredis")).arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("URL=redis://"));
}
