//! `latticed events`: what happens in the lattice, as it happens.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;

use super::{Output, admin::seconds, joining, table::printable};
use crate::{
    config::Config,
    error::{Context, Error, Kind, Result},
    lattice::watch,
    task,
};

const EXAMPLES: &str = "\
Examples:
  latticed events --follow
  latticed events --follow --type actor_started --type actor_stopped
  latticed events --until provider_started --timeout 30 && echo ready
  latticed events --follow --json | jq -r .type

With --until it ends with 0 as soon as such an event was seen, and with 9 when the time is over before. Without it the
end of the time is no error.";

/// What every type starts with; it may be left out on the command line and is left out in the table.
const TYPE_PREFIX: &str = "com.wasmcloud.lattice.";

/// How long it listens when nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Show the events of the lattice as they happen.
///
/// Listens over NATS for a while, or for ever with --follow; each event is a line, with --json the whole event. Filters
/// combine: an event must pass each kind that is given. Events of single invocations are not shown.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Go on until interrupted instead of ending after a time.
    #[arg(long, conflicts_with = "timeout")]
    follow: bool,

    /// Only events of this type: `actor_started`. May be given several times.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,

    /// Only events of the host with this key (N…).
    #[arg(long, value_name = "KEY")]
    host: Option<String>,

    /// Only events about the actor with this key (M…).
    #[arg(long, value_name = "KEY")]
    actor: Option<String>,

    /// Only events about the provider with this key (V…).
    #[arg(long, value_name = "KEY")]
    provider: Option<String>,

    /// End at the first event of this type that passes the filters.
    #[arg(long, value_name = "TYPE")]
    until: Option<String>,

    /// How long to listen; 10 unless said otherwise.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,

    /// Read settings from this file instead of ./host_config.json.
    #[arg(long, value_name = "FILE")]
    host_config: Option<PathBuf>,
}

impl Args {
    fn passes(&self, event: &Value) -> bool {
        let data = &event["data"];
        let about = |key: &Option<String>, other: &str| {
            key.as_deref().is_none_or(|key| ["public_key", other].iter().any(|name| data[*name].as_str() == Some(key)))
        };
        let waited_for = self.until.as_deref().is_some_and(|until| is_type(event, until));
        (self.types.is_empty() || waited_for || self.types.iter().any(|name| is_type(event, name)))
            && self.host.as_deref().is_none_or(|host| event["source"].as_str() == Some(host))
            && about(&self.actor, "actor_id")
            && about(&self.provider, "provider_id")
    }
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let time = (!args.follow).then(|| args.timeout.unwrap_or(DEFAULT_TIMEOUT));
    let mut matched = false;
    let listening = watch::events(&settings, time, |event| {
        if !args.passes(&event) {
            return Ok(true);
        }
        if output.json() {
            output.line(&event)?
        } else {
            output.line(line(&event))?
        }
        // Whoever waits for a line waits for it now.
        output.flush()?;
        matched = args.until.as_deref().is_some_and(|until| is_type(&event, until));
        Ok(!matched && !output.is_closed())
    });
    task::run(0, listening).context(Kind::Internal, "cannot start the main loop")??;
    match args.until {
        Some(until) if !matched => Err(Error::timeout(format!("no event {until} came in time; --timeout allows more"))),
        _ => Ok(()),
    }
}

fn is_type(event: &Value, name: &str) -> bool {
    let short = |name: &str| name.strip_prefix(TYPE_PREFIX).unwrap_or(name).to_owned();
    event["type"].as_str().is_some_and(|found| short(found) == short(name))
}

/// One event as a row: when, what, where, and about whom.
fn line(event: &Value) -> String {
    let text = |value: &Value| printable(value.as_str().unwrap_or("-"));
    let kind = text(&event["type"]);
    let data = &event["data"];
    let about = ["public_key", "actor_id", "provider_id", "friendly_name"].map(|name| &data[name]);
    let about: Vec<String> = about.into_iter().filter(|value| value.is_string()).map(text).collect();
    let kind = kind.strip_prefix(TYPE_PREFIX).unwrap_or(&kind);
    format!("{:<27}  {kind:<26}  {:<56}  {}", text(&event["time"]), text(&event["source"]), about.join(" "))
        .trim_end()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(types: &[&str], host: Option<&str>, actor: Option<&str>) -> Args {
        Args {
            follow: false,
            types: types.iter().map(|name| (*name).to_owned()).collect(),
            host: host.map(str::to_owned),
            actor: actor.map(str::to_owned),
            provider: None,
            until: None,
            timeout: None,
            host_config: None,
        }
    }

    #[test]
    fn filters_combine_and_types_may_be_short() {
        let event =
            json!({"type": "com.wasmcloud.lattice.actor_started", "source": "N1", "data": {"public_key": "M1"}});
        assert!(args(&[], None, None).passes(&event));
        assert!(args(&["actor_started"], Some("N1"), Some("M1")).passes(&event));
        assert!(args(&["com.wasmcloud.lattice.actor_started"], None, None).passes(&event));
        assert!(!args(&["actor_stopped"], None, None).passes(&event));
        assert!(!args(&["actor_started"], Some("N2"), None).passes(&event));
        assert!(!args(&["actor_started"], None, Some("M2")).passes(&event));
    }

    #[test]
    fn a_row_cannot_move_the_cursor() {
        let row = line(&json!({"type": "x\u{1b}[2J", "source": 5, "time": "now\n", "data": {"public_key": "M\r1"}}));
        assert!(!row.chars().any(char::is_control), "{row:?}");
    }
}
