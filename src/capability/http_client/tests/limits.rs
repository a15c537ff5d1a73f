//! Servers that are slow, large or endless, and actors that ask too much: each ends in its own error, in time.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::harness::{Client, Server, answer, client, client_with, get, read_request, serve};
use crate::{capability::http_client::Settings, error::Kind, wire::interface::HttpClientRequest};

const HERE: [(&str, &str); 1] = [("allowed_hosts", "127.0.0.1")];

#[test]
fn bodies_over_the_limit_are_refused_in_both_directions() {
    let settings = Settings { request_bytes_max: 100, response_bytes_max: 1000, ..Settings::default() };
    let client = client_with(settings, &HERE);
    let large = HttpClientRequest { body: vec![0; 101], ..get("http://127.0.0.1:1/") };
    assert_eq!(client.ask(&large).unwrap_err().kind(), Kind::Limit);
    let exact = Server::start(vec![answer("200 OK", "", &"x".repeat(1000))]);
    assert_eq!(client.ask(&get(exact.url("/"))).unwrap().body.len(), 1000);
    let announced = Server::start(vec![answer("200 OK", "", &"x".repeat(1001))]);
    assert_eq!(client.ask(&get(announced.url("/"))).unwrap_err().kind(), Kind::Limit);
    let endless = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
        while socket.write_all(&[b'x'; 1024]).is_ok() {}
    });
    let error = client.ask(&get(format!("http://{endless}/"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit, "{error}");
}

#[test]
fn a_head_without_end_is_refused() {
    let address = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n");
        while socket.write_all(b"x-more: and more and more and more\r\n").is_ok() {}
    });
    let error = client().ask(&get(format!("http://{address}/"))).unwrap_err();
    assert!([Kind::Limit, Kind::Unavailable].contains(&error.kind()), "{error}");
    let large = "y".repeat(20_000);
    let server = Server::start(vec![answer("200 OK", &format!("x-large: {large}\r\n"), "")]);
    assert_eq!(client().ask(&get(server.url("/"))).unwrap().header["x-large"][0].len(), 20_000);
}

#[test]
fn a_ring_of_redirects_ends() {
    let address = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(&answer("302 Found", "location: /again\r\n", ""));
    });
    let error = client().ask(&get(format!("http://{address}/"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert!(error.text().contains("more than 5 times"), "{error}");
}

#[test]
fn the_deadline_holds_wherever_the_server_stalls() {
    let silent = serve(|mut socket| {
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let half_head = serve(|mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nx-");
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let dripping = serve(|mut socket| {
        read_request(&mut socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        while socket.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let ring = serve(|mut socket| {
        read_request(&mut socket);
        thread::sleep(Duration::from_millis(150));
        let _ = socket.write_all(&answer("302 Found", "location: /again\r\n", ""));
    });
    for address in [silent, half_head, dripping, ring] {
        let before = Instant::now();
        let error = client().ask_within(&get(format!("http://{address}/")), Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error}");
        assert!(before.elapsed() >= Duration::from_millis(290), "{:?}", before.elapsed());
        assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    }
}

#[test]
fn the_clients_own_limit_holds_where_the_deadline_is_far() {
    let silent = serve(|mut socket| {
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let settings = Settings { total_timeout: Duration::from_millis(200), ..Settings::default() };
    let error = client_with(settings, &HERE).ask(&get(format!("http://{silent}/"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
}

#[test]
fn a_server_that_refuses_or_hangs_up_is_unavailable() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = client().ask(&get(format!("http://{closed}/"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"garbage\r\n\r\n"] {
        let server = Server::start(vec![bytes.to_vec(); 3]);
        let error = client().ask(&get(server.url("/"))).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}

#[test]
fn only_so_many_requests_run_at_once_and_only_so_many_wait() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (counted, highest) = (Arc::clone(&running), Arc::clone(&most));
    let address = serve(move |mut socket| {
        read_request(&mut socket);
        highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        counted.fetch_sub(1, Ordering::SeqCst);
        let _ = socket.write_all(&answer("200 OK", "", ""));
    });
    let settings = Settings { concurrent_max: 2, waiting_max: 4, ..Settings::default() };
    let client: Arc<Client> = Arc::new(client_with(settings, &HERE));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let client = Arc::clone(&client);
            thread::spawn(move || client.ask(&get(format!("http://{address}/"))).map_err(|error| error.kind()))
        })
        .collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let answered = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert!((4..=6).contains(&answered), "two ran, four waited: {results:?}");
    assert!(results.iter().all(|result| result.is_ok() || *result == Err(Kind::Busy)), "{results:?}");
}

#[test]
fn a_request_that_nobody_waits_for_keeps_its_place_until_it_ends() {
    let silent = serve(|mut socket| {
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let settings = Settings { concurrent_max: 1, ..Settings::default() };
    let client = client_with(settings, &HERE);
    for _ in 0..3 {
        let error = client.ask_within(&get(format!("http://{silent}/")), Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
    }
    let server = Server::start(vec![answer("200 OK", "", "")]);
    assert_eq!(client.ask(&get(server.url("/"))).unwrap().status_code, 200, "the place came free at the deadline");
}
