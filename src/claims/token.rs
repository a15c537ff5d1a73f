//! Tokens: JSON signed with Ed25519 (`protocol/claims.md §2`).
//!
//! A [`Token`] is text that was parsed; it proves nothing until [`Token::check`] has looked at its dates and signature.
//! The key that verifies it is the one it names itself, so even then it only proves that this issuer wrote it: whether
//! the issuer may is asked elsewhere ([`super::AllowedIssuers`]).

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use super::{
    body::Body,
    keys::{KeyPair, PublicKey},
    nuid,
    time::Now,
};
use crate::error::{Context, Error, Kind, Result};

/// Longest token that is read, bytes. Real ones stay below 2 KiB; only a provider's `config_schema` makes larger ones.
/// A longer token is refused before it is decoded.
pub const MAX_TOKEN_BYTES: usize = 256 * 1024;

/// The form of claims this program writes. From revision 3 on the module hash binds.
pub const WASCAP_REVISION: u32 = 3;

/// The header every writer of this protocol uses, byte for byte.
const HEADER: &[u8] = br#"{"typ":"jwt","alg":"Ed25519"}"#;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims<B> {
    /// Expired after this moment, seconds since 1970. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Identifier of the token.
    pub jti: String,
    /// When it was issued, seconds since 1970.
    pub iat: u64,
    /// Public key of the issuer, as the token writes it.
    pub iss: String,
    /// Public key of the subject (of an invocation: its id).
    pub sub: String,
    /// Not usable before this moment, seconds since 1970. Absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// What it says about the subject.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub wascap: Option<B>,
    /// Form of the claims; see [`WASCAP_REVISION`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wascap_revision: Option<u32>,
}

// `#[serde(default)]` on a generic field would demand `B: Default`.
fn none<B>() -> Option<B> {
    None
}

impl<B: Body> Claims<B> {
    /// Claims about `subject`, issued now, without an end. The issuer is filled in by [`Token::sign`].
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: the system gives no random numbers.
    pub fn new(subject: impl Into<String>, body: B, now: Now) -> Result<Self> {
        Ok(Self {
            exp: None,
            jti: nuid::next()?,
            iat: now.unix_seconds(),
            iss: String::new(),
            sub: subject.into(),
            nbf: None,
            wascap: Some(body),
            wascap_revision: Some(WASCAP_REVISION),
        })
    }

    /// The `wascap` object.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: the token has none.
    pub fn body(&self) -> Result<&B> {
        self.wascap
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("the {} token says nothing: it has no 'wascap' member", B::NOUN)))
    }

    /// The issuer's key; a damaged checksum is forgiven, as everywhere in the field.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: it is no key.
    pub fn issuer_key(&self) -> Result<PublicKey> {
        PublicKey::parse_lenient(&self.iss).map_err(|cause| cause.context("issuer"))
    }

    /// The subject's key, of the role this kind of token is about.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: it is no key, or one of another role.
    pub fn subject_key(&self) -> Result<PublicKey> {
        let key = PublicKey::parse_lenient(&self.sub).map_err(|cause| cause.context("subject"))?;
        match B::SUBJECT {
            Some(role) if role != key.role() => Err(Error::invalid(format!(
                "the subject {} is {} key; the {} token must be about {} key",
                self.sub,
                key.role().with_article(),
                B::NOUN,
                role.with_article()
            ))),
            _ => Ok(key),
        }
    }
}

/// A token: its text, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<B> {
    text: String,
    /// Length of the signed part: header, dot, payload.
    signed_bytes: usize,
    signature: [u8; PublicKey::SIGNATURE_BYTES],
    claims: Claims<B>,
}

