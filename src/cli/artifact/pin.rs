//! `latticed artifact pin`: what must stay on this board, whatever else needs room.

use super::place::PlaceArgs;
use crate::{
    artifact::maintenance::{Done, Maintenance},
    cli::Output,
    error::{Error, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact pin registry.example.org/echo:1.2
  latticed artifact pin 3f2a9c01
  latticed artifact pin --remove registry.example.org/echo:1.2";

/// Keep an artifact on this board although nothing that should run needs it.
///
/// Works on the running host, or on its store while it does not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A reference that brought it, its digest, or the first digits of that.
    #[arg(value_name = "REFERENCE|DIGEST")]
    what: String,

    /// It need not stay any more.
    #[arg(long)]
    remove: bool,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let done = args.place.find(false)?.maintain(Maintenance::Pin { what: args.what, pinned: !args.remove })?;
    let Done::Pinned { digest, pinned } = &done else { return Err(Error::internal("another answer than to a pin")) };
    match (output.json(), pinned) {
        (true, _) => output.document(&done),
        (false, true) => output.line(format_args!("{digest} is pinned")),
        (false, false) => output.line(format_args!("{digest} is not pinned")),
    }
}
