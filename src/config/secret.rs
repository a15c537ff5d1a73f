//! A value that must not be seen.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

/// A seed, token or password. Neither `Debug` nor `Display` shows it. Clones share one place in memory, which is wiped when
/// the last of them goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// What stands for every secret.
    pub const MASK: &str = "(set, hidden)";

    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn it_does_not_show() {
        let secret = Secret::new("SCABC");
        assert!(!format!("{secret:?} {secret} {:?}", Some(&secret)).contains("SCABC"));
        assert_eq!(secret.expose(), "SCABC");
    }
}
