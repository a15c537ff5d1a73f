//! Providers as processes of a real host on a real NATS server: started from signed archives, linked, called, watched, ended.

mod support;

use std::time::Duration;

use futures_util::StreamExt;
use latticed::{provider::credentials, wire::interface::KEY_VALUE};
use serde_json::{Value, json};
use support::{
    guests,
    host::Sandbox,
    nats::{self, NatsServer, PATIENCE, block_on, connect, eventually},
    provider, published,
    redis::RedisServer,
    stage::{Stage, actor, descendants, lives},
};

#[test]
fn an_archive_becomes_a_linked_process_that_answers_and_ends_in_order() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.put_link("kv", json!({ "URL": "one" })).await;
        let reference = stage.launch("kv", json!({})).await;
        let started = stage.event("provider_started").await;
        assert_eq!(started["image_ref"], reference);
        assert_eq!(started["public_key"], provider::key("kv"));
        assert_eq!((&started["claims"]["name"], &started["claims"]["version"]), (&json!("kv"), &json!("0.3.0")));
        assert_eq!(started["claims"]["issuer"], guests::account().public_key().to_string());
        let well = stage.event("health_check_passed").await;
        assert_eq!((&well["public_key"], &well["contract_id"]), (&json!(provider::key("kv")), &json!(KEY_VALUE)));
        assert_eq!(stage.increment("kv").await, Ok(1));
        assert_eq!(stage.increment("kv").await, Ok(2));
        let place = stage.place("kv").await;
        assert_eq!(place["link"]["values"]["URL"], "one");
        assert_eq!(place["instance"], started["instance_id"]);

        // A changed link is taken away and given anew; a deleted one is gone.
        stage.put_link("kv", json!({ "URL": "two" })).await;
        stage.place_where("kv", |place| place["link"]["values"]["URL"] == "two").await;
        stage.delete_link().await;
        eventually("the link is gone", || stage.host().status().links.is_empty());
        let refused = async {
            loop {
                match stage.increment("kv").await {
                    Err(text) => return text,
                    Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        assert_eq!(refused.await, format!("unlinked actor: '{}'", actor()));

        let inventory = stage.ask(format!("wasmbus.ctl.default.get.{}.inv", stage.host_id), json!({})).await;
        let listed = &inventory["providers"][0];
        assert_eq!(
            (&listed["name"], &listed["revision"], &listed["image_ref"]),
            (&json!("kv"), &json!(3), &json!(reference))
        );
        assert_eq!(listed["instance_id"], started["instance_id"]);
        let claims = stage.ask("wasmbus.ctl.default.get.claims".into(), json!({})).await;
        let record =
            claims["claims"].as_array().and_then(|all| all.iter().find(|one| one["sub"] == provider::key("kv")));
        assert_eq!(
            record.map(|record| (&record["contract_id"], &record["iss"])),
            Some((&json!(KEY_VALUE), &started["claims"]["issuer"]))
        );
        let twice = stage.command("lp", json!({ "provider_ref": reference, "link_name": "default" })).await;
        assert_eq!(twice["error"], "Provider with that link name is already running on this host");

        let process = place["process"].as_u64().expect("a number");
        assert!(lives(process));
        stage.stop("kv").await;
        let stopped = stage.event("provider_stopped").await;
        assert_eq!(stopped["instance_id"], started["instance_id"]);
        assert!(!lives(process));
        let output = stage.host().output();
        assert!(output.contains("ended in order") && output.contains("ready with 1 links"), "{output}");
        assert_eq!(stage.provider_state("kv"), "absent");
    });
}

/// A host that was killed with -9 leaves neither the provider nor what that started, in whatever session.
#[test]
fn a_killed_host_leaves_nothing_behind() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.launch("parent", json!({ "children": true })).await;
        stage.event("health_check_passed").await;
        let host = stage.host().pid();
        let mut below = Vec::new();
        // Supervisor, provider, shell, its sleeper, and an orphan in a session of its own.
        eventually("all children are there", || {
            below = descendants(host);
            below.len() >= 5
        });
        stage.host.take().expect("it runs").kill();
        eventually("everything below the host is gone", || below.iter().all(|process| !lives(*process)));
    });
}

/// The same when the provider is stopped in order, and when it dies while its children live.
#[test]
fn what_a_provider_started_ends_with_it() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RESTARTS", "0")]).await;
        for manners in [json!({ "children": true }), json!({ "children": true, "signal": 9 })] {
            stage.launch("parent", manners.clone()).await;
            stage.event("provider_started").await;
            let host = stage.host().pid();
            if manners["signal"].is_null() {
                stage.event("health_check_passed").await;
                eventually("all children are there", || descendants(host).len() >= 5);
                stage.stop("parent").await;
            }
            let stopped = stage.event("provider_stopped").await;
            let reason = stopped["reason"].as_str().expect("a reason");
            assert_eq!(reason == "was ended by signal 9 (SIGKILL)", !manners["signal"].is_null(), "{reason}");
            eventually("nothing is left", || descendants(host).is_empty());
        }
    });
}

/// Serves `content` over HTTP to whoever asks, one after the other, as long as the gate is not locked.
struct Archives {
    address: std::net::SocketAddr,
    gate: std::sync::Arc<smol::lock::Mutex<()>>,
}

impl Archives {
    fn of(content: Vec<u8>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, gate) = (listener.local_addr().expect("it is bound"), std::sync::Arc::default());
        let served = Self { address, gate: std::sync::Arc::clone(&gate) };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _open = gate.lock_blocking();
                let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", content.len());
                let _ = std::io::Write::write_all(&mut stream, &[head.as_bytes(), &content].concat());
            }
        });
        served
    }
}

