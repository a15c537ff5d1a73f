//! Anti-forgery: the token that binds an invocation to a member of the cluster (`protocol/invocation.md §3–4`).
//!
//! Every call that arrives over the lattice is checked here before anything else looks at it, every call that leaves is
//! signed here. This is the one place where a signature costs something on the hot road, so it uses ring, which is linked for
//! TLS anyway: 28–33 µs to sign and 48–50 µs to check on x86_64 where ed25519-compact takes 81–98 µs and 64–73 µs.
//!
//! Beyond the reference host, each token counts once, for the invocation whose id it names, and for a short time
//! ([`MAX_AGE`]): senders of all three generations sign each invocation anew, with its id and the present time.
//!
//! It never decides what a caller may call: that is the router's.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

use data_encoding::HEXUPPER;
use ring::{
    digest::{Context, SHA256},
    signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey},
};

use super::{
    body,
    keys::{KeyPair, PublicKey, Role},
    seen::Seen,
    time::{Now, RELEASED_UNIX_SECONDS},
    token::{Claims, Token},
};
use crate::{
    error::{Error, Result},
    lock::Mutex,
    wire::{Invocation, text},
};

/// Cluster keys accepted besides our own at most. Real clusters have one or two; the list travels in every ping reply.
pub const MAX_ISSUERS: usize = 64;

/// Characters of every public key; a `host_id` of this length passes whatever it says.
const KEY_CHARS: usize = 56;

/// How far the moment at which an invocation was signed may be from this host's clock unless set otherwise. No client sets an
/// end (`exp`), so without it a recorded call could be sent again for ever. Five minutes is what clocks that are set over a
/// network keep with ease; a call is sent within seconds after it was signed.
pub const MAX_AGE: Duration = Duration::from_secs(300);

/// Signs and checks invocations for one host.
pub struct AntiForgery {
    key: KeyPair,
    public_key: String,
    signer: Ed25519KeyPair,
    issuers: BTreeSet<String>,
    max_age: Duration,
    /// Since when time is counted for `seen`.
    made: Instant,
    seen: Mutex<Seen>,
}

/// What is left to check of an invocation whose body is still in the object store.
#[derive(Debug)]
#[must_use = "a body that was stored is only as good as its hash"]
pub struct Checked {
    claimed_hash: String,
}

impl AntiForgery {
    /// Signs with `key` and accepts tokens of `issuers` and of `key` itself.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config): `key` is no cluster key, an issuer is none, or there are too many.
    pub fn new(key: KeyPair, issuers: impl IntoIterator<Item = String>) -> Result<Self> {
        if key.role() != Role::Cluster {
            return Err(Error::config(format!(
                "the cluster seed is a seed of role {}; invocations are signed by a cluster key (SC…)",
                key.role()
            )));
        }
        let public_key = key.public_key().to_string();
        let mut issuers: BTreeSet<String> = issuers.into_iter().filter(|issuer| !issuer.is_empty()).collect();
        for issuer in &issuers {
            match PublicKey::parse_lenient(issuer) {
                Ok(key) if key.role() == Role::Cluster => {}
                Ok(key) => {
                    return Err(Error::config(format!(
                        "the cluster issuer {issuer} is a key of role {}; only cluster keys (C…) issue invocations",
                        key.role()
                    )));
                }
                Err(cause) => return Err(Error::config(cause.context("cluster issuers").text())),
            }
        }
        issuers.insert(public_key.clone());
        if issuers.len() > MAX_ISSUERS {
            return Err(Error::config(format!(
                "{} cluster issuers are configured, at most {MAX_ISSUERS} are taken",
                issuers.len()
            )));
        }
        let signer = Ed25519KeyPair::from_seed_unchecked(&*key.raw_seed());
        let signer = signer.map_err(|cause| Error::internal(format!("the cluster key cannot sign: {cause}")))?;
        Ok(Self {
            key,
            public_key,
            signer,
            issuers,
            max_age: MAX_AGE,
            made: Instant::now(),
            seen: Mutex::new(Seen::new()),
        })
    }

