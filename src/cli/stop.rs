//! `latticed stop`.

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed stop";

/// Speak to the running host.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args, output);
    Err(Error::unavailable("`latticed stop` is not part of this build"))
}
