//! Ending a tree of processes that may grow while it is ended. Everything here blocks.
//!
//! Who starts processes faster than they can be killed one by one starts none once it is stopped. So everything is
//! stopped first, in rounds, until a round finds nothing new, and killed then.

use std::collections::BTreeSet;

use rustix::process::{Pid, Signal, kill_process};

use super::process_tree;

/// Most rounds of stopping. A round takes a fraction of a millisecond for a hundred processes; a tree that still grows
/// after all of them is killed as it is then, and what is left of it is found by the next call.
const ROUNDS: usize = 200;

/// Stops and kills what `roots` names and everything below that.
pub fn kill(roots: impl Fn() -> Vec<i32>) {
    let mut found = BTreeSet::new();
    for _ in 0..ROUNDS {
        let new: Vec<i32> = process_tree::with_all_below(&roots()).into_iter().filter(|id| found.insert(*id)).collect();
        if new.is_empty() {
            break;
        }
        send(new, Signal::STOP);
    }
    send(found, Signal::KILL);
}

fn send(processes: impl IntoIterator<Item = i32>, signal: Signal) {
    for process in processes.into_iter().filter_map(Pid::from_raw) {
        // It may have ended meanwhile.
        let _ = kill_process(process, signal);
    }
}
