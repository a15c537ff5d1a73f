//! `latticed artifact import`: what `export` wrote, into this board.

use std::path::PathBuf;

use serde_json::json;

use super::{
    place::{self, Place, PlaceArgs},
    progress::Progress,
};
use crate::{
    artifact::{Reference, bundle, inventory::Offered, layout::Item},
    cli::{Output, table::printable},
    error::{Error, Kind, Result},
    log,
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact import /media/stick/site.tar
  latticed artifact import /media/stick/site.tar --publish    offer its names to other boards, too

All of the file is checked before anything of it is used. References of the kind that are fetched start from the imported
content when their source cannot be reached, and without asking anybody where they carry its digest.";

/// Read artifacts with their references from one file.
///
/// Takes what `export` wrote, and OCI image layouts of other tools. Works on the running host, or on its store while it does
/// not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file.
    file: PathBuf,

    /// Publish what it holds under the names it had where it came from: boards that follow them are updated.
    #[arg(long)]
    publish: bool,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let shown = args.file.display().to_string();
    let (mut file, _) = place::open_file(&args.file)?;
    let items = bundle::read(&mut file).map_err(|error| error.context(&shown))?;
    let place = args.place.find(true)?;
    let all: u64 = items.iter().map(|item| item.bytes).sum();
    let mut progress = Progress::new(format!("reading {shown}"), output.json());
    let mut done = 0;
    bundle::contents(&mut file, &items, |digest, bytes, content| {
        place.take_in(digest, bytes, content)?;
        done += bytes;
        progress.tell(done, all);
        Ok(())
    })
    .map_err(|error| error.context(&shown))?;
    drop(progress);
    // Only now: a reference or a name never points to what is not there.
    let mut taken = Vec::new();
    for item in &items {
        taken.push(describe(&place, item, args.publish)?);
    }
    if output.json() {
        return output.document(&json!({ "file": shown, "artifacts": taken }));
    }
    for one in &taken {
        let text = |list: &serde_json::Value| match list.as_array().map(Vec::as_slice) {
            None | Some([]) => String::new(),
            Some(list) => {
                list.iter().filter_map(|one| one.as_str()).map(|one| format!("\n  {}", printable(one))).collect()
            }
        };
        let digest = one["digest"].as_str().unwrap_or_default();
        output.line(format_args!(
            "{digest}  {} bytes{}{}",
            one["bytes"],
            text(&one["references"]),
            text(&one["published"])
        ))?;
    }
    Ok(())
}

/// Records what stands for `item`, and says what was recorded.
fn describe(place: &Place, item: &Item, publish: bool) -> Result<serde_json::Value> {
    let digest = item.digest.ok_or_else(|| Error::internal("an archive gave an artifact without a digest"))?;
    let (mut references, mut published) = (Vec::new(), Vec::new());
    for referred in &item.references {
        // Names of other tools may be no references at all.
        if !Reference::parse(&referred.reference).is_ok_and(|reference| reference.is_fetched()) {
            continue;
        }
        match place.refer(&referred.reference, digest, item.manifest) {
            Ok(()) => references.push(referred.reference.as_str()),
            // It pins a manifest that the archive does not hold, so nobody can say that this is its content.
            Err(error) if error.kind() == Kind::Invalid => log::warn!("a reference was not taken over: {error}"),
            Err(error) => return Err(error),
        }
    }
    if publish {
        for name in &item.names {
            place.publish(name, &Offered::Digest(digest))?;
            published.push(format!("mirror://{name}"));
        }
    }
    Ok(json!({
        "digest": format!("sha256:{digest}"),
        "bytes": item.bytes,
        "references": references,
        "published": published,
    }))
}
