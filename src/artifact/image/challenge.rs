//! How a registry asks for a login: the header `WWW-Authenticate` (RFC 9110 §11.6.1, and the distribution API's tokens).
//!
//! Pure.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Longest header that is read, bytes. Those in use have 200.
const MAX_CHALLENGE_BYTES: usize = 4096;

/// Ways to log in that are tried for one answer. Registries name one or two.
const MAX_CHALLENGES: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password, with each request.
    Basic,
    /// A token, to be had from another service.
    Bearer {
        /// Address of that service.
        realm: String,
        /// What it is to be told.
        service: Option<String>,
        /// What the token is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The ways in all of `headers` that this host knows, the one to try first before the others: tokens before passwords.
    pub fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Vec<Self> {
        let (mut tokens, mut basic) = (Vec::new(), false);
        for header in headers.into_iter().filter(|header| header.len() <= MAX_CHALLENGE_BYTES) {
            for (scheme, parameters) in schemes(header) {
                let value = |name: &str| {
                    let named = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                    named.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
                };
                basic |= scheme.eq_ignore_ascii_case("basic");
                if scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = value("realm")
                {
                    tokens.push(Self::Bearer { realm, service: value("service"), scope: value("scope") });
                }
            }
        }
        tokens.extend(basic.then_some(Self::Basic));
        tokens.truncate(MAX_CHALLENGES);
        tokens
    }
}

/// The address at which `realm` gives a token.
pub fn token_address(realm: &str, service: Option<&str>, scope: &str) -> String {
    let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut address = realm.to_owned();
    let mut mark = if realm.contains('?') { '&' } else { '?' };
    for (name, value) in [("service", service), ("scope", Some(scope))] {
        if let Some(value) = value {
            address.push(mark);
            address.push_str(&format!("{name}={}", escape(value)));
            mark = '&';
        }
    }
    address
}

type Parameters = Vec<(String, String)>;

/// `Scheme name="value", name=value, Other …`.
fn schemes(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=', '\t']).unwrap_or(rest.len());
        let word = &rest[..end];
        let after = rest[end..].trim_start();
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, tail) = value_of(value.trim_start());
                parameters.push((word.to_owned(), value));
                rest = tail;
            }
            // A value without a scheme: what follows makes no more sense.
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

/// A quoted or bare value, and what follows.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned), scope: scope.map(str::to_owned) }
    }

    fn parse(header: &str) -> Vec<Challenge> {
        Challenge::parse([header])
    }

    #[test]
    fn headers_of_registries_are_read() {
        assert_eq!(parse("Basic realm=\"Registry Realm\""), [Challenge::Basic]);
        assert_eq!(
            parse(
                "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"repository:a/b:pull,push\""
            ),
            [bearer("https://auth.example/token", Some("registry.example"), Some("repository:a/b:pull,push"))]
        );
        let both = [bearer("https://a.example/t", None, None), Challenge::Basic];
        assert_eq!(parse("basic, BEARER Realm=https://a.example/t"), both);
        assert_eq!(parse("BASIC realm=\"x\", Bearer realm=\"https://a.example/t\",scope=\"\""), both);
        assert_eq!(Challenge::parse(["Negotiate", "Basic realm=x", "bearer realm=https://a.example/t"]), both);
        assert_eq!(parse("Bearer realm=\"a\\\"b\" , service=x"), [bearer("a\"b", Some("x"), None)]);
        for nothing in ["Negotiate", "Bearer", "Bearer realm=\"\"", "=x", &"Basic ".repeat(2000)] {
            assert_eq!(parse(nothing), [], "{nothing:.40}");
        }
    }

    #[test]
    fn a_token_is_asked_for_by_an_address() {
        assert_eq!(
            token_address("https://a.example/token?x=1", Some("a b"), "repository:a/b:pull"),
            "https://a.example/token?x=1&service=a%20b&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(token_address("https://a.example/token", None, "s"), "https://a.example/token?scope=s");
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_passed_over(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn pieces_of_headers_are_too(text in "([a-zA-Z]{0,6}[ ,=\"\\\\]{0,3}){0,12}") {
            prop_assert!(parse(&text).len() <= MAX_CHALLENGES);
        }
    }
}