    /// Accepts tokens that were signed up to `max_age` before or after the present; zero accepts any age.
    #[must_use]
    pub fn with_max_age(self, max_age: Duration) -> Self {
        Self { max_age, ..self }
    }

    /// Our cluster key, `C…`.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The key itself; providers are handed its seed.
    pub fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Every cluster key whose tokens are accepted, our own included, in order.
    pub fn issuers(&self) -> impl Iterator<Item = &str> {
        self.issuers.iter().map(String::as_str)
    }

    /// The token for `invocation` with the body `body`, which may be in the object store instead of the message.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind::Unavailable): the system gives no random numbers.
    pub fn sign(&self, invocation: &Invocation<'_>, body: &[u8], now: Now) -> Result<String> {
        let (origin_url, target_url) = (invocation.origin_url(), invocation.target_url());
        let hash = hash(&origin_url, &target_url, &invocation.operation, body);
        let body = body::Invocation { target_url, origin_url, hash };
        let mut claims = Claims::new(invocation.id.as_str(), body, now)?;
        claims.iss.clone_from(&self.public_key);
        let token = Token::sign_with(claims, |signed| {
            let mut signature = [0; PublicKey::SIGNATURE_BYTES];
            signature.copy_from_slice(self.signer.sign(signed).as_ref());
            signature
        })?;
        Ok(token.into_text())
    }

    /// Checks the token of `invocation`, in the order and with the texts of `protocol/invocation.md §4.1`, then that it
    /// belongs to this invocation, is recent, and was not accepted before.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied), `Anti-forgery check failed: …`.
    pub fn check(&self, invocation: &Invocation<'_>, now: Now) -> Result<Checked> {
        Ok(self.find_forgery(invocation, now)?)
    }

    /// As [`AntiForgery::check`], for who says it in other words.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn find_forgery(&self, invocation: &Invocation<'_>, now: Now) -> Result<Checked, Forgery> {
        let token = Token::<body::Invocation>::parse(invocation.encoded_claims.as_str())
            .map_err(|cause| cause.text().to_owned())?;
        let claims = token.claims();
        if now.is_past(claims.exp) {
            return Err("Invocation claims token expired".into());
        }
        if !is_signed(&token) {
            return Err("Invocation claims signature invalid".into());
        }
        if now.is_before(claims.nbf) {
            return Err("Attempt to use invocation before claims token allows".into());
        }
        let Some(wascap) = &claims.wascap else {
            return Err("No wascap metadata found on claims".into());
        };
        let (origin_url, target_url) = (invocation.origin_url(), invocation.target_url());
        // The hash of a stored body is checked once it is fetched. Any other body is in the message, an empty one too.
        if !invocation.is_stored() {
            let computed = hash(&origin_url, &target_url, &invocation.operation, &invocation.msg);
            check_hash(&wascap.hash, &computed)?;
        }
        let host_id = &invocation.host_id;
        if !host_id.starts_with('N') && host_id.len() != KEY_CHARS {
            return Err(format!("Invalid host ID on invocation: '{}'", shown(host_id)).into());
        }
        if !self.issuers.contains(&claims.iss) {
            return Err(Forgery::UnknownIssuer);
        }
        if wascap.target_url != target_url {
            return Err("Invocation claims and invocation target URL do not match".into());
        }
        if wascap.origin_url != origin_url {
            return Err("Invocation claims and invocation origin URL do not match".into());
        }
        if claims.sub != invocation.id {
            return Err("Invocation claims and invocation id do not match".into());
        }
        self.find_staleness(claims.iat, now)?;
        let mut seen = self.seen.lock();
        if !seen.note(token.signed_part().0, self.made.elapsed(), 2 * self.max_age) {
            return Err("This invocation was received before".into());
        }
        Ok(Checked { claimed_hash: wascap.hash.clone() })
    }
    /// Whether a token that was signed at `issued` is too old, or from the future.
    fn find_staleness(&self, issued: u64, now: Now) -> Result<(), String> {
        // A clock that is known to be wrong judges nobody. A sender whose clock is known to be wrong, because it reads less
        // than the release of this program, is not punished for its empty battery: its calls still count once.
        let most = self.max_age.as_secs();
        if most > 0 && issued == 0 {
            return Err("Invocation claims do not say when they were issued".into());
        }
        let Now::Trusted(now) = now else { return Ok(()) };
        if most == 0 || issued < RELEASED_UNIX_SECONDS || now.abs_diff(issued) <= most {
            return Ok(());
        }
        let (distance, side) = (now.abs_diff(issued), if issued < now { "behind" } else { "ahead of" });
        Err(format!(
            "Invocation was signed {distance} seconds {side} this host's clock, and {most} are allowed: set the clocks of both \
             machines, or WASMCLOUD_INVOCATION_MAX_AGE_MS on this host"
        ))
    }
}

