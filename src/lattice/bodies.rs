//! Bodies above the chunk threshold: stored before the message is sent, fetched and deleted by whoever receives it
//! (`protocol/invocation.md §6`).

use std::time::Duration;

use super::{
    connection::{Connection, within},
    objects::{
        Bucket,
        reader::Reader,
        words::Place,
        writer::{self, delete},
    },
};
use crate::{
    error::{Error, Result},
    store::Digest,
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

    /// Stores `body` as `name`, within `patience`. The store is made when it is missing.
    ///
    /// # Errors
    /// There is no connection, no JetStream, or it took too long.
    pub async fn store(&self, name: String, body: Vec<u8>, patience: Duration) -> Result<()> {
        let (bucket, place) = self.place(name);
        let stored = async {
            bucket.make().await?;
            let mut at = 0;
            let pieces = |most: usize| {
                let piece = body[at..].iter().copied().take(most).collect::<Vec<_>>();
                at += piece.len();
                std::future::ready(Ok(piece))
            };
            writer::put(&bucket, &place, pieces).await.map(drop)
        };
        self.outcome("store", within(patience, stored).await)
    }

    /// Fetches the body `name` of `length` bytes and deletes it, within `patience`.
    ///
    /// # Errors
    /// As [`Bodies::store`]; it is not there, damaged, or not as long as announced.
    pub async fn take(&self, name: String, length: u64, patience: Duration) -> Result<Vec<u8>> {
        if length > chunk::MAX_BODY_BYTES {
            return Err(Error::limit(format!(
                "the body has {length} bytes, at most {} are fetched",
                chunk::MAX_BODY_BYTES
            )));
        }
        let (bucket, place) = self.place(name);
        let fetched = async {
            let mut reader = Reader::open(&bucket, &place).await?;
            let size = reader.info().size;
            if size != length {
                return Err(Error::invalid(format!("it has {size} bytes where {length} were announced")));
            }
            let mut body = Vec::new();
            while let Some(piece) = reader.next().await? {
                body.extend_from_slice(&piece);
            }
            if reader.info().content_digest().is_some_and(|digest| digest != Digest::of(&body)) {
                return Err(Error::invalid("it is not what its digest says"));
            }
            // A body left behind costs space in the store, not this call.
            let _ = delete(&bucket, &place, reader.info()).await;
            Ok(body)
        };
        self.outcome("fetch", within(patience, fetched).await)
    }

    /// Deletes the body `name`, which nobody will fetch, some time soon. What cannot be deleted costs space in the store and
    /// nothing else.
    pub fn discard(&self, name: String) {
        let (bucket, place) = self.place(name);
        let deleted = async move {
            if let Ok(reader) = Reader::open(&bucket, &place).await {
                let _ = delete(&bucket, &place, reader.info()).await;
            }
        };
        crate::task::spawn(async move {
            within(chunk::EXTRA_TIME, deleted).await;
        })
        .detach();
    }

    fn place(&self, name: String) -> (Bucket, Place) {
        let bucket = Bucket::new(self.connection.clone(), self.domain.as_deref(), &self.lattice);
        (bucket, Place { bucket: self.lattice.clone(), name })
    }

    fn outcome<T>(&self, what: &str, outcome: Option<Result<T>>) -> Result<T> {
        let why = match outcome {
            Some(Ok(value)) => return Ok(value),
            Some(Err(error)) => error.text().to_owned(),
            None => "it took too long".to_owned(),
        };
        Err(Error::unavailable(format!(
            "cannot {what} a long body in the object store of the lattice {}: {why}",
            self.lattice
        )))
    }
}
