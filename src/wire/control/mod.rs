//! Requests of the control interface and our answers, one file per group (`protocol/lattice.md §3–4`).
//!
//! Three generations of clients speak three dialects; every request type here reads all of them. What clients send is read
//! by serde_json within [`MAX_REQUEST_BYTES`](super::json::MAX_REQUEST_BYTES); a refusal carries the text the field knows,
//! followed by the reason. Answers never hold `null` where a client expects a string.

pub mod ack;
pub mod actor;
pub mod auction;
pub mod claims;
pub mod config;
pub mod host;
pub mod inventory;
pub mod label;
pub mod link;
pub mod provider;
pub mod registry;

pub use ack::Ack;

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Result},
    wire::{json, name_limits},
};

/// Free text of whoever asked for an entity, and the pairs by which they find it again.
pub type Annotations = BTreeMap<String, String>;

/// Whether `all` holds every pair of `wanted`.
pub fn contains_all(all: &Annotations, wanted: &Annotations) -> bool {
    wanted.iter().all(|(name, value)| all.get(name) == Some(value))
}

fn parse<T: DeserializeOwned>(refusal: &str, body: &[u8]) -> Result<T> {
    json::read(refusal, body, json::MAX_REQUEST_BYTES)
}

/// Refuses an empty `value` for the member `name`.
fn not_empty(refusal: &str, name: &str, value: &str) -> Result<()> {
    if value.is_empty() { Err(Error::invalid(format!("{refusal}: the member '{name}' is empty"))) } else { Ok(()) }
}

/// Refuses a reference or key, and annotations, that are too long.
fn names_fit(refusal: &str, reference: &str, annotations: &Annotations) -> Result<()> {
    name_limits::check("reference", reference, name_limits::MAX_REFERENCE_BYTES)
        .and_then(|()| name_limits::check_annotations(annotations))
        .map_err(|error| error.context(refusal))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::wire::subject::{Subjects, Topic, Verb};

    /// Reads `body` as what `topic` promises.
    fn read(topic: Topic<'_>, body: &[u8]) -> Result<()> {
        match topic {
            Topic::PingHosts | Topic::GetClaims | Topic::GetLinks | Topic::GetInventory { .. } => Ok(()),
            Topic::PutLink => link::parse_put(body).map(drop),
            Topic::DeleteLink => link::DeleteLink::parse(body).map(drop),
            Topic::AuctionActor => auction::ActorAuction::parse(body).map(drop),
            Topic::AuctionProvider => auction::ProviderAuction::parse(body).map(drop),
            Topic::PutLabel { .. } => label::PutLabel::parse(body).map(drop),
            Topic::DeleteLabel { .. } => label::DeleteLabel::parse(body).map(drop),
            Topic::PutRegistries => registry::parse(body).map(drop),
            Topic::Command { verb, .. } => match verb {
                Verb::LaunchActor => actor::LaunchActor::parse(body).map(drop),
                Verb::StopActor => actor::StopActor::parse(body).map(drop),
                Verb::ScaleActor => actor::ScaleActor::parse(body).map(drop),
                Verb::UpdateActor => actor::UpdateActor::parse(body).map(drop),
                Verb::LaunchProvider => provider::LaunchProvider::parse(body).map(drop),
                Verb::StopProvider => provider::StopProvider::parse(body).map(drop),
                Verb::StopHost => host::StopHost::parse(body).map(drop),
            },
            other => panic!("{other:?} has no body"),
        }
    }

    fn vector(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn every_request_two_client_generations_put_on_the_wire_is_read() {
        let traffic = vector(include_str!("../../../tests/vectors/ctl_traffic.json"));
        let mut seen = 0;
        for (recording, calls) in traffic["recordings"].as_object().unwrap() {
            for message in calls.as_array().unwrap().iter().filter_map(|call| call["messages"].as_array()).flatten() {
                let subject = message["subject"].as_str().unwrap();
                let lattice = if recording.ends_with("nokv") { "nokv" } else { "withkv" };
                let subjects = Subjects::new("wasmbus.ctl", lattice).unwrap();
                let Some(topic) = subjects.parse_control(subject) else {
                    assert!(subject.starts_with("$KV."), "{subject}");
                    continue;
                };
                read(topic, &serde_json::to_vec(&message["body"]).unwrap()).unwrap();
                seen += 1;
            }
        }
        assert_eq!(seen, 24);
    }

    #[test]
    fn every_request_of_three_wash_generations_is_read() {
        let recorded = vector(include_str!("../../../tests/vectors/recorded_requests.json"));
        let subjects = Subjects::new("wasmbus.ctl", "default").unwrap();
        let mut seen = 0;
        for message in recorded["messages"].as_array().unwrap().iter().filter(|one| one["kind"] == "request") {
            let topic = subjects.parse_control(message["subject"].as_str().unwrap()).unwrap();
            read(topic, message["body"].as_str().unwrap().as_bytes()).unwrap();
            seen += 1;
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn every_request_shape_of_the_vectors_is_read() {
        let vectors = vector(include_str!("../../../tests/vectors/control_interface.json"));
        let key = |letter: &str| format!("{letter}{}", "A".repeat(55));
        let mut seen = 0;
        for group in ["requests_ctl_0_27", "requests_ctl_0_30"] {
            for (name, body) in vectors[group].as_object().unwrap() {
                let text = body.to_string().replace("\"V\"", &format!("\"{}\"", key("V")));
                let body = text.as_bytes();
                let verb = name.split([' ', '_']).next().unwrap();
                match name.as_str() {
                    "link value in KV" => drop(link::parse_put(body).unwrap()),
                    "auction.actor" => read(Topic::AuctionActor, body).unwrap(),
                    "auction.provider" => read(Topic::AuctionProvider, body).unwrap(),
                    _ => {
                        let verb = Verb::ALL.into_iter().find(|known| known.token() == verb).unwrap();
                        read(Topic::Command { host_id: "N", verb }, body).unwrap();
                    }
                }
                seen += 1;
            }
        }
        assert_eq!(seen, 14);
    }

    #[test]
    fn annotations_match_by_every_pair_wanted() {
        let all: Annotations = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        let wanted = |name: &str, value: &str| Annotations::from([(name.to_owned(), value.to_owned())]);
        assert!(contains_all(&all, &Annotations::new()));
        assert!(contains_all(&all, &wanted("a", "1")));
        assert!(!contains_all(&all, &wanted("a", "2")));
        assert!(!contains_all(&all, &wanted("c", "1")));
    }

    proptest::proptest! {
        #[test]
        fn no_body_panics(body: Vec<u8>) {
            for verb in Verb::ALL {
                let _ = read(Topic::Command { host_id: "N", verb }, &body);
            }
            for topic in [Topic::PutLink, Topic::DeleteLink, Topic::AuctionActor, Topic::AuctionProvider,
                Topic::PutLabel { host_id: "N" }, Topic::DeleteLabel { host_id: "N" }, Topic::PutRegistries] {
                let _ = read(topic, &body);
            }
        }
    }
}
