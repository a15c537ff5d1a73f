//! Locks that go on after a panic: the standard ones, without their poisoning.
//!
//! A panic while a standard lock is held poisons it: every later use of it fails. What this crate keeps behind a lock
//! is whole after each statement that can panic, so a panic does not spoil it, and whoever comes next goes on with it.
//!
//! For short sections that wait for nothing. A lock that is held across an `await` is one of `smol::lock`.

use std::sync::{self, PoisonError};
pub use std::sync::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// One at a time.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Puts `value` behind a lock.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits for its turn.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Many readers or one writer.
#[derive(Debug, Default)]
pub struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    /// Puts `value` behind a lock.
    pub const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    /// Waits for its turn beside other readers.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for its turn alone.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_panic_while_a_lock_is_held_leaves_it_usable() {
        let (mutex, table) = (Mutex::new(1), RwLock::new(1));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let (mut number, mut entry) = (mutex.lock(), table.write());
            (*number, *entry) = (2, 2);
            panic!("while both are held");
        }));
        assert!(panicked.is_err());
        assert_eq!((*mutex.lock(), *table.read()), (2, 2));
        *table.write() = 3;
        assert_eq!(*table.read(), 3);
    }
}
