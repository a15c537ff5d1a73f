//! Link values to what one link does (`protocol/interfaces.md §5`): where its broker is, what it listens to, its limits.
//!
//! Applied in this order, the later winning: the provider's start configuration, `config_b64`, `config_json` (all three the
//! same JSON, as the first-party NATS provider reads it), then the link values by themselves. Subscriptions add up within a
//! link; those of the start configuration count for links that name none. Keys of link values are read in any case. Pure.

use std::{path::PathBuf, time::Duration};

use data_encoding::BASE64_NOPAD;
use serde_json::{Map, Value};

use super::settings::{
    MAX_IN_FLIGHT_LIMIT, MAX_OUTBOX_BYTES, MAX_OUTBOX_MESSAGES, MAX_SUBSCRIPTIONS, MAX_TIMEOUT,
    MAX_WAITING_BYTES_LIMIT, MAX_WAITING_LIMIT, Settings,
};
use crate::{
    capability::preview::unknown,
    error::{Error, Result},
    host::BrokerServer,
    wire::LinkDefinition,
};

/// What a link listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The subject, wildcards allowed.
    pub subject: String,
    /// Who shares its messages.
    pub queue_group: Option<String>,
}

/// What happens to a message that finds the outbox full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The actor is told, and nothing is kept of it.
    #[default]
    Refuse,
    /// The oldest messages make room and are lost.
    DropOldest,
}

/// Limits of an outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxOptions {
    /// The stream that must take its messages; any where not named.
    pub stream: Option<String>,
    /// Messages kept at most.
    pub messages: usize,
    /// Their bytes on disk at most.
    pub bytes: u64,
    /// What happens when one of these is reached.
    pub when_full: WhenFull,
}

/// Everything one link asks for. No `Debug`: it holds secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// A broker of its own; the host's own connection where there is none.
    pub server: Option<BrokerServer>,
    /// What is listened to.
    pub subscriptions: Vec<Subscription>,
    /// Messages that the actor handles at once.
    pub max_in_flight: usize,
    /// Messages that wait for that.
    pub max_waiting: usize,
    /// Their bytes.
    pub max_waiting_bytes: usize,
    /// How long handling one may take.
    pub timeout: Duration,
    /// What keeps messages while there is no connection, if asked for.
    pub outbox: Option<OutboxOptions>,
}

/// The members of the JSON and the link values, by the names of the JSON in lower case.
#[derive(Default)]
struct Given(Map<String, Value>);

/// Members of the JSON and the names that link values have for them.
const NAMES: [(&str, &str); 18] = [
    ("subscriptions", "subscription"),
    ("cluster_uris", "uri"),
    ("auth_jwt", "client_jwt"),
    ("auth_seed", "client_seed"),
    ("ping_interval_sec", "ping_interval_sec"),
    ("tls_ca", "tls_ca"),
    ("tls_ca_file", "tls_ca_file"),
    ("max_in_flight", "max_in_flight"),
    ("max_waiting", "max_waiting"),
    ("max_waiting_bytes", "max_waiting_bytes"),
    ("timeout_ms", "timeout_ms"),
    ("outbox", "outbox"),
    ("outbox_stream", "outbox_stream"),
    ("outbox_messages", "outbox_messages"),
    ("outbox_bytes", "outbox_bytes"),
    ("outbox_full", "outbox_full"),
    // Read first, not as members.
    ("", "config_b64"),
    ("", "config_json"),
];

/// How texts call this provider.
const MESSAGING_NAME: &str = "messaging";

impl Options {
    /// What `link` asks for, over `configuration`, the provider's start configuration. The second part of the answer says
    /// what was not understood, one sentence each.
    ///
    /// # Errors
    /// `Config`: a value cannot be used, named with what it should look like; secrets are not repeated.
    pub fn from_link(
        settings: &Settings,
        configuration: Option<&str>,
        link: &LinkDefinition,
    ) -> Result<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let mut given = Given::default();
        if let Some(text) = configuration.filter(|text| !text.trim().is_empty()) {
            given.add(json("the start configuration", text.as_bytes())?, &mut warnings)?;
        }
        let mut own = Given::default();
        if let Some(text) = link.value("config_b64") {
            let bytes = BASE64_NOPAD.decode(text.trim().trim_end_matches('=').as_bytes()).map_err(|cause| {
                Error::config(format!("the link value `config_b64` is not base64 ({cause}): encode JSON with it"))
            })?;
            own.add(json("`config_b64`", &bytes)?, &mut warnings)?;
        }
        if let Some(text) = link.value("config_json") {
            own.add(json("`config_json`", text.as_bytes())?, &mut warnings)?;
        }
        for (name, value) in &link.values {
            let name = name.to_ascii_lowercase();
            match NAMES.iter().find(|(_, known)| *known == name) {
                Some(("", _)) => {}
                Some((member, _)) if *member == "subscriptions" => own.subscribe(value),
                Some((member, _)) => drop(own.0.insert((*member).to_owned(), Value::String(value.clone()))),
                None => warnings.push(unknown("link value", &name, MESSAGING_NAME, NAMES.map(|(_, known)| known))?),
            }
        }
        given.0.extend(own.0);
        Ok((given.options(settings)?, warnings))
    }
}

