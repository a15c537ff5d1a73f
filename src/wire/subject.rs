//! Every NATS subject and queue group of the lattice, made and taken apart (`protocol/lattice.md §2`).
//!
//! `lattice/` subscribes and publishes by these; nothing else writes a subject out.

use super::name_limits::MAX_PART_BYTES;
use crate::error::{Error, Result};

/// What control subjects start with unless `WASMCLOUD_CTL_TOPIC_PREFIX` says otherwise.
pub const DEFAULT_CONTROL_PREFIX: &str = "wasmbus.ctl";

/// Longest lattice name, bytes. It is one token of every subject and part of a bucket's name; the servers take 255 bytes
/// for the whole stream name. A longer name is refused at start-up.
pub const MAX_LATTICE_NAME_BYTES: usize = 128;

/// Refuses a lattice name that cannot be one token of a subject and part of a bucket's name.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind::Config), naming the character.
pub fn check_lattice_name(name: &str) -> Result<()> {
    let named = |why: String| {
        Error::config(format!("the lattice name '{name}' cannot be used: {why}; use letters, digits, '-' and '_'"))
    };
    if name.is_empty() {
        return Err(named("it is empty".into()));
    }
    if name.len() > MAX_LATTICE_NAME_BYTES {
        return Err(named(format!("it has {} bytes, at most {MAX_LATTICE_NAME_BYTES} are allowed", name.len())));
    }
    match name.chars().find(|letter| !(letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'))) {
        Some(letter) => Err(named(format!("it holds {letter:?}"))),
        None => Ok(()),
    }
}

/// Refuses a control prefix that is not a row of plain subject tokens.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind::Config).
pub fn check_control_prefix(prefix: &str) -> Result<()> {
    let plain = |token: &str| !token.is_empty() && !token.contains(['*', '>']) && !token.contains(char::is_whitespace);
    if prefix.split('.').all(plain) {
        return Ok(());
    }
    Err(Error::config(format!(
        "the control topic prefix '{prefix}' cannot be used: it must be words separated by single dots, like {DEFAULT_CONTROL_PREFIX}"
    )))
}

/// Refuses what cannot stand in a subject: a link name or key that a client sent, `what` to the reader. One that got in
/// would be asked for by every pass of the host and be refused by the client library each time, or, as a wildcard, take what
/// is meant for others.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid).
pub fn check_part(what: &str, text: &str) -> Result<()> {
    let bad = |letter: char| letter.is_whitespace() || letter.is_control() || matches!(letter, '*' | '>');
    if text.len() <= MAX_PART_BYTES && !text.contains(bad) && text.split('.').all(|token| !token.is_empty()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the {what} '{}' cannot be part of a NATS subject: it has white space, a wildcard, an empty part, or more than \
         {MAX_PART_BYTES} bytes",
        crate::wire::text::prefix(&text.escape_debug().to_string(), MAX_PART_BYTES)
    )))
}

/// The subjects of one lattice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    lattice: String,
    /// `{CTL}.{L}`, which is also the queue group of requests that one host answers for all.
    control: String,
}

/// One subscription of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// What to listen to, wildcards included.
    pub subject: String,
    /// The group that shares the messages, `None` when every host gets each.
    pub queue_group: Option<String>,
}

impl Subjects {
    /// The subjects of `lattice` with control subjects under `control_prefix`.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config): one of them cannot be part of a subject.
    pub fn new(control_prefix: &str, lattice: &str) -> Result<Self> {
        check_lattice_name(lattice)?;
        check_control_prefix(control_prefix)?;
        Ok(Self { lattice: lattice.to_owned(), control: format!("{control_prefix}.{lattice}") })
    }

    /// The lattice's name.
    pub fn lattice(&self) -> &str {
        &self.lattice
    }

    /// Everything the host `host_id` listens to on the control connection.
    ///
    /// Wide wildcards instead of one subscription a verb: an unknown verb is answered with a refusal, where silence would
    /// keep the client waiting for its time-out.
    pub fn control_subscriptions(&self, host_id: &str) -> Vec<Subscription> {
        let control = &self.control;
        let shared =
            |tail: &str| Subscription { subject: format!("{control}.{tail}"), queue_group: Some(control.clone()) };
        let own = |tail: String| Subscription { subject: format!("{control}.{tail}"), queue_group: None };
        vec![
            own("ping.hosts".into()),
            shared("get.*"),
            own(format!("get.{host_id}.inv")),
            shared("linkdefs.*"),
            own("registries.put".into()),
            own("auction.>".into()),
            own(format!("cmd.{host_id}.*")),
            own(format!("labels.{host_id}.*")),
            // Every host keeps these, so every host is told.
            own("config.>".into()),
            own("get.config.>".into()),
        ]
    }

