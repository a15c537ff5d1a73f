//! The one table of settings: names, kinds, defaults, a line of help each (`protocol/config.md §2`).
//!
//! Everything that speaks of settings reads this table: the sources, the errors, `latticed check`, the man page and the
//! README. Names are those of hosts of this protocol where there is one; aliases are other spellings in use.

use std::{fmt::Write as _, time::Duration};

use super::{surroundings::Surroundings, value::Kind};
use crate::{
    actor::settings as actor,
    artifact::{self, fetch_rules::ALLOW_SETTING},
    capability::key_value,
    claims::{Role, invocation, issuer},
    host::{health, mirror_follow, remote},
    lattice::event_queue,
    nats::{backoff, endpoint},
    provider::{confine, credentials, layers, rules::Rules, settings as provider, watch},
    store, task,
    web::socket,
};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Environment variable, the name people use.
    pub name: &'static str,
    /// Other variables that mean the same; the one above wins.
    pub aliases: &'static [&'static str],
    /// Member of `host_config.json`, `""` where there is none.
    pub json: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What holds where nothing is set.
    pub default: Default,
    /// One line for people.
    pub help: &'static str,
}

/// What a setting is where no source sets it.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text; `""` is "not set".
    Text(&'static str),
    /// This number, from the room that enforces it.
    Number(fn() -> u64),
    /// What follows from the machine and its environment, and how people are told.
    Derived(&'static str, fn(&Surroundings) -> String),
}

impl Default {
    /// The default on this machine.
    pub fn value(self, surroundings: &Surroundings) -> String {
        match self {
            Default::Text(text) => text.to_owned(),
            Default::Number(number) => number().to_string(),
            Default::Derived(_, derive) => derive(surroundings),
        }
    }

    /// The default in words that hold for every machine.
    pub fn words(self, kind: Kind) -> String {
        match self {
            Default::Text("") => "not set".into(),
            Default::Text(text) => format!("`{text}`"),
            Default::Number(number) => format!("`{}`", kind.show(&number().to_string())),
            Default::Derived(words, _) => words.to_owned(),
        }
    }
}

const fn setting(name: &'static str, json: &'static str, kind: Kind, default: Default, help: &'static str) -> Setting {
    Setting { name, aliases: &[], json, kind, default, help }
}

const fn alias(aliases: &'static [&'static str], setting: Setting) -> Setting {
    Setting { aliases, ..setting }
}

const UNSET: Default = Default::Text("");
const OFF: Default = Default::Text("false");
const PORT: Kind = Kind::Count { min: 1, max: 65_535 };
/// Longest time-out that can be set: an hour. Longer waits are a mistake in the unit.
const MAX_MILLIS: u64 = 3_600_000;
/// Most fuel that can be set: days of one core, and far from overflowing a sum.
const MAX_FUEL: u64 = 1_000_000_000_000_000;
/// Longest queue that can be set. Each place holds a payload.
const MAX_QUEUE: u64 = 100_000;

/// A default of another room, in the unit of the table.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const REMOTE_DEFAULT: &str = "`full`; as a service `login`";
const SOCKET_DEFAULT: &str =
    "`$RUNTIME_DIRECTORY/admin.sock`, `$XDG_RUNTIME_DIR/latticed/admin.sock`, or as root `/run/latticed/admin.sock`";
const STATE_DEFAULT: &str =
    "`$STATE_DIRECTORY`, as root `/var/lib/latticed`, else `$XDG_STATE_HOME/latticed` or `~/.local/state/latticed`";

