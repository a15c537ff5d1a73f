//! What the host does when there is nothing to do.

use std::{error::Error, path::Path, thread, time::Duration};

use crate::{
    Effort,
    support::{guests, host::Sandbox, http, manifest::Manifest, process},
    table::{Goal, Table},
};

/// What the start leaves behind is done after this long.
const SETTLE: Duration = Duration::from_secs(15);

/// The housekeeping tick that is allowed besides, wake-ups per second.
const TICK: f64 = 0.1;

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::new(program);
    let address = http::free_address();
    let mut manifest = Manifest::new("idle");
    manifest.actor("counter", &guests::module_path("counter"), 1).http(address).link("keyvalue", &[]);
    let host = sandbox.run(&sandbox.write("counter.yaml", manifest.text()), &[]);
    http::wait_for_200(address, Duration::from_secs(20))?;
    thread::sleep(SETTLE);
    let pid = host.pid();
    let (wake_ups, written, cpu) = (process::wake_ups(pid)?, process::bytes_written(pid)?, process::cpu(pid)?);
    thread::sleep(Duration::from_secs(effort.idle_seconds));
    let seconds = effort.idle_seconds as f64;
    let rate = (process::wake_ups(pid)? - wake_ups) as f64 / seconds;
    table.add("wake-ups, idle", rate, "/s", Goal::AtMost(0.2 + TICK));
    table.add("written, idle", (process::bytes_written(pid)? - written) as f64, "bytes", Goal::AtMost(0.0));
    let cpu = (process::cpu(pid)? - cpu).as_secs_f64() * 1e6 / seconds;
    table.add("CPU, idle", cpu, "µs/s", Goal::None);
    table.add("threads, idle", process::threads(pid)? as f64, "", Goal::None);
    Ok(())
}
