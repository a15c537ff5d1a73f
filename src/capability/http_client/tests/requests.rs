//! What goes out, what comes back, where redirects lead.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivateKeyDer};

use super::harness::{Client, Server, answer, client, client_with, get, link, provider, read_request, serve};
use crate::{
    allowed_hosts::AllowedHosts,
    capability::http_client::Settings,
    error::Kind,
    wire::interface::{HeaderMap, HttpClientRequest},
};

fn headers(pairs: &[(&str, &[&str])]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, values)| ((*name).to_owned(), values.iter().map(|value| (*value).to_owned()).collect()))
        .collect()
}

#[test]
fn a_request_goes_out_as_asked_and_its_answer_comes_back_whole() {
    let server =
        Server::start(vec![answer("201 Created", "Set-Cookie: a=1\r\nset-cookie: b=2\r\nx-one: 1\r\n", "made")]);
    let request = HttpClientRequest {
        method: "PUT".into(),
        url: server.url("/a%20b?x=1#part"),
        headers: headers(&[("X-Many", &["one", "two"]), ("content-type", &["text/plain"])]),
        body: b"hello".to_vec(),
    };
    let reply = client().ask(&request).unwrap();
    assert_eq!((reply.status_code, reply.body.as_slice()), (201, b"made".as_slice()));
    assert_eq!(reply.header["set-cookie"], ["a=1", "b=2"]);
    assert_eq!(reply.header["x-one"], ["1"]);
    assert!(!reply.header.contains_key("connection"), "headers of the connection stay with it");
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen[0].line, "PUT /a%20b?x=1 HTTP/1.1");
    assert_eq!(seen[0].body, b"hello");
    assert_eq!(seen[0].headers["host"], server.address.to_string());
    assert_eq!(seen[0].headers["x-many"], "two", "both lines came, the last is kept here");
    assert_eq!(seen[0].headers["content-type"], "text/plain");
    assert!(seen[0].headers["user-agent"].starts_with("latticed/"));
}

#[test]
fn every_status_is_an_answer() {
    for (status, code) in [("404 Not Found", 404), ("500 Oops", 500), ("304 Not Modified", 304), ("300 Choose", 300)] {
        let server = Server::start(vec![answer(status, "", "")]);
        assert_eq!(client().ask(&get(server.url("/"))).unwrap().status_code, code);
    }
}

#[test]
fn a_body_goes_with_every_method_that_is_given_one() {
    for method in ["GET", "DELETE", "POST", "PATCH", "REPORT"] {
        let server = Server::start(vec![answer("200 OK", "", "")]);
        let request = HttpClientRequest { method: method.into(), body: b"body".to_vec(), ..get(server.url("/")) };
        assert_eq!(client().ask(&request).unwrap().status_code, 200, "{method}");
        assert_eq!(server.seen.lock().unwrap()[0].body, b"body", "{method}");
    }
    let server = Server::start(vec![answer("200 OK", "", "")]);
    client().ask(&get(server.url("/"))).unwrap();
    assert!(!server.seen.lock().unwrap()[0].headers.contains_key("content-length"), "a GET announces no body");
}

