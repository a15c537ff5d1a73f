//! Link values to the options of one listener (`protocol/interfaces.md §2`): which key wins, what a value may be.
//!
//! Applied in this order, the later winning: `config_file` (.json or .toml), `config_b64`, `config_json`; then `address`,
//! `port` (on 127.0.0.1), `cache_control`, `readonly_mode`, and of our own `max_content_len` and `timeout_ms`, which the
//! JSON settings have too. Keys of link values are read in any case.
//!
//! Pure but for `config_file`, which the caller reads. Values of first-party manifests work unchanged; what they say and
//! this server does not know is named in a warning, never dropped silently.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use data_encoding::BASE64_NOPAD;
use hyper::{Method, header::HeaderValue};
use serde_json::Value;

use super::{
    cors::Cors,
    settings::Settings,
    values::{address, content_length, header_value, names, object, port, switch, text, texts, timeout},
};
use crate::{
    capability::preview::unknown,
    error::{Error, Result},
    log::Level,
    wire::LinkDefinition,
};

/// Where a link listens when it does not say.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

/// Link values that mean something here, in lower case.
const KEYS: [&str; 9] = [
    "config_file",
    "config_b64",
    "config_json",
    "address",
    "port",
    "cache_control",
    "readonly_mode",
    "max_content_len",
    "timeout_ms",
];

/// Members of the JSON settings.
const MEMBERS: [&str; 8] =
    ["address", "tls", "cors", "timeout_ms", "max_content_len", "cache_control", "readonly_mode", "log"];

/// Members of `cors`.
const CORS_MEMBERS: [&str; 5] =
    ["allowed_origins", "allowed_headers", "allowed_methods", "exposed_headers", "max_age_secs"];

/// How texts call this provider.
const SERVER: &str = "the HTTP server";

/// Everything one listener needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 lets the kernel choose.
    pub address: SocketAddr,
    /// Certificate and key, both PEM files.
    pub tls: Option<TlsFiles>,
    /// What browsers on other sites may do.
    pub cors: Cors,
    /// Time for one request.
    pub timeout: Duration,
    /// Largest request body, bytes.
    pub max_body_bytes: usize,
    /// `Cache-Control` of successful answers to GET and HEAD that have none.
    pub cache_control: Option<HeaderValue>,
    /// Only GET and HEAD reach the actor.
    pub readonly: bool,
    /// The level at which each request is logged; `None` for never.
    pub log: Option<Level>,
}

/// The two files of `tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first, PEM.
    pub cert_file: PathBuf,
    /// Private key, PEM.
    pub priv_key_file: PathBuf,
}

impl Options {
    /// What applies before any link value.
    fn new(settings: &Settings) -> Self {
        Self {
            address: DEFAULT_ADDRESS,
            tls: None,
            cors: Cors::default(),
            timeout: settings.timeout,
            max_body_bytes: settings.max_body_bytes,
            cache_control: None,
            readonly: false,
            log: Some(Level::Debug),
        }
    }

