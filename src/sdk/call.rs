//! One call of a linked actor, as a provider sees it.

use std::{sync::Arc, time::Instant};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    wire::{LinkDefinition, codec},
};

/// One call of a linked actor.
#[derive(Clone, Debug)]
pub struct Call {
    /// The link it comes by: who calls, under which contract, with which values.
    pub link: Arc<LinkDefinition>,
    /// `Trait.Method`.
    pub operation: String,
    /// The whole body.
    pub payload: Vec<u8>,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

impl Call {
    /// The payload as MessagePack.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), naming the operation.
    pub fn request<T: DeserializeOwned>(&self) -> Result<T> {
        codec::decode(&format!("{} request", self.operation), &self.payload)
    }

    /// The error for an operation the provider does not know.
    pub fn not_handled(&self) -> Error {
        super::not_handled(&self.operation)
    }
}

/// An answer as MessagePack, structs as maps.
///
/// # Errors
/// `value` cannot be written so.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>> {
    codec::encode(value)
}
