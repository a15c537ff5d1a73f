//! The memory that request bodies of all listeners may take together.
//!
//! A body grows its reservation as it arrives and gives it back when the actor has answered. Nothing waits: what does
//! not fit is refused, because a body that waits half-read would hold memory too.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes that may be taken, and are.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    taken: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` bytes, all of it free.
    pub fn new(limit: usize) -> Self {
        Self { limit, taken: AtomicUsize::new(0) }
    }

    /// A reservation of nothing yet.
    pub fn reservation(&self) -> Reservation<'_> {
        Reservation { budget: self, bytes: 0 }
    }
}

/// Bytes taken from a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Reservation<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Reservation<'_> {
    /// Takes so many more bytes; `false`, and none taken, when they are not free.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let limit = self.budget.limit;
        let fits = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= limit);
        let granted = self.budget.taken.fetch_update(Relaxed, Relaxed, fits).is_ok();
        if granted {
            self.bytes += bytes;
        }
        granted
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn what_was_taken_comes_back_and_no_more_is_given_than_there_is() {
        let budget = Budget::new(100);
        let mut first = budget.reservation();
        assert!(first.grow(60));
        let mut second = budget.reservation();
        assert!(!second.grow(41));
        assert!(second.grow(40));
        assert!(!first.grow(usize::MAX), "an overflow is not a fit");
        drop(first);
        assert!(second.grow(60));
        assert!(!second.grow(1));
    }
}
