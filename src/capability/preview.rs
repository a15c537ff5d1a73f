//! What a link to a built-in provider would do, found out without opening it: for `latticed check`, and for whoever is about
//! to make an application desired state.
//!
//! Each provider judges the values of its links by the same code when a link is opened; here it is asked beforehand.

use std::net::SocketAddr;

use super::{Settings, http_client, http_server, key_value, messaging};
use crate::{
    error::{Error, Result},
    suggest::nearest,
    wire::{
        LinkDefinition,
        interface::{HTTP_CLIENT, HTTP_SERVER, KEY_VALUE, LOGGING, MESSAGING, NUMBERGEN},
    },
};

/// What a link would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkPlan {
    /// What in its values has no effect, one sentence each.
    pub warnings: Vec<String>,
    /// Where it would listen, if anywhere.
    pub listens: Option<SocketAddr>,
}

/// A built-in provider as it is named and described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What stands after `builtin:`.
    pub name: &'static str,
    /// Contract it serves.
    pub contract_id: &'static str,
    /// Whether it reads a start configuration.
    pub configured: bool,
}

/// All of them.
pub const KNOWN: [Known; 6] = [
    Known { name: "httpserver", contract_id: HTTP_SERVER, configured: false },
    Known { name: "keyvalue", contract_id: KEY_VALUE, configured: false },
    Known { name: "messaging", contract_id: MESSAGING, configured: true },
    Known { name: "httpclient", contract_id: HTTP_CLIENT, configured: false },
    Known { name: "logging", contract_id: LOGGING, configured: false },
    Known { name: "numbergen", contract_id: NUMBERGEN, configured: false },
];

/// The built-in provider called `name`.
///
/// # Errors
/// `NotFound`: there is none.
pub fn known(name: &str) -> Result<Known> {
    KNOWN.into_iter().find(|known| known.name == name).ok_or_else(|| {
        let names = KNOWN.map(|known| known.name);
        let meant = nearest(name, names).map_or_else(String::new, |meant| format!(" (did you mean builtin:{meant}?)"));
        Error::not_found(format!("there is no built-in provider {name}{meant}: this host has {}", names.join(", ")))
    })
}

/// What `link` to the built-in provider `name` would do, over `configuration`, the provider's start configuration. Reads the
/// files that link values name. Blocks.
///
/// # Errors
/// Those of opening the link, as far as they are known beforehand.
pub fn link(
    name: &str,
    settings: &Settings,
    ways: &messaging::Ways,
    configuration: Option<&str>,
    link: &LinkDefinition,
) -> Result<LinkPlan> {
    match known(name)?.name {
        "httpserver" => http_server::preview(&settings.http_server, link),
        "httpclient" => http_client::preview(&settings.http_client, link),
        "messaging" => messaging::preview(&settings.messaging, ways, configuration, link),
        "keyvalue" => key_value::preview(settings.quotas, link),
        other => {
            let warnings = link.values.keys().map(|value| format!("the link value `{value}` means nothing to {other}"));
            Ok(LinkPlan { warnings: warnings.collect(), listens: None })
        }
    }
}

/// The warning about `name`, a link value or setting (`noun`) that `whom` does not know.
///
/// # Errors
/// `Config`: it is most likely a misspelt one of `known`. What it was meant to set would stay as it is by default, which may
/// open what somebody wanted closed.
pub(super) fn unknown<'a>(
    noun: &str,
    name: &str,
    whom: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Result<String> {
    let short = name.rsplit('.').next().unwrap_or(name);
    let text = format!("the {noun} `{name}` means nothing to {whom}");
    match nearest(short, known) {
        Some(meant) => Err(Error::config(format!("{text}: did you mean `{meant}`?"))),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capability::builtins,
        store::{self, FaultDisk, Store},
    };

    #[test]
    fn every_built_in_is_known_with_its_contract() {
        let store = Store::open(store::Settings::default(), std::sync::Arc::new(FaultDisk::default()));
        let builtins = builtins(&store.expect("an empty disk").0, &Settings::default());
        for known in KNOWN {
            let found = builtins.find(known.name).expect(known.name);
            assert_eq!(found.contract_id, known.contract_id, "{}", known.name);
        }
        assert_eq!(builtins.names().count(), KNOWN.len());
        let error = super::known("keyvalu").expect_err("misspelt");
        assert!(error.text().contains("did you mean builtin:keyvalue?"), "{error}");
    }
}
