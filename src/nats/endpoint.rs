//! Which NATS servers to connect to, and how: addresses, logins, TLS, patience. `config` builds these.

use std::{fmt, net::IpAddr, path::PathBuf, time::Duration};

use super::{backoff, local_server::LocalServer};
use crate::{
    claims::KeyPair,
    error::{Error, Result},
};

/// Port of a NATS server when none is given.
pub const DEFAULT_PORT: u16 = 4222;

/// Servers of one endpoint at most; more are refused.
pub const MAX_SERVERS: usize = 16;

/// How long a connection that lost the other side without a word may look alive unless set otherwise. Four probes fit
/// in; halving it doubles the bytes an idle link costs (one probe and its answer are 12 bytes, about 160 with TLS and
/// TCP).
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(120);

/// Longest wait for the client library to take one message, subscribe or unsubscribe, unless set otherwise. It waits
/// only when its queue is full or the link died this moment; what is given up then is answered as unavailable.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(1);

/// Time between two signs of life of an idle watch of a bucket. A bucket that was taken away is noticed after two of
/// them; at five seconds they would be the largest part of what an idle host costs on a metered link.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(60);

/// Patience with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Widest first wait before connecting again.
    pub reconnect_base: Duration,
    /// Widest wait ever.
    pub reconnect_cap: Duration,
    /// How long one attempt to connect may take, TLS and login included.
    pub connect: Duration,
    /// How long a silent connection may look alive.
    pub silence: Duration,
    /// How long the client library may take over one message.
    pub patience: Duration,
    /// Time between two signs of life of the bucket's watch.
    pub bucket_heartbeat: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            reconnect_base: backoff::DEFAULT_BASE,
            reconnect_cap: backoff::DEFAULT_CAP,
            connect: Duration::from_secs(5),
            silence: DEFAULT_SILENCE,
            patience: DEFAULT_PATIENCE,
            bucket_heartbeat: DEFAULT_HEARTBEAT,
        }
    }
}

/// A NATS service: its servers and the way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// At least one; any of them will do.
    pub servers: Vec<Server>,
    /// Who we are to them.
    pub login: Login,
    /// How the line is kept private.
    pub tls: Tls,
    /// Where answers to our own requests are heard, in place of `_INBOX`.
    pub inbox: Option<String>,
    /// The server on this machine that is meant because nobody named one; its owner is checked at each attempt to
    /// connect.
    pub unnamed: Option<LocalServer>,
}

impl Endpoint {
    /// The servers in `hosts`, a host, an address or URL, or several separated by commas; `port` is for those that name
    /// none. A user or token inside a URL becomes the login unless `login` says otherwise.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config), naming the part.
    pub fn parse(hosts: &str, port: u16, login: Login, tls: Tls) -> Result<Self> {
        let mut login = login;
        let mut servers = Vec::new();
        for text in hosts.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let (server, found) = Server::parse(text, port)?;
            servers.push(server);
            if let (Login::None, Some(found)) = (&login, found) {
                login = found;
            }
        }
        if servers.is_empty() {
            return Err(Error::config("no NATS server is named; give a host, host:port or nats://host:port"));
        }
        if servers.len() > MAX_SERVERS {
            return Err(Error::config(format!(
                "{} NATS servers are named, at most {MAX_SERVERS} are tried",
                servers.len()
            )));
        }
        Ok(Self { servers, login, tls, inbox: None, unnamed: None })
    }

    /// The first server as other programs are told it, without a login: `nats://host:port`.
    pub fn url(&self) -> String {
        self.servers.first().map(|server| server.url(self.tls.required)).unwrap_or_default()
    }

    /// Whether a server of it may be on another machine.
    pub fn leaves_this_machine(&self) -> bool {
        self.servers.iter().any(|server| !server.is_on_this_machine())
    }

    /// Whether the line is encrypted whatever the server says.
    pub fn is_encrypted(&self) -> bool {
        self.tls.required || self.tls.first || self.servers.iter().all(|server| server.tls)
    }
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether its URL asked for TLS.
    pub tls: bool,
}

