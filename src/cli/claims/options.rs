//! Options that the commands which write tokens share.

use crate::{
    claims::{Body, Claims, KeyPair, Now, PublicKey, Token},
    cli::key_source,
    error::{Error, Result},
};

/// Who signs, and about whom.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct IssuerAndSubject {
    /// Seed of the key that signs.
    #[arg(long, value_name = "FILE|env:NAME")]
    pub issuer: String,
    /// Key that the token is about: its seed's place, or the public key itself.
    #[arg(long, value_name = "FILE|env:NAME|KEY")]
    pub subject: String,
}

impl IssuerAndSubject {
    /// Finds both keys, of the roles that a token of kind `B` has.
    pub fn find<B: Body>(&self) -> Result<(KeyPair, PublicKey)> {
        let subjects = B::SUBJECT.as_slice();
        let issuer = key_source::key_pair("--issuer", &self.issuer, B::ISSUERS)?;
        Ok((issuer, key_source::public_key("--subject", &self.subject, subjects)?))
    }
}

/// What people call it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Names {
    /// Revision: an update of a running entity must have a higher one. Default: the time of signing.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub rev: Option<i32>,
    /// Version for people, 1.2.0.
    #[arg(long)]
    pub ver: Option<String>,
}

/// What an actor may do and is called by.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Labels {
    /// Contract the actor may use; repeat it, or separate several by commas.
    #[arg(long = "cap", value_name = "CONTRACT", value_delimiter = ',')]
    pub caps: Vec<String>,
    /// Free label; repeat it, or separate several by commas.
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    pub tags: Vec<String>,
    /// Second name by which other actors may call it: letters, digits, _ and /.
    #[arg(long, value_name = "ALIAS")]
    pub call_alias: Option<String>,
}

impl Labels {
    /// The call alias as it is written into claims.
    pub fn call_alias(&self) -> Result<Option<String>> {
        let Some(given) = &self.call_alias else { return Ok(None) };
        let alias = crate::claims::body::normalise_call_alias(given);
        let is_known = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"_/".contains(&letter);
        if alias.len() < 2 || !alias.bytes().all(is_known) {
            return Err(Error::usage(format!(
                "--call-alias '{given}': a call alias has two or more of a-z, 0-9, _ and /"
            )));
        }
        if alias.len() == PUBLIC_KEY_CHARS {
            return Err(Error::usage(format!("--call-alias '{given}' has the length of a public key; choose another")));
        }
        Ok(Some(alias))
    }
}

/// Characters of a public key: hosts take a call alias of this length for one.
const PUBLIC_KEY_CHARS: usize = 56;

/// From when and how long a token holds.
#[derive(Debug, Default, clap::Args)]
pub(in crate::cli) struct Dates {
    /// Expires this long after signing: 90s, 15m, 12h, 30d, 4w. Default: never.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub expires_in: Option<u64>,
    /// Is not valid before this long after signing. Default: valid at once.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    pub valid_in: Option<u64>,
}

impl Dates {
    /// Writes the dates into `claims` and signs them.
    pub fn sign<B: Body>(&self, claims: Claims<B>, now: Now, issuer: &KeyPair) -> Result<Token<B>> {
        Token::sign(self.set(claims, now)?, issuer)
    }

    /// Writes the dates into `claims`.
    pub fn set<B>(&self, mut claims: Claims<B>, now: Now) -> Result<Claims<B>> {
        if (self.expires_in.is_some() || self.valid_in.is_some()) && !now.is_trusted() {
            return Err(Error::unavailable(
                "the clock of this machine is earlier than this program's release, so no dates can be set; set the \
                 clock, or sign without --expires-in and --valid-in",
            ));
        }
        let later = |seconds: Option<u64>| seconds.map(|seconds| now.unix_seconds().saturating_add(seconds));
        claims.exp = later(self.expires_in);
        claims.nbf = later(self.valid_in);
        if let (Some(exp), Some(nbf)) = (claims.exp, claims.nbf)
            && exp <= nbf
        {
            return Err(Error::usage("the token would expire before it becomes valid"));
        }
        Ok(claims)
    }
}

/// `Some` of what has elements.
pub(in crate::cli) fn non_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

/// Reads a time span in seconds, from `90s` to `4w`.
fn seconds(text: &str) -> Result<u64, String> {
    const UNITS: [(char, u64); 5] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400), ('w', 604_800)];
    let wrong = || "write a number and one of s, m, h, d, w, as in 30d".to_string();
    let (_, length) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    number.checked_mul(length).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_have_a_number_and_a_unit() {
        for (text, expected) in [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("4w", 2_419_200)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in
            ["", "d", "30", "0d", "-1d", "1.5h", "30 d", "1y", "99999999999999999999w", "9999999999999999999w", "3é"]
        {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn call_aliases_are_normalised_or_refused() {
        let alias = |text: &str| {
            let labels = Labels { caps: vec![], tags: vec![], call_alias: Some(text.into()) };
            labels.call_alias().map(Option::unwrap)
        };
        assert_eq!(alias("Acme/Echo-Actor"), Ok("acme/echo_actor".into()));
        for text in ["", "a", "a+b", "ü", &"m".repeat(56)] {
            assert!(alias(text).is_err(), "{text}");
        }
    }

    #[test]
    fn dates_need_a_clock_and_an_order() {
        let claims = || Claims::new("x", crate::claims::Invocation::default(), Now::judge(0, 0)).unwrap();
        let dates = |expires_in, valid_in| Dates { expires_in, valid_in };
        let set = dates(Some(10), Some(5)).set(claims(), Now::Trusted(100)).unwrap();
        assert_eq!((set.exp, set.nbf), (Some(110), Some(105)));
        assert!(dates(Some(5), Some(5)).set(claims(), Now::Trusted(100)).is_err());
        assert!(dates(Some(5), None).set(claims(), Now::judge(0, 0)).is_err());
        assert!(dates(None, None).set(claims(), Now::judge(0, 0)).is_ok());
    }
}