/// Nothing of a provider is on the board any more and its source hangs: that is its trouble alone.
#[test]
fn an_archive_that_is_lost_and_does_not_come_holds_up_nobody_else() {
    block_on(async {
        let allow = [("WASMCLOUD_REMOTE_FETCH_ALLOW", "127.0.0.1")];
        let mut stage = Stage::start(&allow).await;
        let binary = provider::stripped(provider::mannered());
        let archive = provider::archive("far", KEY_VALUE, &binary);
        let digest = latticed::store::Digest::of(&archive);
        let archives = Archives::of(archive);
        let reference = format!("http://{}/far.par.gz#sha256={digest}", archives.address);
        let ack = stage.command("lp", json!({ "provider_ref": reference, "link_name": "default" })).await;
        assert_eq!(ack["accepted"], true, "{ack}");
        stage.event("provider_started").await;
        stage.host.take().expect("it runs").kill();
        for lost in ["state/providers/bin", "state/blobs"] {
            std::fs::remove_dir_all(stage.sandbox.path(lost)).expect("it is there");
        }
        let locked = archives.gate.lock().await;
        stage.start_host(&allow).await;
        eventually("it is said what is missing", || {
            stage.host().status().problems.iter().any(|problem| problem.contains("is being fetched again"))
        });
        let start = std::time::Instant::now();
        stage.launch("near", json!({})).await;
        let started = stage.event("provider_started").await;
        assert_eq!(started["public_key"], provider::key("near"));
        // A source that is silent is given up after thirty.
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}: {}", start.elapsed(), stage.host().output());
        drop(locked);
        let started = stage.event("provider_started").await;
        assert_eq!(started["public_key"], provider::key("far"));
        eventually("nothing is missing", || stage.host().status().problems.is_empty());
    });
}

/// What it keeps in its directory is there for the next start, and goes when there is none before the host's own.
#[test]
fn a_working_directory_goes_after_its_provider_was_stopped_for_good() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        let place = stage.linked("keeper").await["directory"].as_str().expect("a path").to_owned();
        let run = std::path::Path::new(&place).parent().expect("a folder").to_owned();
        let listed = || std::fs::read_dir(&run).expect("it is there").count();
        let file = format!("{place}/file");
        stage.stop("keeper").await;
        stage.event("provider_stopped").await;
        eventually("an empty directory is removed", || listed() == 0);
        stage.linked("keeper").await;
        stage.call("keeper", "Test.Write", file.as_bytes()).await.expect("it may write there");
        stage.stop("keeper").await;
        stage.event("provider_stopped").await;
        stage.linked("keeper").await;
        stage.call("keeper", "Test.Read", file.as_bytes()).await.expect("the file is still there");
        stage.stop("keeper").await;
        stage.event("provider_stopped").await;
        eventually("it is set aside", || !std::path::Path::new(&place).exists());
        assert_eq!(listed(), 1);
        stage.host.take().expect("it runs").kill();
        stage.start_host(&[]).await;
        eventually("it is removed", || listed() == 0);
    });
}

/// Neither a supervisor that is killed nor one that hangs lets anything below it get away: the host adopts it.
#[test]
fn what_a_provider_started_ends_when_its_supervisor_fails() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RESTARTS", "0")]).await;
        let signal = |process: u64, signal: &str| {
            let outcome = std::process::Command::new("kill").args([signal, &process.to_string()]).status();
            assert!(outcome.expect("kill is installed").success());
        };
        for (name, sent) in [("killed", "-KILL"), ("held", "-STOP")] {
            stage.launch(name, json!({ "children": true })).await;
            stage.event("health_check_passed").await;
            let host = stage.host().pid();
            let mut below = Vec::new();
            eventually("all children are there", || {
                below = descendants(host);
                below.len() >= 5
            });
            // The first below the host.
            signal(below[0], sent);
            if sent == "-STOP" {
                stage.stop(name).await;
            }
            let stopped = stage.event("provider_stopped").await;
            assert_eq!(stopped["public_key"], provider::key(name));
            assert!(below.iter().all(|process| !lives(*process)), "{}", stage.host().output());
            assert_eq!(descendants(host), Vec::<u64>::new());
        }
    });
}

#[test]
fn an_unexpected_end_is_told_and_followed_by_new_starts_up_to_a_limit() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RESTARTS", "1")]).await;
        let reference = stage.launch("fragile", json!({ "signal": 6 })).await;
        for _ in 0..2 {
            stage.event("provider_started").await;
            let stopped = stage.event("provider_stopped").await;
            assert_eq!(stopped["reason"], "was ended by signal 6 (SIGABRT)");
        }
        eventually("it is given up", || stage.provider_state("fragile").contains("given up after 2 short lives"));
        assert!(stage.host().status().problems.iter().any(|problem| problem.contains("SIGABRT")));
        let inventory = stage.ask(format!("wasmbus.ctl.default.get.{}.inv", stage.host_id), json!({})).await;
        assert_eq!(inventory["providers"], json!([]));
        // Other changes do not bring it back; the command that started it does.
        stage.put_link("fragile", json!({})).await;
        assert!(stage.provider_state("fragile").contains("given up"));
        let again = stage.command("lp", json!({ "provider_ref": reference, "link_name": "default" })).await;
        assert_eq!(again["accepted"], true, "{again}");
        stage.event("provider_started").await;
    });
}