    /// The options of `link`; `config_file` is the text of the file that its value names, if it names one. The second
    /// part of the answer says what was not understood, one sentence each.
    ///
    /// # Errors
    /// A value that cannot be used, named with what it should look like.
    pub fn from_link(
        settings: &Settings,
        link: &LinkDefinition,
        config_file: Option<&str>,
    ) -> Result<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let mut unknown_value = None;
        for (position, key) in link.values.keys().enumerate() {
            let known = KEYS.iter().any(|known| key.eq_ignore_ascii_case(known));
            if !known {
                unknown_value = Some(key);
                warnings.push(unknown("link value", key, SERVER, KEYS)?);
            }
            if link.values.keys().skip(position + 1).any(|other| key.eq_ignore_ascii_case(other)) {
                return Err(Error::config(format!(
                    "the link value `{key}` is given twice in different case: keep one of them"
                )));
            }
        }
        let mut options = Self::new(settings);
        let mut reader =
            Reader { options: &mut options, tls: PartialTls::default(), placed: false, warnings: &mut warnings };
        if let Some(text) = config_file {
            let path = link.value("config_file").unwrap_or("config_file");
            reader.apply(&parse_file(path, text)?).map_err(|error| error.context(path))?;
        }
        if let Some(text) = link.value("config_b64") {
            let bytes = BASE64_NOPAD.decode(text.trim().trim_end_matches('=').as_bytes()).map_err(|cause| {
                Error::config(format!("the link value `config_b64` is not base64 ({cause}): encode JSON with it"))
            })?;
            reader.apply(&parse_json(&bytes, "config_b64")?).map_err(|error| error.context("config_b64"))?;
        }
        if let Some(text) = link.value("config_json") {
            reader.apply(&parse_json(text.as_bytes(), "config_json")?).map_err(|error| error.context("config_json"))?;
        }
        let (tls, placed) = (reader.tls, reader.placed);
        options.tls = tls.whole()?;
        let (place, port) = (link.value("address"), link.value("port").map(port).transpose()?);
        match (place, port) {
            (None, None) => {}
            (None, Some(port)) => options.address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            (Some(text), None) => options.address = address(text)?,
            (Some(text), Some(port)) => match text.trim().parse::<IpAddr>() {
                Ok(ip) => options.address = SocketAddr::new(ip, port),
                Err(_) => {
                    let whole = address(text)?;
                    options.address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
                    if whole != options.address {
                        warnings.push(format!(
                            "`address` {whole} has no effect beside `port`, which means {}: keep one of them, or write \
                             the address without a port",
                            options.address
                        ));
                    }
                }
            },
        }
        // Whatever was meant, it was hardly the address that holds where none is given.
        if let Some(key) = unknown_value.filter(|_| place.is_none() && port.is_none() && !placed) {
            return Err(Error::config(format!(
                "the link value `{key}` means nothing to the HTTP server, and no address is given: write `address`, \
                 127.0.0.1:8080 for instance"
            )));
        }
        if let Some(text) = link.value("cache_control") {
            options.cache_control = Some(header_value("cache_control", text)?);
        }
        if let Some(text) = link.value("readonly_mode") {
            options.readonly = switch(text)?;
        }
        if let Some(text) = link.value("max_content_len") {
            options.max_body_bytes = content_length(text)?;
        }
        if let Some(text) = link.value("timeout_ms") {
            options.timeout = timeout(text.trim().parse().ok(), text)?;
        }
        if options.max_body_bytes > settings.payload_bytes {
            warnings.push(format!(
                "`max_content_len` is {} bytes, but an invocation carries no more than {} \
                 (WASMCLOUD_ACTOR_PAYLOAD_BYTES): larger requests are answered with 413",
                options.max_body_bytes, settings.payload_bytes
            ));
        }
        Ok((options, warnings))
    }
}

/// Puts JSON settings into options.
struct Reader<'a> {
    options: &'a mut Options,
    tls: PartialTls,
    /// Whether an address was given.
    placed: bool,
    warnings: &'a mut Vec<String>,
}

#[derive(Default)]
struct PartialTls {
    cert_file: Option<PathBuf>,
    priv_key_file: Option<PathBuf>,
}

impl PartialTls {
    fn whole(self) -> Result<Option<TlsFiles>> {
        match (self.cert_file, self.priv_key_file) {
            (Some(cert_file), Some(priv_key_file)) => Ok(Some(TlsFiles { cert_file, priv_key_file })),
            (None, None) => Ok(None),
            _ => Err(Error::config("TLS needs both `tls.cert_file` and `tls.priv_key_file`: give the missing one")),
        }
    }
}