fn json(what: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    let refused = |why: &str| Error::config(format!("{what} {why}: it must be a JSON object with named settings"));
    // The cause of a parse error may repeat a part of the text, which may be a secret.
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|cause| refused(&format!("cannot be read (line {}, column {})", cause.line(), cause.column())))?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err(refused("is no object")),
    }
}

impl Given {
    fn add(&mut self, members: Map<String, Value>, warnings: &mut Vec<String>) -> Result<()> {
        for (name, value) in members {
            if value.is_null() {
                continue;
            }
            if !NAMES.iter().any(|(member, _)| *member == name) {
                let known = NAMES.iter().map(|(member, _)| *member).filter(|member| !member.is_empty());
                warnings.push(unknown("setting", &name, MESSAGING_NAME, known)?);
                continue;
            }
            self.0.insert(name, value);
        }
        Ok(())
    }

    /// Adds the subscriptions of a link value to those of the JSON.
    fn subscribe(&mut self, list: &str) {
        let members = self.0.entry("subscriptions").or_insert_with(|| Value::Array(Vec::new()));
        let added = list.split(',').map(|one| Value::String(one.to_owned()));
        match members {
            Value::Array(there) => there.extend(added),
            other => *other = Value::Array(added.collect()),
        }
    }

    fn options(&self, settings: &Settings) -> Result<Options> {
        let outbox = OutboxOptions {
            stream: self.text("outbox_stream")?.map(str::to_owned),
            messages: self.number("outbox_messages", 1, MAX_OUTBOX_MESSAGES)?.unwrap_or(settings.outbox_messages),
            bytes: self.bytes("outbox_bytes", MAX_OUTBOX_BYTES)?.unwrap_or(settings.outbox_bytes),
            when_full: match self.text("outbox_full")? {
                None | Some("refuse") => WhenFull::Refuse,
                Some("drop-oldest") => WhenFull::DropOldest,
                Some(other) => {
                    return Err(Error::config(format!("`outbox_full` is `{other}`: it must be refuse or drop-oldest")));
                }
            },
        };
        let outbox = self.switch("outbox")?.unwrap_or(outbox.stream.is_some()).then_some(outbox);
        Ok(Options {
            server: self.server()?,
            subscriptions: self.subscriptions()?,
            max_in_flight: self.number("max_in_flight", 1, MAX_IN_FLIGHT_LIMIT)?.unwrap_or(settings.max_in_flight),
            max_waiting: self.number("max_waiting", 1, MAX_WAITING_LIMIT)?.unwrap_or(settings.max_waiting),
            max_waiting_bytes: self
                .bytes("max_waiting_bytes", MAX_WAITING_BYTES_LIMIT)?
                .and_then(|bytes| usize::try_from(bytes).ok())
                .unwrap_or(settings.max_waiting_bytes),
            timeout: match self.number("timeout_ms", 1, MAX_TIMEOUT.as_millis() as usize)? {
                Some(millis) => Duration::from_millis(millis as u64),
                None => settings.timeout,
            },
            outbox,
        })
    }

    fn server(&self) -> Result<Option<BrokerServer>> {
        let servers = self.texts("cluster_uris")?.join(",");
        let text = |name| Ok::<_, Error>(self.text(name)?.unwrap_or_default().to_owned());
        let server = BrokerServer {
            servers,
            jwt: text("auth_jwt")?,
            seed: text("auth_seed")?,
            tls_ca: self.text("tls_ca")?.map(str::to_owned),
            tls_ca_file: self.text("tls_ca_file")?.map(PathBuf::from),
            ping: self
                .number("ping_interval_sec", 1, MAX_TIMEOUT.as_secs() as usize)?
                .map(|seconds| Duration::from_secs(seconds as u64)),
        };
        if server.tls_ca.is_some() && server.tls_ca_file.is_some() {
            return Err(Error::config("`tls_ca` and `tls_ca_file` are both given: keep one of them"));
        }
        if server.servers.is_empty() {
            if server != BrokerServer::default() {
                return Err(Error::config(
                    "a login or an authority is given without a server: add `URI`, or take them away to use the host's own \
                     connection",
                ));
            }
            return Ok(None);
        }
        Ok(Some(server))
    }

