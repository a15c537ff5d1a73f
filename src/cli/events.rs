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
  latticed events --follow --actor demo/echo
  latticed events --until provider_started --provider registry.example/kv:1 --timeout 30 && echo ready
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

    /// Only events of the host with this key (N…) or friendly name.
    #[arg(long, value_name = "HOST")]
    host: Option<String>,

    /// Only events about this actor: its key (M…), reference, name or call alias. Heartbeats are about all that run.
    #[arg(long, value_name = "ACTOR")]
    actor: Option<String>,

    /// Only events about this provider: its key (V…), reference, name, contract or link name.
    #[arg(long, value_name = "PROVIDER")]
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
        let waited_for = self.until.as_deref().is_some_and(|until| is_type(event, until));
        let wanted = |asked: &Option<String>, found: &dyn Fn(&str) -> bool| asked.as_deref().is_none_or(found);
        let data = &event["data"];
        (self.types.is_empty() || waited_for || self.types.iter().any(|name| is_type(event, name)))
            && wanted(&self.host, &|host| {
                [&event["source"], &data["host_id"], &data["friendly_name"]].iter().any(|value| *value == host)
            })
            && wanted(&self.actor, &|actor| is_about_actor(data, actor))
            && wanted(&self.provider, &|provider| is_about_provider(data, provider))
    }
}

/// Names of an actor in events: of its own, of links it has, of starts that failed before its key was known, of its claims.
fn is_about_actor(data: &Value, actor: &str) -> bool {
    let claims = &data["claims"];
    let is = |value: &Value| value == actor;
    let own = ["actor_id", "actor_ref"].iter().any(|name| is(&data[*name]));
    // Members that events of providers have too: those name a contract.
    let shared = ["public_key", "image_ref"].iter().any(|name| is(&data[*name]))
        || ["name", "call_alias"].iter().any(|name| is(&claims[*name]));
    // A heartbeat counts the instances of each by key, or lists them, by the generation of its host.
    let beats = data["actors"].get(actor).is_some()
        || data["actors"].as_array().is_some_and(|all| {
            all.iter().any(|one| ["id", "public_key", "image_ref", "name"].iter().any(|name| is(&one[*name])))
        });
    own || beats || (shared && data["contract_id"].is_null())
}

/// The same for a provider.
fn is_about_provider(data: &Value, provider: &str) -> bool {
    let is = |value: &Value| value == provider;
    let names = ["public_key", "id", "image_ref", "contract_id", "link_name", "name"];
    let own = ["provider_id", "provider_ref", "contract_id", "link_name"].iter().any(|name| is(&data[*name]));
    let shared = ["public_key", "image_ref"].iter().any(|name| is(&data[*name])) || is(&data["claims"]["name"]);
    let beats =
        data["providers"].as_array().is_some_and(|all| all.iter().any(|one| names.iter().any(|name| is(&one[*name]))));
    own || beats || (shared && !data["contract_id"].is_null())
}

