//! Providers as processes: how long a start takes, and what each costs besides itself.
//!
//! The provider is kvredis as it is released, without a Redis: it starts and answers probes all the same.

use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use async_nats_031::{Client, Subscriber};
use futures_util::StreamExt;
use latticed::wire::{host_data::HostData, interface::KEY_VALUE};
use serde_json::{Value, json};

use crate::{
    Effort,
    support::{
        host::Sandbox,
        nats::{self, NatsServer, PATIENCE},
        process, provider,
    },
    table::{Goal, Table, median, megabytes},
};

/// Providers whose cost is shared out.
const PROVIDERS: usize = 8;

/// Goals: milliseconds until a start is told; bytes of the host for each process.
const START_MILLIS: f64 = 50.0;
const HOST_KB: f64 = 64.0;

/// After this long without work, freed memory has been given back.
const SETTLE: Duration = Duration::from_secs(12);

/// Wait between two questions whether a provider listens.
const LOOK: Duration = Duration::from_millis(2);

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let (server, sandbox) = (NatsServer::start(), Sandbox::new(program));
    let kvredis = program.with_file_name("kvredis");
    // Probes come again only when everything has been measured.
    let host = nats::joined(&sandbox, server.port(), &[("WASMCLOUD_PROVIDER_PROBE_MS", "600000")]);
    let host_id = host.status().host_id;
    let binary = fs::read(&kvredis)?;
    let archive = |name: &str| {
        // A content of its own, so that each has to be unpacked; the kernel does not look behind the program's end.
        let own = [&binary[..], name.as_bytes()].concat();
        sandbox.write(&format!("{name}.par.gz"), provider::archive(name, KEY_VALUE, &own))
    };

    let by_itself = |name: String| nats::block_on(start_alone(&kvredis, &server, &name));
    let alone = (0..effort.starts).map(|number| by_itself(format!("alone{number}"))).collect::<Result<Vec<_>, _>>();
    let mut alone = alone?;

    let (mut told, mut ready, mut again) = nats::block_on(async {
        let nats = nats::connect(&server).await;
        let mut events = nats.subscribe("wasmbus.evt.default".into()).await?;
        let (mut told, mut ready, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..effort.starts {
            let name = format!("start{number}");
            let archive = archive(&name);
            for times in [&mut told, &mut again] {
                let begun = Instant::now();
                command(&nats, &host_id, "lp", json!({ "provider_ref": reference(&archive) })).await?;
                event(&mut events, "provider_started").await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                event(&mut events, "health_check_passed").await?;
                if ready.len() <= number {
                    ready.push(begun.elapsed().as_secs_f64() * 1e3);
                }
                command(&nats, &host_id, "sp", json!({ "provider_ref": provider::key(&name) })).await?;
                event(&mut events, "provider_stopped").await?;
            }
        }
        Ok::<_, Box<dyn Error>>((told, ready, again))
    })?;
    table.add(
        "start of a provider to provider_started, archive unpacked",
        median(&mut told),
        "ms",
        Goal::AtMost(START_MILLIS),
    );
    table.add("the same, unpacked before", median(&mut again), "ms", Goal::AtMost(START_MILLIS));
    let (ready, alone) = (median(&mut ready), median(&mut alone));
    table.add("start of a provider to its first healthy answer", ready, "ms", Goal::None);
    table.add("the same without a host", alone, "ms", Goal::None);
    table.add("what the host adds to it", ready - alone, "ms", Goal::AtMost(START_MILLIS));

    let start_all = async |names: Vec<String>| {
        let nats = nats::connect(&server).await;
        let mut events = nats.subscribe("wasmbus.evt.default".into()).await?;
        for name in names {
            command(&nats, &host_id, "lp", json!({ "provider_ref": reference(&archive(&name)) })).await?;
            event(&mut events, "health_check_passed").await?;
        }
        Ok::<_, Box<dyn Error>>(())
    };
    // The first one brings what all share.
    nats::block_on(start_all(vec!["first".to_owned()]))?;
    thread::sleep(SETTLE);
    let before = process::memory(host.pid())?;
    nats::block_on(start_all((0..PROVIDERS).map(|number| format!("more{number}")).collect()))?;
    thread::sleep(SETTLE);
    let after = process::memory(host.pid())?;
    let each = |after: u64, before: u64| (after as f64 - before as f64) / PROVIDERS as f64 / 1e3;
    table.add("PSS, host, for each provider more", each(after.pss, before.pss), "KB", Goal::AtMost(HOST_KB));
    let dirty = each(after.private_dirty, before.private_dirty);
    table.add("private dirty, host, for each provider more", dirty, "KB", Goal::AtMost(HOST_KB));
    let supervisors = children(host.pid())?;
    let memories = supervisors.iter().map(|pid| process::memory(*pid)).collect::<Result<Vec<_>, _>>()?;
    let mut of = |what: &str, pick: fn(&process::Memory) -> u64| {
        table.add(what, megabytes(memories.iter().map(pick).sum::<u64>()) / memories.len() as f64, "MB", Goal::None);
    };
    of("PSS of a supervisor, one of nine", |memory| memory.pss);
    of("private dirty of a supervisor", |memory| memory.private_dirty);
    Ok(())
}

fn reference(archive: &Path) -> String {
    format!("file://{}", archive.display())
}

async fn command(nats: &Client, host_id: &str, verb: &str, mut body: Value) -> Result<(), Box<dyn Error>> {
    body["link_name"] = "default".into();
    let answer = nats.request(format!("wasmbus.ctl.default.cmd.{host_id}.{verb}"), body.to_string().into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    if answer["accepted"] == true { Ok(()) } else { Err(format!("{verb}: {answer}").into()) }
}

/// Waits for the next event called `name`.
async fn event(events: &mut Subscriber, name: &str) -> Result<(), Box<dyn Error>> {
    let wanted = format!("com.wasmcloud.lattice.{name}");
    let search = async {
        while let Some(message) = events.next().await {
            if serde_json::from_slice::<Value>(&message.payload).is_ok_and(|event| event["type"] == wanted) {
                return;
            }
        }
    };
    Ok(tokio::time::timeout(PATIENCE, search).await?)
}

/// A process, killed with the measurement.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Milliseconds from the start of `program` to its first answer, started by nobody's host.
async fn start_alone(program: &PathBuf, server: &NatsServer, name: &str) -> Result<f64, Box<dyn Error>> {
    let nats = nats::connect(server).await;
    let data = HostData {
        lattice_rpc_prefix: "default".into(),
        link_name: "default".into(),
        lattice_rpc_url: format!("127.0.0.1:{}", server.port()),
        provider_key: provider::key(name),
        cluster_issuers: vec![nats::cluster().public_key().to_string()],
        invocation_seed: nats::cluster().seed().expose().to_owned().into(),
        ..HostData::default()
    };
    let line = data.to_line()?;
    let begun = Instant::now();
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Killed(command.spawn()?);
    // Kept open, as this host does.
    let mut stdin = child.0.stdin.take().ok_or("it is piped")?;
    stdin.write_all(line.as_bytes())?;
    let probe = format!("wasmbus.rpc.default.{}.default.health", provider::key(name));
    while nats.request(probe.clone(), "".into()).await.is_err() {
        if begun.elapsed() > PATIENCE {
            return Err("it gives no sign of life".into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Result<Vec<u32>, Box<dyn Error>> {
    let mut all = Vec::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        let text = fs::read_to_string(thread?.path().join("children"))?;
        all.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    if all.is_empty() { Err("the host has no children".into()) } else { Ok(all) }
}
