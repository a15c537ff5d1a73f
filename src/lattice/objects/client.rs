//! Object stores for the command line: put a file, get one, list a bucket, each on a connection of its own.

use std::{
    fs::File,
    io::{Read, Write},
    sync::Arc,
};

use sha2::Digest as _;

use crate::{
    error::{Context, Error, Kind, Result},
    lattice::{Settings, gather},
    lock::Mutex,
    nats::objects::{
        Bucket, RECONNECT,
        reader::Reader,
        wait_for,
        words::{Info, Place, bucket_name},
        writer,
    },
    store::Digest,
};

/// Failures in a row, without a chunk between, after which a get gives up.
const MAX_FAILURES: u32 = 5;

async fn bucket(settings: &Settings, name: &str) -> Result<Bucket> {
    let connection = gather::reach(settings, "artifacts").await?;
    Ok(Bucket::new(connection, settings.js_domain.as_deref(), name))
}

/// Puts all of `file` at `place`, whose bucket is made when it is missing. `progress` is told the bytes put so far.
///
/// # Errors
/// `Unavailable` without a server, `Timeout`, `Denied`, `Storage` when the file cannot be read.
pub async fn put(settings: &Settings, place: &Place, file: File, mut progress: impl FnMut(u64)) -> Result<Info> {
    let bucket = bucket(settings, &place.bucket).await?;
    bucket.make().await?;
    let file = Arc::new(Mutex::new(file));
    let mut sent = 0;
    writer::put(&bucket, place, |wanted| {
        progress(sent);
        sent += wanted as u64;
        let file = file.clone();
        smol::unblock(move || {
            let mut file = file.lock();
            let mut piece = Vec::with_capacity(wanted);
            Read::by_ref(&mut *file)
                .take(wanted as u64)
                .read_to_end(&mut piece)
                .context(Kind::Storage, "the file cannot be read")?;
            Ok(piece)
        })
    })
    .await
}

/// Writes the object at `place` into `sink` and answers its digest, checked against the object's own. `progress` is told
/// the bytes got so far, and all there are.
///
/// # Errors
/// `NotFound`, `Unavailable`, `Timeout`; `Invalid` for a wrong digest; `Storage` when `sink` fails.
pub async fn get(
    settings: &Settings,
    place: &Place,
    sink: &mut dyn Write,
    mut progress: impl FnMut(u64, u64),
) -> Result<Digest> {
    let bucket = bucket(settings, &place.bucket).await?;
    let mut reader = Reader::open(&bucket, place).await?;
    let (mut hash, mut failures) = (sha2::Sha256::new(), 0);
    loop {
        match reader.next().await {
            Ok(None) => break,
            Ok(Some(chunk)) => {
                failures = 0;
                hash.update(&chunk);
                sink.write_all(&chunk).context(Kind::Storage, "the file cannot be written")?;
                progress(reader.at(), reader.info().size);
            }
            Err(error) if error.kind().is_passing() && failures < MAX_FAILURES => {
                failures += 1;
                wait_for(bucket.connection(), RECONNECT).await?;
            }
            Err(error) => return Err(error),
        }
    }
    let digest = Digest(hash.finalize().into());
    match reader.info().content_digest().filter(|promised| *promised != digest) {
        None => Ok(digest),
        Some(promised) => Err(Error::invalid(format!(
            "its {} bytes have the digest sha256:{digest}, the bucket says sha256:{promised}",
            reader.at()
        ))),
    }
}

/// Every object of the bucket `name`.
///
/// # Errors
/// `Invalid` for an impossible name, `NotFound`, `Unavailable`, `Timeout`.
pub async fn list(settings: &Settings, name: &str) -> Result<Vec<Info>> {
    bucket(settings, &bucket_name(name)?).await?.list().await
}
