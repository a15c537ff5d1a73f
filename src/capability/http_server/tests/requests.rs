//! What reaches the actor and what reaches the client.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::harness::{ACTOR, Client, Server, describe, echo};
use crate::{
    capability::http_server::Settings,
    error::{Error, Kind},
    wire::{Entity, codec, interface::HttpResponse},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

fn ok(body: &str) -> HttpResponse {
    HttpResponse { status_code: 200, header: BTreeMap::new(), body: body.as_bytes().to_vec() }
}

#[test]
fn a_request_reaches_the_actor_as_the_contract_says() {
    let server = echo();
    let address = server.link(&[]);
    let before = Instant::now();
    let reply =
        Client::connect(address).ask("POST /a%20b/c?x=1&y=%26 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!((reply.status, reply.text()), (200, "POST /a%20b/c x=1&y=%26 hello"));
    let calls = server.calls.lock().unwrap();
    assert_eq!(calls[0].origin, Entity::provider("VPROVIDER", "wasmcloud:httpserver", "default"));
    assert_eq!(calls[0].target, Entity::actor(ACTOR));
    assert_eq!(calls[0].operation, "HttpServer.HandleRequest");
    assert_eq!(calls[0].depth, 0);
    let given = calls[0].deadline - before;
    assert!(given >= Settings::default().timeout && given < Settings::default().timeout + Duration::from_secs(5));
}

#[test]
fn headers_arrive_in_lower_case_with_all_their_values() {
    let server = Server::start(Settings::default(), |request, _| async move {
        Ok(ok(&format!("{:?} {:?}", request.header["x-many"], request.header.get("x-bin"))))
    });
    let address = server.link(&[]);
    let reply = Client::connect(address)
        .ask(b"GET / HTTP/1.1\r\nhost: x\r\nX-Many: one\r\nX-MANY: two, three\r\nX-Bin: \xff\xfe\r\n\r\n");
    // Latin-1, where it is no UTF-8.
    assert_eq!(reply.text(), r#"["one", "two, three"] Some(["ÿþ"])"#);
}

#[test]
fn a_header_value_beyond_ascii_arrives() {
    let server =
        Server::start(Settings::default(), |request, _| async move { Ok(ok(&request.header["x-name"].join("|"))) });
    let reply = Client::connect(server.link(&[])).ask("GET / HTTP/1.1\r\nhost: x\r\nX-Name: Größe €\r\n\r\n");
    assert_eq!(reply.text(), "Größe €");
}

#[test]
fn every_value_of_a_response_header_is_sent() {
    let server = Server::start(Settings::default(), |_, _| async move {
        let header = BTreeMap::from([
            ("Set-Cookie".to_owned(), vec!["a=1".to_owned(), "b=2".to_owned()]),
            ("X-Empty".to_owned(), vec![]),
        ]);
        Ok(HttpResponse { status_code: 201, header, body: vec![] })
    });
    let reply = Client::connect(server.link(&[])).ask(GET);
    let cookies: Vec<_> = reply.headers.iter().filter(|(name, _)| name == "set-cookie").map(|(_, v)| v).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!((reply.status, reply.header("content-length"), reply.header("x-empty")), (201, Some("0"), None));
}

#[test]
fn a_connection_serves_many_requests_and_pipelined_ones_in_order() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    for number in 0..5 {
        assert_eq!(client.ask(format!("GET /{number} HTTP/1.1\r\nhost: x\r\n\r\n")).text(), format!("GET /{number}  "));
    }
    let mut burst = String::new();
    for number in 0..40 {
        burst.push_str(&format!("POST /{number} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{number:02}"));
    }
    client.send(burst);
    for number in 0..40 {
        assert_eq!(client.reply().unwrap().text(), format!("POST /{number}  {number:02}"));
    }
    let last = client.ask("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(last.header("connection"), Some("close"));
    assert!(client.closed());
}

#[test]
fn http_1_0_clients_are_answered_and_closed() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    assert_eq!(client.ask("GET /old HTTP/1.0\r\n\r\n").text(), "GET /old  ");
    assert!(client.closed());
}

#[test]
fn a_connection_is_closed_politely_after_its_share_of_requests() {
    let settings = Settings { requests_per_connection: 3, ..Settings::default() };
    let server = Server::start(settings, |_, _| async { Ok(ok("")) });
    let mut client = Client::connect(server.link(&[]));
    assert_eq!(client.ask(GET).header("connection"), None);
    assert_eq!(client.ask(GET).header("connection"), None);
    assert_eq!(client.ask(GET).header("connection"), Some("close"));
    assert!(client.closed());
}

#[test]
fn head_is_answered_without_a_body() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    client.send("HEAD /page HTTP/1.1\r\nhost: x\r\n\r\n");
    let reply = client.reply_to_head().unwrap();
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("12")));
    assert_eq!(client.ask(GET).text(), "GET /  ", "nothing of the body was sent");
}

