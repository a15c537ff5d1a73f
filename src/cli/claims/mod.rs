//! `latticed claims`: sign modules, look into claims, write tokens.

mod inspect;
mod options;
mod report;
mod sign;
mod token;

pub(super) use options::{IssuerAndSubject, Labels, Names};
pub(super) use report::{Report, row};

use super::Output;
use crate::{artifact::Limit, error::Result};

const EXAMPLES: &str = "\
Examples:
  latticed claims sign counter.wasm --issuer account.nk --subject counter.nk \\
      --name Counter --cap wasmcloud:httpserver --cap wasmcloud:keyvalue --rev 1 --ver 0.1.0
  latticed claims inspect counter_s.wasm
  latticed claims token operator --issuer operator.nk --name Acme";

/// Largest module that is signed or inspected, bytes. Actors have some hundred KiB; this is far beyond what a board could
/// load and keeps a mistyped name of a disk image from filling the memory.
const MODULE_LIMIT: Limit = Limit::fixed(256 * 1024 * 1024);

/// Sign modules, inspect claims, write tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Sign(sign::Args),
    Inspect(inspect::Args),
    Token(token::Args),
}

/// Runs the command.
///
/// # Errors
/// Each command's own.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    match args.command {
        Command::Sign(args) => sign::run(args, output),
        Command::Inspect(args) => inspect::run(args, output),
        Command::Token(args) => token::run(args.command, output),
    }
}
