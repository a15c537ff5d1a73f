//! An object on its way here, chunk by chunk.
//!
//! Used by the source and the command line. It holds one chunk at a time and knows where it is, so that a lost connection
//! costs the chunk that was on its way. It does not check the digest: whoever has all bytes does.

use bytes::Bytes;

use super::{
    bucket::{Bucket, CHUNK_PATIENCE},
    words::{Info, Place},
};
use crate::error::{Error, Result};

/// Links from object to object that are followed. One is what clients make; more could be a circle.
const MAX_LINKS: usize = 4;

/// An object being read.
pub struct Reader {
    bucket: Bucket,
    place: Place,
    info: Info,
    /// Number of the message to look from.
    next: u64,
    /// Bytes read or passed over.
    at: u64,
    /// Bytes at the beginning of the next chunk that are known already.
    known: usize,
}

impl Reader {
    /// Finds `place`, links followed.
    ///
    /// # Errors
    /// `NotFound`, `Unavailable`, `Timeout`; `Invalid` when its description cannot be used.
    pub async fn open(bucket: &Bucket, place: &Place) -> Result<Self> {
        let (mut bucket, mut place) = (bucket.clone(), place.clone());
        for _ in 0..=MAX_LINKS {
            let found = bucket.info(&place).await?.filter(|info| !info.deleted).ok_or_else(|| {
                Error::not_found(format!(
                    "the bucket {} has no object {:?}; `latticed artifact list nats://{}` lists them",
                    place.bucket, place.name, place.bucket
                ))
            })?;
            match found.link()? {
                None => return Ok(Self { bucket, place, info: found, next: 0, at: 0, known: 0 }),
                Some(target) => (bucket, place) = (bucket.sibling(&target.bucket), target),
            }
        }
        Err(Error::invalid(format!("it leads over more than {MAX_LINKS} links")))
    }

    /// Its description.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Bytes read so far.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Passes over the first `bytes`, which were read before.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn pass_over(&mut self, bytes: u64) -> Result<()> {
        if bytes == 0 || bytes >= self.info.size {
            self.at = bytes.min(self.info.size);
            return Ok(());
        }
        let subject = self.place.chunk_subject(&self.info.nuid);
        let (sequence, begin) = self.bucket.locate(subject, bytes).await?;
        let known = usize::try_from(bytes - begin).map_err(|_| Error::invalid("a chunk is larger than memory"))?;
        (self.next, self.at, self.known) = (sequence, bytes, known);
        Ok(())
    }

    /// The next chunk; `None` at the end. After an error the same chunk is asked for again.
    ///
    /// # Errors
    /// `Unavailable`, `Timeout`; `Invalid` when chunks are missing or too many.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.at == self.info.size {
            return Ok(None);
        }
        let subject = self.place.chunk_subject(&self.info.nuid);
        let stored = self.bucket.next(&subject, self.next, CHUNK_PATIENCE).await?.ok_or_else(|| {
            // It was replaced while we read, or a replica lags behind: a new attempt finds what is there then.
            Error::unavailable(format!(
                "its chunks end after {} of {} bytes: it was replaced or removed meanwhile",
                self.at, self.info.size
            ))
        })?;
        let new = stored.payload.get(self.known..).map(|new| stored.payload.slice_ref(new)).unwrap_or_default();
        let after = self.at + new.len() as u64;
        if after > self.info.size || new.is_empty() {
            return Err(Error::invalid(format!(
                "its chunks do not come to the {} bytes its description says",
                self.info.size
            )));
        }
        (self.next, self.at, self.known) = (stored.sequence + 1, after, 0);
        Ok(Some(new))
    }
}
