//! The benchmarks: every figure the project promises, measured in one run and set against its goal.
//!
//! Run by `tests/bench/run`. `bench PROGRAM [--quick]` measures the release build PROGRAM and prints a table;
//! `bench fixed ADDRESS` is the other side of the HTTP ratios: the same server with nobody behind it.

use std::{error::Error, path::Path};

#[path = "../support/mod.rs"]
mod support;

mod fixed;
mod footprint;
mod idle;
mod load;
mod machine;
mod router;
mod start;
mod table;
mod throughput;

use table::Table;

/// How often, how long.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Starts of the program whose median is taken.
    pub starts: usize,
    /// Rounds in which each side of a ratio gets its turn.
    pub rounds: usize,
    /// Seconds of load on each side in each round.
    pub load_seconds: u64,
    /// Seconds of doing nothing.
    pub idle_seconds: u64,
    /// Invocations of a round straight through the router.
    pub invocations: u32,
}

const FULL: Effort = Effort { starts: 21, rounds: 7, load_seconds: 4, idle_seconds: 120, invocations: 4000 };
const QUICK: Effort = Effort { starts: 5, rounds: 3, load_seconds: 1, idle_seconds: 30, invocations: 500 };

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (program, effort) = match arguments.as_slice() {
        ["fixed", address] => return fixed::serve(address.parse()?),
        [program] => (Path::new(program), FULL),
        [program, "--quick"] => (Path::new(program), QUICK),
        _ => return Err("usage: bench PROGRAM [--quick]".into()),
    };
    let mut table = Table::default();
    println!("{}", machine::line());
    eprintln!("straight through the router …");
    router::measure(effort, &mut table)?;
    eprintln!("start …");
    start::measure(program, effort, &mut table)?;
    eprintln!("memory …");
    footprint::measure(program, effort, &mut table)?;
    eprintln!("HTTP …");
    throughput::measure(program, effort, &mut table)?;
    eprintln!("idle for {} s …", effort.idle_seconds);
    idle::measure(program, effort, &mut table)?;
    println!("{table}");
    Ok(())
}
