//! How many bytes were handed to the client library and wait for their readers, and what is refused when they are too many.
//!
//! The library queues messages by number; a few thousand large ones fill a small board. So the guard counts here what it hands
//! over, and each [`Reader`] gives back what it took. A message that does not fit is not handed over: the relay waits a moment
//! for the readers, then drops it. Each subscription has its part of the whole, and in it each source (whoever shares the
//! beginning of a reply subject) has its own: one that floods loses its own messages first.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use async_nats::{Message, Subscriber, UnsubscribeError};
use bytes::Bytes;
use futures_util::Stream;

use crate::lock::{Mutex, MutexGuard};

/// Bytes that may wait on one connection. A board of 512 MB has no more for what nobody has looked at.
pub const MAX_WAITING_BYTES: usize = 2 << 20;

/// Of them those of one subscription.
const MAX_SUBSCRIPTION_BYTES: usize = 1 << 20;

/// Of them those of one source.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Those of one source while the connection falls behind: only what its readers take at once.
const PRESSED_SOURCE_BYTES: usize = 64 << 10;

/// Messages of one source in a tenth of a second while the connection falls behind. Reading and dropping the rest costs less
/// than a microsecond each, answering them a hundred: so the others' messages behind them are reached soon.
const PRESSED_MESSAGES: u8 = 10;

/// That tenth of a second.
const PRESSED_WINDOW: Duration = Duration::from_millis(100);

/// Sources of a subscription that are told apart. Two that fall together share a part; which, nobody outside can know.
const SOURCES: usize = 64;

/// Longest body that is copied when it is taken, bytes. The library's bodies share the memory of all that was read with them,
/// some 16 KiB: a small one that is kept for a while would keep that.
const COPIED_BYTES: usize = 64 * 1024;

/// What a message takes in the library beside its text, bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// The counts of one connection.
#[derive(Default)]
pub struct Flow {
    counts: Mutex<Counts>,
    hasher: RandomState,
}

#[derive(Default)]
struct Counts {
    subscriptions: HashMap<u64, Subscription>,
    total: usize,
    /// The relay, when it waits for readers.
    waiting: Option<Waker>,
}

struct Subscription {
    bytes: usize,
    sources: [usize; SOURCES],
    /// Since when messages are counted while the connection falls behind, and those of each source.
    pressed: Option<(Instant, [u8; SOURCES])>,
}

impl Subscription {
    const EMPTY: Self = Self { bytes: 0, sources: [0; SOURCES], pressed: None };

    /// Whether `source` has had its messages of this tenth of a second; else counts one.
    fn is_exhausted(&mut self, source: usize, now: Instant) -> bool {
        let (since, counts) = self.pressed.get_or_insert((now, [0; SOURCES]));
        if now.saturating_duration_since(*since) > PRESSED_WINDOW {
            (*since, *counts) = (now, [0; SOURCES]);
        }
        if counts[source] >= PRESSED_MESSAGES {
            return true;
        }
        counts[source] += 1;
        false
    }
}

/// A message that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    subscription: u64,
    source: usize,
    bytes: usize,
}

impl Flow {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock()
    }

    fn source(&self, reply: Option<&[u8]>) -> usize {
        let reply = reply.unwrap_or_default();
        let source = reply.iter().rposition(|byte| *byte == b'.').map_or(&reply[..0], |dot| &reply[..dot]);
        self.hasher.hash_one(source) as usize % SOURCES
    }

    /// Counts a message of `length` bytes that is about to be handed over. `None`: there is no room for it. `pressed` is the time
    /// where the connection falls behind. A subscription that is not known is not counted: the library drops such a message, or
    /// gives it to the one request that waits for it.
    pub(super) fn enter(
        &self,
        subscription: u64,
        reply: Option<&[u8]>,
        length: usize,
        pressed: Option<Instant>,
    ) -> Option<Option<Counted>> {
        let bytes = length + MESSAGE_OVERHEAD_BYTES;
        let mut counts = self.counts();
        let total = counts.total;
        let Some(counted) = counts.subscriptions.get_mut(&subscription) else { return Some(None) };
        let source = self.source(reply);
        let most = if pressed.is_some() { PRESSED_SOURCE_BYTES } else { MAX_SOURCE_BYTES };
        // Where nothing waits, a message of any size fits: else it never would.
        let fits = |waiting: usize, most: usize| waiting == 0 || waiting + bytes <= most;
        if !(fits(total, MAX_WAITING_BYTES)
            && fits(counted.bytes, MAX_SUBSCRIPTION_BYTES)
            && fits(counted.sources[source], most))
        {
            return None;
        }
        if pressed.is_some_and(|now| counted.is_exhausted(source, now)) {
            return None;
        }
        counted.bytes += bytes;
        counted.sources[source] += bytes;
        counts.total += bytes;
        Some(Some(Counted { subscription, source, bytes }))
    }

    /// Gives back what was counted and not handed over.
    pub(super) fn leave(&self, counted: Counted) {
        let mut counts = self.counts();
        let Some(subscription) = counts.subscriptions.get_mut(&counted.subscription) else { return };
        // More than was counted is taken after a connection that ended in the middle.
        let bytes = counted.bytes.min(subscription.bytes);
        subscription.bytes -= bytes;
        let source = &mut subscription.sources[counted.source];
        *source = source.saturating_sub(counted.bytes);
        counts.total -= bytes;
        let waiting = counts.waiting.take();
        drop(counts);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Wakes `waker` when a reader has taken something.
    pub(super) fn wait(&self, waker: &Waker) {
        self.counts().waiting = Some(waker.clone());
    }

    /// Forgets what was handed over: the library threw away what it had not read.
    pub(super) fn forget(&self) {
        let mut counts = self.counts();
        counts.total = 0;
        for subscription in counts.subscriptions.values_mut() {
            *subscription = Subscription::EMPTY;
        }
    }

    /// Bytes that wait now.
    pub fn waiting_bytes(&self) -> usize {
        self.counts().total
    }
}

