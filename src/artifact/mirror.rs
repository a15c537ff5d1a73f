//! Mirrors on the LAN as a source: `mirror://NAME[@sha256:…]`, and a fallback in front of every other source for any content
//! whose digest is known.
//!
//! The mirrors of a site are asked in the order in which the operator named them; the first that has it gives it. Content
//! goes by its digest, so it does not matter who gives it; an image pinned by its manifest's digest goes by that, from
//! manifest to layer, each checked. A mirror that knows names only, any file server on a laptop, will do for `mirror://`. It
//! sends its token to these mirrors and nowhere else. Everything here blocks, on smol's pool.

use std::{sync::Arc, time::Instant};

use ureq::http::{HeaderMap, header};

use crate::{
    artifact::{
        Content, FetchRules, Live, Origin, Received, Reference, Remote, Requester, Resolved, Source, Wanted, image,
        origin::Work,
        published::check_name,
        web::{self, Asker, Web},
    },
    error::{Error, Kind, Result},
    lock::RwLock,
    store::Digest,
};

/// What a reference to a mirror begins with.
pub const SCHEME: &str = "mirror://";

/// Mirrors at most; more are refused. Each that does not have something is asked first.
pub const MAX_MIRRORS: usize = 8;

/// What separates the name from the digest.
const DIGEST_MARK: &str = "@sha256:";

/// Remedy where a mirror wants a login.
const LOGIN: &str = "set WASMCLOUD_MIRROR_TOKEN to the token it wants";

/// The name in `mirror://NAME[@sha256:…]`.
///
/// # Errors
/// `Invalid`.
pub fn name_of(reference: &Reference) -> Result<&str> {
    let rest = reference.text().strip_prefix(SCHEME).unwrap_or(reference.text());
    let name = rest.split_once(DIGEST_MARK).map_or(rest, |(name, _)| name);
    check_name(name)?;
    Ok(name)
}

/// The mirrors of a site.
#[derive(Clone)]
pub struct Mirrors(Arc<Inner>);

struct Inner {
    settings: Live,
    addresses: Vec<Address>,
    /// Value of the header that shows the token.
    authorization: RwLock<Option<String>>,
}

/// One mirror.
struct Address {
    /// Without a slash at its end.
    url: String,
    /// `the mirror HOST:PORT`.
    who: String,
    secure: bool,
}

impl Address {
    fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Error::config(format!(
                "WASMCLOUD_MIRRORS: {text:?} is no mirror: {why}; write http://HOST:PORT or https://…"
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refuse("it has no scheme"))?;
        let secure = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(refuse("its scheme is neither http nor https")),
        };
        let rest = rest.trim_end_matches('/');
        let host = rest.split('/').next().unwrap_or_default();
        if host.is_empty() || rest.contains(['@', '?', '#', ' ']) || rest.chars().any(char::is_control) {
            return Err(refuse("it must be an address alone, without login, query or fragment"));
        }
        Ok(Self { url: format!("{scheme}://{rest}"), who: format!("the mirror {host}"), secure })
    }
}

impl Mirrors {
    /// Those at `addresses`, first the one to be asked first; `token` is shown to all of them.
    ///
    /// # Errors
    /// `Config` for an address that cannot be one, or too many.
    pub fn new(settings: impl Into<Live>, addresses: &[String], token: Option<&str>) -> Result<Self> {
        if addresses.len() > MAX_MIRRORS {
            return Err(Error::config(format!("WASMCLOUD_MIRRORS names more than {MAX_MIRRORS} mirrors")));
        }
        Ok(Self(Arc::new(Inner {
            settings: settings.into(),
            addresses: addresses.iter().map(|text| Address::parse(text)).collect::<Result<_>>()?,
            authorization: RwLock::new(bearer(token)),
        })))
    }

    /// Shows `token` to all of them from now on.
    pub fn show(&self, token: Option<&str>) {
        *self.0.authorization.write() = bearer(token);
    }
}

