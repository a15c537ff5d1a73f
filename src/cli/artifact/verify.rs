//! `latticed artifact verify`: whether what this board keeps is whole.

use super::place::PlaceArgs;
use crate::{
    artifact::maintenance::{Done, Maintenance},
    cli::{Output, report, table::printable},
    error::{Error, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact verify
  latticed artifact verify registry.example.org/echo:1.2";

/// Read artifacts and compare them with their digests.
///
/// A host does that by itself whenever it uses one. What is damaged is set aside, and fetched again by the next start that
/// needs it. Works on the running host, or on its store while it does not run. Ends with an error if anything is damaged.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A reference that brought it, its digest, or the first digits of that; all without.
    #[arg(value_name = "REFERENCE|DIGEST")]
    what: Option<String>,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let done = args.place.find(false)?.maintain(Maintenance::Verify { what: args.what })?;
    let Done::Verified { whole, bytes, damaged } = &done else {
        return Err(Error::internal("another answer than to a check"));
    };
    match output.json() {
        true => output.document(&done)?,
        false => {
            output.line(format_args!("{whole} whole ({})", report::amount(*bytes)))?;
            for problem in damaged {
                output.line(printable(problem))?;
            }
        }
    }
    match damaged.len() {
        0 => Ok(()),
        count => Err(Error::storage(format!(
            "{count} of {} artifacts were damaged and are set aside; the next start that needs one fetches it again. \
             Replace the medium if it happens again",
            *whole + count as u64
        ))),
    }
}
