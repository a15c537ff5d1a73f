//! Messages that have come and wait for their actor: bounded in number and bytes, what finds no room is dropped and
//! counted.
//!
//! The newest are the ones dropped, as brokers do with slow listeners: what waits keeps its order, and a flood cannot push
//! out what came before it. Nothing here waits but [`Inbox::take`].

use std::collections::VecDeque;

use event_listener::Event as Signal;

use crate::{
    lock::{Mutex, MutexGuard},
    log,
    wire::interface::BrokerMessage,
};

/// What a message costs beside its texts: the entry here and the allocator's share.
const OVERHEAD_BYTES: usize = 128;

/// The queue of one link.
pub struct Inbox {
    actor: String,
    link_name: String,
    max_messages: usize,
    max_bytes: usize,
    /// Larger ones no actor of this host takes.
    max_message_bytes: usize,
    state: Mutex<State>,
    arrived: Signal,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<BrokerMessage>,
    bytes: usize,
    dropped: u64,
    /// Dropped since that was last said.
    untold: u64,
}

/// What an inbox holds and has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Messages waiting.
    pub waiting: usize,
    /// Messages dropped since the link was made.
    pub dropped: u64,
}

impl Inbox {
    /// An empty inbox of the actor `actor`.
    pub fn new(actor: &str, link_name: &str, max_messages: usize, max_bytes: usize, max_message_bytes: usize) -> Self {
        Self {
            actor: actor.to_owned(),
            link_name: link_name.to_owned(),
            max_messages,
            max_bytes,
            max_message_bytes,
            state: Mutex::default(),
            arrived: Signal::new(),
        }
    }

    /// Takes `message` in, if there is room. Never blocks.
    pub fn offer(&self, message: BrokerMessage) {
        let cost = cost(&message);
        {
            let mut state = self.state();
            let too_large = message.body.len() > self.max_message_bytes;
            if too_large || state.waiting.len() >= self.max_messages || state.bytes + cost > self.max_bytes {
                state.dropped += 1;
                state.untold += 1;
                // The first of a row is told at once, the rest together when there is room again.
                if state.untold == 1 {
                    let why = if too_large { "it is larger than actors take" } else { "its actor is too slow" };
                    let (waiting, bytes) = (state.waiting.len(), message.body.len());
                    log::warn!(
                        "a message was dropped: {why}";
                        actor_id = self.actor, link_name = self.link_name, subject = message.subject, bytes = bytes,
                        waiting = waiting
                    );
                }
                return;
            }
            state.bytes += cost;
            state.waiting.push_back(message);
        }
        self.arrived.notify(1);
    }

    /// The oldest message, as soon as there is one.
    pub async fn take(&self) -> BrokerMessage {
        loop {
            let arrived = self.arrived.listen();
            {
                let mut state = self.state();
                if let Some(message) = state.waiting.pop_front() {
                    state.bytes -= cost(&message);
                    if state.waiting.is_empty() {
                        // A flood is over: its memory goes back.
                        state.waiting = VecDeque::new();
                        self.tell(&mut state);
                    }
                    return message;
                }
            }
            arrived.await;
        }
    }

    /// Gives up what waits; for a link that is gone. Says how many that were.
    pub fn close(&self) -> usize {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting).len();
        (state.bytes, state.dropped) = (0, state.dropped + waiting as u64);
        self.tell(&mut state);
        waiting
    }

    /// What it holds and has lost.
    pub fn count(&self) -> Count {
        let state = self.state();
        Count { waiting: state.waiting.len(), dropped: state.dropped }
    }

    fn tell(&self, state: &mut State) {
        let untold = std::mem::take(&mut state.untold);
        if untold > 1 {
            log::warn!(
                "{untold} messages were dropped in a row: the actor is too slow for them, or they are larger than actors take";
                actor_id = self.actor, link_name = self.link_name, dropped = state.dropped
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn cost(message: &BrokerMessage) -> usize {
    message.subject.len() + message.reply_to.as_ref().map_or(0, String::len) + message.body.len() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> BrokerMessage {
        BrokerMessage { subject: "s".into(), reply_to: None, body: body.to_vec() }
    }

    #[test]
    fn order_is_kept_and_what_finds_no_room_is_counted() {
        let inbox = Inbox::new("M", "default", 3, 10_000, 1000);
        for body in 0..5_u8 {
            inbox.offer(message(&[body]));
        }
        assert_eq!(inbox.count(), Count { waiting: 3, dropped: 2 });
        let taken = smol::block_on(inbox.take());
        assert_eq!(taken.body, [0]);
        inbox.offer(message(&[9]));
        for body in [1, 2, 9] {
            assert_eq!(smol::block_on(inbox.take()).body, [body]);
        }
        assert_eq!(inbox.count(), Count { waiting: 0, dropped: 2 });
    }

    #[test]
    fn bytes_are_bounded_too_and_no_message_is_larger_than_actors_take() {
        let inbox = Inbox::new("M", "default", 100, 1000, 600);
        inbox.offer(message(&[0; 601]));
        assert_eq!(inbox.count(), Count { waiting: 0, dropped: 1 });
        inbox.offer(message(&[0; 600]));
        inbox.offer(message(&[0; 600]));
        assert_eq!(inbox.count(), Count { waiting: 1, dropped: 2 });
        smol::block_on(inbox.take());
        inbox.offer(message(&[0; 600]));
        assert_eq!(inbox.count().waiting, 1);
        assert_eq!(inbox.close(), 1);
        assert_eq!(inbox.count(), Count { waiting: 0, dropped: 3 });
    }

    #[test]
    fn whoever_waits_is_woken() {
        let inbox = std::sync::Arc::new(Inbox::new("M", "default", 3, 10_000, 1000));
        let waiting = std::thread::spawn({
            let inbox = inbox.clone();
            move || smol::block_on(inbox.take())
        });
        inbox.offer(message(b"come"));
        assert_eq!(waiting.join().unwrap().body, b"come");
    }
}
