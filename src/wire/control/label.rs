//! Labels of a host, changed from afar (`protocol/lattice.md §3.8`).

use serde::Deserialize;

use super::{not_empty, parse};
use crate::{
    error::{Error, Result},
    wire::name_limits,
};

/// Labels of this prefix describe the machine and cannot be changed.
pub const INTRINSIC_PREFIX: &str = "hostcore.";

/// Longest label, key and value together, bytes. Labels travel in every ping reply, inventory and heartbeat.
pub const MAX_LABEL_BYTES: usize = 1024;

/// `labels.{H}.put`: one label.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PutLabel {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl PutLabel {
    /// Reads the request.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), [`Kind::Limit`](crate::error::Kind::Limit), and
    /// [`Kind::Denied`](crate::error::Kind::Denied) for a label of the machine.
    pub fn parse(body: &[u8]) -> Result<Self> {
        let put: Self = parse("Invalid label request", body)?;
        check(&put.key)?;
        if put.key.len() + put.value.len() > MAX_LABEL_BYTES {
            return Err(Error::limit(format!(
                "the label '{}' is longer than {MAX_LABEL_BYTES} bytes",
                name_limits::shown(&put.key)
            )));
        }
        Ok(put)
    }
}

/// `labels.{H}.del`: which label. Clients send a value too; it does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DeleteLabel {
    /// Its name.
    pub key: String,
}

impl DeleteLabel {
    /// Reads the request.
    ///
    /// # Errors
    /// As [`PutLabel::parse`].
    pub fn parse(body: &[u8]) -> Result<Self> {
        let delete: Self = parse("Invalid label request", body)?;
        check(&delete.key)?;
        Ok(delete)
    }
}

fn check(key: &str) -> Result<()> {
    not_empty("Invalid label request", "key", key)?;
    name_limits::check("name of a label", key, name_limits::MAX_VALUE_NAME_BYTES)?;
    if key.starts_with(INTRINSIC_PREFIX) {
        return Err(Error::denied(format!("the label '{key}' describes the machine and cannot be changed")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn labels_of_the_machine_stay() {
        let put = |key: &str| PutLabel::parse(format!(r#"{{"key":"{key}","value":"v"}}"#).as_bytes());
        assert_eq!(put("zone").unwrap(), PutLabel { key: "zone".into(), value: "v".into() });
        assert_eq!(put("hostcore.os").unwrap_err().kind(), Kind::Denied);
        assert_eq!(put("").unwrap_err().kind(), Kind::Invalid);
        assert_eq!(put(&"k".repeat(MAX_LABEL_BYTES)).unwrap_err().kind(), Kind::Limit);
        assert_eq!(DeleteLabel::parse(br#"{"key":"zone","value":""}"#).unwrap().key, "zone");
        assert_eq!(DeleteLabel::parse(br#"{"key":"hostcore.arch"}"#).unwrap_err().kind(), Kind::Denied);
    }
}
