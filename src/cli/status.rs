//! `latticed status`: what the running host is and does, for people as tables and for programs as JSON.

use std::time::Duration;

use smol::Timer;

use super::{
    Output,
    admin::{HostArgs, seconds},
    report,
};
use crate::{error::Result, task};

const EXAMPLES: &str = "\
Examples:
  latticed status
  latticed status --watch 2
  latticed status --json | jq '.actors[] | {name, calls, errors}'";

/// Show the running host: actors, providers, links, and what is wrong.
///
/// INSTANCES are calls running now and the most that may; FUEL is about one unit per WebAssembly instruction. On a
/// terminal long keys are cut to its width; elsewhere, and with --json, everything is whole.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Show it again every so many seconds, until interrupted.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<Duration>,

    #[command(flatten)]
    host: HostArgs,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let client = args.host.client()?;
    task::block_on(async {
        loop {
            let status = client.status().await?;
            if args.watch.is_some() && output.is_terminal() && !output.json() {
                // Home and clear, as `watch` does.
                output.text("\x1b[H\x1b[2J")?;
            }
            match output.json() {
                true => output.document(&status)?,
                false => output.text(&report::of(&status, output.width()))?,
            }
            output.flush()?;
            match args.watch {
                Some(interval) if !output.is_closed() => Timer::after(interval).await,
                _ => return Ok(()),
            };
        }
    })
}
