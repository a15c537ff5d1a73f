//! Requests about a host itself: its sign of life, its end (`protocol/lattice.md §3.1, §4.7`).

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use serde::{Deserialize, Serialize};

use super::parse;
use crate::{error::Result, wire::json};

/// Longest ping reply, bytes. Labels are the only part without a bound of its own; a host with more text in its labels than
/// this does not start answering pings by silence, it is refused such labels.
pub const MAX_PING_REPLY_BYTES: usize = 64 * 1024;

/// The answer to `ping.hosts`. One malformed answer hides every other host from the client, so all members have fixed types.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PingReply<'a> {
    /// `N…`.
    pub id: &'a str,
    /// The cluster's public key, `C…`.
    pub issuer: &'a str,
    /// All labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Name for people.
    pub friendly_name: &'a str,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The same for people.
    pub uptime_human: &'a str,
    /// Version of this program, a semantic version without `v`.
    pub version: &'a str,
    /// Keys whose tokens this host accepts, comma-joined.
    pub cluster_issuers: &'a str,
    /// JetStream domain; the one member that may be null.
    pub js_domain: Option<&'a str>,
    /// Server of the control connection.
    pub ctl_host: &'a str,
    /// Server handed to providers.
    pub prov_rpc_host: &'a str,
    /// Server of the RPC connection.
    pub rpc_host: &'a str,
    /// The lattice.
    pub lattice_prefix: &'a str,
    /// The lattice again, under the name newer clients look for.
    pub lattice: &'a str,
}

impl PingReply<'_> {
    /// Writes the answer into `buffer`.
    ///
    /// # Errors
    /// [`Kind::Limit`](crate::error::Kind::Limit): the labels are too long.
    pub fn write(&self, buffer: &mut Vec<u8>) -> Result<()> {
        json::write(buffer, MAX_PING_REPLY_BYTES, self)
    }
}

/// `stop`: the host shall end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StopHost {
    /// How long work in flight may take; `None` for the host's own setting.
    pub timeout: Option<Duration>,
}

impl StopHost {
    const REFUSAL: &'static str = "Unable to parse stop host command";

    /// Reads the request; `timeout` is in milliseconds.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            timeout: Option<u64>,
        }
        let wire: Wire = parse(Self::REFUSAL, body)?;
        Ok(Self { timeout: wire.timeout.map(Duration::from_millis) })
    }
}

/// A time of running for people: `5 minutes, 3 seconds`.
pub fn uptime_human(seconds: u64) -> heapless::String<64> {
    const UNITS: [(u64, &str); 4] = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let mut text = heapless::String::new();
    let mut rest = seconds;
    for (length, name) in UNITS {
        let count = rest / length;
        rest %= length;
        if count == 0 && !(length == 1 && text.is_empty()) {
            continue;
        }
        let comma = if text.is_empty() { "" } else { ", " };
        let plural = if count == 1 { "" } else { "s" };
        // 64 bytes hold the longest: a 15-digit number of days and three two-digit numbers with their words.
        let _ = write!(text, "{comma}{count} {name}{plural}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_ping_reply_has_the_members_and_types_clients_accept() {
        let labels = [("hostcore.os".to_owned(), "linux".to_owned())].into();
        let reply = PingReply {
            id: "N",
            issuer: "C",
            labels: &labels,
            friendly_name: "quiet-sun-1",
            uptime_seconds: 5,
            uptime_human: &uptime_human(5),
            version: "0.63.2",
            cluster_issuers: "C",
            js_domain: None,
            ctl_host: "127.0.0.1",
            prov_rpc_host: "127.0.0.1",
            rpc_host: "127.0.0.1",
            lattice_prefix: "default",
            lattice: "default",
        };
        let mut buffer = Vec::new();
        reply.write(&mut buffer).unwrap();
        let mut ours: Value = serde_json::from_slice(&buffer).unwrap();
        let vectors: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/control_interface.json")).unwrap();
        let accepted =
            vectors["reply_parsing"].as_array().unwrap().iter().find(|one| one["case"] == "ping reply").unwrap();
        assert_eq!(ours.as_object_mut().unwrap().remove("lattice"), Some("default".into()));
        assert_eq!(ours, accepted["body"]);
        // To the byte: the clients' parsers do not depend on order, a change of ours should still be deliberate.
        assert!(
            buffer.starts_with(
                br#"{"id":"N","issuer":"C","labels":{"hostcore.os":"linux"},"friendly_name":"quiet-sun-1","#
            )
        );
    }

    #[test]
    fn stop_says_how_long_or_nothing() {
        let timeout = |body: &str| StopHost::parse(body.as_bytes()).map(|stop| stop.timeout);
        assert_eq!(timeout(r#"{"host_id":"N","timeout":2000}"#).unwrap(), Some(Duration::from_secs(2)));
        assert_eq!(timeout(r#"{"host_id":"N"}"#).unwrap(), None);
        assert_eq!(timeout(r#"{"timeout":null}"#).unwrap(), None);
        assert!(timeout("stop!").unwrap_err().text().starts_with("Unable to parse stop host command"));
    }

    #[test]
    fn uptime_reads_well() {
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (303, "5 minutes, 3 seconds"),
            (3600, "1 hour"),
            (2 * 86_400 + 61, "2 days, 1 minute, 1 second"),
        ] {
            assert_eq!(uptime_human(seconds), text);
        }
        assert!(uptime_human(u64::MAX).ends_with("seconds"));
    }
}