#[test]
fn a_status_is_told_and_nothing_is_started_again_where_that_is_switched_off() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_RESTARTS", "0")]).await;
        stage.launch("brief", json!({ "exit": 3 })).await;
        stage.event("provider_started").await;
        assert_eq!(stage.event("provider_stopped").await["reason"], "exited with status 3");
        eventually("it stays away", || stage.provider_state("brief").contains("it is not started again"));
        assert!(stage.host().output().contains("leaving with 3"), "{}", stage.host().output());
    });
}

#[test]
fn who_does_not_end_when_asked_is_made_to() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        for manners in [json!({ "liar": true }), json!({ "stubborn": true })] {
            stage.launch("unwilling", manners).await;
            stage.event("health_check_passed").await;
            let host = stage.host().pid();
            assert_eq!(descendants(host).len(), 2);
            stage.stop("unwilling").await;
            let stopped = stage.event("provider_stopped").await;
            assert_eq!(stopped["public_key"], provider::key("unwilling"));
            assert_eq!(descendants(host), Vec::<u64>::new());
        }
        assert!(stage.host().output().contains("did not end when asked and is killed"));
    });
}

#[test]
fn who_is_given_long_to_end_is_killed_all_the_same() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROV_SHUTDOWN_DELAY_MS", "7000")]).await;
        stage.launch("patient", json!({ "stubborn": true })).await;
        stage.event("health_check_passed").await;
        let host = stage.host().pid();
        stage.stop("patient").await;
        let stopped = stage.event("provider_stopped").await;
        assert_eq!(stopped["reason"], "no longer wanted");
        assert_eq!(descendants(host), Vec::<u64>::new());
        assert!(stage.host().output().contains("did not end when asked and is killed"));
    });
}

/// A monitor listens to everything, so the server never says that nobody hears a probe.
#[test]
fn a_provider_that_starts_slowly_is_asked_again_soon_though_a_monitor_hears_every_probe() {
    block_on(async {
        let mut stage = Stage::start(&[("WASMCLOUD_PROVIDER_FIRST_PROBE_MS", "60000")]).await;
        let mut monitor = stage.nats.subscribe("wasmbus.rpc.>".into()).await.expect("it can listen");
        stage.nats.flush().await.expect("the server answers");
        stage.put_link("slow", json!({})).await;
        stage.launch("slow", json!({ "slow": 1500 })).await;
        let probes = format!("wasmbus.rpc.default.{}.default.health", provider::key("slow"));
        let mut asked: Vec<std::time::Instant> = Vec::new();
        let gather = async {
            while let Some(message) = monitor.next().await {
                if message.subject == probes {
                    asked.push(std::time::Instant::now());
                }
            }
        };
        tokio::select! {
            _ = stage.event("health_check_passed") => {}
            () = gather => panic!("the subscription ended"),
        }
        // A probe that waits for its whole time takes two seconds; a busy machine makes some gaps longer, not all of them.
        let shortest = asked.windows(2).map(|pair| pair[1] - pair[0]).min();
        assert!(shortest.is_some_and(|gap| gap < Duration::from_secs(1)), "{shortest:?} of {} probes", asked.len());
    });
}

#[test]
fn silence_counts_as_death_and_a_complaint_does_not() {
    block_on(async {
        let quick = [("WASMCLOUD_PROVIDER_FIRST_PROBE_MS", "300"), ("WASMCLOUD_PROVIDER_PROBE_MS", "200")];
        let mut stage = Stage::start(&quick).await;
        stage.launch("ill", json!({ "ill": true })).await;
        stage.event("health_check_failed").await;
        eventually("its complaint is shown", || stage.provider_state("ill").contains("a test wants it so"));
        for _ in 0..5 {
            stage.event("health_check_status").await;
        }
        stage.launch("mute", json!({ "mute": true })).await;
        let stopped = stage.event("provider_stopped").await;
        assert_eq!(stopped["public_key"], provider::key("mute"));
        assert!(stopped["reason"].as_str().is_some_and(|reason| reason.contains("does not answer")), "{stopped}");
        assert!(stage.provider_state("ill").starts_with("running"));
    });
}

#[test]
fn a_flood_is_bounded_and_named_and_stops_nobody() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.launch("flooder", json!({ "flood": true })).await;
        stage.launch("calm", json!({})).await;
        stage.put_link("calm", json!({})).await;
        stage.place_where("calm", |_| true).await;
        eventually("the flood is cut", || {
            stage.host().output().lines().filter(|line| line.contains("flood flood")).count() >= 200
        });
        let before = stage.host().output().len();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let grown = stage.host().output().len() - before;
        assert!(grown < 1_000_000, "{grown} bytes of log within two seconds");
        let output = stage.host().output();
        let line = output.lines().find(|line| line.contains("flood flood")).expect("it floods");
        assert!(line.contains(&provider::key("flooder")[..4]) && line.contains("flooder"), "{line}");
        assert_eq!(stage.increment("calm").await, Ok(1));
        assert!(stage.event("provider_started").await.is_object());
    });
}

