//! What a server tells of itself, and what of it the client library is told.

use serde::{Deserialize, Serialize};

use super::scanner::MAX_MESSAGE_BYTES;

/// Largest message of a server that does not say it, bytes: the servers' own default.
const DEFAULT_MAX_PAYLOAD_BYTES: i64 = 1 << 20;

/// The words of `INFO` that are read. The rest is for other clients.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Info {
    server_id: String,
    server_name: String,
    version: String,
    proto: i8,
    max_payload: i64,
    headers: bool,
    jetstream: bool,
    auth_required: bool,
    client_id: u64,
    /// What a login signs.
    nonce: String,
    /// Whether it speaks TLS only.
    pub tls_required: bool,
    /// Other servers of its cluster.
    pub connect_urls: Vec<String>,
    /// Whether it is about to end.
    #[serde(rename = "ldm")]
    pub lame_duck: bool,
}

/// What the library is told: nothing of TLS, which is the guard's, nor of other servers.
#[derive(Serialize)]
struct Told<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'a str,
    proto: i8,
    max_payload: i64,
    headers: bool,
    jetstream: bool,
    auth_required: bool,
    client_id: u64,
    nonce: &'a str,
}

impl Info {
    /// Reads an `INFO` line.
    ///
    /// # Errors
    /// It is no JSON object with words of the right kind.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        let text = line.strip_prefix(b"INFO ").unwrap_or(line);
        serde_json::from_slice(text).map_err(|cause| format!("what it tells of itself cannot be read: {cause}"))
    }

    /// The line for the library.
    pub fn line(&self) -> Vec<u8> {
        let max_payload = if self.max_payload > 0 { self.max_payload } else { DEFAULT_MAX_PAYLOAD_BYTES };
        let told = Told {
            server_id: &self.server_id,
            server_name: &self.server_name,
            version: &self.version,
            proto: self.proto,
            max_payload: max_payload.min(MAX_MESSAGE_BYTES as i64),
            headers: self.headers,
            jetstream: self.jetstream,
            auth_required: self.auth_required,
            client_id: self.client_id,
            nonce: &self.nonce,
        };
        let mut line = b"INFO ".to_vec();
        serde_json::to_writer(&mut line, &told).expect("strings and numbers can be written");
        line.extend_from_slice(b"\r\n");
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_told_what_concerns_it() {
        let line = br#"INFO {"server_id":"N","nonce":"abc","tls_required":true,"tls_available":true,"max_payload":999999999999,
            "connect_urls":["10.0.0.1:4222"],"port":70000,"ip":"10.0.0.1","jetstream":true,"headers":true}"#;
        let info = Info::read(line).unwrap();
        assert!(info.tls_required && info.connect_urls.len() == 1);
        let told = String::from_utf8(info.line()).unwrap();
        assert!(
            told.contains(r#""nonce":"abc""#) && told.contains(r#""max_payload":4194304"#) && told.ends_with("\r\n")
        );
        assert!(!told.contains("tls") && !told.contains("10.0.0.1"), "{told}");
        assert!(String::from_utf8(Info::read(b"{}").unwrap().line()).unwrap().contains(r#""max_payload":1048576"#));
        for bad in [&b"INFO {"[..], b"INFO []x", b"INFO {\"max_payload\":\"x\"}", b"INFO \xff", &[b'['; 5000]] {
            assert!(Info::read(bad).is_err());
        }
    }
}
