//! NATS logins for providers, made here when the operator gives an account's signing seed: each start of a provider gets a
//! user of its own, who may say and hear what that provider needs and nothing else, for a while.
//!
//! The tokens are NATS's own (JWT of version 2, `ed25519-nkey`): the server needs nothing but the account to judge them. Pure
//! but for the random key of the user.
//!
//! # What a user may do
//! * Hear its calls, links, probes and shutdown, and answer whoever asked, once.
//! * Call actors, unless its contract is one that only ever answers.
//! * Use the lattice's object store, where long bodies travel.
//! * Hear `_INBOX.>`: provider SDKs choose their inbox themselves, so it cannot be narrower. A host that makes logins keeps
//!   its own inbox elsewhere ([`inbox_prefix`]), so that answers to hosts stay unheard.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::{
    claims::{KeyPair, Now, Role},
    error::{Context, Error, Kind, Result},
    wire::subject::{ProviderTopic, Subjects},
};

/// How long a login holds unless set otherwise. A provider reads it once, at its start, so it is started anew before the end:
/// half a day makes that rare, and a login that leaked is worth little the day after.
pub const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Shortest lifetime that can be set. The eighth of it that is left at the renewal is what a provider has to end in order;
/// with less the server would cut it off on the way.
pub const LEAST_LIFETIME: Duration = Duration::from_secs(20);

/// The provider is started anew when this part of the lifetime is left, one in this many.
const RENEWED_AT_LAST: u32 = 8;

/// How long after a request its answer may be said. Calls have deadlines far below; this bounds the server's memory of them.
const ANSWER_TIME: Duration = Duration::from_secs(300);

/// Contracts whose providers only answer: they need not call anybody.
const ANSWERING: [&str; 7] = [
    "wasmcloud:keyvalue",
    "wasmcloud:blobstore",
    "wasmcloud:sqldb",
    "wasmcloud:httpclient",
    "wasmcloud:lattice-control",
    "wasmcloud:builtin:logging",
    "wasmcloud:builtin:numbergen",
];

/// Who signs logins, and for how long they hold.
#[derive(Clone)]
pub struct Minting {
    /// An account's key, or a signing key of it.
    pub signer: KeyPair,
    /// The account, where the key is a signing key.
    pub account: Option<String>,
    /// How long a login holds.
    pub lifetime: Duration,
}

/// A login.
pub struct Credentials {
    /// The user's token.
    pub jwt: String,
    /// The user's seed.
    pub seed: String,
}

impl Minting {
    /// A login for one process of a provider.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: the clock cannot be right, or the system gives no random numbers.
    pub fn mint(&self, subjects: &Subjects, provider: &Described<'_>, now: Now) -> Result<Credentials> {
        let Now::Trusted(now) = now else {
            return Err(Error::unavailable(
                "this board's clock is wrong, so a NATS login for the provider would be dated wrong; set the clock",
            ));
        };
        let user = KeyPair::generate(Role::User)?;
        let mut nats = permissions(subjects, provider);
        if let Some(account) = &self.account {
            nats["issuer_account"] = account.as_str().into();
        }
        let claims = json!({
            "jti": provider.instance_id,
            "iat": now,
            "exp": now + self.lifetime.as_secs(),
            "iss": self.signer.public_key().to_string(),
            "name": format!("{}/{}", provider.public_key, provider.link_name),
            "sub": user.public_key().to_string(),
            "nats": nats,
        });
        Ok(Credentials { jwt: sign(&claims, &self.signer)?, seed: user.seed().expose().to_owned() })
    }

    /// Time from a start to the next one.
    pub fn renewal(&self) -> Duration {
        self.lifetime - self.lifetime / RENEWED_AT_LAST
    }
}

/// Who a login is for.
pub struct Described<'a> {
    /// `V…`.
    pub public_key: &'a str,
    /// Link name it serves.
    pub link_name: &'a str,
    /// Contract it serves.
    pub contract_id: &'a str,
    /// Name of its process.
    pub instance_id: &'a str,
}

