//! Messages of one link that no stream has acknowledged yet, on disk and in order.
//!
//! A message gets an identity before anything else happens to it and keeps it for ever, so a stream that sees it twice (the
//! acknowledgement got lost, or the power went between it and the removal here) knows it again for as long as its own
//! window for duplicates is. Records are named by link and number; what is in memory is their numbers and lengths.
//!
//! It knows no broker: `line` takes what waits, and says what was acknowledged. It never forgets a message that was
//! neither acknowledged nor, by the link's own choice, given up for newer ones.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use event_listener::{Event as Signal, EventListener};
use serde::{Deserialize, Serialize};

use super::options::{OutboxOptions, WhenFull};
use crate::{
    error::{Error, Result},
    host::broker::Parcel,
    lock::{Mutex, MutexGuard},
    log,
    store::{Batch, Store, Table},
    wire::codec,
};

/// First byte of a record: what follows is a [`Record`] in MessagePack.
const RECORD_VERSION: u8 = 1;

/// What all outboxes of this host may hold on disk together, bytes. Those of links that were removed count too, because
/// what they hold stays; past it messages are refused.
pub const MAX_ALL_BYTES: u64 = 32 << 20;

#[derive(Serialize, Deserialize)]
struct Record {
    id: String,
    subject: String,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

/// What all outboxes of a host hold together, bytes.
#[derive(Clone, Default)]
pub struct Total(Arc<AtomicU64>);

impl Total {
    /// What `store` holds now. Reads nothing but the index.
    pub fn of(store: &Store) -> Self {
        Self(Arc::new(AtomicU64::new(store.look(|view| view.usage(Table::Outgoing, b"").bytes))))
    }
}

/// The outbox of one link.
pub struct Outbox {
    store: Store,
    total: Total,
    /// Beginning of the names of its records.
    prefix: Vec<u8>,
    options: OutboxOptions,
    state: Mutex<State>,
    filled: Signal,
}

#[derive(Default)]
struct State {
    /// Number and bytes on disk of each, oldest first.
    waiting: VecDeque<(u64, u64)>,
    bytes: u64,
    next: u64,
    dropped: u64,
}

/// A message that waits.
pub struct Waiting {
    /// By which it is removed.
    pub number: u64,
    /// What is sent.
    pub parcel: Parcel,
}

impl Outbox {
    /// The outbox of the link `link_id`, with what `store` has kept of it. Reads nothing but the index.
    pub fn open(store: Store, total: Total, link_id: &str, options: OutboxOptions) -> Self {
        let prefix = format!("{link_id}/").into_bytes();
        let mut state = State::default();
        store.look(|view| {
            for name in view.keys(Table::Outgoing, &prefix) {
                let Some(number) = number_of(&name[prefix.len()..]) else { continue };
                let bytes = (name.len() + view.value_len(Table::Outgoing, &name).unwrap_or_default()) as u64;
                state.waiting.push_back((number, bytes));
                state.bytes += bytes;
                state.next = number + 1;
            }
        });
        Self { store, total, prefix, options, state: Mutex::new(state), filled: Signal::new() }
    }

    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages given up for newer ones since the link was made.
    pub fn dropped(&self) -> u64 {
        self.state().dropped
    }

    /// The stream that must take its messages.
    pub fn stream(&self) -> Option<&str> {
        self.options.stream.as_deref()
    }

    /// Wakes when something was put in; ask for it before looking.
    pub fn filled(&self) -> EventListener {
        self.filled.listen()
    }

