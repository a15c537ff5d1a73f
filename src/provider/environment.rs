//! What of this host's environment a provider sees.
//!
//! Providers of this line read credentials of their own from the environment (`AWS_*`, `VAULT_*`), so it is passed on; what
//! belongs to the host is not. Pure.

use crate::claims::KeyPair;

/// Names that no provider sees unless a rule allows it: the host's own settings and seeds, registry and NATS logins, and what
/// a service manager says to the service alone. A `*` at the end stands for anything.
pub const DENIED: &[&str] = &[
    "WASMCLOUD_*",
    "WASMCOULD_*",
    "NATS_*",
    "OCI_REGISTRY*",
    "HOST_CONFIG",
    "BINDLE_*",
    "*_SEED",
    "*_NKEY",
    "NOTIFY_SOCKET",
    "LISTEN_*",
    "WATCHDOG_*",
    "CREDENTIALS_DIRECTORY",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "XDG_RUNTIME_DIR",
    "DBUS_*",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "MANAGERPID",
    "SYSTEMD_*",
    "SSH_*",
    "LD_PRELOAD",
];

/// Variables whose value is the host's own place: a provider gets its own.
const REPLACED: [&str; 3] = ["HOME", "TMPDIR", "PWD"];

/// A rule of the operator: a pattern, for one provider or for all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    /// `V…`, or `None` for all.
    provider: Option<String>,
    pattern: String,
}

impl Rule {
    /// `PATTERN` or `V…:PATTERN`.
    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((provider, pattern)) => {
                Self { provider: Some(provider.trim().to_owned()), pattern: pattern.trim().to_owned() }
            }
            None => Self { provider: None, pattern: text.trim().to_owned() },
        }
    }

    fn applies(&self, provider: &str, name: &str) -> bool {
        self.provider.as_deref().is_none_or(|own| own == provider) && matches(&self.pattern, name)
    }
}

/// Whether `name` is what `pattern` says, in which each `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|beginning| name.strip_prefix(beginning)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(end) = parts.pop() else { return rest.is_empty() };
    let mut rest = rest;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(end)
}

/// What the operator changed about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    denied: Vec<Rule>,
    allowed: Vec<Rule>,
}

impl Filter {
    /// Rules that hide more, and rules that show what would be hidden; the latter win.
    pub fn new(denied: &[String], allowed: &[String]) -> Self {
        let parse = |rules: &[String]| rules.iter().map(|rule| Rule::parse(rule)).collect();
        Self { denied: parse(denied), allowed: parse(allowed) }
    }

    /// The environment of `provider` out of `all`.
    ///
    /// A value that is a seed is hidden whatever its name, unless a rule shows it.
    pub fn of(
        &self,
        provider: &str,
        directory: &str,
        all: impl IntoIterator<Item = (String, String)>,
    ) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = all
            .into_iter()
            .filter(|(name, _)| !REPLACED.contains(&name.as_str()))
            .filter(|(name, value)| {
                let shown = self.allowed.iter().any(|rule| rule.applies(provider, name));
                let hidden = DENIED.iter().any(|pattern| matches(pattern, name))
                    || self.denied.iter().any(|rule| rule.applies(provider, name))
                    || KeyPair::from_seed(value.trim()).is_ok();
                shown || !hidden
            })
            .collect();
        environment.extend(REPLACED.map(|name| (name.to_owned(), directory.to_owned())));
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Role;

    fn names(filter: &Filter, provider: &str, all: &[(&str, &str)]) -> Vec<String> {
        let all = all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let own = filter.of(provider, "/own", all);
        own.into_iter().map(|(name, _)| name).filter(|name| !REPLACED.contains(&name.as_str())).collect()
    }

    #[test]
    fn a_star_stands_for_anything_wherever_it_is() {
        for (pattern, name) in [
            ("*SECRET*", "MY_SECRET_KEY"),
            ("*SECRET*", "SECRET"),
            ("A*B", "A_x_B"),
            ("A*B", "AB"),
            ("A*", "A"),
            ("*B", "B"),
            ("*", "X"),
            ("A*B*C", "A1B2B3C"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*SECRET*", "SECRE"), ("A*B", "A"), ("AB*B", "AB"), ("A", "AB"), ("A*B", "ABx"), ("", "A")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn secrets_of_the_host_are_hidden_and_credentials_of_providers_pass() {
        let seed = KeyPair::from_name(Role::Account, "x").seed().expose().to_owned();
        let all = [
            ("WASMCLOUD_CLUSTER_SEED", "SC"),
            ("NATS_PASSWORD", "p"),
            ("MY_SEED", "x"),
            ("INNOCENT", seed.as_str()),
            ("OCI_REGISTRY_PASSWORD", "p"),
            ("NOTIFY_SOCKET", "/run/x"),
            ("AWS_SECRET_ACCESS_KEY", "k"),
            ("VAULT_TOKEN", "t"),
            ("PATH", "/usr/bin"),
            ("RUST_LOG", "debug"),
        ];
        let shown = ["AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "PATH", "RUST_LOG"];
        assert_eq!(names(&Filter::default(), "V1", &all), shown);
    }

    #[test]
    fn rules_hide_and_show_for_one_provider_or_all() {
        let all = [("AWS_KEY", "k"), ("VAULT_TOKEN", "t"), ("WASMCLOUD_X", "x")];
        let rules = |rules: &[&str]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
        let filter = Filter::new(&rules(&["AWS_*", "V2:*"]), &rules(&["V1:AWS_KEY", "WASMCLOUD_X"]));
        assert_eq!(names(&filter, "V1", &all), ["AWS_KEY", "VAULT_TOKEN", "WASMCLOUD_X"]);
        assert_eq!(names(&filter, "V2", &all), ["WASMCLOUD_X"]);
        assert_eq!(names(&filter, "V3", &all), ["VAULT_TOKEN", "WASMCLOUD_X"]);
    }

    #[test]
    fn a_provider_has_a_home_of_its_own() {
        let own = Filter::default().of("V1", "/own", [("HOME".to_owned(), "/root".to_owned())]);
        assert!(own.contains(&("HOME".into(), "/own".into())) && own.contains(&("TMPDIR".into(), "/own".into())));
    }
}
