//! The way of events out of this host: kept until a server has them, sent in order, on disk where that is set.
//!
//! What the client library has taken is not sent yet, and on a line that died without a word it never will be. So events
//! leave the queue only when the server has answered something said after them; until then they are sent again over the
//! next connection, each with the identity it always had. Nothing here is on the way of whoever tells of an event.

use std::time::Duration;

use bytes::Bytes;
use event_listener::Event as Signal;
use smol::lock;

use super::event_queue::{Dropped, Entry, EventQueue, Kept};
use crate::{
    error::{Error, Result},
    lock::{Mutex, MutexGuard},
    log,
    nats::connection::Connection,
    store::{Batch, Store, Table},
    wire::{
        event::{self, Data, event_time, host::EventsDropped},
        id,
        subject::Subjects,
    },
};

/// Events sent before the server's word is asked for, and their bytes: a command's worth, and no more than a slow link
/// carries within the time the library has for one message.
const BATCH_EVENTS: usize = 64;
const BATCH_BYTES: usize = 64 * 1024;

/// How long events may wait before they are written to disk. With a connection they have left by then, so a connected host
/// writes nothing; the last events before a power cut are lost within this time.
const KEEP_AFTER: Duration = Duration::from_millis(200);

/// Bytes of events written to disk together.
const COMMIT_BYTES: usize = 256 * 1024;

/// Name of the record that counts what was given up; those of events are eight bytes.
const DROPPED: &[u8] = b"dropped";

/// Bytes of a record before the event: its time and the length of its name.
const RECORD_HEAD: usize = 9;

/// Events of one host that wait.
pub struct Mailbox {
    host_id: String,
    queue: Mutex<EventQueue>,
    /// The event that tells of events given up, from when it is first sent until it has arrived.
    reporting: Mutex<Option<(Dropped, Bytes)>>,
    /// Held while events are sent: two at once would send the same events twice.
    sending: lock::Mutex<()>,
    /// Something is in the queue.
    filled: Signal,
    /// Something came in or went, for the disk.
    changed: Signal,
    store: Option<Store>,
    /// Whether new events are written to disk, or only those from before taken from it.
    on_disk: bool,
}