    fn subscriptions(&self) -> Result<Vec<Subscription>> {
        let mut subscriptions = Vec::new();
        for text in self.texts("subscriptions")? {
            let (subject, queue_group) = match text.split_once('|') {
                None => (text, None),
                Some((subject, group)) => (subject.trim(), Some(group.trim())),
            };
            let whole = |group: &str| !group.is_empty() && !group.contains(|c: char| c.is_whitespace() || c == '|');
            if queue_group.is_some_and(|group| !whole(group)) {
                return Err(Error::config(format!(
                    "the subscription `{text}` cannot be used: write SUBJECT or SUBJECT|QUEUE, without spaces"
                )));
            }
            let one = Subscription { subject: subject.to_owned(), queue_group: queue_group.map(str::to_owned) };
            if !subscriptions.contains(&one) {
                subscriptions.push(one);
            }
        }
        if subscriptions.len() > MAX_SUBSCRIPTIONS {
            return Err(Error::config(format!(
                "{} subscriptions are asked for, a link may have {MAX_SUBSCRIPTIONS}: use wildcards",
                subscriptions.len()
            )));
        }
        Ok(subscriptions)
    }

    /// A text; one that is empty counts as not given.
    fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim()).filter(|text| !text.is_empty())),
            // The value may be a secret put in the wrong form.
            Some(_) => Err(Error::config(format!("`{name}` must be a text in quotes"))),
        }
    }

    /// A list of texts, or one text with commas.
    fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let refused = || Error::config(format!("`{name}` must be a list of texts"));
        let parts: Vec<&str> = match self.0.get(name) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split(',').collect(),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().ok_or_else(refused)).collect::<Result<_>>()?
            }
            Some(_) => return Err(refused()),
        };
        Ok(parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect())
    }

    fn number(&self, name: &str, min: usize, max: usize) -> Result<Option<usize>> {
        let number = match self.0.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        match number.filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Error::config(format!("`{name}` must be a whole number from {min} to {max}"))),
        }
    }

    fn bytes(&self, name: &str, max: u64) -> Result<Option<u64>> {
        let bytes = match self.0.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => with_unit(text),
            Some(value) => value.as_u64(),
        };
        match bytes.filter(|bytes| (1..=max).contains(bytes)) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(Error::config(format!(
                "`{name}` must be a number of bytes, or one with K or M, from 1 to {}M",
                max >> 20
            ))),
        }
    }

    fn switch(&self, name: &str) -> Result<Option<bool>> {
        let refused = || Error::config(format!("`{name}` must be on or off"));
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Bool(on)) => Ok(Some(*on)),
            Some(Value::String(text)) => match text.trim().to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" => Ok(Some(true)),
                "off" | "false" | "no" | "0" | "" => Ok(Some(false)),
                _ => Err(refused()),
            },
            Some(_) => Err(refused()),
        }
    }
}

