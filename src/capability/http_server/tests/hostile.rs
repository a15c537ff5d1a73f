//! Clients that mean harm: too slow, too large, too many. Each ends in its own clear answer while a good one is served.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use super::harness::{Client, PATIENCE, Server};
use crate::{capability::http_server::Settings, wire::interface::HttpResponse};

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A server with short limits, whose actor answers with as many bytes as its path says.
fn impatient(settings: Settings) -> (Server, SocketAddr) {
    let server = Server::start(settings, |request, _| async move {
        let bytes = request.path.trim_start_matches('/').parse().unwrap_or(request.body.len());
        Ok(HttpResponse { status_code: 200, header: BTreeMap::new(), body: vec![b'x'; bytes] })
    });
    let address = server.link(&[]);
    (server, address)
}

fn quick() -> Settings {
    Settings {
        head_timeout: Duration::from_millis(200),
        keep_alive: Duration::from_millis(400),
        stall_timeout: Duration::from_millis(200),
        ..Settings::default()
    }
}

/// Sends `bytes` one by one until the server has enough; answers how long that took.
fn trickle(client: &mut Client, bytes: &[u8], pause: Duration) -> Duration {
    let before = Instant::now();
    client.socket.set_read_timeout(Some(pause)).unwrap();
    for byte in bytes.iter().cycle() {
        assert!(before.elapsed() < PATIENCE, "the server lets itself be held");
        if client.socket.write_all(&[*byte]).is_err() {
            break;
        }
        let mut answer = [0; 1024];
        match client.socket.read(&mut answer) {
            Err(cause) if cause.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => break,
        }
    }
    before.elapsed()
}

#[test]
fn a_slow_loris_is_cut_off_however_it_drips() {
    let (_server, address) = impatient(quick());
    let mut silent = Client::connect(address);
    let mut dripping = Client::connect(address);
    dripping.send("GET / HTTP/1.1\r\nhost: x\r\n");
    let took = trickle(&mut dripping, b"x-a: b\r\n", Duration::from_millis(20));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(silent.closed());
    assert_eq!(Client::connect(address).ask(GET).status, 200);
}

