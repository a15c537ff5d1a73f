//! `latticed run`: start a host in the foreground.

use std::path::PathBuf;

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed run tests/quickstart/counter.yaml
  curl http://127.0.0.1:8080/";

/// Start a host, with the actors and links of a manifest if one is given.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// wadm application manifest (YAML); without one the host starts what it ran before.
    pub file: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args, output);
    Err(Error::unavailable("`latticed run` is not part of this build"))
}
