//! What the binary says about itself: help, errors, completion, the manual page.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn latticed(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_latticed"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

fn succeeds(arguments: &[&str]) -> String {
    let output = latticed(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Feeds `input` to a program that only prints when it does not like it.
fn accepted_by(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|cause| panic!("this test needs {program}: {cause}"));
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{program}: {output:?}");
}

/// Each command line below `latticed` that has a help of its own, read from the help texts themselves.
fn commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut open: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(command) = open.pop() {
        let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = succeeds(&arguments);
        let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        for line in listed {
            let name = line.split_whitespace().next().expect("a name");
            if name != "help" {
                open.push(command.iter().cloned().chain([name.to_owned()]).collect());
            }
        }
        found.push(command);
    }
    found
}

#[test]
fn every_command_teaches_by_an_example_of_itself() {
    let commands = commands();
    for name in ["run", "call", "status", "stop", "check", "keys", "claims", "archive", "completion", "man"] {
        assert!(commands.iter().any(|command| command == &[name]), "{name} is missing");
    }
    for name in ["keys gen", "keys show", "claims sign", "claims inspect", "claims token", "archive create"] {
        assert!(commands.iter().any(|command| command.join(" ") == name), "{name} is missing");
    }
    for command in commands {
        let line = command.join(" ");
        for flag in ["--help", "-h"] {
            let mut arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            arguments.push(flag);
            let help = succeeds(&arguments);
            let example = format!("\n  latticed {line}");
            assert!(help.contains("\nExample") && help.contains(example.trim_end()), "latticed {line}:\n{help}");
        }
    }
}

#[test]
fn the_help_lists_the_exit_codes() {
    let help = succeeds(&["--help"]);
    for part in ["Exit codes:", "  0   success", "  2   ", "  10  ", "  70  "] {
        assert!(help.contains(part), "{part}: {help}");
    }
}

#[test]
fn the_version_is_the_package_version() {
    assert_eq!(succeeds(&["--version"]), format!("latticed {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_usage_error_ends_with_2_and_says_what_was_meant() {
    for arguments in [
        &[][..],
        &["stat"],
        &["status", "--wacth", "1"],
        &["call"],
        &["call", "echo", "Echo.Say", "{no json"],
        &["call", "echo", "Echo.Say", "1", "--body", "file"],
        &["stop", "--timeout", "soon"],
        &["completion", "basic"],
    ] {
        let output = latticed(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
    let error = String::from_utf8(latticed(&["status", "--wacth", "1"]).stderr).expect("UTF-8");
    assert!(error.starts_with("latticed: ") && error.contains("--watch"), "{error}");
    let error: serde_json::Value = serde_json::from_slice(&latticed(&["--json", "stat"]).stderr).expect("JSON");
    assert_eq!(error["error"]["kind"], "usage");
}

#[test]
fn output_that_nobody_reads_or_that_does_not_fit_is_no_panic() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .arg("man")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let output = Command::new(env!("CARGO_BIN_EXE_latticed"))
        .args(["completion", "bash"])
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(11), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"), "{output:?}");
}

#[test]
fn completion_scripts_are_sound() {
    let bash = succeeds(&["completion", "bash"]);
    accepted_by("bash", &["-n"], &bash);
    // Not only its grammar: ask it, as the shell does when Tab is pressed after `latticed sta`.
    let ask = format!(
        "{bash}\nCOMP_WORDS=(latticed sta); COMP_CWORD=1; _latticed latticed sta latticed\n\
         [ \"${{COMPREPLY[*]}}\" = status ] || {{ echo \"got ${{COMPREPLY[*]}}\" >&2; exit 1; }}\n"
    );
    accepted_by("bash", &["-s"], &ask);
    for shell in ["zsh", "fish"] {
        let script = succeeds(&["completion", shell]);
        assert!(script.contains("status") && script.contains("watch"), "{shell}");
    }
}

#[test]
fn the_manual_page_has_no_mistakes() {
    let page = succeeds(&["man"]);
    accepted_by("groff", &["-man", "-ww", "-z", "-Tutf8"], &page);
    for part in [".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH FILES", ".SS \"latticed archive create\""] {
        assert!(page.contains(part), "{part} is missing");
    }
}
