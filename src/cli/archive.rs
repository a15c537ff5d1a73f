//! `latticed archive`: write and look into provider archives.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Output,
    claims::{IssuerAndSubject, Names, Report, row},
    output_file,
};
use crate::{
    artifact::{Limit, file},
    claims::{
        Claims, Now, Provider, Token,
        archive::{self, Contents, Wanted},
        archive_writer::{self, Source},
    },
    error::{Context, Error, Kind, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed archive create --issuer account.nk --subject kv.nk --name 'Acme KV' --vendor Acme \\
      --capid wasmcloud:keyvalue --binary x86_64-linux=kv-amd64 --binary aarch64-linux=kv-arm64
  latticed archive inspect acme_kv.par.gz";

const CREATE_EXAMPLE: &str = "\
Example:
  latticed archive create --issuer account.nk --subject kv.nk --name 'Acme KV' --vendor Acme \\
      --capid wasmcloud:keyvalue --rev 1 --ver 0.1.0 --compress \\
      --binary x86_64-linux=kv-amd64 --binary aarch64-linux=kv-arm64 --out acme_kv.par.gz";

const INSPECT_EXAMPLE: &str = "\
Example:
  latticed archive inspect acme_kv.par.gz

It ends with an exit code other than 0 when a host would refuse the archive.";

/// Longest JSON schema that is read, bytes; it travels in a token.
const SCHEMA_LIMIT: Limit = Limit::fixed(128 * 1024);

/// Create and inspect provider archives.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Sign binaries of a provider and write them into one archive.
    #[command(after_help = CREATE_EXAMPLE)]
    Create(Box<Create>),
    /// Show what an archive holds, and whether it holds together.
    #[command(after_help = INSPECT_EXAMPLE)]
    Inspect(Inspect),
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    keys: IssuerAndSubject,
    #[command(flatten)]
    provider: ProviderOptions,
    /// Compress the archive with gzip.
    #[arg(long)]
    compress: bool,
    /// Where to write it. Default: the provider's name with .par or .par.gz.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Hashes by target for the token, and the hashed files for the archive.
pub(super) type Hashed = (BTreeMap<String, String>, Vec<Source<File>>);

/// What a provider's token says.
#[derive(Debug, clap::Args)]
pub(super) struct ProviderOptions {
    /// Name for people.
    #[arg(long)]
    name: String,
    /// Who makes the provider.
    #[arg(long)]
    vendor: String,
    /// Contract it serves: wasmcloud:keyvalue.
    #[arg(long, value_name = "CONTRACT")]
    capid: String,
    #[command(flatten)]
    names: Names,
    /// JSON schema of the provider's configuration.
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Binary for one target, ARCH-OS as in aarch64-linux; repeat it for each target.
    #[arg(long = "binary", value_name = "TARGET=FILE", required = true, value_parser = target_and_path)]
    binaries: Vec<(String, PathBuf)>,
}

impl ProviderOptions {
    /// Opens and hashes every binary.
    pub fn open_binaries(&self) -> Result<Hashed> {
        let mut hashes = BTreeMap::new();
        let mut sources = Vec::new();
        for (target, path) in &self.binaries {
            archive_writer::check_target(target)?;
            let (source, hash) = open(target, path)?;
            if source.bytes > archive::MAX_BINARY_BYTES {
                return Err(Error::limit(format!(
                    "{} has {} bytes; hosts read at most {}",
                    path.display(),
                    source.bytes,
                    archive::MAX_BINARY_BYTES
                )));
            }
            if hashes.insert(target.clone(), hash).is_some() {
                return Err(Error::usage(format!("--binary {target} is given twice")));
            }
            sources.push(source);
        }
        Ok((hashes, sources))
    }

    /// The token's body, vouching for `target_hashes`.
    pub fn body(&self, target_hashes: BTreeMap<String, String>) -> Result<Provider> {
        Ok(Provider {
            name: Some(self.name.clone()),
            capid: self.capid.clone(),
            vendor: self.vendor.clone(),
            rev: self.names.rev,
            ver: self.names.ver.clone(),
            target_hashes,
            config_schema: self.schema.as_deref().map(read_schema).transpose()?,
        })
    }

    /// Name of the archive when none is given.
    fn file_name(&self, compress: bool) -> String {
        let known = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' };
        let name: String = self.name.chars().map(known).collect();
        format!("{name}.par{}", if compress { ".gz" } else { "" })
    }
}

#[derive(Debug, clap::Args)]
struct Inspect {
    /// The archive, .par or .par.gz.
    archive: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// `Usage`, `NotFound`, `Denied`, `Invalid`, `Limit`, `Storage` for what was given or found, naming it.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    match args.command {
        Command::Create(args) => create(*args, output),
        Command::Inspect(args) => inspect(&args.archive, output),
    }
}

fn create(args: Create, output: &mut Output) -> Result<()> {
    let (issuer, subject) = args.keys.find::<Provider>()?;
    let (hashes, sources) = args.provider.open_binaries()?;
    let targets: Vec<String> = hashes.keys().cloned().collect();
    let claims = Claims::new(subject.to_string(), args.provider.body(hashes)?, Now::from_system(0))?;
    let token = Token::sign(claims, &issuer)?;
    let out = args.out.unwrap_or_else(|| args.provider.file_name(args.compress).into());
    output_file::write(&out, output_file::PUBLIC, true, "", |file| {
        archive_writer::write(file, &token, sources, args.compress).map(drop)
    })?;

    if output.json() {
        return output.document(&json!({
            "file": out.display().to_string(),
            "subject": token.claims().sub,
            "issuer": token.claims().iss,
            "targets": targets,
            "token": token.text(),
        }));
    }
    output.line(format_args!(
        "{} is {subject}, signed by {}, for {}",
        out.display(),
        issuer.public_key(),
        targets.join(", ")
    ))
}

/// One binary as `archive inspect --json` shows it.
#[derive(Serialize)]
struct InspectedBinary<'a> {
    target: &'a str,
    bytes: u64,
    hash: &'a str,
    valid: bool,
}

