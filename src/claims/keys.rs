//! nkeys: Ed25519 keys with a role (`protocol/claims.md §1`).
//!
//! Used wherever an entity is named, signs or is verified. A [`KeyPair`] never shows its seed except through
//! [`KeyPair::seed`]. Its clones share one place in memory, which is overwritten when the last of them is dropped.

use std::{fmt, str::FromStr, sync::Arc};

use ed25519_compact as ed25519;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::{nkey, resident};
use crate::error::{Error, Result};

/// How deep below its caller [`wipe_stack`] overwrites, bytes: a little more than the reading of the configuration uses, which
/// was seen to reach 122 KiB without optimisation. Less would leave seeds there; more costs as much memory.
const WIPED_STACK_BYTES: usize = 160 << 10;

/// What a key stands for; the first letter of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `N`: a host (a server, in the field's older words).
    Server,
    /// `C`: hosts that trust each other's invocations.
    Cluster,
    /// `O`: signs accounts.
    Operator,
    /// `A`: signs actors and providers.
    Account,
    /// `U`: logs in to NATS.
    User,
    /// `M`: an actor.
    Module,
    /// `V`: a provider.
    Service,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 7] =
        [Role::Server, Role::Cluster, Role::Operator, Role::Account, Role::User, Role::Module, Role::Service];

    /// First letter of the role's public keys, second of its seeds.
    pub fn letter(self) -> char {
        match self {
            Role::Server => 'N',
            Role::Cluster => 'C',
            Role::Operator => 'O',
            Role::Account => 'A',
            Role::User => 'U',
            Role::Module => 'M',
            Role::Service => 'V',
        }
    }

    /// The role's name: `server`, `cluster`, `operator`, `account`, `user`, `module`, `service`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Cluster => "cluster",
            Role::Operator => "operator",
            Role::Account => "account",
            Role::User => "user",
            Role::Module => "module",
            Role::Service => "service",
        }
    }

    /// The name with its article: `an account`.
    pub fn with_article(self) -> &'static str {
        match self {
            Role::Server => "a server",
            Role::Cluster => "a cluster",
            Role::Operator => "an operator",
            Role::Account => "an account",
            Role::User => "a user",
            Role::Module => "a module",
            Role::Service => "a service",
        }
    }

    fn prefix(self) -> u8 {
        (self.letter() as u8 - b'A') << 3
    }

    fn from_prefix(prefix: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.prefix() == prefix)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Accepts the names of [`Role::name`], the words people use for them (`host`, `actor`, `provider`) and the letter.
impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word = text.to_ascii_lowercase();
        let role = match word.as_str() {
            "host" => Some(Role::Server),
            "actor" => Some(Role::Module),
            "provider" => Some(Role::Service),
            _ => Self::ALL
                .into_iter()
                .find(|role| role.name() == word || (text.len() == 1 && text.starts_with(role.letter()))),
        };
        role.ok_or_else(|| {
            Error::usage(format!(
                "there is no key role '{text}'; use one of host, cluster, operator, account, user, module, service"
            ))
        })
    }
}

/// A public key and what it stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    role: Role,
    bytes: [u8; nkey::KEY_BYTES],
}

impl PublicKey {
    /// Bytes of a signature.
    pub const SIGNATURE_BYTES: usize = 64;

    /// What the key stands for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The Ed25519 key itself.
    pub fn as_bytes(&self) -> &[u8; nkey::KEY_BYTES] {
        &self.bytes
    }

    /// Reads a key that a peer sent: as [`FromStr`], but a damaged checksum is forgiven, because the peers neither check
    /// nor always keep it (`protocol/claims.md §1`, trap). Two texts may then mean one key; compare keys, not texts.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), with what is wrong.
    pub fn parse_lenient(text: &str) -> Result<Self> {
        Self::parse(text).map(|(key, _)| key)
    }

    /// Whether `signature` is this key's signature of `message`.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        ed25519::Signature::from_slice(signature)
            .is_ok_and(|signature| ed25519::PublicKey::new(self.bytes).verify(message, &signature).is_ok())
    }

    fn parse(text: &str) -> Result<(Self, bool)> {
        let named = |flaw: nkey::Flaw| {
            // A seed may have been given in place of a key: name only what cannot be one.
            let shown = if text.starts_with('S') || text.len() > nkey::PUBLIC_CHARS { "the text given" } else { text };
            Error::invalid(format!("'{}' is not a public key: it {}", shown.escape_debug(), flaw.0))
        };
        let (prefix, bytes, sealed) = nkey::decode_public(text).map_err(named)?;
        let role = Role::from_prefix(prefix).ok_or_else(|| {
            named(nkey::Flaw("does not start with the letter of a role (N, C, O, A, U, M, V)".into()))
        })?;
        Ok((Self { role, bytes }, sealed))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&nkey::encode_public(self.role.prefix(), &self.bytes))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Strict: the checksum must hold. For keys that people type.
impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::parse(text)? {
            (key, true) => Ok(key),
            (_, false) => Err(Error::invalid(format!(
                "'{text}' is not a public key: its checksum does not match; a character was changed, lost or swapped"
            ))),
        }
    }
}

/// Overwrites what calls that have returned left on the stack of this thread, to [`WIPED_STACK_BYTES`] below the caller: a seed
/// that was moved by value leaves its bytes there. Called once the keys of a process are made.
pub fn wipe_stack() {
    #[inline(never)]
    fn fill() {
        let mut room = [0u8; WIPED_STACK_BYTES];
        std::hint::black_box(&mut room).zeroize();
    }
    fill();
}

/// A key that can sign.
#[derive(Clone)]
pub struct KeyPair {
    role: Role,
    pair: Arc<ed25519::KeyPair>,
}

impl KeyPair {
    /// A new key from the system's random numbers.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](crate::error::Kind::Unavailable): the system gives no random numbers.
    pub fn generate(role: Role) -> Result<Self> {
        let mut raw = [0; nkey::KEY_BYTES];
        getrandom::fill(&mut raw).map_err(|cause| {
            Error::unavailable(format!("cannot make a key: the system gives no random numbers: {cause}"))
        })?;
        Self::from_raw_seed(role, raw)
    }

    /// The key behind the text of a seed, `S…`. Surrounding white space is not forgiven here; callers that read files trim.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid), telling which part is wrong, never the seed.
    pub fn from_seed(text: &str) -> Result<Self> {
        let refused = |why: &str| Error::invalid(format!("the text given is not a seed: it {why}"));
        let (prefix, raw) = nkey::decode_seed(text).map_err(|flaw| refused(&flaw.0))?;
        let role = Role::from_prefix(prefix)
            .ok_or_else(|| refused("does not name a role in its second letter (one of N, C, O, A, U, M, V)"))?;
        Self::from_raw_seed(role, raw)
    }

    /// The key with the 32 secret bytes `raw`.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid): all bytes are zero, as a wiped or unwritten file gives.
    pub fn from_raw_seed(role: Role, mut raw: [u8; nkey::KEY_BYTES]) -> Result<Self> {
        let pair = ed25519::KeyPair::try_from_seed(ed25519::Seed::new(raw)).map(Arc::new);
        raw.zeroize();
        match pair {
            Ok(pair) => Ok(Self { role, pair }),
            Err(_) => Err(Error::invalid("a seed of 32 zero bytes is no key; generate one")),
        }
    }

    /// A key that follows from `name` alone, the same on every host: SHA-256 of the text is its seed.
    ///
    /// Anyone can compute it, so its signature proves nothing and nothing may trust it. It only gives things that are
    /// part of this program a name that links and reference maps can use across a lattice.
    pub fn from_name(role: Role, name: &str) -> Self {
        Self::from_raw_seed(role, Sha256::digest(name.as_bytes()).into())
            .expect("no known text has an all-zero SHA-256 digest")
    }

    /// Keeps the secret part out of swap space, for as long as this process runs; for the few keys that live as long as
    /// it does. Best effort: where the kernel refuses (`RLIMIT_MEMLOCK` is used up), the key works all the same.
    pub fn keep_in_memory(&self) {
        let _ = resident::keep(&*self.pair);
    }

    /// What the key stands for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey { role: self.role, bytes: *self.pair.pk }
    }

    /// The seed's text: a secret, wiped when dropped.
    pub fn seed(&self) -> SeedText {
        SeedText(nkey::encode_seed(self.role.prefix(), &self.raw_seed()))
    }

    /// The 32 secret bytes, for another implementation of the same signature.
    pub(super) fn raw_seed(&self) -> Zeroizing<[u8; nkey::KEY_BYTES]> {
        Zeroizing::new(*self.pair.sk.seed())
    }

    /// Signs `message`; the same message always gives the same signature.
    pub fn sign(&self, message: &[u8]) -> [u8; PublicKey::SIGNATURE_BYTES] {
        *self.pair.sk.sign(message, None)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.public_key())
    }
}

/// The text of a seed. It has no `Display` and no readable `Debug`, so it cannot slip into a log.
pub struct SeedText(String);

impl SeedText {
    /// The text, for the one place that writes it out.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SeedText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SeedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeedText(hidden)")
    }
}