    /// Where clients ask every host for a sign of life.
    pub fn ping_hosts(&self) -> String {
        format!("{}.ping.hosts", self.control)
    }

    /// Where the claims of all known actors and providers are asked for.
    pub fn claims(&self) -> String {
        format!("{}.get.claims", self.control)
    }

    /// Where the command `verb` for `host_id` goes.
    pub fn command(&self, host_id: &str, verb: Verb) -> String {
        format!("{}.cmd.{host_id}.{}", self.control, verb.token())
    }

    /// Where every event goes (`protocol/events.md §1`).
    pub fn events(&self) -> String {
        format!("wasmbus.evt.{}", self.lattice)
    }

    /// Where events called `name` go besides; newer clients listen only here.
    pub fn events_named(&self, name: &str) -> String {
        format!("wasmbus.evt.{}.{name}", self.lattice)
    }

    /// Where events about single invocations go.
    pub fn invocation_events(&self) -> String {
        format!("wasmbus.rpcevt.{}", self.lattice)
    }

    /// Where the actor `key` is called. The subject is its own queue group, so that one of its hosts answers.
    pub fn actor(&self, key: &str) -> String {
        format!("wasmbus.rpc.{}.{key}", self.lattice)
    }

    /// Where the provider `key` is called under `link_name`. Its processes share [`PROVIDER_QUEUE_GROUP`].
    pub fn provider(&self, key: &str, link_name: &str) -> String {
        format!("wasmbus.rpc.{}.{key}.{link_name}", self.lattice)
    }

    /// Where `topic` messages for a provider go.
    pub fn provider_topic(&self, key: &str, link_name: &str, topic: ProviderTopic) -> String {
        format!("wasmbus.rpc.{}.{key}.{link_name}.{}", self.lattice, topic.tail())
    }

    /// Where a starting host asks for its supplemental configuration.
    pub fn config_service(&self) -> String {
        format!("wasmbus.cfg.{}.req", self.lattice)
    }

    /// What a control subject asks for; `None` when it is not one of this lattice.
    pub fn parse_control<'a>(&self, subject: &'a str) -> Option<Topic<'a>> {
        let tail = subject.strip_prefix(self.control.as_str())?.strip_prefix('.')?;
        Some(Topic::parse(tail))
    }
}

/// Queue group of the processes of one provider.
pub const PROVIDER_QUEUE_GROUP: &str = "rpc";

/// What is said to a provider besides calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderTopic {
    /// A link is in force.
    LinkPut,
    /// A link is gone.
    LinkDelete,
    /// Both of these, in the order they were said: for the provider to listen to, never said.
    Links,
    /// Are you well?
    Health,
    /// End.
    Shutdown,
}

impl ProviderTopic {
    fn tail(self) -> &'static str {
        match self {
            ProviderTopic::LinkPut => "linkdefs.put",
            ProviderTopic::LinkDelete => "linkdefs.del",
            ProviderTopic::Links => "linkdefs.*",
            ProviderTopic::Health => "health",
            ProviderTopic::Shutdown => "shutdown",
        }
    }
}

/// A command for one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `la`
    LaunchActor,
    /// `sa`
    StopActor,
    /// `scale`
    ScaleActor,
    /// `upd`
    UpdateActor,
    /// `lp`
    LaunchProvider,
    /// `sp`
    StopProvider,
    /// `stop`
    StopHost,
}

impl Verb {
    /// Every command.
    pub const ALL: [Verb; 7] = [
        Verb::LaunchActor,
        Verb::StopActor,
        Verb::ScaleActor,
        Verb::UpdateActor,
        Verb::LaunchProvider,
        Verb::StopProvider,
        Verb::StopHost,
    ];

    /// Last token of its subject.
    pub fn token(self) -> &'static str {
        match self {
            Verb::LaunchActor => "la",
            Verb::StopActor => "sa",
            Verb::ScaleActor => "scale",
            Verb::UpdateActor => "upd",
            Verb::LaunchProvider => "lp",
            Verb::StopProvider => "sp",
            Verb::StopHost => "stop",
        }
    }
}