/// Runs the command.
pub fn run(args: Args, output: &mut Output) -> Result<()> {
    let config = Config::load(args.host_config.as_deref(), Vec::new(), &[])?;
    let settings = joining::endpoints(&config)?;
    let time = (!args.follow).then(|| args.timeout.unwrap_or(DEFAULT_TIMEOUT));
    let mut matched = false;
    if !output.json() {
        output.line(row("TIME", "EVENT", "HOST", "ABOUT", output.width()))?;
        output.flush()?;
    }
    let listening = watch::events(&settings, time, |event| {
        if !args.passes(&event) {
            return Ok(true);
        }
        if output.json() {
            output.line(&event)?
        } else {
            output.line(line(&event, output.width()))?
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

/// One event as a row: when, what, where, about whom, and what went wrong.
fn line(event: &Value, width: Option<usize>) -> String {
    let text = |value: &Value| printable(value.as_str().unwrap_or("-"));
    let kind = text(&event["type"]);
    let data = &event["data"];
    let mut about: Vec<String> = ABOUT.iter().filter_map(|name| data[*name].as_str()).map(printable).collect();
    // Events name the same thing twice where two generations of clients look for it.
    about.dedup();
    if let Some(why) = ["error", "reason"].iter().find_map(|name| data[*name].as_str()) {
        about.push(format!("({})", printable(why)));
    }
    let kind = kind.strip_prefix(TYPE_PREFIX).unwrap_or(&kind);
    row(&text(&event["time"]), kind, &text(&event["source"]), &about.join(" "), width)
}

/// Members that say what an event is about, in the order in which they are shown.
const ABOUT: [&str; 11] = [
    "public_key",
    "actor_ref",
    "provider_ref",
    "image_ref",
    "actor_id",
    "provider_id",
    "contract_id",
    "link_name",
    "oci_url",
    "friendly_name",
    "entity_id",
];

/// A line of the table. Its columns have the widths of what they hold, so that lines can be shown as they come; on a terminal
/// that is too narrow for it the key of the host is shortened, and the end cut off.
fn row(time: &str, kind: &str, host: &str, about: &str, width: Option<usize>) -> String {
    const KEY: usize = 56;
    const SHORT_KEY: usize = 9;
    let host_width = if width.is_some_and(|width| width < 160) { SHORT_KEY } else { KEY };
    let host: String = match host.char_indices().nth(host_width) {
        Some(_) => host.chars().take(host_width - 1).chain(['…']).collect(),
        None => host.to_owned(),
    };
    let line = format!("{time:<27}  {kind:<22}  {host:<host_width$}  {about}");
    let line = line.trim_end();
    match width.filter(|width| line.chars().count() > *width) {
        Some(width) => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
        None => line.to_owned(),
    }
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
    fn an_actor_or_provider_is_named_as_its_events_name_it() {
        let started = json!({"source": "N1", "data": {"public_key": "M1", "image_ref": "r.example/echo:1",
            "claims": {"name": "echo", "call_alias": "demo/echo"}}});
        let failed = json!({"source": "N1", "data": {"actor_ref": "r.example/echo:1", "error": "no"}});
        let link = json!({"source": "n/a", "data": {"actor_id": "M1", "provider_id": "V1", "contract_id": "c:kv",
            "link_name": "default"}});
        let serves = json!({"source": "N1", "data": {"public_key": "V1", "image_ref": "r.example/kv:1",
            "contract_id": "c:kv", "link_name": "default", "claims": {"name": "kv"}}});
        let beat = json!({"source": "N1", "data": {"actors": {"M1": 2}, "friendly_name": "wild-owl-1",
            "providers": [{"public_key": "V1", "contract_id": "c:kv", "link_name": "default"}]}});
        let newer = json!({"source": "N1", "data": {"actors": [{"id": "M1", "name": "echo"}], "providers": []}});
        let by_actor = |name: &str| args(&[], None, Some(name));
        for name in ["M1", "r.example/echo:1", "echo", "demo/echo"] {
            assert!(by_actor(name).passes(&started), "{name}");
            assert!(!by_actor(name).passes(&serves), "{name}");
        }
        assert!(by_actor("r.example/echo:1").passes(&failed) && !by_actor("M1").passes(&failed));
        assert!(by_actor("M1").passes(&link) && by_actor("M1").passes(&beat) && by_actor("echo").passes(&newer));
        assert!(!by_actor("M2").passes(&beat) && !by_actor("V1").passes(&link));
        // An actor's filter is not met by a provider of the same name.
        assert!(!by_actor("kv").passes(&serves) && !by_actor("V1").passes(&serves));
        let by_provider = |name: &str| Args { provider: Some(name.to_owned()), ..args(&[], None, None) };
        for name in ["V1", "r.example/kv:1", "kv", "c:kv", "default"] {
            assert!(by_provider(name).passes(&serves), "{name}");
            assert!(!by_provider(name).passes(&started), "{name}");
        }
        assert!(
            by_provider("V1").passes(&link) && by_provider("c:kv").passes(&beat) && !by_provider("M1").passes(&beat)
        );
        assert!(args(&[], Some("wild-owl-1"), None).passes(&beat) && args(&[], Some("N1"), None).passes(&beat));
        assert!(!args(&[], Some("N2"), None).passes(&beat));
    }

    #[test]
    fn rows_line_up_and_fit_the_terminal() {
        let key = "N".repeat(56);
        let event = json!({"type": "com.wasmcloud.lattice.actors_start_failed", "source": key,
            "time": "2026-11-25T07:21:31.402000Z", "data": {"public_key": "N/A", "image_ref": "r", "error": "no\nway"}});
        let wide = line(&event, None);
        assert!(wide.ends_with("N/A r (no\u{fffd}way)") && wide.contains(&key), "{wide}");
        assert_eq!(wide.find("N/A"), row("TIME", "EVENT", "HOST", "ABOUT", None).find("ABOUT"));
        let narrow = line(&event, Some(80));
        assert!(narrow.chars().count() <= 80 && narrow.contains("NNNNNNNN…  N/A r"), "{narrow}");
        assert_eq!(line(&event, Some(40)).chars().count(), 40);
    }

    #[test]
    fn a_row_cannot_move_the_cursor() {
        let data = json!({"public_key": "M\r1"});
        let row = line(&json!({"type": "x\u{1b}[2J", "source": 5, "time": "now\n", "data": data}), None);
        assert!(!row.chars().any(char::is_control), "{row:?}");
    }
}