impl Server {
    /// The server as a URL without a login.
    pub fn url(&self, tls: bool) -> String {
        let scheme = if tls || self.tls { "tls" } else { "nats" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{open}{}{close}:{}", self.host, self.port)
    }

    /// Whether it is named by an address of this machine alone.
    fn is_on_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    fn parse(text: &str, default_port: u16) -> Result<(Self, Option<Login>)> {
        // The text may hold a password, so it is shown only up to the sign that ends one.
        let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
        let refused = |why: &str| Error::config(format!("the NATS server '{shown}' cannot be used: {why}"));
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("nats", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            Some((scheme, _)) => {
                return Err(refused(&format!("{scheme}:// is not spoken here; use nats:// or tls://")));
            }
        };
        let (login, rest) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((login, rest)) => (
                Some(match login.split_once(':') {
                    Some((user, password)) => {
                        Login::UserPassword { user: user.to_owned(), password: password.to_owned() }
                    }
                    None => Login::Token(login.to_owned()),
                }),
                rest,
            ),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let port = |text: &str| {
            text.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| refused("the port is not a number from 1 to 65535"))
        };
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, tail) = bracketed.split_once(']').ok_or_else(|| refused("a bracket is not closed"))?;
            match tail.strip_prefix(':') {
                Some(text) => (host, port(text)?),
                None if tail.is_empty() => (host, default_port),
                None => return Err(refused("there is something after the bracket")),
            }
        } else {
            match rest.split_once(':') {
                // More than one colon without brackets is a bare IPv6 address.
                Some((_, tail)) if tail.contains(':') => (rest, default_port),
                Some((host, text)) => (host, port(text)?),
                None => (rest, default_port),
            }
        };
        if host.is_empty() || host.contains(['/', '?', '#', ' ']) {
            return Err(refused("there is no host name in it"));
        }
        Ok((Self { host: host.to_owned(), port, tls }, login))
    }
}

/// Who we are to a server. No `Debug` output shows a secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// Nobody in particular.
    #[default]
    None,
    /// A shared secret.
    Token(String),
    /// A name and a password.
    UserPassword {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A key the server knows; the seed signs what it asks.
    Nkey {
        /// `SU…`.
        seed: String,
    },
    /// A token of the account's issuer and the key it names.
    Jwt {
        /// The token.
        jwt: String,
        /// `SU…`.
        seed: String,
    },
    /// A file with both, read anew for each connection so that it may be replaced.
    CredentialsFile(PathBuf),
}

impl Login {
    /// The login of the `*_jwt` and `*_seed` settings: a seed alone is a key, both are a token, none is nobody.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind::Config): a token without a seed, or a seed that is none.
    pub fn from_jwt_and_seed(jwt: &str, seed: &str) -> Result<Self> {
        if !seed.is_empty() {
            KeyPair::from_seed(seed).map_err(|cause| Error::config(cause.context("NATS login").text()))?;
        }
        match (jwt.is_empty(), seed.is_empty()) {
            (true, true) => Ok(Login::None),
            (true, false) => Ok(Login::Nkey { seed: seed.to_owned() }),
            (false, false) => Ok(Login::Jwt { jwt: jwt.to_owned(), seed: seed.to_owned() }),
            (false, true) => Err(Error::config("a NATS user token (JWT) is set without its seed; set both")),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::None => "none",
            Login::Token(_) => "token",
            Login::UserPassword { .. } => "user and password",
            Login::Nkey { .. } => "nkey",
            Login::Jwt { .. } => "jwt",
            Login::CredentialsFile(path) => return write!(f, "credentials file {}", path.display()),
        })
    }
}

