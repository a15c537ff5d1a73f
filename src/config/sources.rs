//! Where settings come from, and which source wins: defaults, `host_config.json`, `.env` files, the environment, the
//! command line (`protocol/config.md §1`).
//!
//! [`Sources::gather`] reads; everything after it is pure.

use std::{
    env, fmt, fs,
    io::{self, Read as _},
    path::Path,
};

use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::{
    credentials::{self, Credentials},
    dotenv::{self, Assignment},
    settings::{FOREIGN, HABITS, SETTINGS, Setting, find},
    surroundings::Surroundings,
    value::{Kind, flag, plain_no},
};
use crate::{
    artifact::file::is_loop,
    claims::KeyPair,
    error::{Error, Result},
    private,
    suggest::hint,
    text_file::{blank_warning, is_blank, without_mark},
};

/// The reference host's name of a released build, which picks its `.env` files.
const ENVIRONMENT: &str = "prod";
/// The file read from the current directory.
const HOST_CONFIG: &str = "host_config.json";
/// Longest `host_config.json`, bytes; real ones have about 1 KiB.
const MAX_HOST_CONFIG_BYTES: u64 = 256 * 1024;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing set it.
    Default,
    /// This file.
    HostConfig(String),
    /// This file and line.
    Dotenv(String, usize),
    /// The environment of this process.
    Environment,
    /// The credential of this name.
    Credential(&'static str),
    /// This flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::HostConfig(file) => f.write_str(file),
            Origin::Dotenv(file, line) => write!(f, "{file}:{line}"),
            Origin::Environment => f.write_str("environment"),
            Origin::Credential(name) => write!(f, "credential {name}"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value of one setting that the command line gives.
#[derive(Clone)]
pub struct Given {
    /// The setting's name.
    pub setting: &'static str,
    /// The flag, for messages: `--state-dir`.
    pub flag: &'static str,
    /// The value.
    pub value: String,
}

/// Everything that was read, unjudged. Holds secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Sources {
    /// Name and members of `host_config.json`.
    pub host_config: Option<(String, serde_json::Map<String, Value>)>,
    /// `.env` files, the most specific first.
    pub dotenv: Vec<(String, Vec<Assignment>)>,
    /// The environment, text only.
    pub environment: Vec<(String, String)>,
    /// Names of variables whose values are no text.
    pub not_text: Vec<String>,
    /// Names of files that hold nothing.
    pub blank: Vec<String>,
    /// What the service manager handed over.
    pub credentials: Credentials,
    /// The command line.
    pub given: Vec<Given>,
    /// What defaults follow from.
    pub surroundings: Surroundings,
}

/// The value of one setting and where it came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Effective {
    /// The setting.
    pub setting: &'static Setting,
    /// The value in its normal form; possibly a secret, see [`Effective::shown`].
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
    /// The name it was set under, where that was an alias.
    pub alias: Option<&'static str>,
}

impl PartialEq for Setting {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}
impl Eq for Setting {}

impl Drop for Effective {
    fn drop(&mut self) {
        if self.setting.kind.is_secret() {
            self.value.zeroize();
        }
    }
}

impl Effective {
    /// Replaces a seed by the public key that it makes: enough to see whether two are the same, and no secret.
    pub(super) fn forget_seed(&mut self) {
        if matches!(self.setting.kind, Kind::Seed(_)) && !self.value.is_empty() {
            let public = KeyPair::from_seed(&self.value).map(|key| key.public_key().to_string());
            self.value.zeroize();
            self.value = public.unwrap_or_default();
        }
    }

    /// The value as people may see it.
    pub fn shown(&self) -> String {
        match () {
            () if self.value.is_empty() => String::new(),
            () if self.setting.kind.is_secret() => super::Secret::MASK.to_owned(),
            () => self.setting.kind.show(&self.value),
        }
    }
}

