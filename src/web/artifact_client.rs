//! The other end of the artifacts' part of the admin API, for the command line.
//!
//! Content passes as a whole: the command line is there for a moment, and a blob has at most 64 MiB.

use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;

use super::{
    Client,
    artifacts::{PublishWords, PublishedWords, ReferWords},
};
use crate::{
    artifact::{
        inventory::{Offered, Stocked, parse_digest},
        maintenance::{Done, Maintenance},
    },
    error::{Error, Result},
    store::Digest,
};

/// Time for an answer that needs the disk at most: the largest blob on a slow card.
const DISK_TIMEOUT: Duration = Duration::from_secs(120);

/// Time for an answer that may read all artifacts: a gigabyte at 2 MB/s, which slow cards manage.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_secs(600);

/// Time for an answer that may need a download, longer than any setting allows one.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

impl Client {
    /// Everything in the host's store.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn inventory(&self) -> Result<Vec<Stocked>> {
        read(&self.ask(Method::GET, "/v1/artifacts", Vec::new(), DISK_TIMEOUT).await?)
    }

    /// The content `digest` of the host's store.
    ///
    /// # Errors
    /// `NotFound`; as [`Client::status`].
    pub async fn content(&self, digest: Digest) -> Result<Vec<u8>> {
        let path = format!("/v1/artifacts/sha256:{digest}");
        self.ask(Method::GET, &path, Vec::new(), DISK_TIMEOUT).await.map(Vec::from)
    }

    /// Puts `content`, whose digest is `digest`, into the host's store.
    ///
    /// # Errors
    /// `Limit` when it does not fit; as [`Client::status`].
    pub async fn take_in(&self, digest: Digest, content: Vec<u8>) -> Result<()> {
        let path = format!("/v1/artifacts/sha256:{digest}");
        self.ask(Method::PUT, &path, content, DISK_TIMEOUT).await.map(drop)
    }

    /// Has the host remember that `reference` stands for `digest`.
    ///
    /// # Errors
    /// `NotFound` without the content, `Invalid`; as [`Client::status`].
    pub async fn refer(&self, reference: &str, digest: Digest, manifest: Option<Digest>) -> Result<()> {
        let words = ReferWords {
            reference: reference.to_owned(),
            digest: format!("sha256:{digest}"),
            manifest: manifest.map(|manifest| format!("sha256:{manifest}")),
        };
        self.ask(Method::POST, "/v1/artifacts/references", write(&words)?, DISK_TIMEOUT).await.map(drop)
    }

    /// Has the host look after its artifacts.
    ///
    /// # Errors
    /// Those of [`Artifacts::maintain`](crate::artifact::Artifacts::maintain); as [`Client::status`].
    pub async fn maintain(&self, asked: &Maintenance) -> Result<Done> {
        read(&self.ask(Method::POST, "/v1/artifacts/upkeep", write(asked)?, MAINTENANCE_TIMEOUT).await?)
    }

    /// Has the host offer `what` to other boards as `name`; answers what it is now.
    ///
    /// # Errors
    /// Those of the source; as [`Client::status`].
    pub async fn publish(&self, name: &str, what: &Offered) -> Result<Digest> {
        let words = match what {
            Offered::Digest(digest) => PublishWords { digest: Some(format!("sha256:{digest}")), reference: None },
            Offered::Reference(text) => PublishWords { digest: None, reference: Some(text.clone()) },
        };
        let answer = self.ask(Method::PUT, &format!("/v1/names/{name}"), write(&words)?, DOWNLOAD_TIMEOUT).await?;
        parse_digest(&read::<PublishedWords>(&answer)?.digest)
    }

    /// Has the host take `name` back.
    ///
    /// # Errors
    /// `NotFound`; as [`Client::status`].
    pub async fn withdraw(&self, name: &str) -> Result<()> {
        self.ask(Method::DELETE, &format!("/v1/names/{name}"), Vec::new(), DISK_TIMEOUT).await.map(drop)
    }
}

fn read<T: DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|cause| {
        Error::invalid(format!("the host's answer cannot be read, perhaps it has another version: {cause}"))
    })
}

fn write(words: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(words).map_err(|cause| Error::internal(format!("cannot write a request: {cause}")))
}