/// What a control subject asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic<'a> {
    /// `ping.hosts`
    PingHosts,
    /// `get.claims`
    GetClaims,
    /// `get.links`
    GetLinks,
    /// `get.{H}.inv`
    GetInventory {
        /// The host asked.
        host_id: &'a str,
    },
    /// `linkdefs.put`
    PutLink,
    /// `linkdefs.del`
    DeleteLink,
    /// `registries.put`
    PutRegistries,
    /// `auction.actor`
    AuctionActor,
    /// `auction.provider`
    AuctionProvider,
    /// `cmd.{H}.{verb}`
    Command {
        /// The host commanded.
        host_id: &'a str,
        /// What it is told.
        verb: Verb,
    },
    /// `labels.{H}.put`
    PutLabel {
        /// The host named.
        host_id: &'a str,
    },
    /// `labels.{H}.del`
    DeleteLabel {
        /// The host named.
        host_id: &'a str,
    },
    /// `config.put.{entity}.{key}`
    PutConfig {
        /// Whose configuration.
        entity: &'a str,
        /// Which value.
        key: &'a str,
    },
    /// `config.del.{entity}.{key}`; without a key, also spelt `config.clear.{entity}`, everything of the entity.
    DeleteConfig {
        /// Whose configuration.
        entity: &'a str,
        /// Which value, `None` for all.
        key: Option<&'a str>,
    },
    /// `get.config.{entity}`, `get.config.{entity}.{key}`
    GetConfig {
        /// Whose configuration.
        entity: &'a str,
        /// Which value, `None` for all.
        key: Option<&'a str>,
    },
    /// Anything else; it is answered with a refusal.
    Unknown,
}

