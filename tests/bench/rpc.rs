//! The echo actor called over NATS, against a plain responder on the same client library that sends the same bytes back.
//!
//! Both sides run at once and get their load in turns from one client, which signs each request as it sends it: a host takes a
//! token once, so that none can be signed beforehand and sent again. The responder's side pays for the signature too.

use std::{
    error::Error,
    hint::black_box,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::Client;
use bytes::Bytes;
use futures_util::{StreamExt, future};
use latticed::{
    claims::{AntiForgery, Now},
    wire::{Invocation, InvocationResponse},
};

use crate::{
    Effort, router,
    support::{
        calls::{Signer, answered, http_request},
        guests,
        host::Sandbox,
        manifest::Manifest,
        nats::{self, NatsServer},
        process,
    },
    table::{Goal, Table, median},
};

/// Bodies that are echoed: name and bytes.
const BODIES: [(&str, usize); 3] = [("40 B", 40), ("1 KB", 1000), ("100 KB", 100_000)];

/// The body whose figures have goals.
const JUDGED: &str = "40 B";

/// Requests in flight under load.
const IN_FLIGHT: usize = 32;

/// Signed requests whose parts are measured.
const REQUESTS: usize = 256;

/// What the responder listens to.
const PLAIN: &str = "bench.plain";

/// A child that does not outlive the measurement.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends back what comes, until the process is killed.
pub fn respond(url: &str) -> Result<(), Box<dyn Error>> {
    runtime()?.block_on(async {
        let client = async_nats::connect(url).await?;
        let mut requests = client.subscribe(PLAIN).await?;
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                client.publish(reply, request.payload).await?;
            }
        }
        Ok(())
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Measures.
pub fn measure(program: &Path, effort: Effort, table: &mut Table) -> Result<(), Box<dyn Error>> {
    let server = NatsServer::start();
    let responder =
        Command::new(std::env::current_exe()?).args(["respond", &server.url()]).stderr(Stdio::null()).spawn();
    let responder = Killed(responder?);
    let sandbox = Sandbox::new(program);
    let mut manifest = Manifest::empty("rpc");
    manifest.actor("echo", &guests::module_path("echo"), IN_FLIGHT as u16);
    let (port, seed) = (server.port().to_string(), nats::cluster().seed().expose().to_owned());
    let manifest = sandbox.write("rpc.yaml", manifest.text());
    let mut host =
        sandbox.run(&manifest, &[("NATS_HOST", "127.0.0.1"), ("NATS_PORT", &port), ("WASMCLOUD_CLUSTER_SEED", &seed)]);
    host.wait_for("the lattice's bucket is followed");
    let subject = format!("wasmbus.rpc.default.{}", guests::key("echo"));
    let sides = [(PLAIN.to_owned(), responder.0.id()), (subject, host.pid())];
    let runtime = runtime()?;
    let client = runtime.block_on(async_nats::connect(server.url()))?;
    let signer = Signer::default();
    for (name, bytes) in BODIES {
        let requests = Requests { signer: &signer, key: guests::key("echo"), body: body(bytes) };
        runtime.block_on(ready(&client, &sides, &requests))?;
        let goal = |goal| if name == JUDGED { goal } else { Goal::None };
        let (mut waits, mut rates, mut cpu) = ([vec![], vec![]], [vec![], vec![]], [vec![], vec![]]);
        let mut ratios = [vec![], vec![]];
        for _ in 0..effort.rounds {
            let mut round = Vec::new();
            for (side, (subject, pid)) in sides.iter().enumerate() {
                let wait = runtime.block_on(one_at_a_time(&client, subject, &requests, effort.invocations))?;
                let time = Duration::from_secs(effort.load_seconds);
                let before = process::cpu(*pid)?;
                let answers = runtime.block_on(many(&client, subject, &requests, time))?;
                let spent = process::cpu(*pid)? - before;
                let rate = answers as f64 / time.as_secs_f64();
                waits[side].push(wait);
                rates[side].push(rate);
                cpu[side].push(spent.as_secs_f64() * 1e6 / answers as f64);
                round.push((wait, rate));
            }
            ratios[0].push(round[1].0 / round[0].0);
            ratios[1].push(round[1].1 / round[0].1);
        }
        for (side, who) in ["responder", "echo"].into_iter().enumerate() {
            table.add(format!("wait for the {who} over NATS, {name}, p50"), median(&mut waits[side]), "µs", Goal::None);
            table.add(
                format!("{IN_FLIGHT} in flight at the {who}, {name}"),
                median(&mut rates[side]),
                "/s",
                Goal::None,
            );
        }
        let [mut wait, mut rate] = ratios;
        table.add(format!("p50, echo : responder, {name}"), median(&mut wait), "", goal(Goal::AtMost(4.0)));
        table.add(format!("throughput, echo : responder, {name}"), median(&mut rate), "", goal(Goal::AtLeast(0.12)));
        let ([mut plain, mut echo], guest) = (cpu, router::echo_cpu(effort, &body(bytes))?);
        let total = median(&mut echo);
        table.add(format!("CPU of a request over NATS, {name}"), total, "µs", goal(Goal::AtMost(120.0)));
        table.add(format!("of it the guest and its router, {name}"), guest, "µs", Goal::None);
        let some: Vec<Bytes> = (0..REQUESTS).map(|_| requests.next()).collect();
        let (signature, codec) = parts(&some, effort)?;
        table.add(format!("of it the signature, {name}"), signature, "µs", Goal::None);
        table.add(format!("of it the codec, {name}"), codec, "µs", Goal::None);
        let plain = median(&mut plain);
        table.add(format!("of it NATS, as the responder takes, {name}"), plain, "µs", Goal::None);
        let rest = total - guest - signature - codec - plain;
        table.add(format!("of it the rest: event, hand-over, {name}"), rest, "µs", Goal::None);
    }
    Ok(())
}

/// The HTTP request that is echoed, with a body of `bytes`.
fn body(bytes: usize) -> Vec<u8> {
    http_request("/raw", "", &vec![b'x'; bytes])
}

/// Requests of one size, no two of them the same.
struct Requests<'a> {
    signer: &'a Signer,
    key: String,
    body: Vec<u8>,
}

impl Requests<'_> {
    fn next(&self) -> Bytes {
        self.signer.invocation(&self.key, "HttpServer.HandleRequest", &self.body).into()
    }
}

