//! The questions to one registry about one repository: manifests and layers, logged in once it asks for that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use data_encoding::BASE64;
use ureq::{
    Body,
    http::{HeaderMap, Response, header},
};

use super::{
    challenge::{Challenge, token_address},
    manifest::ACCEPT,
    name::Name,
};
use crate::{
    artifact::{
        Credentials, FetchRules, Received, RegistryLogin, Settings, Wanted,
        web::{self, Asker, Web},
    },
    error::{Error, Result},
    store::Digest,
};

/// Largest answer of a token service, bytes. Tokens of clouds have 4 KiB.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// What an operator can do about a refused login.
const LOGIN_REMEDY: &str = "set OCI_REGISTRY, OCI_REGISTRY_USER and OCI_REGISTRY_PASSWORD, or send the lattice other \
                            credentials for this registry";

/// What a registry gave.
pub enum Answer {
    /// This, with its media type.
    Body(Vec<u8>, Option<String>),
    /// Ask again after so long.
    Later(Error, Duration),
}

/// One registry, one repository, one attempt.
pub struct Session<'a> {
    web: Web,
    name: &'a Name,
    /// `https://HOST`.
    base: String,
    secure: bool,
    settings: &'a Settings,
    deadline: Instant,
    rules: Arc<FetchRules>,
    login: Option<RegistryLogin>,
    /// What the registry wanted to see, once it has asked for it.
    authorization: Option<String>,
    /// What it has asked for so far, and was given or could not be.
    answered: Vec<Challenge>,
}

impl<'a> Session<'a> {
    /// A session that ends by `deadline`. Sends nothing yet.
    ///
    /// # Errors
    /// Those of [`Web::new`].
    pub fn new(
        settings: &'a Settings,
        credentials: &Credentials,
        name: &'a Name,
        deadline: Instant,
        rules: Arc<FetchRules>,
    ) -> Result<Self> {
        let secure = !settings.insecure.iter().any(|listed| listed.eq_ignore_ascii_case(&name.registry));
        Ok(Self {
            web: Web::new(settings, secure, deadline, rules.clone())?,
            base: format!("{}://{}", if secure { "https" } else { "http" }, name.host()),
            name,
            secure,
            settings,
            deadline,
            rules,
            login: credentials.find(&name.registry),
            authorization: None,
            answered: Vec::new(),
        })
    }

    /// The manifest that `pointer` (a tag, `sha256:…`) names, of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Origin::resolve`](crate::artifact::Origin::resolve).
    pub fn manifest(&mut self, pointer: &str, limit: u64) -> Result<Answer> {
        let address = format!("{}/v2/{}/manifests/{pointer}", self.base, self.name.repository);
        let response = self.get(&address, &[(header::ACCEPT, ACCEPT.to_owned())])?;
        if response.status().as_u16() != 200 {
            let what = format!("the manifest {pointer} of the repository {}", self.name.repository);
            return self.refused(&what, response);
        }
        let media_type = text(response.headers(), header::CONTENT_TYPE);
        let bytes = web::read_whole(response, &format!("the manifest of {}", self.who()), limit)?;
        Ok(Answer::Body(bytes, media_type))
    }

    /// Pours the layer `digest` into the store.
    ///
    /// # Errors
    /// As [`Origin::fetch`](crate::artifact::Origin::fetch).
    pub fn layer(&mut self, digest: Digest, wanted: Wanted) -> Result<Received> {
        let address = format!("{}/v2/{}/blobs/sha256:{digest}", self.base, self.name.repository);
        let (who, what) =
            (self.who(), format!("a layer of the repository {}{}", self.name.repository, self.with_whom()));
        let asker = Asker { who: &who, what: &what, login_remedy: LOGIN_REMEDY };
        web::fetch(|headers| self.get(&address, headers), &asker, wanted)
    }

