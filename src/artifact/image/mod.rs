//! Images: `REGISTRY/REPOSITORY[:TAG][@sha256:…]`, by the OCI distribution API (`protocol/config.md §6`).
//!
//! Registered by the host. A reference is resolved to the digest of its one layer by way of its manifest, which is checked
//! against the digest in the reference; the layer is fetched as any download, in several goes if need be. It blocks on
//! smol's pool.
//!
//! It sends a login only to a registry that asks for one, and to the token service that this registry names over TLS;
//! never to where a redirect leads. It never speaks plain HTTP but to registries the operator listed.
//!
//! # Layout
//!
//! * [`name`]: the parts of a reference; [`manifest`]: from a manifest to a layer; [`challenge`]: how a registry asks for
//!   a login. All pure.
//! * [`session`]: the questions to one registry, logged in if it asks.
//!
//! ureq and a few hundred lines instead of a client crate: `oci-distribution` brings reqwest and a second HTTP stack on
//! tokio, three times this program's budget for everything to do with artifacts.

mod challenge;
mod manifest;
mod name;
mod session;

use std::sync::Arc;

use self::{
    manifest::{Described, MAX_MANIFEST_BYTES},
    name::Name,
    session::Session,
};
use crate::{
    artifact::{Content, Credentials, Origin, Received, Reference, Resolved, Settings, Wanted, origin::Work},
    error::{Error, Result},
    store::Digest,
};

/// Indexes that may point to indexes: none in use does even once.
const MAX_DEPTH: usize = 2;

/// The source of images.
#[derive(Clone)]
pub struct Images {
    settings: Settings,
    credentials: Arc<Credentials>,
}

impl Images {
    /// With the lists and time-outs of `settings`, logging in by `credentials`.
    pub fn new(settings: Settings, credentials: Arc<Credentials>) -> Self {
        Self { settings, credentials }
    }

    fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        let name = Name::parse(reference.text())?;
        if name.is_latest() && !self.settings.allow_latest {
            return Err(Error::denied(
                "Fetching images tagged 'latest' is currently prohibited in this host. This option can be overridden with \
                 WASMCLOUD_OCI_ALLOW_LATEST",
            ));
        }
        let deadline = std::time::Instant::now() + self.settings.total;
        let mut session = Session::new(&self.settings, &self.credentials, &name, deadline)?;
        let mut wanted = name.pointer();
        let mut expected = name.digest;
        let mut first = None;
        for _ in 0..=MAX_DEPTH {
            let (bytes, media_type) = match session.manifest(&wanted, MAX_MANIFEST_BYTES)? {
                session::Answer::Body(bytes, media_type) => (bytes, media_type),
                session::Answer::Later(error, after) => return Ok(Resolved::Later(error, after)),
            };
            let digest = Digest::of(&bytes);
            if let Some(expected) = expected.filter(|expected| *expected != digest) {
                return Err(Error::invalid(format!(
                    "the registry {} gave a manifest with the digest sha256:{digest}, expected is sha256:{expected}; it \
                     was changed on its way or in the registry",
                    name.registry
                )));
            }
            first.get_or_insert(digest);
            match manifest::read(&bytes, media_type.as_deref())? {
                Described::Layer { digest, bytes } => {
                    let content = Content { digest: Some(digest), manifest: first, bytes: Some(bytes) };
                    return Ok(Resolved::Content(content));
                }
                Described::Index(digest) => {
                    wanted = format!("sha256:{digest}");
                    expected = Some(digest);
                }
            }
        }
        Err(Error::invalid(format!("its manifests point to each other more than {MAX_DEPTH} times; push it anew")))
    }

    fn fetch(&self, wanted: Wanted) -> Result<Received> {
        let name = Name::parse(wanted.reference.text())?;
        let digest = wanted.content.digest.ok_or_else(|| Error::internal("an image without a layer was asked for"))?;
        let mut session = Session::new(&self.settings, &self.credentials, &name, wanted.deadline)?;
        session.layer(digest, wanted)
    }
}

impl Origin for Images {
    fn resolve(&self, reference: &Reference) -> Work<Result<Resolved>> {
        let (images, reference) = (self.clone(), reference.clone());
        Box::pin(smol::unblock(move || Images::resolve(&images, &reference)))
    }

    fn fetch(&self, wanted: Wanted) -> Work<Result<Received>> {
        let images = self.clone();
        Box::pin(smol::unblock(move || Images::fetch(&images, wanted)))
    }
}
