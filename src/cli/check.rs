//! `latticed check`: say what a host would do, without doing it.
//!
//! What the file is follows from its bytes: a WebAssembly module, a JSON object without `kind` (a `host_config.json`),
//! anything else a manifest. Nothing is started, nothing is written.

mod manifest;
mod module;
mod place;
mod settings;

use std::path::{Path, PathBuf};

use super::{Output, preflight};
use crate::{
    artifact::{Limit, file::read_blocking},
    config::{Config, settings as table},
    error::{Error, Result},
    web::probes::Place,
};

const EXAMPLES: &str = "\
Examples:
  latticed check                      the settings in effect and where each comes from, secrets hidden
  latticed check --env-file /etc/latticed/latticed.env
                                      the same with the settings of a service
  latticed check host_config.json     the same with this file in the place of ./host_config.json
  latticed check counter.yaml         the manifest, its files, claims and links, and what this board cannot honour
  latticed check /etc/latticed/manifests
                                      all manifests of a directory, and what they ask for together
  latticed check counter.wasm         claims, imports and limits of a module

Warnings go to standard error and leave the exit code at 0. It is 3 when a setting or manifest cannot be used, 4 when
a file is missing, 6 when a module is malformed, 7 when it is not allowed here, 8 when it exceeds a limit.";

/// Largest file looked at, bytes. The limit of modules is a setting and reported as such.
const FILE_LIMIT: Limit = Limit::fixed(256 * 1024 * 1024);

/// Check settings, a manifest or a module without starting anything.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Manifest, directory of manifests, module or host_config.json; without one the settings in effect are shown.
    #[arg(value_name = "CONFIG|MANIFEST|DIRECTORY|MODULE")]
    pub file: Option<PathBuf>,

    /// Read settings from this file of NAME=value lines, too, as `latticed run` does.
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,

    /// Print the table of all settings as Markdown, as src/config/README.md has it.
    #[arg(long, hide = true, conflicts_with = "file")]
    pub markdown: bool,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    if args.markdown {
        return output.text(&table::markdown());
    }
    let load = |host_config: Option<&Path>, output: &Output| load(host_config, args.env_file.as_deref(), output);
    let Some(path) = args.file.as_deref() else { return settings::check(&load(None, output)?, output) };
    if path.is_dir() {
        return manifest::check_directory(path, &load(None, output)?, output);
    }
    let bytes = read_blocking(path, FILE_LIMIT)?;
    match kind_of(&bytes) {
        File::Module => module::check(path, bytes, &load(None, output)?, output),
        File::Archive => Err(Error::usage(format!(
            "{} is an archive; `latticed archive inspect` shows what is in it",
            path.display()
        ))),
        File::HostConfig => settings::check(&load(Some(path), output)?, output),
        File::Manifest => {
            drop(bytes);
            manifest::check(path, &load(None, output)?, output)
        }
    }
}

/// The settings as `run` would have them. Warnings are told to people at once; JSON carries them where they matter.
fn load(host_config: Option<&Path>, env_file: Option<&Path>, output: &Output) -> Result<Config> {
    let mut config = Config::load_with(host_config, env_file)?;
    config.warnings.extend(preflight::settings(&config)?);
    let probes = config.probes.as_deref().map(Place::parse).transpose()?;
    for (setting, address) in [
        ("WASMCLOUD_PROBES", if let Some(Place::Tcp(address)) = probes { Some(address) } else { None }),
        ("WASMCLOUD_MIRROR_LISTEN", config.mirror.listen),
    ] {
        let Some(address) = address else { continue };
        let warning = place::try_out(address).map_err(|error| error.context(setting))?;
        config.warnings.extend(warning.map(|text| format!("{setting}: {text}")));
    }
    if !output.json() {
        warn(&config.warnings);
    }
    Ok(config)
}

/// Warnings about settings that a JSON document carries because nobody was told of them yet.
fn carried(config: &Config, output: &Output) -> Vec<String> {
    if output.json() { config.warnings.clone() } else { Vec::new() }
}

/// Prints warnings for people on standard error.
fn warn(warnings: &[String]) {
    for warning in warnings {
        eprintln!("warning: {}", super::table::printable(warning));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum File {
    Module,
    Archive,
    HostConfig,
    Manifest,
}

fn kind_of(bytes: &[u8]) -> File {
    if bytes.starts_with(b"\0asm") {
        return File::Module;
    }
    if bytes.starts_with(&[0x1f, 0x8b]) || bytes.get(257..262) == Some(b"ustar") {
        return File::Archive;
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes) {
        Ok(members) if !members.contains_key("kind") && !members.contains_key("apiVersion") => File::HostConfig,
        _ => File::Manifest,
    }
}

#[cfg(test)]
mod tests {
    use super::{File, kind_of};

    #[test]
    fn files_are_known_by_their_bytes() {
        assert_eq!(kind_of(b"\0asm\x01\0\0\0"), File::Module);
        assert_eq!(kind_of(&[0x1f, 0x8b, 8]), File::Archive);
        assert_eq!(kind_of(br#"{"rpc_host": "a"}"#), File::HostConfig);
        assert_eq!(kind_of(br#"{"kind": "Application"}"#), File::Manifest);
        assert_eq!(kind_of(b"kind: Application"), File::Manifest);
        assert_eq!(kind_of(b""), File::Manifest);
    }
}