/// Every setting, in the order people see.
pub static SETTINGS: &[Setting] = &[
    // This host.
    setting(
        "WASMCLOUD_STATE_DIR",
        "",
        Kind::Path,
        Default::Derived(STATE_DEFAULT, Surroundings::state_directory),
        "Directory of everything that survives a power cut",
    ),
    setting(
        socket::SETTING,
        "",
        Kind::Path,
        Default::Derived(SOCKET_DEFAULT, Surroundings::admin_socket),
        "Socket of `latticed call`, `status` and `stop`; mode 0600",
    ),
    setting(
        "WASMCLOUD_HOST_SEED",
        "host_seed",
        Kind::Seed(Role::Server),
        UNSET,
        "Key of this host; a bad one is reported and not used. Made and kept in the state directory where not set",
    ),
    setting(
        "WASMCLOUD_HOST_NAME",
        "",
        Kind::HostName,
        UNSET,
        "Name of this host for people; where not set, the host name of the machine, else one that is made up once and kept",
    ),
    setting(
        "WASMCLOUD_READINESS",
        "",
        Kind::Choice(&["auto", "lattice", "local"]),
        Default::Text("auto"),
        "When the host counts as ready: when all that should run runs and is well (`local`), and the lattice is joined too (`lattice`); `auto` is `lattice` where a NATS server is named, else `local`",
    ),
    setting(
        "WASMCLOUD_PROBES",
        "",
        Kind::Text,
        UNSET,
        "Where `/livez` and `/readyz` answer: `127.0.0.1:8090`, or the path of a Unix socket; not set answers nowhere",
    ),
    setting(
        "WASMCLOUD_HEALTH_PERIOD_MS",
        "",
        Kind::Millis { min: 0, max: MAX_MILLIS },
        Default::Number(|| millis(health::DEFAULT_PERIOD)),
        "Time between two health probes of an actor that is in use, and of a provider process; 0 probes none",
    ),
    setting(
        "WASMCLOUD_HEALTH_FAILURES",
        "",
        Kind::Count { min: 0, max: 1000 },
        Default::Number(|| u64::from(health::DEFAULT_FAILURES)),
        "Failed probes in a row after which an actor or provider is started again; 0 never does",
    ),
    setting(
        "WASMCLOUD_HEALTH_RESTARTS",
        "",
        Kind::Count { min: 0, max: 1000 },
        Default::Number(|| u64::from(health::DEFAULT_RESTARTS)),
        "Times it is started again for that, at growing distance, before it waits for a command",
    ),
    setting(
        "WASMCLOUD_DRAIN_MS",
        "",
        Kind::Millis { min: 0, max: MAX_MILLIS },
        Default::Text("5000"),
        "How long work in flight may take when the host stops",
    ),
    setting(
        "WASMCLOUD_ALLOW_FILE_LOAD",
        "enable_start_from_fs",
        Kind::Flag,
        OFF,
        "Let remote commands start actors and providers from files of this machine; a manifest given to `latticed run` always may",
    ),
    setting(
        remote::SETTING,
        "",
        Kind::Choice(remote::Rule::WORDS),
        Default::Derived(REMOTE_DEFAULT, Surroundings::remote),
        "What commands over the lattice may do: all; change only what came over the lattice; only ask; nothing but be pinged; \
         or `full` where NATS requires a login, else `own`",
    ),
    setting(
        "WASMCLOUD_REMOTE_LISTEN",
        "",
        Kind::List,
        UNSET,
        "Addresses beside loopback on which links that came over the lattice may listen under `own`; `0.0.0.0` is all of IPv4",
    ),
    setting(
        "WASMCLOUD_STRICT_UPDATE_CHECK",
        "strict_update_check",
        Kind::Flag,
        OFF,
        "Refuse live updates to revisions that claim capabilities which the running one does not",
    ),
    setting(
        "HOST_CONFIG",
        "host_config",
        Kind::Path,
        UNSET,
        "Write the settings in effect to this file at start, mode 0600, secrets included, for `wash`; not set writes nothing, to keep secrets off the SD card",
    ),
    // Whom it trusts.
    setting(
        issuer::SETTING,
        "",
        Kind::List,
        UNSET,
        "Accounts (`A…`) whose actors and providers may run; not set allows all",
    ),
    setting(
        issuer::UPDATE_SETTING,
        "",
        Kind::List,
        UNSET,
        "Accounts (`A…`) whose actors and providers may take the place of those that another account signed; not set allows none: an update needs the issuer of what it replaces",
    ),
    alias(
        &["WASMCLOUD_CLUSTER_KEY_SEED"],
        setting(
            "WASMCLOUD_CLUSTER_SEED",
            "cluster_seed",
            Kind::Seed(Role::Cluster),
            UNSET,
            "Key that signs invocations of this lattice",
        ),
    ),
    setting(
        "WASMCLOUD_CLUSTER_ISSUERS",
        "cluster_issuers",
        Kind::Keys(Role::Cluster),
        UNSET,
        "Cluster keys (`C…`) whose invocations are accepted, beside our own",
    ),
    setting(
        "WASMCLOUD_INVOCATION_MAX_AGE_MS",
        "",
        Kind::Millis { min: 0, max: MAX_MILLIS },
        Default::Number(|| millis(invocation::MAX_AGE)),
        "How far the moment at which a call over the lattice was signed may be from this host's clock; 0 allows any. Each call is accepted once either way",
    ),
    // Actors.
    setting(
        "WASMCLOUD_ALLOW_WASI",
        "",
        Kind::Choice(&["off", "inert", "deny-all"]),
        Default::Text("inert"),
        "`inert` lets modules import WASI preview 1 and gives them a clock, random numbers and output that is logged; every call about files or sockets fails. `off` refuses each such module and names the import. `deny-all` is the older name of `inert`",
    ),
    setting(
        "WASMCLOUD_ACTOR_MEMORY_BYTES",
        "",
        Kind::Bytes { min: 64 << 10, max: 2 << 30 },
        Default::Number(|| actor::MEMORY_BYTES as u64),
        "Memory of one instance of an actor",
    ),
    setting(
        "WASMCLOUD_ACTOR_DEADLINE_MS",
        "",
        Kind::Millis { min: 1, max: MAX_MILLIS },
        Default::Number(|| actor::DEADLINE.as_millis() as u64),
        "Longest invocation, waiting included",
    ),
    setting(
        "WASMCLOUD_ACTOR_FUEL",
        "",
        Kind::Count { min: 1, max: MAX_FUEL },
        Default::Number(|| actor::FUEL),
        "Fuel of one invocation, about one unit per instruction",
    ),
    setting(
        "WASMCLOUD_ACTOR_STACK_DEPTH",
        "",
        Kind::Count { min: 1, max: 100_000 },
        Default::Number(|| actor::STACK_DEPTH as u64),
        "Nested calls inside an actor",
    ),
    setting(
        "WASMCLOUD_ACTOR_MODULE_BYTES",
        "",
        Kind::Bytes { min: 1 << 10, max: 256 << 20 },
        Default::Number(|| actor::MODULE_BYTES as u64),
        "Largest module",
    ),
    setting(
        "WASMCLOUD_ACTOR_TABLE_ELEMENTS",
        "",
        Kind::Count { min: 1, max: 10_000_000 },
        Default::Number(|| actor::TABLE_ELEMENTS as u64),
        "Elements of one table of a module",
    ),
    setting(
        "WASMCLOUD_ACTOR_MAX_CONCURRENT",
        "",
        Kind::Count { min: 1, max: 65_535 },
        Default::Number(|| u64::from(actor::MAX_CONCURRENT)),
        "Invocations of one actor at once, where no manifest says how many",
    ),
    setting(
        "WASMCLOUD_ACTOR_QUEUE",
        "",
        Kind::Count { min: 0, max: MAX_QUEUE },
        Default::Number(|| actor::QUEUE as u64),
        "Invocations waiting in front of one actor",
    ),
    setting(
        "WASMCLOUD_ACTOR_PAYLOAD_BYTES",
        "",
        Kind::Bytes { min: 1 << 10, max: 256 << 20 },
        Default::Number(|| actor::PAYLOAD_BYTES as u64),
        "Largest request, response, host call and answer",
    ),
    setting(
        "WASMCLOUD_ACTOR_NESTING",
        "",
        Kind::Count { min: 1, max: 64 },
        Default::Number(|| u64::from(actor::NESTING)),
        "How deep actors may call actors",
    ),
    setting(
        "WASMCLOUD_ACTOR_LOG_BYTES",
        "",
        Kind::Bytes { min: 16, max: 1 << 20 },
        Default::Number(|| actor::LOG_BYTES as u64),
        "Longest log text of an actor; the rest is cut off",
    ),
    setting(
        "WASMCLOUD_ACTOR_LOG_PER_SECOND",
        "",
        Kind::Count { min: 0, max: 100_000 },
        Default::Number(|| u64::from(actor::LOG_PER_SECOND)),
        "Log texts of one actor per second; further ones are dropped and counted",
    ),
    setting(
        "WASMCLOUD_MAX_RUNNING",
        "",
        Kind::Count { min: 1, max: 10_000 },
        Default::Number(|| actor::MAX_RUNNING as u64),
        "Invocations at once on this host",
    ),
    setting(
        "WASMCLOUD_QUEUE",
        "",
        Kind::Count { min: 0, max: MAX_QUEUE },
        Default::Number(|| actor::HOST_QUEUE as u64),
        "Invocations waiting in front of the host",
    ),
    setting(
        "WASMCLOUD_WORKERS",
        "",
        Kind::Count { min: 0, max: 256 },
        Default::Derived("cores − 1", |_| task::default_workers().to_string()),
        "Threads that run actors beside the main one",
    ),
    setting(
        "WASMCLOUD_DUMPABLE",
        "",
        Kind::Flag,
        OFF,
        "Let debuggers, profilers and other processes of the same user look into this one, and it leave core dumps: its seeds can be read there",
    ),
    setting(
        "WASMCLOUD_MODULE_CACHE_BYTES",
        "",
        Kind::Bytes { min: 0, max: 1 << 30 },
        Default::Number(|| actor::MODULE_CACHE_BYTES as u64),
        "Compiled modules kept for idle actors",
    ),
    setting(
        "WASMCLOUD_SLICE_FUEL",
        "",
        Kind::Count { min: 1_000, max: MAX_FUEL },
        Default::Number(|| actor::SLICE_FUEL),
        "Fuel an actor burns before others get their turn",
    ),
    // State.
    setting(
        "WASMCLOUD_STORE_BYTES",
        "",
        Kind::Bytes { min: 1 << 20, max: 1 << 40 },
        Default::Number(|| store::DEFAULT_MAX_BYTES),
        "Everything kept in the state directory's log, keys and values together",
    ),
    setting(
        "WASMCLOUD_STORE_KEYS",
        "",
        Kind::Count { min: 1_000, max: 100_000_000 },
        Default::Number(|| store::DEFAULT_MAX_KEYS),
        "Keys in that log; each takes about 100 bytes of memory",
    ),
    setting(
        "WASMCLOUD_KV_BYTES",
        "",
        Kind::Bytes { min: 1 << 10, max: 1 << 40 },
        Default::Number(|| key_value::DEFAULT_MAX_BYTES),
        "One keyspace of `builtin:keyvalue`; the link value `max_bytes` wins",
    ),
    setting(
        "WASMCLOUD_KV_KEYS",
        "",
        Kind::Count { min: 1, max: 100_000_000 },
        Default::Number(|| key_value::DEFAULT_MAX_KEYS),
        "Keys, elements and members in one keyspace; the link value `max_keys` wins",
    ),
    setting(
        "WASMCLOUD_KV_VALUE_BYTES",
        "",
        Kind::Bytes { min: 1, max: 4 << 20 },
        Default::Number(|| key_value::DEFAULT_MAX_VALUE_BYTES),
        "Largest value, element or member; the link value `max_value_bytes` wins",
    ),
    setting(
        "WASMCLOUD_KV_ELEMENTS",
        "",
        Kind::Count { min: 1, max: 100_000_000 },
        Default::Number(|| key_value::DEFAULT_MAX_ELEMENTS),
        "Elements of one list or set; the link value `max_elements` wins",
    ),
    // Log.
    alias(
        &["WASMCLOUD_STRUCTURED_LOG_LEVEL", "RUST_LOG"],
        setting(
            "WASMCLOUD_LOG_LEVEL",
            "log_level",
            Kind::Level,
            Default::Text("info"),
            "Least grave level that is logged",
        ),
    ),
    setting(
        "WASMCLOUD_STRUCTURED_LOGGING_ENABLED",
        "structured_logging_enabled",
        Kind::Flag,
        OFF,
        "Log JSON, one object a line",
    ),
    // Lattice.
    alias(
        &["WASMCLOUD_LATTICE"],
        setting(
            "WASMCLOUD_LATTICE_PREFIX",
            "lattice_prefix",
            Kind::Token,
            Default::Text("default"),
            "Name of the lattice",
        ),
    ),
    setting(
        "WASMCLOUD_JOIN",
        "",
        Kind::Choice(&["any", "named", "never"]),
        Default::Derived("`named` for a service of systemd, else `any`", Surroundings::join),
        "Which NATS server leads into the lattice. `named`: one that is named below. `any`: else also the one on this machine, if it belongs to root or, unless this is a service, to the same user. `never`: none",
    ),
    alias(
        &["NATS_HOST", "WASMCLOUD_NATS_HOST"],
        setting(
            "WASMCLOUD_RPC_HOST",
            "rpc_host",
            Kind::Text,
            Default::Text("127.0.0.1"),
            "NATS server for invocations",
        ),
    ),
    alias(
        &["NATS_PORT", "WASMCLOUD_NATS_PORT"],
        setting("WASMCLOUD_RPC_PORT", "rpc_port", PORT, Default::Text("4222"), "Its port"),
    ),
    alias(
        &["WASMCLOUD_NATS_SEED", "WASMCOULD_NATS_SEED"],
        setting(
            "WASMCLOUD_RPC_SEED",
            "rpc_seed",
            Kind::Secret,
            UNSET,
            "Seed of the user (`SU…`); alone it is nkey authentication",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_JWT"],
        setting("WASMCLOUD_RPC_JWT", "rpc_jwt", Kind::Secret, UNSET, "Token of the user, together with its seed"),
    ),
    alias(
        &["WASMCLOUD_NATS_CREDSFILE"],
        setting(
            "WASMCLOUD_RPC_CREDSFILE",
            "rpc_credsfile",
            Kind::Path,
            UNSET,
            "`.creds` file with token and seed, read again for each connection; wins over the two above",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_USER"],
        setting("WASMCLOUD_RPC_USER", "", Kind::Text, UNSET, "User name, together with the password"),
    ),
    alias(
        &["WASMCLOUD_NATS_PASSWORD"],
        setting("WASMCLOUD_RPC_PASSWORD", "", Kind::Secret, UNSET, "Password of that user; alone it is a token"),
    ),
    setting("WASMCLOUD_RPC_TLS", "rpc_tls", Kind::Flag, OFF, "Connect with TLS"),
    alias(
        &["WASMCLOUD_NATS_TLS_FIRST"],
        setting(
            "WASMCLOUD_RPC_TLS_FIRST",
            "",
            Kind::Flag,
            OFF,
            "Shake hands before the server says a word; needs TLS, and NATS 2.10 at the other end",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_TLS_CA_FILE"],
        setting(
            "WASMCLOUD_RPC_TLS_CA_FILE",
            "",
            Kind::Path,
            UNSET,
            "Who signs the server's certificate, PEM, in place of the platform's roots; read again for each connection",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_TLS_CERT_FILE"],
        setting(
            "WASMCLOUD_RPC_TLS_CERT_FILE",
            "",
            Kind::Path,
            UNSET,
            "Our own certificate, PEM, together with its key; read again for each connection",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_TLS_KEY_FILE"],
        setting("WASMCLOUD_RPC_TLS_KEY_FILE", "", Kind::Path, UNSET, "Its key, PEM"),
    ),
    setting(
        "WASMCLOUD_RPC_TIMEOUT_MS",
        "rpc_timeout_ms",
        Kind::Millis { min: 1, max: MAX_MILLIS },
        Default::Text("2000"),
        "How long an invocation over the lattice may take",
    ),
    alias(
        &["NATS_HOST", "WASMCLOUD_NATS_HOST"],
        setting(
            "WASMCLOUD_CTL_HOST",
            "ctl_host",
            Kind::Text,
            Default::Text("127.0.0.1"),
            "NATS server for the control interface",
        ),
    ),
    alias(
        &["NATS_PORT", "WASMCLOUD_NATS_PORT"],
        setting("WASMCLOUD_CTL_PORT", "ctl_port", PORT, Default::Text("4222"), "Its port"),
    ),
    alias(
        &["WASMCLOUD_NATS_SEED", "WASMCOULD_NATS_SEED"],
        setting("WASMCLOUD_CTL_SEED", "ctl_seed", Kind::Secret, UNSET, "Seed of the user"),
    ),
    alias(&["WASMCLOUD_NATS_JWT"], setting("WASMCLOUD_CTL_JWT", "ctl_jwt", Kind::Secret, UNSET, "Token of the user")),
    alias(
        &["WASMCLOUD_NATS_CREDSFILE"],
        setting(
            "WASMCLOUD_CTL_CREDSFILE",
            "ctl_credsfile",
            Kind::Path,
            UNSET,
            "`.creds` file with token and seed, read again for each connection; wins over the two above",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_USER"],
        setting("WASMCLOUD_CTL_USER", "", Kind::Text, UNSET, "User name, together with the password"),
    ),
    alias(
        &["WASMCLOUD_NATS_PASSWORD"],
        setting("WASMCLOUD_CTL_PASSWORD", "", Kind::Secret, UNSET, "Password of that user; alone it is a token"),
    ),
    setting("WASMCLOUD_CTL_TLS", "ctl_tls", Kind::Flag, OFF, "Connect with TLS"),
    alias(
        &["WASMCLOUD_NATS_TLS_FIRST"],
        setting(
            "WASMCLOUD_CTL_TLS_FIRST",
            "",
            Kind::Flag,
            OFF,
            "Shake hands before the server says a word; needs TLS, and NATS 2.10 at the other end",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_TLS_CA_FILE"],
        setting(
            "WASMCLOUD_CTL_TLS_CA_FILE",
            "",
            Kind::Path,
            UNSET,
            "Who signs the server's certificate, PEM, in place of the platform's roots; read again for each connection",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_TLS_CERT_FILE"],
        setting(
            "WASMCLOUD_CTL_TLS_CERT_FILE",
            "",
            Kind::Path,
            UNSET,
            "Our own certificate, PEM, together with its key; read again for each connection",
        ),
    ),
    alias(
        &["WASMCLOUD_NATS_TLS_KEY_FILE"],
        setting("WASMCLOUD_CTL_TLS_KEY_FILE", "", Kind::Path, UNSET, "Its key, PEM"),
    ),
    setting(
        "WASMCLOUD_CTL_TOPIC_PREFIX",
        "ctl_topic_prefix",
        Kind::Subject,
        Default::Text("wasmbus.ctl"),
        "Beginning of the subjects of the control interface",
    ),
    setting(
        "WASMCLOUD_PROV_RPC_HOST",
        "prov_rpc_host",
        Kind::Text,
        Default::Text("127.0.0.1"),
        "NATS server that providers are told; where neither it nor its port is set, the one for invocations",
    ),
    setting("WASMCLOUD_PROV_RPC_PORT", "prov_rpc_port", PORT, Default::Text("4222"), "Its port"),
    setting("WASMCLOUD_PROV_RPC_SEED", "prov_rpc_seed", Kind::Secret, UNSET, "Seed that providers are given"),
    setting("WASMCLOUD_PROV_RPC_JWT", "prov_rpc_jwt", Kind::Secret, UNSET, "Token that providers are given"),
    setting("WASMCLOUD_PROV_RPC_TLS", "prov_rpc_tls", Kind::Flag, OFF, "Providers connect with TLS"),
    setting(
        "WASMCLOUD_PROV_SHUTDOWN_DELAY_MS",
        "provider_delay",
        Kind::Millis { min: 0, max: provider::MAX_SHUTDOWN_DELAY.as_millis() as u64 },
        Default::Text("400"),
        "How long a provider process may take to end after it was asked to, and again after SIGTERM; then it is killed. At most 30000; a stop of the host may take four times as long and 20 s, so more than 10000 needs a longer TimeoutStopSec than the 60 s of the unit",
    ),
    setting(
        "WASMCLOUD_PROVIDER_RESTARTS",
        "",
        Kind::Count { min: 0, max: 1_000_000 },
        Default::Number(|| u64::from(provider::RESTARTS)),
        "How often in a row a provider process that ended by itself is started again, after waits that grow from 1 s to 2 min; 0 never, as other hosts",
    ),
    setting(
        "WASMCLOUD_PROVIDER_FIRST_PROBE_MS",
        "",
        Kind::Millis { min: 100, max: MAX_MILLIS },
        Default::Number(|| millis(provider::FIRST_PROBE)),
        "Time from the start of a provider process to its first health probe",
    ),
    setting(
        "WASMCLOUD_PROVIDER_PROBE_MS",
        "",
        Kind::Millis { min: 100, max: MAX_MILLIS },
        Default::Number(|| millis(provider::PROBE_INTERVAL)),
        "Time between two health probes",
    ),
    setting(
        "WASMCLOUD_PROVIDER_MEMORY_BYTES",
        "",
        Kind::Bytes { min: 0, max: 1 << 40 },
        Default::Number(|| confine::MEMORY_BYTES),
        "Memory of one provider and all it started; 0 is no limit",
    ),
    setting(
        "WASMCLOUD_PROVIDER_FILES",
        "",
        Kind::Count { min: 0, max: 1_000_000 },
        Default::Number(|| confine::FILES),
        "Open files of one provider process; 0 is no limit",
    ),
    setting(
        "WASMCLOUD_PROVIDER_PROCESSES",
        "",
        Kind::Count { min: 0, max: 1_000_000 },
        Default::Number(|| confine::PROCESSES),
        "Processes and threads of one provider; 0 is no limit",
    ),
    setting(
        "WASMCLOUD_PROVIDER_DISK_BYTES",
        "",
        Kind::Bytes { min: 0, max: 1 << 40 },
        Default::Number(|| watch::DISK_BYTES),
        "What one provider may keep in its directory; one that keeps more is ended; 0 is no limit",
    ),
    setting(
        "WASMCLOUD_PROVIDER_DISK_FILES",
        "",
        Kind::Count { min: 0, max: 1_000_000_000 },
        Default::Number(|| watch::DISK_FILES),
        "How many files and directories one provider may keep there; 0 is no limit",
    ),
    setting(
        layers::SETTING,
        "",
        Kind::Choice(layers::Mode::WORDS),
        Default::Text("best"),
        "Confinement of provider processes to their own files, the TCP ports of the NATS server and their rules, harmless system calls and code that is not written at run time: `required` runs none that this kernel cannot confine so, `best` does what the kernel can, `off` leaves it out",
    ),
    setting(
        "WASMCLOUD_PROVIDER_LANDLOCK",
        "",
        Kind::Flag,
        Default::Text("true"),
        "Let provider processes see only the system's programs, certificates and their own directory, where the kernel has Landlock",
    ),
    setting(
        Rules::SETTING,
        "",
        Kind::List,
        UNSET,
        "What provider processes may beyond that: `read=/PATH`, `write=/PATH`, `memory=64M`, `files=N`, `processes=N`, `disk=256M`, `inodes=N`, `connect=PORT` or `connect=any` (TCP), `jit=on` (write code), `landlock=off`, `seccomp=off`, `user=NAME` or a number (the host must run as root); for one provider `V…:NAME=VALUE`",
    ),
    setting(
        "WASMCLOUD_PROVIDER_NATS_ACCOUNT_SEED",
        "",
        Kind::Seed(Role::Account),
        UNSET,
        "Key of a NATS account, or a signing key of it: each provider process gets a NATS login of its own, for its subjects alone",
    ),
    setting(
        "WASMCLOUD_PROVIDER_NATS_ACCOUNT",
        "",
        Kind::Text,
        UNSET,
        "That account (`A…`), where the seed is a signing key of it",
    ),
    setting(
        "WASMCLOUD_PROVIDER_NATS_SECONDS",
        "",
        Kind::Count { min: credentials::LEAST_LIFETIME.as_secs(), max: 31_536_000 },
        Default::Number(|| credentials::LIFETIME.as_secs()),
        "How long such a login holds, seconds; the provider is started anew when an eighth of it is left",
    ),
    setting(
        "WASMCLOUD_PROVIDER_ENV_DENY",
        "",
        Kind::List,
        UNSET,
        "Variables that provider processes do not see, beside those with secrets of the host: `NAME`, `NAME*`, or for one provider `V…:NAME`",
    ),
    setting(
        "WASMCLOUD_PROVIDER_ENV_ALLOW",
        "",
        Kind::List,
        UNSET,
        "Variables that they see although they would be hidden, written like those above",
    ),
    setting(
        "WASMCLOUD_PROVIDER_LEGACY_ARCHIVES",
        "",
        Kind::Flag,
        OFF,
        "Run archives whose token is expired or badly signed, as other hosts do; has no effect where issuers are listed",
    ),
    setting("WASMCLOUD_JS_DOMAIN", "js_domain", Kind::Token, UNSET, "JetStream domain"),
    setting(
        "WASMCLOUD_CONFIG_SERVICE",
        "config_service_enabled",
        Kind::Flag,
        OFF,
        "Ask the lattice's configuration service at start",
    ),
    // Patience with the network.
    setting(
        "WASMCLOUD_NATS_RECONNECT_BASE_MS",
        "",
        Kind::Millis { min: 1, max: MAX_MILLIS },
        Default::Number(|| millis(backoff::DEFAULT_BASE)),
        "Widest first wait before connecting again; each wait is drawn between nothing and its width, which doubles",
    ),
    setting(
        "WASMCLOUD_NATS_RECONNECT_CAP_MS",
        "",
        Kind::Millis { min: 1, max: MAX_MILLIS },
        Default::Number(|| millis(backoff::DEFAULT_CAP)),
        "Widest wait before connecting again",
    ),
    setting(
        "WASMCLOUD_NATS_SILENCE_MS",
        "",
        Kind::Millis { min: 400, max: MAX_MILLIS },
        Default::Number(|| millis(endpoint::DEFAULT_SILENCE)),
        "How long a connection that lost the other side without a word may look alive; half of it doubles idle traffic",
    ),
    setting(
        "WASMCLOUD_OUTBOX_EVENTS",
        "",
        Kind::Count { min: 1, max: 1_000_000 },
        Default::Number(|| event_queue::DEFAULT_MAX_EVENTS as u64),
        "Events kept while there is no connection; the oldest go first",
    ),
    setting(
        "WASMCLOUD_OUTBOX_BYTES",
        "",
        Kind::Bytes { min: 4096, max: 1 << 30 },
        Default::Number(|| event_queue::DEFAULT_MAX_BYTES as u64),
        "Their bytes together",
    ),
    setting(
        "WASMCLOUD_OUTBOX_ON_DISK",
        "",
        Kind::Flag,
        OFF,
        "Keep them on disk, so that they outlive a restart; with a connection nothing is written",
    ),
    // Policy.
    setting(
        "WASMCLOUD_POLICY_TOPIC",
        "policy_topic",
        Kind::Text,
        UNSET,
        "Subject of the policy service. No policy service is asked yet: a host on which this is set does not start",
    ),
    setting(
        "WASMCLOUD_POLICY_CHANGES_TOPIC",
        "policy_changes_topic",
        Kind::Text,
        UNSET,
        "Subject on which decisions of the policy service are revoked. A host on which this is set does not start yet",
    ),
    setting(
        "WASMCLOUD_POLICY_TIMEOUT",
        "policy_timeout_ms",
        Kind::Millis { min: 1, max: MAX_MILLIS },
        Default::Text("1000"),
        "How long a decision of the policy service may take. A host on which this is set does not start yet",
    ),
    // Artifacts: actors and provider archives.
    setting(
        artifact::retention::BUDGET_SETTING,
        "",
        Kind::Bytes { min: 0, max: 1 << 40 },
        Default::Number(|| artifact::retention::DEFAULT_BUDGET_BYTES),
        "Everything fetched and kept; what is unused for longest goes first, what is needed or pinned never",
    ),
    setting(
        "WASMCLOUD_REQUIRE_DIGEST",
        "",
        Kind::Flag,
        OFF,
        "Refuse references that do not end in the digest of what they mean",
    ),
    setting(
        "WASMCLOUD_ARTIFACT_TIMEOUT_MS",
        "",
        Kind::Millis { min: 1_000, max: 24 * MAX_MILLIS },
        Default::Number(|| millis(artifact::settings::DEFAULT_TOTAL)),
        "How long one download may take, attempts and waits included; what has arrived stays for the next",
    ),
    setting(
        "WASMCLOUD_ARTIFACT_IDLE_MS",
        "",
        Kind::Millis { min: 100, max: MAX_MILLIS },
        Default::Number(|| millis(artifact::settings::DEFAULT_IDLE)),
        "How long a source may be silent before the rest is asked for again",
    ),
    setting(
        "WASMCLOUD_ARTIFACT_ATTEMPTS",
        "",
        Kind::Count { min: 1, max: 1_000 },
        Default::Number(|| u64::from(artifact::settings::DEFAULT_ATTEMPTS)),
        "Attempts of a download in a row that may bring nothing before it is given up",
    ),
    setting(
        "WASMCLOUD_ARTIFACT_BYTES_PER_SECOND",
        "",
        Kind::Bytes { min: 0, max: 1 << 40 },
        Default::Text("0"),
        "How fast all downloads together may come in; 0 for as fast as they do",
    ),
    setting(
        "WASMCLOUD_ARTIFACT_CA_FILE",
        "",
        Kind::Path,
        UNSET,
        "PEM file with roots to trust beside the platform's, for registries and downloads; read again for each",
    ),
    // Mirrors.
    setting(
        "WASMCLOUD_MIRROR_LISTEN",
        "",
        Kind::Text,
        UNSET,
        "Address and port on which this board serves its artifacts to others, `0.0.0.0:8099`; not set serves nobody",
    ),
    setting(
        "WASMCLOUD_MIRROR_TLS_CERT_FILE",
        "",
        Kind::Path,
        UNSET,
        "Certificate of that mirror, PEM, leaf first; plain HTTP without",
    ),
    setting("WASMCLOUD_MIRROR_TLS_KEY_FILE", "", Kind::Path, UNSET, "Key of that certificate, PEM"),
    setting(
        "WASMCLOUD_MIRROR_TOKEN",
        "",
        Kind::Secret,
        UNSET,
        "Bearer token that our mirror wants to be shown, and that is shown to the mirrors below",
    ),
    setting(
        "WASMCLOUD_MIRRORS",
        "",
        Kind::List,
        UNSET,
        "Mirrors of this site, `http://HOST:PORT`, the first to be asked first: for `mirror://NAME`, and before any other source of content whose digest is known",
    ),
    setting(
        "WASMCLOUD_MIRROR_POLL_MS",
        "",
        Kind::Millis { min: 0, max: 24 * MAX_MILLIS },
        Default::Number(|| millis(mirror_follow::DEFAULT_INTERVAL)),
        "How often actors from `mirror://NAME` look whether the name points to something newer; 0 for never",
    ),
    // Registries.
    setting("WASMCLOUD_OCI_ALLOW_LATEST", "allow_latest", Kind::Flag, OFF, "Allow references with the tag `latest`"),
    setting(
        "WASMCLOUD_OCI_ALLOWED_INSECURE",
        "allowed_insecure",
        Kind::List,
        UNSET,
        "Registries reached without TLS, with their ports",
    ),
    setting(
        ALLOW_SETTING,
        "",
        Kind::List,
        UNSET,
        "What commands of the lattice may have fetched beside public addresses and the registries that these settings name: hosts (`files.lan:8080`), addresses, networks (`192.168.1.0/24`), as in `allowed_hosts` of the HTTP client; manifests of this board may name any address",
    ),
    setting(
        "WASMCLOUD_OCI_AUTH_FILE",
        "",
        Kind::Path,
        UNSET,
        "Logins for registries, as `docker login` writes them; what the lattice sends and the next three win",
    ),
    alias(
        &["WASMCLOUD_OCI_REGISTRY"],
        setting("OCI_REGISTRY", "", Kind::Text, UNSET, "Registry that the next two are for"),
    ),
    alias(&["WASMCLOUD_OCI_REGISTRY_USER"], setting("OCI_REGISTRY_USER", "", Kind::Text, UNSET, "User name there")),
    alias(
        &["WASMCLOUD_OCI_REGISTRY_PASSWORD"],
        setting("OCI_REGISTRY_PASSWORD", "", Kind::Secret, UNSET, "Password there"),
    ),
];

/// Names that belong to hosts of this protocol and mean nothing to this one: no reason to warn of a mistyped name.
// This host reaches servers over IPv6 without being told to.
pub static FOREIGN: &[&str] = &["WASMCLOUD_ENABLE_IPV6", "WASMCLOUD_HOST_PATH", "WASMCLOUD_TEST_LIMIT"];

/// Variables that people set because other programs read them, and what to use here.
pub static HABITS: &[(&str, &str)] = &[
    ("NATS_URL", "set NATS_HOST and NATS_PORT"),
    ("NATS_URI", "set NATS_HOST and NATS_PORT"),
    ("NATS_SERVER", "set NATS_HOST and NATS_PORT"),
    ("NATS_SERVERS", "set NATS_HOST and NATS_PORT"),
    ("NATS_CREDS", "set WASMCLOUD_NATS_CREDSFILE"),
    ("NATS_USER", "set WASMCLOUD_NATS_USER"),
    ("NATS_PASSWORD", "set WASMCLOUD_NATS_PASSWORD"),
    ("NATS_TOKEN", "set WASMCLOUD_NATS_PASSWORD without a user"),
    ("NATS_NKEY", "set WASMCLOUD_NATS_SEED to the seed"),
    ("NATS_CA", "set WASMCLOUD_NATS_TLS_CA_FILE"),
    ("NATS_CERT", "set WASMCLOUD_NATS_TLS_CERT_FILE"),
    ("NATS_KEY", "set WASMCLOUD_NATS_TLS_KEY_FILE"),
    ("WASMCLOUD_NATS_URL", "set NATS_HOST and NATS_PORT"),
    (
        "WASMCLOUD_DASHBOARD_PORT",
        "this program has no dashboard; `latticed status` and WASMCLOUD_PROBES tell how it is",
    ),
    (
        "WASMCLOUD_DASHBOARD_HOST",
        "this program has no dashboard; `latticed status` and WASMCLOUD_PROBES tell how it is",
    ),
];

/// The setting called `name`, by its name or an alias.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .iter()
        .find(|setting| setting.name == name)
        .or_else(|| SETTINGS.iter().find(|setting| setting.aliases.contains(&name)))
}

/// The table as Markdown, for `src/config/README.md`.
pub fn markdown() -> String {
    let mut text =
        String::from("| variable | `host_config.json` | value | default | what it does |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let mut names = format!("`{}`", setting.name);
        for alias in setting.aliases {
            names.push_str(&format!(", `{alias}`"));
        }
        let json = if setting.json.is_empty() { String::new() } else { format!("`{}`", setting.json) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {names} | {json} | {} | {} | {} |",
            setting.kind.describe(),
            setting.default.words(setting.kind),
            setting.help
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_helped() {
        let names: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
        assert_eq!(names.len(), SETTINGS.len());
        let members: Vec<&str> = SETTINGS.iter().map(|setting| setting.json).filter(|json| !json.is_empty()).collect();
        assert_eq!(members.iter().collect::<BTreeSet<_>>().len(), members.len());
        for setting in SETTINGS {
            assert!(
                !setting.help.is_empty() && !setting.help.ends_with('.') && !setting.help.contains('|'),
                "{}",
                setting.name
            );
            assert!(!setting.aliases.iter().any(|alias| names.contains(alias)), "{}", setting.name);
        }
    }

    #[test]
    fn defaults_are_valid() {
        let surroundings = Surroundings::of_root();
        for setting in SETTINGS {
            let value = setting.default.value(&surroundings);
            if !value.is_empty() {
                assert_eq!(setting.kind.normalise(&value).as_deref(), Ok(value.as_str()), "{}", setting.name);
            }
        }
    }

    #[test]
    fn the_markdown_has_a_row_for_each() {
        let table = markdown();
        assert_eq!(table.lines().count(), SETTINGS.len() + 2);
        assert!(table.lines().all(|row| row.matches('|').count() == 6), "{table}");
    }
}
