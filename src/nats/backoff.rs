//! How long to wait before the next attempt to connect: full jitter, so that boards that lost one server together do not
//! come back together.
//!
//! Pure: randomness comes from a seed that follows from the host's key, so two boards never share a sequence and one board
//! repeats its own, which makes a test repeatable.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use sha2::{Digest, Sha256};

/// Widest first wait unless set otherwise: a server that restarts gets its boards back evenly over this time.
pub const DEFAULT_BASE: Duration = Duration::from_secs(2);

/// Widest wait ever unless set otherwise. A board is back at most this long after its server, and in the worst case
/// attempts this far apart, half on average, are what a dead link costs in radio bytes.
pub const DEFAULT_CAP: Duration = Duration::from_secs(60);

/// Waits of one connection.
#[derive(Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    state: AtomicU64,
}

impl Backoff {
    /// Waits between nothing and `base` at first, doubling up to `cap`, drawn by `host_key`.
    pub fn new(base: Duration, cap: Duration, host_key: &str) -> Self {
        let digest = Sha256::digest(host_key.as_bytes());
        let seed = digest.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self { base, cap: cap.max(base), state: AtomicU64::new(seed) }
    }

    /// The wait before attempt number `attempt`, counted from 1 since the connection was lost.
    pub fn delay(&self, attempt: usize) -> Duration {
        let ceiling = self.ceiling(attempt).as_nanos();
        // 128 bits hold the product of any 64-bit draw and any wait of less than 580 years.
        let draw = u128::from(self.draw());
        let nanos = (ceiling.min(u128::from(u64::MAX)) * draw) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The widest wait before attempt number `attempt`.
    pub fn ceiling(&self, attempt: usize) -> Duration {
        let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(32);
        self.base.saturating_mul(2_u32.saturating_pow(doublings)).min(self.cap)
    }

    /// SplitMix64: one addition and a mix; good enough to scatter boards, and nothing secret hangs on it.
    fn draw(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut draw = self.state.fetch_add(STEP, Relaxed).wrapping_add(STEP);
        draw = (draw ^ draw >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        draw = (draw ^ draw >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        draw ^ draw >> 31
    }
}

/// A moment within `window`, the same for one key always and spread evenly over keys: for heartbeats and other things that
/// many boards would else do at once.
pub fn phase(host_key: &str, window: Duration) -> Duration {
    Backoff::new(window, window, host_key).delay(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::claims::{KeyPair, Role};

    fn backoff(key: &str) -> Backoff {
        Backoff::new(DEFAULT_BASE, DEFAULT_CAP, key)
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = backoff("N1");
        let ceilings: Vec<u64> = (1..=8).map(|attempt| backoff.ceiling(attempt).as_secs()).collect();
        assert_eq!(ceilings, [2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.ceiling(0), DEFAULT_BASE);
        assert_eq!(backoff.ceiling(usize::MAX), DEFAULT_CAP);
    }

    #[test]
    fn one_key_repeats_its_waits_and_two_keys_differ() {
        let waits = |key: &str| (1..10).map(|attempt| backoff(key).delay(attempt)).collect::<Vec<_>>();
        assert_eq!(waits("N1"), waits("N1"));
        assert_ne!(waits("N1"), waits("N2"));
        let same = backoff("N1");
        assert_ne!(same.delay(1), same.delay(1));
    }

    /// When 500 boards are back that lost their server together, seconds after the loss; it is there again `outage` later.
    fn returns(base: Duration, outage: f64) -> Vec<f64> {
        let mut returns: Vec<f64> = (0..500)
            .map(|board| {
                let key = KeyPair::from_name(Role::Server, &format!("board {board}"));
                let backoff = Backoff::new(base, DEFAULT_CAP, &key.public_key().to_string());
                let mut now = 0.0;
                for attempt in 1.. {
                    now += backoff.delay(attempt).as_secs_f64();
                    if now >= outage {
                        break;
                    }
                }
                now
            })
            .collect();
        returns.sort_by(f64::total_cmp);
        returns
    }

    /// The most that come back within one second, wherever it begins.
    fn busiest_second(returns: &[f64]) -> usize {
        (0..returns.len()).map(|first| returns.partition_point(|at| *at < returns[first] + 1.0) - first).max().unwrap()
    }

    /// Over the spread of the first attempt no second sees more than one and a half times the mean.
    #[test]
    fn five_hundred_boards_come_back_evenly() {
        for base in [2, 5, 10] {
            let returns = returns(Duration::from_secs(base), 0.0);
            let (first, last) = (returns[0], returns[returns.len() - 1]);
            assert!(last - first > base as f64 * 0.9 && last < base as f64, "{first} to {last}");
            let mean = returns.len() as f64 / (last - first).max(1.0);
            let busiest = busiest_second(&returns);
            assert!(busiest as f64 <= 1.5 * mean, "{busiest} in a second, {mean} in the mean, base {base}");
        }
    }

    /// A server that was away for longer sees fewer at once: never more than one and a half times what a short outage
    /// brings, and a quarter of that once the boards have reached their cap.
    #[test]
    fn a_longer_outage_brings_no_larger_rush() {
        let mean = 500.0 / DEFAULT_BASE.as_secs_f64();
        for outage in [0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0] {
            let busiest = busiest_second(&returns(DEFAULT_BASE, outage)) as f64;
            let limit = if outage > DEFAULT_CAP.as_secs_f64() { mean / 4.0 } else { 1.5 * mean };
            assert!(busiest <= limit, "{busiest} in a second after {outage} s, the limit is {limit}");
        }
    }

    #[test]
    fn phases_fill_their_window() {
        let window = Duration::from_secs(30);
        let mut thirds = [0; 3];
        for board in 0..300 {
            let phase = phase(&format!("N{board}"), window);
            thirds[(phase.as_secs() / 10) as usize] += 1;
        }
        assert!(thirds.iter().all(|count| (60..140).contains(count)), "{thirds:?}");
    }

    proptest! {
        #[test]
        fn no_wait_is_wider_than_its_ceiling(attempt: usize, base in 0_u64..100_000, cap in 0_u64..100_000, key: String) {
            let backoff = Backoff::new(Duration::from_millis(base), Duration::from_millis(cap), &key);
            prop_assert!(backoff.delay(attempt) <= backoff.ceiling(attempt));
            prop_assert!(backoff.ceiling(attempt) <= Duration::from_millis(cap.max(base)));
        }
    }
}
