//! What the kernel keeps of a provider's limits: the room on a disk, by a project quota. Needs root and a temporary
//! folder on a file system with project quotas that are switched on, which few machines have: `tests/quota/run` makes a
//! virtual one.

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use latticed::provider::quota::{FIRST_PROJECT, PROJECTS};
use support::{nats::block_on, provider, stage::Stage};

/// Longer than a supervisor waits between two looks at the disk.
const LOOK: Duration = Duration::from_secs(12);

/// What a provider may keep in these tests: 8 MiB and 50 files.
const LIMITS: &str = "disk=8M,inodes=50";

/// Nothing is started again: an end would be seen.
const ONCE: (&str, &str) = ("WASMCLOUD_PROVIDER_RESTARTS", "0");

/// What a write over the limit ends with. XFS says of projects what it says of a full disk.
fn refusal() -> String {
    std::env::var("QUOTA_REFUSAL").unwrap_or_else(|_| "Disk quota exceeded".to_owned())
}

/// What `script` prints in a shell of the provider `name`; printed, for whoever reads the transcript.
async fn shell(stage: &Stage, name: &str, script: &str) -> String {
    let said = stage.call(name, "Test.Execute", script.as_bytes()).await.expect("a shell");
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    println!("{name}$ {script}\n{said}");
    said
}

/// The same in a shell of the test.
fn own_shell(directory: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).current_dir(directory).output().expect("a shell");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    println!("host# {script}\n{said}");
    said
}

/// Starts the provider `name`; its directory.
async fn started(stage: &mut Stage, name: &str) -> PathBuf {
    let place = stage.linked(name).await;
    PathBuf::from(place["directory"].as_str().expect("it is somewhere"))
}

fn detail(stage: &Stage, name: &str) -> String {
    let status = stage.host().status();
    let found = status.providers.iter().find(|there| there.public_key == provider::key(name));
    let detail = found.expect("it is there").detail.clone();
    println!("status of {name}: {detail}");
    detail
}

/// The project of `path`.
fn project(path: &Path) -> u32 {
    let said = own_shell(Path::new("/"), &format!("lsattr -pd '{}'", path.display()));
    said.split_whitespace().next().and_then(|number| number.parse().ok()).expect("lsattr prints it first")
}

#[test]
#[ignore = "needs a file system with project quotas: tests/quota/run"]
fn a_write_over_the_limit_fails_and_the_provider_goes_on() {
    block_on(async {
        let mut stage = Stage::start(&[ONCE, ("WASMCLOUD_PROVIDER_RULES", LIMITS)]).await;
        let directory = started(&mut stage, "filler").await;
        let detail = detail(&stage, "filler");
        assert!(detail.contains("8 MiB on disk, 50 files on disk (kept by the kernel)"), "{detail}");
        let said = shell(&stage, "filler", "dd if=/dev/zero of=big bs=64k count=320 2>&1; stat -c %s big").await;
        assert!(said.contains(&refusal()), "{said}");
        let size: u64 = said.rsplit('\n').next().and_then(|size| size.parse().ok()).expect("a size");
        assert!(((7 << 20)..=(8 << 20)).contains(&size), "{size}");
        // Nor in another file, or one without a name.
        let said = shell(&stage, "filler", "dd if=/dev/zero of=more bs=64k count=32 2>&1").await;
        assert!(said.contains(&refusal()), "{said}");
        let said = shell(&stage, "filler", "exec 3>gone; rm gone; dd if=/dev/zero bs=64k count=32 2>&1 >&3").await;
        assert!(said.contains(&refusal()), "{said}");
        tokio::time::sleep(LOOK).await;
        assert_eq!(stage.increment("filler").await, Ok(1), "{}", stage.host().output());

        // Another provider has room of its own, while the first has none.
        let other = started(&mut stage, "neighbour").await;
        let said = shell(&stage, "neighbour", "dd if=/dev/zero of=big bs=64k count=96 2>&1; stat -c %s big").await;
        assert!(!said.contains(&refusal()) && said.ends_with(&(6 << 20).to_string()), "{said}");
        let many = "mkdir below; for i in $(seq 100); do touch below/$i 2>&1 || break; done; ls below | wc -l";
        let said = shell(&stage, "neighbour", many).await;
        // The directory below and `big` count too.
        assert!(said.contains(&refusal()) && said.ends_with("\n48"), "{said}");
        let projects = [project(&directory), project(&other), project(&other.join("below"))];
        assert!(projects[0] != projects[1] && projects[1] == projects[2], "{projects:?}");
        assert!(projects.iter().all(|one| (FIRST_PROJECT..FIRST_PROJECT + PROJECTS).contains(one)), "{projects:?}");
        tokio::time::sleep(LOOK).await;
        for name in ["filler", "neighbour"] {
            assert_eq!(stage.provider_state(name), "running");
        }
        // What is given back can be used again.
        stage.put_link("filler", serde_json::json!({})).await;
        stage.place_where("filler", |place| place["link"].is_object()).await;
        let said = shell(&stage, "filler", "rm big; dd if=/dev/zero of=again bs=64k count=64 2>&1").await;
        assert!(!said.contains(&refusal()), "{said}");
    });
}

