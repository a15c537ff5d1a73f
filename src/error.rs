//! The one error of the crate: a [`Kind`] for programs, a text for people.
//!
//! The text names the thing, the reason and, where there is one, the remedy. It may travel to a remote client or a log,
//! so it never holds a secret.

use std::fmt;

/// The result of everything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for code that must decide; the operator reads the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line or a request was put wrongly.
    Usage,
    /// A setting, manifest or environment value cannot be used.
    Config,
    /// The named thing does not exist here.
    NotFound,
    /// The named thing exists already, or with other content.
    Conflict,
    /// Bytes from outside are malformed: a module, token, archive, message.
    Invalid,
    /// Understood, and refused: signature, issuer, missing capability, policy.
    Denied,
    /// A limit was reached; the text names the limit and its setting.
    Limit,
    /// Too much at once; the same would succeed later. The text names the limit and its setting.
    Busy,
    /// A deadline passed.
    Timeout,
    /// Something outside this process does not answer now and may later.
    Unavailable,
    /// The disk failed, is full, or holds damaged data.
    Storage,
    /// A guest trapped or answered with an error of its own.
    Guest,
    /// An invariant of this program does not hold: a bug.
    Internal,
}

impl Kind {
    /// Every kind, in the order of the exit codes; help, man page and tests go through it.
    pub const ALL: [Kind; 13] = [
        Kind::Usage,
        Kind::Config,
        Kind::NotFound,
        Kind::Conflict,
        Kind::Invalid,
        Kind::Denied,
        Kind::Limit,
        Kind::Timeout,
        Kind::Unavailable,
        Kind::Storage,
        Kind::Guest,
        Kind::Busy,
        Kind::Internal,
    ];

    /// The kind in a few words, as the table of exit codes in the help and the man page says it.
    pub fn meaning(self) -> &'static str {
        match self {
            Kind::Usage => "the command line or a request was put wrongly",
            Kind::Config => "a setting, manifest or environment value cannot be used",
            Kind::NotFound => "the named thing does not exist here",
            Kind::Conflict => "the named thing exists already, or with other content",
            Kind::Invalid => "malformed bytes: a module, token, archive or message",
            Kind::Denied => "refused: signature, issuer, missing capability, permission",
            Kind::Limit => "a limit was reached",
            Kind::Timeout => "a deadline passed",
            Kind::Unavailable => "something outside this program does not answer now",
            Kind::Storage => "the disk failed, is full, or holds damaged data",
            Kind::Guest => "the actor trapped or answered with an error of its own",
            Kind::Busy => "too much at once; try again later",
            Kind::Internal => "a bug in this program; please report it",
        }
    }

    /// Whether the same may succeed later without anybody changing anything: something was away, slow, or had too much
    /// to do.
    pub fn is_passing(self) -> bool {
        match self {
            Kind::Busy | Kind::Timeout | Kind::Unavailable => true,
            Kind::Usage
            | Kind::Config
            | Kind::NotFound
            | Kind::Conflict
            | Kind::Invalid
            | Kind::Denied
            | Kind::Limit
            | Kind::Storage
            | Kind::Guest
            | Kind::Internal => false,
        }
    }

    /// Whether it says nothing against what was asked for: it passes, or the disk is to blame, which may have room
    /// again by the next time. Who keeps a list of what was refused leaves these out of it.
    pub fn is_curable(self) -> bool {
        self.is_passing() || self == Kind::Storage
    }

    /// The kind whose [`Kind::name`] is `name`, for readers of our own JSON.
    pub fn from_name(name: &str) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The exit code a command ends with for this kind (documented in the man page).
    ///
    /// 2 is a usage error as clap reports it; codes from 3 up keep clear of the shell's own.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Config => 3,
            Kind::NotFound => 4,
            Kind::Conflict => 5,
            Kind::Invalid => 6,
            Kind::Denied => 7,
            Kind::Limit => 8,
            Kind::Timeout => 9,
            Kind::Unavailable => 10,
            Kind::Storage => 11,
            Kind::Guest => 12,
            Kind::Busy => 13,
            Kind::Internal => 70,
        }
    }

    /// The kind's name as JSON output and logs show it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Config => "config",
            Kind::NotFound => "not-found",
            Kind::Conflict => "conflict",
            Kind::Invalid => "invalid",
            Kind::Denied => "denied",
            Kind::Limit => "limit",
            Kind::Timeout => "timeout",
            Kind::Unavailable => "unavailable",
            Kind::Storage => "storage",
            Kind::Guest => "guest",
            Kind::Busy => "busy",
            Kind::Internal => "internal",
        }
    }
}

