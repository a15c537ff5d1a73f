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

use self::{manifest::Described, name::Name, session::Session};
pub(super) use self::{manifest::MAX_MANIFEST_BYTES, session::Answer};
use crate::{
    artifact::{
        Content, Credentials, FetchRules, Live, Origin, Received, Reference, Requester, Resolved, Settings, Wanted,
        origin::Work, records::MAX_KEPT_MANIFEST_BYTES,
    },
    error::{Error, Result},
    store::Digest,
};

/// Indexes that may point to indexes: none in use does even once.
const MAX_DEPTH: usize = 2;

/// The source of images.
#[derive(Clone)]
pub struct Images {
    settings: Live,
    credentials: Arc<Credentials>,
}

/// Refuses an image whose tag this host does not fetch.
///
/// # Errors
/// `Denied`; `Invalid` where the reference is no image.
pub fn check_tag(reference: &Reference, allow_latest: bool) -> Result<()> {
    check_latest(&Name::parse(reference.text())?, allow_latest)
}

fn check_latest(name: &Name, allow_latest: bool) -> Result<()> {
    if name.is_latest() && !allow_latest {
        return Err(Error::denied(
            "Fetching images tagged 'latest' is currently prohibited in this host. This option can be overridden with \
             WASMCLOUD_OCI_ALLOW_LATEST",
        ));
    }
    Ok(())
}

impl Images {
    /// With the lists and time-outs of `settings`, logging in by `credentials`.
    pub fn new(settings: impl Into<Live>, credentials: Arc<Credentials>) -> Self {
        Self { settings: settings.into(), credentials }
    }

    fn rules(&self, requester: Requester, settings: &Settings) -> Arc<FetchRules> {
        Arc::new(FetchRules::for_images(requester, settings, self.credentials.configured_registries()))
    }

    fn resolve(&self, reference: &Reference, requester: Requester) -> Result<Resolved> {
        let name = Name::parse(reference.text())?;
        let settings = self.settings.now();
        check_latest(&name, settings.allow_latest)?;
        let deadline = std::time::Instant::now() + settings.total;
        let rules = self.rules(requester, &settings);
        let mut session = Session::new(&settings, &self.credentials, &name, deadline, rules)?;
        let who = format!("the registry {}", name.registry);
        follow(&who, name.pointer(), name.digest, |pointer| session.manifest(pointer, MAX_MANIFEST_BYTES))
    }

    fn fetch(&self, wanted: Wanted) -> Result<Received> {
        let name = Name::parse(wanted.reference.text())?;
        let digest = wanted.content.digest.ok_or_else(|| Error::internal("an image without a layer was asked for"))?;
        let settings = self.settings.now();
        let mut session = Session::new(
            &settings,
            &self.credentials,
            &name,
            wanted.deadline,
            self.rules(wanted.requester, &settings),
        )?;
        session.layer(digest, wanted)
    }
}

/// Goes from the manifest that `pointer` (a tag, `sha256:…`) names to the layer that is the artifact. `get` asks `who` for
/// one manifest; each is checked against the digest that led to it, the first against `expected`.
///
/// # Errors
/// Those of `get`; `Invalid` for another manifest than the expected one, or one that describes nothing this host runs.
pub(super) fn follow(
    who: &str,
    pointer: String,
    expected: Option<Digest>,
    mut get: impl FnMut(&str) -> Result<Answer>,
) -> Result<Resolved> {
    let (mut pointer, mut expected) = (pointer, expected);
    let mut content = Content::default();
    for _ in 0..=MAX_DEPTH {
        let (text, media_type) = match get(&pointer)? {
            Answer::Body(text, media_type) => (text, media_type),
            Answer::Later(error, after) => return Ok(Resolved::Later(error, after)),
        };
        let digest = Digest::of(&text);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(Error::invalid(format!(
                "{who} gave a manifest with the digest sha256:{digest}, expected is sha256:{expected}; it was changed on \
                 its way or there"
            )));
        }
        content.manifest.get_or_insert(digest);
        let described = manifest::read(&text, media_type.as_deref())?;
        if text.len() <= MAX_KEPT_MANIFEST_BYTES {
            content.manifests.push(text);
        }
        match described {
            Described::Layer { digest, bytes } => {
                return Ok(Resolved::Content(Content { digest: Some(digest), bytes: Some(bytes), ..content }));
            }
            Described::Index(digest) => {
                pointer = format!("sha256:{digest}");
                expected = Some(digest);
            }
        }
    }
    Err(Error::invalid(format!("its manifests point to each other more than {MAX_DEPTH} times; push it anew")))
}

impl Origin for Images {
    fn check(&self, reference: &Reference) -> Result<()> {
        check_latest(&Name::parse(reference.text())?, self.settings.now().allow_latest)
    }

    fn resolve(&self, reference: &Reference, requester: Requester) -> Work<Result<Resolved>> {
        let (images, reference) = (self.clone(), reference.clone());
        Box::pin(smol::unblock(move || Images::resolve(&images, &reference, requester)))
    }

    fn fetch(&self, wanted: Wanted) -> Work<Result<Received>> {
        let images = self.clone();
        Box::pin(smol::unblock(move || Images::fetch(&images, wanted)))
    }
}
