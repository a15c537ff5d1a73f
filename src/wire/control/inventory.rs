//! The answer to `get.{H}.inv`: what runs on one host (`protocol/lattice.md §3.4`).
//!
//! One element of `instances` for each set of annotations of an actor, with how many of it run: `wadm` 0.8 to 0.10 and
//! `wash` read that right. `wadm` 0.7 adds up `max_concurrent` as well. `wadm` 0.5 and 0.6 count the elements by their
//! `instance_id` and know one instance until they have heard the events of the others; what they start and stop stays right
//! because they name the annotations and the number they want.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Annotations;

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
    /// Its instances, one element for those with the same annotations.
    pub instances: Vec<Instance>,
}

/// The instances of an actor that have the same annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Marks they were started with.
    pub annotations: Annotations,
    /// Name of the first of them.
    pub instance_id: String,
    /// Effective revision of their module.
    pub revision: i32,
    /// Where their module came from.
    pub image_ref: String,
    /// How many there are, each of which takes one call at a time.
    pub max_concurrent: u16,
    /// The same number, as newer clients read it.
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
            actors: vec![Actor {
                id: "M".into(),
                image_ref: "r".into(),
                name: "echo".into(),
                instances: vec![instance],
            }],
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
}