#[test]
fn a_provider_sees_its_own_place_and_no_secret() {
    block_on(async {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (given, hidden) = (folder.path().join("given"), folder.path().join("hidden"));
        std::fs::write(&given, "open").expect("written");
        std::fs::write(&hidden, "closed").expect("written");
        let rules = format!("{}:read={}", provider::key("guest"), given.display());
        let seed = latticed::claims::KeyPair::from_name(latticed::claims::Role::User, "x").seed().expose().to_owned();
        let mut stage = Stage::start(&[
            ("WASMCLOUD_PROVIDER_RULES", &rules),
            ("WASMCLOUD_PROVIDER_ENV_DENY", "DENIED_*"),
            ("DENIED_BY_RULE", "x"),
            ("AWS_ACCESS_KEY_ID", "passes"),
            ("MY_SEED", "hidden"),
            ("INNOCENT", &seed),
            ("NOTIFY_SOCKET", "/nowhere"),
        ])
        .await;
        stage.put_link("guest", json!({})).await;
        stage.launch("guest", json!({})).await;
        stage.event("health_check_passed").await;
        let place = stage.place("guest").await;
        let environment = place["environment"].as_object().expect("a map");
        assert_eq!(environment["AWS_ACCESS_KEY_ID"], "passes");
        for name in ["DENIED_BY_RULE", "MY_SEED", "INNOCENT", "NOTIFY_SOCKET", "WASMCLOUD_CLUSTER_SEED"] {
            assert!(!environment.contains_key(name), "{name}");
        }
        assert_eq!(place["arguments"].as_array().map(Vec::len), Some(1));
        let own = place["directory"].as_str().expect("a path");
        assert!(own.contains(&provider::key("guest")) && environment["HOME"] == own, "{own}");

        // Nothing that `ps` or /proc shows of any process of the host's holds a seed.
        let cluster = nats::cluster().seed().expose().to_owned();
        let below = descendants(stage.host().pid());
        assert_eq!(below.len(), 2);
        for process in &below {
            for file in ["environ", "cmdline"] {
                let shown = std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
                let shown = String::from_utf8_lossy(&shown);
                assert!(!shown.contains(&cluster) && !shown.contains("invocation_seed"), "{process} {file}: {shown}");
            }
        }

        let status = place["status"].as_str().expect("text");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let limits = place["limits"].as_str().expect("text");
        let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).expect(name).to_owned();
        assert!(limit("Max open files").contains("4096"), "{limits}");
        assert!(limit("Max data size").contains(&(512 << 20).to_string()), "{limits}");
        assert!(limit("Max core file size").split_whitespace().any(|word| word == "0"), "{limits}");
        let stat = place["stat"].as_str().and_then(|stat| stat.rsplit_once(") ")).expect("a stat").1;
        let fields: Vec<&str> = stat.split(' ').collect();
        let process = place["process"].as_u64().expect("a number").to_string();
        assert_eq!((fields[2], fields[3]), (process.as_str(), process.as_str()), "own group and session");
        let detail = stage.host().status().providers[0].detail.clone();
        assert!(detail.contains(&process) && detail.contains("no new privileges"), "{detail}");

        let read = async |path: &str| stage.call("guest", "Test.Read", path.as_bytes()).await;
        let write = async |path: &str| stage.call("guest", "Test.Write", path.as_bytes()).await;
        assert_eq!(write(&format!("{own}/file")).await, Ok(Vec::new()));
        assert_eq!(read(&given.display().to_string()).await, Ok(b"open".to_vec()));
        assert!(read("/etc/resolv.conf").await.is_ok() && read("/etc/hosts").await.is_ok());
        assert!(detail.contains("Landlock"), "this test needs a kernel with Landlock: {detail}");
        let state = stage.sandbox.path("state").display().to_string();
        for closed in [hidden.display().to_string(), "/etc/shadow".into()] {
            assert!(read(&closed).await.is_err(), "{closed}");
        }
        for closed in
            [format!("{state}/x"), given.display().to_string(), "/tmp/x".into(), format!("{state}/providers/bin/x")]
        {
            assert!(write(&closed).await.is_err(), "{closed}");
        }
        // What it writes it cannot execute, and what is outside it cannot end.
        let script = format!(
            "cp /bin/true {own}/program; chmod +x {own}/program; {own}/program && echo ran; kill -9 {} && echo killed",
            stage.host().pid()
        );
        let said = stage.call("guest", "Test.Execute", script.as_bytes()).await.expect("a shell");
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains("ran") && !said.contains("killed"), "{said}");
    });
}

