//! Which calls are answered: the checks of a provider, in the words of the published SDKs (`protocol/invocation.md §4.2`).
//!
//! One text differs on purpose: where those print the host's id as the key a call should have been for, this prints the
//! provider's.

use std::sync::Arc;

use super::links::Links;
use crate::{
    claims::{AntiForgery, Checked, Now},
    error::{Error, Result},
    lattice::rpc::as_provider_says,
    wire::{Invocation, LinkDefinition},
};

/// What [`Invocation::decode`] says before the reason.
const UNREADABLE: &str = "Failed to deserialize invocation: ";

/// Checks `invocation` and finds the link it comes by. Its body is still to be checked by what is returned with it.
///
/// # Errors
/// The refusal.
pub fn check(
    anti_forgery: &AntiForgery,
    provider_key: &str,
    links: &Links,
    invocation: &Invocation<'_>,
    now: Now,
) -> Result<(Checked, Arc<LinkDefinition>)> {
    let checked = anti_forgery.check(invocation, now).map_err(in_their_words)?;
    let target = &invocation.target.public_key;
    if target != provider_key {
        return Err(Error::denied(format!("target key mismatch: {target} != {provider_key}")));
    }
    let actor = &invocation.origin.public_key;
    let link = links.find(actor).ok_or_else(|| Error::denied(format!("unlinked actor: '{actor}'")))?;
    Ok((checked, link))
}

/// A refusal in the words of the SDKs.
pub fn in_their_words(error: Error) -> Error {
    match error.text().strip_prefix(UNREADABLE) {
        Some(reason) => Error::invalid(format!("deser error: deserialization: {reason}")),
        None => as_provider_says(&error),
    }
}
