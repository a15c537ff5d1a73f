//! The source behind `nats://BUCKET/NAME[@sha256:…]`.
//!
//! Registered when the lattice starts. It goes on with the chunk it had reached when the connection is lost and comes back,
//! checks the object's own digest, and gives up after a while so that a copy kept from before is used.

use std::{future::Future, pin::Pin, time::Duration};

use super::{bucket::Bucket, reader::Reader, words::Place};
use crate::{
    artifact::{Origin, Received, Wanted},
    error::{Error, Kind, Result},
    lattice::connection::{Connection, within},
    log,
};

/// How long a connection that was lost on the way may take to come back: longer than a server's restart, shorter than an
/// operator's patience. What has arrived stays for the next attempt.
pub const RECONNECT: Duration = Duration::from_secs(60);

/// How long a host that has just started waits for its first connection before it says that there is none.
const FIRST_CONNECT: Duration = Duration::from_secs(15);

/// The same where a copy from before is at hand: a board that boots without a network does not wait for it.
const FIRST_CONNECT_WITH_COPY: Duration = Duration::from_secs(3);

/// Failures in a row, without a chunk between, after which it gives up.
const MAX_FAILURES: u32 = 5;

/// How long all of it may take. 64 MiB at 64 KB/s are 17 minutes.
const TOTAL: Duration = Duration::from_secs(30 * 60);

/// Object stores, as far as a connection reaches.
pub struct ObjectStore {
    connection: Connection,
    domain: Option<String>,
}

impl ObjectStore {
    /// Those of the JetStream domain `domain`.
    pub fn new(connection: Connection, domain: Option<&str>) -> Self {
        Self { connection, domain: domain.map(str::to_owned) }
    }
}

impl Origin for ObjectStore {
    fn fetch(&self, wanted: Wanted) -> Pin<Box<dyn Future<Output = Result<Received>> + Send>> {
        let (connection, domain) = (self.connection.clone(), self.domain.clone());
        Box::pin(async move {
            within(TOTAL, fetch(connection, domain, wanted))
                .await
                .unwrap_or_else(|| Err(Error::timeout(format!("it did not arrive within {} s", TOTAL.as_secs()))))
        })
    }
}

async fn fetch(connection: Connection, domain: Option<String>, wanted: Wanted) -> Result<Received> {
    let place = Place::parse(wanted.reference.text())?;
    let patience = if wanted.kept.is_some() { FIRST_CONNECT_WITH_COPY } else { FIRST_CONNECT };
    wait_for(&connection, patience).await?;
    let bucket = Bucket::new(connection.clone(), domain.as_deref(), &place.bucket);
    let mut reader = Reader::open(&bucket, &place).await?;
    let promised = reader.info().content_digest();
    if let Some(kept) = wanted.kept.filter(|kept| promised == Some(*kept)) {
        return Ok(Received::Known(kept));
    }
    let mut into = wanted.into;
    if reader.info().size > into.limit() {
        return Err(Error::limit(format!(
            "it has {} bytes, more than the {} allowed",
            reader.info().size,
            into.limit()
        )));
    }
    let mut failures = 0;
    loop {
        match reader.next().await {
            Ok(None) => return Ok(Received::Content(into, promised)),
            Ok(Some(chunk)) => {
                failures = 0;
                into = smol::unblock(move || into.write(&chunk).map(|()| into)).await?;
            }
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Timeout) && failures < MAX_FAILURES => {
                failures += 1;
                let (at, size) = (reader.at(), reader.info().size);
                log::info!("{error}; going on at byte {at} of {size}"; reference = wanted.reference.text());
                wait_for(&connection, RECONNECT).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is a connection, at most `patience`.
///
/// # Errors
/// `Unavailable`.
pub async fn wait_for(connection: &Connection, patience: Duration) -> Result<()> {
    within(patience, connection.connected()).await.ok_or_else(|| {
        Error::unavailable(format!(
            "there was no connection to NATS for {} s; `latticed status` tells why",
            patience.as_secs()
        ))
    })
}
