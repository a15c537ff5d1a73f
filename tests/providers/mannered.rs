//! A provider whose manners a test chooses by its start configuration, on the bare protocol: it uses no SDK, so that what a
//! host does is not judged by code of the same hand.
//!
//! It serves `KeyValue.Increment` from memory, and `Test.*` operations that tell what it was given and what it may do.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::Write,
    process::{Command, exit},
    time::Duration,
};

use futures_util::StreamExt;
use latticed::{
    claims::{AntiForgery, KeyPair, Now},
    wire::{Entity, Invocation, InvocationResponse, LinkDefinition, host_data::HostData, interface::IncrementRequest},
};
use serde::Deserialize;

/// How it behaves. Everything is off without a word.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Manners {
    /// End with this status at once.
    exit: Option<i32>,
    /// End itself by this signal once it is ready.
    signal: Option<i32>,
    /// Never answer a probe.
    mute: bool,
    /// Say that it is not well.
    ill: bool,
    /// Neither answer a shutdown nor end on SIGTERM.
    stubborn: bool,
    /// Answer a shutdown, and stay.
    liar: bool,
    /// Start a child that starts one in a session of its own, and leave both.
    children: bool,
    /// Print without end.
    flood: bool,
    /// Wait before anything else, milliseconds.
    slow: u64,
}

fn main() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("host data on standard input");
    let data = HostData::from_line(&line).expect("host data");
    let manners: Manners = match data.config_json.as_deref() {
        Some(text) => serde_json::from_str(text).expect("manners as configuration"),
        None => Manners::default(),
    };
    if let Some(status) = manners.exit {
        eprintln!("leaving with {status}");
        exit(status);
    }
    std::thread::sleep(Duration::from_millis(manners.slow));
    if manners.children {
        // The inner one leaves session and process group, and is an orphan at once.
        let child = Command::new("sh").args(["-c", "(setsid sleep 1000 &); sleep 1000; true"]).spawn();
        let mut child = child.expect("a child can be started");
        std::thread::spawn(move || child.wait());
    }
    if manners.flood {
        std::thread::spawn(|| {
            let line = format!("{}\n", "flood ".repeat(40));
            while std::io::stdout().write_all(line.as_bytes()).is_ok() {}
        });
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(serve(data, manners));
}

async fn connect(data: &HostData) -> async_nats::Client {
    let url = data.lattice_rpc_url.clone();
    if data.lattice_rpc_user_jwt.is_empty() {
        return async_nats::connect(url).await.expect("NATS");
    }
    let key = KeyPair::from_seed(&data.lattice_rpc_user_seed).expect("a seed");
    let sign = move |nonce: Vec<u8>| {
        let signature = key.sign(&nonce).to_vec();
        async move { Ok(signature) }
    };
    let options = async_nats::ConnectOptions::with_jwt(data.lattice_rpc_user_jwt.clone(), sign);
    options.connect(url).await.expect("NATS with a minted login")
}

