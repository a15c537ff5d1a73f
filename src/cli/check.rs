//! `latticed check`: say what a host would do, without doing it.

use std::path::PathBuf;

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed check counter.yaml";

/// Check settings, a manifest or a module without starting anything.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Manifest, module or host_config.json; without one the settings in effect are shown.
    pub file: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args, output);
    Err(Error::unavailable("`latticed check` is not part of this build"))
}
