//! What the lattice keeps in its JetStream bucket: keys, values, and what a delete looks like (`protocol/cache.md §1–3`).
//!
//! Written in the shape every generation reads (strings only); read in that shape and in the one of the Rust host.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{control::link, json, name_limits};
use crate::{
    error::{Error, Result},
    wire::LinkDefinition,
};

/// Longest value that is read, bytes. Link values may hold certificates; a longer value is set aside with a warning.
pub const MAX_VALUE_BYTES: usize = 256 * 1024;

/// The bucket of the lattice `lattice`.
pub fn bucket(lattice: &str) -> String {
    format!("LATTICEDATA_{lattice}")
}

/// The stream behind the bucket.
pub fn stream(lattice: &str) -> String {
    format!("KV_LATTICEDATA_{lattice}")
}

/// The request that makes the bucket, as every host of the field makes it: one value per key, on disk, one replica.
pub fn create_request(lattice: &str) -> String {
    let (stream, bucket) = (stream(lattice), bucket(lattice));
    format!(
        concat!(
            r#"{{"name":"{}","subjects":["$KV.{}.>"],"retention":"limits","max_consumers":-1,"#,
            r#""max_msgs_per_subject":1,"max_msgs":-1,"max_bytes":-1,"allow_direct":true,"mirror_direct":false,"#,
            r#""deny_delete":true,"sealed":false,"deny_purge":false,"allow_rollup_hdrs":true,"max_age":0,"#,
            r#""max_msg_size":-1,"storage":"file","discard":"new","num_replicas":1,"duplicate_window":120000000000}}"#
        ),
        stream, bucket
    )
}

/// How fast a watch may be told the bucket's content, bits per second. Servers send it as fast as they can otherwise, a few
/// thousand messages at once; so a quarter of a second's worth comes at once, which a client's queue holds. The largest
/// lattice a board can know takes ten seconds.
const WATCH_BITS_PER_SECOND: u64 = 4_000_000;

/// The request that makes a watch: everything there is, then each change, to `inbox`, with a sign of life every
/// `heartbeat_nanos`. It ends by itself when nobody listens on `inbox` any more.
pub fn watch_request(lattice: &str, inbox: &str, heartbeat_nanos: u128) -> String {
    let (stream, bucket) = (stream(lattice), bucket(lattice));
    format!(
        concat!(
            r#"{{"stream_name":"{}","config":{{"description":"latticed","deliver_subject":"{}","#,
            r#""deliver_policy":"last_per_subject","ack_policy":"none","filter_subject":"$KV.{}.>","max_deliver":-1,"#,
            r#""replay_policy":"instant","flow_control":true,"idle_heartbeat":{},"rate_limit_bps":{},"#,
            r#""mem_storage":true,"num_replicas":1}}}}"#
        ),
        stream, inbox, bucket, heartbeat_nanos, WATCH_BITS_PER_SECOND
    )
}

/// Where the values of the bucket's keys are put, in the JetStream domain `domain`; the key follows.
pub fn put_prefix(lattice: &str, domain: Option<&str>) -> String {
    let bucket = bucket(lattice);
    match domain {
        Some(domain) => format!("$JS.{domain}.API.$KV.{bucket}."),
        None => format!("$KV.{bucket}."),
    }
}

/// What JetStream says of a message of a watch in the message's reply subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Number of the message in the stream.
    pub stored: u64,
    /// Number of the message within the watch, from 1, without gaps.
    pub sequence: u64,
    /// Messages there are to come.
    pub pending: u64,
}

impl Delivery {
    /// Reads `$JS.ACK.…`: nine parts from older servers; newer ones put domain and account before them, or more behind.
    pub fn parse(reply: &str) -> Option<Self> {
        let parts: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let parts = match parts.len() {
            7 => &parts[..],
            9.. => &parts[2..],
            _ => return None,
        };
        let number = |at: usize| parts[at].parse().ok();
        Some(Self { stored: number(3)?, sequence: number(4)?, pending: number(6)? })
    }
}

/// What a key of the bucket is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `CLAIMS_{public key}`
    Claims(String),
    /// `LINKDEF_{id}`
    Link(String),
    /// `REFMAP_{base64url of the reference}`
    Reference(String),
}

