//! `latticed man`: the manual page, made from the command line's own description so that it cannot go stale.
//!
//! One page holds all subcommands: a board has no room in mind for twenty pages. clap_mangen writes what it knows of
//! each command; the sections around it are written here.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use super::Output;
use crate::{
    config::settings::{SETTINGS, Setting},
    error::{Context, Kind, Result},
};

const EXAMPLES: &str = "\
Examples:
  latticed man > /usr/local/share/man/man1/latticed.1
  latticed man | man -l -";

/// How a page defines the apostrophe that `roff` refers to.
const APOSTROPHE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// Files, in the words of a manual page.
const FILES: [(&str, &str); 4] = [
    (
        "/run/latticed/admin.sock",
        "Admin socket of a host that runs as root or under systemd with RuntimeDirectory=latticed. HTTP over a Unix \
         socket: curl --unix-socket PATH http://localhost/v1/status",
    ),
    ("$XDG_RUNTIME_DIR/latticed/admin.sock", "Admin socket of a host that a user runs."),
    ("/tmp/latticed-UID/admin.sock", "The same where there is no XDG_RUNTIME_DIR."),
    ("PATH.lock", "Beside an admin socket: held by the host that listens there. It stays, and is empty."),
];

/// Variables beyond the settings.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("HOST_NAME", "For any NAME: a label of the host, name in lower case."),
    ("XDG_RUNTIME_DIR, XDG_STATE_HOME, RUNTIME_DIRECTORY, STATE_DIRECTORY", "Defaults of places, see above."),
    ("COLUMNS", "Width of the tables of latticed status, instead of the terminal's."),
];

/// Print the manual page.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// Runs the command.
pub fn run(Args {}: Args, output: &mut Output) -> Result<()> {
    let page = page(super::command()).context(Kind::Internal, "cannot make the manual page")?;
    output.text(&page)
}

fn page(mut command: Command) -> io::Result<String> {
    command.build();
    let mut page = String::new();
    let whole = Man::new(command.clone()).title("LATTICED").manual("User Commands");
    page.push_str(&rendered(|w| whole.render_title(w))?);
    for section in [Man::render_name_section, Man::render_synopsis_section, Man::render_description_section] {
        page.push_str(&rendered(|w| section(&whole, w))?);
    }
    page.push_str(&rendered(|w| whole.render_options_section(w))?);
    page.push_str(&roff(|roff| {
        roff.control("SH", ["COMMANDS"]);
    }));
    for subcommand in shown(&command) {
        describe(&mut page, subcommand)?;
    }
    page.push_str(&roff(|roff| {
        roff.control("SH", ["EXIT STATUS"]);
        entry(roff, "0", "success");
        for kind in Kind::ALL {
            entry(roff, &kind.exit_code().to_string(), &format!("{} ({})", kind.meaning(), kind.name()));
        }
        roff.control("SH", ["ENVIRONMENT"]);
        roff.text([roman(
            "Settings may also be in host_config.json or .env in the current directory; the environment wins over .env, \
             which wins over host_config.json. latticed check shows each with its origin.",
        )]);
        SETTINGS.iter().for_each(|known| setting(roff, known));
        ENVIRONMENT.iter().for_each(|(name, text)| entry(roff, name, text));
        roff.control("SH", ["FILES"]);
        FILES.iter().for_each(|(name, text)| entry(roff, name, text));
        roff.control("SH", ["EXAMPLES"]);
        more(roff, super::EXAMPLES.strip_prefix("Examples:\n").unwrap_or(super::EXAMPLES));
    }));
    Ok(format!("{APOSTROPHE}{}", ascii(&page)))
}

/// The subcommands that have something to say; `help` only repeats the others.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// Writes one subcommand, then its own subcommands: usage, description, options, examples.
fn describe(page: &mut String, command: &Command) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    page.push_str(&roff(|roff| {
        roff.control("SS", [name.as_str()]);
    }));
    // What every command has is said once, under OPTIONS.
    let man = Man::new(command.clone().mut_args(|argument| {
        let everywhere = argument.is_global_set() || argument.get_id() == "help";
        argument.hide(everywhere)
    }));
    for section in [Man::render_synopsis_section, Man::render_description_section, Man::render_options_section] {
        page.push_str(&roff(|roff| {
            roff.control("PP", []);
        }));
        page.push_str(without_heading(&rendered(|w| section(&man, w))?));
    }
    if let Some(text) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        page.push_str(&roff(|roff| more(roff, &text.to_string())));
    }
    shown(command).try_for_each(|subcommand| describe(page, subcommand))
}

/// What `render` writes, without [`APOSTROPHE`], which it puts before every piece.
fn rendered(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<String> {
    let mut bytes = Vec::new();
    render(&mut bytes)?;
    let text = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(text.replace(APOSTROPHE, ""))
}

/// `page` with everything beyond ASCII as groff's escapes: not every `man` converts its input.
fn ascii(page: &str) -> String {
    let mut text = String::with_capacity(page.len());
    for character in page.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\[u{:04X}]", u32::from(character));
        }
    }
    text
}

/// The text below the first `.SH` line, or nothing when there is no such section.
fn without_heading(section: &str) -> &str {
    section.split_once(".SH ").and_then(|(_, rest)| rest.split_once('\n')).map_or("", |(_, body)| body)
}

fn roff(write: impl FnOnce(&mut Roff)) -> String {
    let mut roff = Roff::new();
    write(&mut roff);
    roff.to_roff()
}

fn setting(roff: &mut Roff, setting: &Setting) {
    let mut text =
        format!("{} ({}). Default: {}.", setting.help, setting.kind.describe(), setting.default.words(setting.kind));
    if !setting.json.is_empty() {
        text.push_str(&format!(" In host_config.json: {}.", setting.json));
    }
    if !setting.aliases.is_empty() {
        text.push_str(&format!(" Also: {}.", setting.aliases.join(", ")));
    }
    entry(roff, setting.name, &text.replace('`', ""));
}

/// A term and what it means.
fn entry(roff: &mut Roff, term: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(term)]);
    roff.text([roman(text)]);
}

/// What a help text says at its end: examples, whose lines stay as they are, and prose, which is filled.
fn more(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        let example = paragraph.lines().any(|line| line.starts_with(' '));
        roff.control("PP", []);
        if example {
            roff.control("nf", []);
        }
        for line in paragraph.lines() {
            roff.text([roman(line)]);
        }
        if example {
            roff.control("fi", []);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_and_exit_code() {
        let page = page(super::super::command()).expect("a page");
        let mut command = super::super::command();
        command.build();
        for subcommand in shown(&command) {
            let heading = format!(".SS \"latticed {}\"", subcommand.get_name());
            assert!(page.contains(&heading), "{heading}");
        }
        for kind in Kind::ALL {
            assert!(page.contains(&format!("\\fB{}\\fR", kind.exit_code())));
        }
        for setting in SETTINGS {
            assert!(page.contains(&format!("\\fB{}\\fR", setting.name)), "{}", setting.name);
        }
        assert_eq!(page.matches(".TH ").count(), 1);
        assert_eq!(page.matches(APOSTROPHE).count(), 1);
        assert!(page.is_ascii());
    }
}
