//! Providers that misbehave towards the lattice, or before they are told anything; `mannered.rs` has those that misbehave as
//! processes. What one is to do is the last line of its own file, `#hostile:MODE`: the test that packs it writes it there,
//! since a host tells a provider nothing before stdin, which some of these never read.
//!
//! * `closes-stdin`: closes it unread, and stays.
//! * `never-reads-stdin`: leaves it open unread, and stays.
//! * `forks`: starts fifty children that outlive it, and goes on.
//! * `forges`: calls the actor it is linked to with tokens that are worth nothing.
//! * `eavesdrops`: listens to everybody's calls.
//!
//! What is decent in them (health, shutdown) is spoken by hand: the SDK would keep them from more.

use std::{
    borrow::Cow,
    fs,
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    process::{self, Command, Stdio},
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use latticed::{
    claims::{AntiForgery, KeyPair, Now, Role},
    nats::{Connection, Endpoint, Login, Timing, Tls, connection::Answer},
    task,
    wire::{
        Entity, Invocation, InvocationResponse, codec,
        host_data::HostData,
        subject::{DEFAULT_CONTROL_PREFIX, ProviderTopic, Subjects},
    },
};

/// Children of the one that has too many.
const CHILDREN: usize = 50;

/// How long it waits for an answer to what it forged.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    let mode = mode();
    say(&format!("hostile: {mode}"));
    match mode.as_str() {
        "closes-stdin" => close_stdin(),
        "never-reads-stdin" => sleep_for_ever(),
        _ => {}
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).expect("the host writes its data");
    let data = HostData::from_line(&line).expect("the host writes good data");
    task::run(0, serve(mode, data)).expect("a runtime");
}

/// The last line of this very file.
fn mode() -> String {
    let own = fs::read("/proc/self/exe").expect("its own file can be read");
    let tail = String::from_utf8_lossy(&own[own.len().saturating_sub(64)..]).into_owned();
    tail.rsplit_once("#hostile:").map(|(_, mode)| mode.trim().to_owned()).expect("the file ends in #hostile:MODE")
}

fn say(text: &str) {
    // Whoever reads it may be gone.
    let _ = writeln!(io::stdout(), "{text}");
}

fn sleep_for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}

/// The pipe's only reader goes when another program, which reads from elsewhere, takes this one's place.
fn close_stdin() -> ! {
    let error = Command::new("sleep").arg("3600").stdin(Stdio::null()).exec();
    panic!("sleep is not to be had: {error}");
}

async fn serve(mode: String, data: HostData) {
    let login = Login::from_jwt_and_seed(&data.lattice_rpc_user_jwt, &data.lattice_rpc_user_seed).expect("a login");
    let endpoint = Endpoint::parse(&data.lattice_rpc_url, 4222, login, Tls::default()).expect("a server");
    let connection =
        Connection::open("mischief", &endpoint, &Timing::default(), &data.provider_key).await.expect("it begins");
    connection.connected().await;
    let subjects = Subjects::new(DEFAULT_CONTROL_PREFIX, &data.lattice_rpc_prefix).expect("a lattice");
    let topic = |topic| subjects.provider_topic(&data.provider_key, &data.link_name, topic);
    let mut shutdown = connection.subscribe(topic(ProviderTopic::Shutdown), None).await.expect("it is heard");
    let mut health = connection.subscribe(topic(ProviderTopic::Health), None).await.expect("it is heard");
    let misbehaving = misbehave(&mode, &connection, &subjects, &data);
    let ending = async {
        while let Some(message) = shutdown.next().await {
            let Some(reply) = message.reply else { continue };
            let _ = connection.publish(reply.to_string(), &b"shutting down"[..]).await;
            connection.flush().await;
            process::exit(0);
        }
    };
    let answering = async {
        while let Some(message) = health.next().await {
            let healthy = rmp_serde::to_vec_named(&serde_json::json!({ "healthy": true }));
            if let (Some(reply), Ok(body)) = (message.reply, healthy) {
                let _ = connection.publish(reply.to_string(), body).await;
            }
        }
    };
    futures_util::join!(misbehaving, ending, answering);
}

async fn misbehave(mode: &str, connection: &Connection, subjects: &Subjects, data: &HostData) {
    match mode {
        "forks" => {
            let mut children = Vec::new();
            for _ in 0..CHILDREN {
                match Command::new("sleep").arg("3600").stdin(Stdio::null()).spawn() {
                    Ok(child) => children.push(child.id()),
                    Err(error) => {
                        say(&format!("no more children: {error}"));
                        break;
                    }
                }
            }
            say(&format!("children: {}", children.len()));
        }
        "forges" => forge(connection, subjects, data).await,
        "eavesdrops" => {
            let everything = format!("wasmbus.rpc.{}.>", subjects.lattice());
            let mut heard = connection.subscribe(everything, None).await.expect("it is asked for");
            say("listening to everybody");
            let own = subjects.provider(&data.provider_key, &data.link_name);
            while let Some(message) = heard.next().await {
                if !message.subject.starts_with(&own) {
                    say(&format!("overheard {}", message.subject));
                }
            }
        }
        _ => {}
    }
}

/// Calls the first linked actor with tokens that are not worth anything, and says what came of it.
async fn forge(connection: &Connection, subjects: &Subjects, data: &HostData) {
    let Some(link) = data.link_definitions.first() else { return say("nobody to forge for") };
    let body = codec::encode(
        &serde_json::json!({ "method": "GET", "path": "/", "queryString": "", "header": {}, "body": "" }),
    )
    .expect("it can be written");
    let honest =
        AntiForgery::new(KeyPair::from_seed(&data.invocation_seed).expect("a seed"), []).expect("a cluster key");
    let stranger = AntiForgery::new(KeyPair::from_name(Role::Cluster, "stranger"), []).expect("a cluster key");
    for kind in ["stranger's signature", "other body", "other actor", "no token"] {
        let mut invocation = Invocation {
            origin: Entity::provider(&data.provider_key, &link.contract_id, &data.link_name),
            target: Entity::actor(&link.actor_id),
            operation: "HttpServer.HandleRequest".into(),
            msg: Cow::Borrowed(&body),
            id: format!("forged {kind}"),
            host_id: data.host_id.clone(),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        };
        let signer = if kind == "stranger's signature" { &stranger } else { &honest };
        invocation.encoded_claims = signer.sign(&invocation, &body, Now::from_system(0)).expect("it is signed");
        match kind {
            "other body" => invocation.msg = Cow::Borrowed(b"\x80"),
            "other actor" => {
                invocation.origin = Entity::actor(KeyPair::from_name(Role::Module, "x").public_key().to_string())
            }
            "no token" => invocation.encoded_claims.clear(),
            _ => {}
        }
        let request = invocation.encode().expect("it can be written");
        let outcome = match connection.request(subjects.actor(&link.actor_id), None, request, PATIENCE).await {
            Ok(Answer::Message(message)) => match InvocationResponse::decode(&message.payload) {
                Ok(InvocationResponse { error: Some(error), .. }) => format!("refused: {error}"),
                Ok(_) => "ACCEPTED".to_owned(),
                Err(error) => error.to_string(),
            },
            other => format!("{other:?}"),
        };
        say(&format!("forged with {kind}: {outcome}"));
    }
}
