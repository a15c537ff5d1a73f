//! What a provider process is told on stdin when it starts: one line of base64 around JSON (`protocol/providers.md §2, §3`).
//!
//! `provider` writes it, `sdk` reads it. Written as the union of what both SDK generations ask for; read leniently, absent
//! and null members alike. It holds seeds: no `Debug`, no log, no file.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{LinkDefinition, json};
use crate::error::{Error, Result};

/// Longest line, bytes. Four thousand links with values of half a KiB fit; longer is a mistake, and the sender is told.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;

/// The host data of one provider process.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostData {
    /// The host that starts the provider, `N…`.
    #[serde(deserialize_with = "json::null_is_default")]
    pub host_id: String,
    /// The lattice's name.
    #[serde(deserialize_with = "json::null_is_default")]
    pub lattice_rpc_prefix: String,
    /// The link name the provider serves.
    #[serde(deserialize_with = "json::null_is_default")]
    pub link_name: String,
    /// NATS user token, `""` for none. Never null: both SDKs refuse that.
    #[serde(deserialize_with = "json::null_is_default")]
    pub lattice_rpc_user_jwt: String,
    /// Seed of that user, `""` for none.
    #[serde(deserialize_with = "json::null_is_default")]
    pub lattice_rpc_user_seed: Zeroizing<String>,
    /// `nats://host:port`, `tls://host:port` or `host:port`; `""` is the server on this machine.
    #[serde(deserialize_with = "json::null_is_default")]
    pub lattice_rpc_url: String,
    /// Whether TLS is required; SDKs go by the URL's scheme.
    #[serde(serialize_with = "as_number", deserialize_with = "truth")]
    pub lattice_rpc_tls: bool,
    /// Never used, never absent.
    #[serde(deserialize_with = "json::null_is_default")]
    pub env_values: BTreeMap<String, String>,
    /// This process, a UUID.
    #[serde(deserialize_with = "json::null_is_default")]
    pub instance_id: String,
    /// The provider, `V…`.
    #[serde(deserialize_with = "json::null_is_default")]
    pub provider_key: String,
    /// The links of this provider under this link name.
    #[serde(deserialize_with = "json::null_is_default")]
    pub link_definitions: Vec<LinkDefinition>,
    /// Configuration from the start command; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_json: Option<String>,
    /// How long calls may take, milliseconds.
    pub default_rpc_timeout_ms: Option<u64>,
    /// Cluster keys whose calls are accepted, `C…`.
    #[serde(deserialize_with = "json::null_is_default")]
    pub cluster_issuers: Vec<String>,
    /// Signs what the provider calls, `SC…`.
    #[serde(deserialize_with = "json::null_is_default")]
    pub invocation_seed: Zeroizing<String>,
    /// JetStream domain of the lattice's object store.
    pub js_domain: Option<String>,
    /// Log as JSON.
    #[serde(deserialize_with = "json::null_is_default")]
    pub structured_logging: bool,
    /// Log level if the operator set one; left out, `RUST_LOG` decides in old SDKs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    /// The newer SDK does not start without it.
    #[serde(deserialize_with = "json::null_is_default")]
    pub otel_config: OtelConfig,
}

/// Where traces go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtelConfig {
    /// `OTEL_TRACES_EXPORTER`.
    pub traces_exporter: Option<String>,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub exporter_otlp_endpoint: Option<String>,
}

impl HostData {
    /// The line for the provider's stdin, its end included.
    ///
    /// # Errors
    /// [`Kind::Limit`](crate::error::Kind::Limit): it would be longer than [`MAX_LINE_BYTES`].
    pub fn to_line(&self) -> Result<String> {
        let text = json::secret(self)
            .map_err(|cause| Error::internal(format!("cannot write the provider's host data: {cause}")))?;
        // With room for its end: a text that grows leaves a copy behind.
        let mut line = String::with_capacity(BASE64.encode_len(text.len()) + 1);
        BASE64.encode_append(&text, &mut line);
        line.push('\n');
        if line.len() > MAX_LINE_BYTES {
            return Err(Error::limit(format!(
                "the host data of provider {} has {} bytes, at most {MAX_LINE_BYTES} are sent; it has {} links",
                self.provider_key,
                line.len(),
                self.link_definitions.len()
            )));
        }
        Ok(line)
    }