impl Key {
    /// Reads a key; `None` for keys this version does not know, which are left alone.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('_')?;
        match kind {
            "CLAIMS" => Some(Key::Claims(rest.to_owned())),
            "LINKDEF" => Some(Key::Link(rest.to_owned())),
            "REFMAP" => {
                let reference = BASE64URL_NOPAD.decode(rest.as_bytes()).ok()?;
                Some(Key::Reference(String::from_utf8(reference).ok()?))
            }
            _ => None,
        }
    }

    /// The key as it stands in the bucket. Every part is of letters that a subject token may hold.
    pub fn text(&self) -> String {
        match self {
            Key::Claims(public_key) => format!("CLAIMS_{public_key}"),
            Key::Link(id) => format!("LINKDEF_{id}"),
            Key::Reference(reference) => format!("REFMAP_{}", BASE64URL_NOPAD.encode(reference.as_bytes())),
        }
    }
}

/// What a message of the bucket's stream did to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A value was put.
    Put,
    /// The key was deleted; clients write `DEL`, hosts `PURGE`.
    Delete,
}

/// Header that marks a delete.
pub const OPERATION_HEADER: &str = "KV-Operation";

/// What the headers of a message say was done. The header's name is compared without case: one client lowers it.
pub fn operation<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Operation {
    let deleted = headers
        .into_iter()
        .any(|(name, value)| name.eq_ignore_ascii_case(OPERATION_HEADER) && matches!(value.trim(), "DEL" | "PURGE"));
    if deleted { Operation::Delete } else { Operation::Put }
}

/// What the lattice knows of an actor or provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimsRecord {
    /// Second name for calls, `""` for none.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub call_alias: String,
    /// `A…`.
    #[serde(rename = "iss", alias = "issuer", default, deserialize_with = "json::null_is_default")]
    pub issuer: String,
    /// Name for people.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub name: String,
    /// Contracts the actor may use.
    #[serde(rename = "caps", alias = "capabilities", default, serialize_with = "joined", deserialize_with = "list")]
    pub capabilities: Vec<String>,
    /// Effective revision.
    #[serde(rename = "rev", alias = "revision", default, serialize_with = "decimal", deserialize_with = "number")]
    pub revision: i32,
    /// Free labels.
    #[serde(default, serialize_with = "joined", deserialize_with = "list")]
    pub tags: Vec<String>,
    /// Version for people.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub version: String,
    /// `M…` or `V…`.
    #[serde(rename = "sub", alias = "subject")]
    pub subject: String,
    /// A provider's contract, `""` for actors.
    #[serde(default, deserialize_with = "json::null_is_default")]
    pub contract_id: String,
    /// A provider's configuration schema as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<String>,
}

impl ClaimsRecord {
    /// Reads the value of a `CLAIMS_` key.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(value: &[u8]) -> Result<Self> {
        let record: Self = json::read("cannot read claims from the lattice's bucket", value, MAX_VALUE_BYTES)?;
        if record.subject.is_empty() {
            return Err(Error::invalid("cannot read claims from the lattice's bucket: the subject is empty"));
        }
        name_limits::check("subject of claims", &record.subject, name_limits::MAX_PART_BYTES)?;
        for contract in record.capabilities.iter().chain([&record.contract_id]) {
            name_limits::check("contract", contract, name_limits::MAX_CONTRACT_BYTES)?;
        }
        Ok(Self { name: name_limits::shown(&record.name), version: name_limits::shown(&record.version), ..record })
    }

    /// The value as it is put.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// Whether this is about an actor. Only the subject tells: some hosts write actor members for providers too.
    pub fn is_actor(&self) -> bool {
        self.subject.starts_with('M')
    }
}

/// Which entity a reference turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// The reference.
    #[serde(rename = "oci_url")]
    pub reference: String,
    /// `M…` or `V…`.
    pub public_key: String,
}

impl ReferenceRecord {
    /// Reads the value of a `REFMAP_` key.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(value: &[u8]) -> Result<Self> {
        let record: Self = json::read("cannot read a reference from the lattice's bucket", value, MAX_VALUE_BYTES)?;
        name_limits::check("reference", &record.reference, name_limits::MAX_REFERENCE_BYTES)?;
        name_limits::check("key behind a reference", &record.public_key, name_limits::MAX_PART_BYTES)?;
        Ok(record)
    }

    /// The value as it is put.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }
}

/// Reads the value of a `LINKDEF_` key. Clients write no identity, migrated lattices a wrong one: it is always computed.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
pub fn parse_link(value: &[u8]) -> Result<LinkDefinition> {
    link::parse_put(value).map_err(|error| error.context("cannot read a link from the lattice's bucket"))
}

