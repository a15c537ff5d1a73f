//! Which subjects an actor may use. Pure.
//!
//! On a connection of the link's own everything is allowed that its login allows. On the host's own connection the subjects
//! of the lattice, of the broker itself and of other people's answers are out of reach: an actor that may send messages
//! must not be able to stop hosts, rewrite links or read the host's mail by doing so.

use crate::error::{Error, Result};

/// Longest subject, bytes. Brokers take a line of 4 KiB with everything on it; real subjects have a few dozen.
const MAX_SUBJECT_BYTES: usize = 1024;

/// How much of a refused subject an error repeats, characters: enough to recognise it.
const SHOWN_CHARACTERS: usize = 80;

/// Where answers to requests go, the host's own among them.
const INBOX: &str = "_INBOX";

/// What a subject is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Something is said there.
    Say,
    /// It is listened to; wildcards count.
    Listen,
}

/// Checks `subject`. `reserved` are the lattice's own, where the connection is the host's.
///
/// # Errors
/// `Invalid`: it is none; `Denied`: it is not for actors.
pub fn check(subject: &str, purpose: Use, reserved: Option<&[String]>) -> Result<()> {
    let shown = || subject.chars().take(SHOWN_CHARACTERS).collect::<String>();
    let refused = |why: &str| Err(Error::invalid(format!("the subject {:?} cannot be used: {why}", shown())));
    if subject.is_empty() {
        return refused("it is empty");
    }
    if subject.len() > MAX_SUBJECT_BYTES {
        return refused("it has more than 1024 bytes");
    }
    if subject.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return refused("it holds a space or control character");
    }
    let tokens: Vec<&str> = subject.split('.').collect();
    if tokens.iter().any(|token| token.is_empty()) {
        return refused("a part between its dots is empty");
    }
    let wild = |token: &str| token == "*" || token == ">";
    if purpose == Use::Say && tokens.iter().any(|token| wild(token)) {
        return refused("nothing can be said to a wildcard");
    }
    if tokens[..tokens.len() - 1].contains(&">") {
        return refused("> stands at the end only");
    }
    let Some(reserved) = reserved else { return Ok(()) };
    let denied = |whose: &str| {
        Err(Error::denied(format!(
            "the subject {:?} belongs to {whose} on the host's own connection: give the link a URI and a login of its \
             own that may use it",
            shown()
        )))
    };
    if tokens[0].starts_with('$') {
        return denied("the broker");
    }
    if purpose == Use::Listen && (wild(tokens[0]) || tokens[0] == INBOX) {
        return denied("everybody");
    }
    if reserved.iter().any(|beginning| meets(&tokens, beginning)) {
        return denied("the lattice");
    }
    Ok(())
}

/// Whether some subject that `tokens` match begins with `beginning`.
fn meets(tokens: &[&str], beginning: &str) -> bool {
    let mut tokens = tokens.iter();
    for part in beginning.split('.') {
        match tokens.next() {
            Some(&">") => return true,
            Some(&token) if token == "*" || token == part => {}
            // Too short: what it matches is not below the beginning.
            Some(_) | None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn subjects_are_what_brokers_take() {
        for subject in ["a", "a.b", "sensor.1.temperature", "a.b*", "_INBOX.xyz.1"] {
            check(subject, Use::Say, None).unwrap();
        }
        for subject in ["a.*", "a.>", ">", "*", "a.*.c"] {
            check(subject, Use::Listen, None).unwrap();
            assert!(check(subject, Use::Say, None).is_err(), "{subject}");
        }
        for subject in ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\nb", "a.>.b", &"a".repeat(1025)] {
            for purpose in [Use::Say, Use::Listen] {
                assert_eq!(check(subject, purpose, None).unwrap_err().kind(), Kind::Invalid, "{subject}");
            }
        }
    }

    #[test]
    fn on_the_hosts_own_connection_the_lattice_is_out_of_reach() {
        let reserved = ["wasmbus".to_owned(), "my.ctl".to_owned()];
        let say = |subject: &str| check(subject, Use::Say, Some(&reserved));
        let listen = |subject: &str| check(subject, Use::Listen, Some(&reserved));
        for subject in
            ["wasmbus.ctl.default.cmd.N.stop", "my.ctl.default.x", "$KV.LATTICEDATA_default.X", "$JS.API.INFO"]
        {
            assert_eq!(say(subject).unwrap_err().kind(), Kind::Denied, "{subject}");
            assert_eq!(listen(subject).unwrap_err().kind(), Kind::Denied, "{subject}");
            check(subject, Use::Say, None).unwrap();
        }
        for subject in [">", "*", "*.ctl.>", "my.>", "my.*", "my.*.a", "wasmbus.*", "_INBOX.>", "*.a"] {
            assert_eq!(listen(subject).unwrap_err().kind(), Kind::Denied, "{subject}");
        }
        for subject in ["my.cat", "my", "wasmbusses.a", "sensor.>", "*x.>"] {
            listen(subject).unwrap();
        }
        // Answers go where they are wanted.
        say("_INBOX.abc.1").unwrap();
        let long = say(&format!("{}.x", "wasmbus.".repeat(100))).unwrap_err();
        assert!(long.text().len() < 400, "{long}");
    }
}
