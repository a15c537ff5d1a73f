//! `latticed man`: the manual page, made from the command line's own description.

use super::Output;
use crate::error::{Context, Kind, Result};

const EXAMPLES: &str = "\
Example:
  latticed man > /usr/local/share/man/man1/latticed.1";

/// Print the manual page.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs the command.
pub fn run(Args {}: Args, output: &mut Output) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(super::command()).render(&mut page).context(Kind::Internal, "cannot make the manual page")?;
    output.bytes(&page)
}
