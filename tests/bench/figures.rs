//! The benchmarks: every figure the project promises, measured in one run and set against its goal.
//!
//! Run by `tests/bench/run`. `bench PROGRAM [--quick] [PART…]` measures the release build PROGRAM, all of it or some
//! [`PARTS`], and prints a table; `bench fixed ADDRESS` is the other side of the HTTP ratios: the same server with nobody
//! behind it; `bench respond URL` that of the ratios over NATS.

use std::{error::Error, path::Path};

#[path = "../support/mod.rs"]
mod support;

mod fixed;
mod footprint;
mod idle;
mod load;
mod machine;
mod providers;
mod redis;
mod router;
mod rpc;
mod start;
mod table;
mod throughput;
mod uplink;

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

type Measure = fn(&Path, Effort, &mut Table) -> Result<(), Box<dyn Error>>;

/// What can be measured, in this order.
const PARTS: [(&str, Measure); 9] = [
    ("router", |_, effort, table| router::measure(effort, table)),
    ("start", start::measure),
    ("memory", footprint::measure),
    ("http", throughput::measure),
    ("idle", idle::measure),
    ("rpc", rpc::measure),
    ("uplink", uplink::measure),
    ("providers", providers::measure),
    ("kvredis", redis::measure),
];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, address] = arguments.as_slice()
        && command == "fixed"
    {
        return fixed::serve(address.parse()?);
    }
    if let [command, url] = arguments.as_slice()
        && command == "respond"
    {
        return rpc::respond(url);
    }
    let quick = arguments.iter().position(|argument| argument == "--quick").map(|at| arguments.remove(at));
    let effort = if quick.is_some() { QUICK } else { FULL };
    let Some((program, wanted)) = arguments.split_first() else {
        return Err("usage: bench PROGRAM [--quick] [PART…]".into());
    };
    if let Some(unknown) = wanted.iter().find(|wanted| PARTS.iter().all(|(name, _)| name != wanted)) {
        return Err(format!("there is no part {unknown}: there are {}", PARTS.map(|(name, _)| name).join(", ")).into());
    }
    println!("{}", machine::line());
    let mut table = Table::default();
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            eprintln!("measuring: {name}");
            measure(Path::new(program), effort, &mut table)?;
        }
    }
    println!("{table}");
    Ok(())
}