    /// Reads the line, whatever ends it.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), never with any of its content.
    pub fn from_line(line: &str) -> Result<Self> {
        let bytes = BASE64
            .decode(line.trim().as_bytes())
            .map_err(|cause| Error::invalid(format!("the host data is not base64: {cause}")))?;
        // Serde quotes what it does not expect, which may be a seed: only the place is told.
        serde_json::from_slice(&bytes).map_err(|cause| {
            Error::invalid(format!("the host data cannot be read at line {}, column {}", cause.line(), cause.column()))
        })
    }
}

/// OTP writes the switch as 0 or 1.
fn as_number<S: Serializer>(truth: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(u8::from(*truth))
}

fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Truth(bool),
        Number(i64),
    }
    Ok(match Option::<Either>::deserialize(deserializer)? {
        None => false,
        Some(Either::Truth(truth)) => truth,
        Some(Either::Number(number)) => number != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/host_data.json")).unwrap()
    }

    fn read(value: &Value) -> Result<HostData> {
        HostData::from_line(&BASE64.encode(value.to_string().as_bytes()))
    }

    #[test]
    fn the_recorded_line_is_read() {
        let vectors = vectors();
        let data = HostData::from_line(vectors["stdin_line"].as_str().unwrap()).unwrap();
        assert!(data == read(&vectors["host_data"]).unwrap());
        assert_eq!(data.provider_key, vectors["host_data"]["provider_key"]);
        assert_eq!(data.link_definitions.len(), 1);
        assert_eq!(data.link_definitions[0].values["URL"], "redis://127.0.0.1:6379");
        assert_eq!((data.config_json.as_deref(), data.default_rpc_timeout_ms), (Some(""), Some(2000)));
        assert!(!data.lattice_rpc_tls);
    }

    #[test]
    fn what_is_written_is_what_was_recorded() {
        let vectors = vectors();
        let data = read(&vectors["host_data"]).unwrap();
        let line = data.to_line().unwrap();
        assert!(line.ends_with('\n'));
        let written: Value = serde_json::from_slice(&BASE64.decode(line.trim().as_bytes()).unwrap()).unwrap();
        assert_eq!(written, vectors["host_data"]);
    }

    /// Members that make an SDK of either generation refuse to start are there even in the emptiest host data.
    #[test]
    fn no_generation_misses_a_member() {
        let written: Value =
            serde_json::from_slice(&BASE64.decode(HostData::default().to_line().unwrap().trim().as_bytes()).unwrap())
                .unwrap();
        let (old, new): (Value, Value) =
            (vectors(), serde_json::from_str(include_str!("../../tests/vectors/provider_sdk_0_2.json")).unwrap());
        let results = [&old["wasmbus_rpc_0_15_parse_results"], &new["host_data"]];
        let mut demanded = 0;
        for (member, result) in results.iter().flat_map(|results| results.as_object().unwrap()) {
            let refused = |when: &str| result[when].as_str().is_some_and(|text| text.starts_with("error"));
            if refused("if_missing") {
                assert!(written.get(member).is_some(), "{member} is missing");
                demanded += 1;
            }
            assert!(!refused("if_null") || written.get(member) != Some(&Value::Null), "{member} is null");
        }
        assert!(demanded >= 7, "{demanded}");
        assert_eq!(written.get("config_json").or(written.get("log_level")), None);
    }

    #[test]
    fn null_and_absence_are_the_same_to_a_reader() {
        let full = vectors()["host_data"].clone();
        for member in full.as_object().unwrap().keys() {
            let (mut null, mut absent) = (full.clone(), full.clone());
            null[member] = Value::Null;
            absent.as_object_mut().unwrap().remove(member);
            assert!(read(&null).unwrap() == read(&absent).unwrap(), "{member}");
        }
        for (tls, truth) in [(json!(1), true), (json!(true), true), (json!(0), false), (json!(false), false)] {
            let mut data = full.clone();
            data["lattice_rpc_tls"] = tls;
            assert_eq!(read(&data).unwrap().lattice_rpc_tls, truth);
        }
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        let mut data = vectors()["host_data"].clone();
        data["link_definitions"] = json!("SCSECRET");
        let Err(error) = read(&data) else { panic!("it was read") };
        assert!(!error.text().contains("SCSECRET"), "{error}");
        assert!(HostData::from_line("SCSECRET!").is_err_and(|error| !error.text().contains("SCSECRET")));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,200}", bytes: Vec<u8>) {
            let _ = HostData::from_line(&line);
            let _ = HostData::from_line(&BASE64.encode(&bytes));
        }
    }
}
