//! Events about providers (`protocol/events.md §2`).

use serde::Serialize;

use super::{Data, actor::events};
use crate::wire::control::Annotations;

/// What events say of a provider's claims.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ProviderClaims<'a> {
    /// Who signed it, `""` for one that is part of the host.
    pub issuer: &'a str,
    /// Always null, as every host writes it.
    pub tags: Option<&'a str>,
    /// Name for people.
    pub name: &'a str,
    /// Version for people.
    pub version: &'a str,
    /// From when it may run, for people.
    pub not_before_human: &'a str,
    /// Until when, for people.
    pub expires_human: &'a str,
}

events! {
    /// A provider serves its contract from now on.
    ProviderStarted = "provider_started" {
        /// `V…`.
        public_key: &'a str,
        /// The reference exactly as it was asked for.
        image_ref: &'a str,
        /// Link name served.
        link_name: &'a str,
        /// Contract served.
        contract_id: &'a str,
        /// Name of the process, or of what stands for one.
        instance_id: &'a str,
        /// Marks it was started with.
        annotations: &'a Annotations,
        /// Its claims.
        claims: ProviderClaims<'a>,
        /// Where.
        host_id: &'a str,
    }

    /// A provider could not be started.
    ProviderStartFailed = "provider_start_failed" {
        /// The reference exactly as it was asked for.
        provider_ref: &'a str,
        /// Link name it should have served.
        link_name: &'a str,
        /// Where.
        host_id: &'a str,
        /// Why not.
        error: &'a str,
    }

    /// A provider serves no longer.
    ProviderStopped = "provider_stopped" {
        /// `V…`.
        public_key: &'a str,
        /// Link name served.
        link_name: &'a str,
        /// Contract served.
        contract_id: &'a str,
        /// Name of the process, or of what stood for one.
        instance_id: &'a str,
        /// Marks it was started with.
        annotations: &'a Annotations,
        /// Where.
        host_id: &'a str,
        /// Why: `stop` when somebody asked for it.
        reason: &'a str,
    }

    /// It answered its first probe, or again after a failure.
    HealthCheckPassed = "health_check_passed" {
        /// `V…`.
        public_key: &'a str,
        /// Contract served.
        contract_id: &'a str,
        /// Link name served.
        link_name: &'a str,
    }

    /// It stopped answering probes.
    HealthCheckFailed = "health_check_failed" {
        /// `V…`.
        public_key: &'a str,
        /// Contract served.
        contract_id: &'a str,
        /// Link name served.
        link_name: &'a str,
    }

    /// A probe found it as the one before did.
    HealthCheckStatus = "health_check_status" {
        /// `V…`.
        public_key: &'a str,
        /// Contract served.
        contract_id: &'a str,
        /// Link name served.
        link_name: &'a str,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::written, *};

    #[test]
    fn the_members_clients_wait_for_are_strings() {
        let annotations = Annotations::new();
        let claims = ProviderClaims { name: "HTTP Server", version: "0.1.0", ..ProviderClaims::default() };
        let (public_key, link_name, contract_id, host_id) = ("V1", "default", "wasmcloud:httpserver", "N1");
        let started = written(&ProviderStarted {
            public_key,
            image_ref: "builtin:httpserver",
            link_name,
            contract_id,
            instance_id: "i",
            annotations: &annotations,
            claims,
            host_id,
        });
        for member in ["image_ref", "public_key", "contract_id", "link_name"] {
            assert!(started[member].is_string(), "{member}");
        }
        assert!(started["claims"]["version"].is_string() && started["claims"]["tags"].is_null());
        let stopped = written(&ProviderStopped {
            public_key,
            link_name,
            contract_id,
            instance_id: "i",
            annotations: &annotations,
            host_id,
            reason: "stop",
        });
        assert!(["public_key", "contract_id", "link_name", "reason"].iter().all(|name| stopped[name].is_string()));
        let failed = written(&ProviderStartFailed { provider_ref: "r", link_name, host_id, error: "e" });
        assert_eq!((failed["provider_ref"].as_str(), failed["error"].as_str()), (Some("r"), Some("e")));
        written(&HealthCheckPassed { public_key, contract_id, link_name });
        written(&HealthCheckFailed { public_key, contract_id, link_name });
        written(&HealthCheckStatus { public_key, contract_id, link_name });
    }
}
