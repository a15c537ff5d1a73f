//! `latticed claims token`: write a token of its own, outside of any module or archive.

use std::path::PathBuf;

use serde_json::json;

use super::{
    IssuerAndSubject, Labels, MODULE_LIMIT, Names,
    options::{Dates, non_empty},
};
use crate::{
    artifact::file,
    claims::{Account, Actor, Body, Claims, Cluster, KeyPair, Now, Operator, Provider, Role, Token, module},
    cli::{Output, archive, key_source},
    error::Result,
};

const EXAMPLES: &str = "\
Examples:
  latticed claims token operator --issuer operator.nk --name Acme
  latticed claims token account --issuer operator.nk --subject account.nk --name 'Acme edge'
  latticed claims token actor --issuer account.nk --subject counter.nk --module counter.wasm

The token is printed on standard output. To sign a module use `latticed claims sign`, for a provider
`latticed archive create`: both put the token where hosts look for it.";

/// Write a token.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// About a module; signed by an account.
    #[command(
        after_help = "Example:\n  latticed claims token actor --issuer account.nk --subject counter.nk --module counter.wasm"
    )]
    Actor(ActorArgs),
    /// About a provider; signed by an account.
    #[command(
        after_help = "Example:\n  latticed claims token provider --issuer account.nk --subject kv.nk --capid wasmcloud:keyvalue --vendor Acme --name 'Acme KV' --binary aarch64-linux=kv"
    )]
    Provider(ProviderArgs),
    /// About an account; signed by an operator.
    #[command(
        after_help = "Example:\n  latticed claims token account --issuer operator.nk --subject account.nk --name 'Acme edge'"
    )]
    Account(OrganisationArgs),
    /// About an operator; signed by itself.
    #[command(after_help = "Example:\n  latticed claims token operator --issuer operator.nk --name Acme")]
    Operator(OperatorArgs),
    /// About a cluster; signed by an operator.
    #[command(
        after_help = "Example:\n  latticed claims token cluster --issuer operator.nk --subject cluster.nk --name 'Acme plant 1'"
    )]
    Cluster(OrganisationArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ActorArgs {
    #[command(flatten)]
    keys: IssuerAndSubject,
    /// Name for people.
    #[arg(long)]
    name: Option<String>,
    /// Module that the token shall vouch for. Without one the token fits no module.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    dates: Dates,
}

#[derive(Debug, clap::Args)]
pub(super) struct ProviderArgs {
    #[command(flatten)]
    keys: IssuerAndSubject,
    #[command(flatten)]
    provider: archive::ProviderOptions,
    #[command(flatten)]
    dates: Dates,
}

#[derive(Debug, clap::Args)]
pub(super) struct OrganisationArgs {
    #[command(flatten)]
    keys: IssuerAndSubject,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, clap::Args)]
pub(super) struct OperatorArgs {
    /// Seed of the operator, who signs about itself.
    #[arg(long, value_name = "FILE|env:NAME")]
    issuer: String,
    #[command(flatten)]
    about: About,
}

#[derive(Debug, clap::Args)]
struct About {
    /// Name for people.
    #[arg(long)]
    name: Option<String>,
    /// Further public key that may sign in its place; repeat it, or separate several by commas.
    #[arg(long = "signer", value_name = "KEY", value_delimiter = ',')]
    signers: Vec<String>,
    #[command(flatten)]
    dates: Dates,
}

impl About {
    /// The members of an account, operator or cluster token: name and valid signers, which have the subject's role.
    fn members(&self, role: Role) -> Result<(Option<String>, Option<Vec<String>>)> {
        let signers = self
            .signers
            .iter()
            .map(|signer| key_source::public_key("--signer", signer, &[role]).map(|key| key.to_string()));
        Ok((self.name.clone(), Some(signers.collect::<Result<_>>()?)))
    }
}

pub(super) fn run(command: Command, output: &mut Output) -> Result<()> {
    match command {
        Command::Actor(args) => actor(args, output),
        Command::Provider(args) => {
            let (issuer, subject) = args.keys.find::<Provider>()?;
            let (hashes, _) = args.provider.open_binaries()?;
            write(args.provider.body(hashes)?, subject.to_string(), &issuer, &args.dates, output)
        }
        Command::Account(args) => {
            let (issuer, subject) = args.keys.find::<Account>()?;
            let (name, valid_signers) = args.about.members(Role::Account)?;
            write(Account { name, valid_signers }, subject.to_string(), &issuer, &args.about.dates, output)
        }
        Command::Cluster(args) => {
            let (issuer, subject) = args.keys.find::<Cluster>()?;
            let (name, valid_signers) = args.about.members(Role::Cluster)?;
            write(Cluster { name, valid_signers }, subject.to_string(), &issuer, &args.about.dates, output)
        }
        Command::Operator(args) => {
            let issuer = key_source::key_pair("--issuer", &args.issuer, Operator::ISSUERS)?;
            let subject = issuer.public_key().to_string();
            let (name, valid_signers) = args.about.members(Role::Operator)?;
            write(Operator { name, valid_signers }, subject, &issuer, &args.about.dates, output)
        }
    }
}

fn actor(args: ActorArgs, output: &mut Output) -> Result<()> {
    let (issuer, subject) = args.keys.find::<Actor>()?;
    let module_hash = match &args.module {
        Some(path) => module::canonical_hash(&file::read_blocking(path, MODULE_LIMIT)?)
            .map_err(|cause| cause.context(path.display()))?,
        None => String::new(),
    };
    let body = Actor {
        name: args.name,
        module_hash,
        call_alias: args.labels.call_alias()?,
        tags: non_empty(args.labels.tags),
        caps: non_empty(args.labels.caps),
        rev: args.names.rev,
        ver: args.names.ver,
        ..Actor::default()
    };
    write(body, subject.to_string(), &issuer, &args.dates, output)
}

fn write<B: Body>(body: B, subject: String, issuer: &KeyPair, dates: &Dates, output: &mut Output) -> Result<()> {
    let now = Now::from_system(0);
    let token: Token<B> = dates.sign(Claims::new(subject, body, now)?, now, issuer)?;
    if output.json() {
        let claims = token.claims();
        return output.document(&json!({ "token": token.text(), "subject": claims.sub, "issuer": claims.iss }));
    }
    output.line(token.text())
}
