//! Which calls are answered: the checks of a provider, in the words of the published SDKs (`protocol/invocation.md §4.2`).
//!
//! One text differs on purpose: where those print the host's id as the key a call should have been for, this prints the
//! provider's.

use std::sync::Arc;

use super::links::Links;
use crate::{
    claims::{AntiForgery, Checked, Forgery, Now},
    error::{Error, Result},
    wire::{Invocation, LinkDefinition},
};

/// What the SDKs say before the reason why a message cannot be read.
const UNREADABLE: &str = "deser error: deserialization";

/// Reads the envelope of a call.
///
/// # Errors
/// The refusal.
pub fn read(message: &[u8]) -> Result<Invocation<'_>> {
    Invocation::read(message).map_err(|error| error.context(UNREADABLE))
}

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
    let checked = anti_forgery.find_forgery(invocation, now).map_err(Forgery::as_provider_says)?;
    let target = &invocation.target.public_key;
    if target != provider_key {
        return Err(Error::denied(format!("target key mismatch: {target} != {provider_key}")));
    }
    let actor = &invocation.origin.public_key;
    let link = links.find(actor).ok_or_else(|| Error::denied(format!("unlinked actor: '{actor}'")))?;
    Ok((checked, link))
}
