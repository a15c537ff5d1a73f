//! A host in its lattice with nothing to do: memory over TLS, bytes on the wire, and what a gone server costs.

use std::{
    error::Error,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use latticed::{
    lattice::event_queue::{self, Entry, EventQueue},
    wire::interface::HTTP_SERVER,
};

use crate::{
    Effort,
    support::{
        certificates::Authority,
        door::Door,
        guests,
        host::{Host, Sandbox},
        manifest::Manifest,
        nats::{self, NatsServer},
        process,
    },
    table::{Goal, Table, megabytes},
};

/// After this long without work, freed memory has been given back and compiled modules beyond the cache are gone.
const SETTLE: Duration = Duration::from_secs(12);

/// An event as hosts send them: an actor's start with its claims.
const EVENT_BYTES: usize = 700;

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    for count in [1, 20] {
        let sandbox = Sandbox::new(program);
        let folder = sandbox.path("");
        let authority = Authority::new("bench");
        let ca = sandbox.write("ca.pem", authority.pem()).display().to_string();
        authority.issue(&folder, "server");
        let mut server = NatsServer::described(|port, store| {
            let path = |name: &str| folder.join(name).display().to_string();
            let (certificate, key) = (path("server.pem"), path("server.key"));
            format!(
                "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n\
                 tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}\n",
                store.display()
            )
        });
        server.resume();
        let door = Door::to(server.port());
        let url = format!("tls://127.0.0.1:{}", door.port());
        let echo = fs::read(guests::module_path("echo"))?;
        let mut manifest = Manifest::empty("uplink");
        for number in 0..count {
            let name = format!("echo{number}");
            let module = sandbox.write(&format!("{name}.wasm"), guests::sign(&name, &[HTTP_SERVER], &echo)?);
            manifest.actor(&name, &module, 1);
        }
        let seed = nats::cluster().seed().expose().to_owned();
        let manifest = sandbox.write("uplink.yaml", manifest.text());
        let mut host = sandbox.run(
            &manifest,
            &[("NATS_HOST", &url), ("WASMCLOUD_NATS_TLS_CA_FILE", &ca), ("WASMCLOUD_CLUSTER_SEED", &seed)],
        );
        host.wait_for("the lattice's bucket is followed");
        running(&host, count)?;
        thread::sleep(SETTLE);
        let goal = if count == 20 { Goal::AtMost(8.0) } else { Goal::None };
        let connected = process::memory(host.pid())?;
        table.add(format!("PSS, connected over TLS, {count} actors"), megabytes(connected.pss), "MB", goal);
        let dirty = megabytes(connected.private_dirty);
        table.add(format!("private dirty, connected over TLS, {count} actors"), dirty, "MB", Goal::None);

        let (before, start) = (door.passed(), Instant::now());
        thread::sleep(Duration::from_secs(effort.idle_seconds));
        let hour = 3600.0 / start.elapsed().as_secs_f64();
        let bytes = (door.passed() - before) as f64 * hour;
        table.add(format!("bytes an hour on the idle wire, TLS, {count} actors"), bytes, "", Goal::None);

        if count == 1 {
            let connected = process::memory(host.pid())?;
            server.kill();
            thread::sleep(SETTLE);
            let alone = process::memory(host.pid())?;
            let gone = (alone.pss as f64 - connected.pss as f64) / 1e6;
            let full = full_outbox()?;
            table.add("PSS, a gone server adds", gone, "MB", Goal::None);
            table.add("PSS, a full outbox adds", full, "MB", Goal::None);
            table.add("PSS, a gone server and a full outbox add", gone + full, "MB", Goal::AtMost(1.0));
        }
    }
    Ok(())
}

fn running(host: &Host, count: usize) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + nats::PATIENCE;
    while host.status().actors.len() < count {
        if Instant::now() > end {
            return Err(format!("{count} actors do not start: {}", host.output()).into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// What the queue of a host takes once nothing more goes in, MB: measured here, as nothing on a board that nobody can reach
/// makes thousands of events in a minute.
fn full_outbox() -> Result<f64, Box<dyn Error>> {
    let before = process::memory(std::process::id())?;
    let mut queue = EventQueue::new(event_queue::DEFAULT_MAX_EVENTS, event_queue::DEFAULT_MAX_BYTES);
    for number in 0..2 * event_queue::DEFAULT_MAX_EVENTS as u64 {
        let body = vec![b'x'; EVENT_BYTES].into();
        queue.push(Entry { name: "actor_started".into(), body, unix_micros: number });
    }
    let after = process::memory(std::process::id())?;
    std::hint::black_box(&queue);
    Ok((after.pss as f64 - before.pss as f64) / 1e6)
}