/// How a line is kept private.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Refuse to speak without it. Servers that demand it get it anyway.
    pub required: bool,
    /// Shake hands before the server says a word; needs NATS 2.10.
    pub first: bool,
    /// Who signs the server's certificate, PEM; the platform's own roots when not given. Read anew for each connection.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key, PEM. Read anew for each connection.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn server(text: &str) -> Server {
        Endpoint::parse(text, 4333, Login::None, Tls::default()).unwrap().servers.remove(0)
    }

    #[test]
    fn servers_are_named_in_every_usual_way() {
        for (text, url) in [
            ("127.0.0.1", "nats://127.0.0.1:4333"),
            ("nats.example:4222", "nats://nats.example:4222"),
            ("nats://nats.example", "nats://nats.example:4333"),
            ("tls://nats.example:4443/", "tls://nats.example:4443"),
            ("::1", "nats://[::1]:4333"),
            ("[::1]:5000", "nats://[::1]:5000"),
            ("nats://[fe80::1]", "nats://[fe80::1]:4333"),
        ] {
            assert_eq!(server(text).url(false), url, "{text}");
        }
        assert_eq!(server("a").url(true), "tls://a:4333");
        let several = Endpoint::parse("a, b:1,nats://c", 4222, Login::None, Tls::default()).unwrap();
        assert_eq!((several.servers.len(), several.url().as_str()), (3, "nats://a:4222"));
    }

    #[test]
    fn servers_beyond_this_machine_are_told_apart() {
        let endpoint = |text: &str| Endpoint::parse(text, 4222, Login::None, Tls::default()).unwrap();
        for text in ["127.0.0.1", "127.8.0.1:5000", "localhost", "::1", "[::ffff:127.0.0.1]:5000"] {
            assert!(!endpoint(text).leaves_this_machine(), "{text}");
        }
        for text in ["hub", "10.0.0.1", "127.0.0.1,hub", "::2", "127.0.0.1.example"] {
            assert!(endpoint(text).leaves_this_machine(), "{text}");
        }
        assert!(endpoint("tls://a,tls://b").is_encrypted() && !endpoint("tls://a,b").is_encrypted());
    }

    #[test]
    fn useless_servers_are_refused_and_passwords_not_shown() {
        for text in ["", " , ", "http://a", "a:0", "a:99999", "nats://", "[::1", "[::1]x", "a b"] {
            assert!(Endpoint::parse(text, 4222, Login::None, Tls::default()).is_err(), "{text}");
        }
        let refused = Endpoint::parse("nats://me:swordfish@a:x", 4222, Login::None, Tls::default()).unwrap_err();
        assert!(!refused.text().contains("swordfish"));
        let many = vec!["a"; MAX_SERVERS + 1].join(",");
        assert!(Endpoint::parse(&many, 4222, Login::None, Tls::default()).is_err());
    }

    #[test]
    fn a_login_inside_a_url_counts_unless_another_is_given() {
        let parse = |text: &str, login| Endpoint::parse(text, 4222, login, Tls::default()).unwrap();
        let user = Login::UserPassword { user: "me".into(), password: "p@ss".into() };
        assert_eq!(parse("nats://me:p@ss@a", Login::None).login, user);
        assert_eq!(parse("nats://t0k3n@a", Login::None).login, Login::Token("t0k3n".into()));
        assert_eq!(parse("nats://t0k3n@a", user.clone()).login, user);
        assert!(!format!("{:?}", parse("nats://me:p@ss@a", Login::None)).contains("p@ss"));
    }

    #[test]
    fn seeds_and_tokens_make_the_login_they_mean() {
        let seed = KeyPair::from_name(crate::claims::Role::User, "u").seed().expose().to_owned();
        assert_eq!(Login::from_jwt_and_seed("", "").unwrap(), Login::None);
        assert_eq!(Login::from_jwt_and_seed("", &seed).unwrap(), Login::Nkey { seed: seed.clone() });
        assert!(matches!(Login::from_jwt_and_seed("a.b.c", &seed).unwrap(), Login::Jwt { .. }));
        assert!(Login::from_jwt_and_seed("a.b.c", "").is_err());
        assert!(Login::from_jwt_and_seed("", "SUnonsense").is_err());
    }

    proptest! {
        #[test]
        fn no_server_text_panics(text in "\\PC{0,60}") {
            let _ = Endpoint::parse(&text, 4222, Login::None, Tls::default());
        }
    }
}