/// The value of a link as it is put, identity included.
///
/// # Errors
/// None in practice.
pub fn encode_link(link: &LinkDefinition) -> Result<Vec<u8>> {
    encode(link)
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| Error::internal(format!("cannot write a value for the bucket: {cause}")))
}

fn joined<S: serde::Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&list.join(","))
}

fn decimal<S: serde::Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// A list as comma-joined text, array or null.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum List {
        Joined(String),
        Array(Vec<String>),
        Nothing(()),
    }
    Ok(match List::deserialize(deserializer)? {
        List::Joined(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
        List::Array(items) => items,
        List::Nothing(()) => Vec::new(),
    })
}

/// A revision as decimal text, number or null.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Revision {
        Text(String),
        // Revisions taken from issue dates were cast to 32 bits by some writers and not by others.
        Plain(i64),
        Nothing(()),
    }
    Ok(match Revision::deserialize(deserializer)? {
        Revision::Text(text) if text.is_empty() => 0,
        Revision::Text(text) => text.parse::<i64>().map_err(de::Error::custom)? as i32,
        Revision::Plain(number) => number as i32,
        Revision::Nothing(()) => 0,
    })
}

/// Call aliases of known actors, last start first in line: the alias maps to the actor whose claims were put last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases(BTreeMap<String, String>);

/// Shortest alias that counts, characters.
const MIN_ALIAS_CHARS: usize = 2;

impl Aliases {
    /// Claims of an actor were put.
    pub fn put(&mut self, claims: &ClaimsRecord) {
        self.remove(&claims.subject);
        if claims.is_actor() && claims.call_alias.chars().count() >= MIN_ALIAS_CHARS {
            self.0.insert(claims.call_alias.clone(), claims.subject.clone());
        }
    }

    /// Claims of the entity `subject` were deleted.
    pub fn remove(&mut self, subject: &str) {
        self.0.retain(|_, key| key != subject);
    }

    /// The actor behind `alias`.
    pub fn find(&self, alias: &str) -> Option<&str> {
        self.0.get(alias).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn actor() -> ClaimsRecord {
        ClaimsRecord {
            call_alias: "acme/echo".into(),
            issuer: "A1".into(),
            name: "Echo".into(),
            capabilities: vec!["wasmcloud:httpserver".into(), "wasmcloud:keyvalue".into()],
            revision: 4,
            tags: vec![],
            version: "0.3.8".into(),
            subject: "M1".into(),
            contract_id: String::new(),
            config_schema: None,
        }
    }

    #[test]
    fn claims_are_put_as_strings_only() {
        let text = String::from_utf8(actor().encode().unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"call_alias":"acme/echo","iss":"A1","name":"Echo","caps":"wasmcloud:httpserver,wasmcloud:keyvalue","rev":"4","tags":"","version":"0.3.8","sub":"M1","contract_id":""}"#
        );
        assert_eq!(ClaimsRecord::parse(text.as_bytes()).unwrap(), actor());
    }

