//! One setting's text or JSON to what it means, or to an error that says what it should be. Pure; for `link_values`.

use std::{net::SocketAddr, time::Duration};

use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use super::settings::{MAX_CONTENT_LEN_LIMIT_BYTES, TIMEOUT_MAX};
use crate::error::{Error, Result};

/// The named settings of `what`.
pub fn object<'a>(what: &str, value: &'a Value) -> Result<&'a serde_json::Map<String, Value>> {
    value.as_object().ok_or_else(|| Error::config(format!("{what} must be a JSON object with named settings")))
}

/// A text.
pub fn text<'a>(key: &str, value: &'a Value) -> Result<&'a str> {
    value.as_str().ok_or_else(|| Error::config(format!("`{key}` is {value}: it must be a text in quotes")))
}

/// A list of texts.
pub fn texts<'a>(key: &str, value: &'a Value) -> Result<Vec<&'a str>> {
    let list = value.as_array().ok_or_else(|| Error::config(format!("`{key}` must be a list of texts")))?;
    list.iter().map(|item| text(key, item)).collect()
}

/// A list of header names.
pub fn names(key: &str, value: &Value) -> Result<Vec<HeaderName>> {
    let parse = |name: &str| {
        HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::config(format!("`{key}` holds `{name}`, which is no header name")))
    };
    texts(key, value)?.into_iter().map(parse).collect()
}

/// The value of a header.
pub fn header_value(key: &str, text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text)
        .map_err(|_| Error::config(format!("`{key}` holds characters that cannot stand in a header: use plain ASCII")))
}

/// An IP address with its port.
pub fn address(text: &str) -> Result<SocketAddr> {
    text.trim().parse().map_err(|_| {
        Error::config(format!(
            "`address` is `{text}`: it must be an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080"
        ))
    })
}

/// A port by itself.
pub fn port(text: &str) -> Result<u16> {
    text.trim()
        .parse()
        .map_err(|_| Error::config(format!("the link value `port` is `{text}`: it must be a number from 0 to 65535")))
}

/// True or false, in the usual spellings.
pub fn switch(text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        // The first-party server reads a misspelt `true` as false, which would open what the operator wanted closed.
        other => Err(Error::config(format!("`readonly_mode` is `{other}`: it must be true or false"))),
    }
}

/// A time-out, already a number or not; `text` is how it was written.
pub fn timeout(milliseconds: Option<u64>, text: &str) -> Result<Duration> {
    let refuse = || {
        let limit = TIMEOUT_MAX.as_millis();
        Error::config(format!("`timeout_ms` is {text}: it must be a number of milliseconds from 1 to {limit}"))
    };
    let timeout = Duration::from_millis(milliseconds.ok_or_else(refuse)?);
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err(refuse());
    }
    Ok(timeout)
}

/// A size such as `500`, `5k`, `100M` or `1G`; units are powers of 1024.
pub fn content_length(text: &str) -> Result<usize> {
    let refuse = || {
        Error::config(format!(
            "`max_content_len` is `{text}`: it must be a number of bytes, or one with K, M or G, up to 1G"
        ))
    };
    let trimmed = text.trim();
    let (digits, unit) = match trimmed.chars().last().map(|last| last.to_ascii_lowercase()) {
        Some('k') => (&trimmed[..trimmed.len() - 1], 1024),
        Some('m') => (&trimmed[..trimmed.len() - 1], 1024 * 1024),
        Some('g') => (&trimmed[..trimmed.len() - 1], 1024 * 1024 * 1024),
        _ => (trimmed, 1),
    };
    let number: usize = digits.trim_end().parse().map_err(|_| refuse())?;
    number.checked_mul(unit).filter(|bytes| *bytes <= MAX_CONTENT_LEN_LIMIT_BYTES).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::content_length;

    #[test]
    fn sizes_are_read_as_the_contract_writes_them() {
        for (text, bytes) in [
            ("500", 500),
            ("5k", 5120),
            ("5K", 5120),
            ("100M", 104_857_600),
            (" 1g ", 1 << 30),
            ("0", 0),
            ("2 M", 2 << 20),
        ] {
            assert_eq!(content_length(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "M", "-1", "1.5M", "2G", "99999999999999999999", "18446744073709551615G", "5kb", "\u{fc}"] {
            assert!(content_length(text).is_err(), "{text}");
        }
    }
}