/// The messages of a subscription; each that is taken is given back to the counts. Dropped, it ends the subscription.
pub struct Reader {
    subscriber: Subscriber,
    /// Its number and its counts. `None` where the library does not tell the number.
    counted: Option<(u64, Arc<Flow>)>,
}

impl Reader {
    /// The messages of `subscriber`, counted in `flow`.
    pub fn new(subscriber: Subscriber, flow: &Arc<Flow>) -> Self {
        let counted = number_of(&subscriber).map(|number| {
            flow.counts().subscriptions.insert(number, Subscription::EMPTY);
            (number, flow.clone())
        });
        Self { subscriber, counted }
    }

    /// Ends the subscription once what is on its way has been taken.
    ///
    /// # Errors
    /// The library has ended.
    pub async fn drain(&mut self) -> Result<(), UnsubscribeError> {
        self.subscriber.drain().await
    }
}

/// The number of a subscription. The library has no name for it and shows it to people only.
fn number_of(subscriber: &Subscriber) -> Option<u64> {
    let shown = format!("{subscriber:?}");
    let digits = shown.strip_prefix("Subscriber { sid: ")?.split(',').next()?;
    digits.parse().ok()
}

impl Stream for Reader {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut next = Pin::new(&mut self.subscriber).poll_next(context);
        if let (Poll::Ready(Some(message)), Some((subscription, flow))) = (&next, &self.counted) {
            let source = flow.source(message.reply.as_ref().map(|reply| reply.as_bytes()));
            let bytes = message.length + MESSAGE_OVERHEAD_BYTES;
            flow.leave(Counted { subscription: *subscription, source, bytes });
        }
        if let Poll::Ready(Some(message)) = &mut next
            && message.payload.len() <= COPIED_BYTES
        {
            message.payload = Bytes::copy_from_slice(&message.payload);
        }
        next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((number, flow)) = &self.counted {
            let mut counts = flow.counts();
            if let Some(subscription) = counts.subscriptions.remove(number) {
                counts.total -= subscription.bytes;
            }
            if let Some(waiting) = counts.waiting.take() {
                waiting.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let flow = Flow::default();
        for number in 1..=3 {
            flow.counts().subscriptions.insert(number, Subscription::EMPTY);
        }
        flow
    }

    /// The reply subject of a source that shares its part with none of `others`.
    fn another(flow: &Flow, others: &[usize]) -> String {
        (0..)
            .map(|n| format!("_INBOX.{n}.1"))
            .find(|reply| !others.contains(&flow.source(Some(reply.as_bytes()))))
            .unwrap()
    }

    #[test]
    fn one_source_fills_its_part_and_no_other() {
        let flow = flow();
        let flood = another(&flow, &[]);
        let mut handed = Vec::new();
        while let Some(counted) = flow.enter(1, Some(flood.as_bytes()), 20_000, None) {
            handed.push(counted.unwrap());
        }
        assert_eq!(handed.len(), MAX_SOURCE_BYTES / (20_000 + MESSAGE_OVERHEAD_BYTES));
        let good = another(&flow, &[flow.source(Some(flood.as_bytes()))]);
        assert!(flow.enter(1, Some(good.as_bytes()), 100, Some(Instant::now())).is_some());
        // Answers of one source fall into its part whatever their last word is.
        assert!(flow.enter(1, Some(flood.replace(".1", ".2").as_bytes()), 20_000, None).is_none());
        flow.leave(handed.pop().unwrap());
        assert!(flow.enter(1, Some(flood.as_bytes()), 20_000, None).is_some());
        assert!(flow.enter(1, Some(flood.as_bytes()), 0, Some(Instant::now())).is_none());
    }

    #[test]
    fn while_the_connection_falls_behind_a_source_has_so_many_messages_in_a_while() {
        let (flow, now) = (flow(), Instant::now());
        let flood = another(&flow, &[]);
        let enter = |reply: &str, now| flow.enter(1, Some(reply.as_bytes()), 10, Some(now)).is_some();
        assert_eq!((0..1000).filter(|_| enter(&flood, now)).count(), usize::from(PRESSED_MESSAGES));
        assert!(enter(&another(&flow, &[flow.source(Some(flood.as_bytes()))]), now));
        assert!(enter(&flood, now + PRESSED_WINDOW * 2));
    }

    #[test]
    fn many_sources_fill_a_subscription_and_many_subscriptions_the_whole() {
        let flow = flow();
        for subscription in 1..=3 {
            for number in 0..100_000 {
                let reply = format!("_INBOX.{number}.1");
                let _ = flow.enter(subscription, Some(reply.as_bytes()), 5_000, None);
            }
        }
        assert!(flow.waiting_bytes() <= MAX_WAITING_BYTES);
        assert!(flow.waiting_bytes() > MAX_WAITING_BYTES - 6_000);
        flow.forget();
        assert_eq!(flow.waiting_bytes(), 0);
        // The largest message fits where nothing waits.
        assert!(flow.enter(1, None, super::super::scanner::MAX_MESSAGE_BYTES, Some(Instant::now())).is_some());
        assert!(flow.enter(2, None, 1, None).is_none());
        assert_eq!(flow.enter(9, None, 1, None), Some(None), "nobody's");
    }
}
