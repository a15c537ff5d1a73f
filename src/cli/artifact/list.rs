//! `latticed artifact list`: what this board has in stock, or what a bucket of a lattice's object store holds.

use std::path::Path;

use serde::Serialize;

use super::place::{Place, PlaceArgs};
use crate::{
    cli::{
        Output, joining,
        table::{Column, Table, printable},
    },
    config::Config,
    error::{Context, Error, Kind, Result},
    lattice::objects::client,
    nats::objects::words::{self, Info, SCHEME},
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact list
  latticed artifact list nats://actors
  latticed artifact list nats://actors --json | jq -r '.[].pinned'";

/// List the artifacts of this board, or the objects of a bucket.
///
/// Without a bucket it asks the running host, or looks into its store while it does not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The bucket: nats://BUCKET.
    #[arg(value_name = "BUCKET")]
    bucket: Option<String>,

    #[command(flatten)]
    place: PlaceArgs,
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
        let place = words::Place { bucket: bucket.to_owned(), name: info.name.clone() };
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
    match &args.bucket {
        Some(bucket) => list_bucket(bucket, args.place.host_config(), output),
        None => list_stock(&args.place.find(false)?, output),
    }
}

fn list_stock(place: &Place, output: &mut Output) -> Result<()> {
    let stock = place.inventory()?;
    if output.json() {
        return output.document(&stock);
    }
    let mut table = Table::new(&[
        ("DIGEST", Column::Key),
        ("BYTES", Column::Number),
        ("KEPT FOR", Column::Text),
        ("NAMES", Column::Text),
        ("REFERENCES", Column::Text),
    ]);
    for one in stock {
        let kept = match (one.pinned, one.needed) {
            (true, _) => "a pin",
            (false, true) => "need",
            (false, false) => "-",
        };
        let mut references: Vec<_> = one.references.into_iter().map(|referred| referred.reference).collect();
        if !one.actor.is_empty() {
            references.push(format!("(the actor {}, from a file)", one.actor));
        }
        table.row([one.digest, one.bytes.to_string(), kept.to_owned(), one.names.join(" "), references.join(" ")]);
    }
    output.text(&table.render(output.width()))
}

fn list_bucket(named: &str, host_config: Option<&Path>, output: &mut Output) -> Result<()> {
    let bucket = named
        .strip_prefix(SCHEME)
        .ok_or_else(|| Error::usage(format!("{} is no bucket; write {SCHEME}BUCKET", printable(named))))?;
    let bucket = bucket.trim_end_matches('/');
    let config = Config::load(host_config, Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let listed = task::run(0, client::list(&settings, bucket))
        .context(Kind::Internal, "cannot start the main loop")?
        .map_err(|error| error.context(printable(named)))?;
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