impl<B: Body> Token<B> {
    /// Reads a token. Neither signature nor dates are looked at; surrounding white space is not part of a token.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the reason; [`Kind::Limit`] above [`MAX_TOKEN_BYTES`].
    pub fn parse(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Error::limit(format!(
                "the token has {} bytes; at most {MAX_TOKEN_BYTES} are read",
                text.len()
            )));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Error::invalid(format!(
                "invalid token format, expected 3 segments, found {}",
                text.split('.').count()
            )));
        };

        check_header(&decode("header", header)?)?;
        let claims: Claims<B> = serde_json::from_slice(&decode("payload", payload)?)
            .context(Kind::Invalid, format_args!("the payload of the {} token cannot be read", B::NOUN))?;
        if claims.iss.is_empty() {
            return Err(Error::invalid("Missing issuer"));
        }
        if claims.sub.is_empty() {
            return Err(Error::invalid("Missing subject"));
        }
        let signature = decode("signature", signature)?.try_into().map_err(|bytes: Vec<u8>| {
            Error::invalid(format!("the token's signature has {} bytes, not 64", bytes.len()))
        })?;
        let signed_bytes = header.len() + 1 + payload.len();
        Ok(Self { text, signed_bytes, signature, claims })
    }

    /// Writes and signs a token; `issuer` becomes its `iss`.
    ///
    /// # Errors
    /// [`Kind::Usage`]: a key of this role does not sign, or is not the subject of, this kind of token.
    pub fn sign(mut claims: Claims<B>, issuer: &KeyPair) -> Result<Self> {
        if !B::ISSUERS.contains(&issuer.role()) {
            let roles: Vec<&str> = B::ISSUERS.iter().map(|role| role.name()).collect();
            return Err(Error::usage(format!(
                "a {} token is signed by a key of role {}, not by the {} key {}",
                B::NOUN,
                roles.join(" or "),
                issuer.role(),
                issuer.public_key()
            )));
        }
        if B::SUBJECT.is_some() {
            claims.subject_key().map_err(|cause| Error::usage(cause.text()))?;
        }
        claims.iss = issuer.public_key().to_string();
        Self::sign_with(claims, |signed| issuer.sign(signed))
    }

    /// Writes a token whose `iss` is filled in, and signs it with `sign`.
    pub(super) fn sign_with(
        claims: Claims<B>,
        sign: impl FnOnce(&[u8]) -> [u8; PublicKey::SIGNATURE_BYTES],
    ) -> Result<Self> {
        let payload = serde_json::to_vec(&claims).context(Kind::Internal, "cannot write the token's payload")?;

        let mut text = BASE64URL_NOPAD.encode(HEADER);
        text.push('.');
        BASE64URL_NOPAD.encode_append(&payload, &mut text);
        let signed_bytes = text.len();
        let signature = sign(text.as_bytes());
        text.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut text);
        Ok(Self { text, signed_bytes, signature, claims })
    }

    /// What the token says.
    pub fn claims(&self) -> &Claims<B> {
        &self.claims
    }

    /// The token as it travels.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The token as it travels, the token itself given up.
    pub fn into_text(self) -> String {
        self.text
    }

    /// What was signed, and the signature.
    pub(super) fn signed_part(&self) -> (&[u8], &[u8; PublicKey::SIGNATURE_BYTES]) {
        (&self.text.as_bytes()[..self.signed_bytes], &self.signature)
    }

    /// Whether the issuer it names signed it.
    ///
    /// # Errors
    /// [`Kind::Invalid`]: the issuer is not a key.
    pub fn is_signed(&self) -> Result<bool> {
        let (signed, signature) = self.signed_part();
        Ok(self.claims.issuer_key()?.verify(signed, signature))
    }

    /// Looks at dates and signature in the order and with the texts of `protocol/claims.md §3.2`.
    ///
    /// # Errors
    /// [`Kind::Denied`]: expired, not usable yet, signature wrong; [`Kind::Invalid`]: the issuer is not a key.
    pub fn check(&self, now: Now) -> Result<()> {
        if now.is_past(self.claims.exp) {
            return Err(Error::denied("Claims token expired"));
        }
        if now.is_before(self.claims.nbf) {
            return Err(Error::denied("Claims token cannot be used yet"));
        }
        match self.is_signed() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::denied(format!("Invalid signature on {} token", B::NOUN))),
            Err(cause) => Err(cause.context("Failed to validate claims token")),
        }
    }
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    typ: String,
    #[serde(default)]
    alg: String,
}

