//! `latticed artifact push`: a file into the object store of a lattice.

use std::path::PathBuf;

use serde_json::json;

use super::{place, progress::Progress};
use crate::{
    cli::{Output, joining, table::printable},
    config::Config,
    error::{Context, Error, Kind, Result},
    lattice::objects::client,
    nats::objects::words::Place,
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact push echo_s.wasm nats://actors/echo
  latticed artifact push kv.par.gz nats://providers/kv/1.2
  NATS_HOST=hub.example WASMCLOUD_JS_DOMAIN=hub latticed artifact push echo_s.wasm nats://actors/echo

It prints the reference that pins what was put. The bucket is made when there is none.";

/// Put a file into an object store, for every host of the lattice.
///
/// What had that name before is replaced in one step; hosts that are just reading it fetch again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file: a signed module or a provider archive.
    file: PathBuf,

    /// Where it goes: nats://BUCKET/NAME.
    #[arg(value_name = "REFERENCE")]
    to: String,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    if args.to.contains("@sha256:") {
        return Err(Error::usage(format!(
            "{}: what is put gets its digest itself; leave @sha256:… out",
            printable(&args.to)
        )));
    }
    let place = Place::parse(&args.to).map_err(|error| error.context(printable(&args.to)))?;
    let path = args.file.display();
    let (file, all) = place::open_file(&args.file)?;
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let mut progress = Progress::new(format!("putting {path}"), output.json());
    let put = client::put(&settings, &place, file, |done| progress.tell(done, all));
    let info = task::run(0, put)
        .context(Kind::Internal, "cannot start the main loop")?
        .map_err(|error| error.context(printable(&args.to)))?;
    drop(progress);
    let digest = info.content_digest().ok_or_else(|| Error::internal("the object was put without its digest"))?;
    let reference = place.pinned(digest);
    if output.json() {
        return output.document(&json!({
            "reference": args.to,
            "pinned": reference,
            "digest": format!("sha256:{digest}"),
            "bytes": info.size,
            "chunks": info.chunks,
        }));
    }
    output.line(format_args!("{}\n{} bytes", printable(&reference), info.size))
}