/// A number of bytes, K and M being powers of 1024.
fn with_unit(text: &str) -> Option<u64> {
    let text = text.trim();
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    digits.trim_end().parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(configuration: Option<&str>, values: &[(&str, &str)]) -> Result<(Options, Vec<String>)> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let link = LinkDefinition { values, ..LinkDefinition::default() };
        Options::from_link(&Settings::default(), configuration, &link)
    }

    fn subscription(subject: &str, group: Option<&str>) -> Subscription {
        Subscription { subject: subject.into(), queue_group: group.map(str::to_owned) }
    }

    #[test]
    fn values_of_first_party_links_mean_what_they_mean_there() {
        let (options, warnings) = read(
            None,
            &[
                ("SUBSCRIPTION", "wasmcloud.echo, sensor.*|workers"),
                ("URI", "nats://a:4222,nats://b:4222"),
                ("CLIENT_JWT", "ey.J.x"),
                ("CLIENT_SEED", "SUX"),
                ("TLS_CA_FILE", "/ca.pem"),
            ],
        )
        .unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            options.subscriptions,
            [subscription("wasmcloud.echo", None), subscription("sensor.*", Some("workers"))]
        );
        let server = options.server.unwrap();
        assert_eq!((server.servers.as_str(), server.jwt.as_str()), ("nats://a:4222,nats://b:4222", "ey.J.x"));
        assert_eq!((server.seed.as_str(), server.tls_ca_file), ("SUX", Some("/ca.pem".into())));
        assert!(options.outbox.is_none());
    }

    #[test]
    fn json_is_read_from_each_place_and_single_values_win() {
        let start = r#"{"subscriptions":["start"],"cluster_uris":["start:1"],"ping_interval_sec":7,"nothing":1}"#;
        let (options, warnings) = read(Some(start), &[]).unwrap();
        assert_eq!(options.subscriptions, [subscription("start", None)]);
        assert_eq!(options.server.unwrap().ping, Some(Duration::from_secs(7)));
        assert_eq!(warnings, ["the setting `nothing` means nothing to messaging"]);

        // {"subscriptions":["b64|q"],"cluster_uris":["b64:1"]}
        let b64 = "eyJzdWJzY3JpcHRpb25zIjpbImI2NHxxIl0sImNsdXN0ZXJfdXJpcyI6WyJiNjQ6MSJdfQ==";
        let (options, _) =
            read(Some(start), &[("config_b64", b64), ("subscription", "own"), ("uri", "own:1"), ("x", "y")]).unwrap();
        assert_eq!(options.subscriptions, [subscription("b64", Some("q")), subscription("own", None)]);
        assert_eq!(options.server.unwrap().servers, "own:1");
        let json = r#"{"subscriptions":["json"],"auth_jwt":null,"outbox":true,"outbox_bytes":4096,"max_waiting":3}"#;
        let (options, _) = read(None, &[("config_b64", b64), ("config_json", json)]).unwrap();
        assert_eq!(options.subscriptions, [subscription("json", None)]);
        assert_eq!((options.outbox.unwrap().bytes, options.max_waiting), (4096, 3));
        assert!(read(Some(" "), &[]).unwrap().0.server.is_none());
    }

    #[test]
    fn an_outbox_is_asked_for_by_its_switch_or_its_stream() {
        let outbox = |values: &[(&str, &str)]| read(None, values).unwrap().0.outbox;
        let settings = Settings::default();
        assert_eq!(outbox(&[("outbox_messages", "5")]), None);
        assert_eq!(outbox(&[("outbox_stream", "S"), ("outbox", "off")]), None);
        let full = outbox(&[
            ("OUTBOX_STREAM", "S"),
            ("outbox_messages", "5"),
            ("outbox_bytes", "2M"),
            ("outbox_full", "drop-oldest"),
        ]);
        let wanted =
            OutboxOptions { stream: Some("S".into()), messages: 5, bytes: 2 << 20, when_full: WhenFull::DropOldest };
        assert_eq!(full, Some(wanted));
        let plain = outbox(&[("outbox", "on")]).unwrap();
        assert_eq!((plain.stream, plain.messages, plain.when_full), (None, settings.outbox_messages, WhenFull::Refuse));
    }

    #[test]
    fn what_cannot_be_used_is_named_and_secrets_are_not_repeated() {
        for (values, named) in [
            (vec![("SUBSCRIPTION", "a|")], "a|"),
            (vec![("SUBSCRIPTION", "a|b c")], "SUBJECT|QUEUE"),
            (vec![("max_in_flight", "0")], "max_in_flight"),
            (vec![("max_waiting", "many")], "max_waiting"),
            (vec![("outbox_bytes", "1T")], "outbox_bytes"),
            (vec![("outbox", "perhaps")], "on or off"),
            (vec![("outbox_full", "wait")], "drop-oldest"),
            (vec![("CLIENT_SEED", "SUSECRET")], "URI"),
            (vec![("uri", "a"), ("tls_ca", "x"), ("tls_ca_file", "y")], "keep one"),
            (vec![("config_b64", "!")], "base64"),
            (vec![("config_json", r#"{"auth_seed":"SUSECRET""#)], "config_json"),
            (vec![("config_json", "[]")], "named settings"),
            (vec![("config_json", r#"{"auth_seed":["SUSECRET"],"cluster_uris":["a"]}"#)], "auth_seed"),
            (vec![("config_json", r#"{"subscriptions":[1]}"#)], "subscriptions"),
        ] {
            let error = read(None, &values).err().unwrap_or_else(|| panic!("{values:?}"));
            assert!(error.text().contains(named) && !error.text().contains("SUSECRET"), "{error}");
        }
        let many: Vec<String> = (0..=MAX_SUBSCRIPTIONS).map(|one| one.to_string()).collect();
        assert!(read(None, &[("SUBSCRIPTION", &many.join(","))]).is_err());
    }
}