/// The key of the provider `builtin:{name}` of this program, the same on every host and in every version.
///
/// A change of the derivation would orphan every link that names a built-in provider: a test pins it.
pub fn builtin_provider_key(name: &str) -> PublicKey {
    KeyPair::from_name(Role::Service, &format!("latticed builtin:{name}")).public_key()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use data_encoding::HEXLOWER;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/nkeys.json")).unwrap()
    }

    #[test]
    fn every_role_encodes_signs_and_verifies_as_the_vectors_say() {
        let vectors = vectors();
        let keys = vectors["keys"].as_array().unwrap();
        assert_eq!(keys.len(), Role::ALL.len());
        for key in keys {
            let text = |name: &str| key[name].as_str().unwrap();
            let role: Role = text("type").parse().unwrap();
            assert_eq!(u64::from(role.prefix()), key["prefix_byte"].as_u64().unwrap());
            let raw: [u8; 32] = HEXLOWER.decode(text("seed_raw_hex").as_bytes()).unwrap().try_into().unwrap();
            let pair = KeyPair::from_raw_seed(role, raw).unwrap();
            assert_eq!(pair.seed().expose(), text("seed"));
            assert_eq!(pair.public_key().to_string(), text("public_key"));

            let read = KeyPair::from_seed(text("seed")).unwrap();
            assert_eq!((read.role(), read.public_key()), (role, pair.public_key()));
            assert_eq!(text("public_key").parse::<PublicKey>().unwrap(), pair.public_key());

            let message = text("signed_message_utf8").as_bytes();
            let signature = pair.sign(message);
            assert_eq!(HEXLOWER.encode(&signature), text("signature_hex"));
            assert!(pair.public_key().verify(message, &signature));
            assert!(!pair.public_key().verify(b"hello, lattice", &signature));
            assert!(!pair.public_key().verify(message, &signature[..63]));
        }
    }

    #[test]
    fn a_damaged_checksum_is_refused_from_people_and_forgiven_from_peers() {
        let vectors = vectors();
        let public = vectors["damaged_checksum_public_key"]["value"].as_str().unwrap();
        let refusal = public.parse::<PublicKey>().unwrap_err();
        assert!(refusal.text().contains("checksum"), "{refusal}");
        let canonical = "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV";
        assert_eq!(PublicKey::parse_lenient(public).unwrap().to_string(), canonical);

        let seed = vectors["damaged_checksum_seed"]["value"].as_str().unwrap();
        let refusal = KeyPair::from_seed(seed).unwrap_err();
        assert!(refusal.text().contains("checksum"), "{refusal}");
    }

    #[test]
    fn a_bad_seed_is_told_what_is_wrong_and_never_repeated() {
        let bad = vectors()["bad_seed_errors"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert!(bad.contains(&"SAABADSEED".to_string()));
        let good = KeyPair::generate(Role::Account).unwrap();
        let good = good.seed().expose().to_string();
        for (seed, expected) in [
            ("SAABADSEED".to_string(), "10 characters instead of 58"),
            ("A".repeat(58), "does not start with S"),
            (good.to_lowercase(), "position 1 "),
            (format!("{}1", &good[..57]), "position 58 "),
            (format!("SB{}", &good[2..]), ""),
            (good[..56].replacen('S', "A", 1), "public key, not a seed"),
            ("é".repeat(29), "position 1 "),
            ("é".repeat(30), "30 characters instead"),
        ] {
            let refusal = KeyPair::from_seed(&seed).unwrap_err();
            assert_eq!(refusal.kind(), Kind::Invalid);
            assert!(refusal.text().contains(expected), "{refusal}");
            assert!(!refusal.text().contains(&seed), "{refusal}");
        }
        let refusal = good.parse::<PublicKey>().unwrap_err();
        assert!(!refusal.text().contains(&good), "{refusal}");
    }

    #[test]
    fn neither_debug_shows_a_seed() {
        let pair = KeyPair::generate(Role::Cluster).unwrap();
        let shown = format!("{pair:?} {:?}", pair.seed());
        assert!(!shown.contains(pair.seed().expose()), "{shown}");
        assert!(shown.contains(&pair.public_key().to_string()));
    }

    #[test]
    fn a_zero_seed_is_refused() {
        assert_eq!(KeyPair::from_raw_seed(Role::User, [0; 32]).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn roles_are_read_from_names_words_and_letters() {
        for role in Role::ALL {
            assert_eq!(role.name().parse::<Role>().unwrap(), role);
            assert_eq!(role.letter().to_string().parse::<Role>().unwrap(), role);
        }
        assert_eq!("Host".parse::<Role>().unwrap(), Role::Server);
        assert_eq!("actor".parse::<Role>().unwrap(), Role::Module);
        assert_eq!("provider".parse::<Role>().unwrap(), Role::Service);
        assert_eq!("key".parse::<Role>().unwrap_err().kind(), Kind::Usage);
    }

    #[test]
    fn built_in_providers_keep_their_keys() {
        let keys = ["httpserver", "keyvalue"].map(|name| builtin_provider_key(name).to_string());
        assert_eq!(
            keys,
            [
                "VBGBYWC3E6RDBUL2YUWGUP2VBMLJYKL5P7PL2WHDMMST4XKBNRPJAOD7",
                "VB2NS2ZVGQCH7REMPGIRMC3Y6JAPXRIVHNWBTYADLQCZNHBUS7V3ATND",
            ]
        );
    }
}
