//! `latticed completion`: a completion script for a shell, made from the command line's own description.

use clap_complete::{Shell, generate};

use super::Output;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  latticed completion bash > /etc/bash_completion.d/latticed
  latticed completion zsh > \"${fpath[1]}/_latticed\"
  latticed completion fish > ~/.config/fish/completions/latticed.fish";

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell that shall complete.
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut super::command(), "latticed", &mut script);
    output.bytes(&script)
}
