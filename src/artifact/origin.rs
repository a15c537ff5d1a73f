//! What a source of artifacts is: the contract between [`Artifacts`](crate::artifact::Artifacts) and whoever brings bytes.
//!
//! A source answers two questions. [`Origin::resolve`]: which content does this reference stand for now? And
//! [`Origin::fetch`]: bring it. Everything else happens in front of it, once for all sources: looking into the store, one
//! download per content however many ask, attempts again with growing waits, the total time, the budget of the store,
//! the check of the digest, progress. So a source makes *one* attempt, and keeps nothing between two.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration, time::Instant};

use crate::{
    artifact::{Pace, Reference, Requester},
    error::{Error, Result},
    store::{Digest, Incoming},
};

/// What a source does in its own time.
pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Which content a reference stands for, as far as its source knows before it sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of the content. With it nothing is fetched that is in the store, whatever its reference, and what was cut
    /// off is gone on with from any source.
    pub digest: Option<Digest>,
    /// Digest of the manifest that says so (images): kept with the reference, so that next time one small question is
    /// enough, and none where the reference carries it.
    pub manifest: Option<Digest>,
    /// Length in bytes.
    pub bytes: Option<u64>,
    /// Texts of the manifests that say so, from the one that [`Content::manifest`] names down, where they are not too long
    /// to be kept: with them a mirror can show others what a manifest's digest stands for.
    pub manifests: Vec<Vec<u8>>,
}

/// The answer of [`Origin::resolve`].
#[derive(Debug)]
pub enum Resolved {
    /// This content.
    Content(Content),
    /// Not now: the source asks to be left alone for so long (`Retry-After`). The error is what the operator reads when
    /// nobody can wait that long.
    Later(Error, Duration),
}

/// The answer of [`Origin::fetch`].
#[expect(clippy::large_enum_variant, reason = "there is one for each attempt at a download")]
pub enum Received {
    /// All of its bytes are in, not finished yet; with the digest that the source itself promised for them.
    Content(Incoming, Option<Digest>),
    /// The reference points to these bytes, which were said to be in the store already.
    Known(Digest),
    /// Not now, as with [`Resolved::Later`]. What has arrived stays for the next attempt.
    Later(Error, Duration),
}

/// What a source is asked for.
pub struct Wanted {
    /// What to fetch.
    pub reference: Reference,
    /// On whose word.
    pub requester: Requester,
    /// What [`Origin::resolve`] said of it. May name only the digest: when a damaged copy is fetched again, nobody asks
    /// what the reference stands for now.
    pub content: Content,
    /// Where the bytes go. [`Incoming::received`] bytes of it are there from an earlier attempt if that is not 0: the
    /// source says which content it gives by [`Incoming::begin`], and goes on where that says; one that can only begin
    /// at the front calls [`Incoming::restart`]. When the source gives up with an error, or is dropped, it drops this,
    /// and the next attempt goes on.
    pub into: Incoming,
    /// The blob that this reference pointed to before, if it is still in the store and whole.
    pub kept: Option<Digest>,
    /// How fast bytes may come in. A source asks it after each piece and waits as long as it says.
    pub pace: Arc<Pace>,
    /// When nobody waits any more. A source needs no total time of its own.
    pub deadline: Instant,
}

/// One kind of place where bytes come from.
pub trait Origin: Send + Sync + 'static {
    /// Refuses a reference that this source never fetches, as far as its text alone tells.
    ///
    /// # Errors
    /// `Denied` or `Invalid`; the text may be told to anybody.
    fn check(&self, reference: &Reference) -> Result<()> {
        let _ = reference;
        Ok(())
    }

    /// Whether nobody on the way can put something else in the place of what `reference` stands for.
    fn is_authentic(&self, reference: &Reference) -> bool {
        let _ = reference;
        true
    }

    /// Which content `reference` stands for now, on the word of `requester`. Asked before a fetch unless the reference carries the digest of its
    /// content. A source that learns it only from the content itself leaves this as it is.
    ///
    /// # Errors
    /// As [`Origin::fetch`].
    fn resolve(&self, reference: &Reference, requester: Requester) -> Work<Result<Resolved>> {
        let _ = requester;
        let digest = reference.content_digest();
        Box::pin(async move { Ok(Resolved::Content(Content { digest: digest?, ..Content::default() })) })
    }

    /// Fetches what is wanted, in one attempt.
    ///
    /// # Errors
    /// `Unavailable`, `Busy` or `Timeout` when another attempt may succeed: one is made, and in the end a copy kept from
    /// before is used. Everything else is final. The text names the source, the step, the cause and the remedy; the
    /// reference is added here.
    fn fetch(&self, wanted: Wanted) -> Work<Result<Received>>;
}