    /// Asks for `address`, and logs in as often as the registry wants it anew: for this repository, for this action.
    fn get(&mut self, address: &str, headers: &[(header::HeaderName, String)]) -> Result<Response<Body>> {
        loop {
            let mut all = headers.to_vec();
            all.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
            let response = self.web.get(address, &all)?;
            // Whoever it was sent on to gets no login.
            let asked = response.status().as_u16() == 401 && !web::was_redirected(&response);
            if !asked || !self.log_in(response.headers())? {
                return Ok(response);
            }
        }
    }

    /// Does what the registry asks for, if that is something this host can do and has not done; answers whether it did.
    fn log_in(&mut self, headers: &HeaderMap) -> Result<bool> {
        let texts = headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut failed = None;
        for challenge in Challenge::parse(texts) {
            // A login that was refused is refused again.
            if self.answered.contains(&challenge) {
                continue;
            }
            self.answered.push(challenge.clone());
            let answer = match (challenge, &self.login) {
                (_, Some(RegistryLogin::Bearer(token))) => Some(format!("Bearer {token}")),
                (Challenge::Basic, Some(RegistryLogin::Basic { user, password })) => Some(basic(user, password)),
                (Challenge::Bearer { realm, service, scope }, _) => {
                    let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.name.repository));
                    match self.token(&realm, service.as_deref(), &scope) {
                        Ok(token) => Some(format!("Bearer {token}")),
                        // There may be another way.
                        Err(error) => {
                            failed.get_or_insert(error);
                            None
                        }
                    }
                }
                (Challenge::Basic, None) => None,
            };
            if let Some(answer) = answer.filter(|answer| self.authorization.as_ref() != Some(answer)) {
                self.authorization = Some(answer);
                return Ok(true);
            }
        }
        failed.map_or(Ok(false), Err)
    }

    /// A token from the service that the registry names: with the login, or for anybody without.
    fn token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String> {
        let secure = realm.starts_with("https://");
        if self.secure && !secure {
            let shown: String = realm.chars().filter(|character| !character.is_control()).take(200).collect();
            return Err(Error::denied(format!(
                "{} sends to {shown:?} for a login, which is no HTTPS address: nothing is sent there; ask whoever runs \
                 the registry",
                self.who()
            )));
        }
        let address = token_address(realm, service, scope);
        let headers: Vec<_> = match &self.login {
            Some(RegistryLogin::Basic { user, password }) => vec![(header::AUTHORIZATION, basic(user, password))],
            _ => Vec::new(),
        };
        // Its own agent: one for plain HTTP must not be used for HTTPS that may be sent on to plain HTTP.
        let web = Web::new(self.settings, secure, self.deadline, self.rules.clone())?;
        let response = web.get(&address, &headers)?;
        if response.status().as_u16() != 200 {
            let who = format!("the token service of the registry {}", self.name.registry);
            let what = format!("the repository {}{}", self.name.repository, self.with_whom());

            return Err(web::refusal(&Asker { who: &who, what: &what, login_remedy: LOGIN_REMEDY }, response).0);
        }
        let body =
            web::read_whole(response, &format!("the answer of the token service of {}", self.who()), MAX_TOKEN_BYTES)?;
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let usable = |token: &&str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let token = ["token", "access_token"].iter().find_map(|name| answer.get(name)?.as_str().filter(usable));
        token.map(str::to_owned).ok_or_else(|| {
            Error::invalid(format!("the token service of {} gave no token; ask whoever runs it", self.who()))
        })
    }

    fn refused(&self, what: &str, response: Response<Body>) -> Result<Answer> {
        let (who, what) = (self.who(), format!("{what}{}", self.with_whom()));
        let (error, after) = web::refusal(&Asker { who: &who, what: &what, login_remedy: LOGIN_REMEDY }, response);
        after.map_or(Err(error.clone()), |after| Ok(Answer::Later(error, after)))
    }

    fn who(&self) -> String {
        format!("the registry {}", self.name.registry)
    }

    fn with_whom(&self) -> String {
        match &self.login {
            Some(RegistryLogin::Basic { user, .. }) => format!(" with user {user:?}"),
            Some(RegistryLogin::Bearer(_)) => " with a token".to_owned(),
            None => " without a login".to_owned(),
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
