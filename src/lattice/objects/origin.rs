//! The source behind `nats://BUCKET/NAME[@sha256:…]`.
//!
//! Registered when the lattice starts. The object's own digest says what a reference stands for before a byte is fetched;
//! an attempt goes on with the chunk that the one before had reached. Without a connection it says so soon, so that a copy
//! kept from before is used.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    artifact::{Content, Origin, Received, Reference, Requester, Resolved, Wanted, origin::Work},
    error::{Error, Result},
    nats::{
        Connection,
        objects::{Bucket, RECONNECT, reader::Reader, wait_for, words::Place},
    },
};

/// How long a question waits for a connection before it says that there is none: a host that has just started has one
/// within a second, and one that boots without a network and has a copy shall not wait long for a better one.
const CONNECT: Duration = Duration::from_secs(5);

/// Object stores, as far as a connection reaches.
#[derive(Clone)]
pub struct ObjectStore {
    connection: Connection,
    domain: Option<Arc<str>>,
}

impl ObjectStore {
    /// Those of the JetStream domain `domain`.
    pub fn new(connection: Connection, domain: Option<&str>) -> Self {
        Self { connection, domain: domain.map(Arc::from) }
    }

    /// The object behind `reference`, once there is a connection.
    async fn open(&self, reference: &Reference, patience: Duration) -> Result<Reader> {
        let place = Place::parse(reference.text())?;
        wait_for(&self.connection, patience).await?;
        let bucket = Bucket::new(self.connection.clone(), self.domain.as_deref(), &place.bucket);
        Reader::open(&bucket, &place).await
    }

    async fn fetch_once(self, wanted: Wanted) -> Result<Received> {
        let mut reader = self.open(&wanted.reference, RECONNECT).await?;
        let promised = reader.info().content_digest();
        if let (Some(expected), Some(promised)) = (wanted.content.digest, promised)
            && expected != promised
        {
            return Err(Error::invalid(format!(
                "the bucket has the digest sha256:{promised} under that name, expected is sha256:{expected}; it was \
                 replaced"
            )));
        }
        let mut into = wanted.into;
        let at = into.begin(Some(&reader.info().nuid), Some(reader.info().size))?;
        reader.pass_over(at).await?;
        while let Some(chunk) = reader.next().await? {
            let bytes = chunk.len() as u64;
            into = smol::unblock(move || into.write(&chunk).map(|()| into)).await?;
            let wait = wanted.pace.take(bytes, Instant::now());
            if !wait.is_zero() {
                smol::Timer::after(wait).await;
            }
        }
        Ok(Received::Content(into, promised))
    }
}

impl Origin for ObjectStore {
    fn resolve(&self, reference: &Reference, _requester: Requester) -> Work<Result<Resolved>> {
        let (store, reference) = (self.clone(), reference.clone());
        Box::pin(async move {
            let reader = store.open(&reference, CONNECT).await?;
            let info = reader.info();
            let content = Content { digest: info.content_digest(), bytes: Some(info.size), ..Content::default() };
            Ok(Resolved::Content(content))
        })
    }

    fn fetch(&self, wanted: Wanted) -> Work<Result<Received>> {
        Box::pin(self.clone().fetch_once(wanted))
    }
}