fn bearer(token: Option<&str>) -> Option<String> {
    token.map(|token| format!("Bearer {token}"))
}

impl Origin for Mirrors {
    fn is_authentic(&self, reference: &Reference) -> bool {
        reference.is_pinned() || self.0.addresses.iter().all(|address| address.secure)
    }

    // Mirrors are the operator's choice, whoever asks for something that they may have.
    fn resolve(&self, reference: &Reference, _requester: Requester) -> Work<Result<Resolved>> {
        let (inner, reference) = (self.0.clone(), reference.clone());
        Box::pin(smol::unblock(move || inner.resolve(&reference)))
    }

    fn fetch(&self, wanted: Wanted) -> Work<Result<Received>> {
        let inner = self.0.clone();
        Box::pin(smol::unblock(move || inner.fetch(wanted)))
    }
}

/// Where something was found.
struct Found<'a> {
    address: &'a Address,
    path: String,
    web: Web,
    digest: Option<Digest>,
    bytes: Option<u64>,
}

impl Inner {
    fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        if let Some(digest) = reference.content_digest()? {
            return Ok(Resolved::Content(Content { digest: Some(digest), ..Content::default() }));
        }
        let deadline = Instant::now() + self.settings.now().total;
        if let Some(manifest) = reference.manifest_digest()? {
            return self.by_manifest(manifest, deadline);
        }
        let found = self.find(&[name_of(reference)?.to_owned()], deadline)?;
        if found.digest.is_none() {
            return Err(Error::invalid(format!(
                "{} does not say the digest of {}; pin it with {DIGEST_MARK}…",
                found.address.who, found.path
            )));
        }
        Ok(Resolved::Content(Content { digest: found.digest, bytes: found.bytes, ..Content::default() }))
    }

    /// What the manifest with this digest stands for. Every manifest is checked against the digest that leads to it, so it
    /// does not matter who gives it.
    fn by_manifest(&self, manifest: Digest, deadline: Instant) -> Result<Resolved> {
        self.first(deadline, |address, web| {
            let get = |path: &str| self.manifest(&web, address, path);
            match image::follow(&address.who, format!("sha256:{manifest}"), Some(manifest), get) {
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                outcome => outcome.map(Some),
            }
        })
    }

    /// One manifest of the mirror at `address`.
    fn manifest(&self, web: &Web, address: &Address, path: &str) -> Result<image::Answer> {
        let response = web.get(&format!("{}/{path}", address.url), &self.headers())?;
        if response.status().as_u16() != 200 {
            let asker = Asker { who: &address.who, what: path, login_remedy: LOGIN };
            return Err(web::refusal(&asker, response).0);
        }
        let text = web::read_whole(response, &format!("the manifest of {}", address.who), image::MAX_MANIFEST_BYTES)?;
        Ok(image::Answer::Body(text, None))
    }

    fn fetch(&self, wanted: Wanted) -> Result<Received> {
        let mut paths = Vec::new();
        if let Some(digest) = wanted.content.digest {
            paths.push(format!("sha256:{digest}"));
        }
        if matches!(wanted.reference.source(), Source::Remote(Remote::Mirror)) {
            paths.push(name_of(&wanted.reference)?.to_owned());
        }
        let found = self.find(&paths, wanted.deadline)?;
        let asker = Asker { who: &found.address.who, what: &found.path, login_remedy: LOGIN };
        let url = format!("{}/{}", found.address.url, found.path);
        let login = self.headers();
        web::fetch(|headers| found.web.get(&url, &[headers, &login].concat()), &asker, wanted)
    }

    /// The first mirror that has one of `paths`, the first of them it has.
    fn find(&self, paths: &[String], deadline: Instant) -> Result<Found<'_>> {
        self.first(deadline, |address, web| {
            let found = self.look(&web, address, paths)?;
            Ok(found.map(|(path, headers)| Found {
                address,
                path,
                web,
                digest: digest_of(&headers),
                bytes: headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
            }))
        })
    }

    /// What the first mirror that has it gives; `ask` answers nothing where one has it not.
    fn first<'a, T>(
        &'a self,
        deadline: Instant,
        mut ask: impl FnMut(&'a Address, Web) -> Result<Option<T>>,
    ) -> Result<T> {
        let (settings, mut worst) = (self.settings.now(), None::<Error>);
        for address in &self.addresses {
            let rules = Arc::new(FetchRules::new(Requester::Operator, &settings));
            match Web::new(&settings, address.secure, deadline, rules).and_then(|web| ask(address, web)) {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                // What may be there behind a line that is down counts more than what is not there.
                Err(error) => worst = Some(worst.unwrap_or(error)),
            }
        }
        Err(worst.unwrap_or_else(|| self.nowhere()))
    }

    /// None of the mirrors has it.
    fn nowhere(&self) -> Error {
        match self.addresses.as_slice() {
            [] => Error::unavailable("no mirror is named; name them in WASMCLOUD_MIRRORS"),
            all => {
                let who: Vec<_> = all.iter().map(|address| address.who.as_str()).collect();
                Error::not_found(format!(
                    "{} does not have it; publish it there with `latticed artifact publish`",
                    who.join(" and ")
                ))
            }
        }
    }

    /// What of `paths` the mirror at `address` has, and what it says of it.
    fn look(&self, web: &Web, address: &Address, paths: &[String]) -> Result<Option<(String, HeaderMap)>> {
        for path in paths {
            let response = web.head(&format!("{}/{path}", address.url), &self.headers())?;
            match response.status().as_u16() {
                200 => return Ok(Some((path.clone(), response.headers().clone()))),
                // Some file servers take the colon of a digest for a mistake.
                400 | 404 | 410 => {}
                _ => {
                    let asker = Asker { who: &address.who, what: path, login_remedy: LOGIN };
                    return Err(web::refusal(&asker, response).0);
                }
            }
        }
        Ok(None)
    }

    fn headers(&self) -> Vec<(header::HeaderName, String)> {
        let authorization = self.authorization.read();
        authorization.iter().map(|value| (header::AUTHORIZATION, value.clone())).collect()
    }
}

