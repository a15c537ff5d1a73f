//! What commands over the lattice may do on this board (`WASMCLOUD_REMOTE`).
//!
//! What the operator put on the board is what its manifests and settings name. Everything else came over the lattice. Pure:
//! the lattice's edge asks before it changes anything.

use crate::{
    error::{Error, Result},
    host::desired::Desired,
};

/// Name of the setting, for texts that say how to open what is closed.
pub const SETTING: &str = "WASMCLOUD_REMOTE";

/// The refusal of a link that came over the lattice to a board that confines those, because of its value `name`.
/// `may_not` completes the sentence: `name files of this board`.
pub fn refuse_link(name: &str, may_not: &str) -> Error {
    Error::denied(format!(
        "`{name}`: a link that came over the lattice may not {may_not}: set {SETTING}=full there, or put the link into \
         a manifest of the board"
    ))
}

/// What commands over the lattice may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything, on what manifests brought too.
    Full,
    /// Change what came over the lattice, and nothing else.
    Own,
    /// Nothing; the lattice may ask what runs here.
    Read,
    /// Nothing; the host answers pings, so that it is seen.
    Off,
}

/// How it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Always this.
    Always(Rights),
    /// [`Rights::Full`] where the NATS server requires a login, else [`Rights::Own`].
    ByLogin,
}

impl Rule {
    /// The words of the setting; the first is the default of a host that a person starts.
    pub const WORDS: &[&str] = &["full", "own", "read", "off", "login"];

    /// The rule that `word` means; one that is no word of the setting means the first.
    pub fn of(word: &str) -> Self {
        match word {
            "own" => Self::Always(Rights::Own),
            "read" => Self::Always(Rights::Read),
            "off" => Self::Always(Rights::Off),
            "login" => Self::ByLogin,
            _ => Self::Always(Rights::Full),
        }
    }

    /// What holds on a server that requires a login, or does not.
    pub fn on(self, requires_login: bool) -> Rights {
        match (self, requires_login) {
            (Self::Always(remote), _) => remote,
            (Self::ByLogin, true) => Rights::Full,
            (Self::ByLogin, false) => Rights::Own,
        }
    }
}

impl Rights {
    /// Its word in the setting.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Own => "own",
            Self::Read => "read",
            Self::Off => "off",
        }
    }

    /// Whether the lattice may ask what runs and is known here.
    pub fn may_ask(self) -> bool {
        self != Self::Off
    }

    /// Whether the lattice may change anything.
    pub fn may_change(self) -> bool {
        matches!(self, Self::Full | Self::Own)
    }

    /// Refuses a command where none is taken.
    ///
    /// # Errors
    /// `Denied`, naming the setting.
    pub fn check_change(self) -> Result<()> {
        if self.may_change() {
            return Ok(());
        }
        Err(Error::denied(format!(
            "this host takes no commands over the lattice ({SETTING}={}): set it to own or full to allow them",
            self.word()
        )))
    }

    /// Refuses to touch `what`, which the operator put on the board.
    ///
    /// # Errors
    /// `Denied` unless everything may be changed.
    pub fn check_operators(self, what: &str) -> Result<()> {
        self.check_change()?;
        if self == Self::Full {
            return Ok(());
        }
        Err(Error::denied(format!(
            "{what}, and commands over the lattice may change only what came over the lattice here ({SETTING}={}): \
             change it on the board, or set {SETTING}=full there",
            self.word()
        )))
    }

    /// Refuses a change of what should run, from `before` to `after`, that touches what manifests brought.
    ///
    /// # Errors
    /// As [`Rights::check_operators`], naming entity and manifest.
    pub fn check(self, before: &Desired, after: &Desired) -> Result<()> {
        if self == Self::Full {
            return Ok(());
        }
        for key in before.actors.keys().chain(after.actors.keys()) {
            if before.actors.get(key) != after.actors.get(key) {
                self.check_actor(before, key)?;
            }
        }
        for key in before.providers.keys().chain(after.providers.keys()) {
            if before.providers.get(key) != after.providers.get(key)
                && let Some(manifest) = before.manifest_of_provider(key)
            {
                let what = format!("manifest {manifest} of this board is about the provider {} ({})", key.0, key.1);
                self.check_operators(&what)?;
            }
        }
        for id in before.links.keys().chain(after.links.keys()) {
            let (there, then) = (before.links.get(id), after.links.get(id));
            let Some(link) = then.or(there).filter(|_| there != then) else { continue };
            let manifest = before.manifest_of_link(id).or_else(|| before.manifest_of_actor(&link.link.actor_id));
            if let Some(manifest) = manifest {
                let link = &link.link;
                let what = format!(
                    "manifest {manifest} of this board is about the actor {}, and so about its links ({}, {})",
                    link.actor_id, link.contract_id, link.link_name
                );
                self.check_operators(&what)?;
            }
        }
        Ok(())
    }

    /// Refuses to touch the actor `key` where a manifest brought it.
    ///
    /// # Errors
    /// As [`Rights::check_operators`].
    pub fn check_actor(self, desired: &Desired, key: &str) -> Result<()> {
        match desired.manifest_of_actor(key) {
            Some(manifest) => {
                self.check_operators(&format!("manifest {manifest} of this board is about the actor {key}"))
            }
            None => self.check_change(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_has_its_meaning_and_a_login_decides_only_where_it_is_asked() {
        let meant: Vec<(Rights, Rights)> =
            Rule::WORDS.iter().map(|word| (Rule::of(word).on(false), Rule::of(word).on(true))).collect();
        let both = |remote| (remote, remote);
        assert_eq!(
            meant,
            [both(Rights::Full), both(Rights::Own), both(Rights::Read), both(Rights::Off), (Rights::Own, Rights::Full)]
        );
        for (remote, word) in [(Rights::Read, "read"), (Rights::Off, "off")] {
            let refused = remote.check_change().expect_err("nothing is taken");
            assert!(refused.text().contains(&format!("WASMCLOUD_REMOTE={word}")), "{refused}");
        }
        assert!(Rights::Own.check_change().is_ok() && Rights::Own.check_operators("x").is_err());
        assert!(Rights::Full.check_operators("x").is_ok());
        assert!(!Rights::Off.may_ask() && Rights::Read.may_ask());
    }
}