/// What it may use is counted by the kernel: more is refused to it, and it goes on.
#[test]
fn a_provider_gets_no_more_than_its_limits() {
    block_on(async {
        // The kernel counts no processes of root's.
        let sandbox = Sandbox::of_nobody(env!("CARGO_BIN_EXE_latticed"));
        let key = provider::key("greedy");
        let rules = format!("{key}:memory=64M,{key}:files=64,{key}:processes=64");
        let mut stage = Stage::of(sandbox, &[("WASMCLOUD_PROVIDER_RULES", &rules)]).await;
        stage.linked("greedy").await;
        let ask = async |operation: &str, body: &str| stage.call("greedy", operation, body.as_bytes()).await;
        for (operation, enough, too_much, refusal) in
            [("Test.Allocate", "16000000", "128000000", "memory"), ("Test.Open", "16", "64", "Too many open files")]
        {
            assert_eq!(ask(operation, enough).await, Ok(Vec::new()), "{operation}");
            let refused = ask(operation, too_much).await;
            assert!(refused.as_ref().is_err_and(|text| text.contains(refusal)), "{operation}: {refused:?}");
        }
        // More processes than it may have end it, with all of them, and it is started again.
        let forks = ask("Test.Execute", "for i in $(seq 80); do sleep 60 & done; wait");
        let _ended_before_it_answers = tokio::time::timeout(Duration::from_secs(5), forks).await;
        eventually("it is ended", || stage.host().output().contains("and may have 64"));
        let begun = std::time::Instant::now();
        while stage.increment("greedy").await.is_err() {
            assert!(begun.elapsed() < PATIENCE, "it is not started again: {}", stage.host().output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

/// A service manager or a shell may leave descriptors open for the host; they are none of a provider's business.
#[test]
fn what_was_left_open_for_the_host_does_not_reach_a_provider() {
    block_on(async {
        let folder = tempfile::tempdir().expect("the temporary folder is writable");
        let (left_open, script) = (folder.path().join("left-open"), folder.path().join("host"));
        std::fs::write(&left_open, "x").expect("written");
        let program = env!("CARGO_BIN_EXE_latticed");
        let text = format!("#!/bin/sh\nexec 9<{}\nexec {program} \"$@\"\n", left_open.display());
        std::fs::write(&script, text).expect("written");
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
        let server = NatsServer::start();
        let nats = connect(&server).await;
        let mut stage = Stage::inside(Sandbox::new(script), &server, nats, &[]).await;
        let has = |process: u64| {
            let entries = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").flatten();
            let mut targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            targets.any(|target| target == left_open)
        };
        let place = stage.linked("tidy").await;
        assert!(has(u64::from(stage.host().pid())), "the host has it");
        assert!(!has(place["process"].as_u64().expect("a number")));
    });
}

/// A host that is no root, and providers of the same user that see all files of it: what the host was told in secret they
/// find neither in its environment nor in its memory, nor in those of the processes in between.
#[test]
fn a_provider_of_the_same_user_cannot_look_into_the_host() {
    block_on(async {
        let server = NatsServer::start();
        let nats = connect(&server).await;
        let sandbox = Sandbox::of_nobody(env!("CARGO_BIN_EXE_latticed"));
        // An empty value is none: as operators have it, and not as tests.
        let settings = [("WASMCLOUD_PROVIDER_LANDLOCK", "false"), ("WASMCLOUD_DUMPABLE", "")];
        let mut stage = Stage::inside(sandbox, &server, nats, &settings).await;
        let place = stage.linked("curious").await;
        let status = place["status"].as_str().expect("text");
        assert!(!status.contains("\nUid:\t0\t"), "{status}");
        let detail = stage.host().status().providers[0].detail.clone();
        assert!(detail.contains("all files of its user"), "{detail}");
        let process = place["process"].as_u64().expect("a number");
        let read = async |path: String| stage.call("curious", "Test.Read", path.as_bytes()).await;
        assert!(read("/proc/self/environ".into()).await.is_ok(), "it can read what is its own");
        let others = descendants(stage.host().pid()).into_iter().filter(|one| *one != process);
        for other in others.chain([u64::from(stage.host().pid())]) {
            for file in ["environ", "mem", "maps", "auxv"] {
                let refused = read(format!("/proc/{other}/{file}")).await.map(|bytes| bytes.len());
                assert!(refused.as_ref().is_err_and(|text| text.contains("denied")), "{other} {file}: {refused:?}");
            }
        }
        // What the host says of itself it still reads.
        assert!(stage.host().status().memory.pss_bytes > 0);
        assert!(stage.host().output().contains("connected to NATS"));
    });
}

/// A provider is of the host's user, and its file system rules do not cover sockets: it is told apart by whom it descends from.
#[test]
fn a_provider_may_not_manage_its_host_and_nobody_below_it_may() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        stage.linked("sly").await;
        let socket = stage.sandbox.path("latticed/admin.sock").display().to_string();
        let refused = |answer: Vec<u8>| {
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.contains(&format!("belongs to the provider {}", provider::key("sly"))), "{answer}");
            assert!(answer.contains("a provider may not manage the host that runs it"), "{answer}");
            answer
        };
        let answer = refused(stage.call("sly", "Test.Manage", socket.as_bytes()).await.expect("it is answered"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let curl = format!("curl --silent --max-time 5 --unix-socket {socket} http://localhost/v1/status");
        for script in [
            curl.clone(),
            // An orphan in a session of its own.
            format!(
                "(setsid sh -c 'sleep 0.2; {curl} > answer; mv answer answered' &); until [ -e answered ]; do sleep 0.1; done; cat answered; rm answered"
            ),
        ] {
            refused(stage.call("sly", "Test.Execute", script.as_bytes()).await.expect("it is answered"));
        }
        // The test's own children are nobody's.
        assert_eq!(stage.provider_state("sly"), "running");
        let output = std::process::Command::new("sh").args(["-c", &format!("setsid {curl}")]).output().expect("curl");
        assert!(String::from_utf8_lossy(&output.stdout).contains("host_id"), "{output:?}");
    });
}

#[test]
fn what_may_not_run_is_refused_and_told() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        let binary = std::fs::read(provider::mannered()).expect("it is built");
        let mut damaged = provider::archive("x", KEY_VALUE, &binary);
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        let expired = provider::archive_with("x", KEY_VALUE, b"#!/bin/sh\n", |claims| claims.exp = Some(1_767_225_601));
        for (name, content, why) in [
            ("raw", binary[..1 << 20].to_vec(), "provider archive"),
            ("script", b"#!/bin/sh\nexit 0\n".to_vec(), "provider archive"),
            ("damaged", damaged, "do not match"),
            ("expired", expired, "expired"),
        ] {
            let reference = format!("file://{}", stage.sandbox.write(name, content).display());
            stage.command("lp", json!({ "provider_ref": reference, "link_name": "default" })).await;
            let failed = stage.event("provider_start_failed").await;
            assert_eq!(failed["provider_ref"], reference);
            assert!(failed["error"].as_str().is_some_and(|error| error.contains(why)), "{name}: {failed}");
        }
        let reference = stage.archive("x");
        let ack = stage.command("lp", json!({ "provider_ref": reference, "link_name": "a.*" })).await;
        assert!(ack["error"].as_str().is_some_and(|error| error.contains("link name")), "{ack}");
        assert_eq!(descendants(stage.host().pid()), Vec::<u64>::new());
        let kept = std::fs::read_dir(stage.sandbox.path("state/providers/bin")).map_or(0, Iterator::count);
        assert_eq!(kept, 0, "nothing that may not run takes room");
    });
}

