//! What a provider may use of the board, with everything it starts: memory of every kind, processes, disk.

mod support;

use serde_json::Value;
use support::{
    nats::{block_on, eventually},
    provider,
    stage::{ONCE, Stage, descendants},
};

/// Why the provider ended.
async fn end_of(stage: &mut Stage) -> String {
    let stopped = stage.event("provider_stopped").await;
    stopped["reason"].as_str().expect("a reason").to_owned()
}

#[test]
fn memory_that_no_limit_of_a_single_process_counts_is_counted() {
    block_on(async {
        let rules = ["file", "many", "shared"].map(|name| format!("{}:memory=64M", provider::key(name))).join(",");
        let mut stage = Stage::start(&[ONCE, ("WASMCLOUD_PROVIDER_RULES", &rules)]).await;
        let in_file = format!(
            "perl -e 'my $name = \"x\"; my $fd = syscall({}, $name, 0); open(my $file, \">&=\", $fd); my $block = \"x\" x \
             1048576; syswrite $file, $block for 1 .. 128; sleep 1000'",
            libc::SYS_memfd_create
        );
        // Each of them within the limit.
        let many = "for i in 1 2 3 4 5 6; do perl -e 'my $x = \"x\" x (24 << 20); sleep 1000' & done; wait".to_owned();
        let shared = format!(
            "perl -e 'my $at = syscall({}, 0, 128 << 20, 3, 33, -1, 0); open(my $zero, \"<\", \"/dev/zero\"); \
             syscall({}, fileno($zero), $at, 128 << 20); sleep 1000'",
            libc::SYS_mmap,
            libc::SYS_read
        );
        for (name, script) in [("file", in_file), ("many", many), ("shared", shared)] {
            stage.linked(name).await;
            stage.leave_running(name, &script).await;
            let reason = end_of(&mut stage).await;
            assert!(reason.contains("of memory and may use 64 MiB"), "{name}: {reason}");
            let host = stage.host().pid();
            eventually("nothing is left", || descendants(host).is_empty());
        }
    });
}

/// Root's processes are limited by nothing but this.
#[test]
fn too_many_processes_end_a_provider() {
    block_on(async {
        let mut stage = Stage::start(&[ONCE, ("WASMCLOUD_PROVIDER_PROCESSES", "40")]).await;
        stage.linked("breeder").await;
        stage.leave_running("breeder", "for i in $(seq 60); do sleep 1000 & done; wait").await;
        let reason = end_of(&mut stage).await;
        assert!(reason.contains("processes and threads and may have 40"), "{reason}");
        let host = stage.host().pid();
        eventually("nothing is left", || descendants(host).is_empty());
    });
}

#[test]
fn the_kernel_ends_providers_before_host_and_supervisors_when_memory_is_short() {
    block_on(async {
        let mut stage = Stage::start(&[]).await;
        let place = stage.linked("first").await;
        let provider = place["process"].as_u64().expect("a number");
        let score = |process: u64| -> i32 {
            let text = std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).expect("it lives");
            text.trim().parse().expect("a number")
        };
        let host = u64::from(stage.host().pid());
        let supervisor = descendants(stage.host().pid()).into_iter().find(|one| *one != provider).expect("one");
        assert_eq!(score(provider), 800);
        assert!(score(host) < 800 && score(supervisor) < 800, "{} {}", score(host), score(supervisor));
    });
}

#[test]
fn a_disk_is_not_filled_by_files_many_files_or_files_without_a_name() {
    block_on(async {
        let rules = "disk=8M,inodes=500";
        let mut stage = Stage::start(&[ONCE, ("WASMCLOUD_PROVIDER_RULES", rules)]).await;
        for (name, script, told) in [
            ("big", "dd if=/dev/zero of=big bs=1M count=20", "MiB in"),
            ("many", "mkdir files; cd files; for i in $(seq 600); do : > $i; done", "more than 500 files"),
            (
                "unnamed",
                "perl -e 'open(my $f, \">\", \"gone\"); unlink \"gone\"; my $b = \"x\" x 1048576; syswrite $f, $b for 1 .. \
                 20; sleep 1000'",
                "MiB in",
            ),
        ] {
            let place: Value = stage.linked(name).await;
            assert_eq!(place["directory"].as_str().map(|path| path.contains(&provider::key(name))), Some(true));
            stage.leave_running(name, script).await;
            let reason = end_of(&mut stage).await;
            assert!(reason.contains(told) && reason.contains("its rules"), "{name}: {reason}");
        }
        // What it left is in its way, until somebody removes it.
        stage.launch("big", serde_json::json!({})).await;
        eventually("it is said why it does not start", || {
            stage.provider_state("big").contains("could not be started")
                || stage.host().status().problems.iter().any(|problem| problem.contains("remove some of it"))
        });
    });
}
