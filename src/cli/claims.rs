//! `latticed claims`: sign modules and look into their claims.

use super::Output;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  latticed claims inspect echo_s.wasm";

/// Sign modules, inspect claims, write tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Sign a module.
    Sign,
    /// Show the claims of a module or token.
    Inspect,
    /// Write a token.
    Token,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let _ = (args.command, output);
    Err(Error::unavailable("`latticed claims` is not part of this build"))
}
