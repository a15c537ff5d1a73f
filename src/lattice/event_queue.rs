//! Events that happened and are not known to have reached a server, in order.
//!
//! Pure: events are put in, looked at to be sent, and removed once they are known to have arrived; nothing here waits, sends
//! or writes. Two limits hold at once, number and bytes; past either the oldest go, because the newest say how things stand,
//! and what went is counted. Where a disk takes part (`mailbox`), what it holds of an event is not held here too.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Events kept at most unless set otherwise. A board that stops and starts an actor every second fills it in half an hour.
pub const DEFAULT_MAX_EVENTS: usize = 4096;

/// Bytes kept at most unless set otherwise. With what one event costs beside its text this keeps a full queue below 1
/// MiB.
pub const DEFAULT_MAX_BYTES: usize = 640 * 1024;

/// What an event costs beside its text: the entry here and the allocator's share.
const OVERHEAD_BYTES: usize = 128;

/// One event, written when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Last part of its type, which is also part of its second subject.
    pub name: Cow<'static, str>,
    /// The CloudEvent, its time inside.
    pub body: Bytes,
    /// The same time in microseconds since 1970, to tell a gap.
    pub unix_micros: u64,
}

/// An event in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its number; later events have higher ones.
    pub number: u64,
    /// As in [`Entry`].
    pub name: Cow<'static, str>,
    /// The event, unless only the disk holds it.
    pub body: Option<Bytes>,
    /// Length of the event, bytes.
    pub length: usize,
    /// As in [`Entry`].
    pub unix_micros: u64,
}

impl Kept {
    fn cost(&self) -> usize {
        self.length + OVERHEAD_BYTES
    }
}

/// Events that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many.
    pub count: u64,
    /// Their bodies together, bytes.
    pub bytes: u64,
    /// When the first of them happened, microseconds since 1970.
    pub first_micros: u64,
    /// When the last of them happened.
    pub last_micros: u64,
}

/// The queue.
#[derive(Debug)]
pub struct EventQueue {
    entries: VecDeque<Kept>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
    dropped: Option<Dropped>,
    next: u64,
    /// Events that only the disk holds and nobody waits for any more.
    gone: Vec<u64>,
}

