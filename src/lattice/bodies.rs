//! Bodies above the chunk threshold: stored before the message is sent, fetched and deleted by whoever receives it
//! (`protocol/invocation.md §6`).

use std::time::Duration;

use async_nats::jetstream::{self, object_store::ObjectStore};
use tokio::io::AsyncReadExt;

use super::connection::{Connection, within};
use crate::{
    error::{Error, Result},
    wire::chunk,
};

/// The lattice's object store.
#[derive(Clone)]
pub struct Bodies {
    connection: Connection,
    lattice: String,
    domain: Option<String>,
}

impl Bodies {
    /// The store of `lattice` on `connection`, in the JetStream domain `domain`.
    pub fn new(connection: Connection, lattice: &str, domain: Option<&str>) -> Self {
        Self { connection, lattice: lattice.to_owned(), domain: domain.map(str::to_owned) }
    }

    /// Stores `body` as `name`, within `patience`.
    ///
    /// # Errors
    /// There is no connection, no JetStream, or it took too long.
    pub async fn store(&self, name: String, body: Vec<u8>, patience: Duration) -> Result<()> {
        let (bodies, bucket) = (self.clone(), self.lattice.clone());
        let stored = self.connection.run(async move {
            let context = bodies.context(patience);
            let store = open(&context, bucket).await?;
            store.put(name.as_str(), &mut body.as_slice()).await.map_err(|cause| cause.to_string())?;
            Ok::<_, String>(())
        });
        self.outcome("store", within(patience, stored).await)
    }

    /// Fetches the body `name` of `length` bytes and deletes it, within `patience`.
    ///
    /// # Errors
    /// As [`Bodies::store`]; it is not there, or longer than announced.
    pub async fn take(&self, name: String, length: u64, patience: Duration) -> Result<Vec<u8>> {
        if length > chunk::MAX_BODY_BYTES {
            return Err(Error::limit(format!(
                "the body has {length} bytes, at most {} are fetched",
                chunk::MAX_BODY_BYTES
            )));
        }
        let (bodies, bucket) = (self.clone(), self.lattice.clone());
        let fetched = self.connection.run(async move {
            let context = bodies.context(patience);
            let store = context.get_object_store(bucket).await.map_err(|cause| cause.to_string())?;
            let object = store.get(name.as_str()).await.map_err(|cause| cause.to_string())?;
            let mut body = Vec::new();
            // One byte more than announced tells a longer body.
            object.take(length + 1).read_to_end(&mut body).await.map_err(|cause| cause.to_string())?;
            if body.len() as u64 != length {
                return Err(format!("it has {} bytes where {length} were announced", body.len()));
            }
            // A body left behind costs space in the store, not this call.
            let _ = store.delete(name.as_str()).await;
            Ok(body)
        });
        self.outcome("fetch", within(patience, fetched).await)
    }

    /// To be made where the client library's runtime is: made on a worker thread, it panics.
    fn context(&self, patience: Duration) -> jetstream::Context {
        self.connection.jetstream(self.domain.as_deref(), patience)
    }

    fn outcome<T>(&self, what: &str, outcome: Option<Result<Result<T, String>>>) -> Result<T> {
        let why = match outcome {
            Some(Ok(Ok(value))) => return Ok(value),
            Some(Ok(Err(why))) => why,
            Some(Err(error)) => return Err(error),
            None => "it took too long".to_owned(),
        };
        Err(Error::unavailable(format!(
            "cannot {what} a long body in the object store of the lattice {}: {why}",
            self.lattice
        )))
    }
}

/// The store, made when it is missing.
async fn open(context: &jetstream::Context, bucket: String) -> Result<ObjectStore, String> {
    if let Ok(store) = context.get_object_store(&bucket).await {
        return Ok(store);
    }
    let config = jetstream::object_store::Config { bucket, ..Default::default() };
    context.create_object_store(config).await.map_err(|cause| cause.to_string())
}
