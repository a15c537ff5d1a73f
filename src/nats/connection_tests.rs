//! Connections against a real server: late, lost, silent, private, with every way to log in.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use data_encoding::BASE64URL_NOPAD;
use futures_util::StreamExt;
use serde_json::json;

use super::{
    connection::{Answer, Connection, Standing},
    endpoint::{Endpoint, Login, Timing, Tls},
    testing::{NatsServer, connect, eventually, forward, free_port, quick, run, write_certificates},
};
use crate::{
    claims::{KeyPair, Role},
    error::Kind,
};

/// Asks on `subject` until somebody answers, as the barrier between a subscription on one connection and its use on another.
async fn ask(connection: &Connection, subject: &str) -> String {
    for _ in 0..200 {
        match connection.request(subject, None, "hello", Duration::from_secs(1)).await {
            Ok(Answer::Message(message)) => return String::from_utf8(message.payload.to_vec()).unwrap(),
            _ => drop(smol::Timer::after(Duration::from_millis(50)).await),
        }
    }
    panic!("nobody answers on {subject}");
}

async fn echo_on(connection: &Connection, subject: &str) -> super::connection::Background {
    let mut messages = connection.subscribe(subject.to_owned(), None).await.unwrap();
    let answering = connection.clone();
    connection.spawn(async move {
        while let Some(message) = messages.next().await {
            let Some(reply) = message.reply else { continue };
            let _ = answering.publish(reply.to_string(), message.payload).await;
        }
    })
}

#[test]
fn a_server_that_comes_late_goes_and_comes_back_is_found_each_time() {
    run(async {
        let mut server = NatsServer::stopped("");
        let began = Instant::now();
        let connection = Connection::open("test", &server.endpoint(), &quick(), "N1").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(connection.publish("a", "b").await.unwrap_err().kind(), Kind::Unavailable);
        let told = || match connection.standing() {
            Standing::Trying { last_error: Some(why), attempts, next_try: Some(_), .. } => {
                attempts > 1 && why.contains("refused")
            }
            _ => false,
        };
        eventually("the reason is told", told).await;

        server.resume();
        eventually("connected", || connection.is_connected()).await;
        let _echo = echo_on(&connection, "echo").await;
        let other = connect(&server.endpoint(), &quick()).await;
        assert_eq!(ask(&other, "echo").await, "hello");
        assert!(matches!(other.request("nobody.here", None, "", Duration::from_secs(5)).await, Ok(Answer::Nobody)));

        for _ in 0..2 {
            server.kill();
            eventually("lost", || !connection.is_connected()).await;
            let began = Instant::now();
            for _ in 0..5000 {
                assert_eq!(connection.publish("a", "b").await.unwrap_err().kind(), Kind::Unavailable);
            }
            let asked = connection.request("echo", None, "", Duration::from_secs(60)).await;
            assert_eq!(asked.unwrap_err().kind(), Kind::Unavailable);
            assert!(began.elapsed() < Duration::from_secs(5));
            server.resume();
            eventually("back", || connection.is_connected() && other.is_connected()).await;
            assert_eq!(ask(&other, "echo").await, "hello");
        }
    });
}

#[test]
fn a_line_that_went_silent_is_noticed_in_bounded_time() {
    run(async {
        let server = NatsServer::start("");
        let swallow = Arc::new(AtomicBool::new(false));
        let port = free_port();
        forward(port, server.port, swallow.clone());
        let endpoint = Endpoint::parse("127.0.0.1", port, Login::None, Tls::default()).unwrap();
        let connection = connect(&endpoint, &quick()).await;
        let timing = quick();

        swallow.store(true, SeqCst);
        let began = Instant::now();
        let answer = connection.request("x", None, "", Duration::from_millis(200)).await.unwrap();
        assert!(matches!(answer, Answer::Silence));
        assert!(began.elapsed() < Duration::from_secs(1));
        eventually("noticed", || !connection.is_connected()).await;
        assert!(began.elapsed() < timing.silence + Duration::from_secs(1), "{:?}", began.elapsed());

        swallow.store(false, SeqCst);
        eventually("back", || connection.is_connected()).await;
    });
}

#[test]
fn who_listens_to_everything_holds_up_nobody() {
    run(async {
        let server = NatsServer::start("");
        let curious = connect(&server.endpoint(), &quick()).await;
        let _everything = curious.subscribe(">".into(), None).await.unwrap();
        // So that the server has the subscription before the round trip begins.
        curious.round_trip().await.unwrap();
        let patient = Timing { silence: Duration::from_secs(300), ..quick() };
        let connection = connect(&server.endpoint(), &patient).await;
        let done = crate::task::within(Duration::from_secs(60), connection.round_trip()).await;
        done.expect("it does not wait for a silence to end").unwrap();
    });
}