impl Mailbox {
    /// A mailbox of these limits with what `store` holds from before. Events come onto it if `on_disk` says so.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(
        host_id: &str,
        (max_events, max_bytes): (usize, usize),
        store: Option<Store>,
        on_disk: bool,
    ) -> Result<Self> {
        let mut queue = EventQueue::new(max_events, max_bytes);
        if let Some(store) = &store {
            for (name, record) in store.scan(Table::Event, b"")? {
                let number = <[u8; 8]>::try_from(name.as_slice()).map(u64::from_be_bytes);
                match (number, read(&record)) {
                    (Ok(number), Some((name, body, micros))) => queue.restore(number, name, body.len(), micros),
                    _ if name == DROPPED => match serde_json::from_slice::<Dropped>(&record) {
                        Ok(report) => queue.restore_dropped(report),
                        Err(cause) => log::warn!("the count of events given up cannot be read: {cause}"),
                    },
                    _ => log::warn!("an event on disk cannot be read and was left alone"),
                }
            }
        }
        Ok(Self {
            host_id: host_id.to_owned(),
            queue: Mutex::new(queue),
            reporting: Mutex::default(),
            sending: lock::Mutex::new(()),
            filled: Signal::new(),
            changed: Signal::new(),
            store,
            on_disk,
        })
    }

    fn queue(&self) -> MutexGuard<'_, EventQueue> {
        self.queue.lock()
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// The events that wait, in their order.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.queue().batch(usize::MAX, usize::MAX)
    }

    /// Puts an event in.
    pub fn push(&self, entry: Entry) {
        self.queue().push(entry);
        self.filled.notify(usize::MAX);
        self.changed.notify(usize::MAX);
    }

    /// Sends what is in the mailbox whenever there is a connection, for ever.
    pub async fn send_for_ever(&self, connection: &Connection, subjects: &Subjects) {
        loop {
            connection.connected().await;
            let filled = self.filled.listen();
            match self.send_all(connection, subjects).await {
                Ok(()) => filled.await,
                Err(error) => {
                    log::debug!("events wait: {error}");
                    // The library says it is connected until it notices otherwise; this is the pause between two looks.
                    smol::Timer::after(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Sends everything that waits, in order, and waits until the server has it.
    ///
    /// # Errors
    /// There is no connection, or it broke; what is not known to have arrived still waits.
    pub async fn send_all(&self, connection: &Connection, subjects: &Subjects) -> Result<()> {
        let _one_at_a_time = self.sending.lock().await;
        loop {
            let (batch, dropped) = {
                let queue = self.queue();
                (queue.batch(BATCH_EVENTS, BATCH_BYTES), queue.dropped())
            };
            let report = self.report(dropped)?;
            if batch.is_empty() && report.is_none() {
                return Ok(());
            }
            self.send(connection, subjects, &batch, report.as_ref().map(|(_, body)| body)).await?;
            if let Some((report, _)) = report {
                self.queue().told(report);
                *self.reporting() = None;
            }
            if let Some(last) = batch.last() {
                self.queue().arrived(last.number);
            }
            self.changed.notify(usize::MAX);
        }
    }

    async fn send(
        &self,
        connection: &Connection,
        subjects: &Subjects,
        batch: &[Kept],
        report: Option<&Bytes>,
    ) -> Result<()> {
        let said = async |name: &str, body: Bytes| {
            connection.publish(subjects.events(), body.clone()).await?;
            connection.publish(subjects.events_named(name), body).await
        };
        if let Some(report) = report {
            said(EventsDropped::NAME, report.clone()).await?;
        }
        for kept in batch {
            let outcome = match self.body(kept) {
                Ok(Some(body)) => said(&kept.name, body).await,
                Ok(None) => Err(Error::not_found("it is gone from the disk")),
                Err(error) => Err(error),
            };
            match outcome {
                Err(error) if error.kind().is_passing() => return Err(error),
                // Larger than this server takes, or damaged on the disk: those behind it must not wait for ever.
                Err(error) => {
                    log::warn!("an event cannot be sent and is given up: {error}"; event = kept.name);
                    self.queue().give_up(kept.number);
                }
                Ok(()) => {}
            }
        }
        connection.round_trip().await
    }

    fn body(&self, kept: &Kept) -> Result<Option<Bytes>> {
        match (&kept.body, &self.store) {
            (Some(body), _) => Ok(Some(body.clone())),
            (None, Some(store)) => {
                let record = store.get(Table::Event, &kept.number.to_be_bytes())?;
                Ok(record.as_deref().and_then(read).map(|(_, body, _)| Bytes::copy_from_slice(body)))
            }
            (None, None) => Ok(None),
        }
    }

    /// The event that tells of what was given up: of the same until it has arrived, so that whoever hears it twice knows.
    fn report(&self, dropped: Option<Dropped>) -> Result<Option<(Dropped, Bytes)>> {
        let mut reporting = self.reporting();
        if let (None, Some(report)) = (&*reporting, dropped) {
            log::warn!("{} events made while there was no connection were given up", report.count);
            let data = EventsDropped {
                count: report.count,
                bytes: report.bytes,
                first: &event_time(report.first_micros),
                last: &event_time(report.last_micros),
            };
            let mut body = Vec::new();
            event::write(&mut body, &self.host_id, id::random_id(), id::unix_micros(), &data)?;
            *reporting = Some((report, body.into()));
        }
        Ok(reporting.clone())
    }

    fn reporting(&self) -> MutexGuard<'_, Option<(Dropped, Bytes)>> {
        self.reporting.lock()
    }

    /// Keeps the disk like the mailbox, for ever.
    pub async fn keep_for_ever(&self) {
        let mut told = false;
        loop {
            let changed = self.changed.listen();
            match self.keep().await {
                Ok(()) => told = false,
                Err(error) if !told => {
                    told = true;
                    log::warn!("events that wait are not on disk: {error}");
                }
                Err(_) => {}
            }
            changed.await;
            smol::Timer::after(KEEP_AFTER).await;
        }
    }

    /// Writes to disk what only memory holds, and removes what went.
    ///
    /// # Errors
    /// The disk failed; memory holds the events still.
    pub async fn keep(&self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        loop {
            let (new, gone, dropped) = {
                let mut queue = self.queue();
                let new = if self.on_disk { queue.not_on_disk(COMMIT_BYTES) } else { Vec::new() };
                (new, queue.take_gone(), queue.dropped().filter(|_| self.on_disk))
            };
            let mut batch = Batch::new();
            for number in &gone {
                batch = batch.delete(Table::Event, number.to_be_bytes());
            }
            for kept in &new {
                if let Some(body) = &kept.body {
                    batch =
                        batch.put(Table::Event, kept.number.to_be_bytes(), record(&kept.name, body, kept.unix_micros));
                }
            }
            let counted = dropped.and_then(|report| serde_json::to_vec(&report).ok());
            if counted != store.get(Table::Event, DROPPED)? {
                batch = match counted {
                    Some(report) => batch.put(Table::Event, DROPPED, report),
                    None => batch.delete(Table::Event, DROPPED),
                };
            }
            if batch.is_empty() {
                return Ok(());
            }
            if let Err(error) = store.commit(batch).await {
                self.queue().still_there(gone);
                return Err(error);
            }
            let written: Vec<u64> = new.iter().map(|kept| kept.number).collect();
            self.queue().on_disk(&written);
        }
    }
}

/// An event as the disk holds it: time, length of the name, name, event.
fn record(name: &str, body: &[u8], unix_micros: u64) -> Vec<u8> {
    // Names are constants of `wire::event`, far shorter than 256 bytes.
    let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
    [&unix_micros.to_be_bytes()[..], &[length], &name.as_bytes()[..usize::from(length)], body].concat()
}

fn read(record: &[u8]) -> Option<(String, &[u8], u64)> {
    let (head, rest) = record.split_at_checked(RECORD_HEAD)?;
    let (micros, length) = head.split_at(RECORD_HEAD - 1);
    let (name, body) = rest.split_at_checked(usize::from(length[0]))?;
    Some((String::from_utf8(name.to_vec()).ok()?, body, u64::from_be_bytes(micros.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{RealDisk, Settings};

    fn open(store: &Store, on_disk: bool) -> Mailbox {
        Mailbox::open("N1", (4, 1 << 20), Some(store.clone()), on_disk).unwrap()
    }

    fn push(mailbox: &Mailbox, micros: u64) {
        let body = format!("event {micros}").into_bytes().into();
        mailbox.push(Entry { name: "actor_started".into(), body, unix_micros: micros });
    }

    fn content(mailbox: &Mailbox) -> Vec<(String, Bytes)> {
        let batch = mailbox.queue().batch(usize::MAX, usize::MAX);
        batch.iter().map(|kept| (kept.name.to_string(), mailbox.body(kept).unwrap().unwrap())).collect()
    }

    #[test]
    fn events_on_disk_are_there_again_in_order_with_what_was_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) =
            Store::open(Settings::default(), Arc::new(RealDisk::new(directory.path().to_owned()))).unwrap();
        let mailbox = open(&store, true);
        smol::block_on(async {
            for micros in 0..3 {
                push(&mailbox, micros);
                mailbox.keep().await.unwrap();
            }
            for micros in 3..6 {
                push(&mailbox, micros);
            }
            mailbox.keep().await.unwrap();
            mailbox.keep().await.unwrap();
        });
        let before = content(&mailbox);
        assert_eq!((before.len(), &before[0].1[..]), (4, &b"event 2"[..]));
        assert!(mailbox.queue().batch(9, 999).iter().all(|kept| kept.body.is_none()), "memory let them go");

        // The same again after a start, then one more; what arrived is gone from the disk.
        let mailbox = open(&store, true);
        assert_eq!(content(&mailbox), before);
        assert_eq!(mailbox.queue().dropped().map(|report| report.count), Some(2));
        push(&mailbox, 6);
        let last = mailbox.queue().batch(9, 999).last().unwrap().number;
        let report = mailbox.queue().dropped().unwrap();
        mailbox.queue().told(report);
        mailbox.queue().arrived(last - 1);
        smol::block_on(mailbox.keep()).unwrap();
        assert_eq!(store.scan(Table::Event, b"").unwrap().len(), 1);

        // Without the setting, what is there is still sent and then removed; new events stay off the disk.
        let mailbox = open(&store, false);
        assert_eq!(content(&mailbox)[0].1, b"event 6"[..]);
        push(&mailbox, 7);
        let oldest = mailbox.queue().batch(1, 999)[0].number;
        mailbox.queue().arrived(oldest);
        smol::block_on(mailbox.keep()).unwrap();
        assert_eq!((content(&mailbox).len(), store.scan(Table::Event, b"").unwrap().len()), (1, 0));
    }

    #[test]
    fn records_that_are_none_are_not_read() {
        let good = record("actor_started", b"{}", 7);
        assert_eq!(read(&good), Some(("actor_started".into(), &b"{}"[..], 7)));
        for length in 0..RECORD_HEAD + 5 {
            assert_eq!(read(&good[..length]), None, "{length}");
        }
    }
}