impl Checked {
    /// Checks a body that came out of the object store. Other hosts leave it out; every sender signs it.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::error::Kind::Denied), `Anti-forgery check failed: …`.
    pub fn check_stored_body(&self, invocation: &Invocation<'_>, body: &[u8]) -> Result<()> {
        Ok(self.find_forgery(invocation, body)?)
    }

    /// As [`Checked::check_stored_body`], for who says it in other words.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn find_forgery(&self, invocation: &Invocation<'_>, body: &[u8]) -> Result<(), Forgery> {
        let computed = hash(&invocation.origin_url(), &invocation.target_url(), &invocation.operation, body);
        Ok(check_hash(&self.claimed_hash, &computed)?)
    }
}

impl fmt::Debug for AntiForgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AntiForgery").field("public_key", &self.public_key).field("issuers", &self.issuers).finish()
    }
}

/// Why an invocation is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgery {
    /// Its issuer is none of ours. Hosts and providers say this in different words.
    UnknownIssuer,
    /// Anything else, in the words of both.
    Other(String),
}

impl Forgery {
    /// The refusal in the words of the provider SDKs, which leave the beginning away and name one thing otherwise.
    pub fn as_provider_says(self) -> Error {
        Error::denied(match self {
            Self::UnknownIssuer => "Issuer of this invocation is not in list of cluster issuers".to_owned(),
            Self::Other(reason) => reason,
        })
    }
}

impl From<String> for Forgery {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl From<&str> for Forgery {
    fn from(reason: &str) -> Self {
        Self::Other(reason.to_owned())
    }
}

impl From<Forgery> for Error {
    /// The refusal in the words of hosts.
    fn from(forgery: Forgery) -> Self {
        let reason = match forgery {
            Forgery::UnknownIssuer => "Issuer of this invocation is not among the list of valid issuers".to_owned(),
            Forgery::Other(reason) => reason,
        };
        Self::denied(format!("Anti-forgery check failed: {reason}"))
    }
}

/// Whether the issuer the token names signed it.
fn is_signed(token: &Token<body::Invocation>) -> bool {
    let Ok(issuer) = token.claims().issuer_key() else {
        return false;
    };
    let (signed, signature) = token.signed_part();
    UnparsedPublicKey::new(&ED25519, issuer.as_bytes()).verify(signed, signature).is_ok()
}

fn check_hash(claimed: &str, computed: &str) -> Result<(), String> {
    if claimed == computed {
        return Ok(());
    }
    Err(format!("Invocation hash does not match signed claims hash ({} / {computed})", shown(claimed)))
}

/// Upper-case hex SHA-256 of the parts, without separators.
fn hash(origin_url: &str, target_url: &str, operation: &str, body: &[u8]) -> String {
    let mut hash = Context::new(&SHA256);
    for part in [origin_url.as_bytes(), target_url.as_bytes(), operation.as_bytes(), body] {
        hash.update(part);
    }
    HEXUPPER.encode(hash.finish().as_ref())
}

/// The beginning of a text from outside, so that a refusal is never longer than what it refuses deserves.
fn shown(text: &str) -> &str {
    text::prefix(text, 2 * KEY_CHARS)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::wire::Entity;

    const NOW: Now = Now::Trusted(1_800_000_000);

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/invocation.json")).unwrap()
    }