async fn serve(data: HostData, manners: Manners) {
    let nats = connect(&data).await;
    let base = format!("wasmbus.rpc.{}.{}.{}", data.lattice_rpc_prefix, data.provider_key, data.link_name);
    let mut links: HashMap<String, LinkDefinition> =
        data.link_definitions.iter().map(|link| (link.actor_id.clone(), link.clone())).collect();
    let mut counters: HashMap<String, i32> = HashMap::new();
    let signer =
        AntiForgery::new(KeyPair::from_seed(&data.invocation_seed).expect("a seed"), data.cluster_issuers.clone())
            .expect("cluster keys");
    let mut calls = nats.queue_subscribe(base.clone(), "rpc".to_owned()).await.expect("calls");
    let mut puts = nats.subscribe(format!("{base}.linkdefs.put")).await.expect("links");
    let mut deletes = nats.subscribe(format!("{base}.linkdefs.del")).await.expect("links");
    let mut shutdowns = nats.subscribe(format!("{base}.shutdown")).await.expect("shutdown");
    let mut probes = nats.subscribe(format!("{base}.health")).await.expect("health");
    nats.flush().await.expect("NATS");
    eprintln!("\u{1b}[33m WARN\u{1b}[0m ready with {} links", links.len());
    if manners.stubborn {
        // A shell may ignore a signal without any unsafe code here; so the signal is left to a handler that does nothing.
        tokio::spawn(async {
            let mut signals = async_signal::Signals::new([async_signal::Signal::Term]).expect("signals");
            while signals.next().await.is_some() {}
        });
    }
    if let Some(signal) = manners.signal {
        Command::new("sh").args(["-c", &format!("kill -{signal} $PPID")]).status().expect("a shell");
    }
    loop {
        tokio::select! {
            Some(probe) = probes.next() => {
                if manners.mute { continue }
                let mut health = BTreeMap::from([("healthy".to_owned(), serde_json::Value::from(!manners.ill))]);
                if manners.ill { health.insert("message".to_owned(), "a test wants it so".into()); }
                let body = rmp_serde::to_vec_named(&health).expect("health");
                if let Some(reply) = probe.reply { nats.publish(reply, body.into()).await.expect("NATS"); }
            }
            Some(put) = puts.next() => {
                let link: LinkDefinition = rmp_serde::from_slice(&put.payload).expect("a link");
                // As the SDKs do: one that is there is not changed.
                links.entry(link.actor_id.clone()).or_insert(link);
            }
            Some(delete) = deletes.next() => {
                let link: LinkDefinition = rmp_serde::from_slice(&delete.payload).expect("a link");
                links.remove(&link.actor_id);
            }
            Some(shutdown) = shutdowns.next() => {
                let asked: BTreeMap<String, String> = serde_json::from_slice(&shutdown.payload).unwrap_or_default();
                if manners.stubborn || asked.get("host_id") != Some(&data.host_id) { continue }
                if let Some(reply) = shutdown.reply {
                    nats.publish(reply, "shutting down".into()).await.expect("NATS");
                    nats.flush().await.expect("NATS");
                    if !manners.liar {
                        eprintln!("ended in order");
                        exit(0);
                    }
                }
            }
            Some(call) = calls.next() => {
                let invocation = Invocation::decode(&call.payload).expect("an invocation");
                let answer = match check(&signer, &links, &invocation) {
                    Ok(()) => answer(&nats, &data, &links, &mut counters, &signer, &invocation).await,
                    Err(refusal) => Err(refusal),
                };
                let id = invocation.id.clone();
                let response = match answer {
                    Ok(body) => InvocationResponse::success(id, body),
                    Err(text) => InvocationResponse::failure(id, text),
                };
                if let Some(reply) = call.reply {
                    nats.publish(reply, response.encode().expect("a response").into()).await.expect("NATS");
                }
            }
        }
    }
}

fn check(
    signer: &AntiForgery,
    links: &HashMap<String, LinkDefinition>,
    invocation: &Invocation<'_>,
) -> Result<(), String> {
    signer.check(invocation, Now::from_system(0)).map(drop).map_err(|error| error.text().to_owned())?;
    let actor = &invocation.origin.public_key;
    if links.contains_key(actor) { Ok(()) } else { Err(format!("unlinked actor: '{actor}'")) }
}

