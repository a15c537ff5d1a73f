//! `latticed artifact export`: artifacts of this board with their references as one file.

use std::path::PathBuf;

use serde_json::json;

use super::{place::PlaceArgs, progress::Progress};
use crate::{
    artifact::{
        bundle,
        inventory::{Stocked, parse_digest},
        layout::Item,
    },
    cli::{Output, output_file, table::printable},
    error::{Error, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed artifact export /media/stick/site.tar
  latticed artifact export site.tar echo registry.example.org/counter:1.2
  latticed artifact export site.tar sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824

The file is an OCI image layout in a tar archive: other tools can copy it into a registry.";

/// Write artifacts with their references into one file.
///
/// Works on the running host, or on its store while it does not run.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file to write; one that is there is replaced.
    file: PathBuf,

    /// What to export: digests, references, published names. Default: everything in stock.
    #[arg(value_name = "WHAT")]
    what: Vec<String>,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let place = args.place.find(false)?;
    let chosen = choose(place.inventory()?, &args.what)?;
    let all: u64 = chosen.iter().map(|one| one.bytes).sum();
    let mut progress = Progress::new(format!("writing {}", args.file.display()), output.json());
    output_file::write(&args.file, output_file::PUBLIC, true, "", |sink| {
        let mut writer = bundle::Writer::new(sink)?;
        let mut done = 0;
        for one in &chosen {
            let digest = parse_digest(&one.digest)?;
            let item = Item {
                digest: Some(digest),
                bytes: one.bytes,
                manifest: None,
                references: one.references.clone(),
                names: one.names.clone(),
            };
            writer.add(item, &mut *place.content(digest)?)?;
            done += one.bytes;
            progress.tell(done, all);
        }
        writer.finish()
    })?;
    drop(progress);
    if output.json() {
        return output.document(&json!({ "file": args.file.display().to_string(), "artifacts": chosen }));
    }
    output.line(format_args!("{}: {} artifacts, {all} bytes", args.file.display(), chosen.len()))
}

/// Those of `stock` that `what` names, each once.
fn choose(stock: Vec<Stocked>, what: &[String]) -> Result<Vec<Stocked>> {
    if stock.is_empty() {
        return Err(Error::not_found("there are no artifacts here"));
    }
    let is_named = |one: &Stocked, name: &String| {
        one.digest == *name
            || one.digest.strip_prefix("sha256:") == Some(name)
            || one.names.contains(name)
            || one.references.iter().any(|referred| referred.reference == *name)
    };
    if let Some(missing) = what.iter().find(|name| !stock.iter().any(|one| is_named(one, name))) {
        return Err(Error::not_found(format!(
            "nothing in stock is called {}; `latticed artifact list` shows digests, names and references",
            printable(missing)
        )));
    }
    Ok(stock.into_iter().filter(|one| what.is_empty() || what.iter().any(|name| is_named(one, name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{artifact::inventory::Referred, error::Kind};

    #[test]
    fn artifacts_are_chosen_by_all_they_are_called() {
        let one = |number: u8| Stocked {
            digest: format!("sha256:{}", format!("{number:02x}").repeat(32)),
            names: vec![format!("name{number}")],
            references: vec![Referred { reference: format!("nats://a/{number}"), manifest: None }],
            ..Stocked::default()
        };
        let stock = || vec![one(1), one(2), one(3)];
        let chosen = |what: &[&str]| {
            let what: Vec<_> = what.iter().map(|name| (*name).to_owned()).collect();
            choose(stock(), &what)
        };
        assert_eq!(chosen(&[]).unwrap(), stock());
        assert_eq!(chosen(&["name2", "nats://a/2", &"02".repeat(32)]).unwrap(), [one(2)]);
        assert_eq!(chosen(&[&one(3).digest, "name1"]).unwrap(), [one(1), one(3)]);
        assert_eq!(chosen(&["name2", "name4"]).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(choose(Vec::new(), &[]).unwrap_err().kind(), Kind::NotFound);
    }
}