    fn cluster() -> AntiForgery {
        let key = KeyPair::from_seed(vectors()["cluster_seed"].as_str().unwrap()).unwrap();
        AntiForgery::new(key, []).unwrap()
    }

    fn invocation(body: &'static [u8]) -> Invocation<'static> {
        let mut invocation = Invocation {
            origin: Entity::provider("V1", "wasmcloud:httpserver", "default"),
            target: Entity::actor("M1"),
            operation: "HttpServer.HandleRequest".into(),
            msg: Cow::Borrowed(body),
            id: "1".into(),
            host_id: format!("N{}", "A".repeat(55)),
            content_length: Some(body.len() as u64),
            ..Invocation::default()
        };
        invocation.encoded_claims = cluster().sign(&invocation, body, NOW).unwrap();
        invocation
    }

    /// `invocation` with a token whose claims were changed and signed again by the cluster.
    fn resigned(
        mut invocation: Invocation<'static>,
        change: impl FnOnce(&mut Claims<body::Invocation>),
    ) -> Invocation<'static> {
        let mut claims = Token::<body::Invocation>::parse(invocation.encoded_claims.as_str()).unwrap().claims().clone();
        change(&mut claims);
        let cluster = cluster();
        invocation.encoded_claims =
            Token::sign_with(claims, |signed| cluster.key.sign(signed)).unwrap().text().to_owned();
        invocation
    }

    fn refusal(invocation: &Invocation<'_>) -> String {
        let error = cluster().check(invocation, NOW).unwrap_err();
        error.text().strip_prefix("Anti-forgery check failed: ").unwrap().to_owned()
    }

    #[test]
    fn every_recorded_invocation_passes_and_its_token_is_made_again_byte_for_byte() {
        for case in vectors()["invocations"].as_array().unwrap() {
            let bytes = HEXLOWER.decode(case["msgpack_hex"].as_str().unwrap().as_bytes()).unwrap();
            let invocation = Invocation::decode(&bytes).unwrap();
            let checked = cluster().check(&invocation, NOW).unwrap();
            let stored = vec![0x61; 1_000_000];
            let body: &[u8] = if invocation.is_stored() { &stored } else { &invocation.msg };
            checked.check_stored_body(&invocation, body).unwrap();
            assert!(checked.check_stored_body(&invocation, b"another").is_err());

            let claims = Token::<body::Invocation>::parse(case["jwt"].as_str().unwrap()).unwrap().claims().clone();
            let cluster = cluster();
            let again = Token::sign_with(claims, |signed| cluster.signer.sign(signed).as_ref().try_into().unwrap());
            assert_eq!(again.unwrap().text(), case["jwt"], "{}", case["name"]);
        }
    }

    #[test]
    fn a_call_signed_here_is_accepted_here_and_by_the_other_implementation() {
        for body in [&b"payload"[..], b""] {
            let invocation = invocation(body);
            cluster().check(&invocation, NOW).unwrap().check_stored_body(&invocation, body).unwrap();
            let token = Token::<body::Invocation>::parse(invocation.encoded_claims.as_str()).unwrap();
            assert!(token.is_signed().unwrap());
            assert_eq!((token.claims().sub.as_str(), token.claims().iat), ("1", 1_800_000_000));
        }
    }

