//! Taking connections in: one endless loop a listening socket, and a count of what is open.
//!
//! Used by the admin API, the mirror and the probes. It decides nothing about a connection but whether there is room for it at all.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use smol::Timer;

use crate::{log, task};

/// Pause after a failed accept, so that a process out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// One connection's place, free again when dropped.
pub(super) struct Place {
    open: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        let number = open.fetch_add(1, Ordering::Relaxed);
        Self { open: open.clone(), number }
    }

    /// How many others were open when this one came.
    pub(super) fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Hands each connection that `next` gives to `serve`, as a task of its own, for ever. More than `limit` at once are closed
/// without a word. `what` names the socket in the log.
pub(super) async fn for_ever<S, A, W>(what: &str, limit: usize, next: impl Fn() -> A, serve: impl Fn(S, Place) -> W)
where
    A: Future<Output = io::Result<S>>,
    W: Future<Output = ()> + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        match next().await {
            Ok(stream) => {
                let place = Place::take(&open);
                if place.number() < limit {
                    task::spawn(serve(stream, place)).detach();
                }
            }
            Err(cause) => {
                log::warn!("cannot accept a connection on {what}: {cause}");
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}
