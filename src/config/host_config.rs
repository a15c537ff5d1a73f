//! The file that tells `wash` how to reach this host's lattice (`protocol/config.md §1`).
//!
//! Hosts of this protocol always write it; this one writes it only where `HOST_CONFIG` says so, because it holds the
//! secrets of the lattice and a board's SD card is easily taken away. It is written once, at start.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde_json::{Map, Value, json};

use super::{Config, value::Kind};
use crate::{
    claims::KeyPair,
    error::{Error, Result},
};

/// Settings that are this host's own affair and stay out of the file.
const LEFT_OUT: &[&str] = &["host_seed", "log_level", "structured_logging_enabled", "host_config"];

/// The content: every setting in effect under its JSON name, and the public half of `cluster`.
///
/// `cluster` is the key in use, which the host may have made itself; without it `wash call` cannot sign.
pub fn content(config: &Config, cluster: Option<&KeyPair>) -> Value {
    let mut members = Map::new();
    for found in config.values() {
        let setting = found.setting;
        if setting.json.is_empty() || LEFT_OUT.contains(&setting.json) {
            continue;
        }
        let value = match setting.kind {
            Kind::Flag => json!(found.value == "true"),
            Kind::Count { .. } | Kind::Bytes { .. } | Kind::Millis { .. } => {
                found.value.parse::<u64>().map_or(Value::Null, Value::from)
            }
            Kind::List | Kind::Keys(_) => found.value.split(',').filter(|item| !item.is_empty()).collect(),
            // Readers insist on text here, "" where there is none; the one seed of this file comes below.
            Kind::Seed(_) => json!(""),
            Kind::Secret => json!(found.value),
            _ if found.value.is_empty() => Value::Null,
            _ => json!(found.value),
        };
        members.insert(setting.json.to_owned(), value);
    }
    if let Some(cluster) = cluster {
        members.insert("cluster_seed".into(), json!(cluster.seed().expose()));
        members.insert("cluster_key".into(), json!(cluster.public_key().to_string()));
    }
    Value::Object(members)
}

/// Writes `content` to `path` with mode 0600, replacing the file as a whole. Blocks.
///
/// # Errors
/// `Storage`: the directory does not exist or cannot be written.
pub fn write(path: &Path, content: &Value) -> Result<()> {
    let failed = |cause: io::Error| Error::storage(format!("cannot write HOST_CONFIG {}: {cause}", path.display()));
    let mut name = path.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?.to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(format!("{content:#}\n").as_bytes())?;
        fs::rename(&temporary, path)
    };
    written().map_err(|cause| {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        failed(cause)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::{
        claims::Role,
        config::{Given, Sources, surroundings::Surroundings},
    };

    fn config(given: &[(&'static str, &str)]) -> Config {
        let given = given.iter().map(|(setting, value)| Given { setting, flag: "--test", value: (*value).into() });
        let sources = Sources { given: given.collect(), surroundings: Surroundings::of_root(), ..Sources::default() };
        Config::from_sources(&sources, &[]).expect("good settings")
    }

    #[test]
    fn it_has_what_wash_insists_on_and_not_what_is_the_hosts_own() {
        let cluster = KeyPair::generate(Role::Cluster).expect("random numbers");
        let config = config(&[("WASMCLOUD_RPC_PORT", "4333"), ("WASMCLOUD_OCI_ALLOWED_INSECURE", "a:1, b:2")]);
        let content = content(&config, Some(&cluster));
        for member in ["ctl_jwt", "ctl_seed", "rpc_jwt", "rpc_seed"] {
            assert_eq!(content[member], "", "{member}");
        }
        assert_eq!(content["cluster_seed"], cluster.seed().expose());
        assert_eq!(content["cluster_key"], cluster.public_key().to_string());
        assert_eq!((&content["rpc_port"], &content["ctl_host"]), (&json!(4333), &json!("127.0.0.1")));
        assert_eq!(content["allowed_insecure"], json!(["a:1", "b:2"]));
        assert_eq!(content["js_domain"], Value::Null);
        for member in ["host_seed", "log_level", "host_config", "WASMCLOUD_STATE_DIR", ""] {
            assert!(content.get(member).is_none(), "{member}");
        }
    }

    #[test]
    fn the_file_is_private_and_replaced_whole() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("host_config.json");
        fs::write(&path, "old").expect("a file");
        write(&path, &json!({"a": 1})).expect("a writable directory");
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!((mode & 0o777, fs::read_to_string(&path).expect("the file")), (0o600, "{\n  \"a\": 1\n}\n".into()));
        assert_eq!(fs::read_dir(directory.path()).expect("the directory").count(), 1);
        let error = write(&directory.path().join("no/such"), &json!({})).expect_err("no directory");
        assert!(error.text().contains("HOST_CONFIG"), "{error}");
    }

    #[test]
    fn it_is_read_back_as_a_source() {
        let first = config(&[("WASMCLOUD_LATTICE_PREFIX", "farm"), ("WASMCLOUD_RPC_TLS", "yes")]);
        let Value::Object(members) = content(&first, None) else { panic!("an object") };
        let sources = Sources {
            host_config: Some(("host_config.json".into(), members)),
            surroundings: Surroundings::of_root(),
            ..Sources::default()
        };
        let second = Config::from_sources(&sources, &[]).expect("good settings");
        assert_eq!((second.lattice.as_str(), second.rpc.tls.required), ("farm", true));
        assert!(second.warnings.is_empty(), "{:?}", second.warnings);
    }
}
