//! `wasmcloud:builtin:logging`: lines that actors write (`protocol/actor-abi.md §5`).
//!
//! Needs no link: the router calls [`call`] directly. [`Logging`] exists so that it can be listed like any provider.
//! Length, rate and escaping are the log's own (`log::guest`), under the actor's key, so a guest can neither flood the log
//! nor pretend to be another.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    host::{BoxFuture, Call, Capability},
    log::{self, Level},
    wire::{
        LinkDefinition, codec,
        interface::{LOGGING, LogEntry},
    },
};

/// Answers `operation` of the actor `actor`.
///
/// # Errors
/// `Invalid` for an unknown operation, a payload that cannot be decoded, or an unknown level.
pub fn call(actor: &str, operation: &str, payload: &[u8]) -> Result<Vec<u8>> {
    if operation != "Logging.WriteLog" {
        return Err(Error::invalid(format!("{LOGGING} has no operation {operation:?}; it has Logging.WriteLog")));
    }
    let entry: LogEntry = codec::decode("Logging.WriteLog request", payload)?;
    let level = Level::named(&entry.level).ok_or_else(|| {
        let shown: String = entry.level.chars().take(SHOWN_LEVEL_CHARS).collect();
        Error::invalid(format!("unsupported log level {shown:?}: use error, warn, info, debug or trace"))
    })?;
    log::guest(actor, level, &entry.text);
    Ok(Vec::new())
}

/// How much of an unknown level an error repeats.
const SHOWN_LEVEL_CHARS: usize = 32;

/// The built-in as a provider.
#[derive(Debug, Default)]
pub struct Logging;

impl Capability for Logging {
    fn contract_id(&self) -> &str {
        LOGGING
    }

    fn link(&self, _link: Arc<LinkDefinition>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn unlink(&self, _link: Arc<LinkDefinition>) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn call(&self, _link: Arc<LinkDefinition>, call: Call) -> BoxFuture<'_, Result<Vec<u8>>> {
        Box::pin(async move { self::call(&call.origin.public_key, &call.operation, &call.payload) })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Kind, log::capture};

    fn write(level: &str, text: &str) -> Result<Vec<u8>> {
        let entry = LogEntry { level: level.into(), text: text.into() };
        call("MACTOR", "Logging.WriteLog", &codec::encode(&entry).unwrap())
    }

    #[test]
    fn levels_become_those_of_the_log() {
        let (answers, lines) = capture::lines(|| {
            ["info", "WARN", "error", "critical", "debug", "trace"].map(|level| write(level, "hello").unwrap())
        });
        assert!(answers.iter().all(Vec::is_empty));
        assert_eq!(
            lines,
            [
                "<6>actor_id=MACTOR: hello",
                "<4>actor_id=MACTOR: hello",
                "<3>actor_id=MACTOR: hello",
                "<3>actor_id=MACTOR: hello"
            ]
        );
    }

    #[test]
    fn what_cannot_be_logged_is_told() {
        let ((), lines) = capture::lines(|| {
            let error = write("loud", "x").unwrap_err();
            assert!(error.text().starts_with("unsupported log level \"loud\""), "{error}");
            for padded in [" info", "info ", "info\n"] {
                assert_eq!(write(padded, "x").unwrap_err().kind(), Kind::Invalid, "{padded:?}");
            }
            assert!(write(&"x".repeat(9000), "x").unwrap_err().text().len() < 200);
            for payload in [&b""[..], b"\xc1", b"\x80", b"\x82\xa5level\xa4info"] {
                assert_eq!(call("MACTOR", "Logging.WriteLog", payload).unwrap_err().kind(), Kind::Invalid);
            }
            assert_eq!(call("MACTOR", "Logging.Other", b"").unwrap_err().kind(), Kind::Invalid);
        });
        assert!(lines.is_empty());
    }
}