/// An error: a kind and a text. One machine word beside the discriminant, so results stay small.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    kind: Kind,
    text: String,
    cause: Cause,
}

/// What a few places must tell apart within a kind. Everywhere else the kind is enough.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Any,
    TooLarge,
    Trap,
}

impl Error {
    /// An error of `kind` that reads `text`.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self::caused(Cause::Any, kind, text)
    }

    /// A [`Kind::Limit`]: something has more bytes than it may have. Whoever set that limit can name its setting.
    pub fn too_large(text: impl Into<String>) -> Self {
        Self::caused(Cause::TooLarge, Kind::Limit, text)
    }

    /// A [`Kind::Guest`]: the guest trapped. One that it answered with is [`Error::guest`].
    pub fn trap(text: impl Into<String>) -> Self {
        Self::caused(Cause::Trap, Kind::Guest, text)
    }

    fn caused(cause: Cause, kind: Kind, text: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, text: text.into(), cause }))
    }

    /// What went wrong, for code.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether it is a [`Error::too_large`].
    pub fn is_too_large(&self) -> bool {
        self.0.cause == Cause::TooLarge
    }

    /// Whether it is a [`Error::trap`].
    pub fn is_trap(&self) -> bool {
        self.0.cause == Cause::Trap
    }

    /// What went wrong, for people.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The same error with `context: ` before its text.
    pub fn context(self, context: impl fmt::Display) -> Self {
        let Inner { kind, text, cause } = *self.0;
        Self::caused(cause, kind, format!("{context}: {text}"))
    }
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $(
                #[doc = concat!("An error of [`Kind::", stringify!($kind), "`].")]
                pub fn $name(text: impl Into<String>) -> Self {
                    Self::new(Kind::$kind, text)
                }
            )*
        }
    };
}

constructors! {
    usage => Usage, config => Config, not_found => NotFound, conflict => Conflict, invalid => Invalid,
    denied => Denied, limit => Limit, timeout => Timeout, unavailable => Unavailable, storage => Storage,
    guest => Guest, busy => Busy, internal => Internal,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind(), self.text())
    }
}

impl std::error::Error for Error {}

/// Adds "what was being done" to any foreign error on its way into [`Error`].
pub trait Context<T> {
    /// Turns the error into an [`Error`] of `kind` that reads `context: cause`.
    fn context(self, kind: Kind, context: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: Kind, context: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| Error::new(kind, format!("{context}: {cause}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_keeps_what_an_error_is() {
        let large = Error::too_large("3 bytes, more than the 2 allowed").context("a.wasm");
        assert_eq!((large.kind(), large.text()), (Kind::Limit, "a.wasm: 3 bytes, more than the 2 allowed"));
        assert!(large.is_too_large() && !large.is_trap());
        let trap = Error::trap("unreachable").context("echo");
        assert!(trap.is_trap() && trap.kind() == Kind::Guest && !trap.is_too_large());
        assert!(!Error::guest("unreachable").is_trap() && !Error::limit("allowed").is_too_large());
    }

    #[test]
    fn what_passes_is_curable_and_so_is_the_disk_but_no_verdict_is() {
        let of = |question: fn(Kind) -> bool| Kind::ALL.into_iter().filter(|kind| question(*kind)).collect::<Vec<_>>();
        assert_eq!(of(Kind::is_passing), [Kind::Timeout, Kind::Unavailable, Kind::Busy]);
        assert_eq!(of(Kind::is_curable), [Kind::Timeout, Kind::Unavailable, Kind::Storage, Kind::Busy]);
    }
}
