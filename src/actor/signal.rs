//! A signal that is given once and heard by everybody, also by those who start to listen later.

use std::convert::Infallible;

use smol::channel::{Receiver, Sender, bounded};

/// See the file's header. Clones mean the same signal.
#[derive(Clone)]
pub struct Signal {
    sender: Sender<Infallible>,
    receiver: Receiver<Infallible>,
}

impl Signal {
    /// A signal that was not given yet.
    pub fn new() -> Self {
        let (sender, receiver) = bounded(1);
        Self { sender, receiver }
    }

    /// Gives the signal.
    pub fn give(&self) {
        self.sender.close();
    }

    /// Whether it was given.
    pub fn is_given(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Waits until it is given.
    pub async fn given(&self) {
        // Nothing can be sent, so the only thing to receive is the end of the channel.
        let _ = self.receiver.recv().await;
    }
}
