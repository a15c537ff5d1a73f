//! `latticed artifact gc`: room on this board, from what nobody needs.

use super::place::PlaceArgs;
use crate::{
    artifact::maintenance::{Done, Maintenance},
    cli::{Output, report},
    error::{Error, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact gc
  latticed artifact gc --all --json";

/// Remove artifacts that nobody needs.
///
/// Without --all: what no reference brought, and what is over the budget (WASMCLOUD_ARTIFACT_BYTES), unused for longest
/// first; the host does that by itself after each change. What should run, what ran before the last update, what is
/// published or pinned, and what was fetched a moment ago stays. Works on the running host, or on its store while it does
/// not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Everything that is not needed, also within the budget: the next start of it needs its source again.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let done = args.place.find(false)?.maintain(Maintenance::Collect { everything: args.all })?;
    let Done::Collected(swept) = &done else { return Err(Error::internal("another answer than to a collection")) };
    if output.json() {
        return output.document(swept);
    }
    let given_up = match swept.given_up {
        0 => String::new(),
        count => format!(" and {count} that had arrived in part"),
    };
    output.line(format_args!(
        "removed {}{given_up} ({}), kept {} ({})",
        swept.removed,
        report::amount(swept.freed_bytes),
        swept.kept,
        report::amount(swept.kept_bytes)
    ))
}
