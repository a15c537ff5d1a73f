//! The command line: one file per subcommand, each with its `Args` and a `run` that takes them.
//!
//! Called by `main.rs` only. It wires the rooms below together and turns their errors into exit codes; it holds no
//! logic that a room below could own. Results go to stdout through [`Output`], errors to stderr as one line
//! `latticed: …`, or as one JSON object with `--json`.

pub mod admin;
pub mod archive;
pub mod artifact;
pub mod call;
pub mod check;
pub mod claims;
pub mod completion;
pub mod events;
pub mod hosts;
mod joining;
mod key_source;
pub mod keys;
mod logins;
pub mod man;
mod manifests;
mod mirroring;
pub mod output;
mod output_file;
pub mod payload;
pub mod pending;
mod preflight;
mod providers;
mod reload;
pub mod report;
pub mod run;
pub mod status;
pub mod stop;
pub mod table;

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind};

pub use output::Output;

use crate::{
    dumpable,
    error::{Error, Kind, Result},
    log,
    web::answer::ErrorBody,
};

const EXAMPLES: &str = "\
Examples:
  latticed check tests/quickstart/counter.yaml   what a host would do with a manifest
  latticed run tests/quickstart/counter.yaml     start a host with the actors and links of it
  latticed status                                what runs on it
  latticed call counter HttpServer.HandleRequest \\
    '{\"method\":\"GET\",\"path\":\"/\",\"queryString\":\"\",\"header\":{},\"body\":{\"$bin\":\"\"}}'
  latticed stop                                  drain and stop it

`latticed help COMMAND` explains a command and gives an example of it.";

/// A wasmCloud lattice host for small Linux boards.
///
/// It runs signed WebAssembly actors in an interpreter and links them to capabilities such as an HTTP server and a
/// durable key-value store. It needs no network to start and no other program to run.
#[derive(Debug, Parser)]
#[command(name = "latticed", version, after_help = EXAMPLES, max_term_width = 100, disable_help_subcommand = false)]
struct Cli {
    /// Print results and errors as JSON.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Call(call::Args),
    Status(status::Args),
    Hosts(hosts::Args),
    Events(events::Args),
    Stop(stop::Args),
    Pending(pending::Args),
    Check(check::Args),
    Keys(keys::Args),
    Claims(claims::Args),
    Archive(archive::Args),
    Artifact(artifact::Args),
    Completion(completion::Args),
    Man(man::Args),
}

impl Command {
    fn run(self, output: &mut Output) -> Result<()> {
        match self {
            Command::Run(args) => run::run(args, output),
            Command::Call(args) => call::run(args, output),
            Command::Status(args) => status::run(args, output),
            Command::Hosts(args) => hosts::run(args, output),
            Command::Events(args) => events::run(args, output),
            Command::Stop(args) => stop::run(args, output),
            Command::Pending(args) => pending::run(args, output),
            Command::Check(args) => check::run(args, output),
            Command::Keys(args) => keys::run(args, output),
            Command::Claims(args) => claims::run(args, output),
            Command::Archive(args) => archive::run(args, output),
            Command::Artifact(args) => artifact::run(args, output),
            Command::Completion(args) => completion::run(args, output),
            Command::Man(args) => man::run(args, output),
        }
    }
}

/// The whole command line as a description, for completion scripts and the man page.
pub fn command() -> clap::Command {
    fill_help(Cli::command()).after_long_help(format!("{EXAMPLES}\n\nExit codes:\n{}", exit_codes()))
}

/// `command` and everything below it with the prose at the end of its help in one line a paragraph: clap wraps it to the
/// terminal, and lines that are broken in the source would be broken twice.
fn fill_help(command: clap::Command) -> clap::Command {
    let text = command.get_after_help().map(|text| filled(&text.to_string()));
    let command = match text {
        Some(text) => command.after_help(text),
        None => command,
    };
    command.mut_subcommands(fill_help)
}

/// `text` with each paragraph in one line; paragraphs with an indented line are examples and stay as they are.
fn filled(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| match paragraph.lines().any(|line| line.starts_with(' ')) {
        true => paragraph.to_owned(),
        false => paragraph.lines().collect::<Vec<_>>().join(" "),
    });
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Before anything else: these run once per provider, and nobody types them.
    if let Some(code) = crate::provider::helper(arguments.get(1..).unwrap_or_default()) {
        return code;
    }
    if let Err(error) = dumpable::forbid() {
        complain(&error, wants_json(&arguments));
        return ExitCode::from(error.kind().exit_code());
    }
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return report_parse(&error, wants_json(&arguments)),
    };
    let json = cli.json;
    match &cli.command {
        Command::Run(_) => {}
        // What their connection says is no part of the output; that it cannot be made is the error they end with.
        Command::Call(_) | Command::Hosts(_) => log::set_level(log::Level::Error),
        _ => log::set_level(log::Level::Warn),
    }
    let mut output = Output::stdout(json);
    let result = cli.command.run(&mut output).and_then(|()| output.flush());
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error, json);
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// Whether a command line that could not be parsed asked for JSON: `--json` before any `--`.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// Prints help and version on stdout, and a usage error on stderr in the form of every other error.
fn report_parse(error: &clap::Error, json: bool) -> ExitCode {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let mut output = Output::stdout(false);
            match output.text(&text).and_then(|()| output.flush()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    complain(&error, json);
                    ExitCode::from(error.kind().exit_code())
                }
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand if !json => {
            // Nobody is left to tell when stderr is gone.
            let _ = io::stderr().write_all(text.as_bytes());
            ExitCode::from(Kind::Usage.exit_code())
        }
        _ => {
            complain(&Error::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()), json);
            ExitCode::from(Kind::Usage.exit_code())
        }
    }
}

/// Prints `error` on stderr: a line for people, or one JSON object.
fn complain(error: &Error, json: bool) {
    let text = match serde_json::to_string(&ErrorBody::from(error)) {
        Ok(text) if json => text,
        _ => format!("latticed: {error}"),
    };
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The table of exit codes, one line each, from the kinds themselves so that it cannot go stale.
pub(crate) fn exit_codes() -> String {
    let mut text = String::from("  0   success\n");
    for kind in Kind::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:<3} {} ({})", kind.exit_code(), kind.meaning(), kind.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_is_wrapped_once() {
        let text = "Examples:\n  one\n  two\n\nProse that\ngoes on.\n\nMore.";
        assert_eq!(filled(text), "Examples:\n  one\n  two\n\nProse that goes on.\n\nMore.");
        fn look(command: &clap::Command) {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let prose = text.split("\n\n").filter(|paragraph| !paragraph.lines().any(|line| line.starts_with(' ')));
            for paragraph in prose {
                assert_eq!(paragraph.lines().count(), 1, "{}: {paragraph}", command.get_name());
            }
            command.get_subcommands().for_each(look);
        }
        let command = command();
        command.get_subcommands().for_each(look);
        assert!(command.get_subcommands().any(|command| command.get_after_help().is_some()));
    }

    #[test]
    fn exit_codes_differ_and_are_listed() {
        let mut codes: Vec<u8> = Kind::ALL.iter().map(|kind| kind.exit_code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
        assert!(codes.is_sorted() && !codes.contains(&0) && !codes.contains(&1));
        assert!(exit_codes().contains("9   a deadline passed (timeout)"));
    }

    #[test]
    fn json_is_seen_only_before_the_separator() {
        let line = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(wants_json(&line(&["latticed", "bogus", "--json"])));
        assert!(!wants_json(&line(&["latticed", "call", "--", "--json"])));
    }
}
