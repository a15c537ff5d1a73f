//! `latticed archive`: write and look into provider archives.

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed archive inspect kvredis.par.gz";

/// Create and inspect provider archives.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write an archive.
    Create,
    /// Show what an archive holds.
    Inspect,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args.command, output);
    Err(Error::unavailable("`latticed archive` is not part of this build"))
}
