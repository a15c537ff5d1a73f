//! Events about actors: per instance, per command, and in the newest hosts' words, all three (`protocol/events.md §2–3`).

use serde::Serialize;

use super::Data;
use crate::wire::control::Annotations;

/// What events say of an actor's claims.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ActorClaims<'a> {
    /// Second name for calls, `""` for none.
    pub call_alias: &'a str,
    /// Contracts it may use.
    pub caps: &'a [String],
    /// Who signed it.
    pub issuer: &'a str,
    /// Free labels.
    pub tags: &'a [String],
    /// Name for people.
    pub name: &'a str,
    /// Version for people.
    pub version: &'a str,
    /// Effective revision.
    pub revision: i32,
    /// From when it may run, for people.
    pub not_before_human: &'a str,
    /// Until when, for people.
    pub expires_human: &'a str,
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal { $($(#[$member_doc:meta])* $member:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Serialize)]
        pub struct $name<'a> {
            $($(#[$member_doc])* pub $member: $type,)*
        }

        impl Data for $name<'_> {
            const NAME: &'static str = $text;
        }
    )*};
}
pub(super) use events;

events! {
    /// One instance answers from now on. What the oldest clients wait for.
    ActorStarted = "actor_started" {
        /// `M…`.
        public_key: &'a str,
        /// The reference exactly as it was asked for.
        image_ref: &'a str,
        /// Always `n/a`.
        api_version: &'a str,
        /// Name of the instance.
        instance_id: &'a str,
        /// Marks it was started with.
        annotations: &'a Annotations,
        /// Its claims.
        claims: ActorClaims<'a>,
    }

    /// A command started this many instances.
    ActorsStarted = "actors_started" {
        /// `M…`.
        public_key: &'a str,
        /// The reference exactly as it was asked for.
        image_ref: &'a str,
        /// Marks they were started with.
        annotations: &'a Annotations,
        /// Where.
        host_id: &'a str,
        /// Its claims.
        claims: ActorClaims<'a>,
        /// How many.
        count: u16,
    }

    /// An actor could not be started; the per-instance form.
    ActorStartFailed = "actor_start_failed" {
        /// The reference exactly as it was asked for.
        actor_ref: &'a str,
        /// Why not.
        error: &'a str,
    }

    /// An actor could not be started; the per-command form.
    ActorsStartFailed = "actors_start_failed" {
        /// `M…`, or `N/A`.
        public_key: &'a str,
        /// The reference exactly as it was asked for.
        image_ref: &'a str,
        /// Marks it was to have.
        annotations: &'a Annotations,
        /// Where.
        host_id: &'a str,
        /// Why not.
        error: &'a str,
    }

    /// One instance no longer answers.
    ActorStopped = "actor_stopped" {
        /// `M…`.
        public_key: &'a str,
        /// Name of the instance.
        instance_id: &'a str,
        /// Marks it was started with.
        annotations: &'a Annotations,
    }

    /// A command stopped this many instances.
    ActorsStopped = "actors_stopped" {
        /// Where.
        host_id: &'a str,
        /// `M…`.
        public_key: &'a str,
        /// The reference it ran from.
        image_ref: &'a str,
        /// How many were stopped.
        count: u16,
        /// How many still run.
        remaining: u16,
        /// Marks they were started with.
        annotations: &'a Annotations,
    }

    /// The actor may now run this often. What the newest clients wait for.
    ActorScaled = "actor_scaled" {
        /// `M…`.
        public_key: &'a str,
        /// Its claims.
        claims: ActorClaims<'a>,
        /// Marks it was started with.
        annotations: &'a Annotations,
        /// Where.
        host_id: &'a str,
        /// The reference exactly as it was asked for.
        image_ref: &'a str,
        /// How often; 0 after a stop.
        max_instances: u16,
    }

    /// A scaling failed.
    ActorScaleFailed = "actor_scale_failed" {
        /// `M…`, or `N/A`.
        public_key: &'a str,
        /// The reference once more. The newest clients read this name in every such event while they wait for a start, and
        /// give up the wait where it is missing.
        actor_ref: &'a str,
        /// Its claims, empty when the module was not read.
        claims: ActorClaims<'a>,
        /// Marks it was to have.
        annotations: &'a Annotations,
        /// Where.
        host_id: &'a str,
        /// The reference exactly as it was asked for.
        image_ref: &'a str,
        /// How often it was to run.
        max_instances: u16,
        /// Why not.
        error: &'a str,
    }

    /// An instance got a new module.
    ActorUpdated = "actor_updated" {
        /// `M…`.
        public_key: &'a str,
        /// Effective revision of the new module.
        revision: i32,
        /// Name of the instance.
        instance_id: &'a str,
    }

    /// An instance kept its old module.
    ActorUpdateFailed = "actor_update_failed" {
        /// `M…`.
        public_key: &'a str,
        /// Effective revision of the module refused, 0 when it could not be read.
        revision: i32,
        /// Name of the instance.
        instance_id: &'a str,
        /// Why.
        reason: &'a str,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::written, *};

    #[test]
    fn the_members_clients_wait_for_are_strings() {
        let annotations = Annotations::from([("wasmcloud.dev/managed-by".to_owned(), "wadm".to_owned())]);
        let caps = ["wasmcloud:keyvalue".to_owned()];
        let claims = ActorClaims { caps: &caps, name: "Echo", ..ActorClaims::default() };
        let started = written(&ActorStarted {
            public_key: "M1",
            image_ref: "file:///a.wasm",
            api_version: "n/a",
            instance_id: "i",
            annotations: &annotations,
            claims,
        });
        assert_eq!(
            (started["image_ref"].as_str(), started["public_key"].as_str()),
            (Some("file:///a.wasm"), Some("M1"))
        );
        assert_eq!(started["claims"]["caps"], serde_json::json!(["wasmcloud:keyvalue"]));
        assert!(started["claims"].as_object().unwrap().values().all(|value| !value.is_null()));
        assert_eq!(started["annotations"]["wasmcloud.dev/managed-by"], "wadm");
        let failed = written(&ActorStartFailed { actor_ref: "r", error: "no \"such\" thing\n" });
        assert_eq!((failed["actor_ref"].as_str(), failed["error"].as_str()), (Some("r"), Some("no \"such\" thing\n")));
        let scaled = written(&ActorScaled {
            public_key: "M1",
            claims,
            annotations: &annotations,
            host_id: "N1",
            image_ref: "r",
            max_instances: 5,
        });
        assert_eq!(scaled["max_instances"], 5);
        let stopped = written(&ActorsStopped {
            host_id: "N1",
            public_key: "M1",
            image_ref: "r",
            count: 2,
            remaining: 0,
            annotations: &annotations,
        });
        assert_eq!((stopped["count"].as_u64(), stopped["remaining"].as_u64()), (Some(2), Some(0)));
    }

    #[test]
    fn every_other_event_is_written() {
        let annotations = Annotations::new();
        let claims = ActorClaims::default();
        let (public_key, image_ref, host_id, instance_id, error) = ("M1", "r", "N1", "i", "e");
        written(&ActorsStarted { public_key, image_ref, annotations: &annotations, host_id, claims, count: 1 });
        written(&ActorsStartFailed { public_key, image_ref, annotations: &annotations, host_id, error });
        written(&ActorStopped { public_key, instance_id, annotations: &annotations });
        let scale_failed = written(&ActorScaleFailed {
            public_key,
            actor_ref: image_ref,
            claims,
            annotations: &annotations,
            host_id,
            image_ref,
            max_instances: 1,
            error,
        });
        // What a client that waits for a start reads, and what one that waits for a stop does.
        for member in ["actor_ref", "public_key", "error"] {
            assert!(scale_failed[member].is_string(), "{member}: {scale_failed}");
        }
        written(&ActorUpdated { public_key, revision: 2, instance_id });
        written(&ActorUpdateFailed { public_key, revision: 2, instance_id, reason: "r" });
    }
}
