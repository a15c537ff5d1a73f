//! Events about a host: start, end, heartbeat, what its outbox lost (`protocol/events.md §2, §5`).

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Data, actor::events};

events! {
    /// The host runs.
    HostStarted = "host_started" {
        /// All labels.
        labels: &'a BTreeMap<String, String>,
        /// Name for people.
        friendly_name: &'a str,
        /// 0.
        uptime_seconds: u64,
        /// Version of this program.
        version: &'a str,
    }

    /// The host ended.
    HostStopped = "host_stopped" {
        /// All labels.
        labels: &'a BTreeMap<String, String>,
    }

    /// Events made while there was no connection and no more room for them are gone. Known to this host only; clients pass
    /// over types they do not know.
    EventsDropped = "events_dropped" {
        /// How many.
        count: u64,
        /// How long they were together, bytes.
        bytes: u64,
        /// When the first of them happened, RFC 3339.
        first: &'a str,
        /// When the last of them happened, RFC 3339.
        last: &'a str,
    }
}

/// A sign of life. `actors` maps keys to numbers of instances, `providers` lists [`HeartbeatProvider`]s; both are written
/// from iterators ([`Pairs`](crate::wire::json::Pairs), [`Items`](crate::wire::json::Items)), so that none is collected.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HostHeartbeat<'a, A, P, L> {
    /// Actor key to number of instances.
    pub actors: A,
    /// What else runs.
    pub providers: P,
    /// All labels.
    pub labels: L,
    /// Name for people.
    pub friendly_name: &'a str,
    /// Version of this program; a semantic version.
    pub version: &'a str,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The same for people.
    pub uptime_human: &'a str,
}

impl<A: Serialize, P: Serialize, L: Serialize> Data for HostHeartbeat<'_, A, P, L> {
    const NAME: &'static str = "host_heartbeat";
}

/// A provider in a heartbeat.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct HeartbeatProvider<'a> {
    /// `V…`.
    pub public_key: &'a str,
    /// Link name served.
    pub link_name: &'a str,
    /// Contract served.
    pub contract_id: &'a str,
}

#[cfg(test)]
mod tests {
    use super::{
        super::{tests::written, write},
        *,
    };
    use crate::wire::json::{Items, Pairs};

    fn labels() -> BTreeMap<String, String> {
        [("hostcore.os".to_owned(), "linux".to_owned())].into()
    }

    #[test]
    fn a_heartbeat_has_the_shape_wadm_reads() {
        let actors = [("M1", 2u16), ("M2", 1)];
        let providers = [("V1", "default", "wasmcloud:keyvalue")];
        let labels = labels();
        let heartbeat = HostHeartbeat {
            actors: Pairs(|| actors.iter().copied()),
            providers: Items(|| {
                providers.iter().map(|(public_key, link_name, contract_id)| HeartbeatProvider {
                    public_key,
                    link_name,
                    contract_id,
                })
            }),
            labels: &labels,
            friendly_name: "quiet-sun-1",
            version: "0.1.0",
            uptime_seconds: 61,
            uptime_human: "1 minute, 1 second",
        };
        assert_eq!(
            written(&heartbeat),
            serde_json::json!({
                "actors": {"M1": 2, "M2": 1},
                "providers": [{"public_key": "V1", "link_name": "default", "contract_id": "wasmcloud:keyvalue"}],
                "labels": {"hostcore.os": "linux"},
                "friendly_name": "quiet-sun-1",
                "version": "0.1.0",
                "uptime_seconds": 61,
                "uptime_human": "1 minute, 1 second"
            })
        );
        let mut buffer = Vec::new();
        write(&mut buffer, "N1", [0; 16], 0, &heartbeat).unwrap();
        let at = (buffer.as_ptr(), buffer.capacity());
        for beat in 1..100 {
            write(&mut buffer, "N1", [0; 16], beat, &heartbeat).unwrap();
            assert_eq!((buffer.as_ptr(), buffer.capacity()), at);
        }
    }

    #[test]
    fn every_other_event_is_written() {
        let labels = labels();
        written(&HostStarted { labels: &labels, friendly_name: "f", uptime_seconds: 0, version: "0.1.0" });
        written(&HostStopped { labels: &labels });
        let dropped = written(&EventsDropped { count: 3, bytes: 999, first: "a", last: "b" });
        assert_eq!(dropped["count"], 3);
    }
}
