//! The answer to every command: accepted, or why not (`protocol/lattice.md §3.0`).

use serde::Serialize;

use crate::{error::Result, wire::text};

/// Longest ack, bytes. Sized so that an error text of some lines fits; a longer text is cut, never the ack lost.
pub const MAX_ACK_BYTES: usize = 1024;

/// A finished ack.
pub type AckText = heapless::Vec<u8, MAX_ACK_BYTES>;

/// What is said of a request whose subject no host knows.
pub const UNSUPPORTED: &str = "unsupported subject";

/// Accepted, or refused with a reason. `error` is always a string: `null` breaks the clients' parsers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ack<'a> {
    accepted: bool,
    error: &'a str,
}

impl<'a> Ack<'a> {
    /// Received and well-formed; for some commands, done.
    pub const ACCEPTED: Ack<'static> = Ack { accepted: true, error: "" };

    /// Not done, because of `error`.
    pub fn refused(error: &'a str) -> Self {
        Self { accepted: false, error }
    }

    /// The ack for `outcome`.
    pub fn of<T>(outcome: &'a Result<T>) -> Self {
        match outcome {
            Ok(_) => Ack::ACCEPTED,
            Err(error) => Ack::refused(error.text()),
        }
    }

    /// The ack as it travels; an error text that does not fit is cut.
    pub fn encode(&self) -> AckText {
        let mut ack = *self;
        loop {
            match serde_json_core::to_vec(&ack) {
                Ok(bytes) => return bytes,
                Err(_) => ack.error = text::prefix(ack.error, ack.error.len() / 2),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Error;

    #[test]
    fn acks_are_the_bytes_other_hosts_send() {
        assert_eq!(&*Ack::ACCEPTED.encode(), br#"{"accepted":true,"error":""}"#);
        let refused: Result<()> = Err(Error::not_found("unsupported subject"));
        assert_eq!(&*Ack::of(&refused).encode(), br#"{"accepted":false,"error":"unsupported subject"}"#);
    }

    proptest! {
        #[test]
        fn any_error_text_makes_an_ack_clients_read(text in "\\PC*|[\u{0}-\u{1f}\"]{0,2000}", repeat in 1usize..60) {
            #[derive(serde::Deserialize)]
            struct Read { accepted: bool, error: String }
            let text = text.repeat(repeat);
            let ack = Ack::refused(&text).encode();
            let read: Read = serde_json::from_slice(&ack).unwrap();
            prop_assert!(!read.accepted && text.starts_with(&read.error));
            prop_assert!(read.error.len() == text.len() || ack.len() > MAX_ACK_BYTES / 8);
        }
    }
}