#[test]
fn head_has_no_body() {
    let server = Server::start(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\nconnection: close\r\n\r\n".to_vec()]);
    let reply = client().ask(&HttpClientRequest { method: "HEAD".into(), ..get(server.url("/")) }).unwrap();
    assert_eq!((reply.body.len(), reply.header["content-length"][0].as_str()), (0, "12345"));
}

#[test]
fn a_chunked_answer_is_put_together() {
    let chunked =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let server = Server::start(vec![chunked.to_vec()]);
    let reply = client().ask(&get(server.url("/"))).unwrap();
    assert_eq!(reply.body, b"abcde");
    assert!(!reply.header.contains_key("transfer-encoding"));
}

#[test]
fn headers_that_belong_to_the_connection_are_not_the_actors() {
    let server = Server::start(vec![answer("200 OK", "", "")]);
    let request = HttpClientRequest {
        headers: headers(&[
            ("Connection", &["x-private, keep-alive"]),
            ("X-Private", &["1"]),
            ("Host", &["other.example"]),
            ("Transfer-Encoding", &["chunked"]),
            ("Content-Length", &["999"]),
            ("Proxy-Authorization", &["secret"]),
            ("Expect", &["100-continue"]),
            ("X-Kept", &["1"]),
        ]),
        ..get(server.url("/"))
    };
    client().ask(&request).unwrap();
    let seen = server.seen.lock().unwrap();
    for name in ["x-private", "transfer-encoding", "content-length", "proxy-authorization", "expect"] {
        assert!(!seen[0].headers.contains_key(name), "{name}");
    }
    assert_eq!(seen[0].headers["host"], server.address.to_string());
    assert_eq!(seen[0].headers["x-kept"], "1");
}

#[test]
fn a_link_from_the_lattice_leads_only_where_the_board_lets_it() {
    let server = Server::start(vec![answer("200 OK", "", "here")]);
    let confined = |allow: &str, values: &[(&str, &str)]| {
        let remote_allow = AllowedHosts::parse(allow, "WASMCLOUD_REMOTE_FETCH_ALLOW").unwrap().and_public();
        let client =
            Client { provider: provider(Settings { remote_allow, ..Settings::default() }), link: link(values) };
        smol::block_on(client.provider.link_confined(Arc::clone(&client.link))).map(|()| client)
    };
    let here = [("allowed_hosts", "127.0.0.1,localhost")];
    for url in [server.url("/"), format!("http://localhost:{}/", server.address.port())] {
        let refused = confined("", &here).unwrap().ask(&get(url)).unwrap_err();
        assert!(refused.kind() == Kind::Denied && refused.text().contains("WASMCLOUD_REMOTE_FETCH_ALLOW"), "{refused}");
    }
    assert_eq!(server.seen.lock().unwrap().len(), 0);
    for (name, value) in [("tls_ca_file", "/etc/hostname"), ("proxy", "http://127.0.0.1:1")] {
        let refused = confined("127.0.0.1", &[here[0], (name, value)]).err().expect("it is closed");
        assert!(refused.kind() == Kind::Denied && refused.text().contains("WASMCLOUD_REMOTE=full"), "{refused}");
    }
    // The link's own list still counts.
    let refused = confined("127.0.0.1", &[("allowed_hosts", "example.org")]).unwrap().ask(&get(server.url("/")));
    assert!(refused.is_err_and(|error| error.text().contains("allowed_hosts")));
    assert_eq!(confined("127.0.0.1", &here).unwrap().ask(&get(server.url("/"))).unwrap().body, b"here");
}

#[test]
fn malformed_requests_are_refused_before_anything_is_sent() {
    let client = client();
    let with_header = |name: &str, value: &str| HttpClientRequest {
        headers: headers(&[(name, &[value])]),
        ..get("http://127.0.0.1:1/")
    };
    for request in [
        HttpClientRequest { method: "BAD METHOD".into(), ..get("http://127.0.0.1:1/") },
        HttpClientRequest { method: String::new(), ..get("http://127.0.0.1:1/") },
        with_header("bad name", "x"),
        with_header("x", "a\r\nx-injected: 1"),
        get(""),
        get("/path"),
        get("http://"),
        get("http:///x"),
        get("ftp://127.0.0.1/"),
        get("file:///etc/passwd"),
        get("http://127.0.0.1:99999/"),
        get("http://127.0.0.1:0x50/"),
        get("http://127.0.0.1/\u{e9}\n"),
    ] {
        let error = client.ask(&request).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{request:?}: {error}");
    }
    let connect = HttpClientRequest { method: "CONNECT".into(), ..get("http://127.0.0.1:1/") };
    assert_eq!(client.ask(&connect).unwrap_err().kind(), Kind::Denied);
}

#[test]
fn a_redirect_is_followed_and_changes_the_method_where_it_should() {
    for (status, method, then, body) in [
        ("301 Moved", "POST", "GET", ""),
        ("302 Found", "POST", "GET", ""),
        ("303 See Other", "PUT", "GET", ""),
        ("302 Found", "PUT", "PUT", "data"),
        ("307 Temporary", "POST", "POST", "data"),
        ("308 Permanent", "PUT", "PUT", "data"),
    ] {
        let server =
            Server::start(vec![answer(status, "location: ../next?y\r\n", "moved"), answer("200 OK", "", "there")]);
        let request = HttpClientRequest {
            method: method.into(),
            body: b"data".to_vec(),
            headers: headers(&[("authorization", &["Bearer 1"])]),
            ..get(server.url("/a/b"))
        };
        let reply = client().ask(&request).unwrap();
        assert_eq!((reply.status_code, reply.body.as_slice()), (200, b"there".as_slice()));
        let seen = server.seen.lock().unwrap();
        assert_eq!(seen[1].line, format!("{then} /next?y HTTP/1.1"), "{status} after {method}");
        assert_eq!(seen[1].body, body.as_bytes());
        assert_eq!(seen[1].headers["authorization"], "Bearer 1", "the same server may know it");
    }
}

#[test]
fn another_server_does_not_get_the_credentials() {
    let second = Server::start(vec![answer("200 OK", "", "")]);
    let first = Server::start(vec![answer("302 Found", &format!("location: {}\r\n", second.url("/x")), "")]);
    let request = HttpClientRequest {
        headers: headers(&[("authorization", &["Bearer 1"]), ("cookie", &["c=1"]), ("x-kept", &["1"])]),
        ..get(first.url("/"))
    };
    client().ask(&request).unwrap();
    let seen = second.seen.lock().unwrap();
    assert!(!seen[0].headers.contains_key("authorization") && !seen[0].headers.contains_key("cookie"));
    assert_eq!(seen[0].headers["x-kept"], "1");
}

#[test]
fn each_hop_is_checked_like_the_first() {
    let inside = Server::start(vec![answer("200 OK", "", "secret")]);
    let first = Server::start(vec![answer("302 Found", &format!("location: {}\r\n", inside.url("/")), "")]);
    let only_first = first.address.to_string();
    let client = client_with(Settings::default(), &[("allowed_hosts", &only_first)]);
    let error = client.ask(&get(first.url("/"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.text().contains(&inside.address.to_string()) && error.text().contains("allowed_hosts"), "{error}");
    assert!(inside.seen.lock().unwrap().is_empty());
    for location in ["ftp://127.0.0.1/", "file:///etc/passwd", "http://"] {
        let first = Server::start(vec![answer("302 Found", &format!("location: {location}\r\n"), "")]);
        let error = super::harness::client().ask(&get(first.url("/"))).unwrap_err();
        assert!([Kind::Invalid, Kind::Unavailable].contains(&error.kind()), "{location}: {error}");
    }
}

#[test]
fn this_board_and_its_network_are_out_of_reach_unless_listed() {
    let server = Server::start(vec![answer("200 OK", "", "secret")]);
    let port = server.address.port();
    let default = client_with(Settings::default(), &[]);
    let any = client_with(Settings::default(), &[("ALLOWED_HOSTS", "*, *.localhost, example.com")]);
    for host in
        ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433", "127.1", "0x7f000001"]
    {
        for client in [&default, &any] {
            let error = client.ask(&get(format!("http://{host}:{port}/"))).unwrap_err();
            // Some resolvers do not know the odd spellings, which is as safe.
            assert!([Kind::Denied, Kind::Unavailable].contains(&error.kind()), "{host}: {error}");
        }
    }
    let error = default.ask(&get(format!("http://localhost:{port}/"))).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "the name was resolved, its address refused: {error}");
    assert!(server.seen.lock().unwrap().is_empty());
    let listed = client_with(Settings::default(), &[("allowed_hosts", &format!("localhost:{port}"))]);
    assert_eq!(listed.ask(&get(format!("http://localhost:{port}/"))).unwrap().body, b"secret");
}

#[test]
fn an_error_does_not_tell_what_the_url_held() {
    let error = client().ask(&get("http://user:hunter2@127.0.0.1:1/secret?token=hunter2")).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.text().contains("http://127.0.0.1:1") && !error.text().contains("hunter2"), "{error}");
}

#[test]
fn a_connection_serves_the_next_request_too() {
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let address = serve(move |mut socket| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        while read_request(&mut socket).is_some() {
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        }
    });
    let client = client();
    for _ in 0..5 {
        assert_eq!(client.ask(&get(format!("http://{address}/"))).unwrap().body, b"ok");
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

/// A CA's certificate in PEM and a TLS server with a certificate of that CA for `localhost`.
fn tls_server() -> (String, std::net::SocketAddr) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let address = serve(move |socket| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        let Some(request) = read_request(&mut stream) else { return };
        let target = request.line.split(' ').nth(1).unwrap();
        let reply = if target == "/down" {
            answer("302 Found", "location: http://localhost:1/\r\n", "")
        } else {
            answer("200 OK", "", "private")
        };
        let _ = stream.write_all(&reply);
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (ca.pem(), address)
}

#[test]
fn https_is_trusted_by_a_ca_of_the_link_and_by_no_other() {
    let (ca, address) = tls_server();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, ca).unwrap();
    let values = [("allowed_hosts", "localhost,127.0.0.1"), ("tls_ca_file", path.to_str().unwrap())];
    let trusting = client_with(Settings::default(), &values);
    let url = format!("https://localhost:{}/", address.port());
    assert_eq!(trusting.ask(&get(&url)).unwrap().body, b"private");
    assert_eq!(trusting.ask(&get(&url)).unwrap().body, b"private", "also on the next connection");
    let wrong_name = format!("https://127.0.0.1:{}/", address.port());
    assert_eq!(trusting.ask(&get(wrong_name)).unwrap_err().kind(), Kind::Unavailable);
    let error = client().ask(&get(&url)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "the platform does not know this CA: {error}");
    let error = trusting.ask(&get(format!("https://localhost:{}/down", address.port()))).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied, "from TLS to none: {error}");
}