/// The digest in the ETag of a mirror's answer.
fn digest_of(headers: &HeaderMap) -> Option<Digest> {
    let etag = headers.get(header::ETAG)?.to_str().ok()?;
    etag.strip_prefix("\"sha256:")?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_addresses_are_read() {
        let name = |text: &str| name_of(&Reference::parse(text).unwrap()).map(str::to_owned);
        assert_eq!(name("mirror://echo").unwrap(), "echo");
        assert_eq!(name(&format!("mirror://site/echo.wasm@sha256:{}", "0a".repeat(32))).unwrap(), "site/echo.wasm");
        assert_eq!(name("mirror://../x").unwrap_err().kind(), Kind::Invalid);

        let address = Address::parse("http://board.local:8099/").unwrap();
        assert_eq!(
            (address.url.as_str(), address.who.as_str()),
            ("http://board.local:8099", "the mirror board.local:8099")
        );
        assert!(!address.secure && Address::parse("https://[fe80::1]:8099/store").unwrap().secure);
        for bad in ["board:8099", "ftp://board", "http://", "http://u:p@board", "http://board/?x", "http://board /"] {
            assert_eq!(Address::parse(bad).err().map(|error| error.kind()), Some(Kind::Config), "{bad}");
        }
    }

    #[test]
    fn a_digest_is_read_from_the_etag_of_a_mirror_and_of_nobody_else() {
        let read = |etag: &str| digest_of(&HeaderMap::from_iter([(header::ETAG, etag.parse().unwrap())]));
        let hex = "0a".repeat(32);
        assert_eq!(read(&format!("\"sha256:{hex}\"")), Some(Digest([10; 32])));
        for other in [format!("W/\"sha256:{hex}\""), format!("\"{hex}\""), "\"1234-5678\"".into()] {
            assert_eq!(read(&other), None, "{other}");
        }
    }
}
