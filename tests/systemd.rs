//! The unit under a real systemd: booted in namespaces of its own, with the program and files of this tree. What is run
//! there is in `tests/systemd/guest`; what it needs is in `tests/systemd/run --help`.

use std::{fs, path::Path, process::Command};

/// The unit, as it is installed.
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/latticed.service");

/// Exposure that is promised, in tenths (`systemd/README.md`).
const PROMISED_TENTHS: &str = "11";

fn readme(of: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(of).join("README.md")).expect("the README is there")
}

#[test]
fn the_sandbox_is_as_tight_as_promised() {
    let output = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold", PROMISED_TENTHS, UNIT])
        .output()
        .expect("systemd-analyze must be installed for this test (Debian: apt-get install systemd)");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let score = text.lines().find_map(|line| line.split("latticed.service: ").nth(1)?.split(' ').next());
    let score = score.expect("the last line tells the score");
    for of in ["", "systemd"] {
        assert!(readme(of).contains(&format!("scores **{score}**")), "{of}/README.md tells another score than {score}");
    }
}

#[test]
fn the_readme_lists_the_system_calls_of_the_unit() {
    let unit = fs::read_to_string(UNIT).expect("the unit is there");
    let calls: Vec<&str> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
        .flat_map(str::split_whitespace)
        .collect();
    assert!(!calls.is_empty(), "the unit filters system calls");
    let readme = readme("systemd");
    let list = readme
        .split("<!-- system calls -->")
        .nth(1)
        .and_then(|rest| rest.split("<!-- end of system calls -->").next())
        .expect("the README has the list between its two marks");
    let told: Vec<&str> =
        list.split(|one: char| one.is_whitespace() || one == '`').filter(|one| !one.is_empty()).collect();
    assert_eq!(told, calls, "paste the unit's list into the README");
}

#[test]
fn the_service_does_what_it_should_under_a_real_systemd() {
    let folder = tempfile::tempdir().expect("the temporary folder is writable");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/run");
    let output = Command::new(script)
        .args([Path::new(env!("CARGO_BIN_EXE_latticed")), folder.path()])
        .output()
        .expect("bash is there");
    let result = fs::read_to_string(folder.path().join("result.txt")).unwrap_or_default();
    let boot = fs::read_to_string(folder.path().join("boot.txt")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{result}\n{boot}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // For whoever runs it with --nocapture: the transcript.
    println!("{result}");
}