    /// Keeps `parcel`; it is on disk when this returns. One at a time: the caller sees to that, and lets it come to its
    /// end.
    ///
    /// # Errors
    /// `Limit`: there is no room, or never would be; `Storage`.
    pub async fn put(&self, parcel: Parcel) -> Result<()> {
        let record = Record { id: parcel.id, subject: parcel.subject, body: parcel.body };
        let mut value = vec![RECORD_VERSION];
        value.extend(codec::encode(&record)?);
        let (number, mut victims) = (self.state().next, Vec::new());
        let name = self.name(number);
        let bytes = (name.len() + value.len()) as u64;
        {
            let state = self.state();
            let (mut count, mut held) = (state.waiting.len(), state.bytes);
            let mut oldest = state.waiting.iter();
            loop {
                let why = if count >= self.options.messages {
                    format!("holds {count} messages, its limit of `outbox_messages`")
                } else if held + bytes > self.options.bytes {
                    format!("has no room for {bytes} bytes more within its {} of `outbox_bytes`", self.options.bytes)
                } else if self.total.0.load(Relaxed) + bytes > MAX_ALL_BYTES + (state.bytes - held) {
                    format!("has no room: all outboxes of this host together hold {MAX_ALL_BYTES} bytes at most")
                } else {
                    break;
                };
                match oldest.next() {
                    Some((victim, freed)) if self.options.when_full == WhenFull::DropOldest => {
                        victims.push(*victim);
                        (count, held) = (count - 1, held - freed);
                    }
                    _ => {
                        return Err(Error::limit(format!(
                            "the message on {} cannot be kept until there is a connection: the outbox of this link {why}; raise \
                         it, or set `outbox_full` to drop-oldest",
                            record.subject
                        )));
                    }
                }
            }
        }
        let mut batch = Batch::new();
        for victim in &victims {
            batch = batch.delete(Table::Outgoing, self.name(*victim));
        }
        self.store.commit(batch.put(Table::Outgoing, name, value)).await?;
        {
            let mut state = self.state();
            state.next = number + 1;
            state.waiting.push_back((number, bytes));
            state.bytes += bytes;
            self.total.0.fetch_add(bytes, Relaxed);
            for victim in &victims {
                if self.forget(&mut state, *victim) {
                    state.dropped += 1;
                }
            }
        }
        if !victims.is_empty() {
            log::warn!(
                "an outbox is full: its {} oldest messages were given up for a newer one", victims.len();
                subject = record.subject, dropped = self.dropped()
            );
        }
        self.filled.notify(usize::MAX);
        Ok(())
    }

    /// The oldest messages but those in `except`, at most `count` of them and, beyond the first, no more than `bytes`. One that
    /// cannot be read any more is given up.
    pub async fn oldest(self: &Arc<Self>, count: usize, bytes: u64, except: &BTreeSet<u64>) -> Result<Vec<Waiting>> {
        let mut numbers = Vec::new();
        {
            let state = self.state();
            let mut sum = 0;
            let waiting = state.waiting.iter().filter(|(number, _)| !except.contains(number));
            for (number, length) in waiting.take(count) {
                sum += length;
                if !numbers.is_empty() && sum > bytes {
                    break;
                }
                numbers.push(*number);
            }
        }
        let outbox = Arc::clone(self);
        let names: Vec<_> = numbers.iter().map(|number| self.name(*number)).collect();
        let read = move |view: &crate::store::View<'_>| -> Vec<_> {
            names.iter().map(|name| view.get(Table::Outgoing, name)).collect()
        };
        let (mut found, mut lost) = (Vec::new(), Vec::new());
        for (number, value) in numbers.into_iter().zip(self.store.read(read).await) {
            let record = match value {
                Ok(Some(value)) => outbox.decode(&value),
                // Given up for a newer one meanwhile.
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match record {
                Ok(parcel) => found.push(Waiting { number, parcel }),
                Err(error) => {
                    log::error!("a message that waited was lost: {error}");
                    lost.push(number);
                }
            }
        }
        if !lost.is_empty() {
            self.remove(&lost).await?;
        }
        Ok(found)
    }

    /// Removes messages: a stream has them, or nothing ever will.
    ///
    /// # Errors
    /// `Storage`; they are sent again then.
    pub async fn remove(&self, numbers: &[u64]) -> Result<()> {
        let mut batch = Batch::new();
        for number in numbers {
            batch = batch.delete(Table::Outgoing, self.name(*number));
        }
        self.store.commit(batch).await?;
        let mut state = self.state();
        for number in numbers {
            self.forget(&mut state, *number);
        }
        if state.waiting.is_empty() {
            // A long outage is over: its memory goes back.
            state.waiting = VecDeque::new();
        }
        Ok(())
    }

