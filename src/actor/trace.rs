//! A trace for an invocation that came without one, so that all it leads to can be tied together.
//!
//! Made when a guest first calls out and not before. The numbers are drawn from a sequence that starts at random: they must
//! be different, nothing secret hangs on them, and asking the system each time would cost as much as the call.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::wire::Trace;

/// A trace nobody else has.
pub fn fresh() -> Trace {
    let (high, low, span) = (draw(), draw(), draw());
    Trace::new(u128::from(high) << 64 | u128::from(low), span)
}

/// SplitMix64: one addition and a mix.
fn draw() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    static STATE: OnceLock<AtomicU64> = OnceLock::new();
    let state = STATE.get_or_init(|| {
        let mut seed = [0; 8];
        // Without a source of randomness hosts may share traces; that is a matter of their telemetry alone.
        let _ = getrandom::fill(&mut seed);
        AtomicU64::new(u64::from_ne_bytes(seed))
    });
    let mut draw = state.fetch_add(STEP, Relaxed).wrapping_add(STEP);
    draw = (draw ^ draw >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    draw = (draw ^ draw >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    draw ^ draw >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_are_the_same() {
        let all: BTreeSet<String> = (0..10_000).map(|_| fresh().parent().to_owned()).collect();
        assert_eq!(all.len(), 10_000);
    }
}