impl Reader<'_> {
    fn apply(&mut self, settings: &Value) -> Result<()> {
        for (key, value) in object("the settings", settings)? {
            // Absent and null mean the same to first-party clients.
            if value.is_null() {
                continue;
            }
            match key.as_str() {
                "address" => {
                    self.options.address = address(text(key, value)?)?;
                    self.placed = true;
                }
                "tls" => self.tls(value)?,
                "cors" => self.cors(value)?,
                "timeout_ms" => self.options.timeout = timeout(value.as_u64(), &value.to_string())?,
                "max_content_len" => {
                    self.options.max_body_bytes = match value.as_u64() {
                        Some(number) => content_length(&number.to_string())?,
                        None => content_length(text(key, value)?)?,
                    };
                }
                "cache_control" => self.options.cache_control = Some(header_value(key, text(key, value)?)?),
                "readonly_mode" => {
                    self.options.readonly = match value.as_bool() {
                        Some(flag) => flag,
                        None => switch(text(key, value)?)?,
                    };
                }
                "log" => self.log(value)?,
                _ => self.warnings.push(unknown("setting", key, SERVER, MEMBERS)?),
            }
        }
        Ok(())
    }

    fn tls(&mut self, value: &Value) -> Result<()> {
        for (key, value) in object("tls", value)? {
            match (key.as_str(), value.is_null()) {
                (_, true) => {}
                ("cert_file", _) => self.tls.cert_file = Some(text(key, value)?.into()),
                ("priv_key_file", _) => self.tls.priv_key_file = Some(text(key, value)?.into()),
                _ => self.warnings.push(unknown(
                    "setting",
                    &format!("tls.{key}"),
                    SERVER,
                    ["cert_file", "priv_key_file"],
                )?),
            }
        }
        Ok(())
    }

    fn cors(&mut self, value: &Value) -> Result<()> {
        let cors = &mut self.options.cors;
        for (key, value) in object("cors", value)? {
            match (key.as_str(), value.is_null()) {
                (_, true) => {}
                ("allowed_origins", _) => cors.allow_origins(&texts(key, value)?)?,
                ("allowed_headers", _) => cors.allow_headers(names(key, value)?),
                ("allowed_methods", _) => {
                    let mut methods = Vec::new();
                    for name in texts(key, value)? {
                        methods.push(Method::from_bytes(name.as_bytes()).map_err(|_| {
                            Error::config(format!("`cors.allowed_methods` holds `{name}`, which is no HTTP method"))
                        })?);
                    }
                    cors.allow_methods(methods);
                }
                ("exposed_headers", _) => cors.expose_headers(names(key, value)?),
                ("max_age_secs", _) => {
                    cors.max_age(value.as_u64().ok_or_else(|| {
                        Error::config(format!("`cors.max_age_secs` is {value}: it must be a number of seconds"))
                    })?);
                }
                _ => self.warnings.push(unknown("setting", &format!("cors.{key}"), SERVER, CORS_MEMBERS)?),
            }
        }
        Ok(())
    }

    fn log(&mut self, value: &Value) -> Result<()> {
        for (key, value) in object("log", value)? {
            if key != "level" {
                self.warnings.push(unknown("setting", &format!("log.{key}"), SERVER, ["level"])?);
                continue;
            }
            self.options.log = match text(key, value)?.to_ascii_lowercase().as_str() {
                "off" => None,
                "error" => Some(Level::Error),
                "warn" => Some(Level::Warn),
                "info" => Some(Level::Info),
                "debug" => Some(Level::Debug),
                "trace" => Some(Level::Trace),
                other => {
                    return Err(Error::config(format!(
                        "`log.level` is `{other}`: it must be off, error, warn, info, debug or trace"
                    )));
                }
            };
        }
        Ok(())
    }
}

fn parse_json(bytes: &[u8], what: &str) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|cause| Error::config(format!("the link value `{what}` is not the JSON it should be: {cause}")))
}

/// Deepest nesting of a TOML file. The library calls itself for each level and would exhaust the stack; options have three.
const MAX_TOML_NESTING: usize = 64;

