//! Commands about providers: launch, stop (`protocol/lattice.md §4.5–4.6`).

use std::fmt;

use serde::Deserialize;

use super::{Annotations, names_fit, not_empty, parse};
use crate::{
    error::{Error, Result},
    wire::{json::null_is_default, name_limits, subject::check_part},
};

/// Characters of every public key.
const KEY_CHARS: usize = 56;

/// `lp`: start a provider.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct LaunchProvider {
    /// Where it comes from, as the client wrote it; events repeat it byte for byte.
    pub provider_ref: String,
    /// The link name it shall serve.
    pub link_name: String,
    /// Start configuration, opaque, perhaps secret; `None` when absent or empty.
    #[serde(default)]
    pub configuration: Option<String>,
    /// Marks for finding it again.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: Annotations,
}

impl LaunchProvider {
    const REFUSAL: &'static str = "Improperly formed start provider command JSON";

    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        let mut launch: Self = parse(Self::REFUSAL, body)?;
        not_empty(Self::REFUSAL, "provider_ref", &launch.provider_ref)?;
        not_empty(Self::REFUSAL, "link_name", &launch.link_name)?;
        names_fit(Self::REFUSAL, &launch.provider_ref, &launch.annotations)?;
        check_part("link name", &launch.link_name).map_err(|error| error.context(Self::REFUSAL))?;
        launch.configuration = launch.configuration.filter(|text| !text.is_empty());
        Ok(launch)
    }
}

/// Hides the configuration, where people keep passwords.
impl fmt::Debug for LaunchProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchProvider")
            .field("provider_ref", &self.provider_ref)
            .field("link_name", &self.link_name)
            .field("configuration", &self.configuration.as_ref().map(|_| "hidden"))
            .field("annotations", &self.annotations)
            .finish()
    }
}

/// `sp`: stop a provider.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StopProvider {
    /// `V…`.
    pub provider_ref: String,
    /// The link name it serves.
    pub link_name: String,
    /// Its contract; the key and the link name decide.
    #[serde(default)]
    pub contract_id: Option<String>,
    /// Marks it must carry.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: Annotations,
}

impl StopProvider {
    const REFUSAL: &'static str = "Invalid JSON request for stop provider";

    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) or [`Kind::Limit`](crate::error::Kind::Limit).
    pub fn parse(body: &[u8]) -> Result<Self> {
        let stop: Self = parse(Self::REFUSAL, body)?;
        if !(stop.provider_ref.starts_with('V') && stop.provider_ref.len() == KEY_CHARS) {
            return Err(Error::invalid(format!(
                "{}: provider_ref '{}' is not a provider's public key (V and 55 more characters)",
                Self::REFUSAL,
                name_limits::shown(&stop.provider_ref)
            )));
        }
        not_empty(Self::REFUSAL, "link_name", &stop.link_name)?;
        names_fit(Self::REFUSAL, &stop.link_name, &stop.annotations)?;
        Ok(stop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_is_none() {
        for (body, configuration) in [
            (r#"{"provider_ref":"r","link_name":"a"}"#, None),
            (r#"{"provider_ref":"r","link_name":"a","configuration":""}"#, None),
            (r#"{"provider_ref":"r","link_name":"a","configuration":null,"annotations":null}"#, None),
            (r#"{"provider_ref":"r","link_name":"a","configuration":"{}"}"#, Some("{}")),
        ] {
            assert_eq!(LaunchProvider::parse(body.as_bytes()).unwrap().configuration.as_deref(), configuration);
        }
        let refusal = LaunchProvider::parse(br#"{"provider_ref":"r"}"#).unwrap_err();
        assert!(refusal.text().starts_with("Improperly formed start provider command JSON"));
    }

    #[test]
    fn a_configuration_is_not_shown() {
        let launch =
            LaunchProvider::parse(br#"{"provider_ref":"r","link_name":"a","configuration":"swordfish"}"#).unwrap();
        assert!(!format!("{launch:?}").contains("swordfish"));
    }

    #[test]
    fn stopping_wants_a_key() {
        let key = format!("V{}", "A".repeat(55));
        let body = |reference: &str| format!(r#"{{"provider_ref":"{reference}","link_name":"a"}}"#).into_bytes();
        assert_eq!(StopProvider::parse(&body(&key)).unwrap().provider_ref, key);
        for bad in ["V", &key[1..], &format!("M{}", "A".repeat(55))] {
            let refusal = StopProvider::parse(&body(bad)).unwrap_err();
            assert!(refusal.text().starts_with("Invalid JSON request for stop provider"));
        }
    }
}
