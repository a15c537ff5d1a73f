//! What the host does when there is nothing to do.

use std::{
    error::Error,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Effort,
    support::{guests, host::Sandbox, http, manifest::Manifest, process},
    table::{Goal, Table},
};

/// What the start leaves behind is done after this long.
const SETTLE: Duration = Duration::from_secs(15);

/// The housekeeping tick that is allowed besides, wake-ups per second.
const TICK: f64 = 0.1;

/// How often we look whether it woke up.
const LOOK: Duration = Duration::from_millis(50);

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::new(program);
    let address = http::free_address();
    let mut manifest = Manifest::new("idle");
    manifest.actor("counter", &guests::module_path("counter"), 1).http(address).link("keyvalue", &[]);
    // As a newcomer's host is: it looks for a server that is not there.
    let nobody = http::free_address().port().to_string();
    let host = sandbox.run(&sandbox.write("counter.yaml", manifest.text()), &[("NATS_PORT", &nobody)]);
    http::wait_for_200(address, Duration::from_secs(20))?;
    thread::sleep(SETTLE);
    let pid = host.pid();
    let (switches, written, cpu) = (process::wake_ups(pid)?, process::bytes_written(pid)?, process::cpu(pid)?);
    let seconds = effort.idle_seconds as f64;
    let wake_ups = bursts(pid, Duration::from_secs(effort.idle_seconds))?;
    table.add("wake-ups, idle", wake_ups as f64 / seconds, "/s", Goal::AtMost(0.2 + TICK));
    let switches = (process::wake_ups(pid)? - switches) as f64 / seconds;
    table.add("thread switches, idle", switches, "/s", Goal::None);
    table.add("written, idle", (process::bytes_written(pid)? - written) as f64, "bytes", Goal::AtMost(0.0));
    let cpu = (process::cpu(pid)? - cpu).as_secs_f64() * 1e6 / seconds;
    table.add("CPU, idle", cpu, "µs/s", Goal::None);
    table.add("threads, idle", process::threads(pid)? as f64, "", Goal::None);
    Ok(())
}

/// How often the process woke up within `time`: threads that wake each other within [`LOOK`] wake the processor once.
fn bursts(pid: u32, time: Duration) -> std::io::Result<u64> {
    let end = Instant::now() + time;
    let (mut bursts, mut last) = (0, process::wake_ups(pid)?);
    while Instant::now() < end {
        thread::sleep(LOOK);
        let now = process::wake_ups(pid)?;
        bursts += u64::from(now != last);
        last = now;
    }
    Ok(bursts)
}