    #[test]
    fn the_shape_of_the_rust_host_is_read_too() {
        let read = ClaimsRecord::parse(
            br#"{"call_alias":"acme/echo","capabilities":["wasmcloud:httpserver","wasmcloud:keyvalue"],"issuer":"A1",
                "name":"Echo","revision":"4","subject":"M1","tags":null,"version":"0.3.8"}"#,
        )
        .unwrap();
        assert_eq!(read, actor());
        let number =
            ClaimsRecord::parse(br#"{"sub":"V1","rev":7,"caps":"","call_alias":null,"version":null}"#).unwrap();
        assert_eq!((number.revision, number.is_actor(), number.version.as_str()), (7, false, ""));
        for bad in [r#"{"name":"x"}"#, r#"{"sub":""}"#, r#"{"sub":"M","rev":"x"}"#, "", "[]"] {
            assert!(ClaimsRecord::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_recorded_write_to_the_bucket_is_read() {
        let recorded: Value = serde_json::from_str(include_str!("../../tests/vectors/recorded_requests.json")).unwrap();
        let (mut claims, mut links, mut references, mut deletes) = (0, 0, 0, 0);
        for message in recorded["messages"].as_array().unwrap().iter().filter(|one| one["kind"] == "kv") {
            let key = message["subject"].as_str().unwrap().strip_prefix("$KV.LATTICEDATA_default.").unwrap();
            let body = message["body"].as_str().unwrap().as_bytes();
            if body.is_empty() {
                deletes += 1;
                continue;
            }
            let parsed = Key::parse(key).unwrap();
            assert_eq!(parsed.text(), key);
            match parsed {
                Key::Claims(subject) => {
                    let record = ClaimsRecord::parse(body).unwrap();
                    assert_eq!((&record.subject, record.is_actor()), (&subject, subject.starts_with('M')));
                    claims += 1;
                }
                Key::Link(id) => {
                    assert_eq!(parse_link(body).unwrap().id, id);
                    links += 1;
                }
                Key::Reference(reference) => {
                    assert_eq!(ReferenceRecord::parse(body).unwrap().reference, reference);
                    references += 1;
                }
            }
        }
        assert!(claims > 5 && links > 5 && deletes > 0, "{claims} {links} {references} {deletes}");
    }

    #[test]
    fn the_bucket_is_made_as_every_host_makes_it() {
        let request: Value = serde_json::from_str(&create_request("site-7")).unwrap();
        assert_eq!(
            (&request["name"], &request["subjects"][0]),
            (&"KV_LATTICEDATA_site-7".into(), &"$KV.LATTICEDATA_site-7.>".into())
        );
    }

    #[test]
    fn a_watch_is_asked_for_and_its_messages_are_numbered() {
        let request: Value = serde_json::from_str(&watch_request("a", "_INBOX.1", 60_000_000_000)).unwrap();
        assert_eq!(
            (&request["config"]["idle_heartbeat"], &request["stream_name"]),
            (&60_000_000_000_u64.into(), &"KV_LATTICEDATA_a".into())
        );
        assert_eq!(put_prefix("a", None), "$KV.LATTICEDATA_a.");
        assert_eq!(put_prefix("a", Some("leaf")), "$JS.leaf.API.$KV.LATTICEDATA_a.");
        let delivery = Some(Delivery { stored: 12, sequence: 3, pending: 7 });
        assert_eq!(Delivery::parse("$JS.ACK.S.c.1.12.3.1700000000000000000.7"), delivery);
        assert_eq!(Delivery::parse("$JS.ACK._.hash.S.c.1.12.3.1700000000000000000.7"), delivery);
        assert_eq!(Delivery::parse("$JS.ACK.leaf.hash.S.c.1.12.3.1700000000000000000.7.token"), delivery);
        for other in ["", "_INBOX.x", "$JS.ACK.S.c.1.12.3.17", "$JS.ACK.S.c.1.12.x.17.7"] {
            assert_eq!(Delivery::parse(other), None, "{other}");
        }
    }

    #[test]
    fn both_deletes_are_seen_whatever_the_case_of_their_header() {
        assert_eq!(operation([("KV-Operation", "DEL")]), Operation::Delete);
        assert_eq!(operation([("x", "y"), ("kv-operation", "PURGE")]), Operation::Delete);
        assert_eq!(operation([("KV-Operation", "PUT")]), Operation::Put);
        assert_eq!(operation([]), Operation::Put);
    }

    #[test]
    fn links_have_the_identity_of_the_protocol() {
        let link = parse_link(
            br#"{"id":"b2d5a3e4-61a9-813d-cb40-65a400000000","actor_id":"Mbob","provider_id":"V","link_name":"default","contract_id":"wasmcloud:testy"}"#,
        )
        .unwrap();
        assert_eq!(link.id, "B40411AD09B70A2C83D59923584F66BA2C5A3C274DC4F19416DA49CCD6531F9C");
        assert_eq!(parse_link(&encode_link(&link).unwrap()).unwrap(), link);
    }

    #[test]
    fn the_last_actor_with_an_alias_answers_to_it() {
        let mut aliases = Aliases::default();
        aliases.put(&actor());
        aliases.put(&ClaimsRecord { subject: "M2".into(), ..actor() });
        assert_eq!(aliases.find("acme/echo"), Some("M2"));
        aliases.put(&ClaimsRecord { subject: "M2".into(), call_alias: "e".into(), ..actor() });
        assert_eq!((aliases.find("acme/echo"), aliases.find("e")), (None, None));
        aliases.put(&actor());
        aliases.remove("M1");
        assert_eq!(aliases.find("acme/echo"), None);
    }

    proptest! {
        #[test]
        fn references_of_any_text_are_keys(reference in ".{1,80}") {
            let key = Key::Reference(reference);
            prop_assert!(key.text().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
            prop_assert_eq!(Key::parse(&key.text()), Some(key));
        }

        #[test]
        fn no_value_panics(value: Vec<u8>, key in ".{0,60}") {
            let _ = Key::parse(&key);
            let _ = ClaimsRecord::parse(&value);
            let _ = ReferenceRecord::parse(&value);
            let _ = parse_link(&value);
        }
    }
}
