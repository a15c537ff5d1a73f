//! What hosts are told from afar and must know again after a cold boot without a network.

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use serde_json::{Value, json};

use super::{
    connection::{Answer, Connection},
    lattice_tests::Board,
    testing::{NatsServer, connect, run, steady},
};
use crate::artifact::RegistryLogin;

/// Asks until somebody answers: a host that has just started does not listen yet.
async fn ask(connection: &Connection, tail: &str, body: impl AsRef<[u8]>) -> Value {
    let subject = format!("wasmbus.ctl.default.{tail}");
    for _ in 0..500 {
        let asked = connection.request(subject.clone(), None, body.as_ref().to_vec(), Duration::from_secs(5)).await;
        if let Ok(Answer::Message(message)) = asked {
            return serde_json::from_slice(&message.payload).unwrap();
        }
        smol::Timer::after(Duration::from_millis(20)).await;
    }
    panic!("nobody answers {subject}");
}

/// Every file below `directory`.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn registry_credentials_survive_a_cold_boot_without_a_network() {
    run(async {
        let (mut server, directory) = (NatsServer::start(""), tempfile::tempdir().unwrap());
        let state = directory.path().join("state");
        let board = Board::start("alpha", &state, &server.endpoint()).await;
        let client = connect(&server.endpoint(), &steady()).await;
        let sent = json!({"https://r.example:5000/x": {"registryType": "oci", "username": "u", "password": "swordfish"},
            "useless.example": {"registryType": "oci"}});
        assert_eq!(ask(&client, "registries.put", sent.to_string()).await, json!({"accepted": true, "error": ""}));
        let refused = ask(&client, "registries.put", "[]").await;
        assert!(refused["error"].as_str().unwrap().starts_with("Failed to update registry credential map"));
        let many: serde_json::Map<String, Value> =
            (0..64).map(|n| (format!("{n}.example"), json!({"registryType": "oci", "token": "t"}))).collect();
        assert_eq!(ask(&client, "registries.put", Value::Object(many).to_string()).await["accepted"], false);
        board.stop().await;
        server.kill();

        for path in files(&state) {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
        let board = Board::start("alpha", &state, &server.endpoint()).await;
        let credentials = board.host.artifacts().credentials();
        let login = RegistryLogin::Basic { user: "u".into(), password: "swordfish".into() };
        assert_eq!(credentials.find("r.example:5000"), Some(login));
        assert_eq!((credentials.find("useless.example"), credentials.find("0.example")), (None, None));
        board.stop().await;
    });
}
