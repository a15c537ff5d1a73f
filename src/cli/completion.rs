//! `latticed completion`: a completion script for a shell, made from the command line's own description.

use clap::{Arg, Command, builder::PossibleValuesParser};
use clap_complete::{Generator, generate, shells};

use super::Output;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  latticed completion bash > /etc/bash_completion.d/latticed
  latticed completion zsh > \"${fpath[1]}/_latticed\"
  latticed completion fish > ~/.config/fish/completions/latticed.fish";

/// The shells people use on the systems this program runs on; each more costs about 8 KiB of binary.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

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
    let script = match args.shell {
        Shell::Bash => script(shells::Bash),
        Shell::Zsh => script(shells::Zsh),
        Shell::Fish => script(shells::Fish),
    };
    output.bytes(&script)
}

fn script(shell: impl Generator) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut described(), "latticed", &mut script);
    script
}

/// The command line, with `help` for the names of commands instead of for the whole tree once more at each branch: that is
/// half of a script, which a shell reads at each start.
fn described() -> Command {
    let command = without_help(super::command());
    // For as long as the process lives, which ends with the script.
    let names: Vec<&'static str> = command.get_subcommands().map(|one| &*one.get_name().to_owned().leak()).collect();
    let asked = Arg::new("COMMAND").help("The command to explain").value_parser(PossibleValuesParser::new(names));
    command.subcommand(Command::new("help").about("Explain a command and give an example of it").arg(asked))
}

fn without_help(command: Command) -> Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}