/// Other hosts of this line run archives whose token is over; this one does where its operator says so and lists no issuers.
#[test]
fn an_archive_that_expired_runs_only_where_the_operator_says_so() {
    const LEGACY: (&str, &str) = ("WASMCLOUD_PROVIDER_LEGACY_ARCHIVES", "true");
    let account = guests::account().public_key().to_string();
    let trusted = ("WASMCLOUD_ALLOWED_ISSUERS", account.as_str());
    let binary = std::fs::read(provider::mannered()).expect("it is built");
    let expired = provider::archive_with("old", KEY_VALUE, &binary, |claims| claims.exp = Some(1_767_225_601));
    for (settings, runs) in [(&[][..], false), (&[LEGACY][..], true), (&[LEGACY, trusted][..], false)] {
        block_on(async {
            let mut stage = Stage::start(settings).await;
            let reference = format!("file://{}", stage.sandbox.write("old.par.gz", &expired).display());
            let ack = stage.command("lp", json!({ "provider_ref": reference, "link_name": "default" })).await;
            if runs {
                assert_eq!(ack["accepted"], true, "{ack}");
                stage.put_link("old", json!({})).await;
                stage.event("health_check_passed").await;
                stage.place_where("old", |_| true).await;
                assert_eq!(stage.increment("old").await, Ok(1));
            } else {
                let failed = stage.event("provider_start_failed").await;
                assert!(failed["error"].as_str().is_some_and(|error| error.contains("expired")), "{failed}");
                assert_eq!(descendants(stage.host().pid()), Vec::<u64>::new());
            }
        });
    }
}

