//! Providers built on the published SDKs (`tests/providers`, a workspace of its own), and examples of this crate.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The programs of `tests/providers`, by the names of their packages. Built on first use unless `tests/run` did.
pub fn provider(package: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = root.join("target/providers");
        let mut build = cargo();
        build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(root.join("tests/providers/Cargo.toml"));
        build.arg("--target-dir").arg(&target);
        let outcome = build.status().expect("cargo runs");
        assert!(outcome.success(), "tests/providers could not be built; `cargo build` says why");
        target.join("debug")
    });
    folder.join(package)
}

/// The example `name` of this crate, built if it is not, or not from these sources.
pub fn example(name: &str) -> PathBuf {
    // In a virtual machine there is no cargo: whoever started it has built the example.
    if std::env::var_os("LATTICED_EXAMPLES_BUILT").is_none() {
        let mut build = cargo();
        build.args(["build", "--quiet", "--locked", "--offline", "--example", name]);
        let outcome = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(outcome.success(), "the example {name} could not be built");
    }
    // This test is in `target/PROFILE/deps`.
    let own = std::env::current_exe().expect("a test has a program");
    own.parent().and_then(Path::parent).expect("it is in a folder").join("examples").join(name)
}

/// cargo without what the cargo above this test has told it about its own package: build scripts that look at that would run
/// again, and everything above them would be built again, in turns for ever.
fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let told = name.starts_with("CARGO_") && !["CARGO_HOME", "CARGO_TARGET_DIR"].contains(&&*name);
        if told || name == "OUT_DIR" {
            cargo.env_remove(&*name);
        }
    }
    cargo
}
