//! Processes of a provider that multiply without end: nothing of them is left however the provider, its supervisor or its host
//! ends. A test program of its own, because it takes all of the machine for seconds.

mod support;

use support::{
    host::Sandbox,
    nats::{block_on, eventually},
    stage::{ONCE, Stage, descendants, lives},
};

/// Processes whose command line holds `mark`.
fn marked(mark: &str) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(mark) && lives(id) {
            found.push(id);
        }
    }
    found
}

/// Processes that start processes as fast as they can, each an orphan in a session of its own.
fn storm(mark: &str) -> String {
    format!("perl -e 'use POSIX; while (1) {{ if (fork() == 0) {{ POSIX::setsid(); }} }}' {mark}")
}

#[test]
fn a_fork_storm_ends_with_its_provider_its_supervisor_and_its_host() {
    block_on(async {
        // The kernel bounds how many processes a user has, other than root.
        let sandbox = Sandbox::of_nobody(env!("CARGO_BIN_EXE_latticed"));
        let mut stage = Stage::of(sandbox, &[ONCE]).await;
        for name in ["stopped", "supervised", "hosted"] {
            let mark = format!("storm-{}-{name}", std::process::id());
            stage.linked(name).await;
            let host = stage.host().pid();
            let supervisor = descendants(host)[0];
            stage.leave_running(name, &storm(&mark)).await;
            eventually("the storm blows", || marked(&mark).len() > 20);
            match name {
                "stopped" => stage.stop(name).await,
                "supervised" => {
                    let _ = std::process::Command::new("kill").args(["-KILL", &supervisor.to_string()]).status();
                }
                _ => stage.host.take().expect("it runs").kill(),
            }
            eventually("the storm is over", || marked(&mark).is_empty());
            if name != "hosted" {
                stage.event("provider_stopped").await;
                // Those that have ended and were not collected yet are listed too.
                eventually(&format!("nothing is left of it: {name}"), || descendants(host).is_empty());
            }
        }
    });
}
