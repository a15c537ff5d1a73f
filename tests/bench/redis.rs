//! kvredis: its size and memory, and a counter that counts in it against Redis asked directly.
//!
//! Both sides are asked over as many connections as [`load`] has, one request at a time on each, in turns. What lies
//! between them: HTTP, the guest, the router, a signed call over NATS and its check, and the provider.

use std::{error::Error, fs, path::Path, process::Command, time::Duration};

use latticed::{
    claims::builtin_provider_key,
    wire::interface::{HTTP_SERVER, KEY_VALUE},
};
use serde_json::{Value, json};

use crate::{
    Effort, load,
    support::{
        guests,
        host::{Host, Sandbox},
        http,
        nats::{self, NatsServer},
        process, provider,
        redis::RedisServer,
    },
    table::{Goal, Table, median, megabytes},
};

/// Goals of the provider: 3 MiB of program, 4 MB of memory.
const PROGRAM_MB: f64 = 3.145_728;
const MEMORY_MB: f64 = 4.0;

/// Increments that Redis is asked for in each second of load, about; more than it answers would make the turns uneven.
const DIRECT_PER_SECOND: u64 = 20_000;

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let kvredis = program.with_file_name("kvredis");
    table.add("size of kvredis", megabytes(fs::metadata(&kvredis)?.len()), "MB", Goal::AtMost(PROGRAM_MB));

    let (redis, server) = (RedisServer::in_memory(), NatsServer::start());
    let (sandbox, address) = (Sandbox::new(program), http::free_address());
    let archive = sandbox.write("kvredis.par.gz", provider::archive("kvredis", KEY_VALUE, &fs::read(&kvredis)?));
    let rules = redis.rule();
    let host = nats::joined(&sandbox, server.port(), &[("WASMCLOUD_PROVIDER_RULES", &rules)]);
    let before = process::memory(host.pid())?;
    nats::block_on(command(&server, &host, &archive, &redis, address))?;
    http::wait_for_200(address, Duration::from_secs(60))?;

    let pid = process_of(&host)?;
    let memory = process::memory(pid)?;
    table.add("PSS, kvredis, idle", megabytes(memory.pss), "MB", Goal::AtMost(MEMORY_MB));
    table.add("private dirty, kvredis, idle", megabytes(memory.private_dirty), "MB", Goal::None);
    let grown = process::memory(host.pid())?.private_dirty.saturating_sub(before.private_dirty);
    table.add("private dirty, host, with one actor, its server and kvredis more", megabytes(grown), "MB", Goal::None);

    let time = Duration::from_secs(effort.load_seconds);
    let (mut counted, mut direct, mut ratios, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        let outcome = load::put_on(address, pid, time)?;
        let asked = ask_directly(&redis, effort.load_seconds * DIRECT_PER_SECOND)?;
        counted.push(outcome.per_second);
        cpu.push(outcome.cpu_micros);
        direct.push(asked);
        ratios.push(outcome.per_second / asked);
    }
    table.add("counts over HTTP in kvredis", median(&mut counted), "/s", Goal::None);
    table.add("CPU of kvredis for one", median(&mut cpu), "µs", Goal::None);
    table.add("increments of Redis asked directly", median(&mut direct), "/s", Goal::None);
    table.add("throughput, counter on kvredis : Redis asked directly", median(&mut ratios), "", Goal::None);
    let memory = process::memory(pid)?;
    table.add("PSS, kvredis, after load", megabytes(memory.pss), "MB", Goal::AtMost(MEMORY_MB));
    Ok(())
}

/// Starts a counter behind HTTP that counts in kvredis, as from afar.
async fn command(
    server: &NatsServer,
    host: &Host,
    archive: &Path,
    redis: &RedisServer,
    address: std::net::SocketAddr,
) -> Result<(), Box<dyn Error>> {
    let nats = nats::connect(server).await;
    let host_id = host.status().host_id;
    let ask = async |subject: String, body: Value| -> Result<(), Box<dyn Error>> {
        let answer = nats.request(subject.clone(), body.to_string().into()).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        if answer["accepted"] == true { Ok(()) } else { Err(format!("{subject}: {answer}").into()) }
    };
    let (counter, store) = (guests::key("counter"), provider::key("kvredis"));
    let web = builtin_provider_key("httpserver").to_string();
    for reference in [format!("file://{}", archive.display()), "builtin:httpserver".to_owned()] {
        let body = json!({ "provider_ref": reference, "link_name": "default", "host_id": host_id });
        ask(format!("wasmbus.ctl.default.cmd.{host_id}.lp"), body).await?;
    }
    for (provider_id, contract_id, values) in [
        (store, KEY_VALUE, json!({ "URL": redis.url() })),
        (web, HTTP_SERVER, json!({ "address": address.to_string() })),
    ] {
        let body = json!({ "actor_id": counter, "provider_id": provider_id, "link_name": "default",
            "contract_id": contract_id, "values": values });
        ask("wasmbus.ctl.default.linkdefs.put".into(), body).await?;
    }
    let reference = format!("file://{}", guests::module_path("counter").display());
    let body = json!({ "actor_ref": reference, "host_id": host_id, "max_concurrent": load::CONNECTIONS });
    ask(format!("wasmbus.ctl.default.cmd.{host_id}.scale"), body).await
}

/// The process of kvredis, as the host's status names it.
fn process_of(host: &Host) -> Result<u32, Box<dyn Error>> {
    let key = provider::key("kvredis");
    let status = host.status();
    let there = status.providers.iter().find(|there| there.public_key == key).ok_or("kvredis is not in the status")?;
    let pid = there.detail.strip_prefix("process ").and_then(|rest| rest.split(':').next()?.parse().ok());
    pid.ok_or_else(|| format!("no process in {:?}", there.detail).into())
}

/// Increments per second as Redis's own benchmark counts them: the same connections, no pipeline.
fn ask_directly(redis: &RedisServer, requests: u64) -> Result<f64, Box<dyn Error>> {
    let (port, clients, requests) = (redis.port().to_string(), load::CONNECTIONS.to_string(), requests.to_string());
    let arguments = ["-p", &port, "-c", &clients, "-n", &requests, "-P", "1", "-t", "incr", "--csv"];
    let output = Command::new("redis-benchmark").args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.starts_with("\"INCR\"")).ok_or_else(|| format!("odd: {text}"))?;
    Ok(line.split(',').nth(1).unwrap_or_default().trim_matches('"').parse()?)
}
