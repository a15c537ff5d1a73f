//! What a token says and whether it holds, for people and for scripts. Shared by `claims inspect` and `archive inspect`.

use serde::Serialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    claims::{Body, Now, Token, body::effective_revision},
    cli::{Output, table::printable},
    error::{Context, Error, Kind, Result},
};

/// What one token says and whether it holds.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Report {
    /// What the token is about: `module`, `provider`, `account`, `operator`, `cluster`.
    pub kind: &'static str,
    /// Whether a host would accept it (but for its list of issuers).
    pub valid: bool,
    /// Why not.
    pub problem: Option<String>,
    subject: String,
    issuer: String,
    revision: i32,
    issued: String,
    expires: String,
    not_before: String,
    /// The `wascap` object.
    claims: Value,
    token: String,
    #[serde(skip)]
    error: Option<Error>,
}

/// Members of the `wascap` objects in the order people look for them, and what to call them.
const MEMBERS: [(&str, &str); 13] = [
    ("name", "Name"),
    ("ver", "Version"),
    ("call_alias", "Call alias"),
    ("caps", "Capabilities"),
    ("tags", "Tags"),
    ("capid", "Contract"),
    ("vendor", "Vendor"),
    ("target_url", "Target"),
    ("origin_url", "Origin"),
    ("valid_signers", "Signers"),
    ("config_schema", "Schema"),
    ("hash", "Hash"),
    ("target_hashes", "Hashes"),
];

impl Report {
    /// Describes `token`; `verdict` is what its check answered.
    pub fn new<B: Body>(token: &Token<B>, now: Now, verdict: Result<()>) -> Result<Self> {
        let claims = token.claims();
        let body = serde_json::to_value(&claims.wascap).context(Kind::Internal, "cannot show the claims")?;
        let rev = body["rev"].as_i64().and_then(|rev| i32::try_from(rev).ok());
        let error = verdict.err();
        let with_words = |moment: Option<u64>, words: String| match moment {
            Some(moment) => format!("{} ({words})", date(moment)),
            None => words,
        };
        Ok(Self {
            kind: B::NOUN,
            valid: error.is_none(),
            problem: error.as_ref().map(Error::to_string),
            subject: claims.sub.clone(),
            issuer: claims.iss.clone(),
            revision: effective_revision(rev, claims.iat),
            issued: date(claims.iat),
            expires: with_words(claims.exp, now.expires_human(claims.exp)),
            not_before: with_words(claims.nbf, now.not_before_human(claims.nbf)),
            claims: body,
            token: token.text().to_string(),
            error,
        })
    }

    /// Prints the rows for people.
    pub fn print(&self, output: &mut Output) -> Result<()> {
        row(output, "Kind", self.kind)?;
        row(output, "Subject", &self.subject)?;
        row(output, "Issuer", &self.issuer)?;
        for (member, label) in MEMBERS {
            if let Some(text) = words(&self.claims[member]) {
                row(output, label, &text)?;
            }
        }
        if matches!(self.kind, "module" | "provider") {
            row(output, "Revision", &self.revision.to_string())?;
        }
        row(output, "Issued", &self.issued)?;
        row(output, "Expires", &self.expires)?;
        row(output, "Usable", &self.not_before)?;
        match &self.problem {
            None => row(output, "Valid", "yes"),
            Some(problem) => row(output, "Valid", &format!("no: {problem}")),
        }
    }

    /// What the command ends with: the reason why the token does not hold.
    pub fn verdict(self) -> Result<()> {
        self.error.map_or(Ok(()), Err)
    }
}

/// One line of a table.
pub(in crate::cli) fn row(output: &mut Output, label: &str, text: &str) -> Result<()> {
    // Texts of a token may be hostile: control characters could rewrite what the terminal shows.
    output.line(format_args!("{label:<13} {}", printable(text)))
}

/// A member as one line; `None` when there is nothing to show.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => Some(list.iter().filter_map(words).collect::<Vec<_>>().join(", ")),
        other => Some(other.to_string()),
    }
}

/// A moment as people and programs read it; the bare number where there is no such date.
fn date(moment: u64) -> String {
    let date = i64::try_from(moment).ok().and_then(|moment| OffsetDateTime::from_unix_timestamp(moment).ok());
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| moment.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_beyond_the_calendar_are_shown_as_numbers() {
        assert_eq!(date(1_700_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(date(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn empty_members_are_not_shown() {
        for empty in [Value::Null, Value::from(""), serde_json::json!([])] {
            assert_eq!(words(&empty), None);
        }
        assert_eq!(words(&serde_json::json!(["a", "b"])).as_deref(), Some("a, b"));
    }
}
