//! `latticed claims inspect`: show the claims of a module or token, and whether they hold.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MODULE_LIMIT, Report};
use crate::{
    artifact::file,
    claims::{Account, Actor, Body, Cluster, Now, Operator, Policy, Provider, Role, Token, module, verify_actor},
    cli::Output,
    error::{Error, Result},
};

const EXAMPLE: &str = "\
Examples:
  latticed claims inspect counter_s.wasm
  latticed claims inspect token.jwt --json

It ends with an exit code other than 0 when a host would refuse the claims. Whether a host also demands a certain
issuer is its setting, WASMCLOUD_ALLOWED_ISSUERS.";

/// Show the claims of a module or token, and whether they hold.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// A signed module, a file that holds a token, or the token itself.
    #[arg(value_name = "MODULE|TOKEN")]
    source: String,
}

pub(super) fn run(args: Args, output: &mut Output) -> Result<()> {
    let now = Now::from_system(0);
    let report = if is_token(&args.source) {
        token(&args.source, now)?
    } else {
        let path = Path::new(&args.source);
        let bytes = file::read_blocking(path, MODULE_LIMIT)?;
        of_file(&bytes, now).map_err(|cause| cause.context(path.display()))?
    };
    if output.json() {
        output.document(&report)?;
    } else {
        report.print(output)?;
    }
    report.verdict().map_err(|cause| match is_token(&args.source) {
        true => cause,
        false => cause.context(&args.source),
    })
}

/// Whether the argument is a token itself. No file name begins so by chance: it is `{"` in base64.
fn is_token(source: &str) -> bool {
    source.starts_with("eyJ") && source.split('.').count() == 3 && !Path::new(source).exists()
}

fn of_file(bytes: &[u8], now: Now) -> Result<Report> {
    if bytes.starts_with(&[0x1f, 0x8b]) || bytes.get(257..262) == Some(b"ustar") {
        return Err(Error::usage("it is an archive; `latticed archive inspect` shows what is in it"));
    }
    match std::str::from_utf8(bytes).map(str::trim) {
        Ok(text) if text.starts_with("eyJ") => token(text, now),
        _ => {
            let found = module::extract(bytes)?.ok_or_else(|| Error::invalid("No claims found in source module"))?;
            Report::new(&found.token, now, verify_actor(bytes, &Policy::new(now)).map(drop))
        }
    }
}

/// Members of any kind: the subject tells which it is.
#[derive(Serialize, Deserialize)]
struct Anything {}

impl Body for Anything {
    const NOUN: &'static str = "unknown";
    const SUBJECT: Option<Role> = None;
    const ISSUERS: &'static [Role] = &[];
}

fn token(text: &str, now: Now) -> Result<Report> {
    let subject = Token::<Anything>::parse(text)?.claims().subject_key()?;
    match subject.role() {
        Role::Module => typed::<Actor>(text, now),
        Role::Service => typed::<Provider>(text, now),
        Role::Account => typed::<Account>(text, now),
        Role::Operator => typed::<Operator>(text, now),
        Role::Cluster => typed::<Cluster>(text, now),
        other => Err(Error::invalid(format!(
            "the token is about the {other} key {subject}; it is none of the lattice's, perhaps a NATS token"
        ))),
    }
}

fn typed<B: Body>(text: &str, now: Now) -> Result<Report> {
    let token = Token::<B>::parse(text)?;
    Report::new(&token, now, token.check(now))
}
