//! A connection's bytes, plain or through TLS, with its pace noted on the way.
//!
//! Used by the listener only. It never closes anything by itself: it is the watch that decides.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_rustls::server::TlsStream;
use smol::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::pace::Pace;

/// What carries the bytes.
pub enum Transport {
    /// Bare TCP.
    Plain(TcpStream),
    /// TLS over TCP; boxed because its state is ten times as large.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A transport whose progress is seen by the watch.
pub struct Stream {
    transport: Transport,
    pace: Arc<Pace>,
}

impl Stream {
    /// Notes in `pace` what happens on `transport`.
    pub fn new(transport: Transport, pace: Arc<Pace>) -> Self {
        Self { transport, pace }
    }
}

macro_rules! with_transport {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut $self.transport {
            Transport::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Transport::Tls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let result = with_transport!(self, stream => stream.poll_read(cx, buffer));
        match &result {
            // Pending without anybody to wake it but the watch: the answer goes its own way.
            Poll::Ready(Ok(0)) if !buffer.is_empty() && !self.pace.ends_with_input(cx.waker()) => return Poll::Pending,
            Poll::Ready(Ok(received)) => self.pace.received(*received),
            _ => {}
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = with_transport!(self, stream => stream.poll_write(cx, bytes));
        if let Poll::Ready(Ok(sent)) = &result {
            self.pace.sent(*sent);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = with_transport!(self, stream => stream.poll_write_vectored(cx, slices));
        if let Poll::Ready(Ok(sent)) = &result {
            self.pace.sent(*sent);
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = with_transport!(self, stream => stream.poll_flush(cx));
        if let Poll::Ready(Ok(())) = &result {
            self.pace.flushed();
        }
        result
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_transport!(self, stream => stream.poll_close(cx))
    }
}
