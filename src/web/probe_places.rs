//! Places for probes: a share for each source, some kept for this machine, and room for who asks in place of who is silent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use smol::channel::{Receiver, Sender, bounded};

use crate::{
    client_source::{Full, Source, admit},
    lock::{Mutex, MutexGuard},
};

/// The places of one socket.
#[derive(Clone)]
pub(super) struct Places(Arc<Inner>);

struct Inner {
    most: usize,
    next: AtomicU64,
    /// The oldest first.
    open: Mutex<Vec<Slot>>,
}

struct Slot {
    id: u64,
    source: Source,
    asked: Arc<AtomicBool>,
    hang_up: Sender<()>,
}

/// The place of one connection, free again when dropped.
pub(super) struct Place {
    places: Places,
    id: u64,
    asked: Arc<AtomicBool>,
    hung_up: Receiver<()>,
}

impl Places {
    /// So many.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Inner { most, next: AtomicU64::new(0), open: Mutex::default() }))
    }

    /// A place for a connection from `source`, in the place of the oldest silent one where all are taken; nothing where all
    /// have asked.
    pub(super) fn take(&self, source: Source) -> Option<Place> {
        let mut open = self.open();
        if let Err(full) = admit(self.0.most, source, open.iter().map(|slot| slot.source)) {
            let gives = |slot: &Slot| match full {
                Full::Source => slot.source == source,
                Full::Places => source == Source::ThisMachine || slot.source != Source::ThisMachine,
            };
            let silent = open.iter().position(|slot| !slot.asked.load(Relaxed) && gives(slot))?;
            // Full means that it was told already.
            let _ = open.remove(silent).hang_up.try_send(());
        }
        let (hang_up, hung_up) = bounded(1);
        let (id, asked) = (self.0.next.fetch_add(1, Relaxed), Arc::<AtomicBool>::default());
        open.push(Slot { id, source, asked: asked.clone(), hang_up });
        Some(Place { places: self.clone(), id, asked, hung_up })
    }

    fn open(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.0.open.lock()
    }
}

impl Place {
    /// The request has come: from now on the place is kept.
    pub(super) fn asked(&self) {
        self.asked.store(true, Relaxed);
    }

    /// Ends when somebody else needs the place.
    pub(super) async fn hung_up(&self) {
        // An error means that the slot was dropped with its sender, which says the same.
        let _ = self.hung_up.recv().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().retain(|slot| slot.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(last: u8) -> Source {
        Source::of([10, 0, 0, last].into())
    }

    #[test]
    fn who_is_silent_makes_room_and_who_asked_does_not() {
        let places = Places::new(16);
        let silent: Vec<_> = (0..4).map(|_| places.take(remote(1)).unwrap()).collect();
        silent[0].asked();
        let newcomer = places.take(remote(1)).expect("the oldest silent one makes room");
        assert!(silent[1].hung_up.try_recv().is_ok() && silent[0].hung_up.try_recv().is_err());
        newcomer.asked();
        silent[2].asked();
        silent[3].asked();
        assert!(places.take(remote(1)).is_none(), "all of this source have asked");
        assert!(places.take(remote(2)).is_some() && places.take(Source::ThisMachine).is_some());
        drop(silent);
        assert_eq!(places.open().len(), 1);
    }

    #[test]
    fn this_machine_gets_in_whatever_comes_from_outside() {
        let places = Places::new(16);
        let mut held = Vec::new();
        for last in 1..=255 {
            let place = places.take(remote(last));
            held.extend(place.inspect(|place| place.asked()));
        }
        assert_eq!(held.len(), 14);
        assert!(places.take(Source::ThisMachine).is_some());
    }
}
