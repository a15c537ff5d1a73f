//! `latticed artifact list`: what a bucket of a lattice's object store holds.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    cli::{
        Output, joining,
        table::{Column, Table, printable},
    },
    config::Config,
    error::{Context, Error, Kind, Result},
    lattice::objects::{
        shelf,
        words::{Info, Place, SCHEME},
    },
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact list nats://actors
  latticed artifact list nats://actors --json | jq -r '.[].pinned'";

/// List the objects of a JetStream object store with their digests.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The bucket: nats://BUCKET.
    #[arg(value_name = "BUCKET")]
    bucket: String,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
}

/// One object as `--json` shows it.
#[derive(Serialize)]
struct Listed {
    name: String,
    reference: String,
    /// `null` for an object without a digest that can be read.
    pinned: Option<String>,
    bytes: u64,
    modified: String,
}

impl Listed {
    fn of(info: Info, bucket: &str) -> Self {
        let place = Place { bucket: bucket.to_owned(), name: info.name.clone() };
        Self {
            reference: format!("{SCHEME}{bucket}/{}", info.name),
            pinned: info.content_digest().map(|digest| place.pinned(digest)),
            name: info.name,
            bytes: info.size,
            modified: info.mtime,
        }
    }
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let bucket = args
        .bucket
        .strip_prefix(SCHEME)
        .ok_or_else(|| Error::usage(format!("{} is no bucket; write {SCHEME}BUCKET", printable(&args.bucket))))?;
    let bucket = bucket.trim_end_matches('/');
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let listed = task::run(0, shelf::list(&settings, bucket))
        .context(Kind::Internal, "cannot start the main loop")?
        .map_err(|error| error.context(printable(&args.bucket)))?;
    let listed: Vec<Listed> = listed.into_iter().map(|info| Listed::of(info, bucket)).collect();
    if output.json() {
        return output.document(&listed);
    }
    let mut table = Table::new(&[
        ("REFERENCE", Column::Text),
        ("BYTES", Column::Number),
        ("MODIFIED", Column::Text),
        ("DIGEST", Column::Key),
    ]);
    for object in listed {
        let digest =
            object.pinned.as_deref().and_then(|pinned| pinned.rsplit_once('@')).map_or("-", |(_, digest)| digest);
        table.row([object.reference, object.bytes.to_string(), object.modified, digest.to_owned()]);
    }
    output.text(&table.render(output.width()))
}
