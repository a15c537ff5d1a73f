//! The answer to `get.{H}.inv`: what runs on one host (`protocol/lattice.md §3.4`).
//!
//! One element of `instances` per instance, as the older clients count them; the newer ones also read `max_instances`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Annotations;

/// Instances listed per actor at most. An actor that may run more often than this is listed with this many elements and its
/// true maximum beside them: the list is for people to count, and its length costs bytes on every query.
pub const MAX_LISTED_INSTANCES: u16 = 1024;

/// What runs on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// `N…`.
    pub host_id: String,
    /// The cluster's public key, `C…`.
    pub issuer: String,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Name for people.
    pub friendly_name: String,
    /// Version of this program.
    pub version: String,
    /// Seconds since the start, for people.
    pub uptime_human: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Actors that run.
    pub actors: Vec<Actor>,
    /// Providers that run.
    pub providers: Vec<Provider>,
}

/// One actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Actor {
    /// `M…`.
    pub id: String,
    /// Where it came from, as it was asked for.
    pub image_ref: String,
    /// Name in its claims.
    pub name: String,
    /// Its instances.
    pub instances: Vec<Instance>,
}

impl Actor {
    /// An actor that runs up to `count` times, told as that many like instances.
    pub fn new(id: String, image_ref: String, name: String, count: u16, instance: Instance) -> Self {
        let instances = vec![instance; usize::from(count.min(MAX_LISTED_INSTANCES))];
        Self { id, image_ref, name, instances }
    }
}

/// One instance of an actor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Marks it was started with.
    pub annotations: Annotations,
    /// Name of the instance.
    pub instance_id: String,
    /// Effective revision of its module.
    pub revision: i32,
    /// Where its module came from.
    pub image_ref: String,
    /// Calls one instance takes at once: 1.
    pub max_concurrent: u16,
    /// Instances the actor may have.
    pub max_instances: u32,
}

/// One provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Provider {
    /// `V…`.
    pub id: String,
    /// Where it came from, as it was asked for.
    pub image_ref: String,
    /// Contract served.
    pub contract_id: String,
    /// Link name served.
    pub link_name: String,
    /// Name for people.
    pub name: String,
    /// Name of the process, or of what stands for one.
    pub instance_id: String,
    /// Marks it was started with.
    pub annotations: Annotations,
    /// Effective revision.
    pub revision: i32,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every member of `wanted` is in `ours` with the same type; ours may have more.
    fn covers(ours: &Value, wanted: &Value, path: &str) {
        match (ours, wanted) {
            (Value::Object(ours), Value::Object(wanted)) => {
                for (name, value) in wanted {
                    covers(
                        ours.get(name).unwrap_or_else(|| panic!("no {path}.{name}")),
                        value,
                        &format!("{path}.{name}"),
                    );
                }
            }
            (Value::Array(ours), Value::Array(wanted)) => {
                for (ours, wanted) in ours.iter().zip(wanted) {
                    covers(ours, wanted, path);
                }
            }
            _ => assert_eq!(ours, wanted, "{path}"),
        }
    }

    #[test]
    fn an_inventory_has_the_members_and_types_clients_accept() {
        let instance = Instance { instance_id: "i".into(), revision: 3, image_ref: "r".into(), ..Instance::default() };
        let inventory = Inventory {
            host_id: "N".into(),
            issuer: "C".into(),
            friendly_name: "x".into(),
            actors: vec![Actor::new("M".into(), "r".into(), "echo".into(), 1, instance)],
            providers: vec![Provider {
                id: "V".into(),
                image_ref: "r".into(),
                contract_id: "c".into(),
                link_name: "default".into(),
                name: "n".into(),
                instance_id: "i".into(),
                revision: 7,
                ..Provider::default()
            }],
            ..Inventory::default()
        };
        let vectors: Value =
            serde_json::from_str(include_str!("../../../tests/vectors/control_interface.json")).unwrap();
        let accepted =
            vectors["reply_parsing"].as_array().unwrap().iter().find(|one| one["case"] == "inventory").unwrap();
        covers(&serde_json::to_value(&inventory).unwrap(), &accepted["body"], "");
    }

    #[test]
    fn instances_are_listed_singly_up_to_a_limit() {
        let actor = |count| Actor::new(String::new(), String::new(), String::new(), count, Instance::default());
        assert_eq!(actor(3).instances.len(), 3);
        assert_eq!(actor(u16::MAX).instances.len(), usize::from(MAX_LISTED_INSTANCES));
    }
}
