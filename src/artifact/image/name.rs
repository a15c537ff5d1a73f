//! The parts of an image reference.

use crate::{
    error::{Error, Result},
    store::Digest,
};

/// Where images of this registry are really served.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// What a reference without tag and digest means.
const LATEST: &str = "latest";

/// `REGISTRY/REPOSITORY[:TAG][@sha256:…]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Name {
    /// Host, with its port if it has one, in lower case.
    pub registry: String,
    /// In lower case: the reference host lower-cases what it pulls (`protocol/config.md §6`), and registries know no other.
    pub repository: String,
    /// As written: registries tell tags apart by case. The reference host does not; an image with an upper-case tag could
    /// never be pulled by it, so nobody relies on that.
    pub tag: Option<String>,
    /// Of the manifest.
    pub digest: Option<Digest>,
}

impl Name {
    /// Reads `text`, which [`Reference`](crate::artifact::Reference) has found to be an image.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn parse(text: &str) -> Result<Self> {
        let (named, digest) = match text.split_once("@sha256:") {
            Some((named, digest)) => (named, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, path) = named
            .split_once('/')
            .ok_or_else(|| Error::invalid("it names no registry; write REGISTRY/REPOSITORY:TAG"))?;
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        Ok(Self { registry: registry.to_ascii_lowercase(), repository: repository.to_ascii_lowercase(), tag, digest })
    }

    /// Whether it means whatever is newest. One without a tag does too; the reference host lets that pass, and its clients
    /// insist on a tag.
    pub fn is_latest(&self) -> bool {
        self.digest.is_none() && self.tag.as_deref().is_none_or(|tag| tag.eq_ignore_ascii_case(LATEST))
    }

    /// What its manifest is asked for by: the digest where there is one, which cannot lie.
    pub fn pointer(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => format!("sha256:{digest}"),
            (None, Some(tag)) => tag.clone(),
            (None, None) => LATEST.to_owned(),
        }
    }

    /// The host that serves it, with its port.
    pub fn host(&self) -> &str {
        if self.registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { &self.registry }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn the_parts_are_told_apart() {
        let digest = "0a".repeat(32);
        let whole = name(&format!("Registry.Example:5000/Some/Echo:V1@sha256:{digest}"));
        assert_eq!((&*whole.registry, &*whole.repository), ("registry.example:5000", "some/echo"));
        assert_eq!((whole.tag.as_deref(), whole.pointer()), (Some("V1"), format!("sha256:{digest}")));
        assert_eq!(name("ghcr.io/a/b:0.1").pointer(), "0.1");
        assert_eq!(name("ghcr.io/a/b").pointer(), "latest");
        assert_eq!(name("docker.io/library/x:1").host(), "registry-1.docker.io");
    }

    #[test]
    fn latest_is_what_no_digest_and_no_other_tag_says() {
        assert!(name("ghcr.io/a/b:latest").is_latest() && name("ghcr.io/a/b").is_latest());
        assert!(!name("ghcr.io/a/b:0.1").is_latest());
        assert!(!name(&format!("ghcr.io/a/b:latest@sha256:{}", "0a".repeat(32))).is_latest());
    }
}