impl Sources {
    /// Overwrites what may be a secret: every value of the environment and of files, and every credential.
    pub(super) fn wipe(&mut self) {
        self.environment.iter_mut().for_each(|(_, value)| value.zeroize());
        let assignments = self.dotenv.iter_mut().flat_map(|(_, assignments)| assignments);
        assignments.for_each(|assignment| assignment.value.zeroize());
        self.given.iter_mut().for_each(|given| given.value.zeroize());
        self.credentials.wipe();
        for value in self.host_config.iter_mut().flat_map(|(_, members)| members.values_mut()) {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
    }

    /// Reads all sources: `directory` is the current one; `host_config` another file than the one in it.
    ///
    /// # Errors
    /// `Config`: a file cannot be read or understood. A missing one is none, except a `host_config` that was asked for.
    pub fn gather(directory: &Path, host_config: Option<&Path>, given: Vec<Given>) -> Result<Self> {
        let mut environment = Vec::new();
        let mut not_text = Vec::new();
        for (name, value) in env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => environment.push((name, value)),
                Err(_) => not_text.push(name),
            }
        }
        let (mut dotenv, mut blank) = (Vec::new(), Vec::new());
        for name in [format!(".env.{ENVIRONMENT}.local"), format!(".env.{ENVIRONMENT}"), ".env".to_owned()] {
            if let Some(text) = read(&directory.join(&name), &name, dotenv::MAX_FILE_BYTES)? {
                let assignments = dotenv::parse(&name, &text)?;
                blank.extend(is_blank(&text).then(|| name.clone()));
                dotenv.push((name, assignments));
            }
        }
        let (name, text) = match host_config {
            None => (HOST_CONFIG.to_owned(), read(&directory.join(HOST_CONFIG), HOST_CONFIG, MAX_HOST_CONFIG_BYTES)?),
            Some(path) => {
                let name = path.display().to_string();
                let text = read(&directory.join(path), &name, MAX_HOST_CONFIG_BYTES)?;
                (name.clone(), Some(text.ok_or_else(|| Error::not_found(format!("there is no file {name}")))?))
            }
        };
        blank.extend(text.as_ref().filter(|text| is_blank(text)).map(|_| name.clone()));
        let host_config =
            text.map(|text| host_config_members(&name, &text).map(|members| (name, members))).transpose()?;
        let surroundings = Surroundings::of_process();
        let credentials = match env::var_os(credentials::DIRECTORY) {
            Some(directory) => Credentials::read(Path::new(&directory))?,
            None => Credentials::default(),
        };
        Ok(Self { host_config, dotenv, environment, not_text, blank, credentials, given, surroundings })
    }

    /// Adds the file of settings at `path`, which wins over every `.env` file.
    ///
    /// # Errors
    /// `NotFound`: there is none. `Config`: it cannot be understood. `Denied`: it holds a secret that every user of this
    /// machine can read.
    pub fn add_env_file(&mut self, path: &Path) -> Result<()> {
        let name = path.display().to_string();
        let text = read(path, &name, dotenv::MAX_FILE_BYTES)?
            .ok_or_else(|| Error::not_found(format!("there is no file {name}")))?;
        let assignments = dotenv::parse(&name, &text)?;
        self.blank.extend(is_blank(&text).then(|| name.clone()));
        let secret = assignments
            .iter()
            .find(|found| !found.value.is_empty() && find(&found.name).is_some_and(|setting| setting.kind.is_secret()));
        if let Some(secret) = secret {
            private::check(path)
                .map_err(|error| error.context(format_args!("{name}:{} sets {}", secret.line, secret.name)))?;
        }
        self.dotenv.insert(0, (name, assignments));
        Ok(())
    }

    /// The value of every setting, in the order of the table, and what deserves a warning.
    ///
    /// # Errors
    /// `Config`: a value cannot be used. The text names the variable, the value unless it is a secret, what is expected,
    /// and where the value came from.
    pub fn resolve(&self) -> Result<(Vec<Effective>, Vec<String>)> {
        let mut warnings = self.unknown_names();
        warnings.extend(self.blank.iter().map(|name| blank_warning(name)));
        let mut values = Vec::with_capacity(SETTINGS.len());
        for setting in SETTINGS {
            let default = || Effective {
                setting,
                value: setting.default.value(&self.surroundings),
                origin: Origin::Default,
                alias: None,
            };
            let effective = match self.highest(setting)? {
                None => default(),
                Some(mut found) => match judge(&found, &mut warnings)? {
                    Some(value) => {
                        let value = self.expanded(&found, value)?;
                        std::mem::replace(&mut found.value, value).zeroize();
                        found
                    }
                    None => default(),
                },
            };
            values.push(effective);
        }
        Ok((values, warnings))
    }

    /// `value` with the user's home directory in the place of `~/`, where `found` is a path: no shell has read the files that
    /// settings come from.
    fn expanded(&self, found: &Effective, value: String) -> Result<String> {
        let Some(rest) = value.strip_prefix("~/").filter(|_| found.setting.kind == Kind::Path) else {
            return Ok(value);
        };
        match self.surroundings.home() {
            Some(home) => Ok(format!("{}/{rest}", home.trim_end_matches('/'))),
            None => Err(Error::config(format!(
                "{} ({}): {value} cannot be used, because HOME is not set; write the path in full",
                found.setting.name, found.origin
            ))),
        }
    }

    /// What the sources set for the one setting `name`, whatever state the others are in: for commands that need no more.
    ///
    /// # Errors
    /// `Config`: that value cannot be used.
    pub fn one(&self, name: &str) -> Result<Option<String>> {
        let Some(setting) = find(name) else { return Ok(None) };
        match self.highest(setting)? {
            Some(found) => match judge(&found, &mut Vec::new())? {
                Some(value) => self.expanded(&found, value).map(Some),
                None => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// Variables of all sources that begin with `prefix`, the winning value of each; for labels.
    pub fn with_prefix(&self, prefix: &str) -> Vec<(&str, &str)> {
        let mut found: Vec<(&str, &str)> = Vec::new();
        let environment = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let dotenv = self.dotenv.iter().flat_map(|(_, assignments)| {
            // Within a file the last assignment wins.
            assignments.iter().rev().map(|assignment| (assignment.name.as_str(), assignment.value.as_str()))
        });
        for (name, value) in environment.chain(dotenv) {
            // A setting may begin so, too.
            if name.starts_with(prefix) && find(name).is_none() && !found.iter().any(|(known, _)| *known == name) {
                found.push((name, value));
            }
        }
        found
    }

    /// The raw value of the highest source that sets `setting`. An empty value sets nothing.
    fn highest(&self, setting: &'static Setting) -> Result<Option<Effective>> {
        let effective = |value: &str, origin, alias| Effective { setting, value: value.to_owned(), origin, alias };
        if let Some(given) = self.given.iter().rev().find(|given| given.setting == setting.name) {
            return Ok(Some(effective(&given.value, Origin::Flag(given.flag), None)));
        }
        if let Some((name, value)) = self.credentials.find(setting) {
            return Ok(Some(effective(&Zeroizing::new(value), Origin::Credential(name), None)));
        }
        for name in names(setting) {
            if self.not_text.iter().any(|broken| broken == name) {
                return Err(Error::config(format!(
                    "{name}: expected {}, got bytes that are not UTF-8 text",
                    setting.kind.describe()
                )));
            }
            let found = self.environment.iter().find(|(known, value)| known == name && !value.is_empty());
            if let Some((_, value)) = found {
                return Ok(Some(effective(value, Origin::Environment, alias_of(setting, name))));
            }
        }
        for (file, assignments) in &self.dotenv {
            for name in names(setting) {
                let found = assignments.iter().rev().find(|found| found.name == name && !found.value.is_empty());
                if let Some(found) = found {
                    let origin = Origin::Dotenv(file.clone(), found.line);
                    return Ok(Some(effective(&found.value, origin, alias_of(setting, name))));
                }
            }
        }
        let Some((file, members)) = &self.host_config else { return Ok(None) };
        let Some(value) = members.get(setting.json) else { return Ok(None) };
        let text = text_of(value).ok_or_else(|| {
            Error::config(format!(
                "{file}: {}: expected {}, got another kind of JSON value",
                setting.json,
                setting.kind.describe()
            ))
        })?;
        let origin = Origin::HostConfig(file.clone());
        Ok(Some(text).filter(|text| !text.is_empty()).map(|text| effective(&text, origin, None)))
    }

    /// Warnings of names that look like settings and are none.
    fn unknown_names(&self) -> Vec<String> {
        let known = || SETTINGS.iter().flat_map(|setting| names(setting).filter(|name| name.starts_with("WASM")));
        let is_unknown = |name: &str| {
            let habit = || HABITS.iter().any(|(habit, _)| *habit == name);
            name.starts_with("WASMCLOUD_") && find(name).is_none() && !FOREIGN.contains(&name) && !habit()
        };
        let mut warnings = Vec::new();
        let advice = |name: &str| HABITS.iter().find(|(habit, _)| *habit == name).map(|(_, advice)| *advice);
        let in_files = self.dotenv.iter().flat_map(|(file, assignments)| {
            assignments.iter().map(move |found| (format!("{file}:{}", found.line), &found.name, &found.value))
        });
        let in_environment = self.environment.iter().map(|(name, value)| ("environment".to_owned(), name, value));
        for (origin, name, _) in in_environment.chain(in_files).filter(|(.., value)| !value.is_empty()) {
            if let Some(advice) = advice(name) {
                warnings.push(format!("{name} ({origin}) has no effect: {advice}"));
            }
        }
        for (name, _) in self.environment.iter().filter(|(name, _)| is_unknown(name)) {
            warnings
                .push(format!("{name} is set in the environment, but there is no such setting{}", hint(name, known())));
        }
        for (file, assignments) in &self.dotenv {
            for Assignment { line, name, .. } in assignments.iter().filter(|found| is_unknown(&found.name)) {
                warnings.push(format!("{file}:{line}: there is no setting {name}{}", hint(name, known())));
            }
        }
        if let Some((file, members)) = &self.host_config {
            let known: Vec<&str> =
                SETTINGS.iter().map(|setting| setting.json).filter(|json| !json.is_empty()).collect();
            for name in
                members.keys().filter(|name| !known.contains(&name.as_str()) && !OTHER_MEMBERS.contains(&name.as_str()))
            {
                warnings.push(format!("{file}: there is no setting {name}{}", hint(name, known.iter().copied())));
            }
        }
        warnings
    }
}

/// Members that other hosts write into the file and that set nothing here.
const OTHER_MEMBERS: &[&str] = &[
    "cluster_key",
    "cluster_adhoc",
    "ctl_timeout",
    "enable_ipv6",
    "rpc_timeout",
    "name",
    "host_key",
    "enable_structured_logging",
    "structured_log_level",
];

/// The normal form of a value that was set, or `None` if it is to be passed over with a warning.
fn judge(found: &Effective, warnings: &mut Vec<String>) -> Result<Option<String>> {
    let Effective { setting, value, origin, alias } = found;
    let name = alias.unwrap_or(setting.name);
    if *alias == Some("RUST_LOG") {
        // `info,module=debug`: only a level for everything means anything here.
        let level = value.split(',').find_map(|part| Kind::Level.normalise(part).ok());
        if level.is_none() {
            warnings.push(format!(
                "RUST_LOG ({origin}) names no level for everything and is not used; set {} instead",
                setting.name
            ));
        }
        return Ok(level);
    }
    if setting.kind == Kind::Flag && !flag(value) && !plain_no(value) {
        warnings.push(format!(
            "{name} ({origin}) is {:?}, which means false; true is one of 1, TRUE, YES, Y, ENABLED, ENABLE",
            cut(value)
        ));
    }
    setting.kind.normalise(value).map(Some).or_else(|expected| {
        if setting.name == "WASMCLOUD_HOST_SEED" {
            warnings.push(format!("{name} ({origin}) is not used: expected {expected}"));
            return Ok(None);
        }
        let got = if setting.kind.is_secret() { String::new() } else { format!(", got {:?}", cut(value)) };
        Err(Error::config(format!("{name} ({origin}): expected {expected}{got}")))
    })
}

/// Enough of a value to recognise it.
fn cut(value: &str) -> &str {
    const SHOWN: usize = 60;
    value.char_indices().nth(SHOWN).map_or(value, |(end, _)| &value[..end])
}

fn names(setting: &'static Setting) -> impl Iterator<Item = &'static str> {
    std::iter::once(setting.name).chain(setting.aliases.iter().copied())
}

fn alias_of(setting: &'static Setting, name: &'static str) -> Option<&'static str> {
    (setting.name != name).then_some(name)
}

fn host_config_members(name: &str, text: &str) -> Result<serde_json::Map<String, Value>> {
    if is_blank(text) {
        return Ok(serde_json::Map::new());
    }
    match serde_json::from_str(without_mark(text)) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Error::config(format!("{name}: expected one JSON object"))),
        // The parser's text names line and column and repeats nothing of the file.
        Err(cause) => Err(Error::config(format!("{name}: not valid JSON: {cause}"))),
    }
}