    #[test]
    fn each_refusal_has_its_text() {
        let mut bad = invocation(b"x");
        bad.encoded_claims = "a.b".into();
        assert_eq!(refusal(&bad), "invalid token format, expected 3 segments, found 2");

        let expired = resigned(invocation(b"x"), |claims| claims.exp = Some(1));
        assert_eq!(refusal(&expired), "Invocation claims token expired");

        let mut forged = invocation(b"x");
        let at = forged.encoded_claims.rfind('.').unwrap();
        forged.encoded_claims.replace_range(at + 1.., &BASE64URL_NOPAD.encode(&[1; 64]));
        assert_eq!(refusal(&forged), "Invocation claims signature invalid");
        let no_key = resigned(invocation(b"x"), |claims| claims.iss = "nobody".into());
        assert_eq!(refusal(&no_key), "Invocation claims signature invalid");

        let early = resigned(invocation(b"x"), |claims| claims.nbf = Some(u64::MAX));
        assert_eq!(refusal(&early), "Attempt to use invocation before claims token allows");

        let silent = resigned(invocation(b"x"), |claims| claims.wascap = None);
        assert_eq!(refusal(&silent), "No wascap metadata found on claims");

        let mut changed = invocation(b"x");
        let claimed = Token::<body::Invocation>::parse(changed.encoded_claims.as_str()).unwrap();
        changed.msg = Cow::Borrowed(b"y");
        let computed = hash(&changed.origin_url(), &changed.target_url(), &changed.operation, b"y");
        let wanted = format!(
            "Invocation hash does not match signed claims hash ({} / {computed})",
            claimed.claims().wascap.as_ref().unwrap().hash
        );
        assert_eq!(refusal(&changed), wanted);

        let mut nowhere = invocation(b"x");
        nowhere.host_id = "garbage".into();
        assert_eq!(refusal(&nowhere), "Invalid host ID on invocation: 'garbage'");

        // The hash of a stored body is looked at later, so the URLs decide.
        let stored = || Invocation { content_length: Some(1), ..invocation(b"") };
        let mut elsewhere = stored();
        elsewhere.target = Entity::actor("M2");
        assert_eq!(refusal(&elsewhere), "Invocation claims and invocation target URL do not match");
        let mut other_operation = stored();
        other_operation.operation = "Other.Operation".into();
        assert_eq!(refusal(&other_operation), "Invocation claims and invocation target URL do not match");
        let mut somebody = stored();
        somebody.origin = Entity::actor("M3");
        assert_eq!(refusal(&somebody), "Invocation claims and invocation origin URL do not match");
    }

    #[test]
    fn only_listed_clusters_are_believed() {
        let stranger = KeyPair::from_name(Role::Cluster, "stranger");
        let other = AntiForgery::new(stranger.clone(), []).unwrap();
        let mut invocation = invocation(b"x");
        invocation.encoded_claims = other.sign(&invocation, b"x", NOW).unwrap();
        assert_eq!(refusal(&invocation), "Issuer of this invocation is not among the list of valid issuers");
        let key = KeyPair::from_seed(vectors()["cluster_seed"].as_str().unwrap()).unwrap();
        let friendly = AntiForgery::new(key, [stranger.public_key().to_string(), String::new()]).unwrap();
        friendly.check(&invocation, NOW).unwrap().check_stored_body(&invocation, b"x").unwrap();
        assert_eq!(friendly.issuers().count(), 2);
    }

    #[test]
    fn the_host_id_of_wash_and_of_the_elixir_host_pass() {
        for host_id in ["NwashHostCallerId000000000000000000000000000000000000000", cluster().public_key()] {
            let mut invocation = invocation(b"x");
            invocation.host_id = host_id.to_owned();
            let _ = cluster().check(&invocation, NOW).unwrap();
        }
    }