impl EventQueue {
    /// An empty queue with these limits.
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_events, max_bytes, dropped: None, next: 0, gone: Vec::new() }
    }

    /// Appends an event, giving up the oldest where there is no room.
    pub fn push(&mut self, entry: Entry) {
        let Entry { name, body, unix_micros } = entry;
        self.append(Kept { number: self.next, name, length: body.len(), body: Some(body), unix_micros });
    }

    /// Appends an event that is on disk from before the start, in the order of numbers.
    pub fn restore(&mut self, number: u64, name: String, length: usize, unix_micros: u64) {
        self.append(Kept { number, name: Cow::Owned(name), body: None, length, unix_micros });
    }

    fn append(&mut self, kept: Kept) {
        self.next = kept.number + 1;
        self.bytes += kept.cost();
        self.entries.push_back(kept);
        while self.entries.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.take() else { break };
            self.count(&oldest);
        }
    }

    /// The oldest events, at most `max_events` of them and, but for the first, at most `max_bytes`.
    pub fn batch(&self, max_events: usize, max_bytes: usize) -> Vec<Kept> {
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            bytes += kept.length;
            bytes <= max_bytes || bytes == kept.length
        };
        self.entries.iter().take(max_events).take_while(fits).cloned().collect()
    }

    /// Events up to `number` have arrived: they go.
    pub fn arrived(&mut self, number: u64) {
        while self.entries.front().is_some_and(|oldest| oldest.number <= number) {
            self.take();
        }
    }

    fn take(&mut self) -> Option<Kept> {
        let kept = self.entries.pop_front()?;
        self.bytes -= kept.cost();
        if self.entries.is_empty() {
            // A long outage is over: its memory goes back.
            self.entries = VecDeque::new();
        }
        if kept.body.is_none() {
            self.gone.push(kept.number);
        }
        Some(kept)
    }

    /// Events that only memory holds, oldest first, at most `max_bytes` of them but for the first.
    pub fn not_on_disk(&self, max_bytes: usize) -> Vec<Kept> {
        let mut bytes = 0;
        let fits = |kept: &&Kept| {
            bytes += kept.length;
            bytes <= max_bytes || bytes == kept.length
        };
        self.entries.iter().filter(|kept| kept.body.is_some()).take_while(fits).cloned().collect()
    }

    /// The events with these numbers, which are rising, are on disk now: memory lets them go. One that went meanwhile is gone
    /// from the disk's point of view.
    pub fn on_disk(&mut self, numbers: &[u64]) {
        let mut entries = self.entries.iter_mut().peekable();
        for number in numbers {
            while entries.next_if(|kept| kept.number < *number).is_some() {}
            match entries.next_if(|kept| kept.number == *number) {
                Some(kept) => kept.body = None,
                None => self.gone.push(*number),
            }
        }
    }

    /// Numbers of events that are to be removed from the disk.
    pub fn take_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    /// Takes back numbers of [`EventQueue::take_gone`] that could not be removed.
    pub fn still_there(&mut self, numbers: Vec<u64>) {
        self.gone.extend(numbers);
    }

    /// What was given up and not told yet.
    pub fn dropped(&self) -> Option<Dropped> {
        self.dropped
    }

    /// Gives up the event with this number: it can never be sent. It is counted.
    pub fn give_up(&mut self, number: u64) {
        let Some(at) = self.entries.iter().position(|kept| kept.number == number) else { return };
        let Some(kept) = self.entries.remove(at) else { return };
        self.bytes -= kept.cost();
        if kept.body.is_none() {
            self.gone.push(kept.number);
        }
        self.count(&kept);
    }

    /// `report`, which [`EventQueue::dropped`] gave, has arrived; what was given up since then is still to be told.
    pub fn told(&mut self, report: Dropped) {
        let Some(all) = &mut self.dropped else { return };
        if all.count <= report.count {
            self.dropped = None;
            return;
        }
        all.count -= report.count;
        all.bytes = all.bytes.saturating_sub(report.bytes);
        // The oldest go first, so that what went later is later.
        all.first_micros = report.last_micros;
    }

    /// Takes over a report from before the start.
    pub fn restore_dropped(&mut self, report: Dropped) {
        self.dropped = Some(match self.dropped {
            None => report,
            Some(later) => Dropped {
                count: report.count + later.count,
                bytes: report.bytes + later.bytes,
                first_micros: report.first_micros,
                last_micros: later.last_micros,
            },
        });
    }

    /// Events waiting.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing waits and nothing is to be told.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.dropped.is_none()
    }

    fn count(&mut self, kept: &Kept) {
        let dropped = self.dropped.get_or_insert(Dropped {
            count: 0,
            bytes: 0,
            first_micros: kept.unix_micros,
            last_micros: kept.unix_micros,
        });
        dropped.count += 1;
        dropped.bytes += kept.length as u64;
        dropped.last_micros = kept.unix_micros;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u64, bytes: usize) -> Entry {
        Entry { name: "actor_started".into(), body: vec![b'x'; bytes].into(), unix_micros: number }
    }

    /// Tells what was given up, once.
    fn tell(queue: &mut EventQueue) -> Option<Dropped> {
        let report = queue.dropped()?;
        queue.told(report);
        Some(report)
    }

    fn times(queue: &EventQueue) -> Vec<u64> {
        queue.batch(usize::MAX, usize::MAX).iter().map(|kept| kept.unix_micros).collect()
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let mut queue = EventQueue::new(2, usize::MAX);
        for number in 1..=5 {
            queue.push(entry(number, 10));
        }
        let dropped = Dropped { count: 3, bytes: 30, first_micros: 1, last_micros: 3 };
        assert_eq!(tell(&mut queue), Some(dropped));
        assert_eq!(tell(&mut queue), None);
        assert_eq!(times(&queue), [4, 5]);
        queue.arrived(u64::MAX);
        assert!(queue.is_empty() && queue.take_gone().is_empty());
    }

    #[test]
    fn bytes_count_too_and_one_too_long_event_cannot_stay() {
        let mut queue = EventQueue::new(100, 1000);
        for number in 0..20 {
            queue.push(entry(number, 100));
        }
        assert_eq!(queue.len(), 1000 / (100 + OVERHEAD_BYTES));
        queue.push(entry(99, 2000));
        assert_eq!((queue.len(), tell(&mut queue).map(|one| one.count)), (0, Some(21)));
    }

    #[test]
    fn events_stay_until_they_have_arrived() {
        let mut queue = EventQueue::new(100, usize::MAX);
        for number in 0..10 {
            queue.push(entry(number, 100));
        }
        let batch = queue.batch(8, 350);
        assert_eq!(batch.iter().map(|kept| kept.number).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(queue.batch(1, 5).len(), 1, "one that is too long goes alone");
        assert_eq!(queue.len(), 10);
        queue.push(entry(10, 100));
        queue.arrived(batch[2].number);
        assert_eq!(times(&queue), (3..=10).collect::<Vec<_>>());
    }

    #[test]
    fn what_the_disk_holds_memory_lets_go_and_the_disk_learns_what_went() {
        let mut queue = EventQueue::new(4, usize::MAX);
        for number in 0..4 {
            queue.push(entry(number, 100));
        }
        let written: Vec<u64> = queue.not_on_disk(250).iter().map(|kept| kept.number).collect();
        assert_eq!(written, [0, 1]);
        // The first arrives while it is being written.
        queue.arrived(0);
        queue.on_disk(&written);
        assert_eq!(queue.take_gone(), [0]);
        assert_eq!(queue.not_on_disk(usize::MAX).len(), 2);
        assert_eq!(queue.batch(1, 1000)[0].body, None);
        queue.on_disk(&[2, 3]);
        for number in 4..6 {
            queue.push(entry(number, 100));
        }
        assert_eq!((queue.take_gone(), queue.dropped().map(|one| one.count)), (vec![1], Some(1)));
        queue.arrived(u64::MAX);
        assert_eq!(queue.take_gone(), [2, 3]);
    }

    #[test]
    fn one_that_can_never_be_sent_goes_alone_and_is_counted() {
        let mut queue = EventQueue::new(10, usize::MAX);
        for number in 1..=4 {
            queue.push(entry(number, 10));
        }
        queue.give_up(1);
        queue.give_up(77);
        assert_eq!(times(&queue), [1, 3, 4]);
        let report = queue.dropped().unwrap();
        assert_eq!((report.count, report.first_micros), (1, 2));
        // What goes while the report is on its way is told by the next one.
        queue.give_up(2);
        queue.told(report);
        assert_eq!(tell(&mut queue).map(|next| (next.count, next.bytes, next.last_micros)), Some((1, 10, 3)));
        assert_eq!(tell(&mut queue), None);
    }

    #[test]
    fn an_unsent_report_is_joined_with_the_next() {
        let mut queue = EventQueue::new(1, usize::MAX);
        for number in 1..=2 {
            queue.push(entry(number, 10));
        }
        let report = tell(&mut queue).unwrap();
        queue.push(entry(3, 10));
        queue.restore_dropped(report);
        let joined = Dropped { count: 2, bytes: 20, first_micros: 1, last_micros: 2 };
        assert_eq!(tell(&mut queue), Some(joined));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted_and_order_holds(sizes in proptest::collection::vec(0_usize..400, 0..200), max_events in 0_usize..50, max_bytes in 0_usize..5000) {
            let mut queue = EventQueue::new(max_events, max_bytes);
            for (number, size) in sizes.iter().enumerate() {
                queue.push(entry(number as u64, *size));
                prop_assert!(queue.len() <= max_events && queue.bytes <= max_bytes);
            }
            let dropped = tell(&mut queue).map_or(0, |one| one.count);
            let kept = times(&queue);
            prop_assert_eq!(dropped as usize + kept.len(), sizes.len());
            prop_assert!(kept.is_sorted());
            queue.arrived(u64::MAX);
            prop_assert!(queue.bytes == 0 && queue.is_empty());
        }
    }
}
