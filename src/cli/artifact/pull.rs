//! `latticed artifact pull`: an object of a lattice's object store into a file.

use std::path::PathBuf;

use serde_json::json;

use super::progress::Progress;
use crate::{
    artifact::Reference,
    cli::{Output, joining, output_file, table::printable},
    config::Config,
    error::{Context, Error, Kind, Result},
    lattice::objects::client,
    nats::objects::words::Place,
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact pull nats://actors/echo
  latticed artifact pull nats://actors/echo@sha256:2cf24d… --out echo_s.wasm

The file is there whole and with the right digest, or not at all.";

/// Get an object of a JetStream object store as a file.
///
/// Its digest is checked, and the one in the reference where there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to get: nats://BUCKET/NAME[@sha256:…].
    reference: String,

    /// Where to write it. Default: the last part of the name, here.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let named = |error: Error| error.context(printable(&args.reference));
    let place = Place::parse(&args.reference).map_err(named)?;
    let expected = Reference::parse(&args.reference)?.content_digest().map_err(named)?;
    let out = match args.out {
        Some(out) => out,
        None => match place.name.rsplit('/').next() {
            Some(name) if !matches!(name, "" | "." | "..") && !name.contains('\0') => name.into(),
            _ => return Err(Error::usage("the object's name is no file name; say where to write it with --out FILE")),
        },
    };
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let mut progress = Progress::new(format!("getting {}", printable(&args.reference)), output.json());
    let mut bytes = 0;
    let digest = output_file::write(&out, output_file::PUBLIC, true, "", |file| {
        let got = client::get(&settings, &place, file, |done, all| {
            bytes = done;
            progress.tell(done, all);
        });
        let digest = task::run(0, got).context(Kind::Internal, "cannot start the main loop")?.map_err(named)?;
        match expected.filter(|expected| *expected != digest) {
            None => Ok(digest),
            Some(expected) => Err(named(Error::invalid(format!(
                "its {bytes} bytes have the digest sha256:{digest}, expected is sha256:{expected}; nothing was kept"
            )))),
        }
    })?;
    drop(progress);
    if output.json() {
        return output.document(&json!({
            "reference": args.reference,
            "pinned": place.pinned(digest),
            "digest": format!("sha256:{digest}"),
            "bytes": bytes,
            "file": out.display().to_string(),
        }));
    }
    output.line(format_args!("{}: {bytes} bytes, sha256:{digest}", out.display()))
}
