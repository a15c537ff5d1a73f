//! What the answers to probes say of a provider (`protocol/providers.md §7`). Pure.

use serde::Deserialize;

use crate::{
    host::Probed,
    wire::{codec, text},
};

/// Longest message of a provider about its health that is kept, bytes.
const MAX_MESSAGE_BYTES: usize = 300;

/// The answer to a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Answer {
    /// Whether it is well.
    #[serde(default)]
    pub healthy: bool,
    /// What it says about it.
    #[serde(default)]
    pub message: Option<String>,
}

impl Answer {
    /// Reads an answer. One that cannot be read is none of a provider that is well.
    pub fn read(body: &[u8]) -> Self {
        codec::read(body).unwrap_or_else(|_| Self {
            healthy: false,
            message: Some("it answers in a form that cannot be read".to_owned()),
        })
    }
}

impl From<Option<Answer>> for Probed {
    fn from(answer: Option<Answer>) -> Self {
        match answer {
            None => Probed::Silent,
            Some(Answer { healthy: true, .. }) => Probed::Well,
            Some(Answer { message, .. }) => {
                let said =
                    message.filter(|said| !said.is_empty()).unwrap_or_else(|| "it says it is not well".to_owned());
                Probed::Unwell(text::prefix(&said, MAX_MESSAGE_BYTES).escape_debug().to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_the_vectors_are_read() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/provider_live.json")).unwrap();
        let hex = vectors["steps"][0]["reply_hex"].as_str().unwrap();
        let body = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(Answer::read(&body), Answer { healthy: true, message: None });
        assert!(!Answer::read(b"\xc1").healthy && !Answer::read(&[0x80]).healthy);
    }

    #[test]
    fn what_it_says_is_bounded_and_harmless() {
        let said = |message: Option<&str>| {
            let answer = Answer { healthy: false, message: message.map(str::to_owned) };
            match Probed::from(Some(answer)) {
                Probed::Unwell(said) => said,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(said(Some("no\nredis")), "no\\nredis");
        assert!(said(Some(&"x".repeat(10_000))).len() <= MAX_MESSAGE_BYTES);
        assert!(!said(None).is_empty() && !said(Some("")).is_empty());
        assert_eq!(Probed::from(None), Probed::Silent);
        assert_eq!(Probed::from(Some(Answer { healthy: true, message: None })), Probed::Well);
    }
}
