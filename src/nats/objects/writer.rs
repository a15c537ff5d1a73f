//! An object on its way into a bucket, chunk by chunk.
//!
//! Used by `latticed artifact push` and for long bodies. The description goes last, so that nobody reads half an object; the chunks of the one
//! it replaces are removed after it. It holds one chunk at a time.

use std::future::Future;

use bytes::Bytes;
use sha2::Digest as _;

use super::{
    bucket::Bucket,
    words::{Info, Options, Place},
};
use crate::{
    error::{Error, Result},
    log,
    store::Digest,
    wire::id,
};

/// Bytes of a chunk, as every client cuts objects. Smaller where the server takes less in one message.
pub const CHUNK_BYTES: usize = 128 << 10;

/// Room for the headers of a message in what the server takes at once, bytes.
const HEADER_ROOM_BYTES: usize = 4 << 10;

/// Attempts for one message. The server knows a repeated one by its identity and keeps it once.
const ATTEMPTS: usize = 5;

/// Puts what `read` gives, until it gives nothing, at `place`; `read` is told how many bytes are wanted at most. Answers
/// the description.
///
/// # Errors
/// Those of `read`; `Unavailable`, `Timeout`, `Denied`. What was put until then is removed again, if that is possible.
pub async fn put<R, F>(bucket: &Bucket, place: &Place, mut read: R) -> Result<Info>
where
    R: FnMut(usize) -> F,
    F: Future<Output = Result<Vec<u8>>>,
{
    let before = bucket.info(place).await?;
    let nuid = id::random_uuid().to_string();
    let outcome = put_chunks(bucket, place, &nuid, &mut read).await;
    match outcome {
        Ok(info) => {
            if let Some(before) = before.filter(|before| !before.nuid.is_empty() && before.nuid != nuid)
                && let Err(error) = bucket.purge(&place.chunk_subject(&before.nuid)).await
            {
                log::warn!("the object is in place, but the chunks of the one before stay in the bucket: {error}");
            }
            Ok(info)
        }
        Err(error) => {
            // Best effort: whoever broke off may have no connection any more.
            let _ = bucket.purge(&place.chunk_subject(&nuid)).await;
            Err(error)
        }
    }
}

/// Removes the object `info` at `place`: a mark takes the place of its description, as with every client, and its chunks
/// go.
///
/// # Errors
/// `Unavailable`, `Timeout`, `Denied`.
pub async fn delete(bucket: &Bucket, place: &Place, info: &Info) -> Result<()> {
    let gone = Info { deleted: true, size: 0, chunks: 0, mtime: now()?, digest: String::new(), ..info.clone() };
    let message = id::random_uuid();
    bucket.put(&place.info_subject(), &message, true, text_of(&gone)?.into()).await?;
    bucket.purge(&place.chunk_subject(&info.nuid)).await
}

async fn put_chunks<R, F>(bucket: &Bucket, place: &Place, nuid: &str, read: &mut R) -> Result<Info>
where
    R: FnMut(usize) -> F,
    F: Future<Output = Result<Vec<u8>>>,
{
    let chunk_bytes = CHUNK_BYTES.min(bucket.connection().max_payload().saturating_sub(HEADER_ROOM_BYTES)).max(1);
    let subject = place.chunk_subject(nuid);
    let (mut hash, mut size, mut chunks) = (sha2::Sha256::new(), 0, 0);
    loop {
        let chunk = read(chunk_bytes).await?;
        if chunk.is_empty() {
            break;
        }
        hash.update(&chunk);
        size += chunk.len() as u64;
        put_message(bucket, &subject, &format!("{nuid}-{chunks}"), false, chunk.into()).await?;
        chunks += 1;
    }
    if size == 0 {
        return Err(Error::invalid("it is empty"));
    }
    let info = Info {
        name: place.name.clone(),
        options: Some(Options { link: None, max_chunk_size: Some(chunk_bytes as u64) }),
        bucket: place.bucket.clone(),
        nuid: nuid.to_owned(),
        size,
        chunks,
        mtime: now()?,
        digest: Info::digest_text(Digest(hash.finalize().into())),
        ..Info::default()
    };
    put_message(bucket, &place.info_subject(), &format!("{nuid}-info"), true, text_of(&info)?.into()).await?;
    Ok(info)
}

fn text_of(info: &Info) -> Result<Vec<u8>> {
    serde_json::to_vec(info)
        .map_err(|cause| Error::internal(format!("cannot write the description of an object: {cause}")))
}

fn now() -> Result<String> {
    time::OffsetDateTime::now_utc()
        .format(&time::format_description::well_known::Rfc3339)
        .map_err(|cause| Error::internal(format!("cannot write the time: {cause}")))
}

async fn put_message(bucket: &Bucket, subject: &str, id: &str, replaces: bool, payload: Bytes) -> Result<()> {
    for _ in 1..ATTEMPTS {
        match bucket.put(subject, id, replaces, payload.clone()).await {
            Err(error) if error.kind().is_passing() => {
                super::wait_for(bucket.connection(), super::RECONNECT).await?;
            }
            outcome => return outcome,
        }
    }
    bucket.put(subject, id, replaces, payload).await
}
