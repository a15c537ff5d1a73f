//! The front door: hand the command line to `cli` and turn its answer into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    latticed::cli::main()
}
