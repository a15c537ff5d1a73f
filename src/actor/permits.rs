//! Permits to run: a number of them is given out, others wait for one in the order they came, and only so many may
//! wait.
//!
//! Used for the places of one actor, the places of the host, compilations, and the turns between fuel slices. It never
//! blocks a thread, never lets a latecomer pass a waiter, and leaves nothing behind when a waiting future is dropped.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::lock::{Mutex, MutexGuard};

/// A counting semaphore with first-come, first-served order and a bounded queue. Clones share it.
#[derive(Clone)]
pub struct Permits(Arc<Mutex<State>>);

/// Why a place was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

struct State {
    /// How many may be inside. Lowering it below `inside` only stops new entries.
    places: usize,
    /// How many are inside, or were called in and have not noticed yet.
    inside: usize,
    /// How many may wait.
    queue_limit: usize,
    /// Name of the next waiter; 2^64 of them outlast any process.
    next_ticket: u64,
    /// Those who wait, longest first.
    waiting: VecDeque<(u64, Waker)>,
    /// Those called in who have not been polled since.
    called: Vec<u64>,
}

impl State {
    /// Calls waiters in while there are places.
    fn call_in(&mut self) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while self.inside < self.places {
            let Some((ticket, waker)) = self.waiting.pop_front() else { break };
            self.inside += 1;
            self.called.push(ticket);
            wakers.push(waker);
        }
        wakers
    }
}

impl Permits {
    /// `places` permits at once, and room for `queue_limit` waiters.
    pub fn new(places: usize, queue_limit: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            places,
            inside: 0,
            queue_limit,
            next_ticket: 0,
            waiting: VecDeque::new(),
            called: Vec::new(),
        })))
    }

    /// Changes the number of places; waiters for whom there is room now are called in at once.
    pub fn set_places(&self, places: usize) {
        let wakers = {
            let mut state = self.lock();
            state.places = places;
            state.call_in()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many may be inside.
    pub fn places(&self) -> usize {
        self.lock().places
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// The future answers [`QueueFull`] at once when too many wait already.
    pub fn enter(&self) -> Enter {
        Enter { permits: self.clone(), ticket: None }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    fn leave(&self) {
        let wakers = {
            let mut state = self.lock();
            state.inside -= 1;
            state.call_in()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One of the [`Permits`], given back on drop.
#[must_use = "the place is given back on drop"]
pub struct Permit(Permits);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Waits for one of the [`Permits`]; dropping it leaves the queue.
#[must_use = "futures do nothing unless polled"]
pub struct Enter {
    permits: Permits,
    ticket: Option<u64>,
}

impl Future for Enter {
    type Output = Result<Permit, QueueFull>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let permits = self.permits.clone();
        let mut state = permits.lock();
        let Some(ticket) = self.ticket else {
            if state.inside < state.places && state.waiting.is_empty() {
                state.inside += 1;
                drop(state);
                return Poll::Ready(Ok(Permit(permits)));
            }
            if state.waiting.len() >= state.queue_limit {
                return Poll::Ready(Err(QueueFull));
            }
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.push_back((ticket, context.waker().clone()));
            self.ticket = Some(ticket);
            return Poll::Pending;
        };
        if let Some(at) = state.called.iter().position(|&called| called == ticket) {
            state.called.swap_remove(at);
            drop(state);
            self.ticket = None;
            return Poll::Ready(Ok(Permit(permits)));
        }
        if let Some((_, waker)) = state.waiting.iter_mut().find(|(waiting, _)| *waiting == ticket) {
            waker.clone_from(context.waker());
        }
        Poll::Pending
    }
}

impl Drop for Enter {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.permits.lock();
        if let Some(at) = state.called.iter().position(|&called| called == ticket) {
            // Called in between the last poll and now: the place goes to the next in line.
            state.called.swap_remove(at);
            drop(state);
            self.permits.leave();
        } else {
            state.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(enter: &mut Enter, count: &Arc<Count>) -> Poll<Result<Permit, QueueFull>> {
        Pin::new(enter).poll(&mut Context::from_waker(&Waker::from(count.clone())))
    }

    fn inside(poll: Poll<Result<Permit, QueueFull>>) -> Permit {
        match poll {
            Poll::Ready(Ok(place)) => place,
            Poll::Ready(Err(QueueFull)) => panic!("the queue is full"),
            Poll::Pending => panic!("no place yet"),
        }
    }

    #[test]
    fn waiters_enter_in_the_order_they_came() {
        let (permits, count) = (Permits::new(1, 8), Arc::new(Count::default()));
        let first = inside(poll(&mut permits.enter(), &count));
        let (mut second, mut third) = (permits.enter(), permits.enter());
        assert!(poll(&mut second, &count).is_pending());
        assert!(poll(&mut third, &count).is_pending());
        drop(first);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        // A latecomer does not take the place that was freed for the second.
        assert!(poll(&mut permits.enter(), &count).is_pending());
        assert!(poll(&mut third, &count).is_pending());
        let second = inside(poll(&mut second, &count));
        drop(second);
        drop(inside(poll(&mut third, &count)));
        drop(inside(poll(&mut permits.enter(), &count)));
    }

    #[test]
    fn a_full_queue_refuses_and_a_dropped_waiter_makes_room() {
        let (permits, count) = (Permits::new(1, 1), Arc::new(Count::default()));
        let place = inside(poll(&mut permits.enter(), &count));
        let mut waiter = permits.enter();
        assert!(poll(&mut waiter, &count).is_pending());
        assert!(matches!(poll(&mut permits.enter(), &count), Poll::Ready(Err(QueueFull))));
        drop(waiter);
        let mut waiter = permits.enter();
        assert!(poll(&mut waiter, &count).is_pending());
        drop(place);
        drop(inside(poll(&mut waiter, &count)));
    }

    #[test]
    fn a_waiter_dropped_after_it_was_called_passes_its_place_on() {
        let (permits, count) = (Permits::new(1, 8), Arc::new(Count::default()));
        let place = inside(poll(&mut permits.enter(), &count));
        let (mut second, mut third) = (permits.enter(), permits.enter());
        assert!(poll(&mut second, &count).is_pending());
        assert!(poll(&mut third, &count).is_pending());
        drop(place);
        drop(second);
        drop(inside(poll(&mut third, &count)));
        assert_eq!(permits.lock().inside, 0);
    }

    #[test]
    fn more_places_call_waiters_in_and_fewer_let_those_inside_finish() {
        let (permits, count) = (Permits::new(1, 8), Arc::new(Count::default()));
        let first = inside(poll(&mut permits.enter(), &count));
        let mut second = permits.enter();
        assert!(poll(&mut second, &count).is_pending());
        permits.set_places(2);
        let second = inside(poll(&mut second, &count));
        permits.set_places(1);
        drop(first);
        let mut third = permits.enter();
        assert!(poll(&mut third, &count).is_pending());
        drop(second);
        drop(inside(poll(&mut third, &count)));
    }
}
