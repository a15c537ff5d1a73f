//! `latticed claims sign`: put a token into a module.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    IssuerAndSubject, Labels, MODULE_LIMIT, Names,
    options::{Dates, non_empty},
};
use crate::{
    artifact::file,
    claims::{Actor, Claims, Now, module},
    cli::{Output, output_file},
    error::{Context, Error, Kind, Result},
};

const EXAMPLE: &str = "\
Example:
  latticed keys gen account --out account.nk
  latticed keys gen module --out counter.nk
  latticed claims sign counter.wasm --issuer account.nk --subject counter.nk --name Counter \\
      --cap wasmcloud:httpserver,wasmcloud:keyvalue --rev 1 --ver 0.1.0

This writes counter_s.wasm. A token that the module already has is replaced.";

/// Sign a module: say who made it, what it is and what it may use.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The module, .wasm.
    module: PathBuf,
    #[command(flatten)]
    keys: IssuerAndSubject,
    /// Name for people. Default: the file's name.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    dates: Dates,
    /// Where to write the signed module. Default: beside the module, counter.wasm becoming counter_s.wasm.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: Args, output: &mut Output) -> Result<()> {
    let stem = stem(&args.module)?;
    let out = args.out.unwrap_or_else(|| args.module.with_file_name(format!("{stem}_s.wasm")));
    let (issuer, subject) = args.keys.find::<Actor>()?;
    let source = file::read_blocking(&args.module, MODULE_LIMIT)?;
    let now = Now::from_system(0);
    let body = Actor {
        name: Some(args.name.unwrap_or(stem)),
        call_alias: args.labels.call_alias()?,
        tags: non_empty(args.labels.tags),
        caps: non_empty(args.labels.caps),
        rev: args.names.rev,
        ver: args.names.ver,
        ..Actor::default()
    };
    let claims = args.dates.set(Claims::new(subject.to_string(), body, now)?, now)?;
    let (signed, token) = module::sign(&source, claims, &issuer)
        .map_err(|cause| cause.context(format_args!("cannot sign {}", args.module.display())))?;
    output_file::write(&out, output_file::PUBLIC, true, "", |file| {
        file.write_all(&signed).context(Kind::Storage, format_args!("cannot write {}", out.display()))
    })?;

    if output.json() {
        return output.document(&json!({
            "file": out.display().to_string(),
            "subject": token.claims().sub,
            "issuer": token.claims().iss,
            "module_hash": token.claims().body()?.module_hash,
            "token": token.text(),
        }));
    }
    output.line(format_args!("{} is {subject}, signed by {}", out.display(), issuer.public_key()))
}

fn stem(module: &Path) -> Result<String> {
    let stem = module.file_stem().ok_or_else(|| Error::usage(format!("{} does not name a file", module.display())))?;
    stem.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("the name of {} is not text; give --name and --out", module.display())))
}