#[test]
fn an_idle_connection_is_closed_after_a_while() {
    let (_server, address) = impatient(quick());
    let mut client = Client::connect(address);
    let before = Instant::now();
    assert_eq!(client.ask(GET).status, 200);
    assert!(client.closed());
    assert!(before.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_body_that_stalls_is_answered_with_408() {
    let (server, address) = impatient(quick());
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf");
    assert_eq!(client.reply().unwrap().status, 408);
    assert!(client.closed());
    assert!(server.calls.lock().unwrap().is_empty());
}

#[test]
fn a_body_that_drips_is_cut_off_though_it_never_stalls() {
    let (_server, address) = impatient(Settings { slowest_bytes_per_second: 10_000, ..quick() });
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n");
    let took = trickle(&mut client, b"x", Duration::from_millis(20));
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[test]
fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let (_server, address) = impatient(quick());
    let mut client = Client::connect(address);
    client.send("GET /8000000 HTTP/1.1\r\nhost: x\r\n\r\n");
    thread::sleep(Duration::from_millis(1200));
    let mut all = Vec::new();
    let _ = client.socket.read_to_end(&mut all);
    assert!(all.len() < 8_000_000, "{} bytes came", all.len());
}

#[test]
fn too_many_or_too_large_headers_are_answered_with_431() {
    let (server, address) = impatient(Settings::default());
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let mut client = Client::connect(address);
    assert_eq!(client_status(&mut client, &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n")), 431);
    let mut client = Client::connect(address);
    let large = "y".repeat(64 * 1024);
    assert_eq!(client_status(&mut client, &format!("GET / HTTP/1.1\r\nhost: x\r\nx: {large}\r\n\r\n")), 431);
    let mut client = Client::connect(address);
    let target = "y".repeat(64 * 1024);
    assert!([414, 431].contains(&client_status(&mut client, &format!("GET /{target} HTTP/1.1\r\nhost: x\r\n\r\n"))));
    assert!(server.calls.lock().unwrap().is_empty());
}

/// The status of the answer, whether or not the server took the whole request.
fn client_status(client: &mut Client, request: &str) -> u16 {
    let _ = client.socket.write_all(request.as_bytes());
    client.reply().expect("an answer before the end").status
}

#[test]
fn malformed_requests_are_answered_with_400_and_never_reach_the_actor() {
    let (server, address) = impatient(Settings::default());
    for request in [
        "NONSENSE\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nhost x\r\n\r\n",
        "GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nx: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ] {
        let mut client = Client::connect(address);
        assert_eq!(client_status(&mut client, request), 400, "{request:?}");
        assert!(client.closed());
    }
    assert!(server.calls.lock().unwrap().is_empty());
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent_and_while_it_comes() {
    let (server, _) = impatient(Settings { max_body_bytes: 1000, ..Settings::default() });
    let address = server.address();
    let mut honest = Client::connect(address);
    honest.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(honest.reply().unwrap().status, 413, "without asking for the body");
    let mut flood = Client::connect(address);
    flood.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 600, "x".repeat(600));
    let _ = flood.socket.write_all(chunk.repeat(3).as_bytes());
    assert_eq!(flood.reply().unwrap().status, 413);
    assert!(server.calls.lock().unwrap().is_empty());
    let mut exact = Client::connect(address);
    let reply = exact.ask(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(1000)));
    assert_eq!((reply.status, reply.body.len()), (200, 1000));
}

#[test]
fn a_body_that_no_invocation_carries_is_refused_whatever_the_link_says() {
    let (server, address) = impatient(Settings { payload_bytes: 1000, max_body_bytes: 10_000, ..Settings::default() });
    let mut client = Client::connect(address);
    client.send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 950\r\n\r\n{}", "x".repeat(950)));
    assert_eq!(client.reply().unwrap().status, 413, "with its head it would be too long");
    let mut client = Client::connect(address);
    let reply = client.ask(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 700\r\n\r\n{}", "x".repeat(700)));
    assert_eq!(reply.status, 200);
    assert_eq!(server.calls.lock().unwrap().len(), 1);
}

#[test]
fn a_body_far_over_the_limit_does_not_hide_the_answer() {
    let (_server, address) = impatient(Settings { max_body_bytes: 1000, ..Settings::default() });
    let mut client = Client::connect(address);
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n");
    let _ = client.socket.write_all(&vec![b'x'; 500_000]);
    assert_eq!(client.reply().expect("the answer, not a reset").status, 413);
}

#[test]
fn bodies_together_cannot_take_more_memory_than_granted() {
    let settings = Settings { body_budget_bytes: 100_000, ..Settings::default() };
    let (_server, address) = impatient(settings);
    let mut first = Client::connect(address);
    first.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\n\r\n");
    first.send(vec![b'x'; 80_000]);
    thread::sleep(Duration::from_millis(300));
    let mut second = Client::connect(address);
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n";
    let reply = second.ask([head.as_bytes(), &vec![b'x'; 50_000]].concat());
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    first.send(vec![b'x'; 10_000]);
    assert_eq!(first.reply().unwrap().status, 200);
    let mut third = Client::connect(address);
    assert_eq!(third.ask([head.as_bytes(), &vec![b'x'; 50_000]].concat()).status, 200, "the memory came back");
}

#[test]
fn a_flood_of_connections_is_bounded_and_idle_ones_make_room() {
    let (_server, address) = impatient(Settings { connections_max: 4, ..Settings::default() });
    // Half-sent heads hold their places.
    let mut holding: Vec<_> = (0..4).map(|_| Client::connect(address)).collect();
    for client in &mut holding {
        client.send("GET / HTTP/1.1\r\n");
    }
    thread::sleep(Duration::from_millis(300));
    let mut turned_away = Client::connect(address);
    let reply = turned_away.reply().expect("a word before the end");
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(turned_away.closed());
    // One becomes idle: the next newcomer takes its place.
    assert_eq!(holding[0].ask("host: x\r\n\r\n").status, 200);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(Client::connect(address).ask(GET).status, 200);
    assert!(holding[0].closed());
}

#[test]
fn a_thousand_short_connections_leave_nothing_behind() {
    let (server, address) = impatient(Settings::default());
    for number in 0..1000 {
        let mut client = Client::connect(address);
        if number % 3 == 0 {
            assert_eq!(client.ask(GET).status, 200);
        } else if number % 3 == 1 {
            client.send("GET / HT");
            let _ = client.socket.shutdown(Shutdown::Both);
        }
    }
    let before = Instant::now();
    smol::block_on(server.provider.stop());
    assert!(before.elapsed() < Duration::from_secs(2), "nothing was in flight");
}
