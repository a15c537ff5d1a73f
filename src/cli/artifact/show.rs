//! `latticed artifact show`: everything this board knows of one artifact.

use super::place::PlaceArgs;
use crate::{
    artifact::inventory::Stocked,
    cli::{Output, report, table::printable},
    error::{Error, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact show registry.example.org/echo:1.2
  latticed artifact show 3f2a9c01 --json";

/// Fewest digits of a digest that name an artifact.
const MIN_DIGITS: usize = 8;

/// Show what is known of an artifact of this board.
///
/// Works on the running host, or on its store while it does not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A reference that brought it, a name it is published under, its digest, or the first digits of that.
    #[arg(value_name = "REFERENCE|NAME|DIGEST")]
    what: String,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let stock = args.place.find(false)?.inventory()?;
    let one = find(&stock, &args.what)?;
    if output.json() {
        return output.document(one);
    }
    output.line(format_args!("{}, {}", one.digest, report::amount(one.bytes)))?;
    for referred in &one.references {
        let manifest = referred.manifest.as_ref().map(|manifest| format!(" by the manifest {manifest}"));
        output.line(format_args!("  from {}{}", printable(&referred.reference), manifest.unwrap_or_default()))?;
    }
    for name in &one.names {
        output.line(format_args!("  published as {}", printable(name)))?;
    }
    output.line(match (one.pinned, one.needed) {
        (true, true) => "  stays: pinned, and needed by what should run or is published",
        (true, false) => "  stays: pinned",
        (false, true) => "  stays: needed by what should run or is published",
        (false, false) => "  goes when room is needed",
    })
}

fn find<'a>(stock: &'a [Stocked], what: &str) -> Result<&'a Stocked> {
    let named = |one: &&Stocked| {
        one.references.iter().any(|referred| referred.reference == what) || one.names.iter().any(|name| name == what)
    };
    if let Some(one) = stock.iter().find(named) {
        return Ok(one);
    }
    let digits = what.strip_prefix("sha256:").unwrap_or(what);
    let mut found = stock
        .iter()
        .filter(|one| digits.len() >= MIN_DIGITS && one.digest.trim_start_matches("sha256:").starts_with(digits));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => Err(Error::usage(format!("several artifacts begin with {digits}; write more digits"))),
        (None, _) => Err(Error::not_found(format!(
            "there is no artifact {} here; `latticed artifact list` shows what there is",
            printable(what)
        ))),
    }
}