#[derive(Serialize)]
struct InspectedArchive<'a> {
    #[serde(flatten)]
    report: &'a Report,
    compressed: bool,
    binaries: Vec<InspectedBinary<'a>>,
}

fn inspect(path: &Path, output: &mut Output) -> Result<()> {
    let named = |cause: Error| cause.context(path.display());
    let file = File::open(path).map_err(|cause| cannot_read(path, &cause))?;
    let contents = archive::read(file, Wanted::Everything, &mut io::sink()).map_err(named)?;
    let now = Now::from_system(0);
    let Contents { token, binaries, is_compressed } = &contents;
    let verdict = contents.check_hashes().and_then(|()| token.claims().subject_key()).and_then(|_| token.check(now));
    let report = Report::new(token, now, verdict)?;

    let hashes = &token.claims().body().map_err(named)?.target_hashes;
    let binaries = binaries.iter().map(|binary| {
        let hash = binary.hash.as_deref().unwrap_or_default();
        let valid = hashes.get(&binary.target).is_some_and(|signed| signed == hash);
        InspectedBinary { target: &binary.target, bytes: binary.bytes, hash, valid }
    });
    if output.json() {
        let compressed = *is_compressed;
        output.document(&InspectedArchive { report: &report, compressed, binaries: binaries.collect() })?;
    } else {
        for binary in binaries {
            let verdict = if binary.valid { "hash matches" } else { "HASH DOES NOT MATCH" };
            row(output, "Binary", &format!("{}, {} bytes, {verdict}", binary.target, binary.bytes))?;
        }
        row(output, "Compressed", if *is_compressed { "yes" } else { "no" })?;
        report.print(output)?;
    }
    report.verdict().map_err(named)
}

/// Opens and hashes a binary and leaves it at its start.
fn open(target: &str, path: &Path) -> Result<(Source<File>, String)> {
    let failed = |cause: io::Error| cannot_read(path, &cause);
    let mut content = File::open(path).map_err(failed)?;
    if !content.metadata().map_err(failed)?.is_file() {
        return Err(Error::invalid(format!("--binary {target}: {} is not a regular file", path.display())));
    }
    let (bytes, hash) = archive_writer::hash(&mut content).map_err(failed)?;
    content.rewind().map_err(failed)?;
    Ok((Source { target: target.to_string(), bytes, content }, hash))
}

fn cannot_read(path: &Path, cause: &io::Error) -> Error {
    let kind = match cause.kind() {
        io::ErrorKind::NotFound => Kind::NotFound,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Storage,
    };
    Error::new(kind, format!("cannot read {}: {cause}", path.display()))
}

fn read_schema(path: &Path) -> Result<Value> {
    let bytes = file::read_blocking(path, SCHEMA_LIMIT)?;
    serde_json::from_slice(&bytes).context(Kind::Invalid, format_args!("{} is not JSON", path.display()))
}

fn target_and_path(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((target, path)) if !path.is_empty() => Ok((target.to_string(), path.into())),
        _ => Err("write a target and a file, as in aarch64-linux=target/kv".into()),
    }
}