fn permissions(subjects: &Subjects, provider: &Described<'_>) -> Value {
    let lattice = subjects.lattice();
    let stream = format!("OBJ_{lattice}");
    let mut say: Vec<String> = vec![
        // Long bodies (`protocol/invocation.md §6`): the object store, and what reading and writing it asks of JetStream.
        format!("$O.{lattice}.>"),
        "$JS.API.INFO".into(),
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.STREAM.CREATE.{stream}"),
        format!("$JS.API.STREAM.PURGE.{stream}"),
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
        format!("$JS.API.STREAM.MSG.DELETE.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.>"),
        format!("$JS.API.CONSUMER.CREATE.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
        format!("$JS.API.CONSUMER.INFO.{stream}.*"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
        format!("$JS.ACK.{stream}.>"),
        format!("$JS.FC.{stream}.>"),
    ];
    if !ANSWERING.contains(&provider.contract_id) {
        // One token: actors. Providers are a token deeper.
        say.push(subjects.actor("*"));
    }
    let (key, link_name) = (provider.public_key, provider.link_name);
    let mut hear = vec![subjects.provider(key, link_name), "_INBOX.>".to_owned()];
    hear.extend(
        // Some SDKs hear both topics of links by one subscription, which needs a permission that covers it as a whole.
        [
            ProviderTopic::Links,
            ProviderTopic::LinkPut,
            ProviderTopic::LinkDelete,
            ProviderTopic::Health,
            ProviderTopic::Shutdown,
        ]
        .map(|topic| subjects.provider_topic(key, link_name, topic)),
    );
    json!({
        "pub": { "allow": say },
        "sub": { "allow": hear },
        "resp": { "max": 1, "ttl": ANSWER_TIME.as_nanos() as u64 },
        "subs": -1,
        "data": -1,
        "payload": -1,
        "type": "user",
        "version": 2,
    })
}

/// Where a host that makes logins hears the answers to its own requests: not under `_INBOX`, which every provider hears.
pub fn inbox_prefix(host_id: &str) -> String {
    format!("_LATTICED.{host_id}")
}

/// A NATS token that says `claims`, signed by `signer`.
///
/// # Errors
/// [`Kind::Internal`]: the claims cannot be written.
pub fn sign(claims: &Value, signer: &KeyPair) -> Result<String> {
    let claims = serde_json::to_vec(claims).context(Kind::Internal, "cannot write a NATS token")?;
    let mut text = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    text.push('.');
    BASE64URL_NOPAD.encode_append(&claims, &mut text);
    let signature = signer.sign(text.as_bytes());
    text.push('.');
    BASE64URL_NOPAD.encode_append(&signature, &mut text);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted(contract_id: &str, account: Option<String>) -> (Value, KeyPair, Credentials) {
        let signer = KeyPair::from_name(Role::Account, "minting");
        let minting = Minting { signer: signer.clone(), account, lifetime: Duration::from_secs(3600) };
        let subjects = Subjects::new("wasmbus.ctl", "default").unwrap();
        let provider = Described { public_key: "V1", link_name: "a", contract_id, instance_id: "i" };
        let credentials = minting.mint(&subjects, &provider, Now::Trusted(1_900_000_000)).unwrap();
        let payload = credentials.jwt.split('.').nth(1).unwrap();
        let claims = serde_json::from_slice(&BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap()).unwrap();
        (claims, signer, credentials)
    }

    #[test]
    fn a_login_names_its_user_and_ends_and_is_signed() {
        let (claims, signer, credentials) = minted("wasmcloud:keyvalue", Some("ACCOUNT".into()));
        let user = KeyPair::from_seed(&credentials.seed).unwrap();
        assert_eq!(claims["sub"], user.public_key().to_string());
        assert_eq!(claims["iss"], signer.public_key().to_string());
        assert_eq!((&claims["exp"], &claims["nats"]["issuer_account"]), (&json!(1_900_003_600_u64), &json!("ACCOUNT")));
        let (signed, signature) = credentials.jwt.rsplit_once('.').unwrap();
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        assert!(signer.public_key().verify(signed.as_bytes(), &signature));
        let (_, _, again) = minted("wasmcloud:keyvalue", None);
        assert_ne!(again.seed, credentials.seed, "each start has a user of its own");
    }

    #[test]
    fn only_who_may_call_actors_can() {
        let may_call = |contract: &str| {
            let (claims, ..) = minted(contract, None);
            claims["nats"]["pub"]["allow"].as_array().unwrap().contains(&json!("wasmbus.rpc.default.*"))
        };
        assert!(may_call("wasmcloud:httpserver") && may_call("acme:unknown") && !may_call("wasmcloud:keyvalue"));
    }

    #[test]
    fn a_wrong_clock_dates_nothing() {
        let signer = KeyPair::from_name(Role::Account, "minting");
        let minting = Minting { signer, account: None, lifetime: LIFETIME };
        let subjects = Subjects::new("wasmbus.ctl", "default").unwrap();
        let provider = Described { public_key: "V1", link_name: "a", contract_id: "c", instance_id: "i" };
        let refused = minting.mint(&subjects, &provider, Now::judge(0, 0)).err().expect("no clock");
        assert_eq!(refused.kind(), Kind::Unavailable);
        assert!(minting.renewal() < LIFETIME && minting.renewal() > LIFETIME / 2);
    }
}
