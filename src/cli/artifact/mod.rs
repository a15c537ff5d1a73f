//! `latticed artifact`: actors and provider archives as files, wherever they are kept.
//!
//! One file per command. [`place`] finds the host or its store, [`progress`] draws the line people watch.

mod export;
mod gc;
mod import;
mod list;
mod pin;
mod place;
mod progress;
mod publish;
mod pull;
mod push;
mod show;
mod verify;
mod watch;

pub use watch::watch;

use super::Output;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  latticed artifact push echo_s.wasm nats://actors/echo    put an actor where every host of the lattice finds it
  latticed artifact list nats://actors
  latticed artifact pull nats://actors/echo --out echo.wasm
  latticed artifact publish echo echo_s.wasm               offer it to the other boards of a site
  latticed artifact export site.tar                        all there is, for a stick
  latticed artifact verify                                 whether all of it is whole

A host then starts it from the reference nats://actors/echo, or from the pinned one that push prints.";

/// Move actors and provider archives between files and where hosts find them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Push(push::Args),
    Pull(pull::Args),
    List(list::Args),
    Publish(publish::Args),
    Export(export::Args),
    Import(import::Args),
    Show(show::Args),
    Pin(pin::Args),
    Gc(gc::Args),
    Verify(verify::Args),
}

/// Runs the command.
///
/// # Errors
/// Those of the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    match args.command {
        Command::Push(args) => push::run(args, output),
        Command::Pull(args) => pull::run(args, output),
        Command::List(args) => list::run(args, output),
        Command::Publish(args) => publish::run(args, output),
        Command::Export(args) => export::run(args, output),
        Command::Import(args) => import::run(args, output),
        Command::Show(args) => show::run(args, output),
        Command::Pin(args) => pin::run(args, output),
        Command::Gc(args) => gc::run(args, output),
        Command::Verify(args) => verify::run(args, output),
    }
}