#[test]
fn statuses_without_a_body_stay_without_one() {
    for status_code in [204, 304] {
        let server = Server::start(Settings::default(), move |_, _| async move {
            Ok(HttpResponse { status_code, header: BTreeMap::new(), body: b"not allowed here".to_vec() })
        });
        let mut client = Client::connect(server.link(&[]));
        assert_eq!(client.ask(GET).status, status_code);
        assert_eq!(client.ask(GET).status, status_code, "the next answer stands where it should");
    }
}

#[test]
fn a_chunked_body_arrives_whole() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    let reply = client.ask(
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\nx-trailer: 1\r\n\r\n",
    );
    assert_eq!(reply.text(), "POST /  abcdefg");
    assert_eq!(client.ask(GET).status, 200);
}

#[test]
fn a_large_body_goes_there_and_back() {
    let server = Server::start(Settings::default(), |request, _| async move {
        Ok(HttpResponse { status_code: 200, header: BTreeMap::new(), body: request.body })
    });
    let mut client = Client::connect(server.link(&[]));
    let body: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    client.send(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len()));
    client.send(&body);
    assert!(client.reply().unwrap().body == body);
}

#[test]
fn expect_100_continue_gets_its_go_ahead() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(client.reply().unwrap().status, 100);
    assert_eq!(client.ask("body").text(), "POST /  body");
}

#[test]
fn each_kind_of_error_has_its_status_and_none_its_text() {
    let cases = [
        (Kind::Timeout, 504, None),
        (Kind::NotFound, 503, Some("1")),
        (Kind::Unavailable, 503, Some("1")),
        (Kind::Busy, 503, Some("1")),
        (Kind::Limit, 500, None),
        (Kind::Guest, 500, None),
        (Kind::Denied, 500, None),
        (Kind::Internal, 500, None),
        (Kind::Invalid, 502, None),
    ];
    for (kind, status, retry_after) in cases {
        let server = Server::start(Settings::default(), move |_, _| async move {
            Err(Error::new(kind, "the secret inside of /etc/actor"))
        });
        let mut client = Client::connect(server.link(&[]));
        let reply = client.ask(GET);
        assert_eq!((reply.status, reply.header("retry-after")), (status, retry_after), "{kind:?}");
        assert!(!reply.text().contains("secret"), "{kind:?}: {}", reply.text());
        assert!(reply.text().ends_with('\n'));
        assert_eq!(client.ask(GET).status, status, "the connection goes on");
    }
}

#[test]
fn an_answer_that_http_cannot_carry_is_a_bad_gateway() {
    let header = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), vec![value.to_owned()])]);
    let answers = [
        HttpResponse { status_code: 42, ..ok("") },
        HttpResponse { status_code: 101, ..ok("") },
        HttpResponse { status_code: 600, ..ok("") },
        HttpResponse { header: header("bad name", "x"), ..ok("") },
        HttpResponse { header: header("", "x"), ..ok("") },
        HttpResponse { header: header("x-inject", "a\r\nset-cookie: stolen=1"), ..ok("") },
        HttpResponse { header: header("x-inject\r\nset-cookie", "stolen=1"), ..ok("") },
        HttpResponse { header: header("x-zero", "a\0b"), ..ok("") },
        HttpResponse { header: header("x-long", &"v".repeat(70_000)), ..ok("") },
        HttpResponse { header: BTreeMap::from([("x-many".into(), vec!["v".into(); 300])]), ..ok("") },
    ];
    for answer in answers {
        let text = format!("{answer:?}");
        let server = Server::start(Settings::default(), move |_, _| std::future::ready(Ok(answer.clone())));
        let mut client = Client::connect(server.link(&[]));
        let reply = client.ask(GET);
        assert_eq!(reply.status, 502, "{text:.100}");
        assert!(!reply.headers.iter().any(|(name, _)| name == "set-cookie"));
        assert_eq!(client.ask(GET).status, 502);
    }
    for garbage in [vec![], vec![0xc1], b"hello".to_vec(), codec::encode("text").unwrap(), vec![0xdf; 64]] {
        let server =
            Server::start_raw(Settings::default(), move |_, _| Box::pin(std::future::ready(Ok(garbage.clone()))));
        assert_eq!(Client::connect(server.link(&[])).ask(GET).status, 502);
    }
}

