//! `latticed keys`: make and show nkeys.
//!
//! A seed is shown in one place only: the output of `keys gen` without `--out`.

use std::path::PathBuf;

use serde::Serialize;

use super::{Output, key_source, output_file};
use crate::{
    claims::{KeyPair, PublicKey, Role},
    error::{Context, Kind, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed keys gen account --out account.nk   the key that signs your actors
  latticed keys gen module --out counter.nk    the identity of one actor
  latticed keys show account.nk                its public key, A...

The seed is the secret: whoever has it can sign in its name. The public key may be known to all.";

const GEN_EXAMPLE: &str = "\
Example:
  latticed keys gen account --out account.nk";

const SHOW_EXAMPLE: &str = "\
Examples:
  latticed keys show account.nk
  latticed keys show env:ISSUER_SEED";

/// Make and show keys.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new key.
    #[command(after_help = GEN_EXAMPLE)]
    Gen(Gen),
    /// Show the public key of a seed, or check a public key.
    #[command(after_help = SHOW_EXAMPLE)]
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Gen {
    /// host, cluster, operator, account, user, module (an actor) or service (a provider).
    role: String,
    /// Write the seed to FILE, readable by you alone, instead of showing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite FILE. The key in it is lost.
    #[arg(long, requires = "out")]
    force: bool,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// A file that holds a seed, env:NAME for one in the environment, or a public key.
    #[arg(value_name = "FILE|env:NAME|KEY")]
    key: String,
}

/// What both commands answer.
#[derive(Serialize)]
struct Shown<'a> {
    role: &'static str,
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
}

impl<'a> Shown<'a> {
    fn new(key: PublicKey) -> Self {
        Self { role: key.role().name(), public_key: key.to_string(), seed: None, file: None }
    }

    fn print(&self, output: &mut Output) -> Result<()> {
        if output.json() {
            return output.document(self);
        }
        output.line(format_args!("Role        {}", self.role))?;
        output.line(format_args!("Public key  {}", self.public_key))?;
        if let Some(seed) = self.seed {
            output.line(format_args!("Seed        {seed}"))?;
            output.line("The seed is a secret; keep it where only you can read it.")?;
        }
        if let Some(file) = &self.file {
            output.line(format_args!("Seed file   {file}"))?;
        }
        Ok(())
    }
}

/// Runs the command.
///
/// # Errors
/// `Usage` for an unknown role; `Conflict` when the file exists; what reading or writing a seed fails with.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    match args.command {
        Command::Gen(args) => generate(args, output),
        Command::Show(args) => Shown::new(key_source::public_key("keys show", &args.key, &[])?).print(output),
    }
}

fn generate(args: Gen, output: &mut Output) -> Result<()> {
    let role: Role = args.role.parse()?;
    let pair = KeyPair::generate(role)?;
    let seed = pair.seed();
    let mut shown = Shown::new(pair.public_key());
    match args.out {
        None => shown.seed = Some(seed.expose()),
        Some(path) => {
            let remedy = "choose another name, or --force to lose the key in it";
            output_file::write(&path, output_file::SECRET, args.force, remedy, |out| {
                // No line end: wash takes the whole file for the seed.
                write!(out, "{}", seed.expose()).context(Kind::Storage, format_args!("cannot write {}", path.display()))
            })?;
            shown.file = Some(path.display().to_string());
        }
    }
    shown.print(output)
}
