//! `latticed keys`: make and show nkeys.

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed keys gen module";

/// Make and show keys.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new key.
    Gen,
    /// Show the public key of a seed.
    Show,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args.command, output);
    Err(Error::unavailable("`latticed keys` is not part of this build"))
}
