//! A blob on its way out: read piece by piece when the connection has room, so that memory does not depend on its size.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use smol::Task;

use crate::store::BlobReader;

/// Read at once, bytes: few switches to the blocking pool, and little memory with every place taken.
const PIECE_BYTES: u64 = 32 << 10;

/// Part of a blob.
pub struct BlobBody {
    blob: Arc<BlobReader>,
    at: u64,
    end: u64,
    reading: Option<Task<io::Result<Vec<u8>>>>,
    /// Counted up with each piece that the connection took, for whoever watches it.
    progress: Arc<AtomicU64>,
}

impl BlobBody {
    /// The bytes from `at` up to, not including, `end`.
    pub fn new(blob: BlobReader, at: u64, end: u64, progress: Arc<AtomicU64>) -> Self {
        Self { blob: Arc::new(blob), at, end, reading: None, progress }
    }
}

impl Body for BlobBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let mut reading = self.reading.take().unwrap_or_else(|| {
            self.progress.fetch_add(1, Relaxed);
            let (blob, at, bytes) = (self.blob.clone(), self.at, PIECE_BYTES.min(self.end - self.at) as usize);
            smol::unblock(move || {
                let mut piece = vec![0; bytes];
                let count = blob.read_at(at, &mut piece)?;
                // Cut short on disk meanwhile: the client sees the connection break and not a wrong end.
                if count == bytes { Ok(piece) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            })
        });
        match Pin::new(&mut reading).poll(cx) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(Ok(piece)) => {
                self.at += piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece.into()))))
            }
            Poll::Ready(Err(cause)) => {
                self.end = self.at;
                Poll::Ready(Some(Err(cause)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}