    fn forget(&self, state: &mut State, number: u64) -> bool {
        let Ok(place) = state.waiting.binary_search_by_key(&number, |(number, _)| *number) else { return false };
        let Some((_, bytes)) = state.waiting.remove(place) else { return false };
        state.bytes -= bytes;
        self.total.0.fetch_sub(bytes, Relaxed);
        true
    }

    fn decode(&self, value: &[u8]) -> Result<Parcel> {
        let record = match value.split_first() {
            Some((&RECORD_VERSION, record)) => codec::decode::<Record>("record of an outbox", record)?,
            _ => return Err(Error::storage("a record of an outbox is of no form that this version knows")),
        };
        Ok(Parcel { id: record.id, subject: record.subject, body: record.body, stream: self.options.stream.clone() })
    }

    fn name(&self, number: u64) -> Vec<u8> {
        [self.prefix.as_slice(), &number.to_be_bytes()].concat()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// Messages that wait for the link `link_id`, whether it has an outbox now or not.
pub fn kept(store: &Store, link_id: &str) -> u64 {
    store.look(|view| view.count(Table::Outgoing, format!("{link_id}/").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        error::Kind,
        store::{self, FaultDisk},
    };

    fn open(disk: &FaultDisk) -> Store {
        Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap().0
    }

    fn options(messages: usize, bytes: u64, when_full: WhenFull) -> OutboxOptions {
        OutboxOptions { stream: Some("S".into()), messages, bytes, when_full }
    }

    fn outbox(store: &Store, options: OutboxOptions) -> Arc<Outbox> {
        Arc::new(Outbox::open(store.clone(), Total::of(store), "LINK", options))
    }

    fn put(outbox: &Outbox, body: &str) -> Result<()> {
        let id = body.chars().take(8).collect();
        let parcel = Parcel { id, subject: "a.b".into(), body: body.into(), stream: None };
        smol::block_on(outbox.put(parcel))
    }

    fn bodies(outbox: &Arc<Outbox>, count: usize) -> Vec<String> {
        let oldest = smol::block_on(outbox.oldest(count, u64::MAX, &BTreeSet::new())).unwrap();
        oldest.into_iter().map(|one| String::from_utf8(one.parcel.body).unwrap()).collect()
    }

    #[test]
    fn what_was_put_in_is_there_in_order_after_the_power_went_and_is_removed_by_number() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        let first = outbox(&store, options(10, 1 << 20, WhenFull::Refuse));
        for body in ["one", "two", "three"] {
            put(&first, body).unwrap();
        }
        let oldest = smol::block_on(first.oldest(2, u64::MAX, &BTreeSet::new())).unwrap();
        assert_eq!(
            oldest[0].parcel,
            Parcel { id: "one".into(), subject: "a.b".into(), body: "one".into(), stream: Some("S".into()) }
        );
        smol::block_on(first.remove(&[oldest[0].number])).unwrap();
        let disk = disk.after_kill();
        drop((first, store));

        let store = open(&disk);
        let second = outbox(&store, options(10, 1 << 20, WhenFull::Refuse));
        assert_eq!(bodies(&second, 9), ["two", "three"]);
        put(&second, "four").unwrap();
        assert_eq!(bodies(&second, 9), ["two", "three", "four"]);
        assert_eq!(bodies(&second, 1), ["two"]);
        let one_by_bytes = smol::block_on(second.oldest(9, 1, &BTreeSet::new())).unwrap();
        assert_eq!(one_by_bytes.len(), 1, "the first goes however long it is");
        assert_eq!(kept(&store, "LINK"), 3);
        let other = Outbox::open(store.clone(), Total::of(&store), "LIN", options(10, 1 << 20, WhenFull::Refuse));
        assert!(other.is_empty(), "another link's");
    }

    #[test]
    fn a_full_one_refuses_by_number_and_by_bytes_and_says_what_to_do() {
        let store = open(&FaultDisk::new());
        let small = outbox(&store, options(2, 1 << 20, WhenFull::Refuse));
        put(&small, "one").unwrap();
        put(&small, "two").unwrap();
        let error = put(&small, "three").unwrap_err();
        assert_eq!(error.kind(), Kind::Limit);
        assert!(error.text().contains("outbox_messages") && error.text().contains("drop-oldest"), "{error}");
        assert_eq!(bodies(&small, 9), ["one", "two"]);
        let tight = outbox(&store, options(100, 250, WhenFull::Refuse));
        assert!(put(&tight, &"x".repeat(200)).unwrap_err().text().contains("outbox_bytes"));
    }

    #[test]
    fn the_oldest_make_room_where_that_is_asked_for() {
        let store = open(&FaultDisk::new());
        let small = outbox(&store, options(2, 390, WhenFull::DropOldest));
        for body in ["one", "two", "three"] {
            put(&small, body).unwrap();
        }
        assert_eq!((bodies(&small, 9), small.dropped()), (vec!["two".to_owned(), "three".to_owned()], 1));
        let long = "x".repeat(300);
        put(&small, &long).unwrap();
        assert_eq!((bodies(&small, 9), small.dropped()), (vec![long], 3));
        // What never fits costs nothing.
        assert_eq!(put(&small, &"x".repeat(500)).unwrap_err().kind(), Kind::Limit);
        assert_eq!((small.len(), kept(&store, "LINK")), (1, 1));
    }

    #[test]
    fn all_outboxes_together_are_bounded() {
        let store = open(&FaultDisk::new());
        let total = Total::of(&store);
        let open =
            |link: &str| Outbox::open(store.clone(), total.clone(), link, options(1000, MAX_OUTBOX, WhenFull::Refuse));
        const MAX_OUTBOX: u64 = 1 << 30;
        let (one, other) = (open("A"), open("B"));
        let body = "x".repeat(3 << 20);
        let mut put_in = 0;
        while put(&one, &body).is_ok() {
            put_in += 1;
        }
        assert_eq!(put_in, MAX_ALL_BYTES / (3 << 20));
        assert!(put(&other, &body).unwrap_err().text().contains("together"));
        smol::block_on(one.remove(&[0])).unwrap();
        put(&other, &body).unwrap();
    }

    #[test]
    fn a_damaged_message_is_given_up_and_the_rest_goes_on() {
        let disk = FaultDisk::new();
        let store = open(&disk);
        let outbox = outbox(&store, options(10, 1 << 20, WhenFull::Refuse));
        for body in ["number-one", "number-two"] {
            put(&outbox, body).unwrap();
        }
        let segment = disk.names().into_iter().find(|name| name.ends_with(".log")).unwrap();
        let content = disk.content(&segment);
        disk.corrupt(&segment, content.windows(10).position(|found| found == b"number-one").unwrap(), 1);
        assert_eq!(bodies(&outbox, 9), ["number-two"]);
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn a_power_cut_at_any_step_loses_nothing_and_repeats_nothing() {
        let states: [&[&str]; 9] = [
            &[],
            &["0"],
            &["0", "1"],
            &["0", "1", "2"],
            &["1", "2", "3"],
            &["2", "3", "4"],
            &["4"],
            &["4", "5"],
            &["4", "5", "6"],
        ];
        for seed in 0..3 {
            for step in 1.. {
                let disk = FaultDisk::new();
                let store = open(&disk);
                disk.cut_at(disk.steps() + step);
                let first = outbox(&store, options(3, 1 << 20, WhenFull::DropOldest));
                let (mut done, mut next) = (0, 0);
                let cut = loop {
                    let outcome = if done == 5 {
                        let oldest = smol::block_on(first.oldest(2, u64::MAX, &BTreeSet::new())).unwrap();
                        smol::block_on(first.remove(&oldest.iter().map(|one| one.number).collect::<Vec<_>>()))
                    } else {
                        next += 1;
                        put(&first, &(next - 1).to_string())
                    };
                    match outcome {
                        Ok(()) if done + 2 == states.len() => break false,
                        Ok(()) => done += 1,
                        Err(_) => break true,
                    }
                };
                if !cut {
                    break;
                }
                drop((first, store));
                let store = open(&disk.restart(seed * 1000 + step));
                let second = outbox(&store, options(3, 1 << 20, WhenFull::DropOldest));
                let found = bodies(&second, 9);
                // What was not acknowledged may be there or not.
                assert!(found == states[done] || found == states[done + 1], "step {step}: {found:?} after {done}");
            }
        }
    }
}