#[test]
#[ignore = "needs a file system with project quotas: tests/quota/run"]
fn a_provider_cannot_leave_its_project_by_any_way_that_its_owner_has() {
    block_on(async {
        let (own_user, open) = (provider::key("apart"), provider::key("open"));
        let rules = format!("{LIMITS},{own_user}:user=61234,{open}:seccomp=off");
        let mut stage = Stage::start(&[ONCE, ("WASMCLOUD_PROVIDER_RULES", &rules)]).await;
        let passage = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(stage.sandbox.path(""), passage).expect("it is ours");
        // chattr changes flags first, and never gets to the project; xfs_io changes nothing but the project.
        let attempts = "touch file; for way in '-p 7 file' '-p 0 .' '-P .'; do chattr $way 2>&1 && echo DID $way; done; \
                        xfs_io -c 'chproj 9' file 2>&1; true";
        for name in ["rooted", "apart"] {
            let directory = started(&mut stage, name).await;
            let before = project(&directory);
            let said = shell(&stage, name, attempts).await;
            assert_eq!(said.matches("Operation not permitted").count(), 4, "{said}");
            assert!(!said.contains("DID"), "{said}");
            assert_eq!((project(&directory), project(&directory.join("file"))), (before, before));
            let said = shell(&stage, name, "dd if=/dev/zero of=big bs=64k count=320 2>&1; id -u").await;
            assert!(said.contains(&refusal()), "{said}");
        }
        // It is the filter that refuses: whoever has none can, and the status does not call its limits kept.
        let directory = started(&mut stage, "open").await;
        let detail = detail(&stage, "open");
        assert!(detail.contains("50 files on disk (watched)"), "{detail}");
        assert_eq!(shell(&stage, "open", attempts).await.matches("DID").count(), 3);
        assert_eq!((project(&directory), project(&directory.join("file"))), (0, 9));
        let _ = stage.call("open", "Test.Execute", b"dd if=/dev/zero of=big bs=64k count=320").await;
        let stopped = stage.event("provider_stopped").await;
        println!("open was stopped: {}", stopped["reason"]);
        assert!(stopped["reason"].as_str().is_some_and(|reason| reason.contains("MiB in")), "{stopped}");
    });
}

#[test]
#[ignore = "needs a file system with project quotas: tests/quota/run"]
fn what_is_in_a_directory_already_is_counted_from_the_next_start_on() {
    block_on(async {
        let mut stage = Stage::start(&[ONCE, ("WASMCLOUD_PROVIDER_RULES", LIMITS)]).await;
        let directory = started(&mut stage, "keeper").await;
        let before = project(&directory);
        shell(&stage, "keeper", "mkdir -p a/b; dd if=/dev/zero of=a/b/file bs=64k count=96 2>&1").await;
        stage.stop("keeper").await;
        stage.event("provider_stopped").await;
        // As it was before quotas were switched on; and a file of the host that has a second name there.
        let aside = directory.with_file_name(format!(".stopped-{}-default", provider::key("keeper")));
        let outside = stage.sandbox.write("outside", "the host's");
        own_shell(&aside, "chattr -R -p 0 . && chattr -R -P .");
        own_shell(
            &aside,
            &format!("ln '{}' linked; ln -s '{}' soft; mkfifo pipe", outside.display(), outside.display()),
        );
        assert_eq!(project(&aside.join("a/b/file")), 0);
        let again = started(&mut stage, "keeper").await;
        assert_eq!(again, directory);
        for inside in ["", "a", "a/b", "a/b/file"] {
            assert_eq!(project(&directory.join(inside)), before, "{inside}");
        }
        assert_eq!(project(&outside), 0);
        // Six of eight MiB are there.
        let said = shell(&stage, "keeper", "dd if=/dev/zero of=a/b/more bs=64k count=64 2>&1").await;
        assert!(said.contains(&refusal()), "{said}");
        assert_eq!(stage.increment("keeper").await, Ok(1));
    });
}
