//! `latticed artifact publish`: a name under which other boards get an artifact of this one.

use std::path::PathBuf;

use serde_json::json;

use super::place::{self, PlaceArgs};
use crate::{
    artifact::{Reference, Source, inventory::Offered, published::check_name},
    cli::{Output, table::printable},
    error::{Error, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact publish echo echo_s.wasm
  latticed artifact publish echo registry.example.org/echo:1.2
  latticed artifact publish echo --remove

A board with WASMCLOUD_MIRROR_LISTEN serves it on http://THIS-BOARD:PORT/echo; others name that place in WASMCLOUD_MIRRORS
and start mirror://echo. Publishing something newer under the name updates the actors that run from it.";

/// Offer an artifact to other boards under a name.
///
/// What had that name before is replaced in one step. Works on the running host, or on its store while it does not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The name: letters, digits, `.`, `_`, `-`, parts separated by `/`.
    name: String,

    /// A file, or a reference that the host fetches now.
    #[arg(value_name = "FILE|REFERENCE", required_unless_present = "remove", conflicts_with = "remove")]
    what: Option<String>,

    /// Take the name back. The artifact itself stays as long as something else needs it.
    #[arg(long)]
    remove: bool,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    check_name(&args.name)?;
    let Some(what) = args.what else {
        args.place.find(false)?.withdraw(&args.name)?;
        return match output.json() {
            true => output.document(&json!({ "name": args.name, "removed": true })),
            false => output.line(format_args!("{} is published no longer", args.name)),
        };
    };
    let named = |error: Error| error.context(printable(&what));
    let (place, offered) = match file_in(&what) {
        Some(path) => {
            let (digest, bytes, mut file) = place::open(&path)?;
            let place = args.place.find(true)?;
            place.take_in(digest, bytes, &mut file).map_err(named)?;
            (place, Offered::Digest(digest))
        }
        None => (args.place.find(true)?, Offered::Reference(what.clone())),
    };
    let digest = place.publish(&args.name, &offered)?;
    if output.json() {
        return output.document(&json!({
            "name": args.name,
            "digest": format!("sha256:{digest}"),
            "reference": format!("mirror://{}", args.name),
            "pinned": format!("mirror://{}@sha256:{digest}", args.name),
        }));
    }
    output.line(format_args!("mirror://{}@sha256:{digest}", args.name))
}

/// The file that `what` names; `None` for a reference that is fetched.
fn file_in(what: &str) -> Option<PathBuf> {
    match Reference::parse(what) {
        Ok(reference) => match reference.source() {
            Source::File(path) => Some(path.clone()),
            // `localhost/echo` may be both: a file that is there is meant.
            _ if reference.is_fetched() && !PathBuf::from(what).is_file() => None,
            _ => Some(what.into()),
        },
        // Whatever it is, the error about a missing file tells more than one about references.
        Err(_) => Some(what.into()),
    }
}
