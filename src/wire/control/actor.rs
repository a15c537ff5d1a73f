//! Commands about actors: launch, stop, scale, update (`protocol/lattice.md §4.1–4.4`).

use serde::Deserialize;

use super::{Annotations, names_fit, not_empty, parse};
use crate::{
    error::{Error, Result},
    wire::json::null_is_default,
};

/// `la`: start an actor, or more of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchActor {
    /// Where it comes from, as the client wrote it; events repeat it byte for byte.
    pub actor_ref: String,
    /// How many instances, at least 1.
    pub count: u16,
    /// Marks for finding it again.
    pub annotations: Annotations,
}

impl LaunchActor {
    const REFUSAL: &'static str = "Invalid launch actor JSON request";

    /// Reads the request. A count of 0 means 1, as clients that leave it out mean it.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Wire {
            actor_ref: String,
            #[serde(default)]
            count: Option<u64>,
            #[serde(default, deserialize_with = "null_is_default")]
            annotations: Annotations,
        }
        let wire: Wire = parse(Self::REFUSAL, body)?;
        not_empty(Self::REFUSAL, "actor_ref", &wire.actor_ref)?;
        names_fit(Self::REFUSAL, &wire.actor_ref, &wire.annotations)?;
        Ok(Self {
            actor_ref: wire.actor_ref,
            count: bounded(Self::REFUSAL, wire.count.unwrap_or(1).max(1))?,
            annotations: wire.annotations,
        })
    }
}

/// `sa`: stop an actor, or some of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopActor {
    /// `M…`; the member is called `actor_ref` all the same.
    pub actor_id: String,
    /// How many instances; `None` for all (0, null or absent on the wire).
    pub count: Option<u16>,
    /// Only instances that carry every one of these pairs.
    pub annotations: Annotations,
}

impl StopActor {
    const REFUSAL: &'static str = "Invalid request to stop actor";

    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Wire {
            actor_ref: String,
            #[serde(default)]
            count: Option<u64>,
            #[serde(default, deserialize_with = "null_is_default")]
            annotations: Annotations,
        }
        let wire: Wire = parse(Self::REFUSAL, body)?;
        not_empty(Self::REFUSAL, "actor_ref", &wire.actor_ref)?;
        names_fit(Self::REFUSAL, &wire.actor_ref, &wire.annotations)?;
        // More than can run at all is all that run.
        let count = wire.count.filter(|count| *count > 0).map(|count| u16::try_from(count).unwrap_or(u16::MAX));
        Ok(Self { actor_id: wire.actor_ref, count, annotations: wire.annotations })
    }
}

/// Whom `scale` is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScaleTarget {
    /// The older dialect: the key, and where to fetch it if it does not run yet.
    Key {
        /// `M…`.
        actor_id: String,
        /// `None` (`""` on the wire) stands for what runs already.
        actor_ref: Option<String>,
    },
    /// The newer dialect, which also starts actors: the key comes out of the module.
    Reference(String),
}

/// `scale`: let an actor run that many times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleActor {
    /// Whom.
    pub target: ScaleTarget,
    /// Instances wanted: 0 stops it, `None` stands for the host's maximum.
    pub count: Option<u16>,
    /// Marks for finding it again.
    pub annotations: Annotations,
    /// Whether the client may wait for the event of a single start: `wash start actor` of 0.21 does, and it is the one
    /// client that names no annotations at all (`protocol/lattice.md §4.3`).
    pub awaits_start: bool,
}

impl ScaleActor {
    const REFUSAL: &'static str = "Invalid scale actor JSON request";

    /// Reads either dialect.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            actor_id: Option<String>,
            #[serde(default, deserialize_with = "null_is_default")]
            actor_ref: String,
            #[serde(default)]
            count: Option<u64>,
            #[serde(default)]
            annotations: Option<Annotations>,
        }
        let wire: Wire = parse(Self::REFUSAL, body)?;
        let none = Annotations::new();
        let annotations = wire.annotations.as_ref().unwrap_or(&none);
        names_fit(Self::REFUSAL, &wire.actor_ref, annotations)?;
        names_fit(Self::REFUSAL, wire.actor_id.as_deref().unwrap_or_default(), annotations)?;
        let given = Some(wire.actor_ref).filter(|reference| !reference.is_empty());
        let target = match (wire.actor_id.filter(|key| !key.is_empty()), given) {
            (Some(actor_id), actor_ref) => ScaleTarget::Key { actor_id, actor_ref },
            (None, Some(reference)) => ScaleTarget::Reference(reference),
            (None, None) => {
                return Err(Error::invalid(format!("{}: neither actor_id nor actor_ref is given", Self::REFUSAL)));
            }
        };
        // The older dialect always says how many; only there is silence a mistake.
        if matches!(target, ScaleTarget::Key { .. }) && wire.count.is_none() {
            return Err(Error::invalid(format!("{}: count is not given", Self::REFUSAL)));
        }
        let count = wire.count.map(|count| bounded(Self::REFUSAL, count)).transpose()?;
        let awaits_start = matches!(target, ScaleTarget::Reference(_)) && wire.annotations.is_none();
        Ok(Self { target, count, annotations: wire.annotations.unwrap_or_default(), awaits_start })
    }
}