/// How deep a TOML text nests at most: open brackets, and names within one name. Brackets inside text count too.
fn toml_nesting(text: &str) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    let keys = text.lines().flat_map(|line| line.split('=')).filter_map(|part| part.rsplit([',', '{']).next());
    keys.map(|key| key.matches('.').count()).max().unwrap_or_default().max(deepest)
}

fn parse_file(path: &str, text: &str) -> Result<Value> {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    if extension.eq_ignore_ascii_case("json") {
        return serde_json::from_str(text).map_err(|cause| Error::config(format!("{path} is not JSON: {cause}")));
    }
    if extension.eq_ignore_ascii_case("toml") {
        if toml_nesting(text) > MAX_TOML_NESTING {
            return Err(Error::config(format!(
                "{path} is nested more than {MAX_TOML_NESTING} levels deep: no option of the HTTP server needs that"
            )));
        }
        return basic_toml::from_str(text).map_err(|cause| Error::config(format!("{path} is not TOML: {cause}")));
    }
    Err(Error::config(format!(
        "`config_file` is {path}: its name must end in .json or .toml, which says how to read it"
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use data_encoding::{BASE64, BASE64_NOPAD};
    use proptest::prelude::*;

    use super::{DEFAULT_ADDRESS, Level, LinkDefinition, Options, Settings, parse_file, toml_nesting};
    use crate::error::{Kind, Result};

    fn link(values: &[(&str, &str)]) -> LinkDefinition {
        let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LinkDefinition { values, ..LinkDefinition::default() }
    }

    fn read(values: &[(&str, &str)]) -> Result<(Options, Vec<String>)> {
        Options::from_link(&Settings::default(), &link(values), None)
    }

    fn refused(values: &[(&str, &str)], parts: &[&str]) {
        let error = read(values).unwrap_err();
        assert_eq!(error.kind(), Kind::Config);
        for part in parts {
            assert!(error.text().contains(part), "{values:?}: {error}");
        }
    }

    #[test]
    fn without_values_the_defaults_of_the_contract_hold() {
        let (options, warnings) = read(&[]).unwrap();
        let settings = Settings::default();
        assert_eq!(options.address, DEFAULT_ADDRESS);
        assert_eq!((options.timeout, options.max_body_bytes), (settings.timeout, settings.max_body_bytes));
        assert!(options.tls.is_none() && options.cache_control.is_none() && !options.readonly);
        assert_eq!(options.log, Some(Level::Debug));
        assert!(warnings.is_empty());
    }

    #[test]
    fn the_later_source_wins_whatever_the_case_of_its_key() {
        let json = |port: u16| format!(r#"{{"address":"0.0.0.0:{port}"}}"#);
        let b64 = BASE64_NOPAD.encode(json(2).as_bytes());
        let (file, json) = (json(1), json(3));
        let mut values = vec![("Config_File", "x.json")];
        let mut port = |value: Option<(&'static str, String)>| {
            let owned = value.map(|(key, value)| (key, &*Box::leak(value.into_boxed_str())));
            values.extend(owned);
            Options::from_link(&Settings::default(), &link(&values), Some(&file)).unwrap().0.address.to_string()
        };
        assert_eq!(port(None), "0.0.0.0:1");
        assert_eq!(port(Some(("CONFIG_B64", b64))), "0.0.0.0:2");
        assert_eq!(port(Some(("config_JSON", json))), "0.0.0.0:3");
        assert_eq!(port(Some(("ADDRESS", "[::]:4".into()))), "[::]:4");
        assert_eq!(port(Some(("Port", "5".into()))), "127.0.0.1:5");
    }

    #[test]
    fn every_setting_of_the_contract_is_read_from_json_and_toml() {
        let json = r#"{"address":"0.0.0.0:8080","tls":{"cert_file":"/c","priv_key_file":"/k"},
            "cors":{"allowed_origins":["https://a.example"],"allowed_headers":["x-a"],"allowed_methods":["GET"],
            "exposed_headers":["x-b"],"max_age_secs":9},"timeout_ms":1500,"max_content_len":"100M",
            "cache_control":"no-store","readonly_mode":true,"log":{"level":"info"}}"#;
        let toml = r#"
            address = "0.0.0.0:8080"
            timeout_ms = 1500
            max_content_len = "100M"
            cache_control = "no-store"
            readonly_mode = true
            [tls]
            cert_file = "/c"
            priv_key_file = "/k"
            [cors]
            allowed_origins = ["https://a.example"]
            allowed_headers = ["x-a"]
            allowed_methods = ["GET"]
            exposed_headers = ["x-b"]
            max_age_secs = 9
            [log]
            level = "info"
        "#;
        let from_file =
            |name, text| Options::from_link(&Settings::default(), &link(&[("config_file", name)]), Some(text)).unwrap();
        let both = [read(&[("config_json", json)]).unwrap(), from_file("a.json", json), from_file("b.TOML", toml)];
        let padded = BASE64.encode(json.as_bytes());
        for (options, warnings) in both.into_iter().chain([read(&[("config_b64", &padded)]).unwrap()]) {
            assert_eq!(options.address.to_string(), "0.0.0.0:8080");
            let tls = options.tls.unwrap();
            assert_eq!((tls.cert_file.to_str(), tls.priv_key_file.to_str()), (Some("/c"), Some("/k")));
            assert_eq!(options.timeout, Duration::from_millis(1500));
            assert_eq!(options.max_body_bytes, 100 * 1024 * 1024);
            assert_eq!(options.cache_control.unwrap(), "no-store");
            assert!(options.readonly);
            assert_eq!(options.log, Some(Level::Info));
            assert_eq!(warnings.len(), 1, "only that 100M are more than an invocation carries: {warnings:?}");
            assert!(warnings[0].contains("WASMCLOUD_ACTOR_PAYLOAD_BYTES"));
        }
    }

    #[test]
    fn a_size_may_be_a_number_too() {
        assert_eq!(read(&[("config_json", r#"{"max_content_len":1000}"#)]).unwrap().0.max_body_bytes, 1000);
        assert_eq!(read(&[("MAX_CONTENT_LEN", "1k")]).unwrap().0.max_body_bytes, 1024);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_what_it_should_be() {
        refused(&[("address", "localhost:80")], &["localhost:80", "127.0.0.1:8080"]);
        refused(&[("port", "99999")], &["99999", "65535"]);
        refused(&[("readonly_mode", "ture")], &["ture", "true or false"]);
        refused(&[("timeout_ms", "0")], &["timeout_ms"]);
        refused(&[("config_json", r#"{"timeout_ms":3600001}"#)], &["timeout_ms", "3600000"]);
        refused(&[("config_json", "{")], &["config_json"]);
        refused(&[("config_json", "[]")], &["config_json", "object"]);
        refused(&[("config_b64", "!!")], &["config_b64", "base64"]);
        refused(&[("config_json", r#"{"address":1}"#)], &["address"]);
        refused(&[("config_json", r#"{"tls":{"cert_file":"/c"}}"#)], &["priv_key_file"]);
        refused(&[("config_json", r#"{"cors":{"allowed_origins":["ftp://x"]}}"#)], &["ftp://x"]);
        refused(&[("config_json", r#"{"cors":{"allowed_origins":["https://x/y"]}}"#)], &["https://x/y"]);
        refused(&[("config_json", r#"{"cors":{"allowed_headers":["a b"]}}"#)], &["a b"]);
        refused(&[("config_json", r#"{"cors":{"allowed_methods":["G T"]}}"#)], &["G T"]);
        refused(&[("config_json", r#"{"cors":{"max_age_secs":-1}}"#)], &["max_age_secs"]);
        refused(&[("config_json", r#"{"log":{"level":"loud"}}"#)], &["loud", "debug"]);
        refused(&[("cache_control", "a\r\nb")], &["cache_control"]);
        refused(&[("port", "1"), ("PORT", "2")], &["twice"]);
        for name in ["settings.yaml", "settings"] {
            let error =
                Options::from_link(&Settings::default(), &link(&[("config_file", name)]), Some("{}")).unwrap_err();
            assert!(error.text().contains(name) && error.text().contains(".toml"), "{error}");
        }
    }

    #[test]
    fn what_means_nothing_is_said_and_null_means_absent() {
        let json = r#"{"bindings":"x","tls":{"ca":"y","cert_file":null},"cors":{"creds":1,"max_age_secs":null},
            "log":{"file":"z"},"address":null}"#;
        let (options, warnings) = read(&[("config_json", json)]).unwrap();
        assert_eq!((options.address, warnings.len()), (DEFAULT_ADDRESS, 4));
        let (_, warnings) = read(&[("config_json", json), ("worker_threads", "1"), ("port", "1")]).unwrap();
        for name in ["`bindings`", "`tls.ca`", "`cors.creds`", "`log.file`", "`worker_threads`"] {
            assert!(warnings.iter().any(|warning| warning.contains(name)), "{name}: {warnings:?}");
        }
        assert_eq!(warnings.len(), 5);
    }

    #[test]
    fn a_misspelt_name_is_refused_and_so_is_one_that_leaves_no_address() {
        refused(&[("adress", "0.0.0.0:80")], &["`adress`", "did you mean `address`?"]);
        refused(&[("prot", "80")], &["`prot`", "did you mean `port`?"]);
        refused(&[("config_json", r#"{"adress":"0.0.0.0:80"}"#)], &["`adress`", "`address`"]);
        refused(&[("config_json", r#"{"tls":{"cert_fil":"/c"}}"#)], &["`tls.cert_fil`", "`cert_file`"]);
        refused(&[("listen_on", "0.0.0.0:80")], &["`listen_on`", "no address is given"]);
        assert_eq!(read(&[("listen_on", "x"), ("port", "80")]).unwrap().1.len(), 1);
    }

    #[test]
    fn an_address_without_a_port_takes_it_from_port() {
        let (options, warnings) = read(&[("address", "0.0.0.0"), ("port", "81")]).unwrap();
        assert_eq!((options.address.to_string().as_str(), warnings.len()), ("0.0.0.0:81", 0));
        assert_eq!(read(&[("address", "::"), ("port", "81")]).unwrap().0.address.to_string(), "[::]:81");
        let (options, warnings) = read(&[("address", "0.0.0.0:80"), ("port", "81")]).unwrap();
        assert_eq!(options.address.to_string(), "127.0.0.1:81");
        assert!(warnings[0].contains("has no effect beside `port`"), "{warnings:?}");
        refused(&[("address", "0.0.0.0")], &["`address`"]);
        refused(&[("address", "http://0.0.0.0:80")], &["`address`"]);
    }

    #[test]
    fn a_file_that_nests_too_deep_is_refused_before_it_is_read() {
        for deep in
            ["x = ".to_owned() + &"[".repeat(100_000), "x = ".to_owned() + &"{a=".repeat(100_000), "a.".repeat(100_000)]
        {
            assert!(parse_file("a.toml", &deep).unwrap_err().text().contains("levels deep"));
        }
        assert_eq!(toml_nesting("[a.b]\nc = [{ d = 'x' }, { e = 1 }]\n"), 2);
    }

    proptest! {
        #[test]
        fn no_value_panics(key in prop::sample::select(super::KEYS.to_vec()), value in "\\PC{0,40}") {
            let _ = Options::from_link(&Settings::default(), &link(&[(key, &value)]), Some(&value));
        }
    }
}
