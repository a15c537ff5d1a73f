//! MessagePack as the lattice speaks it: structs are maps keyed by field name (`protocol/invocation.md §1`).

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Encodes `value` with named fields.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(value).map_err(|cause| Error::internal(format!("cannot encode a message: {cause}")))
}

/// Decodes a whole message. `what` names it in the error (`KeyValue.Set request`).
pub fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T> {
    rmp_serde::from_slice(bytes).map_err(|cause| Error::invalid(format!("cannot decode the {what}: {cause}")))
}
