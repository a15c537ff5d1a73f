//! Memory: idle, after load, with one to a hundred distinct actors, asleep and awake.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use latticed::wire::{
    codec,
    interface::{HTTP_SERVER, HttpRequest},
};

use crate::{
    Effort, load,
    support::{
        guests,
        host::{Host, Sandbox},
        http,
        manifest::Manifest,
        process,
    },
    table::{Goal, Table, median, megabytes},
};

/// After this long without work, freed memory has been given back and compiled modules beyond the cache are gone.
const SETTLE: Duration = Duration::from_secs(12);

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    quickstart(program, effort, table)?;
    for count in [1, 20, 100] {
        many(program, count, table)?;
    }
    Ok(())
}

fn quickstart(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::new(program);
    let address = http::free_address();
    let mut manifest = Manifest::new("footprint");
    manifest.actor("counter", &guests::module_path("counter"), 8).http(address).link("keyvalue", &[]);
    let host = sandbox.run(&sandbox.write("counter.yaml", manifest.text()), &[]);
    http::wait_for_200(address, Duration::from_secs(20))?;
    thread::sleep(SETTLE);
    row(table, "quickstart, idle", &host, Goal::AtMost(5.0))?;
    load::put_on(address, host.pid(), Duration::from_secs(effort.load_seconds))?;
    row(table, "quickstart, just after load", &host, Goal::None)?;
    thread::sleep(SETTLE);
    row(table, "quickstart, idle after load", &host, Goal::None)?;
    Ok(())
}

/// `count` copies of the 180 KB echo, each signed under a key of its own.
fn many(program: &Path, count: usize, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let echo = fs::read(guests::module_path("echo"))?;
    let sandbox = Sandbox::new(program);
    let mut manifest = Manifest::new("many");
    for number in 0..count {
        let name = format!("echo{number}");
        let module = sandbox.write(&format!("{name}.wasm"), guests::sign(&name, &[HTTP_SERVER], &echo)?);
        manifest.actor(&name, &module, 1);
    }
    let host = sandbox.run(&sandbox.write("many.yaml", manifest.text()), &[]);
    let end = Instant::now() + Duration::from_secs(60);
    while !running(&host, count) {
        if Instant::now() > end {
            return Err(format!("{count} actors do not start: {}", host.output()).into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(SETTLE);
    let goal = if count == 100 { Goal::AtMost(12.0) } else { Goal::None };
    row(table, &format!("{count} distinct actors, loaded and idle"), &host, goal)?;

    let request = HttpRequest { method: "GET".into(), path: "/".into(), ..HttpRequest::default() };
    let request = codec::encode(&request)?;
    let mut waking = Vec::new();
    for number in 0..count {
        let key = guests::key(&format!("echo{number}"));
        let timed = || {
            let start = Instant::now();
            host.call(&key, "HttpServer.HandleRequest", &request)?;
            Ok::<_, String>(start.elapsed().as_secs_f64() * 1e3)
        };
        // What the second call takes too is not the waking.
        waking.push(timed()? - timed()?);
    }
    row(table, &format!("{count} distinct actors, each just called"), &host, Goal::None)?;
    if count == 100 {
        table.add("waking an idle actor", median(&mut waking), "ms", Goal::AtMost(5.0));
    }
    thread::sleep(SETTLE);
    row(table, &format!("{count} distinct actors, idle again"), &host, goal)?;
    Ok(())
}

fn running(host: &Host, count: usize) -> bool {
    latticed::task::block_on(host.client().status())
        .is_ok_and(|status| status.actors.iter().filter(|actor| actor.state == "running").count() == count)
}

fn row(table: &mut Table, what: &str, host: &Host, goal: Goal) -> Result<(), Box<dyn Error>> {
    let memory = process::memory(host.pid())?;
    table.add(format!("PSS, {what}"), megabytes(memory.pss), "MB", goal);
    table.add(format!("private dirty, {what}"), megabytes(memory.private_dirty), "MB", Goal::None);
    Ok(())
}
