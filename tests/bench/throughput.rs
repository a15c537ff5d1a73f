//! Echo over HTTP, against the same server with nobody behind it.
//!
//! Both sides run at once and get their load in turns, so that whatever else the machine does hits both.

use std::{
    error::Error,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    Effort, load,
    support::{guests, host::Sandbox, http, manifest::Manifest},
    table::{Goal, Table, median},
};

/// A child that does not outlive the measurement.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let [plain, small, echo] = [http::free_address(), http::free_address(), http::free_address()];
    let fixed =
        Command::new(std::env::current_exe()?).args(["fixed", &plain.to_string()]).stderr(Stdio::null()).spawn();
    let fixed = Killed(fixed?);
    let sandbox = Sandbox::new(program);
    let mut manifest = Manifest::new("throughput");
    manifest.actor("small", &guests::module_path("echo_small"), 8).http(small);
    manifest.actor("echo", &guests::module_path("echo"), 8).http(echo);
    let host = sandbox.run(&sandbox.write("throughput.yaml", manifest.text()), &[]);
    for address in [plain, small, echo] {
        http::wait_for_200(address, Duration::from_secs(20))?;
    }

    let time = Duration::from_secs(effort.load_seconds);
    let (mut rates, mut cpu) = ([Vec::new(), Vec::new(), Vec::new()], [Vec::new(), Vec::new(), Vec::new()]);
    let mut ratios = [Vec::new(), Vec::new()];
    for _ in 0..effort.rounds {
        let sides = [(plain, fixed.0.id()), (small, host.pid()), (echo, host.pid())];
        let mut round = Vec::new();
        for (side, (address, pid)) in sides.into_iter().enumerate() {
            let outcome = load::put_on(address, pid, time)?;
            rates[side].push(outcome.per_second);
            cpu[side].push(outcome.cpu_micros);
            round.push(outcome.per_second);
        }
        ratios[0].push(round[1] / round[0]);
        ratios[1].push(round[2] / round[0]);
    }
    let names = ["no actor", "one-page echo", "180 KB echo"];
    for (side, name) in names.into_iter().enumerate() {
        table.add(format!("HTTP requests, {name}"), median(&mut rates[side]), "/s", Goal::None);
        table.add(format!("CPU of an HTTP request, {name}"), median(&mut cpu[side]), "µs", Goal::None);
    }
    let [mut small, mut echo] = ratios;
    table.add("throughput, one-page echo : no actor", median(&mut small), "", Goal::AtLeast(0.6));
    table.add("throughput, 180 KB echo : no actor", median(&mut echo), "", Goal::AtLeast(0.25));
    Ok(())
}