async fn answer(
    nats: &async_nats::Client,
    data: &HostData,
    links: &HashMap<String, LinkDefinition>,
    counters: &mut HashMap<String, i32>,
    signer: &AntiForgery,
    invocation: &Invocation<'_>,
) -> Result<Vec<u8>, String> {
    let json = |value: serde_json::Value| Ok(value.to_string().into_bytes());
    let text = String::from_utf8_lossy(&invocation.msg).into_owned();
    match invocation.operation.as_str() {
        "KeyValue.Increment" => {
            let request: IncrementRequest =
                rmp_serde::from_slice(&invocation.msg).map_err(|error| error.to_string())?;
            let counter = counters.entry(request.key).or_default();
            *counter += request.value;
            Ok(rmp_serde::to_vec(counter).expect("a number"))
        }
        // Everything it sees of the world it was put into.
        "Test.Place" => json(serde_json::json!({
            "process": std::process::id(),
            "environment": std::env::vars().collect::<BTreeMap<_, _>>(),
            "arguments": std::env::args().collect::<Vec<_>>(),
            "directory": std::env::current_dir().ok(),
            "descriptors": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            "status": std::fs::read_to_string("/proc/self/status").unwrap_or_default(),
            "limits": std::fs::read_to_string("/proc/self/limits").unwrap_or_default(),
            "stat": std::fs::read_to_string("/proc/self/stat").unwrap_or_default(),
            "cgroup": std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            "instance": data.instance_id,
            "link": links.get(&invocation.origin.public_key),
        })),
        "Test.Read" => std::fs::read(&text).map_err(|error| error.to_string()),
        "Test.Write" => std::fs::write(&text, b"x").map(|()| Vec::new()).map_err(|error| error.to_string()),
        "Test.Execute" => {
            let output = Command::new("sh").args(["-c", &text]).output().map_err(|error| error.to_string())?;
            Ok([output.stdout, output.stderr].concat())
        }
        // Asks the admin socket of the host that runs it how it is.
        "Test.Manage" => manage(&text).map_err(|error| error.to_string()),
        // Takes so many bytes, and gives them back.
        "Test.Allocate" => {
            let bytes = text.parse().map_err(|_| "a number of bytes")?;
            Vec::<u8>::new().try_reserve_exact(bytes).map(|()| Vec::new()).map_err(|error| error.to_string())
        }
        // Opens so many files at once.
        "Test.Open" => {
            let count = text.parse::<usize>().map_err(|_| "a number of files")?;
            let files: Result<Vec<_>, _> = (0..count).map(|_| std::fs::File::open("/dev/null")).collect();
            files.map(|_| Vec::new()).map_err(|error| error.to_string())
        }
        // Says something where it may not, and tells what the server thought of it.
        "Test.Publish" => {
            nats.publish(text, "forged".into()).await.map_err(|error| error.to_string())?;
            nats.flush().await.map_err(|error| error.to_string())?;
            Ok(Vec::new())
        }
        "Test.Listen" => {
            let mut messages = nats.subscribe(text).await.map_err(|error| error.to_string())?;
            nats.flush().await.map_err(|error| error.to_string())?;
            let heard = tokio::time::timeout(Duration::from_millis(1500), messages.next()).await;
            match heard {
                Ok(Some(message)) => Ok(message.payload.to_vec()),
                _ => Err("heard nothing".to_owned()),
            }
        }
        // Calls the actor that calls it.
        "Test.CallBack" => {
            let mut call = Invocation {
                origin: Entity::provider(&data.provider_key, &invocation.target.contract_id, &data.link_name),
                target: Entity::actor(&text),
                operation: "HttpServer.HandleRequest".into(),
                msg: Cow::Owned(
                    rmp_serde::to_vec_named(&latticed::wire::interface::HttpRequest {
                        method: "GET".into(),
                        path: "/".into(),
                        ..Default::default()
                    })
                    .expect("a request"),
                ),
                id: "0123456789abcdef0123456789abcdef".into(),
                host_id: data.host_id.clone(),
                ..Invocation::default()
            };
            call.content_length = Some(call.msg.len() as u64);
            let body = call.msg.to_vec();
            call.encoded_claims =
                signer.sign(&call, &body, Now::from_system(0)).map_err(|error| error.text().to_owned())?;
            let subject = format!("wasmbus.rpc.{}.{text}", data.lattice_rpc_prefix);
            let answer = nats
                .request(subject, call.encode().expect("encoded").into())
                .await
                .map_err(|error| error.to_string())?;
            let response = InvocationResponse::decode(&answer.payload).map_err(|error| error.to_string())?;
            match response.error {
                Some(error) => Err(error),
                None => Ok(response.msg.into_owned()),
            }
        }
        other => Err(format!("method not handled {other}")),
    }
}

fn manage(socket: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
    stream.write_all(b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut answer)?;
    Ok(answer)
}