impl<'a> Topic<'a> {
    fn parse(tail: &'a str) -> Self {
        // Six parts are two more than the longest known subject has, so surplus tokens are seen.
        let mut parts = [""; 6];
        let mut count = 0;
        for (place, part) in parts.iter_mut().zip(tail.split('.')) {
            *place = part;
            count += 1;
        }
        match &parts[..count] {
            ["ping", "hosts"] => Topic::PingHosts,
            ["get", "claims"] => Topic::GetClaims,
            ["get", "links"] => Topic::GetLinks,
            ["get", host_id, "inv"] => Topic::GetInventory { host_id },
            ["get", "config", entity] => Topic::GetConfig { entity, key: None },
            ["get", "config", entity, key] => Topic::GetConfig { entity, key: Some(key) },
            ["linkdefs", "put"] => Topic::PutLink,
            ["linkdefs", "del"] => Topic::DeleteLink,
            ["registries", "put"] => Topic::PutRegistries,
            ["auction", "actor"] => Topic::AuctionActor,
            ["auction", "provider"] => Topic::AuctionProvider,
            ["labels", host_id, "put"] => Topic::PutLabel { host_id },
            ["labels", host_id, "del"] => Topic::DeleteLabel { host_id },
            ["config", "put", entity, key] => Topic::PutConfig { entity, key },
            ["config", "del", entity, key] => Topic::DeleteConfig { entity, key: Some(key) },
            ["config", "del" | "clear", entity] => Topic::DeleteConfig { entity, key: None },
            ["cmd", host_id, verb] => match Verb::ALL.into_iter().find(|known| known.token() == *verb) {
                Some(verb) => Topic::Command { host_id, verb },
                None => Topic::Unknown,
            },
            _ => Topic::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subjects() -> Subjects {
        Subjects::new(DEFAULT_CONTROL_PREFIX, "default").unwrap()
    }

    #[test]
    fn what_clients_name_may_be_part_of_a_subject_or_not() {
        for good in ["default", "a-b_c", "größe", "a.b", "VBGBYWC3"] {
            check_part("link name", good).unwrap();
        }
        for bad in ["", " ", "my link", "*", ">", "a.*", "a..b", ".", "a\n", &"x".repeat(257)] {
            assert!(check_part("link name", bad).unwrap_err().text().contains("link name"), "{bad}");
        }
    }

    #[test]
    fn lattice_names_are_one_subject_token() {
        for good in ["default", "site-7", "A_b"] {
            check_lattice_name(good).unwrap();
        }
        for bad in ["", "a.b", "a b", "a*", ">", "größe", &"x".repeat(MAX_LATTICE_NAME_BYTES + 1)] {
            assert!(check_lattice_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prefixes_of_any_depth_are_stripped() {
        for prefix in ["ctl", "wasmbus.ctl", "a.b.c.d"] {
            let subjects = Subjects::new(prefix, "default").unwrap();
            assert_eq!(subjects.parse_control(&subjects.ping_hosts()), Some(Topic::PingHosts));
        }
        for bad in ["", "a..b", "a.*", ".a", "a b"] {
            assert!(Subjects::new(bad, "default").is_err(), "{bad}");
        }
    }

    #[test]
    fn every_topic_is_recognised_and_the_rest_is_unknown() {
        let subjects = subjects();
        let parse = |tail: &str| {
            let subject = format!("wasmbus.ctl.default.{tail}");
            format!("{:?}", subjects.parse_control(&subject).unwrap())
        };
        for verb in Verb::ALL {
            let subject = subjects.command("N1", verb);
            assert_eq!(subjects.parse_control(&subject), Some(Topic::Command { host_id: "N1", verb }));
        }
        assert_eq!(parse("get.N1.inv"), r#"GetInventory { host_id: "N1" }"#);
        assert_eq!(parse("config.put.M1.k"), r#"PutConfig { entity: "M1", key: "k" }"#);
        assert_eq!(parse("config.clear.M1"), r#"DeleteConfig { entity: "M1", key: None }"#);
        assert_eq!(parse("get.config.M1.k"), r#"GetConfig { entity: "M1", key: Some("k") }"#);
        for unknown in ["", "ping", "cmd.N1.dance", "ping.hosts.twice", "get.config", "a.b.c.d.e.f.g.h"] {
            assert_eq!(parse(unknown), "Unknown", "{unknown}");
        }
        assert_eq!(subjects.parse_control("wasmbus.ctl.defaults.ping.hosts"), None);
        assert_eq!(subjects.parse_control("wasmbus.ctl.other.ping.hosts"), None);
    }

    #[test]
    fn rpc_and_event_subjects_are_those_of_the_protocol() {
        let subjects = subjects();
        assert_eq!(subjects.actor("M1"), "wasmbus.rpc.default.M1");
        assert_eq!(subjects.provider("V1", "a"), "wasmbus.rpc.default.V1.a");
        assert_eq!(subjects.provider_topic("V1", "a", ProviderTopic::LinkPut), "wasmbus.rpc.default.V1.a.linkdefs.put");
        assert_eq!(subjects.events(), "wasmbus.evt.default");
        assert_eq!(subjects.events_named("actor_scaled"), "wasmbus.evt.default.actor_scaled");
        assert_eq!(subjects.invocation_events(), "wasmbus.rpcevt.default");
        assert_eq!(subjects.config_service(), "wasmbus.cfg.default.req");
    }

    /// Whether `subject` falls under `pattern` by NATS's rules.
    fn matches(pattern: &str, subject: &str) -> bool {
        let mut wanted = pattern.split('.');
        let mut given = subject.split('.');
        loop {
            match (wanted.next(), given.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(one), Some(other)) if one == other => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn each_recorded_request_is_heard_once_and_understood() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/recorded_requests.json")).unwrap();
        let mut seen = 0;
        for message in recorded["messages"].as_array().unwrap() {
            let subject = message["subject"].as_str().unwrap();
            if message["kind"] != "request" {
                continue;
            }
            let subscriptions =
                subjects().control_subscriptions("NCP7XEYQNC33YYWEKQN3RZM6775KW6ET3BZ4MZACICCY3ALEVXNNA3GJ");
            let heard = subscriptions.iter().filter(|one| matches(&one.subject, subject)).count();
            assert_eq!(heard, 1, "{subject}");
            assert_ne!(subjects().parse_control(subject), Some(Topic::Unknown), "{subject}");
            seen += 1;
        }
        assert!(seen > 40);
    }

    proptest! {
        #[test]
        fn no_subject_panics(tail in ".{0,80}") {
            let _ = subjects().parse_control(&tail);
            let _ = subjects().parse_control(&format!("wasmbus.ctl.default.{tail}"));
            let _ = check_lattice_name(&tail);
            let _ = check_control_prefix(&tail);
        }
    }
}