/// Whether a server with `configuration` lets `login` in.
async fn lets_in(server: &NatsServer, login: Login) -> bool {
    let endpoint = Endpoint { login, ..server.endpoint() };
    let connection = Connection::open("test", &endpoint, &quick(), "N1").await.unwrap();
    let decided =
        || connection.is_connected() || matches!(connection.standing(), Standing::Trying { attempts: 2.., .. });
    eventually("decided", decided).await;
    connection.is_connected()
}

#[test]
fn tokens_passwords_and_keys_open_the_door() {
    run(async {
        let server = NatsServer::start("authorization { token: \"t0k3n\" }");
        assert!(lets_in(&server, Login::Token("t0k3n".into())).await);
        assert!(!lets_in(&server, Login::Token("other".into())).await);
        assert!(!lets_in(&server, Login::None).await);

        let key = KeyPair::from_name(Role::User, "board");
        let server = NatsServer::start(&format!(
            "authorization {{ users: [ {{ user: me, password: pass }}, {{ nkey: {} }} ] }}",
            key.public_key()
        ));
        let user = |password: &str| Login::UserPassword { user: "me".into(), password: password.into() };
        assert!(lets_in(&server, user("pass")).await);
        assert!(!lets_in(&server, user("word")).await);
        assert!(lets_in(&server, Login::from_jwt_and_seed("", key.seed().expose()).unwrap()).await);
        let stranger = KeyPair::from_name(Role::User, "stranger");
        assert!(!lets_in(&server, Login::Nkey { seed: stranger.seed().expose().into() }).await);
    });
}

/// A token of the servers' own kind.
fn nats_token(issuer: &KeyPair, subject: &KeyPair, nats: serde_json::Value) -> String {
    let header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let payload = json!({
        "jti": subject.public_key().to_string(), "iat": 1_700_000_000, "name": "test",
        "iss": issuer.public_key().to_string(), "sub": subject.public_key().to_string(), "nats": nats
    });
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(payload.to_string().as_bytes()));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

#[test]
fn user_tokens_open_the_door_from_settings_and_from_a_file() {
    run(async {
        let key = |role, name| KeyPair::from_name(role, name);
        let (operator, account, user) = (key(Role::Operator, "o"), key(Role::Account, "a"), key(Role::User, "u"));
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1});
        let operator_token = nats_token(&operator, &operator, json!({"type": "operator", "version": 2}));
        let account_token = nats_token(&operator, &account, json!({"type": "account", "version": 2, "limits": limits}));
        let user_token =
            nats_token(&account, &user, json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
        let server = NatsServer::stopped("");
        fs::write(
            server.path("nats.conf"),
            format!(
                "listen: \"127.0.0.1:{}\"\noperator: {operator_token}\nresolver: MEMORY\nresolver_preload {{ {}: {account_token} }}\n",
                server.port,
                account.public_key()
            ),
        )
        .unwrap();
        let mut server = server;
        server.resume();
        let seed = user.seed();
        let login = Login::from_jwt_and_seed(&user_token, seed.expose()).unwrap();
        assert!(lets_in(&server, login).await, "{}", server.log());

        let file = server.path("user.creds");
        let write = |seed: &str| {
            fs::write(
                &file,
                format!(
                    "-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
                ),
            )
            .unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(seed.expose());
        assert!(lets_in(&server, Login::CredentialsFile(file.clone())).await);
        let other = key(Role::User, "other");
        write(other.seed().expose());
        assert!(!lets_in(&server, Login::CredentialsFile(file.clone())).await);
        write(seed.expose());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!lets_in(&server, Login::CredentialsFile(file.clone())).await, "others may read it");
        fs::remove_file(&file).unwrap();
        assert!(!lets_in(&server, Login::CredentialsFile(file.clone())).await);
    });
}

#[test]
fn a_private_line_with_certificates_of_both_sides_survives_a_new_server_certificate() {
    run(async {
        let mut server = NatsServer::stopped(
            "tls { cert_file: \"{dir}/server.pem\", key_file: \"{dir}/server.key\", ca_file: \"{dir}/ca.pem\", verify: true }",
        );
        write_certificates(server.directory.path(), &["server", "client"]);
        server.resume();
        let tls = Tls {
            required: true,
            first: false,
            ca: Some(server.path("ca.pem")),
            certificate: Some((server.path("client.pem"), server.path("client.key"))),
        };
        let endpoint = Endpoint { tls: tls.clone(), ..server.endpoint() };
        let connection = connect(&endpoint, &quick()).await;
        let _echo = echo_on(&connection, "echo").await;
        assert_eq!(ask(&connection, "echo").await, "hello");

        let without = Endpoint { tls: Tls { certificate: None, ..tls.clone() }, ..server.endpoint() };
        let refused = Connection::open("test", &without, &quick(), "N2").await.unwrap();
        eventually("refused", || matches!(refused.standing(), Standing::Trying { attempts: 2.., .. })).await;

        // Everything is signed anew by another authority, as after a leak.
        server.kill();
        write_certificates(server.directory.path(), &["server", "client"]);
        server.resume();
        eventually("back", || connection.is_connected()).await;
        assert_eq!(ask(&connection, "echo").await, "hello");
    });
}
