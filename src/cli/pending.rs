//! `latticed pending`: commands from the lattice that were accepted and are not carried out yet, and how to remove them.

use serde_json::json;

use super::{
    Output,
    admin::HostArgs,
    report::duration,
    table::{
        Column::{Number, Text},
        Table,
    },
};
use crate::{
    error::{Error, Result},
    host::uplink::PendingCommand,
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed pending                   list them
  latticed pending --remove ID       give one up
  latticed pending --remove-all      give all of them up";

/// Show commands from the lattice that were accepted and wait, or give them up.
///
/// A command waits while what it starts is fetched. It is tried for a week, at growing distances of up to six hours; when
/// there are too many, the oldest are given up.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Give up the command with this ID; may be given several times.
    #[arg(long, value_name = "ID")]
    remove: Vec<String>,

    /// Give up all of them.
    #[arg(long, conflicts_with = "remove")]
    remove_all: bool,

    #[command(flatten)]
    host: HostArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let client = args.host.client()?;
    let (removed, pending) = task::block_on(async {
        let ids = match args.remove_all {
            true => client.status().await?.pending.into_iter().map(|one| one.id).collect(),
            false => args.remove.clone(),
        };
        for id in &ids {
            match client.remove_pending(id).await {
                // It ended by itself between the list and now.
                Err(error) if args.remove_all && error.kind() == crate::error::Kind::NotFound => {}
                outcome => outcome?,
            }
        }
        Ok::<_, Error>((ids, client.status().await?.pending))
    })?;
    if output.json() {
        return output.document(&json!({ "removed": removed, "pending": pending }));
    }
    for id in &removed {
        output.line(format_args!("given up: {id}"))?;
    }
    if !removed.is_empty() {
        return Ok(());
    }
    match pending.is_empty() {
        true => output.line(format_args!("No command waits.")),
        false => {
            let text = table(&pending).render(output.width());
            output.text(&text)
        }
    }
}

/// The commands as a table.
pub(super) fn table(pending: &[PendingCommand]) -> Table {
    let mut table = Table::new(&[
        ("ID", Text),
        ("COMMAND", Text),
        ("ABOUT", Text),
        ("ATTEMPTS", Number),
        ("NEXT", Text),
        ("REASON", Text),
    ]);
    for one in pending {
        table.row([
            one.id.clone(),
            words(&one.command).to_owned(),
            one.about.clone(),
            one.attempts.to_string(),
            one.next_try_seconds.map_or_else(|| "under way".to_owned(), |seconds| format!("in {}", duration(seconds))),
            one.reason.clone(),
        ]);
    }
    table
}

/// A command's word for people.
fn words(command: &str) -> &str {
    match command {
        "la" => "start actor",
        "sa" => "stop actor",
        "scale" => "scale actor",
        "upd" => "update actor",
        "lp" => "start provider",
        "sp" => "stop provider",
        other => other,
    }
}