#[test]
fn link_values_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing").unwrap();
    for (values, part) in [
        (vec![("allowed_hosts", "http://x")], "http://x"),
        (vec![("tls_ca_file", "/nonexistent/ca.pem")], "/nonexistent/ca.pem"),
        (vec![("tls_ca_file", empty.to_str().unwrap())], "empty.pem"),
        (vec![("proxy", "http://proxy.example:3128")], "one by one"),
        (vec![("proxy", "socks5://user:hunter2@x:1"), ("allowed_hosts", "x")], "http://host:port"),
    ] {
        let link = super::harness::link(&values);
        let error = smol::block_on(provider(Settings::default()).link(link)).unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{error}");
        assert!(error.text().contains(part) && error.text().contains("MACTOR"), "{error}");
        assert!(!error.text().contains("hunter2"));
    }
}

#[test]
fn a_proxy_is_asked_to_connect_to_listed_hosts_only() {
    let proxy = serve(|mut socket| {
        let request = read_request(&mut socket).unwrap();
        assert_eq!(request.line, "CONNECT far.example:80 HTTP/1.1");
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let request = read_request(&mut socket).unwrap();
        socket.write_all(&answer("200 OK", "", &request.line)).unwrap();
    });
    let url = format!("http://{proxy}");
    let client = client_with(Settings::default(), &[("proxy", &url), ("allowed_hosts", "far.example")]);
    assert_eq!(client.ask(&get("http://far.example/x")).unwrap().body, b"GET /x HTTP/1.1");
    assert_eq!(client.ask(&get("http://other.example/x")).unwrap_err().kind(), Kind::Denied);
    assert_eq!(client.ask(&get(format!("http://{proxy}/x"))).unwrap_err().kind(), Kind::Denied);
}

