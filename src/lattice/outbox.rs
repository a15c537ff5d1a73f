//! Events that happened while there was no connection, kept in order until there is one.
//!
//! Pure: the sender puts them in and takes them out, nothing here waits or sends. Two limits hold at once, number and bytes;
//! past either the oldest go, because the newest say how things stand, and what went is counted.

use std::collections::VecDeque;

/// Events kept at most unless set otherwise. A board that stops and starts an actor every second fills it in half an hour.
pub const DEFAULT_MAX_EVENTS: usize = 4096;

/// Bytes kept at most unless set otherwise. With what one event costs beside its text this keeps a full outbox below 1 MiB.
pub const DEFAULT_MAX_BYTES: usize = 640 * 1024;

/// What an event costs beside its text: the entry here and the allocator's share.
const OVERHEAD_BYTES: usize = 64;

/// One event, written when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Last part of its type, which is also part of its second subject.
    pub name: &'static str,
    /// The CloudEvent, its time inside.
    pub body: Vec<u8>,
    /// The same time in microseconds since 1970, to tell a gap.
    pub unix_micros: u64,
}

impl Entry {
    fn cost(&self) -> usize {
        self.body.len() + OVERHEAD_BYTES
    }
}

/// Events that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub struct Outbox {
    entries: VecDeque<Entry>,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
    dropped: Option<Dropped>,
}

impl Outbox {
    /// An empty outbox with these limits.
    pub fn new(max_events: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, max_events, max_bytes, dropped: None }
    }

    /// Appends an event, giving up the oldest where there is no room.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        self.entries.push_back(entry);
        while self.entries.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.take() else { break };
            self.count(&oldest);
        }
    }

    /// Puts back the entry that [`Outbox::take`] gave last, because it could not be sent.
    pub fn put_back(&mut self, entry: Entry) {
        self.bytes += entry.cost();
        self.entries.push_front(entry);
        if self.entries.len() > self.max_events || self.bytes > self.max_bytes {
            // Something newer came in meanwhile and took its place.
            if let Some(oldest) = self.take() {
                self.count(&oldest);
            }
        }
    }

    /// Removes the oldest event.
    pub fn take(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.cost();
        if self.entries.is_empty() {
            // A long outage is over: its memory goes back.
            self.entries = VecDeque::new();
        }
        Some(entry)
    }

    /// What was given up since the last call, to be told once.
    pub fn take_dropped(&mut self) -> Option<Dropped> {
        self.dropped.take()
    }

    /// Takes back a report of [`Outbox::take_dropped`] that could not be sent.
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

    fn count(&mut self, entry: &Entry) {
        let dropped = self.dropped.get_or_insert(Dropped {
            count: 0,
            bytes: 0,
            first_micros: entry.unix_micros,
            last_micros: entry.unix_micros,
        });
        dropped.count += 1;
        dropped.bytes += entry.body.len() as u64;
        dropped.last_micros = entry.unix_micros;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: u64, bytes: usize) -> Entry {
        Entry { name: "actor_started", body: vec![b'x'; bytes], unix_micros: number }
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let mut outbox = Outbox::new(2, usize::MAX);
        for number in 1..=5 {
            outbox.push(entry(number, 10));
        }
        let dropped = Dropped { count: 3, bytes: 30, first_micros: 1, last_micros: 3 };
        assert_eq!(outbox.take_dropped(), Some(dropped));
        assert_eq!(outbox.take_dropped(), None);
        assert_eq!(
            [outbox.take(), outbox.take(), outbox.take()].map(|one| one.map(|one| one.unix_micros)),
            [Some(4), Some(5), None]
        );
        assert!(outbox.is_empty());
    }

    #[test]
    fn bytes_count_too_and_one_too_long_event_cannot_stay() {
        let mut outbox = Outbox::new(100, 1000);
        for number in 0..20 {
            outbox.push(entry(number, 100));
        }
        assert_eq!(outbox.len(), 1000 / (100 + OVERHEAD_BYTES));
        outbox.push(entry(99, 2000));
        assert_eq!((outbox.len(), outbox.take_dropped().map(|one| one.count)), (0, Some(21)));
    }

    #[test]
    fn what_could_not_be_sent_stays_first() {
        let mut outbox = Outbox::new(2, usize::MAX);
        outbox.push(entry(1, 1));
        outbox.push(entry(2, 1));
        let first = outbox.take().unwrap();
        outbox.put_back(first.clone());
        assert_eq!(outbox.take(), Some(first.clone()));
        outbox.push(entry(3, 1));
        outbox.put_back(first);
        assert_eq!(outbox.take_dropped().unwrap().first_micros, 1);
        assert_eq!(outbox.take().unwrap().unix_micros, 2);
    }

    #[test]
    fn an_unsent_report_is_joined_with_the_next() {
        let mut outbox = Outbox::new(1, usize::MAX);
        for number in 1..=2 {
            outbox.push(entry(number, 10));
        }
        let report = outbox.take_dropped().unwrap();
        outbox.push(entry(3, 10));
        outbox.restore_dropped(report);
        let joined = Dropped { count: 2, bytes: 20, first_micros: 1, last_micros: 2 };
        assert_eq!(outbox.take_dropped(), Some(joined));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted_and_order_holds(sizes in proptest::collection::vec(0_usize..400, 0..200), max_events in 0_usize..50, max_bytes in 0_usize..5000) {
            let mut outbox = Outbox::new(max_events, max_bytes);
            for (number, size) in sizes.iter().enumerate() {
                outbox.push(entry(number as u64, *size));
                prop_assert!(outbox.len() <= max_events && outbox.bytes <= max_bytes);
            }
            let dropped = outbox.take_dropped().map_or(0, |one| one.count);
            let mut kept = Vec::new();
            while let Some(entry) = outbox.take() {
                kept.push(entry.unix_micros);
            }
            prop_assert_eq!(dropped as usize + kept.len(), sizes.len());
            prop_assert!(kept.is_sorted() && outbox.bytes == 0);
        }
    }
}
