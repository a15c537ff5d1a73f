//! `latticed call`.

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed call";

/// Speak to the running host.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args, output);
    Err(Error::unavailable("`latticed call` is not part of this build"))
}
