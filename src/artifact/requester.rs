//! On whose word an artifact is fetched, and what that one is told when it fails.
//!
//! The operator of a board may name any address of the site. Whoever sends commands over the lattice is not trusted so far:
//! what may be fetched for them is in [`FetchRules`](crate::artifact::FetchRules), and an error that goes back to them must
//! not tell what answers at an address, how long an answer is, or what its digest is.

use serde::{Deserialize, Serialize};

use crate::{
    artifact::Reference,
    error::{Error, Kind},
    log,
};

/// Who asks for an artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requester {
    /// The operator of this board: a manifest, a setting, a command on the board itself.
    Operator,
    /// A command that came over the lattice. Also the meaning of a record that does not say it.
    #[default]
    Lattice,
}

impl Requester {
    /// For a record that leaves the default out.
    pub fn is_lattice(&self) -> bool {
        *self == Self::Lattice
    }

    /// `error` as it may be told to this requester. What the lattice is not told goes to the log of this host.
    pub fn may_read(self, error: Error, reference: &Reference) -> Error {
        if self == Self::Operator {
            return error;
        }
        log::warn!("a command of the lattice cannot have its artifact: {error}"; reference = reference.text());
        let why = match error.kind() {
            Kind::NotFound => "its source does not have it",
            Kind::Invalid | Kind::Limit | Kind::Conflict => "what its source gave was refused",
            // One text for both: the difference would tell which names and addresses exist in the network of this host.
            _ => "it cannot be fetched: this host refuses to, or its source does not answer",
        };
        Error::new(error.kind(), format!("{reference}: {why}; the log of the host tells the cause"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lattice_reads_neither_digest_nor_length_nor_address() {
        let reference = Reference::parse("http://169.254.169.254/latest#sha256=00").unwrap();
        let cause = "169.254.169.254 gave 1674 bytes with the digest sha256:abcdef";
        for kind in Kind::ALL {
            let error = Error::new(kind, cause);
            assert_eq!(Requester::Operator.may_read(error.clone(), &reference), error);
            let told = Requester::Lattice.may_read(error, &reference);
            assert_eq!(told.kind(), kind);
            assert!(!told.text().contains("1674") && !told.text().contains("abcdef"), "{told}");
        }
        let told = |kind| Requester::Lattice.may_read(Error::new(kind, cause), &reference).text().to_owned();
        assert_eq!(told(Kind::Denied), told(Kind::Unavailable), "refused and not there are not told apart");
        assert_eq!(told(Kind::Denied), told(Kind::Timeout));
    }
}
