//! Looking after the store of artifacts: what `latticed artifact pin`, `gc` and `verify` ask for, of a running host or
//! straight of its store.

use serde::{Deserialize, Serialize};

use crate::{
    artifact::{Artifacts, Swept},
    error::{Error, Kind, Result},
    store::Digest,
};

/// Fewest digits of a digest that name a content, if only one begins with them.
const MIN_PREFIX: usize = 8;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Maintenance {
    /// Content that must stay, or need not any more.
    Pin {
        /// A reference, a digest, or the beginning of one.
        what: String,
        /// Whether it must stay.
        pinned: bool,
    },
    /// Removes what nobody needs.
    Collect {
        /// All of it, and not only what is over the budget.
        everything: bool,
    },
    /// Reads content and compares it with its digest.
    Verify {
        /// A reference, a digest, or the beginning of one; all of it without.
        what: Option<String>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Done {
    /// This content is pinned now, or is not any more.
    Pinned {
        /// `sha256:…`.
        digest: String,
        /// Whether it is.
        pinned: bool,
    },
    /// So much went and so much stays.
    Collected(Swept),
    /// What was read.
    Verified {
        /// Contents that are whole.
        whole: u64,
        /// Their bytes.
        bytes: u64,
        /// What is wrong with the others, a sentence each; they were set aside and are fetched again when needed.
        damaged: Vec<String>,
    },
}

impl Artifacts {
    /// Does what is asked for.
    ///
    /// # Errors
    /// `NotFound` for what is not here, `Usage` for what could be several, those of the store.
    pub async fn maintain(&self, asked: Maintenance) -> Result<Done> {
        match asked {
            Maintenance::Pin { what, pinned } => {
                let digest = self.find_content(&what)?;
                self.records().pin(digest, pinned).await?;
                Ok(Done::Pinned { digest: format!("sha256:{digest}"), pinned })
            }
            Maintenance::Collect { everything } => self.collect(everything).await.map(Done::Collected),
            Maintenance::Verify { what } => {
                let digests = match what {
                    Some(what) => vec![self.find_content(&what)?],
                    None => self.store().blobs().list()?,
                };
                let blobs = self.store().blobs();
                smol::unblock(move || {
                    let (mut whole, mut bytes, mut damaged) = (0, 0, Vec::new());
                    for digest in digests {
                        match blobs.verify_blocking(digest) {
                            Ok(length) => {
                                whole += 1;
                                bytes += length;
                            }
                            // Removed since it was listed.
                            Err(error) if error.kind() == Kind::NotFound => {}
                            Err(error) => damaged.push(error.text().to_owned()),
                        }
                    }
                    Ok(Done::Verified { whole, bytes, damaged })
                })
                .await
            }
        }
    }

    /// The content that `what` names: a reference that brought it, its digest, or the beginning of that.
    ///
    /// # Errors
    /// `NotFound` for what is not here, `Usage` for what could be several.
    pub fn find_content(&self, what: &str) -> Result<Digest> {
        if let Some(digest) = self.records().find(what).and_then(|record| record.digest()) {
            return Ok(digest);
        }
        let digits = what.strip_prefix("sha256:").unwrap_or(what);
        let is_digest = digits.len() >= MIN_PREFIX && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_digest {
            return Err(Error::not_found(format!(
                "no reference {what:?} brought anything here; `latticed artifact list` shows what is, by reference and \
                 digest (the first {MIN_PREFIX} digits are enough)"
            )));
        }
        let mut found =
            self.store().blobs().list()?.into_iter().filter(|digest| digest.to_string().starts_with(digits));
        match (found.next(), found.next()) {
            (Some(digest), None) => Ok(digest),
            (None, _) => Err(Error::not_found(format!("there is no content sha256:{digits} here"))),
            (Some(_), Some(_)) => Err(Error::usage(format!("several contents begin with {digits}; write more digits"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        artifact::{Content, Settings},
        store::{self, FaultDisk, Store},
    };

    #[test]
    fn content_is_found_by_what_people_have_at_hand() {
        let disk = FaultDisk::new();
        let (store, _) = Store::open(store::Settings::default(), Arc::new(disk.clone())).unwrap();
        let artifacts = Artifacts::new(store, Settings::default());
        let digest = artifacts.store().blobs().put_blocking(b"module").unwrap();
        let other = artifacts.store().blobs().put_blocking(b"other").unwrap();
        let records = artifacts.records();
        smol::block_on(records.remember("reg.example/a:1", digest, &Content::default(), &[].into())).unwrap();
        let text = digest.to_string();
        for what in ["reg.example/a:1", &text, &format!("sha256:{text}"), &text[..MIN_PREFIX]] {
            assert_eq!(artifacts.find_content(what).unwrap(), digest, "{what}");
        }
        for what in ["reg.example/b:1", &text[..MIN_PREFIX - 1], &"0".repeat(64)] {
            assert_eq!(artifacts.find_content(what).unwrap_err().kind(), Kind::NotFound, "{what}");
        }

        let ask = |asked| smol::block_on(artifacts.maintain(asked)).unwrap();
        ask(Maintenance::Pin { what: text.clone(), pinned: true });
        assert!(records.pins().contains(&digest));
        ask(Maintenance::Pin { what: text, pinned: false });
        assert!(records.pins().is_empty());
        disk.corrupt(&format!("blobs/{other}"), 1, 4);
        match ask(Maintenance::Verify { what: None }) {
            Done::Verified { whole: 1, bytes: 6, damaged } => {
                assert!(damaged.len() == 1 && damaged[0].contains(&other.to_string()), "{damaged:?}");
            }
            done => panic!("{done:?}"),
        }
        assert_eq!(ask(Maintenance::Verify { what: None }), Done::Verified { whole: 1, bytes: 6, damaged: Vec::new() });
    }
}
