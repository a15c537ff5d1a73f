//! `latticed hosts`: who is there, asked of the whole lattice over NATS.

use std::{path::PathBuf, time::Duration};

use super::{
    Output, joining,
    table::{Column, Table},
};
use crate::{
    config::Config,
    error::{Context, Kind, Result},
    lattice::gather,
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed hosts
  WASMCLOUD_CTL_HOST=hub.example latticed hosts --wait-ms 500
  latticed hosts --json | jq -r '.[].id'";

/// List the hosts of the lattice that answer.
///
/// Asks over NATS and gathers answers for a while; a host that does not answer in that time is not listed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// How long to wait for answers, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    wait_ms: u64,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let window = Duration::from_millis(args.wait_ms);
    let hosts =
        task::run(0, gather::hosts(&settings, window)).context(Kind::Internal, "cannot start the main loop")??;
    if output.json() {
        return output.document(&hosts);
    }
    let mut table = Table::new(&[
        ("HOST", Column::Key),
        ("NAME", Column::Text),
        ("VERSION", Column::Text),
        ("UPTIME", Column::Text),
        ("LABELS", Column::Text),
    ]);
    for host in hosts {
        let labels: Vec<String> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([host.id, host.friendly_name, host.version, format!("{} s", host.uptime_seconds), labels.join(" ")]);
    }
    output.text(&table.render(output.width()))
}