#[test]
fn an_actor_cannot_touch_the_framing() {
    let server = Server::start(Settings::default(), |request, _| async move {
        let header = ["Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Upgrade", "Trailer"]
            .map(|name| (name.to_owned(), vec!["1".to_owned()]));
        Ok(HttpResponse { status_code: 200, header: header.into(), body: describe(&request) })
    });
    let mut client = Client::connect(server.link(&[]));
    for _ in 0..3 {
        let reply = client.ask(GET);
        assert_eq!(reply.text(), "GET /  ");
        for name in ["transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"] {
            assert_eq!(reply.header(name), None);
        }
    }
}

#[test]
fn a_read_only_server_lets_only_reading_through() {
    let server = echo();
    let address = server.link(&[("READONLY_MODE", "true")]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let reply =
            Client::connect(address).ask(format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"));
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(Client::connect(address).ask(GET).status, 200);
    let mut client = Client::connect(address);
    client.send("HEAD / HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(client.reply_to_head().unwrap().status, 200);
    assert_eq!(server.calls.lock().unwrap().len(), 2);
}

#[test]
fn cache_control_is_added_to_what_was_read_successfully() {
    let server = Server::start(Settings::default(), |request, _| async move {
        let header = match request.path.as_str() {
            "/own" => BTreeMap::from([("cache-control".to_owned(), vec!["no-store".to_owned()])]),
            _ => BTreeMap::new(),
        };
        let status_code = if request.path == "/missing" { 404 } else { 200 };
        Ok(HttpResponse { status_code, header, body: vec![] })
    });
    let mut client = Client::connect(server.link(&[("cache_control", "max-age=60")]));
    let mut ask = |method: &str, path: &str| {
        let reply = client.ask(format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"));
        reply.header("cache-control").map(str::to_owned)
    };
    assert_eq!(ask("GET", "/").as_deref(), Some("max-age=60"));
    assert_eq!(ask("GET", "/own").as_deref(), Some("no-store"));
    assert_eq!(ask("GET", "/missing"), None);
    assert_eq!(ask("POST", "/"), None);
}

#[test]
fn browsers_on_other_sites_may_do_what_the_link_says() {
    let server = echo();
    let settings = r#"{"cors":{"allowed_origins":["https://good.example"],"allowed_methods":["GET","PUT"],
        "allowed_headers":["x-token"],"exposed_headers":["x-count"],"max_age_secs":60}}"#;
    let mut client = Client::connect(server.link(&[("config_json", settings)]));
    let preflight = |origin: &str, method: &str, headers: &str| {
        format!(
            "OPTIONS /x HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\naccess-control-request-method: {method}\r\n\
             access-control-request-headers: {headers}\r\n\r\n"
        )
    };
    let reply = client.ask(preflight("https://good.example", "PUT", "X-Token"));
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://good.example"));
    assert_eq!(reply.header("access-control-allow-methods"), Some("GET,PUT"));
    assert_eq!(reply.header("access-control-allow-headers"), Some("x-token"));
    assert_eq!(reply.header("access-control-max-age"), Some("60"));
    assert_eq!(reply.header("vary"), Some("origin"));
    assert_eq!(client.ask(preflight("https://evil.example", "PUT", "x-token")).status, 403);
    assert_eq!(client.ask(preflight("https://good.example", "DELETE", "x-token")).status, 403);
    assert_eq!(client.ask(preflight("https://good.example", "GET", "x-token, x-other")).status, 403);
    assert!(server.calls.lock().unwrap().is_empty(), "a preflight is not the actor's business");

    let reply = client.ask("GET / HTTP/1.1\r\nhost: x\r\norigin: https://good.example\r\n\r\n");
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://good.example"));
    assert_eq!(reply.header("access-control-expose-headers"), Some("x-count"));
    let reply = client.ask("GET / HTTP/1.1\r\nhost: x\r\norigin: https://evil.example\r\n\r\n");
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, None));
    assert_eq!(client.ask(GET).header("access-control-allow-origin"), None);
    let plain_options = client.ask("OPTIONS /x HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(plain_options.text(), "OPTIONS /x  ");
}

#[test]
fn without_cors_settings_every_origin_may_read() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    let reply = client.ask("GET / HTTP/1.1\r\nhost: x\r\norigin: https://any.example\r\n\r\n");
    assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), (Some("*"), None));
}

#[test]
fn connect_is_refused() {
    let server = echo();
    let mut client = Client::connect(server.link(&[]));
    assert_eq!(client.ask("CONNECT example.com:80 HTTP/1.1\r\nhost: x\r\n\r\n").status, 501);
    assert!(client.closed());
}