    #[test]
    fn only_cluster_keys_sign_and_issue() {
        assert!(AntiForgery::new(KeyPair::from_name(Role::Account, "a"), []).is_err());
        let key = || KeyPair::from_name(Role::Cluster, "c");
        let account = KeyPair::from_name(Role::Account, "a").public_key().to_string();
        assert!(AntiForgery::new(key(), [account]).unwrap_err().text().contains("account"));
        assert!(AntiForgery::new(key(), ["C1".to_owned()]).is_err());
        let many =
            (0..MAX_ISSUERS).map(|one| KeyPair::from_name(Role::Cluster, &one.to_string()).public_key().to_string());
        assert!(AntiForgery::new(key(), many).unwrap_err().text().contains("at most"));
        let secret = key().seed().expose().to_owned();
        assert!(!format!("{:?}", AntiForgery::new(key(), []).unwrap()).contains(&secret));
    }

    #[test]
    fn a_token_is_good_for_one_body_whatever_its_length() {
        let mut emptied = invocation(b"x");
        emptied.msg = Cow::Borrowed(b"");
        for content_length in [None, Some(0)] {
            emptied.content_length = content_length;
            assert!(refusal(&emptied).starts_with("Invocation hash does not match signed claims hash"));
        }
        let mut filled = invocation(b"");
        filled.msg = Cow::Borrowed(b"x");
        assert!(refusal(&filled).starts_with("Invocation hash does not match signed claims hash"));
        // A sender that keeps the body out of the message is checked when the body was fetched.
        emptied.content_length = Some(1);
        let checked = cluster().check(&emptied, NOW).unwrap();
        assert!(checked.check_stored_body(&emptied, b"y").is_err());
        checked.check_stored_body(&emptied, b"x").unwrap();
    }

    #[test]
    fn a_token_is_good_for_one_invocation_once() {
        let cluster = cluster();
        let first = invocation(b"x");
        let _ = cluster.check(&first, NOW).unwrap();
        let again = cluster.check(&first, NOW).unwrap_err();
        assert_eq!(again.text(), "Anti-forgery check failed: This invocation was received before");
        let _ = cluster.check(&invocation(b"x"), NOW).unwrap();
        let mut renamed = invocation(b"x");
        renamed.id = "2".into();
        assert_eq!(refusal(&renamed), "Invocation claims and invocation id do not match");
        // What is refused is not noted: the right call that comes later passes.
        let right = invocation(b"x");
        let mut wrong = right.clone();
        wrong.msg = Cow::Borrowed(b"y");
        assert!(cluster.check(&wrong, NOW).is_err());
        let _ = cluster.check(&right, NOW).unwrap();
    }

    #[test]
    fn a_token_is_good_for_a_short_time() {
        let Now::Trusted(now) = NOW else { panic!("the clock of these tests is right") };
        let signed = |iat| resigned(invocation(b"x"), |claims| claims.iat = iat);
        let most = MAX_AGE.as_secs();
        for iat in [now, now - most, now + most, RELEASED_UNIX_SECONDS - 1, 1] {
            let _ = cluster().check(&signed(iat), NOW).unwrap();
        }
        for (iat, side) in [(now - most - 1, "behind"), (now + most + 1, "ahead of"), (RELEASED_UNIX_SECONDS, "behind")]
        {
            let refusal = refusal(&signed(iat));
            assert!(refusal.contains(side) && refusal.contains("WASMCLOUD_INVOCATION_MAX_AGE_MS"), "{refusal}");
        }
        assert_eq!(refusal(&signed(0)), "Invocation claims do not say when they were issued");
        // Our own clock may be the wrong one.
        let _ = cluster().check(&signed(now), Now::judge(0, 0)).unwrap();
        let lenient = cluster().with_max_age(Duration::ZERO);
        let _ = lenient.check(&signed(0), NOW).unwrap();
        let _ = lenient.check(&signed(now - 1_000_000), NOW).unwrap();
    }

    proptest! {
        #[test]
        fn no_token_panics(token in "\\PC{0,200}", host_id in "\\PC{0,200}") {
            let mut invocation = invocation(b"x");
            invocation.encoded_claims = token;
            invocation.host_id = host_id;
            prop_assert!(cluster().check(&invocation, NOW).is_err());
        }
    }
}