#[test]
fn without_a_link_nothing_is_asked() {
    let server = Server::start(vec![answer("200 OK", "", "")]);
    let client = client();
    smol::block_on(client.provider.unlink(Arc::clone(&client.link)));
    assert_eq!(client.ask(&get(server.url("/"))).unwrap_err().kind(), Kind::NotFound);
    smol::block_on(client.provider.link(Arc::clone(&client.link))).unwrap();
    assert_eq!(client.ask(&get(server.url("/"))).unwrap().status_code, 200);
    smol::block_on(client.provider.stop());
    assert_eq!(client.ask(&get(server.url("/"))).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn the_request_of_the_contract_is_read() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/interfaces.json")).unwrap();
    let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bytes = data_encoding::HEXLOWER
        .decode(vectors["HttpClient.Request"]["request_hex"].as_str().unwrap().as_bytes())
        .unwrap();
    let request: HttpClientRequest = crate::wire::codec::decode("request", &bytes).unwrap();
    let expected = HttpClientRequest {
        method: "GET".into(),
        url: "http://127.0.0.1/".into(),
        headers: BTreeMap::from([("content-type".to_owned(), vec!["text/plain".to_owned()])]),
        body: vec![],
    };
    assert_eq!(request, expected);
    assert_eq!(crate::wire::codec::encode(&expected).unwrap(), bytes);
}