fn check_header(header: &[u8]) -> Result<()> {
    if header == HEADER {
        return Ok(());
    }
    let header: Header = serde_json::from_slice(header).context(Kind::Invalid, "Invalid header")?;
    match (header.alg.as_str(), header.typ.as_str()) {
        ("Ed25519", "jwt") => Ok(()),
        ("Ed25519", _) => Err(Error::invalid("Invalid header")),
        _ => Err(Error::invalid("Invalid JWT algorithm")),
    }
}

fn decode(part: &str, text: &str) -> Result<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).context(Kind::Invalid, format_args!("the token's {part} is not base64url"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::claims::{Account, Actor, Cluster, Invocation, Operator, Provider, Role};

    fn actor_vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/actor_claims.json")).unwrap()
    }

    fn other_vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/other_claims.json")).unwrap()
    }

    fn text<'a>(vectors: &'a Value, path: &str) -> &'a str {
        vectors.pointer(path).unwrap_or_else(|| panic!("no {path}")).as_str().unwrap()
    }

    /// Reads a token, checks it, writes it again with the issuer's seed and compares every part.
    fn round_trip<B: Body + Clone>(jwt: &str, parts: &Value, seed: &str) -> Claims<B> {
        let token = Token::<B>::parse(jwt).unwrap();
        token.check(Now::Trusted(1_800_000_000)).unwrap();
        assert_eq!(token.claims().subject_key().is_ok(), B::SUBJECT.is_some());
        let written = Token::sign(token.claims().clone(), &KeyPair::from_seed(seed).unwrap()).unwrap();
        assert_eq!(written.text(), jwt);
        let decoded =
            |segment| String::from_utf8(decode("part", jwt.split('.').nth(segment).unwrap()).unwrap()).unwrap();
        assert_eq!(decoded(0), text(parts, "/header_json_text"));
        assert_eq!(decoded(1), text(parts, "/payload_json_text"));
        assert_eq!(&jwt[..token.signed_bytes], text(parts, "/signing_input"));
        assert_eq!(BASE64URL_NOPAD.encode(&token.signature), text(parts, "/signature_base64url"));
        written.claims().clone()
    }

    #[test]
    fn an_actor_token_reads_checks_and_writes_as_the_vectors_say() {
        let vectors = actor_vectors();
        let claims: Claims<Actor> =
            round_trip(text(&vectors, "/jwt"), &vectors["jwt_parts"], text(&vectors, "/account_seed"));
        assert_eq!(claims.iss, text(&vectors, "/account_public"));
        assert_eq!(claims.sub, text(&vectors, "/module_public"));
        assert_eq!(claims.body().unwrap().call_alias.as_deref(), Some("acme/echo_actor"));
        let now = Now::Trusted(1_800_000_000);
        assert_eq!(now.expires_human(claims.exp), text(&vectors, "/validation/expires_human"));
        assert_eq!(now.not_before_human(claims.nbf), text(&vectors, "/validation/not_before_human"));
    }

    #[test]
    fn every_other_kind_reads_checks_and_writes_as_the_vectors_say() {
        let vectors = other_vectors();
        let token = |kind: &str| vectors.pointer(&format!("/tokens/{kind}")).unwrap();
        let jwt = |kind: &str| token(kind)["jwt"].as_str().unwrap();
        let operator = text(&vectors, "/seeds/operator");
        round_trip::<Operator>(jwt("operator"), &token("operator")["parts"], operator);
        let account = round_trip::<Account>(jwt("account"), &token("account")["parts"], operator);
        assert_eq!(account.body().unwrap().valid_signers.as_ref().map(Vec::len), Some(1));
        let cluster = round_trip::<Cluster>(jwt("cluster"), &token("cluster")["parts"], operator);
        let seed = KeyPair::from_seed(text(&vectors, "/seeds/cluster")).unwrap();
        assert_eq!(cluster.sub, seed.public_key().to_string());
        let provider =
            round_trip::<Provider>(jwt("provider"), &token("provider")["parts"], text(&vectors, "/seeds/account"));
        assert_eq!(provider.body().unwrap().config_schema, Some(serde_json::json!({"type": "object"})));
        let seed = KeyPair::from_seed(text(&vectors, "/seeds/service")).unwrap();
        assert_eq!(provider.sub, seed.public_key().to_string());
        assert_eq!(vectors["tokens"].as_object().unwrap().len(), 4);
    }

    #[test]
    fn the_tokens_of_invocations_read_check_and_write_as_the_vectors_say() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/invocation.json")).unwrap();
        let invocations = vectors["invocations"].as_array().unwrap();
        assert!(!invocations.is_empty());
        for invocation in invocations {
            let claims: Claims<Invocation> =
                round_trip(text(invocation, "/jwt"), &invocation["jwt_parts"], text(&vectors, "/cluster_seed"));
            assert_eq!(claims.iss, text(&vectors, "/cluster_public"));
            let body = claims.body().unwrap();
            assert_eq!(body.target_url, text(invocation, "/target_url"));
            assert_eq!(body.origin_url, text(invocation, "/origin_url"));
            assert_eq!(body.hash, text(invocation, "/hash"));
        }
    }

    #[test]
    fn a_signature_by_another_key_is_found() {
        let vectors = actor_vectors();
        let token = Token::<Actor>::parse(text(&vectors, "/forged_issuer_signature/jwt")).unwrap();
        assert_eq!(
            token.is_signed().unwrap(),
            vectors["forged_issuer_signature"]["signature_valid"].as_bool().unwrap()
        );
        let refusal = token.check(Now::Trusted(1_800_000_000)).unwrap_err();
        assert_eq!(refusal.to_string(), "Invalid signature on module token");
    }

    fn dated(exp: Option<u64>, nbf: Option<u64>) -> Token<Actor> {
        let subject = KeyPair::from_name(Role::Module, "test").public_key().to_string();
        let mut claims = Claims::new(subject, Actor::default(), Now::Trusted(1_700_000_000)).unwrap();
        (claims.exp, claims.nbf) = (exp, nbf);
        Token::sign(claims, &KeyPair::from_name(Role::Account, "test")).unwrap()
    }

    #[test]
    fn dates_come_before_the_signature() {
        let vectors = actor_vectors();
        let now = Now::Trusted(1_800_000_000);
        let mut token = dated(vectors["expired"]["exp"].as_u64(), vectors["not_yet"]["nbf"].as_u64());
        assert!(token.is_signed().unwrap());
        token.signature[0] ^= 1;
        assert_eq!(token.check(now).unwrap_err().to_string(), "Claims token expired");
        token.claims.exp = None;
        assert_eq!(token.check(now).unwrap_err().to_string(), "Claims token cannot be used yet");
        token.claims.nbf = None;
        assert_eq!(token.check(now).unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn a_board_without_a_clock_runs_a_token_that_is_not_valid_yet() {
        assert!(dated(None, Some(9_999_999_999)).check(Now::judge(0, 0)).is_ok());
        assert!(dated(Some(1_600_000_000), None).check(Now::judge(0, 0)).is_err());
    }

    #[test]
    fn headers_are_checked() {
        let good = dated(None, None);
        let rest = good.text().split_once('.').unwrap().1;
        for (header, expected) in [
            (r#"{"alg":"none","typ":"jwt"}"#, "Invalid JWT algorithm"),
            (r#"{"typ":"jwt"}"#, "Invalid JWT algorithm"),
            (r#"{"alg":"Ed25519","typ":"jws"}"#, "Invalid header"),
            ("[", "Invalid header"),
        ] {
            let forged = format!("{}.{rest}", BASE64URL_NOPAD.encode(header.as_bytes()));
            let refusal = Token::<Actor>::parse(forged).unwrap_err();
            assert!(refusal.text().starts_with(expected), "{refusal}");
        }
        let spaced = BASE64URL_NOPAD.encode(br#"{ "alg": "Ed25519", "typ": "jwt", "kid": 1 }"#);
        let token = Token::<Actor>::parse(format!("{spaced}.{rest}")).unwrap();
        assert!(!token.is_signed().unwrap());
    }

    #[test]
    fn required_members_are_required_and_unknown_ones_ignored() {
        let parse = |payload: &str| {
            let body = BASE64URL_NOPAD.encode(payload.as_bytes());
            let signature = BASE64URL_NOPAD.encode(&[0; 64]);
            Token::<Actor>::parse(format!("{}.{body}.{signature}", BASE64URL_NOPAD.encode(HEADER)))
        };
        assert!(parse(r#"{"jti":"x","iat":1,"iss":"A","sub":"M","more":{"a":[]}}"#).unwrap().claims().body().is_err());
        for (payload, expected) in [
            (r#"{"iat":1,"iss":"A","sub":"M"}"#, "jti"),
            (r#"{"jti":"x","iss":"A","sub":"M"}"#, "iat"),
            (r#"{"jti":"x","iat":1,"iss":"","sub":"M"}"#, "Missing issuer"),
            (r#"{"jti":"x","iat":1,"iss":"A","sub":""}"#, "Missing subject"),
            (r#"{"jti":"x","iat":-1,"iss":"A","sub":"M"}"#, "iat"),
            (r#"{"jti":"x","iat":1,"iss":"A","sub":"M","wascap":{}}"#, "hash"),
        ] {
            let refusal = parse(payload).unwrap_err().to_string();
            assert!(refusal.contains(expected) || refusal.contains("invalid value"), "{refusal}");
        }
        assert!(Token::<Actor>::parse("a.b").unwrap_err().text().contains("found 2"));
        let long = Token::<Actor>::parse("a".repeat(MAX_TOKEN_BYTES + 1)).unwrap_err();
        assert_eq!(long.kind(), Kind::Limit);
    }

    #[test]
    fn only_the_right_roles_sign_and_are_signed_for() {
        let account = KeyPair::from_name(Role::Account, "a");
        let module = KeyPair::from_name(Role::Module, "m");
        let claims =
            |subject: &KeyPair| Claims::new(subject.public_key().to_string(), Actor::default(), Now::judge(0, 0));
        let refusal = Token::sign(claims(&module).unwrap(), &module).unwrap_err();
        assert!(refusal.text().contains("account"), "{refusal}");
        let refusal = Token::sign(claims(&account).unwrap(), &account).unwrap_err();
        assert!(refusal.text().contains("module key"), "{refusal}");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_says_why(text in "[A-Za-z0-9_.=-]{0,200}", junk in "\\PC{0,60}") {
            let _ = Token::<Actor>::parse(text);
            let _ = Token::<Provider>::parse(junk);
        }

        #[test]
        fn a_changed_character_is_never_accepted(at in 0usize..10_000, by in proptest::char::range('A', 'z')) {
            let token = dated(None, None);
            let at = at % token.text().len();
            let mut changed = token.text().to_string();
            changed.replace_range(at..=at, &by.to_string());
            if changed != token.text() {
                let accepted = Token::<Actor>::parse(changed).is_ok_and(|token| token.is_signed().unwrap_or(false));
                prop_assert!(!accepted);
            }
        }
    }
}