/// A manifest brings a provider, an actor and their link; a boot later it all starts without the archive, and a call that
/// comes before a slow provider listens waits for it.
#[test]
fn a_manifest_with_an_archive_runs_and_starts_again_without_it() {
    block_on(async {
        let server = NatsServer::start();
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
        let binary = std::fs::read(provider::mannered()).expect("it is built");
        let archive = sandbox.write("kv.par.gz", provider::archive("kv", KEY_VALUE, &binary));
        let counter = guests::module_path("counter");
        let manifest = sandbox.write(
            "app.yaml",
            format!(
                "apiVersion: core.oam.dev/v1beta1
kind: Application
metadata: {{name: app, annotations: {{version: v1}}}}
spec:
  components:
    - name: counter
      type: actor
      properties: {{image: 'file://{}'}}
      traits:
        - {{type: spreadscaler, properties: {{replicas: 1}}}}
        - {{type: linkdef, properties: {{target: kv}}}}
    - name: kv
      type: capability
      properties: {{image: file://kv.par.gz, contract: 'wasmcloud:keyvalue', config: {{slow: 700}}}}
",
                counter.display()
            ),
        );
        let (port, seed) = (server.port().to_string(), nats::cluster().seed().expose().to_owned());
        let settings =
            [("WASMCLOUD_RPC_PORT", port.as_str()), ("WASMCLOUD_CTL_PORT", &port), ("WASMCLOUD_CLUSTER_SEED", &seed)];
        let request = rmp_serde::to_vec_named(&latticed::wire::interface::HttpRequest {
            method: "GET".into(),
            path: "/".into(),
            ..Default::default()
        })
        .expect("encoded");
        for boot in 0..2 {
            let mut host = if boot == 0 { sandbox.run(&manifest, &settings) } else { sandbox.run_again(&settings) };
            host.wait_for("listening for commands");
            eventually("the provider runs", || {
                host.status().providers.iter().any(|there| there.state.starts_with("running"))
                    && !host.status().actors.is_empty()
            });
            let answer = host.call("test/counter", "HttpServer.HandleRequest", &request);
            let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", host.output()));
            let answer: latticed::wire::interface::HttpResponse = rmp_serde::from_slice(&answer).expect("a response");
            assert!(String::from_utf8_lossy(&answer.body).contains('1'), "{answer:?}");
            let (status, output) = host.terminate();
            assert!(status.success() && output.contains("ended in order"), "{output}");
            if boot == 0 {
                std::fs::remove_file(&archive).expect("it was there");
            }
        }
    });
}

/// An account of a server in operator mode: who may say what is in the tokens alone.
struct Operator {
    server: NatsServer,
    account: latticed::claims::KeyPair,
}

impl Operator {
    fn start() -> Self {
        use latticed::claims::{KeyPair, Role};
        let operator = KeyPair::from_name(Role::Operator, "provider tests");
        let account = KeyPair::from_name(Role::Account, "provider tests");
        let system = KeyPair::from_name(Role::Account, "provider tests: system");
        let key = |pair: &KeyPair| pair.public_key().to_string();
        let sign = |claims: Value| credentials::sign(&claims, &operator).expect("signed");
        let token =
            sign(json!({ "jti": "o", "iat": 1_767_225_600, "iss": key(&operator), "sub": key(&operator), "name": "o",
            "nats": { "type": "operator", "version": 2 } }));
        let account_token = |pair: &KeyPair, name: &str, storage: i64| {
            sign(
                json!({ "jti": name, "iat": 1_767_225_600, "iss": key(&operator), "sub": key(pair), "name": name, "nats": {
                "limits": { "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                    "conn": -1, "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": -1, "consumer": -1 },
                "default_permissions": { "pub": {}, "sub": {} }, "type": "account", "version": 2 } }),
            )
        };
        let configuration = format!(
            "listen: \"127.0.0.1:{{port}}\"\njetstream {{ store_dir: \"{{dir}}/js\" }}\noperator: {token}\nsystem_account: {}\n\
             resolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}\n",
            key(&system),
            key(&account),
            account_token(&account, "lattice", -1),
            key(&system),
            account_token(&system, "system", 0),
        );
        Self { server: NatsServer::configured(&configuration), account }
    }

    /// A user who may do anything in the account: a token and a seed.
    fn user(&self, name: &str) -> (String, String) {
        use latticed::claims::{KeyPair, Role};
        let user = KeyPair::from_name(Role::User, name);
        let claims = json!({ "jti": name, "iat": 1_767_225_600, "iss": self.account.public_key().to_string(),
            "sub": user.public_key().to_string(), "name": name, "nats": { "subs": -1, "data": -1, "payload": -1,
            "type": "user", "version": 2 } });
        (credentials::sign(&claims, &self.account).expect("signed"), user.seed().expose().to_owned())
    }

    /// A host that makes logins, and a client who may do anything.
    async fn stage(&self, settings: &[(&str, &str)]) -> Stage {
        let (jwt, seed) = self.user("test client");
        let key = latticed::claims::KeyPair::from_seed(&seed).expect("a seed");
        let sign = move |nonce: Vec<u8>| {
            let signature = key.sign(&nonce).to_vec();
            async move { Ok(signature) }
        };
        let options = async_nats_031::ConnectOptions::with_jwt(jwt, sign).request_timeout(Some(PATIENCE));
        let client = options.connect(self.server.url()).await.expect("the server lets the client in");
        let (jwt, seed) = self.user("host");
        let account_seed = self.account.seed().expose().to_owned();
        let mut all = vec![
            ("WASMCLOUD_RPC_JWT", jwt.as_str()),
            ("WASMCLOUD_RPC_SEED", &seed),
            ("WASMCLOUD_CTL_JWT", &jwt),
            ("WASMCLOUD_CTL_SEED", &seed),
            ("WASMCLOUD_PROVIDER_NATS_ACCOUNT_SEED", &account_seed),
        ];
        all.extend_from_slice(settings);
        Stage::with(&self.server, client, &all).await
    }
}

/// With an account's key the host makes each provider a login of its own, and the server holds it to its subjects.
#[test]
fn a_minted_login_works_and_confines() {
    block_on(async {
        let operator = Operator::start();
        let mut stage = operator.stage(&[]).await;
        stage.put_link("tame", json!({})).await;
        stage.launch("tame", json!({})).await;
        stage.event("health_check_passed").await;
        assert_eq!(stage.increment("tame").await, Ok(1));
        let detail = stage.host().status().providers[0].detail.clone();
        assert!(detail.contains("NATS login of its own"), "{detail}");

        // What it says elsewhere nobody hears; what is said elsewhere it does not hear.
        let mut everything = stage.nats.subscribe(">".into()).await.expect("the client may");
        stage.nats.flush().await.expect("the server answers");
        let closed = [
            "wasmbus.evt.default".to_owned(),
            format!("wasmbus.ctl.default.cmd.{}.stop", stage.host_id),
            format!("wasmbus.rpc.default.{}.default", provider::key("other")),
            format!("wasmbus.rpc.default.{}", actor()),
            "$KV.LATTICEDATA_default.x".to_owned(),
            "$SYS.REQ.SERVER.PING".to_owned(),
        ];
        for subject in &closed {
            stage.call("tame", "Test.Publish", subject.as_bytes()).await.expect("it tries");
        }
        for subject in ["wasmbus.>", "wasmbus.rpc.default.*", "wasmbus.evt.default", ">", "_LATTICED.>"] {
            let heard = stage.call("tame", "Test.Listen", subject.as_bytes());
            let noise = async {
                for _ in 0..20 {
                    for said in ["wasmbus.evt.default", "wasmbus.rpc.default.MX", "_LATTICED.x"] {
                        stage.nats.publish(said.into(), "secret".into()).await.expect("the client may");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let (heard, ()) = futures_util::future::join(heard, noise).await;
            assert_eq!(heard, Err("heard nothing".to_owned()), "{subject}");
        }
        let forged = async {
            while let Some(message) = everything.next().await {
                assert_ne!(&message.payload[..], b"forged", "{}", message.subject);
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), forged).await;
        // A host asks an inbox that nobody hears whether the server has its events; this one hears everything.
        drop(everything);
        // It still does its work, also with links that come later.
        stage.delete_link().await;
        stage.put_link("tame", json!({ "URL": "later" })).await;
        stage.place_where("tame", |place| place["link"]["values"]["URL"] == "later").await;
        assert_eq!(stage.increment("tame").await, Ok(2));
        stage.stop("tame").await;
        assert!(stage.event("provider_stopped").await.is_object());
        assert!(stage.host().output().contains("ended in order"));
    });
}

/// Runs `binary` as a provider under a minted login and links it afterwards with `values`: what it hears only then counts.
/// `rule` is what the provider may beyond its own directory and the NATS server.
async fn hears_a_later_link(name: &str, binary: &[u8], values: Value, rule: &str) {
    let operator = Operator::start();
    let mut stage = operator.stage(&[("WASMCLOUD_PROVIDER_RULES", rule)]).await;
    let path = stage.sandbox.write(&format!("{name}.par.gz"), provider::archive(name, KEY_VALUE, binary));
    let reference = format!("file://{}", path.display());
    let ack = stage.command("lp", json!({ "provider_ref": reference, "link_name": "default" })).await;
    assert_eq!(ack["accepted"], true, "{ack}");
    stage.event("health_check_passed").await;
    let refused = stage.increment(name).await.expect_err("it is not linked yet");
    assert!(refused.contains("link"), "{refused}");
    stage.put_link(name, values).await;
    let begun = std::time::Instant::now();
    while let Err(error) = stage.increment(name).await {
        assert!(begun.elapsed() < PATIENCE, "{name} does not hear its link: {error}\n{}", stage.host().output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.delete_link().await;
    let begun = std::time::Instant::now();
    while stage.increment(name).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "{name} does not hear that its link is gone: {}", stage.host().output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(!operator.server.log().contains("Permissions Violation"), "{}", operator.server.log());
    let problems = stage.host().status().problems;
    assert!(!problems.iter().any(|problem| problem.contains("permission")), "{problems:?}");
}

#[test]
fn kvredis_hears_a_later_link_under_a_minted_login() {
    let redis = RedisServer::start();
    let binary = std::fs::read(env!("CARGO_BIN_EXE_kvredis")).expect("it is built");
    block_on(hears_a_later_link("kvredis", &binary, json!({ "URL": redis.url() }), &redis.rule()));
}

#[test]
fn the_published_sdks_hear_a_later_link_under_a_minted_login() {
    for package in ["wasmbus-rpc-provider", "provider-sdk-provider"] {
        // Built first: it may take minutes, in which nobody would answer for the clients of the stage.
        let binary = std::fs::read(published::provider(package)).expect("it is built");
        block_on(hears_a_later_link(package, &binary, json!({ "WORD": package }), ""));
    }
}

/// What a server forbids the host's own login is a problem of the host, not a line in the log alone.
#[test]
fn what_the_login_lacks_is_a_problem_of_the_host() {
    let server = NatsServer::configured(
        "listen: \"127.0.0.1:{port}\"\njetstream { store_dir: \"{dir}/js\" }\nauthorization { users: [ { user: board, \
         password: swordfish, permissions: { subscribe: { deny: \"wasmbus.ctl.default.linkdefs.>\" } } } ] }\n",
    );
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_latticed"));
    let login = [
        ("WASMCLOUD_RPC_USER", "board"),
        ("WASMCLOUD_RPC_PASSWORD", "swordfish"),
        ("WASMCLOUD_CTL_USER", "board"),
        ("WASMCLOUD_CTL_PASSWORD", "swordfish"),
    ];
    let host = nats::joined(&sandbox, server.port(), &login);
    eventually("the status names it", || {
        let problems = host.status().problems;
        problems
            .iter()
            .any(|text| text.contains("wasmbus.ctl.default.linkdefs") && text.contains("give it the permission"))
    });
}

/// Providers read their login once, at their start: before it ends the host starts them anew with a fresh one, so that the
/// server never has to cut one off, and they go on with their work beyond the first login's end.
#[test]
fn a_minted_login_is_renewed_before_it_ends() {
    const LIFETIME: Duration = credentials::LEAST_LIFETIME;
    block_on(async {
        let operator = Operator::start();
        let seconds = LIFETIME.as_secs().to_string();
        // Probes come too seldom to notice the end by: the renewal has a time of its own.
        let mut stage = operator
            .stage(&[("WASMCLOUD_PROVIDER_NATS_SECONDS", &seconds), ("WASMCLOUD_PROVIDER_PROBE_MS", "60000")])
            .await;
        stage.put_link("lasting", json!({})).await;
        stage.launch("lasting", json!({})).await;
        stage.place_where("lasting", |_| true).await;
        // Its login was made before this.
        let begun = std::time::Instant::now();
        let (mut answered, mut longest_silence) = (std::time::Instant::now(), Duration::ZERO);
        while begun.elapsed() < LIFETIME + LIFETIME / 4 {
            if stage.increment("lasting").await.is_ok() {
                longest_silence = longest_silence.max(answered.elapsed());
                answered = std::time::Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // On a busy machine the next renewal may fall into this very moment: what counts is that it goes on.
        let beyond = std::time::Instant::now();
        while stage.increment("lasting").await.is_err() {
            assert!(beyond.elapsed() < PATIENCE, "it does not work beyond the first login's end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("longest time without an answer: {longest_silence:?}");
        let first = stage.event("provider_started").await;
        let stopped = stage.event("provider_stopped").await;
        assert_eq!(
            (&stopped["reason"], &stopped["instance_id"]),
            (&json!("its NATS login is renewed"), &first["instance_id"])
        );
        let second = stage.event("provider_started").await;
        assert_ne!(second["instance_id"], first["instance_id"]);
        stage.place_where("lasting", |place| place["instance"] != first["instance_id"]).await;
        assert!(stage.host().output().contains("ended in order"), "{}", stage.host().output());
        assert!(!operator.server.log().contains("Expired"), "{}", operator.server.log());
    });
}