/// Waits until both sides answer, and checks what.
async fn ready(client: &Client, sides: &[(String, u32)], requests: &Requests<'_>) -> Result<(), Box<dyn Error>> {
    let until = Instant::now() + nats::PATIENCE;
    for (subject, _) in sides {
        loop {
            let request = requests.next();
            match client.request(subject.clone(), request.clone()).await {
                Ok(answer) if subject == PLAIN && answer.payload == request => break,
                Ok(answer) if subject != PLAIN && answered(&answer.payload).is_ok() => break,
                other if Instant::now() > until => return Err(format!("{subject} does not answer: {other:?}").into()),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
    Ok(())
}

/// The median wait for one answer, µs.
async fn one_at_a_time(
    client: &Client,
    subject: &str,
    requests: &Requests<'_>,
    count: u32,
) -> Result<f64, Box<dyn Error>> {
    let mut waits = Vec::new();
    for _ in 0..count {
        let request = requests.next();
        let start = Instant::now();
        client.request(subject.to_owned(), request).await?;
        waits.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&mut waits))
}

/// Answers within `time` with [`IN_FLIGHT`] requests under way.
async fn many(client: &Client, subject: &str, requests: &Requests<'_>, time: Duration) -> Result<u64, Box<dyn Error>> {
    let end = Instant::now() + time;
    let ones = (0..IN_FLIGHT).map(async |_| {
        let mut answers = 0;
        while Instant::now() < end {
            client.request(subject.to_owned(), requests.next()).await?;
            answers += 1;
        }
        Ok::<u64, async_nats::RequestError>(answers)
    });
    let mut answers = 0;
    for one in future::join_all(ones).await {
        answers += one?;
    }
    Ok(answers)
}

/// What checking a signature and reading and writing one message each take, µs of processor time.
fn parts(requests: &[Bytes], effort: Effort) -> Result<(f64, f64), Box<dyn Error>> {
    let invocations: Vec<_> = requests.iter().map(|request| Invocation::decode(request)).collect::<Result<_, _>>()?;
    let turns = effort.invocations as usize / requests.len() + 1;
    let (mut signature, mut codec) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        // Each of these takes a token once.
        let keys: Vec<_> = (0..turns).map(|_| AntiForgery::new(nats::cluster(), [])).collect::<Result<_, _>>()?;
        signature.push(spent(turns * requests.len(), || {
            for (keys, invocation) in keys.iter().flat_map(|keys| invocations.iter().map(move |one| (keys, one))) {
                let _ = black_box(keys.check(invocation, Now::from_system(0))?);
            }
            Ok(())
        })?);
        codec.push(spent(turns * requests.len(), || {
            for request in (0..turns).flat_map(|_| requests) {
                let invocation = Invocation::decode(request)?;
                let body = invocation.msg.to_vec();
                black_box(InvocationResponse::success(invocation.id, body).encode()?);
            }
            Ok(())
        })?);
    }
    Ok((median(&mut signature), median(&mut codec)))
}

/// Processor time of one of the `count` things that `work` does, µs.
fn spent(count: usize, work: impl FnOnce() -> latticed::error::Result<()>) -> Result<f64, Box<dyn Error>> {
    let before = process::cpu(std::process::id())?;
    work()?;
    let after = process::cpu(std::process::id())?;
    Ok((after - before).as_secs_f64() * 1e6 / count as f64)
}