/// `upd`: replace the module of a running actor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct UpdateActor {
    /// Whom the client believes it updates; the module decides.
    #[serde(default)]
    pub actor_id: Option<String>,
    /// Where the new module comes from.
    pub new_actor_ref: String,
    /// Marks; read by some hosts, kept here for the log.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: Annotations,
}

impl UpdateActor {
    const REFUSAL: &'static str = "Invalid JSON request to update actor";

    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        let update: Self = parse(Self::REFUSAL, body)?;
        not_empty(Self::REFUSAL, "new_actor_ref", &update.new_actor_ref)?;
        names_fit(Self::REFUSAL, &update.new_actor_ref, &update.annotations)?;
        names_fit(Self::REFUSAL, update.actor_id.as_deref().unwrap_or_default(), &update.annotations)?;
        Ok(update)
    }
}

/// A count of instances to run, which a host holds in 16 bits. Clients of the newest dialect send 32 bits.
fn bounded(refusal: &'static str, count: u64) -> Result<u16> {
    u16::try_from(count).map_err(|_| {
        Error::limit(format!("{refusal}: {count} instances asked for, a host takes on {}: ask for fewer", u16::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launching_none_launches_one() {
        for (body, count) in [
            (r#"{"actor_ref":"r"}"#, 1),
            (r#"{"actor_ref":"r","count":0}"#, 1),
            (r#"{"actor_ref":"r","count":null,"annotations":null}"#, 1),
            (r#"{"actor_ref":"r","count":7}"#, 7),
            (r#"{"actor_ref":"r","count":65535}"#, u16::MAX),
        ] {
            assert_eq!(LaunchActor::parse(body.as_bytes()).unwrap().count, count, "{body}");
        }
        for body in ["", "{}", r#"{"actor_ref":null}"#, r#"{"actor_ref":""}"#, r#"{"actor_ref":"r","count":-1}"#] {
            let refusal = LaunchActor::parse(body.as_bytes()).unwrap_err();
            assert!(refusal.text().starts_with("Invalid launch actor JSON request"), "{refusal}");
        }
    }

    #[test]
    fn stopping_without_a_count_stops_all() {
        for (body, count) in [
            (r#"{"actor_ref":"M1"}"#, None),
            (r#"{"actor_ref":"M1","count":null}"#, None),
            (r#"{"actor_ref":"M1","count":0}"#, None),
            (r#"{"actor_ref":"M1","count":3}"#, Some(3)),
            (r#"{"actor_ref":"M1","count":70000}"#, Some(u16::MAX)),
        ] {
            assert_eq!(StopActor::parse(body.as_bytes()).unwrap().count, count, "{body}");
        }
        assert!(StopActor::parse(b"[]").unwrap_err().text().starts_with("Invalid request to stop actor"));
    }

    #[test]
    fn both_dialects_of_scale_are_told_apart() {
        let parse = |body: &str| ScaleActor::parse(body.as_bytes());
        let old = parse(r#"{"actor_id":"M1","actor_ref":"","count":2}"#).unwrap();
        assert_eq!(old.target, ScaleTarget::Key { actor_id: "M1".into(), actor_ref: None });
        let new = parse(r#"{"actor_ref":"r","annotations":{"a":"b"},"count":null,"host_id":"N1"}"#).unwrap();
        assert_eq!((new.target, new.count), (ScaleTarget::Reference("r".into()), None));
        assert_eq!(parse(r#"{"actor_ref":"r","count":0}"#).unwrap().count, Some(0));
        assert!(parse(r#"{"count":1}"#).is_err());
        assert!(parse(r#"{"actor_id":"M1","actor_ref":"r"}"#).is_err());
    }

    #[test]
    fn a_count_beyond_what_a_host_takes_is_refused_and_not_cut() {
        for count in [65_536_u64, 70_000, u64::from(u32::MAX), u64::MAX] {
            let launch = format!(r#"{{"actor_ref":"r","count":{count}}}"#);
            let scale = format!(r#"{{"actor_id":"M1","actor_ref":"r","count":{count}}}"#);
            for refusal in [
                LaunchActor::parse(launch.as_bytes()).unwrap_err(),
                ScaleActor::parse(launch.as_bytes()).unwrap_err(),
                ScaleActor::parse(scale.as_bytes()).unwrap_err(),
            ] {
                let wanted = format!("{count} instances asked for, a host takes on 65535: ask for fewer");
                assert!(refusal.text().ends_with(&wanted), "{refusal}");
            }
        }
    }

    #[test]
    fn the_client_that_waits_for_a_start_names_no_annotations() {
        for (body, awaits) in [
            (r#"{"actor_ref":"r","count":1,"host_id":"N1"}"#, true),
            (r#"{"actor_ref":"r","annotations":null,"count":1}"#, true),
            (r#"{"actor_ref":"r","annotations":{},"count":1}"#, false),
            (r#"{"actor_ref":"r","annotations":{"a":"b"},"count":1}"#, false),
            (r#"{"actor_id":"M1","actor_ref":"r","count":1}"#, false),
        ] {
            assert_eq!(ScaleActor::parse(body.as_bytes()).unwrap().awaits_start, awaits, "{body}");
        }
    }

    #[test]
    fn an_update_names_a_module() {
        assert!(UpdateActor::parse(br#"{"new_actor_ref":"r"}"#).is_ok());
        let refusal = UpdateActor::parse(br#"{"actor_id":"M1"}"#).unwrap_err();
        assert!(refusal.text().starts_with("Invalid JSON request to update actor"));
    }
}
