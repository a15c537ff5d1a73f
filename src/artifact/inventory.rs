//! What is in stock: artifacts in the store with everything that is known of them, and the ways in and out that need no
//! source. For whoever manages a board: the admin API of a running host, and the command line where none runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    artifact::{Artifacts, Content, Limit, Reference, Requester, published::Names},
    claims,
    error::{Error, Result},
    log,
    store::{Digest, Incoming, MAX_BLOB_BYTES},
};

/// How errors call the bound of what is taken in without a purpose.
const ANY: Limit = Limit::fixed(MAX_BLOB_BYTES as u64);

/// Largest content that a list looks into for the name of an actor, bytes: modules have less, archives have references.
const LARGEST_LOOKED_INTO: u64 = 8 << 20;

/// One artifact in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stocked {
    /// `sha256:` and the digest of its content.
    pub digest: String,
    /// Length of the content.
    pub bytes: u64,
    /// References that stood for it when they were last looked up.
    pub references: Vec<Referred>,
    /// The actor in it, name and key, where no reference and no name tells what it is: one that came from a file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// Names under which it is offered to other boards.
    pub names: Vec<String>,
    /// An operator said that it must stay.
    pub pinned: bool,
    /// What runs or should run needs it, or a name offers it.
    pub needed: bool,
}

/// A reference, and how it names the content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Referred {
    /// The reference.
    pub reference: String,
    /// `sha256:` and the digest of the manifest between the two, for images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
}

/// A digest as it is written for people: `sha256:` and 64 digits. The bare digits are read too.
///
/// # Errors
/// `Invalid`.
pub fn parse_digest(text: &str) -> Result<Digest> {
    text.strip_prefix("sha256:").unwrap_or(text).parse()
}

impl Artifacts {
    /// Everything in the store, by digest. Blocks.
    ///
    /// # Errors
    /// `Storage`.
    pub fn inventory(&self) -> Result<Vec<Stocked>> {
        let blobs = self.store().blobs();
        let mut stock = BTreeMap::new();
        let (pins, needed) = (self.records().pins(), self.needed());
        for digest in blobs.list()? {
            // Gone since it was listed.
            let Some(bytes) = blobs.length(digest) else { continue };
            let one = Stocked {
                digest: format!("sha256:{digest}"),
                bytes,
                pinned: pins.contains(&digest),
                needed: needed.contains(&digest),
                ..Stocked::default()
            };
            stock.insert(digest, one);
        }
        for (reference, record) in self.records().all() {
            if let Some(one) = record.digest().and_then(|digest| stock.get_mut(&digest)) {
                let manifest = record.manifest().map(|manifest| format!("sha256:{manifest}"));
                one.references.push(Referred { reference, manifest });
            }
        }
        for published in self.names().all()? {
            if let Some(one) = stock.get_mut(&published.digest) {
                one.names.push(published.name);
                one.needed = true;
            }
        }
        for (digest, one) in stock.iter_mut().filter(|(_, one)| one.references.is_empty() && one.names.is_empty()) {
            one.actor = self.actor_in(*digest).unwrap_or_default();
        }
        Ok(stock.into_values().collect())
    }

    /// Name and key of the actor in the content `digest`, if it is one.
    fn actor_in(&self, digest: Digest) -> Option<String> {
        let blobs = self.store().blobs();
        if blobs.length(digest)? > LARGEST_LOOKED_INTO {
            return None;
        }
        let found = claims::module::extract(&blobs.read_blocking(digest).ok()?).ok()??;
        let claims = found.token.claims();
        let name = claims.body().ok()?.name.clone().unwrap_or_default();
        Some(format!("{name} {}", claims.sub).trim_start().to_owned())
    }

    /// The names under which this board offers artifacts.
    pub fn names(&self) -> Names {
        Names::new(self.store().clone())
    }

    /// Begins to take in content of `bytes` that comes from no source; room is made for it. Once it is finished it stays for
    /// a while without being needed, for whoever says what it is for.
    ///
    /// # Errors
    /// `Limit` for more than a blob may have, or when it does not fit beside what is needed.
    pub async fn take_in(&self, digest: Digest, bytes: u64) -> Result<Incoming> {
        if bytes > ANY.bytes {
            return Err(Error::limit(format!(
                "it has {bytes} bytes, more than the {} an artifact may have",
                ANY.bytes
            )));
        }
        self.make_room(digest, bytes).await?;
        Ok(self.store().blobs().incoming(ANY.bytes))
    }

    /// Remembers that `reference` stands for `digest`, which is in the store, as if it had been fetched and accepted:
    /// the operator says so.
    ///
    /// # Errors
    /// `NotFound` without the content; `Invalid` when the reference pins another content, or is none that is fetched.
    pub async fn refer(&self, reference: &str, digest: Digest, manifest: Option<Digest>) -> Result<()> {
        let parsed = Reference::parse(reference)?;
        if !parsed.is_fetched() {
            return Err(Error::invalid(format!("{reference} is nothing that is fetched, and needs no record")));
        }
        if parsed.content_digest()?.is_some_and(|pinned| pinned != digest)
            || parsed.manifest_digest()?.is_some_and(|pinned| Some(pinned) != manifest)
        {
            return Err(Error::invalid(format!("{reference} pins another content than sha256:{digest}")));
        }
        let blobs = self.store().blobs();
        smol::unblock(move || blobs.verify_blocking(digest)).await?;
        let content = Content { digest: Some(digest), manifest, ..Content::default() };
        self.records().remember_accepted(reference, digest, &content, &self.needed()).await
    }

    /// Offers `name` to other boards: what `reference` stands for, fetched if need be, or the content `digest`.
    ///
    /// # Errors
    /// Those of the source and of [`Names::publish`].
    pub async fn publish(&self, name: &str, what: &Offered) -> Result<Digest> {
        crate::artifact::published::check_name(name)?;
        let (digest, origin) = match what {
            Offered::Digest(digest) => (*digest, String::new()),
            Offered::Reference(text) => {
                let reference = Reference::parse(text)?;
                (self.obtain(&reference, Requester::Operator, "an artifact to publish", ANY).await?, text.clone())
            }
        };
        self.names().publish(name, digest, &origin).await?;
        let bytes = self.store().blobs().length(digest).unwrap_or_default();
        log::info!("{name} is offered to other boards: sha256:{digest}, {bytes} bytes"; reference = origin);
        Ok(digest)
    }
}

/// What a name is to point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offered {
    /// Content of the store.
    Digest(Digest),
    /// What this reference stands for now.
    Reference(String),
}
