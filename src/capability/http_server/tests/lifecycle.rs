//! Links come and go, ports are taken and freed, requests in flight are answered.

use std::{collections::BTreeMap, net::TcpListener, sync::Arc, thread, time::Duration};

use smol::Timer;

use super::harness::{ACTOR, Client, Server, echo, link};
use crate::{
    capability::http_server::Settings,
    error::Kind,
    host::Call,
    wire::{LinkDefinition, interface::HttpResponse},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// A server whose actor takes `pause` for each request.
fn slow(settings: Settings, pause: Duration) -> Server {
    Server::start(settings, move |_, _| async move {
        Timer::after(pause).await;
        Ok(HttpResponse { status_code: 200, header: BTreeMap::new(), body: b"slow".to_vec() })
    })
}

#[test]
fn it_listens_on_every_kind_of_address() {
    for (key, value) in [("address", "127.0.0.1:0"), ("ADDRESS", "[::1]:0"), ("port", "0"), ("Port", "0")] {
        let server = echo();
        let address = server.link(&[(key, value)]);
        assert_ne!(address.port(), 0);
        assert_eq!(server.provider.detail(), format!("http://{address}"));
        assert_eq!(Client::connect(address).ask(GET).status, 200);
    }
}

#[test]
fn unlink_frees_the_port_and_closes_idle_connections_at_once() {
    let server = echo();
    let address = server.link(&[]);
    let mut idle = Client::connect(address);
    assert_eq!(idle.ask(GET).status, 200);
    let mut fresh = Client::connect(address);
    smol::block_on(server.provider.unlink(Arc::new(link(&[]))));
    assert!(idle.closed() && fresh.closed());
    assert_eq!(server.provider.detail(), "");
    let text = address.to_string();
    assert_eq!(server.link(&[("address", &text)]), address, "the same port at once");
    assert_eq!(Client::connect(address).ask(GET).status, 200);
}

#[test]
fn requests_in_flight_are_answered_before_unlink_returns() {
    let server = slow(Settings::default(), Duration::from_millis(300));
    let address = server.link(&[]);
    let mut busy = Client::connect(address);
    busy.send(GET);
    while server.calls.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    smol::block_on(server.provider.unlink(Arc::new(link(&[]))));
    let reply = busy.reply().expect("the answer was sent");
    assert_eq!((reply.text(), reply.header("connection")), ("slow", Some("close")));
    assert!(busy.closed());
}

#[test]
fn who_got_through_before_a_stop_is_answered() {
    let settings =
        Settings { drain: Duration::from_secs(20), late_request: Duration::from_secs(20), ..Settings::default() };
    let server = Server::start(settings, |_, _| async {
        Ok(HttpResponse { status_code: 200, header: BTreeMap::new(), body: b"late".to_vec() })
    });
    let address = server.link(&[]);
    let mut early = Client::connect(address);
    let mut idle = Client::connect(address);
    assert_eq!(idle.ask(GET).status, 200, "so the one before it was accepted too");
    let provider = Arc::clone(&server.provider);
    let stopping = thread::spawn(move || smol::block_on(provider.stop()));
    assert!(idle.closed());
    let reply = early.ask(GET);
    assert_eq!((reply.text(), reply.header("connection")), ("late", Some("close")));
    stopping.join().expect("it stops");
}

#[test]
fn stop_cuts_requests_that_take_longer_than_the_drain_time() {
    struct Cancelled(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Cancelled {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let cancelled = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&cancelled);
    let settings = Settings { drain: Duration::from_millis(100), ..Settings::default() };
    let server = Server::start(settings, move |_, _| {
        let guard = Cancelled(Arc::clone(&seen));
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let mut busy = Client::connect(server.link(&[]));
    busy.send(GET);
    while server.calls.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    let before = std::time::Instant::now();
    smol::block_on(server.provider.stop());
    assert!(before.elapsed() >= Duration::from_millis(100) && before.elapsed() < Duration::from_secs(5));
    assert!(busy.closed());
    while !cancelled.load(std::sync::atomic::Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(server.provider.detail(), "");
}

#[test]
fn a_busy_port_is_reported_with_address_actor_and_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let server = echo();
    let error = smol::block_on(server.provider.link(Arc::new(link(&[("address", &address)])))).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    for part in [address.as_str(), ACTOR, "another `address`"] {
        assert!(error.text().contains(part), "{error}");
    }
}

#[test]
fn two_links_cannot_have_one_address() {
    let server = echo();
    let address = server.link(&[]).to_string();
    smol::block_on(server.provider.stop());
    assert_eq!(server.link(&[("address", &address)]).to_string(), address);
    let other = LinkDefinition { actor_id: "MOTHER".into(), ..link(&[("address", &address)]) };
    let error = smol::block_on(server.provider.link(Arc::new(other))).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    for part in [address.as_str(), ACTOR, "MOTHER"] {
        assert!(error.text().contains(part), "{error}");
    }
}

#[test]
fn a_link_made_again_changes_nothing_and_a_changed_one_moves() {
    let server = echo();
    let first = server.link(&[]);
    assert_eq!(server.link(&[]), first);
    let second = server.link(&[("readonly_mode", "true")]);
    assert_ne!(second, first);
    assert_eq!(Client::connect(second).ask("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").status, 405);
}

#[test]
fn links_of_several_actors_listen_side_by_side() {
    let server = echo();
    server.link(&[]);
    let other = LinkDefinition { actor_id: "MOTHER".into(), ..link(&[]) };
    smol::block_on(server.provider.link(Arc::new(other))).unwrap();
    let detail = server.provider.detail();
    let addresses: Vec<_> = detail.split(", ").map(|url| url.strip_prefix("http://").unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        assert_eq!(Client::connect(address.parse().unwrap()).ask(GET).status, 200);
    }
    let mut targets: Vec<_> = server.calls.lock().unwrap().iter().map(|call| call.target.public_key.clone()).collect();
    targets.sort();
    assert_eq!(targets, [ACTOR, "MOTHER"]);
}

#[test]
fn the_time_out_of_the_link_becomes_the_deadline() {
    let server = echo();
    let before = std::time::Instant::now();
    Client::connect(server.link(&[("config_json", r#"{"timeout_ms": 60000}"#)])).ask(GET);
    assert!(server.calls.lock().unwrap()[0].deadline - before >= Duration::from_secs(60));
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    struct Gone(Arc<std::sync::atomic::AtomicBool>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let gone = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&gone);
    let server = Server::start(Settings::default(), move |_, _| {
        let guard = Gone(Arc::clone(&seen));
        async move {
            let _guard = guard;
            std::future::pending().await
        }
    });
    let mut client = Client::connect(server.link(&[]));
    client.send(GET);
    while server.calls.lock().unwrap().is_empty() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(client);
    let end = std::time::Instant::now() + Duration::from_secs(5);
    while !gone.load(std::sync::atomic::Ordering::SeqCst) {
        assert!(std::time::Instant::now() < end, "the invocation was cancelled");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Tools such as `nc -N` and many libraries close their half of the connection behind their only request.
#[test]
fn who_closes_one_half_behind_the_last_request_is_answered() {
    let server = slow(Settings::default(), Duration::from_millis(200));
    let address = server.link(&[]);
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: TE, Close\r\ncontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut client = Client::connect(address);
        client.send(request);
        client.shut_down();
        assert_eq!(client.reply().expect("an answer").text(), "slow", "{request}");
        assert!(client.closed());
    }
}

/// Half a body and no more: it is not waited for longer than any slow one.
#[test]
fn half_a_body_with_nothing_behind_it_ends() {
    let settings = Settings { stall_timeout: Duration::from_millis(300), ..Settings::default() };
    let server = slow(settings, Duration::ZERO);
    let mut client = Client::connect(server.link(&[]));
    client.send("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 50\r\n\r\nhello");
    client.shut_down();
    assert!(client.reply().is_none_or(|reply| reply.status == 408));
    assert!(server.calls.lock().unwrap().is_empty());
}

#[test]
fn actors_have_nothing_to_call_here() {
    let server = echo();
    let call = Call {
        origin: Default::default(),
        target: Default::default(),
        operation: "HttpServer.HandleRequest".into(),
        payload: vec![],
        deadline: std::time::Instant::now(),
        depth: 0,
        trace: None,
    };
    let error = smol::block_on(server.provider.call(Arc::new(link(&[])), call)).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
}
