//! Bodies above the chunk threshold: stored before the message is sent, fetched and deleted by whoever receives it
//! (`protocol/invocation.md §6`).

use std::time::Duration;

use super::{
    admission::Admission,
    connection::Connection,
    objects::{
        Bucket,
        reader::Reader,
        words::Place,
        writer::{self, delete},
    },
};
use crate::{
    error::{Error, Result},
    log,
    store::Digest,
    task,
    wire::chunk,
};

/// Bodies that wait at once to be removed without anybody waiting for that; about 300 bytes each. One more stays in the
/// store, where it costs space.
const MAX_DISCARDS: usize = 256;

/// How long the removal of one body may take before it stays where it is.
const DISCARD_PATIENCE: Duration = Duration::from_secs(5);

/// The lattice's object store.
#[derive(Clone)]
pub struct Bodies {
    connection: Connection,
    lattice: String,
    domain: Option<String>,
    discards: Admission,
}

impl Bodies {
    /// The store of `lattice` on `connection`, in the JetStream domain `domain`.
    pub fn new(connection: Connection, lattice: &str, domain: Option<&str>) -> Self {
        Self {
            connection,
            lattice: lattice.to_owned(),
            domain: domain.map(str::to_owned),
            discards: Admission::new(MAX_DISCARDS, 0),
        }
    }

    /// Stores `body` as `name`, within `patience`. The store is made when it is missing. When it takes longer, or whoever
    /// asked goes away, what was stored is removed again.
    ///
    /// # Errors
    /// There is no connection, no JetStream, or it took too long.
    pub async fn store(&self, name: String, body: Vec<u8>, patience: Duration) -> Result<()> {
        let (bucket, place) = self.place(name);
        let (sender, receiver) = smol::channel::bounded(1);
        // A task of its own: dropped half-way, nobody would know the name of the chunks that are there already.
        task::spawn(async move {
            let stored = async {
                bucket.make().await?;
                let mut at = 0;
                let pieces = |most: usize| {
                    if sender.is_closed() {
                        return std::future::ready(Err(Error::timeout("nobody waits for it any more")));
                    }
                    let piece = &body[at..body.len().min(at + most)];
                    at += piece.len();
                    std::future::ready(Ok(piece.to_vec()))
                };
                writer::put(&bucket, &place, pieces).await
            };
            let (outcome, info) = match stored.await {
                Ok(info) => (Ok(()), Some(info)),
                Err(error) => (Err(error), None),
            };
            if sender.try_send(outcome).is_err()
                && let Some(info) = info
                && let Err(error) = delete(&bucket, &place, &info).await
            {
                log::debug!("a long body that nobody waits for stays in the store: {error}");
            }
        })
        .detach();
        let outcome = task::within(patience, receiver.recv()).await;
        receiver.close();
        // It may have come to its end just as the time was over.
        let outcome = outcome.or_else(|| receiver.try_recv().ok().map(Ok));
        let outcome = outcome.map(|told| told.unwrap_or_else(|_| Err(Error::internal("it ended without an outcome"))));
        self.outcome("store", outcome)
    }

    /// Removes the body `name`, if it is there: nobody will fetch it. Best effort, and waited for.
    pub async fn discard(&self, name: String) {
        if !self.connection.is_connected() {
            return;
        }
        let (bucket, place) = self.place(name);
        let removed = async {
            match bucket.info(&place).await? {
                Some(info) if !info.deleted => delete(&bucket, &place, &info).await,
                _ => Ok(()),
            }
        };
        match task::within(DISCARD_PATIENCE, removed).await {
            Some(Ok(())) => {}
            Some(Err(error)) => log::debug!("a long body may stay in the store: {error}"),
            None => log::debug!("a long body may stay in the store: its removal took too long"),
        }
    }

    /// As [`Bodies::discard`], for several and after `delay`, without being waited for.
    pub fn discard_later(&self, names: Vec<String>, delay: Duration) {
        let Some(pass) = self.discards.enter(0) else {
            log::debug!("{} long bodies may stay in the store: too many wait to be removed", names.len());
            return;
        };
        let bodies = self.clone();
        task::spawn(async move {
            let _pass = pass;
            smol::Timer::after(delay).await;
            for name in names {
                bodies.discard(name).await;
            }
        })
        .detach();
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
        self.outcome("fetch", task::within(patience, fetched).await)
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