/// A JSON value as an environment variable would write it; `None` for an object.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(value) => Some(value.to_string()),
        Value::String(value) => Some(value.clone()),
        Value::Array(items) => items.iter().map(text_of).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        Value::Object(_) => None,
    }
}

/// Why a file cannot be read, in words that help where the system's do not.
fn reason(cause: &io::Error) -> String {
    match is_loop(cause) {
        true => "its symbolic links lead in a circle".to_owned(),
        false => cause.to_string(),
    }
}

/// The text of a file, or `None` if there is none.
fn read(path: &Path, name: &str, limit: u64) -> Result<Option<String>> {
    let failed = |cause: io::Error| Error::config(format!("cannot read {name}: {}", reason(&cause)));
    let metadata = match fs::metadata(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    // A directory called `.env` is a virtual environment of another language and none of our business.
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    let length = fs::File::open(path).map_err(failed)?.take(limit + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > limit {
        return Err(Error::config(format!("{name} is longer than {limit} bytes")));
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(environment: &[(&str, &str)]) -> Sources {
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Sources { environment, surroundings: Surroundings::of_root(), ..Sources::default() }
    }

    fn with_files(mut sources: Sources, dotenv: &str, host_config: &str) -> Sources {
        sources.dotenv = vec![(".env".into(), dotenv::parse(".env", dotenv).expect("good .env"))];
        let members = host_config_members(HOST_CONFIG, host_config).expect("good JSON");
        sources.host_config = Some((HOST_CONFIG.into(), members));
        sources
    }

    fn value(sources: &Sources, name: &str) -> (String, String) {
        let (values, _) = sources.resolve().expect("good settings");
        let found = values.into_iter().find(|found| found.setting.name == name).expect("a setting of the table");
        (found.value.clone(), found.origin.to_string())
    }

    fn error(sources: &Sources) -> String {
        sources.resolve().err().expect("a bad setting").to_string()
    }

    #[test]
    fn each_source_wins_over_the_ones_below() {
        const NAME: &str = "WASMCLOUD_LATTICE_PREFIX";
        let mut all = sources(&[]);
        assert_eq!(value(&all, NAME), ("default".into(), "default".into()));
        all = with_files(all, "", r#"{"lattice_prefix":"file"}"#);
        assert_eq!(value(&all, NAME), ("file".into(), "host_config.json".into()));
        all = with_files(all, "\n\nWASMCLOUD_LATTICE_PREFIX=dot", r#"{"lattice_prefix":"file"}"#);
        assert_eq!(value(&all, NAME), ("dot".into(), ".env:3".into()));
        all.environment.push((NAME.into(), "env".into()));
        assert_eq!(value(&all, NAME), ("env".into(), "environment".into()));
        all.given.push(Given { setting: NAME, flag: "--lattice", value: "flag".into() });
        assert_eq!(value(&all, NAME), ("flag".into(), "--lattice".into()));
    }

    #[test]
    fn aliases_count_in_their_source_and_the_real_name_first() {
        let both = sources(&[("WASMCLOUD_LATTICE", "alias"), ("WASMCLOUD_LATTICE_PREFIX", "name")]);
        assert_eq!(value(&both, "WASMCLOUD_LATTICE_PREFIX").0, "name");
        let alias = with_files(sources(&[("WASMCLOUD_LATTICE", "alias")]), "WASMCLOUD_LATTICE_PREFIX=dot", "{}");
        assert_eq!(value(&alias, "WASMCLOUD_LATTICE_PREFIX"), ("alias".into(), "environment".into()));
        let nats = sources(&[("NATS_HOST", "nats.lan"), ("WASMCLOUD_CTL_HOST", "ctl.lan")]);
        assert_eq!(value(&nats, "WASMCLOUD_RPC_HOST").0, "nats.lan");
        assert_eq!(value(&nats, "WASMCLOUD_CTL_HOST").0, "ctl.lan");
    }

    #[test]
    fn an_empty_value_sets_nothing() {
        let empty = with_files(sources(&[("WASMCLOUD_RPC_PORT", "")]), "WASMCLOUD_RPC_PORT=", r#"{"rpc_port":5222}"#);
        assert_eq!(value(&empty, "WASMCLOUD_RPC_PORT"), ("5222".into(), "host_config.json".into()));
        let null =
            with_files(sources(&[]), "", r#"{"js_domain":null,"allowed_insecure":["a:1","b:2"],"rpc_tls":true}"#);
        assert_eq!(value(&null, "WASMCLOUD_JS_DOMAIN").1, "default");
        assert_eq!(value(&null, "WASMCLOUD_OCI_ALLOWED_INSECURE").0, "a:1,b:2");
        assert_eq!(value(&null, "WASMCLOUD_RPC_TLS").0, "true");
    }

    #[test]
    fn a_bad_value_names_variable_value_expectation_and_origin() {
        assert_eq!(
            error(&sources(&[("WASMCLOUD_RPC_PORT", "many")])),
            "WASMCLOUD_RPC_PORT (environment): expected a whole number from 1 to 65535, got \"many\""
        );
        let dotenv = with_files(sources(&[]), "WASMCLOUD_LOG_LEVEL=loud", "{}");
        assert_eq!(
            error(&dotenv),
            "WASMCLOUD_LOG_LEVEL (.env:1): expected one of trace, debug, info, warn, error, got \"loud\""
        );
        let nested = with_files(sources(&[]), "", r#"{"rpc_host":{}}"#);
        assert!(error(&nested).starts_with("host_config.json: rpc_host: expected text"));
    }

    #[test]
    fn a_bad_secret_is_not_repeated() {
        let bad = sources(&[("WASMCLOUD_CLUSTER_SEED", "SCSECRET")]);
        assert_eq!(error(&bad), "WASMCLOUD_CLUSTER_SEED (environment): expected the seed of a cluster key, SC…");
    }

    #[test]
    fn a_bad_host_seed_is_a_warning_and_not_used() {
        let (values, warnings) = sources(&[("WASMCLOUD_HOST_SEED", "SNSECRET")]).resolve().expect("only a warning");
        let seed = values.iter().find(|found| found.setting.name == "WASMCLOUD_HOST_SEED").expect("in the table");
        assert_eq!((seed.value.as_str(), &seed.origin), ("", &Origin::Default));
        assert_eq!(warnings, ["WASMCLOUD_HOST_SEED (environment) is not used: expected the seed of a host key, SN…"]);
    }

    #[test]
    fn unknown_names_are_warned_of_with_the_likely_one() {
        let odd = with_files(
            sources(&[("WASMCLOUD_LOGLEVEL", "x"), ("WASMCLOUD_DASHBOARD_PORT", "4000"), ("HOME", "/")]),
            "WASMCLOUD_XYZ=1\nNATS_URL=nats://hub",
            r#"{"ctl_hots":"x","cluster_key":"C"}"#,
        );
        assert_eq!(
            odd.resolve().expect("only warnings").1,
            [
                "WASMCLOUD_DASHBOARD_PORT (environment) has no effect: this program has no dashboard; `latticed status` and \
                 WASMCLOUD_PROBES tell how it is",
                "NATS_URL (.env:2) has no effect: set NATS_HOST and NATS_PORT",
                "WASMCLOUD_LOGLEVEL is set in the environment, but there is no such setting (did you mean WASMCLOUD_LOG_LEVEL?)",
                ".env:1: there is no setting WASMCLOUD_XYZ",
                "host_config.json: there is no setting ctl_hots (did you mean ctl_host?)",
            ]
        );
    }

    #[test]
    fn odd_booleans_and_rust_log_are_warned_of() {
        let odd = sources(&[("WASMCLOUD_RPC_TLS", "on"), ("RUST_LOG", "async_nats=debug")]);
        let (values, warnings) = odd.resolve().expect("only warnings");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(values.iter().all(|found| found.origin != Origin::Environment || found.value == "false"));
        assert_eq!(value(&sources(&[("RUST_LOG", "async_nats=warn,debug")]), "WASMCLOUD_LOG_LEVEL").0, "debug");
    }

    #[test]
    fn secrets_are_not_shown() {
        let (values, _) = sources(&[("WASMCLOUD_RPC_JWT", "eyJSECRET")]).resolve().expect("good settings");
        let token = values.iter().find(|found| found.setting.name == "WASMCLOUD_RPC_JWT").expect("in the table");
        assert_eq!((token.value.as_str(), token.shown().as_str()), ("eyJSECRET", "(set, hidden)"));
    }

    #[test]
    fn files_are_read_from_the_directory_and_the_most_specific_wins() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("a file");
        write(".env", "WASMCLOUD_LATTICE_PREFIX=one\nWASMCLOUD_JS_DOMAIN=base");
        write(".env.prod", "WASMCLOUD_LATTICE_PREFIX=two");
        write(".env.prod.local", "WASMCLOUD_LATTICE_PREFIX=three");
        write("host_config.json", "{\"ctl_port\": 4333}");
        let mut gathered = Sources::gather(directory.path(), None, Vec::new()).expect("readable files");
        gathered.environment.clear();
        assert_eq!(value(&gathered, "WASMCLOUD_LATTICE_PREFIX"), ("three".into(), ".env.prod.local:1".into()));
        assert_eq!(value(&gathered, "WASMCLOUD_JS_DOMAIN"), ("base".into(), ".env:2".into()));
        assert_eq!(value(&gathered, "WASMCLOUD_CTL_PORT").0, "4333");
        write("host_config.json", "\u{feff}{\"ctl_port\":\r\n 4333}\r\n");
        let marked = Sources::gather(directory.path(), None, Vec::new()).expect("a mark and CR LF are fine");
        assert_eq!(marked.host_config.expect("it is read").1["ctl_port"], 4333);
        write("host_config.json", "");
        let empty = Sources::gather(directory.path(), None, Vec::new()).expect("an empty file stops nothing");
        assert!(empty.resolve().expect("good").1.iter().any(|warning| warning.contains("host_config.json is empty")));
        write("host_config.json", "{\n  \"ctl_port\": }");
        let error = Sources::gather(directory.path(), None, Vec::new()).err().expect("bad JSON").to_string();
        assert!(error.starts_with("host_config.json: not valid JSON") && error.contains("line 2 column"), "{error}");
        let missing = Sources::gather(directory.path(), Some(Path::new("other.json")), Vec::new());
        assert!(missing.is_err_and(|error| error.text() == "there is no file other.json"));
    }
}
